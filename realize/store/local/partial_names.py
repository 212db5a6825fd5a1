"""Telling our partials from all other files.

Others may have, or make, a file of any name, so the form of the name is not enough.
While a file is a partial of ours, its mode has the sticky bit, which means nothing else for a regular file: it is there
from its creation to the instant after it got its final name, so whatever a crash leaves behind has it.
It costs nothing, and needs no extended attributes.
And the file belongs to us, for others could mark theirs.

What has such a name and is not ours is a file like any other.

Some file systems have no modes, or drop the mark, and some show another owner than ours.
There a partial is what looks as a new one does: `learn` takes note of that, for as long as this process runs.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from realize.errors import NotRegular
from realize.fs import names
from realize.fs.syscalls import FileStatus, keeps_modes
from realize.units import display_name

MARK: Final = stat.S_ISVTX

RECEIVING: Final = MARK | 0o600
"""The mode of a partial until its content is whole."""

NOTE: Final = "partial file of Realize"
"""What people are told that it is."""

_looks: Final[dict[int, tuple[int, bool]]] = {}
"""How partials of ours look on the devices on which they look otherwise than they should."""

_REFUSED: Final = frozenset({errno.EINVAL, errno.EPERM, errno.EIO, errno.EOPNOTSUPP})


def is_marked(status: FileStatus) -> bool:
    """Whether the file has the mark."""
    return bool(status.st_mode & MARK)


def is_ours(directory_fd: int, name: bytes, status: FileStatus) -> bool:
    """Whether the file of that name and status, in that directory, is a partial of ours."""
    if not names.is_partial(name) or not stat.S_ISREG(status.st_mode):
        return False
    owned = status.st_uid == os.geteuid()
    if owned and is_marked(status):
        return True
    if _look(status) == _looks.get(status.st_dev):
        return True
    try:
        return owned and not keeps_modes(directory_fd)
    except OSError:
        return False


def learn(status: FileStatus) -> None:
    """Take note of how a partial looks that we have just made."""
    if not is_marked(status) or status.st_uid != os.geteuid():
        _looks[status.st_dev] = _look(status)
    elif _looks:
        _looks.pop(status.st_dev, None)


def look_alike(status: FileStatus, other: FileStatus) -> bool:
    """Whether the owner and the mark of two files look the same."""
    return _look(status) == _look(other)


def _look(status: FileStatus) -> tuple[int, bool]:
    return status.st_uid, is_marked(status)


def refuse_ours(directory_fd: int, name: bytes, status: FileStatus, path: bytes) -> None:
    """Fail with `NotRegular` if that is a partial of ours; ``path`` is what the error calls it."""
    if is_ours(directory_fd, name, status):
        raise NotRegular(f"{display_name(path)}: is a {NOTE}")


def create(opening: Callable[[int], int]) -> int:
    """What ``opening`` answers for the mode of a new partial.

    The servers of some network file systems refuse the mark instead of ignoring it.
    """
    try:
        return opening(RECEIVING)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    return opening(RECEIVING & ~MARK)
