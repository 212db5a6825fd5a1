"""Asks a daemon what it is doing, and shows its answer.

The answer is a JSON object that the daemon composes; what a newer daemon adds to it is shown too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeGuard

import click

from realize.cli.options import Access, LogOptions
from realize.cli.session.peers import naming
from realize.cli.session.runner import run
from realize.cli.session.session import Session
from realize.errors import ProtocolError
from realize.units import display_text, format_duration, format_rate, format_size

SIZES: Final = frozenset({"size", "reached", "done", "sent", "received", "bytes"})
"""Fields that are numbers of bytes."""

DURATIONS: Final = frozenset({"uptime", "age", "idle", "left", "waited", "lasts"})
"""Fields that are numbers of seconds."""

LIMITS: Final = frozenset({"limit", "limits"})
"""Fields that are bytes per second, or unlimited."""

ESCAPED: Final = frozenset({"path"})
"""Fields that hold a name from a disk, which the daemon has escaped: again only if that does not show."""

MOST_DEPTH: Final = 8
"""Objects and lists inside each other, in a report."""

MOST_DIGITS: Final = 20
"""Digits of a number in a report; 64 bits have as many."""

MOST_COLUMNS: Final = 32
"""Columns that are shown of a table."""

WIDEST: Final = 200
"""Characters up to which a column grows with its longest cell: no report is to fill our memory with blanks."""


def run_status(peer: str, access: Access, *, json: bool, log: LogOptions) -> int:
    """Show on stdout how the daemon at ``peer`` is."""
    from realize.wire.commands import Status

    async def main(reactor: Any) -> int:
        async with Session(reactor, access) as session:
            whom = session.resolve_peer(peer)
            protocol = await session.connected(whom)
            with naming(whom):
                report = parse((await protocol.call(Status))["report"])
        click.echo(dump(report) if json else "\n".join(readable(report)))
        return 0

    return run(main, log)


def parse(text: str) -> dict[str, Any]:
    """The report in what a daemon sent."""
    report = _loaded(text)
    if not isinstance(report, dict):
        raise ProtocolError("the daemon's report is not a JSON object")
    return report


def parse_limits(text: str) -> list[dict[str, Any]]:
    """The limits in what a daemon sent."""
    rows = _loaded(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError("the daemon's report is not a list of limits")
    return rows


def _loaded(text: str) -> Any:
    """What a daemon sent: of bounded depth, with numbers that can be worked with."""
    try:
        report = json.loads(text, parse_constant=_no_number, parse_int=_integer, parse_float=_real)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("the daemon's report is not JSON that can be shown") from error
    if not _is_flat(report, MOST_DEPTH):
        raise ProtocolError("the daemon's report has too many lists and objects inside each other")
    return report


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        _no_number(text)
    return int(text)


def _real(text: str) -> float:
    number = float(text)
    return number if abs(number) < 10.0**MOST_DIGITS else _no_number(text)


def _is_flat(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inside = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_flat(each, depth - 1) for each in inside)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value of a report can be shown as a size, a rate or a duration."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def lowest(rows: Sequence[Mapping[str, Any]], direction: str) -> float | None:
    """The limit that binds us among those a daemon told, for what it sends or receives; None if there is none."""
    told = [row.get("limit") for row in rows if row.get("yours", True) and row.get("direction") == direction]
    return min(filter(is_number, told), default=None)


def dump(report: dict[str, Any]) -> str:
    """The report as one line for programs."""
    return json.dumps(report)


def readable(report: Mapping[str, Any]) -> Iterator[str]:
    """The report as lines for people: single values first, then a table for each list."""
    single = {key: value for key, value in report.items() if not _is_table(value)}
    width = min(WIDEST, max(map(len, single), default=0))
    for key, value in single.items():
        yield f"{display_text(key):<{width}}  {shown(key, value)}"
    for key, value in report.items():
        if _is_table(value):
            yield ""
            yield f"{display_text(key)}: {'none' if not value else ''}".rstrip()
            yield from table(value)


def shown(key: str, value: Any) -> str:
    """One value: a duration, a rate or a size where the name of the field says so."""
    number = is_number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{display_text(name)} {shown(key, inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key in DURATIONS and number:
        return format_duration(round(value))
    if key in LIMITS and (number or value is None):
        return format_rate(value)
    if (key == "rate" or key.endswith("_rate")) and number:
        return format_rate(value)
    if key in SIZES and number:
        return format_size(round(value))
    if value is None or value == "":
        return "-"
    text = str(value)
    return text if key in ESCAPED and text.isprintable() else display_text(text)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Rows with the same fields as lines for people, under their names."""
    columns = list(dict.fromkeys(key for row in rows for key in row))[:MOST_COLUMNS]
    cells = [[shown(column, row.get(column)) for column in columns] for row in rows]
    heads = [display_text(column) for column in columns]
    widths = [min(WIDEST, max(map(len, column))) for column in zip(heads, *cells, strict=True)]
    for row in [heads, *cells] if rows else []:
        yield "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
