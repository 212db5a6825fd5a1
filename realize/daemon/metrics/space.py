"""The free space on the disks of the directories.

On a dead disk or network mount, statvfs(2) may hang for ever.
So it is called in a thread of its own, at most one for each directory, and callers get the last known result.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from realize.fs.space import FileSystemSpace, space_of


@frozen(repr=False)
class DiskSpace(FileSystemSpace):
    """What one look found."""

    seen_at: float
    """Seconds since the epoch."""


@define(eq=False, repr=False)
class DiskSpaces:
    """Measures the free space of directories when asked, and not otherwise."""

    statvfs: Callable[[str], os.statvfs_result] = os.statvfs
    _found: dict[str, DiskSpace] = field(factory=dict, init=False)
    _looking: dict[str, threading.Thread] = field(factory=dict, init=False)

    def known(self, paths: Mapping[str, str]) -> dict[str, DiskSpace]:
        """The last known results for these directories (name to path), by name; starts measuring each of them anew."""
        for path in paths.values():
            thread = self._looking.get(path)
            if thread is None or not thread.is_alive():
                # A daemon thread: nobody waits for it, not even the exit of the process.
                thread = threading.Thread(target=self._look, args=(path,), daemon=True, name="space")
                self._looking[path] = thread
                with contextlib.suppress(RuntimeError):  # no thread can be started: the last result stays
                    thread.start()
        return {name: self._found[path] for name, path in paths.items() if path in self._found}

    def _look(self, path: str) -> None:
        try:
            found = space_of(self.statvfs(path))
        except OSError:
            return  # the last result stays, and its time shows how old it is
        self._found[path] = DiskSpace(found.size, found.free, found.files, found.free_files, time.time())
