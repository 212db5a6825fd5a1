"""`Handle`: a file descriptor that no thread can use after it was closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from realize.errors import StorageError
from realize.fs.descriptors import release


class Handle:
    """Owns a descriptor, and closes it once `close` was called and no thread uses it any more.

    Used as a context, it yields the descriptor, or raises `StorageError` after `close`.
    The number of a closed descriptor is soon given to another file: a late write would go there.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._users = 0
        self._closing = False

    def __enter__(self) -> int:
        with self._lock:
            if self._closing:
                raise StorageError("the file was closed meanwhile")
            self._users += 1
        return self._fd

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._users -= 1
            last = self._closing and not self._users
        if last:
            release(self._fd)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing

    def close(self, dispose: Callable[[int], object] = release) -> None:
        """Close with ``dispose`` now, or with `release` when the last user is done; may be called more than once."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            last = not self._users
        if last:
            dispose(self._fd)
