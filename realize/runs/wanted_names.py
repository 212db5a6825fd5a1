"""`WantedNames`: the names of ``--files-from`` for the mover, read in a thread."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import CancelledError, Deferred

from realize.concurrency.shielded import RunInThread
from realize.fs.sorting import SortedRecords
from realize.runs.name_list import read_names


async def wanted_names(path: str, run_in_thread: RunInThread, *, from0: bool) -> WantedNames:
    """Read and sort the names in a file; raises what `read_names` raises.  Cancelled, it stops reading."""
    stopped = False
    reading: Deferred[SortedRecords] = run_in_thread(
        partial(read_names, path, from0=from0, should_stop=lambda: stopped)
    )
    try:
        records = await reading
    except CancelledError:
        stopped = True
        raise
    return WantedNames(records, run_in_thread)


class WantedNames:
    """Names in order; see `realize.mover.interfaces.Names`.  Holds one bit for each name."""

    def __init__(self, records: SortedRecords, run_in_thread: RunInThread) -> None:
        self._records = records
        self._run_in_thread = run_in_thread
        self._known = bytearray()

    def read(self, position: int, most: int) -> Deferred[tuple[list[bytes], int]]:
        """See `realize.mover.interfaces.Names`."""
        reading: Deferred[tuple[list[bytes], int]] = self._run_in_thread(self._records.read, position, most)
        return reading

    def known(self, number: int) -> bool:
        """See `realize.mover.interfaces.Names`."""
        byte = number >> 3
        return byte < len(self._known) and bool(self._known[byte] & 1 << (number & 7))

    def note(self, number: int) -> None:
        """See `realize.mover.interfaces.Names`."""
        byte = number >> 3
        if byte >= len(self._known):
            self._known.extend(bytes(byte + 1 - len(self._known)))
        self._known[byte] |= 1 << (number & 7)

    def close(self) -> None:
        """Free the space that the names take up."""
        self._records.close()
