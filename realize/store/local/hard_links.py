"""Telling our own changes of a hard-linked source from those of others.

Removing one name of a file updates the change time of the inode, and so of the file under its other names: what was
read under one of those would look like an older version, although the content is the same.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from attrs import define, field

from realize.fs.syscalls import fresh_fstat
from realize.fs.tree import Inode
from realize.store.local.versions import version_of
from realize.values import Version

MAX_LINKED_FILES: Final = 1024
"""Hard-linked files tracked at most; beyond it the oldest is dropped, and its remaining names are read again."""

MAX_NAMES_PER_FILE: Final = 1024
"""Versions remembered of each file, one per removed name; beyond it the oldest is dropped."""


@define(eq=False, repr=False)
class HardLinks:
    """The versions that our removals have led from and to; shared by the threads of a store."""

    _lock: threading.Lock = field(factory=threading.Lock)
    _versions: dict[Inode, dict[Version, None]] = field(factory=dict)
    """For each file, in order: each version became the next by a removal of ours alone."""

    def same(self, read: Version, now: Version) -> bool:
        """Return whether ``now`` is the version ``read``, apart from names that we have removed since."""
        with self._lock:
            return self._same(read, now)

    def unlink(self, fd: int, name: bytes, directory_fd: int, read: Version) -> bool:
        """Remove a name of the open file ``fd`` if it is still the version ``read``; return whether it was."""
        with self._lock:
            before = version_of(fresh_fstat(fd))
            if not self._same(read, before):
                return False
            os.unlink(name, dir_fd=directory_fd)
            self._remember(read, before, version_of(fresh_fstat(fd)))
        return True

    def _same(self, read: Version, now: Version) -> bool:
        if read == now:
            return True
        versions = self._versions.get((now.device, now.inode), {})
        return read in versions and now == next(reversed(versions))

    def _remember(self, read: Version, before: Version, after: Version) -> None:
        """Remember a removal, unless more than the change time differs: then somebody has written meanwhile.

        What was ``read`` is not dropped before what came after it: other names may have been read with it.
        """
        if (after.size, after.mtime_ns, after.inode, after.device) != (
            before.size,
            before.mtime_ns,
            before.inode,
            before.device,
        ):
            return
        identity = before.device, before.inode
        versions = self._versions.pop(identity, {})
        if not versions or next(reversed(versions)) != before:
            versions = {before: None}
        for each in (read, after):
            versions.pop(each, None)
        versions[read] = None
        versions[after] = None
        if len(versions) > MAX_NAMES_PER_FILE:
            del versions[next(iter(versions))]
        self._versions[identity] = versions
        if len(self._versions) > MAX_LINKED_FILES:
            del self._versions[next(iter(self._versions))]
