"""Telling, at a destination, a file that has lost a name from one that has just arrived.

Whoever replaces one of several names of a file changes the change time of that file, and under its other names it looks
as if it had arrived at that moment: nothing may replace it any more in the run.
So what a replacement of ours alone has changed is remembered, and undone where a file is judged by its change time.
"""

from __future__ import annotations

import threading
from typing import Final

from attrs import define, field

from realize.fs.syscalls import FileStatus

MAX_LOST_NAMES: Final = 1024
"""Files remembered at most; beyond it the oldest is dropped, whose other names are replaced in a later run."""

_Looks = tuple[int, int, int, int, int, int, int]


@define(eq=False, repr=False)
class LostNames:
    """The files of this process that lost names to replacements, used by all threads."""

    _lock: threading.Lock = field(factory=threading.Lock)
    _changed_ns: dict[_Looks, int] = field(factory=dict)

    def note(self, before: FileStatus, after: FileStatus) -> None:
        """Note that a file has lost a name by a replacement, unless somebody has changed more than that meanwhile."""
        if not after.st_nlink or _looks(before)[:-1] != _looks(after)[:-1]:
            return
        with self._lock:
            since_ns = self._changed_ns.pop(_looks(before), before.st_ctime_ns)
            self._changed_ns[_looks(after)] = since_ns
            if len(self._changed_ns) > MAX_LOST_NAMES:
                del self._changed_ns[next(iter(self._changed_ns))]

    def changed_ns(self, status: FileStatus) -> int:
        """Return the change time that a file has, or had before names of it were replaced."""
        if self._changed_ns:
            with self._lock:
                return self._changed_ns.get(_looks(status), status.st_ctime_ns)
        return status.st_ctime_ns


def _looks(status: FileStatus) -> _Looks:
    """What tells a version of a file, its change time last."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


LOST_NAMES: Final = LostNames()
"""Those of this process."""
