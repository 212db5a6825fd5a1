"""`Arranging`: sorts the records of the mover in a thread; see `realize.mover.interfaces.Sorting`."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from realize.concurrency.shielded import RunInThread
from realize.fs.sorting import SortedRecords, Sorter


class Arranging:
    """Records of one listing."""

    def __init__(self, run_in_thread: RunInThread) -> None:
        self._run_in_thread = run_in_thread
        self._sorter = Sorter()
        self._records: SortedRecords | None = None

    def add(self, records: Sequence[bytes]) -> Deferred[None]:
        """See `realize.mover.interfaces.Sorting`."""
        adding: Deferred[None] = self._run_in_thread(self._add, records)
        return adding

    def _add(self, records: Sequence[bytes]) -> None:
        for record in records:
            self._sorter.add(record)

    def sort(self) -> Deferred[None]:
        """See `realize.mover.interfaces.Sorting`."""
        sorting: Deferred[None] = self._run_in_thread(self._sort)
        return sorting

    def _sort(self) -> None:
        self._records = self._sorter.sorted()

    def read(self, position: int, most: int) -> Deferred[tuple[list[bytes], int]]:
        """See `realize.mover.interfaces.Sorting`."""
        assert self._records is not None  # noqa: S101 -- for the type checker
        reading: Deferred[tuple[list[bytes], int]] = self._run_in_thread(self._records.read, position, most)
        return reading

    def close(self) -> None:
        """See `realize.mover.interfaces.Sorting`."""
        self._sorter.close()
        if self._records is not None:
            self._records.close()
