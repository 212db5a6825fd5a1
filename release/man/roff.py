"""Text and Markdown as man(7) wants them; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

_MARKDOWN: Final = MarkdownIt("commonmark").enable("table")
_SPECIAL: Final = {"\\": "\\(rs", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
_DASH: Final = re.compile(r"(?<![^\W_])-|-(?=-)")
"""A hyphen that is no hyphen between two words: of an option, or the sign of a number."""

LinkText = Callable[[str, str], str]
"""What stands for a link, of the address and the text; it is plain text."""


def text(plain: str) -> str:
    """Plain text within a line."""
    return _DASH.sub(r"\\-", "".join(_SPECIAL.get(each, each) for each in plain))


def code(plain: str) -> str:
    """Text that somebody may copy: each hyphen is the character of a keyboard."""
    return "".join(_SPECIAL.get(each, each) for each in plain).replace("-", "\\-")


def line_of(escaped: str) -> str:
    """A line of escaped text; one that begins with what would be a request is none."""
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def bold(escaped: str) -> str:
    """Escaped text in bold."""
    return f"\\fB{escaped}\\fR"


def italic(escaped: str) -> str:
    """Escaped text in italics."""
    return f"\\fI{escaped}\\fR"


def macro(name: str, *arguments: str) -> str:
    """A line that is a macro with its arguments, which are escaped already."""
    quoted = (f'"{each.replace(chr(34), chr(92) + "(dq")}"' for each in arguments)
    return " ".join([f".{name}", *quoted])


def example(lines: Sequence[str]) -> Iterator[str]:
    """Lines that stay as they are, indented."""
    yield from (".PP", ".RS 4", ".EX")
    yield from (line_of(code(line)) for line in lines)
    yield from (".EE", ".RE")


def definition(tag: str, *paragraphs: str) -> Iterator[str]:
    """A term, and below it what is to be said of it; all is escaped already."""
    yield from (".TP", tag)
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".br"
        yield from map(line_of, paragraph.splitlines())


def markdown(source: str, link_text: LinkText) -> Iterator[str]:
    """A part of a page: headings are subsections, and each row of a table is a term and what is said of it."""
    yield from _Blocks(link_text).lines(_MARKDOWN.parse(source))


class _Blocks:
    """The blocks of a page, one after the other."""

    def __init__(self, link_text: LinkText) -> None:
        self._link_text = link_text
        self._items: list[int | None] = []
        """The numbers of the next items of the lists that we are in, the innermost last; None where there are none."""
        self._fresh_item = False
        """Whether the next paragraph is the first one of an item, so that its macro was written."""

    def lines(self, tokens: Sequence[Token]) -> Iterator[str]:
        """What there is in tokens of markdown-it."""
        rest = iter(tokens)
        for token in rest:
            match token.type:
                case "heading_open":
                    yield macro("SS", self._inline(next(rest)))
                case "paragraph_open":
                    if not self._fresh_item:
                        yield ".IP" if self._items else ".PP"
                    self._fresh_item = False
                    yield from self._inline(next(rest)).splitlines()
                case "fence" | "code_block":
                    yield from example(token.content.rstrip("\n").split("\n"))
                case "bullet_list_open" | "ordered_list_open":
                    if self._items:
                        yield ".RS 4"
                    self._items.append(int(token.attrGet("start") or 1) if token.type.startswith("ordered") else None)
                case "bullet_list_close" | "ordered_list_close":
                    self._items.pop()
                    yield ".RE" if self._items else ".PP"
                case "list_item_open":
                    yield self._item()
                    self._fresh_item = True
                case "table_open":
                    yield from self._table(rest)
                case "html_block":
                    raise ValueError(f"HTML has no form in a man page: {token.content}")
                case _:
                    pass

    def _item(self) -> str:
        number = self._items[-1]
        if number is None:
            return ".IP \\(bu 3"
        self._items[-1] = number + 1
        return f".IP {number}. 4"

    def _table(self, rest: Iterator[Token]) -> Iterator[str]:
        """The first cell of a row is the term, the second one says it; before the others stand the heads."""
        heads: list[str] = []
        for token in rest:
            if token.type == "table_close":
                yield ".PP"
                return
            if token.type == "tr_open":
                cells = [self._inline(each) for each in _cells(rest)]
                if heads:
                    others = [
                        f"{head.capitalize()}: {cell}" for head, cell in zip(heads[2:], cells[2:], strict=True) if cell
                    ]
                    yield from definition(cells[0], cells[1], *others)
                else:
                    heads = cells

    def _inline(self, token: Token) -> str:
        """A run of text; a line of the source is a line here."""
        parts: list[str] = []
        links: list[tuple[str, int]] = []
        for each in token.children or ():
            match each.type:
                case "text":
                    parts.append(text(each.content))
                case "code_inline":
                    parts.append(bold(code(each.content)))
                case "softbreak" | "hardbreak":
                    parts.append("\n")
                case "strong_open":
                    parts.append("\\fB")
                case "em_open":
                    parts.append("\\fI")
                case "strong_close" | "em_close":
                    parts.append("\\fR")
                case "link_open":
                    links.append((str(each.attrGet("href")), len(parts)))
                case "link_close":
                    address, begin = links.pop()
                    shown = "".join(parts[begin:])
                    parts[begin:] = [shown, text(self._link_text(address, shown))]
                case "image":
                    parts.append(text(each.content))
                case _:
                    raise ValueError(f"{each.type} has no form in a man page: {token.content}")
        return "\n".join(line_of(line.strip(" ")) for line in "".join(parts).split("\n"))


def _cells(rest: Iterator[Token]) -> Iterator[Token]:
    """The contents of the cells of a row, up to its end."""
    for token in rest:
        if token.type == "tr_close":
            return
        if token.type == "inline":
            yield token
