"""The directories that a peer has made or has removed something from, which it may therefore change or remove.

All others belong to somebody else, even if they are empty.

This is kept in memory, and bounded: a directory that is forgotten, by a restart for instance, simply stays.
"""

from __future__ import annotations

import struct
import threading
from typing import Final

from realize.fs.syscalls import birth_ns
from realize.fs.tree import Inode

MAX_FOOTPRINT_DIRECTORIES: Final = 20_000
"""Directories of each kind, made or emptied, that are remembered for a peer; beyond it the oldest are forgotten.

They are remembered after the peer has disconnected, too, outside of any memory budget: some 2 MB for each kind.
"""

Trace = bytes
"""Identity and birth time of a directory; a new directory may get the inode number of a removed one."""

_TRACE: Final = struct.Struct("QQq")  # a tuple of three numbers takes three times as much


def trace_of(identity: Inode, fd: int, name: bytes = b"") -> Trace:
    """Return the trace of the open directory ``fd``, or of ``name`` in it; ``identity`` is its device and inode."""
    return _TRACE.pack(*identity, birth_ns(fd, name))


class Footprint:
    """What one peer did to the directories below a served one; may be used from several threads."""

    def __init__(self) -> None:
        self._made: dict[Trace, None] = {}
        self._emptied: dict[Trace, None] = {}
        self._lock = threading.Lock()

    def made(self, directory: Trace) -> None:
        """Note that the peer made that directory."""
        self._note(self._made, directory)

    def removed_from(self, directory: Trace) -> None:
        """Note that the peer removed something from that directory."""
        self._note(self._emptied, directory)

    def gone(self, directory: Trace) -> None:
        """Forget a removed directory: another may get its inode number, and its birth time may be unknown."""
        with self._lock:
            self._made.pop(directory, None)
            self._emptied.pop(directory, None)

    def may_change(self, directory: Trace) -> bool:
        """Return whether the peer made it."""
        return directory in self._made

    def may_remove(self, directory: Trace) -> bool:
        """Return whether the peer made it, or removed something from it."""
        return directory in self._made or directory in self._emptied

    def _note(self, known: dict[Trace, None], directory: Trace) -> None:
        with self._lock:
            known.pop(directory, None)
            if len(known) >= MAX_FOOTPRINT_DIRECTORIES:
                del known[next(iter(known))]
            known[directory] = None
