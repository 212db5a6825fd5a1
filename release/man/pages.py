"""What is in each man page, and where it is taken from: options from the programs, the rest from ``docs/``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Final, NamedTuple

import click

from realize import __version__
from realize.cli.main import realize
from realize.daemon.tap import Options
from release.man.roff import bold, code, definition, example, italic, line_of, macro, markdown, text
from release.options import Option, options_of, options_of_daemon
from release.reference.chain import without_next

USAGE: Final = "usage.md"
SELECTING: Final = "selecting.md"
LIMITS: Final = "limits.md"
TRAFFIC: Final = "traffic.md"
PRESERVING: Final = "preserving.md"
MANIFEST: Final = "manifest.md"
CHECK: Final = "check.md"
SCRIPTING: Final = "scripting.md"
DAEMON: Final = "daemon.md"
CONFIGURATION: Final = "configuration.md"

WHOLE: Final = ()
"""Instead of titles: the whole page."""

EXPLAINED_IN: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "move": {
        USAGE: ("Dry run", "What becomes of a file", "The name is taken", "Backups", "Rates, sizes and durations"),
        SELECTING: WHOLE,
        LIMITS: WHOLE,
        TRAFFIC: WHOLE,
        PRESERVING: WHOLE,
        MANIFEST: WHOLE,
    },
    "throttle": {USAGE: ("Rates, sizes and durations",), LIMITS: ("Rate limits",)},
    "check": {CHECK: WHOLE},
    "completion": {USAGE: ("Completion",)},
}
"""The pages that belong to single commands, and the sections that are taken from each."""

_Chooses = Callable[[list[str]], bool]
_PAGES: Final = {
    USAGE: "realize(1)",
    SELECTING: "realize-move(1)",
    LIMITS: "realize-move(1)",
    TRAFFIC: "realize-move(1)",
    PRESERVING: "realize-move(1)",
    MANIFEST: "realize-move(1)",
    CHECK: "realize-check(1)",
    SCRIPTING: "realize-move(1)",
    DAEMON: "realized(8)",
    CONFIGURATION: "realize.toml(5)",
}
_CONFIGURED: Final = "--config"


class _Source(NamedTuple):
    """A page of ``docs/``."""

    name: str
    content: str

    def section(self, title: str) -> str:
        """What stands below a heading of the second level."""
        _, found, rest = self.content.partition(f"\n## {title}\n")
        if not found:
            raise ValueError(f"docs/{self.name} has no section {title!r}")
        return rest.partition("\n## ")[0]

    def titles(self) -> list[str]:
        """The headings of the second level."""
        return re.findall(r"^## (.+)$", self.content, flags=re.MULTILINE)

    def title(self) -> str:
        """The heading of the page."""
        return self.content.partition("\n")[0].removeprefix("# ")

    def beginning(self) -> str:
        """What stands before the first heading of the second level, without the title."""
        return self.content.partition("\n## ")[0].partition("\n")[2]


class Pages:
    """The man pages, made of the pages in ``docs`` of a checkout; ``date`` is that of their foot, or empty."""

    def __init__(self, docs: Path, date: str = "") -> None:
        self._date = date
        self._example = (docs.parent / "deploy" / "realized.toml").read_text(encoding="utf-8").splitlines()
        self._sources = {
            name: _Source(name, without_next((docs / name).read_text(encoding="utf-8"))) for name in _PAGES
        }

    def all(self) -> dict[str, str]:
        """The content of each page, by its file name."""
        pages = {"realize.1": self._overview()}
        for name, command in realize.commands.items():
            pages[f"realize-{name}.1"] = self._command(name, command)
        pages["realized.8"] = self._realized()
        pages["realize.toml.5"] = self._configurations()
        pages["realized.toml.5"] = [".so man5/realize.toml.5"]
        return {
            name: "".join(f"{line}\n" for line in lines).replace(_named(_page_in(name)), "")
            for name, lines in pages.items()
        }

    def _overview(self) -> list[str]:
        context = click.Context(realize, info_name="realize", **realize.context_settings)
        first, _, rest = str(realize.help).partition("\n\n")
        return [
            *self._head("realize", 1, first.partition(":")[0]),
            macro("SH", "SYNOPSIS"),
            *_synopsis("realize", "[OPTIONS] SRC... DST"),
            *_synopsis("realize COMMAND", "[OPTIONS] ARGS..."),
            macro("SH", "DESCRIPTION"),
            *_help(f"{first}\n\n{rest}"),
            macro("SH", "COMMANDS"),
            *(line for each in realize.commands.values() for line in definition(_page_of(each), text(_short(each)))),
            macro("SH", "OPTIONS"),
            *(line for each in options_of(context) for line in _option(each)),
            *self._of(USAGE, "Locations"),
            *self._end(examples=lambda _: True, configured=True),
            macro("SH", "SEE ALSO"),
            _see(*(f"realize-{name}(1)" for name in realize.commands), "realized(8)", "realize.toml(5)"),
        ]

    def _command(self, name: str, command: click.Command) -> list[str]:
        parent = click.Context(realize, info_name="realize", **realize.context_settings)
        context = click.Context(command, parent=parent, info_name=name)
        usage = " ".join(command.collect_usage_pieces(context))
        configured = any(_CONFIGURED in each.opts for each in command.params)
        return [
            *self._head(f"realize-{name}", 1, _short(command)),
            macro("SH", "SYNOPSIS"),
            *(_synopsis("realize", usage) if name == "move" else ()),
            *_synopsis(f"realize {name}", usage),
            macro("SH", "DESCRIPTION"),
            *_help(str(command.help)),
            macro("SH", "OPTIONS"),
            *(line for each in options_of(context) for line in _option(each)),
            *(line for page, titles in EXPLAINED_IN.get(name, {}).items() for line in self._of(page, *titles)),
            *(self._of(SCRIPTING, "Signals", "JSON") if name == "move" else ()),
            *self._end(
                examples=lambda words: name == ("move" if _short_form(words) else words[1]), configured=configured
            ),
            macro("SH", "SEE ALSO"),
            _see("realize(1)", *(["realize-move(1)"] if name == "copy" else []), "realized(8)", "realize.toml(5)"),
        ]

    def _realized(self) -> list[str]:
        return [
            *self._head("realized", 8, "serve directories to peers, and move files by itself"),
            macro("SH", "SYNOPSIS"),
            *_synopsis("twistd", "[OPTIONS OF TWISTD] realized " + Options.synopsis),
            macro("SH", "DESCRIPTION"),
            *_help(Options.longdesc),
            macro("SH", "OPTIONS"),
            *(line for each in options_of_daemon() for line in _option(each)),
            *self._of(DAEMON, "Check", "Signals", "How it stops"),
            *self._of(CONFIGURATION, "Reload"),
            *self._of(DAEMON, "Under systemd", "Exit status"),
            *self._of(USAGE, "Files"),
            macro("SH", "SEE ALSO"),
            _see("realize(1)", "realize-reload(1)", "realize-moves(1)", "realize.toml(5)", "twistd(1)"),
        ]

    def _configurations(self) -> list[str]:
        return [
            *self._head("realize.toml, realized.toml", 5, "configuration of realize, and of twistd realized"),
            macro("SH", "DESCRIPTION"),
            *_in(self._sources[CONFIGURATION], self._sources[CONFIGURATION].beginning()),
            *self._of(CONFIGURATION, "Reload"),
            *self._of(USAGE, "Files"),
            macro("SH", "EXAMPLE"),
            *example(self._example),
            macro("SH", "SEE ALSO"),
            _see("realize(1)", "realized(8)"),
        ]

    def _head(self, names: str, section: int, says: str) -> Iterator[str]:
        title = names.partition(",")[0].upper()
        yield macro("TH", code(title), str(section), self._date, f"Realize {__version__}", "Realize")
        # Names of files and options are not to be cut, nor lines stretched: somebody may copy them.
        yield from (".nh", ".ad l")
        yield macro("SH", "NAME")
        yield f"{code(names)} \\- {text(_lower(says))}"

    def _of(self, page: str, *titles: str) -> Iterator[str]:
        """Whole sections of a page, or all of it."""
        source = self._sources[page]
        if titles == WHOLE:
            yield _heading(source.title())
            yield from _in(source, source.beginning())
        for title in titles or source.titles():
            yield _heading(title)
            yield from _in(source, source.section(title))

    def _end(self, *, examples: _Chooses, configured: bool) -> Iterator[str]:
        yield macro("SH", "EXIT STATUS")
        yield from _in(self._sources[SCRIPTING], self._sources[SCRIPTING].section("Exit codes"))
        if configured:
            yield from self._of(USAGE, "Environment", "Files")
        chosen = [
            line.strip() for line in self._sources[USAGE].section("Examples").splitlines() if line.startswith("    ")
        ]
        chosen = [line for line in chosen if examples(line.partition("#")[0].split())]
        if chosen:
            yield macro("SH", "EXAMPLES")
            yield from example(chosen)


def _heading(title: str) -> str:
    return macro("SH", text(title.replace("`", "").upper()))


def _in(source: _Source, part: str) -> Iterator[str]:
    """A part of a page; what it links to on other pages is named."""

    def link_text(address: str, shown: str) -> str:
        name, _, anchor = address.partition("#")
        if shown in {name, code(name)}:
            return ""
        if "://" in name:
            return f" ({name})"
        page = _page_of_section(name or source.name, anchor) or _PAGES.get(name)
        return f" ({page or _in_sources(name)})" if page or name not in {"", source.name} else ""

    return markdown(part, link_text)


def _page_of_section(name: str, anchor: str) -> str:
    """The page that has this section of a page of ``docs/``, if it is that of a single command; else empty."""
    for command, pages in EXPLAINED_IN.items():
        if anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in pages.get(name, ())}:
            return f"realize-{command}(1)"
    return ""


def _page_in(file_name: str) -> str:
    stem, _, section = file_name.rpartition(".")
    return f"{stem}({section})"


def _named(page: str) -> str:
    """How a page is named behind what links to it; in that page itself this is left out."""
    return text(f" ({page})")


def _in_sources(name: str) -> str:
    return name.removeprefix("../") if name.startswith("../") else f"docs/{name}"


def _synopsis(name: str, arguments: str) -> Iterator[str]:
    yield from (".PP", bold(code(name)), text(arguments))


def _help(help_text: str) -> Iterator[str]:
    """The help of a command: paragraphs, of which click leaves those behind a backspace as they are."""
    for paragraph in cleandoc(help_text).split("\n\n"):
        if paragraph.startswith("\b"):
            yield from example(paragraph.strip("\b\n").split("\n"))
        else:
            yield ".PP"
            yield from (line_of(_with_bold_code(line)) for line in paragraph.strip().split("\n"))


def _with_bold_code(line: str) -> str:
    parts = re.split(r"`([^`]+)`", line)
    return "".join(bold(code(part)) if number % 2 else text(part) for number, part in enumerate(parts))


def _option(option: Option) -> Iterator[str]:
    also = [f"Default: {option.default}"] if option.default else []
    if option.environment:
        also.append(f"Environment: {option.environment}")
    return definition(_option_tag(option.written), *map(_with_bold_code, (option.says, *also)))


def _option_tag(names: str) -> str:
    """``-c, --config FILE`` with what is typed as it is in bold, and what is replaced in italics."""
    words = re.findall(r"-[\w-]+|[^\s-][^\s]*|[,/]|\s+", names)
    return "".join(
        bold(code(word)) if word.startswith("-") else text(word) if word in {",", "/", " "} else italic(code(word))
        for word in words
    )


def _see(*pages: str) -> str:
    return ",\n".join(f"{bold(code(name))}({rest}" for name, _, rest in (each.partition("(") for each in sorted(pages)))


def _page_of(command: click.Command) -> str:
    return f"{bold(code(f'realize-{command.name}'))}(1)"


def _short(command: click.Command) -> str:
    return command.get_short_help_str(200).rstrip(".")


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _short_form(words: list[str]) -> bool:
    """Whether that is `realize SRC... DST`."""
    return len(words) > 2 and words[1] not in realize.commands
