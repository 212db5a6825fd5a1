"""Boxes, arrows and words as SVG; pure.

The picture has a ground of its own, and takes its colours from what the reader prefers, light or dark: so it can be
read on any page. What it shows is in words too, for those who cannot see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

from attrs import frozen

FOLDER: Final = Path(__file__).parent.parent.parent / "docs" / "diagrams"

LINE: Final = 18
"""Pixels from one line of text to the next."""

_TIP: Final = (
    '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="tip" d="M0,0 L8,4 L0,8 z"/></marker>'
)

STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.ground { fill: #ffffff; }
.box { fill: #f6f8fa; stroke: #59636e; }
.frame { fill: none; stroke: #59636e; stroke-dasharray: 5 4; }
.strong { fill: #ddf4ff; stroke: #0969da; stroke-width: 1.5; }
.safe { fill: #dafbe1; stroke: #1a7f37; stroke-width: 1.5; }
.head { font-weight: 600; }
.note { fill: #59636e; }
.line { fill: none; stroke: #59636e; stroke-width: 1.5; }
.mark { fill: none; stroke: #1a7f37; stroke-width: 2; }
.mark-text { fill: #1a7f37; font-weight: 600; }
.tip { fill: #59636e; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.ground { fill: #0d1117; }
.box { fill: #161b22; stroke: #9198a1; }
.frame { stroke: #9198a1; }
.strong { fill: #121d2f; stroke: #4493f8; }
.safe { fill: #12261e; stroke: #3fb950; }
.note { fill: #9198a1; }
.line { stroke: #9198a1; }
.mark { stroke: #3fb950; }
.mark-text { fill: #3fb950; }
.tip { fill: #9198a1; }
}
"""


@frozen
class Box:
    """A box with lines of text in its middle, the first one bold; ``kind`` is a class of `STYLE`."""

    x: int
    y: int
    width: int
    height: int
    lines: Sequence[str]
    kind: str = "box"

    def parts(self) -> Iterator[str]:
        """The elements."""
        size = f'x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}"'
        yield f'<rect class="{self.kind}" {size} rx="6"/>'
        first = self.y + self.height / 2 - LINE * (len(self.lines) - 1) / 2 + 4.5
        for number, line in enumerate(self.lines):
            kind = "note" if number else "head"
            yield _words(self.x + self.width / 2, first + LINE * number, line, kind, "middle")


@frozen
class Frame:
    """A frame around others, with its name in the upper left corner."""

    x: int
    y: int
    width: int
    height: int
    name: str

    def parts(self) -> Iterator[str]:
        """The elements."""
        size = f'x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}"'
        yield f'<rect class="frame" {size} rx="8"/>'
        yield _words(self.x + 10, self.y + 18, self.name, "note")


@frozen
class Arrow:
    """A line through points, with a tip at its end."""

    points: Sequence[tuple[int, int]]
    kind: str = "line"

    def parts(self) -> Iterator[str]:
        """The elements."""
        tip = ' marker-end="url(#tip)"' if self.kind == "line" else ""
        path = " ".join(f"{x},{y}" for x, y in self.points)
        yield f'<polyline class="{self.kind}" points="{path}"{tip}/>'


@frozen
class Words:
    """A line of text; ``anchor`` is ``start``, ``middle`` or ``end``."""

    x: int
    y: int
    text: str
    kind: str = "note"
    anchor: str = "start"

    def parts(self) -> Iterator[str]:
        """The elements."""
        yield _words(self.x, self.y, self.text, self.kind, self.anchor)


@frozen
class Picture:
    """A picture: how large it is, what it is called, what it says in words, and what is in it, from back to front."""

    width: int
    height: int
    title: str
    in_words: str
    shapes: Sequence[Box | Frame | Arrow | Words]


def drawn(picture: Picture) -> str:
    """The picture as SVG."""
    size = f'viewBox="0 0 {picture.width} {picture.height}" width="{picture.width}" height="{picture.height}"'
    lines = [
        "<!-- Made by `make diagrams`; do not edit it by hand. -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(picture.title)}</title>',
        f'<desc id="desc">{escape(picture.in_words)}</desc>',
        f"<style>{STYLE}</style>",
        _TIP,
        f'<rect class="ground" width="{picture.width}" height="{picture.height}" rx="8"/>',
        *(part for shape in picture.shapes for part in shape.parts()),
    ]
    return "\n".join([*lines, "</svg>", ""])


def _words(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
