"""Format a report of a daemon for people: values with their units, and tables; pure.

Fields that a newer daemon has added are shown too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from realize.by_value import ByValue
from realize.runs.reports import is_number
from realize.units import display_text, format_duration, format_rate, format_size

SIZES: Final = frozenset({"size", "reached", "done", "sent", "received", "bytes"})
"""Fields in bytes."""

DURATIONS: Final = frozenset({"uptime", "age", "idle", "left", "waited", "lasts", "oldest", "failing", "absent"})
"""Fields in seconds."""

LIMITS: Final = frozenset({"limit", "limits"})
"""Fields in bytes per second, null for unlimited."""

ESCAPED: Final = frozenset({"error", "path"})
"""Fields with file names, which the daemon has escaped already: escaped again only if they are not printable."""

MAX_TABLE_COLUMNS: Final = 32
"""Columns of a table that are shown at most."""

MAX_TABLE_CHARS: Final = 100
"""Characters of a line that tables keep to, where they can."""

BELOW: Final = ("timetable", "then", "error", "key", "shown", "path", "address")
"""Fields that may stand below their row, in the order in which they give way: long texts."""

_GAP: Final = "  "
_NO_VALUE: Final = "-"

MAX_COLUMN_CHARS: Final = 200
"""Width up to which a column grows with its longest cell, so that no report can fill our memory with blanks."""


def readable(report: Mapping[str, Any]) -> Iterator[str]:
    """The report as lines for people: single values first, then a table for each list."""
    single = {key: value for key, value in report.items() if not _is_table(value)}
    width = min(MAX_COLUMN_CHARS, max(map(len, single), default=0))
    for key, value in single.items():
        yield f"{display_text(key):<{width}}  {shown(key, value)}"
    for key, value in report.items():
        if _is_table(value):
            yield ""
            yield f"{display_text(key)}: {'none' if not value else ''}".rstrip()
            yield from table(value)


def shown(key: str, value: Any) -> str:
    """One value as text; the name of the field tells whether it is a duration, a rate or a size."""
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
        return _NO_VALUE
    text = str(value)
    return text if key in ESCAPED and text.isprintable() else display_text(text)


def _is_table(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of a table: the names of the fields, then the rows; nothing if there are no rows.

    Where it would be wider than `MAX_TABLE_CHARS`, columns without any value are left out, and then what is in `BELOW`
    stands below its row, as far as that makes it narrow enough.
    """
    names = list(dict.fromkeys(key for row in rows for key in row))[:MAX_TABLE_COLUMNS]
    columns = [_column(name, [shown(name, row.get(name)) for row in rows]) for name in names]
    if _width(columns) > MAX_TABLE_CHARS:
        columns = [each for each in columns if any(cell != _NO_VALUE for cell in each.cells)]
    below: list[_Column] = []
    for name in BELOW:
        if _width(columns) <= MAX_TABLE_CHARS:
            break
        below += [each for each in columns if each.name == name]
        columns = [each for each in columns if each.name != name]
    if rows:
        yield _line([(each.head, each.width) for each in columns])
    for number in range(len(rows)):
        yield _line([(each.cells[number], each.width) for each in columns])
        notes = [f"{each.head} {each.cells[number]}" for each in below if each.cells[number] != _NO_VALUE]
        if notes:
            yield f"      {'  '.join(notes)}"


@frozen(eq=False, repr=False)
class _Column(ByValue):
    """A field of all rows, as text, and the characters that it takes."""

    name: str
    head: str
    cells: Sequence[str]
    width: int


def _column(name: str, cells: Sequence[str]) -> _Column:
    head = display_text(name)
    return _Column(name, head, cells, min(MAX_COLUMN_CHARS, max(map(len, (head, *cells)))))


def _width(columns: Sequence[_Column]) -> int:
    return sum(len(_GAP) + each.width for each in columns)


def _line(cells: Sequence[tuple[str, int]]) -> str:
    return (_GAP + _GAP.join(f"{cell:<{width}}" for cell, width in cells)).rstrip()
