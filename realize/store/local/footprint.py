"""Which directories a peer has made, and which it has emptied: those it may change, or remove.

The others are somebody else's, also if they are empty.

It is kept in memory, and bounded: what was forgotten, also by a restart, stays where it is.
"""

from __future__ import annotations

import struct
import threading
from typing import Final

from realize.fs.syscalls import birth_ns
from realize.fs.tree import Identity

MAX_FOOTPRINT_DIRECTORIES: Final = 20_000
"""Directories of one kind that are remembered of one peer; the oldest are forgotten.

They are remembered when the peer has gone, too, in no budget: some 2 MB of each kind.
"""

Trace = bytes
"""What a directory is, and when it was made: another one may get the number of one that is gone."""

_TRACE: Final = struct.Struct("QQq")  # a tuple of three numbers takes three times as much


def trace_of(identity: Identity, fd: int, name: bytes = b"") -> Trace:
    """That of an open directory, or of one of that name below it."""
    return _TRACE.pack(*identity, birth_ns(fd, name))


class Footprint:
    """What one peer did to the directories below one that is served; used from several threads."""

    def __init__(self) -> None:
        self._made: dict[Trace, None] = {}
        self._emptied: dict[Trace, None] = {}
        self._lock = threading.Lock()

    def made(self, directory: Trace) -> None:
        """The peer had that directory made."""
        self._note(self._made, directory)

    def removed_from(self, directory: Trace) -> None:
        """The peer had something removed from that directory."""
        self._note(self._emptied, directory)

    def gone(self, directory: Trace) -> None:
        """It was removed: another directory may get its number, and it may not be known when that was made."""
        with self._lock:
            self._made.pop(directory, None)
            self._emptied.pop(directory, None)

    def may_change(self, directory: Trace) -> bool:
        """Whether the peer had it made."""
        return directory in self._made

    def may_remove(self, directory: Trace) -> bool:
        """Whether the peer had it made, or something removed from it."""
        return directory in self._made or directory in self._emptied

    def _note(self, known: dict[Trace, None], directory: Trace) -> None:
        with self._lock:
            known.pop(directory, None)
            if len(known) >= MAX_FOOTPRINT_DIRECTORIES:
                del known[next(iter(known))]
            known[directory] = None
