"""Sorting more records than memory should hold: in runs, which are merged in a temporary file.

Temporary files have no name, so nobody finds them, and nothing is left of them whatever happens.
Everything here blocks, so call it in a thread.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import IO, Final

from realize.errors import StorageError

SORTED_IN_MEMORY_BYTES: Final = 16 << 20
"""About how much memory the records of one run take."""

MAX_SORTED_RUNS: Final = 64
"""Runs that are merged at a time; each takes a descriptor and a buffer."""

_BUFFER_BYTES: Final = 64 << 10
_RECORD_OVERHEAD_BYTES: Final = 64
_PREFIX: Final = struct.Struct("!I")


class SortedRecords:
    """Records in order, each once, to be read as often as needed."""

    def __init__(self, records: list[bytes] | IO[bytes]) -> None:
        self._records = records

    def read(self, position: int, most: int) -> tuple[list[bytes], int]:
        """Return up to ``most`` records from a position on, 0 being the first, and the position after them.

        At the end there are none.  Raises `StorageError` if the temporary file cannot be read.
        """
        if isinstance(self._records, list):
            found = self._records[position : position + most]
            return found, position + len(found)
        try:
            self._records.seek(position)
            found = [record for record, _ in zip(_read(self._records), range(most), strict=False)]
        except OSError as error:
            raise _failed(error) from error
        return found, position + sum(len(record) + _PREFIX.size for record in found)

    def close(self) -> None:
        """Free the space; nothing can be read any more."""
        if not isinstance(self._records, list):
            self._records.close()
        self._records = []


class Sorter:
    """Takes records, and returns them in order; holds about `SORTED_IN_MEMORY_BYTES` of them in memory."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._runs: list[IO[bytes]] = []

    def add(self, record: bytes) -> None:
        """Add a record; raises `StorageError` if there is no space for temporary files."""
        self._held.append(record)
        self._held_bytes += len(record) + _RECORD_OVERHEAD_BYTES
        if self._held_bytes >= SORTED_IN_MEMORY_BYTES:
            self._spill()

    def sorted(self) -> SortedRecords:
        """Return all records; to be called once, as the last method but `close`."""
        if not self._runs:
            held, self._held = self._held, []
            held.sort()
            return SortedRecords(list(_unique(held)))
        self._spill()
        [merged] = [self._merged()] if len(self._runs) > 1 else self._runs
        self._runs = []
        return SortedRecords(merged)

    def close(self) -> None:
        """Give up what was added, unless `sorted` has returned it."""
        self._held = []
        for run in self._runs:
            run.close()
        self._runs = []

    def _spill(self) -> None:
        if not self._held:
            return
        held, self._held, self._held_bytes = self._held, [], 0
        held.sort()
        self._runs.append(_written(held))
        if len(self._runs) >= MAX_SORTED_RUNS:
            self._runs = [self._merged()]

    def _merged(self) -> IO[bytes]:
        try:
            for run in self._runs:
                run.seek(0)
        except OSError as error:
            raise _failed(error) from error
        merged = _written(heapq.merge(*map(_read, self._runs)))
        for run in self._runs:
            run.close()
        return merged


def _unique(records: Iterable[bytes]) -> Iterator[bytes]:
    return map(itemgetter(0), groupby(records))


def _written(records: Iterable[bytes]) -> IO[bytes]:
    try:
        file = tempfile.TemporaryFile(buffering=_BUFFER_BYTES, dir=_directory())  # noqa: SIM115 -- it is returned
    except OSError as error:
        raise _failed(error) from error
    try:
        for record in _unique(records):
            file.write(_PREFIX.pack(len(record)))
            file.write(record)
        file.flush()
    except BaseException as error:
        # What is still in the buffer is written by that, which fails again.
        with contextlib.suppress(OSError):
            file.close()
        if isinstance(error, OSError):
            raise _failed(error) from error
        raise
    return file


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while length := file.read(_PREFIX.size):
        yield file.read(_PREFIX.unpack(length)[0])


def _directory() -> str:
    """Return where large temporary files belong: ``TMPDIR``, else /var/tmp, for /tmp is often in memory."""
    given = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108 -- the files there have no name
    return given if os.access(given, os.W_OK | os.X_OK) else tempfile.gettempdir()


def _failed(error: OSError) -> StorageError:
    return StorageError(f"cannot write a temporary file for sorting: {error.strerror}; TMPDIR names its directory")
