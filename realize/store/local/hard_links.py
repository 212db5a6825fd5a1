"""Which changes of a hard-linked source are our own doing.

To remove one name of a file renews the change time that its other names show as well: what was read under one of them
would not look like that version any more, though its content does.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from attrs import define, evolve, field

from realize.fs.syscalls import fresh_fstat
from realize.fs.tree import Identity
from realize.store.local.versions import version_of
from realize.values import Version

MAX_LINKED_FILES: Final = 1024
"""So many hard-linked files are remembered; of one that was forgotten, a name more is read again."""

MAX_NAMES_PER_FILE: Final = 1024
"""So many removed names of each."""


@define(eq=False)
class HardLinks:
    """The change times that removals of ours have led from and to; shared by the threads of a store."""

    _lock: threading.Lock = field(factory=threading.Lock)
    _chains: dict[Identity, dict[Version, None]] = field(factory=dict)

    def same(self, read: Version, now: Version) -> bool:
        """Whether the file is what was read, but for the names that we have removed since."""
        with self._lock:
            return self._same(read, now)

    def unlink(self, fd: int, name: bytes, directory_fd: int, read: Version) -> bool:
        """Remove a name of the open file ``fd`` if the file is still what was read; whether it was."""
        with self._lock:
            before = version_of(fresh_fstat(fd))
            if not self._same(read, before):
                return False
            os.unlink(name, dir_fd=directory_fd)
            self._remember(before, version_of(fresh_fstat(fd)))
        return True

    def _same(self, read: Version, now: Version) -> bool:
        if read == now:
            return True
        chain = self._chains.get((now.device, now.inode), {})
        return read in chain and now == next(reversed(chain))

    def _remember(self, before: Version, after: Version) -> None:
        """Take note of a removal, unless more than the change time differs: somebody has written meanwhile."""
        if after != evolve(before, ctime_ns=after.ctime_ns):
            return
        identity = before.device, before.inode
        chain = self._chains.pop(identity, {})
        if not chain or next(reversed(chain)) != before:
            chain = {before: None}
        chain.pop(after, None)
        chain[after] = None
        if len(chain) > MAX_NAMES_PER_FILE:
            del chain[next(iter(chain))]
        self._chains[identity] = chain
        if len(self._chains) > MAX_LINKED_FILES:
            del self._chains[next(iter(self._chains))]
