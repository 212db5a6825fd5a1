"""Writing content completely, and making names durable; for a thread.

A file system that can no longer write its journal reports that once, to the caller that waits for that commit.
After that, ext4 and XFS let an fsync of another directory succeed, although its names were lost with the same commit
(measured on Linux 6.18; so does an overlay on them).
So an fsync proves something only if the file system still takes changes afterwards: see `refuse_dead`.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from realize.fs.syscalls import fsync_directory, is_elsewhere

_DEAD: Final = frozenset({errno.EIO, errno.EROFS, errno.EUCLEAN, errno.ESHUTDOWN, errno.ENODEV, errno.ENXIO})
"""Numbers of errors of a change with which a file system refuses all further ones, too."""


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Write all of ``content`` at the descriptor's position, in as many calls as it takes; raises `OSError`."""
    written = os.write(fd, content) if content else 0
    while written < len(content):
        written += os.write(fd, memoryview(content)[written:])


def sync_directory(path: str) -> None:
    """Make the names in a directory durable, where its file system supports that; raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync_directory(fd)
    finally:
        os.close(fd)


def change_nothing(fd: int) -> None:
    """Give an open directory another change time; raises `OSError` if its file system takes no more changes.

    On another machine's file system, or a server's in user space, this does nothing.
    Changes are journalled in order, so an fsync of the directory covers then what was done to the things in it before,
    such as giving a symlink its owner.
    """
    if is_elsewhere(fd):
        return
    try:
        os.fchown(fd, -1, -1)
    except OSError as error:
        if error.errno in _DEAD:
            raise


def refuse_dead(fd: int) -> None:
    """Raise `OSError` if the file system of an open directory takes no more changes; see `change_nothing`."""
    change_nothing(fd)
    change_nothing(fd)  # ext4 notices with the first one, and refuses the second one
