"""Who replaces a file, says that it is there, or removes it: one at a time, of all processes of the machine.

Each of them looks at the file first and acts upon what it saw.
If another one acted in between, somebody could say that a file is there, so that its source goes, which is replaced or
removed in the same moment; or the file that was put in place of another could be removed in its stead.

The lock is a flock(2) on the file that is there, held for as long as a look and one call more take.
To remove a file is a shared lock, so whoever has one to read it is in nobody's way at the source.
Where a file system has no such locks, or may rename what is removed while it is open, the threads of this process take
turns, all of a file system together.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from attrs import define, field

from realize.errors import Busy
from realize.units import display_name

_TRIES: Final = 20
_PAUSE_S: Final = 0.01
_HOPELESS_S: Final = 1.0
"""After a lock was waited for in vain, others are not waited for so long: there may be a thousand files to come."""


@define(eq=False)
class FileLocks:
    """The locks of this process; may be used by several threads."""

    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic
    _hopeless_until: float = field(default=0.0, init=False)
    _devices: dict[int, threading.Lock] = field(factory=dict, init=False)

    def of_device(self, device: int) -> threading.Lock:
        """The lock of all files of a file system on which flock(2) is of no use."""
        return self._devices.setdefault(device, threading.Lock())

    def take(self, fd: int, path: bytes, operation: int) -> bool:
        """Take a flock(2); whether there are such locks."""
        tries = 1 if self.now() < self._hopeless_until else _TRIES
        for attempt in range(tries):
            if attempt:
                self.sleep(_PAUSE_S)
            try:
                fcntl.flock(fd, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError:
                return False
            return True
        self._hopeless_until = self.now() + _HOPELESS_S
        raise Busy(f"{display_name(path)}: is locked by another process")


class Lock:
    """A context in which nobody else has a turn with the open file ``fd``, which ``path`` names in errors.

    To enter it fails with `Busy` if another process keeps the file locked.
    ``device`` is that of the file; ``of_process`` says that a flock(2) is of no use there.
    """

    def __init__(
        self, locks: FileLocks, fd: int, path: bytes, *, device: int, of_process: bool, shared: bool = False
    ) -> None:
        self._locks = locks
        self._fd = fd
        self._path = path
        self._operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._device = device
        self.of_process = of_process
        """Whether it is one of this process alone, so that the file need not stay open: known when it is entered."""

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
            return
        with contextlib.suppress(OSError):  # it goes with the descriptor at the latest, and what was done is done
            fcntl.flock(self._fd, fcntl.LOCK_UN)


LOCKS: Final = FileLocks()
"""Those of this process: overlapping directories, and all stores, share them."""
