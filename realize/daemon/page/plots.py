"""The rates of the last hour as small pictures, in SVG that HTML holds; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import tzinfo
from typing import Final

from twisted.web.template import Tag

from realize.daemon.page.history import HISTORY_INTERVAL_S, HISTORY_SAMPLES
from realize.daemon.page.wording import clock_time, coarse, rate_words, size_words

_BASE_DEPTH: Final = 40
"""How far below the upper edge the line of zero is, in the coordinates of a picture, where a sample is one wide."""

_PEAK_DEPTH: Final = 2
"""How far below it the highest rate is."""


def plot(rates: Sequence[float], ident: str, title: str, told: str) -> Tag:
    """A picture of rates, the latest at the right; ``told`` is what it shows, for those who cannot see it.

    ``ident`` is what the ids in it begin with: no other thing on the page has it.
    """
    last = HISTORY_SAMPLES - 1
    line = " ".join(f"{x},{y:g}" for x, y in _corners(_points(rates)))
    picture = _element(
        "svg",
        viewBox=f"0 0 {last} {_BASE_DEPTH + 1}",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby=f"{ident}-title {ident}-desc",
    )
    picture(_element("title", id=f"{ident}-title")(title), _element("desc", id=f"{ident}-desc")(told))
    if rates:
        begin = HISTORY_SAMPLES - len(rates)
        picture(_element("polygon", points=f"{begin},{_BASE_DEPTH} {line} {last},{_BASE_DEPTH}"))
        picture(_element("polyline", points=line))
    return picture(_element("line", x1="0", x2=str(last), y1=str(_BASE_DEPTH), y2=str(_BASE_DEPTH)))


def figures_of(rates: Sequence[float]) -> str:
    """What a picture comes to, in words."""
    if not any(rates):
        return "nothing"
    moved = size_words(round(sum(rates) * HISTORY_INTERVAL_S))
    return f"{moved} in {coarse(len(rates) * HISTORY_INTERVAL_S)}, peak {rate_words(max(rates))}"


def told_of(rates: Sequence[float], now: float, zone: tzinfo | None) -> str:
    """The same with the time of the peak, and the rate now."""
    if not any(rates):
        return figures_of(rates)
    at = now - HISTORY_INTERVAL_S * (len(rates) - 1 - rates.index(max(rates)))
    return f"{figures_of(rates)} at {clock_time(at, now, zone)}, now {rate_words(rates[-1])}"


def _points(rates: Sequence[float]) -> list[tuple[int, float]]:
    """Where the rates are in the picture."""
    peak = max(rates, default=0.0) or 1.0
    height = _BASE_DEPTH - _PEAK_DEPTH
    begin = HISTORY_SAMPLES - len(rates)
    return [(begin + n, round(_BASE_DEPTH - rate / peak * height, 1)) for n, rate in enumerate(rates)]


def _corners(points: Sequence[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    """The points without those in the middle of a level line, so that a quiet hour is a short text."""
    for n, (x, y) in enumerate(points):
        if n in {0, len(points) - 1} or not points[n - 1][1] == y == points[n + 1][1]:
            yield x, y


def _element(name: str, **attributes: str) -> Tag:
    """An element of SVG; ``_`` in the name of an attribute stands for ``-``."""
    return Tag(name, attributes={key.replace("_", "-"): value for key, value in attributes.items()})
