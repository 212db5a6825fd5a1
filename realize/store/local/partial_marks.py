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

A partial gets the owner of its source before it gets its final name, see `realize.store.local.extras`.
What a crash leaves in between belongs to somebody else, and is told by an extended attribute that was set before.
Its owner may have it open, so nobody goes on with it: it is removed, and the file is sent anew.
One that is still ours is gone on with, but without what it was given, which the next sender may not ask for.

Some file systems have no modes, or drop the mark, and some show an owner other than ours.
There, a file counts as our partial if its owner and mark look like those of a new one, which `learn` remembers for as
long as this process runs.
"""

from __future__ import annotations

import contextlib
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

GIVEN: Final = "user.realize.partial"
"""The extended attribute of a partial that gets more than content, mode and time, until it has its final name."""

_GIVEN_VALUE: Final = b"1"

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
    if is_marked(status) and (owned or _was_given(directory_fd, name)):
        return True
    if _look(status) == _looks.get(status.st_dev):
        return True
    try:
        return owned and not keeps_modes(directory_fd)
    except OSError:
        return False


def note_given(fd: int) -> None:
    """Note on a partial that it may belong to somebody else in a moment; where that is impossible it is not noted."""
    with contextlib.suppress(OSError):
        os.setxattr(fd, GIVEN, _GIVEN_VALUE)


def forget_given(fd: int) -> None:
    """Take the note off, as far as we may."""
    with contextlib.suppress(OSError):
        os.removexattr(fd, GIVEN)


def is_of_others(fd: int) -> bool:
    """Return whether a partial belongs to somebody else by now, who may have it open."""
    return os.fstat(fd).st_uid != os.geteuid()


def is_given(fd: int) -> bool:
    """Return whether an open partial was given more than content, mode and time by a commit that was interrupted."""
    try:
        return os.getxattr(fd, GIVEN) == _GIVEN_VALUE
    except OSError:
        return False


def _was_given(directory_fd: int, name: bytes) -> bool:
    """The same for a name in a directory."""
    try:
        # There is no call for a name in a directory; through /proc it is one, and no symlink is followed.
        return os.getxattr(b"/proc/self/fd/%d/%b" % (directory_fd, name), GIVEN, follow_symlinks=False) == _GIVEN_VALUE
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
