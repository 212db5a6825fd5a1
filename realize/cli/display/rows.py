"""Rows with a label, a bar and figures, laid out for any width of terminal; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import define, field, frozen
from rich.cells import cell_len
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from realize.by_value import ByValue

MIN_BAR_COLUMNS: Final = 8
"""Minimal width of a bar."""

MIN_NAME_COLUMNS: Final = 14
"""Minimal width of a file name, as long as figures can be shortened to make space for it."""

_GAPS: Final = 2


@frozen(eq=False, repr=False)
class Row(ByValue):
    """The content of one row.

    ``labels`` and ``figures`` have variants of the same text, the longest first; all rows of a table have the same
    number of figures.
    ``total`` is None while it is unknown.
    """

    labels: Sequence[str]
    done: int
    total: int | None
    figures: Sequence[str]


@define(repr=False)
class Shape(ByValue):
    """How rows share a width; the column of figures never shrinks, so that bars do not jump when figures change."""

    width: int
    _widest: dict[int, int] = field(factory=dict)

    def table(self, rows: Sequence[Row]) -> Table:
        """Lay out the rows; the first one has the longest texts, and decides which variant all rows show."""
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
                # A Text, since file names may look like markup.
                Text(row.labels[min(label, len(row.labels) - 1)]),
                ProgressBar(total=row.total, completed=row.done, width=max(1, room - labels)),
                Text(row.figures[length]),
            )
        return table

    def _lengths(self, rows: Sequence[Row]) -> tuple[int, int]:
        """The index of the longest figures, and of the longest label, that the first row can show in full."""
        first, least = rows[0], MIN_NAME_COLUMNS if len(rows) > 1 else 0
        for length in range(len(first.figures)):
            widest = max(cell_len(row.figures[length]) for row in rows)
            self._widest[length] = max(widest, self._widest.get(length, 0))
            for label, text in enumerate(first.labels):
                if max(least, cell_len(text)) + MIN_BAR_COLUMNS + _GAPS + self._widest[length] <= self.width:
                    return length, label
        return len(first.figures) - 1, len(first.labels) - 1
