"""Who may replace a final file, or say that it is there: one at a time in a directory, of all processes of the machine.

Otherwise somebody could say that a file is there, so that its source goes, while another who has looked at it just
before replaces it.
The lock is a flock(2) on the directory, and holds for as long as a look and a rename take.
Where a file system has no such locks (on NFS they need a descriptor for writing) only the threads of this process take
turns.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from realize.errors import Busy
from realize.units import display_name

_TRIES: Final = 20
_PAUSE_S: Final = 0.01


class Replacing:
    """Turns of those who replace final files or vouch for them; to be shared by all stores of a directory."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._threads = threading.Lock()
        self._sleep = sleep
        self._patient = True

    @contextlib.contextmanager
    def turn(self, directory_fd: int, path: bytes) -> Iterator[None]:
        """Nobody else has a turn in the directory of ``path`` meanwhile.

        Fails with `Busy` if another process keeps the lock for long: any user who may read the directory can take it.
        """
        with self._threads:
            locked = self._lock(directory_fd, path)
            try:
                yield
            finally:
                if locked:
                    fcntl.flock(directory_fd, fcntl.LOCK_UN)

    def _lock(self, directory_fd: int, path: bytes) -> bool:
        """Whether the directory is locked now; false where there are no such locks.

        Who has waited in vain does not wait again until a lock is to be had: there may be a thousand files to come.
        """
        for attempt in range(_TRIES if self._patient else 1):
            if attempt:
                self._sleep(_PAUSE_S)
            try:
                fcntl.flock(directory_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError:
                return False
            self._patient = True
            return True
        self._patient = False
        raise Busy(f"{display_name(path)}: another process holds a lock on its directory")
