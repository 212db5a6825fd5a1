"""Making durable the directories above a root: whoever made them may not have lived to do it."""

from __future__ import annotations

import os
import threading
from typing import Final

from attrs import define, field

from realize.fs.descriptors import release
from realize.fs.syscalls import BTRFS, file_system, fsync_directory, syncfs, syncs_as_a_whole

_UPWARDS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@define(eq=False)
class Ancestors:
    """The directories above one root, up to the mount point; they are made durable once, by the first who asks."""

    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _durable: bool = field(default=False, init=False)

    def sync(self, root_fd: int) -> None:
        """Return when every directory above the open root is on stable storage; raises `OSError`."""
        with self._lock:
            if not self._durable:
                _sync_upwards(root_fd)
                self._durable = True


def _sync_upwards(root_fd: int) -> None:
    """Make durable what is above, on the file system of the root.

    A directory that we may not read cannot be synced by itself.
    Where syncfs(2) makes all of a file system durable, that does it; elsewhere it is passed over: a run of ours, which
    could read what it made, has not made it.
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
    """A descriptor of the parent, and whether it can be synced."""
    try:
        return os.open(b"..", _UPWARDS, dir_fd=fd), True
    except PermissionError:
        return os.open(b"..", os.O_PATH | _UPWARDS, dir_fd=fd), False


def _is_mounted(root_fd: int, above_fd: int, below: os.stat_result, above: os.stat_result) -> bool:
    """Whether the lower directory is where a file system is mounted; a subvolume of btrfs only looks like that."""
    return below.st_dev != above.st_dev and not file_system(root_fd) == file_system(above_fd) == BTRFS
