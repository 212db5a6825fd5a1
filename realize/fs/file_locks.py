"""Mutual exclusion, among all processes of the machine, of replacing a file, confirming it, and removing it.

Each of these first looks at the file and then acts on what it saw.
If another one acted in between, one process could confirm that a file is there, so that its source is removed, while
another replaces or removes that file; or a file could be removed that was just put in the place of the one looked at.

The lock is a flock(2) on the existing file, held for as long as the look and one more call take.
Removing a file takes a shared lock, so a program at the source that holds one for reading is not in the way.
Where a file system has no such locks, or may rename a file that is removed while it is open, the threads of this
process exclude one another, for all files of that file system together.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from realize.errors import Busy
from realize.units import display_name

_TRIES: Final = 20
_PAUSE_S: Final = 0.01
_NO_WAIT_S: Final = 1.0
"""For this long after a lock was not obtained, other locks are tried only once: a thousand files may follow."""


class FileLocks:
    """The locks of this process; may be used by several threads."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep, now: Callable[[], float] = time.monotonic) -> None:
        self.sleep = sleep
        self.now = now
        self._no_wait_until = 0.0
        self._devices: dict[int, threading.Lock] = {}

    def of_device(self, device: int) -> threading.Lock:
        """Return the lock for all files of a file system on which flock(2) is of no use."""
        return self._devices.setdefault(device, threading.Lock())

    def take(self, fd: int, path: bytes, operation: int) -> bool:
        """Take a flock(2), and return whether the file system has such locks; raises `Busy` if it is held elsewhere."""
        tries = 0
        while True:
            try:
                fcntl.flock(fd, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                tries += 1
            except OSError:
                return False
            else:
                return True
            if tries == _TRIES or self.now() < self._no_wait_until:
                break
            self.sleep(_PAUSE_S)
        self._no_wait_until = self.now() + _NO_WAIT_S
        raise Busy(f"{display_name(path)}: is locked by another process")


class Lock:
    """A context that holds the lock of the open file ``fd``; ``path`` is what errors call it.

    Entering raises `Busy` if another process keeps the file locked.
    ``device`` is that of the file; ``of_process`` says that a flock(2) is of no use there.
    ``closing`` says that the caller closes ``fd`` as soon as it leaves the context, which unlocks the file.
    """

    def __init__(
        self,
        locks: FileLocks,
        fd: int,
        path: bytes,
        *,
        device: int,
        of_process: bool,
        shared: bool = False,
        closing: bool = False,
    ) -> None:
        self._locks = locks
        self._fd = fd
        self._path = path
        self._operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._device = device
        self._closing = closing
        self.of_process = of_process
        """Whether the lock is one of this process alone, so that ``fd`` need not stay open; known once entered."""

    def __enter__(self) -> Self:
        if not self.of_process:
            self.of_process = not self._locks.take(self._fd, self._path, self._operation)
        if self.of_process:
            self._locks.of_device(self._device).acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.of_process:
            self._locks.of_device(self._device).release()
        elif not self._closing:
            with contextlib.suppress(OSError):  # closing the descriptor unlocks it at the latest
                fcntl.flock(self._fd, fcntl.LOCK_UN)


LOCKS: Final = FileLocks()
"""The locks of this process, shared by all stores, since their directories may overlap."""
