"""What the daemon tells of its standing moves on the wire: bounded, whatever errors and names there are; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from realize.moves.status import MoveStatus
from realize.wire.reports import MAX_REPORT_BYTES, dumped

MAX_TEXT_CHARS: Final = 600
"""The longest text of a row; what is longer is cut, and ends in an ellipsis."""

MAX_LISTED_ITEMS: Final = 8
"""How many sources, and files on their way, a row names."""

MAX_ROW_FIELDS: Final = 64
"""How many fields a row, or an object in it, has at most."""

_DETAILS: Final = ("running", "watching", "totals")
"""What is left out of all rows before any row is."""


def moves_text(statuses: Sequence[MoveStatus], now: float) -> str:
    """The report of `realize.wire.commands.Moves`, as JSON; ``now`` is in seconds since the epoch.

    If it would be longer than `MAX_REPORT_BYTES`, the details are left out, then the last moves, and it says so.
    """
    rows = [_bounded(each.as_row()) for each in statuses]

    def around(kept: list[Any]) -> Mapping[str, Any]:
        return {"now": round(now, 3), "moves": kept, "truncated": len(kept) < len(rows)}

    if len(text := json.dumps(around(rows))) <= MAX_REPORT_BYTES:
        return text
    rows = [{key: value for key, value in row.items() if key not in _DETAILS} for row in rows]
    return dumped(rows, MAX_REPORT_BYTES, around)


def short_rows(statuses: Sequence[MoveStatus], now: float) -> list[dict[str, Any]]:
    """A row for each move for `realize.daemon.status`; ages in seconds, sizes in bytes."""
    return [
        {
            "name": each.name,
            "state": each.phase.value,
            "files": each.backlog.files,
            "bytes": each.backlog.size,
            "oldest": _age(each.backlog.oldest, now),
            "failing": _age(each.failing_since, now),
            "failed_files": each.failed_files,
            "error": _cut((each.error or each.file_error).partition("\n")[0]),
        }
        for each in statuses
    ]


def _bounded(value: Any) -> Any:
    """The same with texts, lists and nested values that have bounds."""
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, Mapping):
        return {_cut(key): _bounded(inner) for key, inner in [*value.items()][:MAX_ROW_FIELDS]}
    if isinstance(value, list | tuple):
        return [_bounded(each) for each in value[:MAX_LISTED_ITEMS]]
    return round(value, 3) if isinstance(value, float) else value


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[: MAX_TEXT_CHARS - 1]}…"


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else round(max(0.0, now - since), 1)
