"""Making the directories above a root durable: the process that made them may have died before doing so."""

from __future__ import annotations

import os
import threading
from typing import Final

from realize.fs.descriptors import release
from realize.fs.syscalls import BTRFS, file_system, fsync_directory, syncfs, syncs_as_a_whole

_UPWARDS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Ancestors:
    """The directories above one root, up to the mount point; the first call of `sync` makes them durable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._durable = False

    def sync(self, root_fd: int) -> None:
        """Return once every directory above the open root is on stable storage; raises `OSError`."""
        with self._lock:
            if not self._durable:
                _sync_upwards(root_fd)
                self._durable = True


def _sync_upwards(root_fd: int) -> None:
    """Make the directories above the root durable, as far as they are on its file system.

    A directory that we may not read cannot be fsynced.
    Where syncfs(2) makes a whole file system durable, we use that; elsewhere the directory is skipped: no run of ours
    has made it, since that run could read what it made.
    """
    below = os.fstat(root_fd)
    fd = os.dup(root_fd)
    try:
        while True:
            above, readable = _open_above(fd)
            former, fd = fd, above
            release(former)
            status = os.fstat(fd)
            if os.path.samestat(status, below) or _is_mounted(root_fd, fd, below, status):
                return
            if readable:
                fsync_directory(fd)
            elif syncs_as_a_whole(root_fd):
                syncfs(root_fd)
                return
            below = status
    finally:
        release(fd)


def _open_above(fd: int) -> tuple[int, bool]:
    """Return a descriptor of the parent directory, and whether it can be fsynced."""
    try:
        return os.open(b"..", _UPWARDS, dir_fd=fd), True
    except PermissionError:
        return os.open(b"..", os.O_PATH | _UPWARDS, dir_fd=fd), False


def _is_mounted(root_fd: int, above_fd: int, below: os.stat_result, above: os.stat_result) -> bool:
    """Return whether the lower directory is a mount point; a btrfs subvolume only looks like one."""
    return below.st_dev != above.st_dev and not file_system(root_fd) == file_system(above_fd) == BTRFS
