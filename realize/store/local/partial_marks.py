"""Telling our partials from all other files.

Other users may make a file of any name, so the form of the name is not enough.
While a file is a partial of ours, its mode has the sticky bit, which has no other meaning for a regular file: it is set
from the file's creation until just after it got its final name, so whatever a crash leaves behind has it.
This costs nothing, and needs no extended attributes.
The file must also belong to us, since others could mark theirs.

A file that has such a name and is not ours is treated like any other file.

A symlink has no mode of its own.
One of ours, which was to replace another, is told by its owner and by a name that has check digits
(`realize.fs.names.temporary_link_name`); nobody gets to put one there under such a name.

Some file systems have no modes, or drop the mark, and some show an owner other than ours.
There, a file counts as our partial if its owner and mark look like those of a new one, which `learn` remembers for as
long as this process runs.
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
"""The mode of a partial until its content is complete."""

NOTE: Final = "partial file of Realize"
"""What messages call a partial."""

_looks: Final[dict[int, tuple[int, bool]]] = {}
"""Owner and mark of our partials, on the devices where these are not as they should be."""

_REFUSED: Final = frozenset({errno.EINVAL, errno.EPERM, errno.EIO, errno.EOPNOTSUPP})


def is_marked(status: FileStatus) -> bool:
    """Return whether the file has the mark."""
    return bool(status.st_mode & MARK)


def is_ours(directory_fd: int, name: bytes, status: FileStatus) -> bool:
    """Return whether the file, or symlink, of that name and status, in that directory, is one of our partials."""
    if not names.is_partial(name):
        return False
    owned = status.st_uid == os.geteuid()
    if stat.S_ISLNK(status.st_mode):
        return owned and names.is_temporary_link(name)
    if not stat.S_ISREG(status.st_mode):
        return False
    if owned and is_marked(status):
        return True
    if _look(status) == _looks.get(status.st_dev):
        return True
    try:
        return owned and not keeps_modes(directory_fd)
    except OSError:
        return False


def learn(status: FileStatus) -> None:
    """Remember how a partial that we have just made looks."""
    if not status.st_mode & MARK or status.st_uid != os.geteuid():
        _looks[status.st_dev] = _look(status)
    elif _looks:
        _looks.pop(status.st_dev, None)


def look_alike(status: FileStatus, other: FileStatus) -> bool:
    """Return whether two files look the same in owner and mark."""
    return _look(status) == _look(other)


def _look(status: FileStatus) -> tuple[int, bool]:
    return status.st_uid, is_marked(status)


def refuse_ours(directory_fd: int, name: bytes, status: FileStatus, path: bytes) -> None:
    """Raise `NotRegular` if the file is one of our partials; ``path`` is what the error calls it."""
    if names.is_partial(name) and is_ours(directory_fd, name, status):
        raise NotRegular(f"{display_name(path)}: is a {NOTE}")


def create(opening: Callable[[int], int]) -> int:
    """Return the result of ``opening`` for the mode of a new partial.

    Some network file servers refuse the mark instead of ignoring it; then it is tried without.
    """
    try:
        return opening(RECEIVING)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    return opening(RECEIVING & ~MARK)
