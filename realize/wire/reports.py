"""Reports that travel as JSON in one value, shortened where they would not fit; pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

MAX_REPORT_BYTES: Final = 60_000
"""The longest report, as JSON, in bytes."""


def dumped(rows: Iterable[Any], most: int, around: Callable[[list[Any]], Any] = lambda kept: kept) -> str:
    """What ``around`` makes of the rows, as JSON: of all of them, or of the first half, quarter, ... that fit.

    It is longer than ``most`` bytes only if what is around the rows does not fit without them either.
    """
    kept = list(rows)
    while len(text := json.dumps(around(kept))) > most and kept:
        kept = kept[: len(kept) // 2]
    return text
