"""How much room the disks of the directories have.

A dead disk or network mount makes statvfs(2) hang for as long as it likes.
So each look is a thread of its own, at most one for each directory, and whoever asks gets what the last look found.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from realize.fs.space import FileSystemSpace, space_of


@frozen
class DiskSpace(FileSystemSpace):
    """What one look found."""

    seen_at: float
    """Seconds since the epoch."""


@define(eq=False)
class DiskSpaces:
    """Looks at directories when it is asked, and not otherwise."""

    statvfs: Callable[[str], os.statvfs_result] = os.statvfs
    _found: dict[str, DiskSpace] = field(factory=dict, init=False)
    _looking: dict[str, threading.Thread] = field(factory=dict, init=False)

    def known(self, paths: Mapping[str, str]) -> dict[str, DiskSpace]:
        """What is known by now of the directories of these names and paths; a new look at each begins."""
        for path in paths.values():
            thread = self._looking.get(path)
            if thread is None or not thread.is_alive():
                # Nobody waits for it, not even the end of the process.
                thread = threading.Thread(target=self._look, args=(path,), daemon=True, name="space")
                self._looking[path] = thread
                with contextlib.suppress(RuntimeError):  # no thread is to be had: what was known grows old
                    thread.start()
        return {name: self._found[path] for name, path in paths.items() if path in self._found}

    def _look(self, path: str) -> None:
        try:
            found = space_of(self.statvfs(path))
        except OSError:
            return  # what was known grows old, which its time shows
        self._found[path] = DiskSpace(found.size, found.free, found.files, found.free_files, time.time())
