"""What statvfs(2) says of a file system, in bytes and files; pure."""

from __future__ import annotations

import os

from attrs import frozen

from realize.by_value import ByValue


@frozen(eq=False, repr=False)
class FileSystemSpace(ByValue):
    """How large a file system is, and how much of it is free for those who are not root.

    ``size`` and ``free`` are bytes, ``files`` and ``free_files`` inodes.
    ``files`` is 0 where there is no fixed number of them, ``size`` where the file system does not say.
    """

    size: int
    free: int
    files: int
    free_files: int


def space_of(status: os.statvfs_result) -> FileSystemSpace:
    """The sizes in a result of statvfs(2), which counts blocks."""
    unit = status.f_frsize
    return FileSystemSpace(status.f_blocks * unit, status.f_bavail * unit, status.f_files, status.f_favail)
