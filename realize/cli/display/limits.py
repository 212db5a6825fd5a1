"""Format the limits of a daemon for people: one row for each, with what comes next; pure.

Times of day are those of whoever looks, which need not be those of the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from realize.cli.display.report import shown
from realize.runs.reports import is_number
from realize.schedule import local_time
from realize.units import display_text, format_duration, format_rate

_OF_CHANGES: Final = ("changes_in", "changes_to")
"""Fields that `coming` puts into words; its column is called ``then``."""

_IF_ANY: Final = ("then", "timetable")
"""Columns that are left out where no limit has anything in them."""

_DASH: Final = "-"


def limit_rows(rows: Sequence[Mapping[str, Any]], now: float) -> list[dict[str, str]]:
    """The limits for the table of `realize throttle`; ``now`` is the present in seconds since the epoch."""
    told = [_limit_row(row, now) for row in rows]
    empty = [column for column in _IF_ANY if all(row[column] == _DASH for row in told)]
    return [{column: text for column, text in row.items() if column not in empty} for row in told]


def with_what_comes(row: Mapping[str, Any], now: float) -> dict[str, Any]:
    """One limit as it was reported, with what comes next in words; the name of a peer stands there once."""
    told = {key: value for key, value in row.items() if key not in _OF_CHANGES}
    if told.get("name") and told.get("name") == told.get("peer"):
        told["name"] = None
    return told | {"then": coming(row, now)} if row.keys() & set(_OF_CHANGES) else told


def coming(row: Mapping[str, Any], now: float) -> str:
    """Which limit follows by itself, and when: ``unlimited at 18:00, in 3h12m``; a dash if none does."""
    seconds, rate = row.get("changes_in"), row.get("changes_to")
    if not is_number(seconds) or not (rate is None or is_number(rate)):
        return _DASH
    told = f"in {format_duration(max(1, round(seconds)))}"
    try:
        at = local_time.shown(round(now + seconds))
    except (OverflowError, OSError, ValueError):
        return f"{format_rate(rate)} {told}"
    day = "" if at.date() == local_time.shown(now).date() else f"{at:%a} "
    return f"{format_rate(rate)} at {day}{at:{'%H:%M:%S' if at.second else '%H:%M'}}, {told}"


def _limit_row(row: Mapping[str, Any], now: float) -> dict[str, str]:
    scope, name = row.get("scope"), str(row.get("name") or "")
    lasts = row.get("lasts")
    return {
        "scope": display_text(f"{scope}:{name}" if name else str(scope)),
        "peer": display_text(str(row.get("peer") or _DASH)),
        "direction": display_text(str(row.get("direction"))),
        "limit": shown("limit", row.get("limit")),
        "now": _DASH if row.get("rate") is None else shown("rate", row["rate"]),
        "lasts": format_duration(max(1, round(lasts))) if is_number(lasts) else shown("lasts", lasts),
        "then": coming(row, now),
        "timetable": shown("timetable", row.get("timetable")),
    }
