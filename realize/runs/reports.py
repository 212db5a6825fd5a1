"""Parses what daemons report, without trusting it; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, TypeGuard

from realize.errors import ProtocolError

MAX_REPORT_DEPTH: Final = 8
"""How deep objects and lists may be nested in a report."""

MAX_NUMBER_DIGITS: Final = 20
"""The most digits of a number in a report; a 64-bit number needs no more."""


def parse(text: str) -> dict[str, Any]:
    """The report that a daemon sent as JSON."""
    report = _loaded(text)
    if not isinstance(report, dict):
        raise ProtocolError("the daemon's report is not a JSON object")
    return report


def parse_limits(text: str) -> list[dict[str, Any]]:
    """The limits that a daemon sent as JSON."""
    rows = _loaded(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError("the daemon's report is not a list of limits")
    return rows


def parse_moves(text: str) -> dict[str, Any]:
    """The report about standing moves that a daemon sent as JSON; ``moves`` is a list of objects."""
    report = parse(text)
    moves = report.get("moves")
    if not isinstance(moves, list) or not all(isinstance(row, dict) for row in moves):
        raise ProtocolError("the daemon's report has no list of moves")
    return report


def parse_reload(text: str) -> dict[str, Any]:
    """The report about a reload that a daemon sent as JSON, with all that `realize.wire.commands.Reload` says."""
    report: dict[str, Any] = {"changes": [], "restart_needed": [], "errors": [], **parse(text)}
    rows, texts = report["changes"], [report["restart_needed"], report["errors"]]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError("the daemon's report has no list of changes")
    texts.append([row.get(field) for row in rows for field in ("key", "change")])
    if not all(isinstance(each, list) and all(isinstance(item, str) for item in each) for each in texts):
        raise ProtocolError("the daemon's report of a reload has something else where a text is expected")
    return report


def _loaded(text: str) -> Any:
    """What a daemon sent: of bounded depth, with numbers that can be worked with."""
    try:
        report = json.loads(text, parse_constant=_no_number, parse_int=_integer, parse_float=_real)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("the daemon's report is not JSON that can be shown") from error
    if not _is_flat(report, MAX_REPORT_DEPTH):
        raise ProtocolError("the daemon's report has too many lists and objects inside each other")
    return report


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_DIGITS:
        _no_number(text)
    return int(text)


def _real(text: str) -> float:
    number = float(text)
    return number if abs(number) < 10.0**MAX_NUMBER_DIGITS else _no_number(text)


def _is_flat(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inside = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_flat(each, depth - 1) for each in inside)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of a report can be shown as a size, a rate or a duration."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def lowest(rows: Sequence[Mapping[str, Any]], direction: str) -> float | None:
    """The lowest limit on us in a daemon's report, for what it sends or receives; None if there is none."""
    told = [row.get("limit") for row in rows if row.get("yours", True) and row.get("direction") == direction]
    return min(filter(is_number, told), default=None)
