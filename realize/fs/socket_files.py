"""The name of a Unix socket in the file system: where it may be, what may be in its place, and that it goes at the end.

A socket whose directory others can write to is none of ours for long: they could put another one in its place.
A socket that nobody listens on any more is replaced; one of a daemon that lives stays, whoever starts beside it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from typing import Final

from attrs import define, field

from realize.errors import UsageError
from realize.fs.own_directories import put_by_others
from realize.units import display_text

MAX_SOCKET_PATH_BYTES: Final = 107
"""The longest path of a Unix socket that the kernel takes."""

_LOCK_TRIES: Final = 50
_LOCK_PAUSE_S: Final = 0.02


@define(eq=False, repr=False)
class SocketFile:
    """The file of a socket at an absolute ``path``."""

    path: str
    _made: tuple[int, int] | None = field(default=None, init=False)
    """Device and inode of the socket that was made here."""

    @contextlib.contextmanager
    def making(self) -> Iterator[None]:
        """Bind the socket, and listen, in this context: nobody else of this user makes one there meanwhile.

        Makes the directory, for ourselves alone, if only that is missing, and removes the socket of a program that has
        ended.
        Raises `realize.errors.UsageError` in words of the configuration if there can be no socket.
        """
        if len(os.fsencode(self.path)) > MAX_SOCKET_PATH_BYTES:
            raise UsageError(f"{display_text(self.path)} is too long: expected at most {MAX_SOCKET_PATH_BYTES} bytes")
        folder = os.path.dirname(self.path)
        with _explained(folder):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if (others := put_by_others(os.fstat(directory), folder)) is not None:
                raise UsageError(others)
            _lock(directory)
            self._make_way()
            yield
            made = os.lstat(self.path)
            self._made = made.st_dev, made.st_ino
        finally:
            os.close(directory)

    def remove(self) -> None:
        """Remove the socket, if it is still the one that was made here."""
        made, self._made = self._made, None
        with contextlib.suppress(OSError):
            there = os.lstat(self.path)
            if made == (there.st_dev, there.st_ino):
                os.unlink(self.path)

    def _make_way(self) -> None:
        """Remove what is left of a program that has ended; refuse everything else that has the name."""
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(there.st_mode):
            raise UsageError(f"{display_text(self.path)} exists and is not a socket; expected a name that is free")
        if _somebody_listens(self.path):
            raise UsageError(f"another daemon uses the socket {display_text(self.path)}; expected another name")
        with _explained(self.path):
            os.unlink(self.path)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{display_text(path)}: {error.strerror}") from error


def _lock(directory: int) -> None:
    """Wait, not for long, for whoever makes a socket there now; a stranger that locks it for ever stops nobody."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        except OSError:
            return  # the file system has no locks
        else:
            return


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        return probe.connect_ex(os.fsencode(path)) not in {errno.ECONNREFUSED, errno.ENOENT}
