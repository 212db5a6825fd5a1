"""A picture of how long each tool takes for each workload: bars in SVG, made of text.

Tools are rows, workloads are columns, and each column has a scale of its own.
It has a ground of its own, so that it can be read on any page, and takes its colours from what the reader prefers,
light or dark. It says the same in words to those who cannot see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from benchmarks.comparison.catalogue import OURS, TOOLS
from benchmarks.comparison.report import right
from benchmarks.comparison.results import Case, Results, middle
from benchmarks.comparison.workloads import WORKLOADS

LABEL: Final = 245
"""Pixels for the names of the tools."""

COLUMN: Final = 150
BAR: Final = 96
"""The longest bar, in pixels; its figure comes after it."""

ROW: Final = 26
TOP: Final = 44
CUT: Final = 4.0
"""A bar is cut off at so many of Realize's, or one slow tool would hide all other differences."""

STYLE: Final = """
svg { background: #ffffff; }
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.head, .ours { font-weight: 600; }
.figure { font-size: 12px; fill: #59636e; }
.bar { fill: #a8b3c0; }
.bar.ours { fill: #0969da; }
.cut { stroke: #ffffff; stroke-width: 3; }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; }
text { fill: #e6edf3; }
.figure { fill: #9198a1; }
.bar { fill: #55606d; }
.bar.ours { fill: #4493f8; }
.cut { stroke: #0d1117; }
}
"""


def plot(results: Results, cases: Sequence[Case], tools: Sequence[str]) -> str:
    """The picture of these cases and tools; a tool that once did something wrong has no bar."""
    times = {case: seconds(results, case, tools) for case in cases}
    shown = [name for name in tools if any(name in each for each in times.values())]
    width, height = LABEL + COLUMN * len(cases), TOP + ROW * len(shown) + 8
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">',
        '<title id="title">Seconds that each tool takes to move files, less is better</title>',
        f'<desc id="desc">{escape(in_words(times, shown))}</desc>',
        f"<style>{STYLE}</style>",
    ]
    for row, name in enumerate(shown):
        middle_line = TOP + ROW * row + 17
        lines.append(f'<text{_of(name)} x="0" y="{middle_line}">{escape(label(name))}</text>')
    for column, case in enumerate(cases):
        lines += _column(LABEL + COLUMN * column, case, times[case], shown)
    return "\n".join([*lines, "</svg>", ""])


def seconds(results: Results, case: Case, tools: Sequence[str]) -> dict[str, float]:
    """The median of each tool that always did what it was to do."""
    by_tool = results.by_tool(case)
    return {name: middle(by_tool[name]) for name in tools if name in by_tool and right(by_tool[name])}


def in_words(times: dict[Case, dict[str, float]], shown: Sequence[str]) -> str:
    """The figures as sentences."""
    return " ".join(
        f"{WORKLOADS[case.workload].title}: "
        + ", ".join(f"{plain(name)} {of[name]:.1f} s" for name in shown if name in of)
        + "."
        for case, of in times.items()
    )


def plain(name: str) -> str:
    """A tool's title without the signs of Markdown."""
    return TOOLS[name].title.translate({ord("*"): None, ord("`"): None})


def label(name: str) -> str:
    """What stands before its bars: also why it is not compared with, if that is so."""
    bound = TOOLS[name].bound
    return f"{plain(name)}, {bound}" if bound else plain(name)


def _of(name: str) -> str:
    return ' class="ours"' if name == OURS else ""


def _column(left: int, case: Case, times: dict[str, float], shown: Sequence[str]) -> list[str]:
    lines = [
        f'<text class="head" x="{left}" y="16">{case.workload}</text>',
        f'<text class="figure" x="{left}" y="33">{WORKLOADS[case.workload].short}</text>',
    ]
    if not times:
        return lines
    longest = max(times.values())
    if OURS in times:
        longest = min(longest, CUT * times[OURS])
    for row, name in enumerate(shown):
        if name in times:
            top, length = TOP + ROW * row, round(min(1.0, times[name] / longest) * BAR, 1)
            ours = " ours" if name == OURS else ""
            lines.append(f'<rect class="bar{ours}" x="{left}" y="{top + 4}" width="{length}" height="18" rx="2"/>')
            if times[name] > longest:
                lines.append(f'<path class="cut" d="M{left + BAR - 14} {top + 24}l6 -22"/>')
            figure = f'<text class="figure" x="{left + length + 5:g}" y="{top + 17}">{times[name]:.1f} s</text>'
            lines.append(figure)
    return lines
