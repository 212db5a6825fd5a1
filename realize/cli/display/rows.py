"""Rows with a label, a bar and figures, in the shape that a terminal of any width has room for; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import define, field, frozen
from rich.cells import cell_len
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

MIN_BAR_COLUMNS: Final = 8
"""Columns that a bar has at least."""

MIN_NAME_COLUMNS: Final = 14
"""Columns that the name of a file has at least, as long as figures can be shortened for it."""

_GAPS: Final = 2


@frozen
class Row:
    """What one row shows.

    ``labels`` and ``figures`` are the same said ever shorter; all rows of a table have as many figures.
    ``total`` is None while it is not known.
    """

    labels: Sequence[str]
    done: int
    total: int | None
    figures: Sequence[str]


@define
class Shape:
    """How the rows share a width; the column of figures only grows, lest bars jump with every figure."""

    width: int
    _widest: dict[int, int] = field(factory=dict)

    def table(self, rows: Sequence[Row]) -> Table:
        """The rows; the first one, which has the most to say, decides how long what all of them show is."""
        length, label = self._lengths(rows)
        figures = self._widest[length]
        room = max(2, self.width - _GAPS - figures)
        longest = max(cell_len(row.labels[-1]) for row in rows)
        wanted = max(cell_len(rows[0].labels[label]), min(longest, max(MIN_NAME_COLUMNS, room * 2 // 5)))
        labels = max(1, min(wanted, room - MIN_BAR_COLUMNS))
        table = Table.grid(
            Column(width=labels, no_wrap=True, overflow="ellipsis"),
            Column(width=max(1, room - labels)),
            Column(width=figures, justify="right", no_wrap=True, overflow="ellipsis"),
            padding=(0, 1),
        )
        for row in rows:
            table.add_row(
                # Names of files may look like markup.
                Text(row.labels[min(label, len(row.labels) - 1)]),
                ProgressBar(total=row.total, completed=row.done, width=max(1, room - labels)),
                Text(row.figures[length]),
            )
        return table

    def _lengths(self, rows: Sequence[Row]) -> tuple[int, int]:
        """Which of its figures, and of its labels, the first row can show in full."""
        first, least = rows[0], MIN_NAME_COLUMNS if len(rows) > 1 else 0
        for length in range(len(first.figures)):
            widest = max(cell_len(row.figures[length]) for row in rows)
            self._widest[length] = max(widest, self._widest.get(length, 0))
            for label, text in enumerate(first.labels):
                if max(least, cell_len(text)) + MIN_BAR_COLUMNS + _GAPS + self._widest[length] <= self.width:
                    return length, label
        return len(first.figures) - 1, len(first.labels) - 1
