"""Opening a file for reading such that the version that is read is known."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Final

from attrs import frozen

from realize.by_value import ByValue
from realize.errors import NotRegular, SourceChanged, WrongSize
from realize.fs.descriptors import release
from realize.fs.syscalls import FileStatus, is_open_for_writing, kind_of
from realize.fs.tree import Tree
from realize.store.local.partial_marks import refuse_ours
from realize.units import display_name
from realize.values import MAX_COARSENESS_NS, Attributes, Version, coarseness_ns

READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
"""O_NONBLOCK: opening a FIFO must not wait for a writer."""

LINK_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""For what is not to be read, a symlink too."""

UNREADABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.ENODEV})
"""Errors of open(2) with `READ_FLAGS` if it is not a regular file that we may read."""

_SETTLED_AFTER_NS: Final = 20_000_000
_SURELY_SETTLED_AFTER_NS: Final = _SETTLED_AFTER_NS + MAX_COARSENESS_NS
_TICKS: Final = 5
_EARLIEST_NS: Final = -(1 << 63)
_LATEST_NS: Final = (1 << 63) - 1


@frozen(eq=False, repr=False)
class Clock(ByValue):
    """The time, and the way to sleep; replaced in tests."""

    now_ns: Callable[[], int] = time.time_ns
    sleep: Callable[[float], None] = time.sleep


def representable(time_ns: int) -> int:
    """Return the nearest time that fits 64 bits, as on the wire: a file may claim to be from the year 300,000."""
    if _EARLIEST_NS <= time_ns <= _LATEST_NS:
        return time_ns
    return _LATEST_NS if time_ns > 0 else _EARLIEST_NS


def version_of(status: FileStatus) -> Version:
    """Return the version that a status stands for."""
    mtime_ns, ctime_ns = status.st_mtime_ns, status.st_ctime_ns
    if not (0 <= mtime_ns <= _LATEST_NS and 0 <= ctime_ns <= _LATEST_NS):
        mtime_ns, ctime_ns = representable(mtime_ns), representable(ctime_ns)
    return Version(status.st_dev, status.st_ino, status.st_size, mtime_ns, ctime_ns)


def unchanged(before: FileStatus, after: FileStatus) -> bool:
    """Return whether both are of the same version."""
    return (
        before.st_ctime_ns == after.st_ctime_ns
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_size == after.st_size
        and before.st_ino == after.st_ino
        and before.st_dev == after.st_dev
    )


def has_more(fd: int, size: int) -> bool:
    """Return whether a file has content beyond the size in its status.

    Network and cloud file systems may report too small a size: 0 if they do not know it, or the compressed size.
    """
    return bool(os.pread(fd, 1, size))


def wrong_size(path: bytes, size: int, *, more: bool) -> WrongSize:
    """Return the error for an unchanged file that has more, or less, content than its size says."""
    return WrongSize(
        f"{display_name(path)}: has {'more' if more else 'less'} content than its size of {size} bytes says "
        "(is it on a network or cloud mount?), so it was left alone"
    )


def attributes_of(status: os.stat_result) -> Attributes:
    """Return the attributes that are carried over."""
    return Attributes(representable(status.st_mtime_ns), status.st_mode & 0o777)


def open_if_readable(name: bytes, directory_fd: int) -> int | None:
    """Return a descriptor for reading the file; None if it cannot be read, though its status can."""
    try:
        return os.open(name, READ_FLAGS, dir_fd=directory_fd)
    except OSError as error:
        if error.errno in UNREADABLE:
            return None
        raise


def open_regular(tree: Tree, directory: tuple[bytes, ...], name: bytes, path: bytes) -> tuple[int, os.stat_result]:
    """Return a descriptor for reading a regular file, and its status; ``path`` is what errors call it.

    Raises `OSError`, or `NotRegular` for anything else and for our partials.
    """
    directory_fd = tree.directory(directory)
    fd = os.open(name, READ_FLAGS, dir_fd=directory_fd)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegular(f"{display_name(path)}: is a {kind_of(status.st_mode)}")  # noqa: TRY301
        refuse_ours(directory_fd, name, status, path)
        tree.drop_old_content(fd, status)
    except BaseException:
        release(fd)
        raise
    return fd, status


def refuse_written(fd: int, path: bytes, *, closing: bool = False) -> None:
    """Raise `SourceChanged` if a program has the file open for writing, as far as the kernel tells.

    ``closing`` is as for `is_open_for_writing`.
    What such a program stores, for example through a mapping, need not show in the status of the file.
    """
    if is_open_for_writing(fd, closing=closing):
        raise SourceChanged(f"{display_name(path)}: is open for writing by another program")


def is_version(status: FileStatus, version: Version) -> bool:
    """Return whether a status is that of this version."""
    return (
        status.st_ctime_ns == version.ctime_ns
        and status.st_mtime_ns == version.mtime_ns
        and status.st_size == version.size
        and status.st_ino == version.inode
        and status.st_dev == version.device
    ) or version_of(status) == version


def settled_in(stamp_ns: int, now_ns: int) -> float:
    """Return the seconds until a change of a file with this change time is sure to get another one; 0 if it is now.

    A change time in the near future counts, too: our clock was set back, or is behind that of a server, and will show
    that time again.
    """
    settled_at = _SETTLED_AFTER_NS + coarseness_ns(stamp_ns)
    age = now_ns - stamp_ns
    return (settled_at - age) / 1e9 if -settled_at < age < settled_at else 0.0


def open_settled(
    tree: Tree, directory: tuple[bytes, ...], name: bytes, path: bytes, clock: Clock
) -> tuple[int, os.stat_result]:
    """As `open_regular`, but waits until any later write is sure to change the version.

    The kernel stamps files with a clock that ticks every 10 ms at worst.
    A file that was stamped in the current tick can change again without looking changed, so we wait a little, longer
    where the file system's stamps are coarse; a file that keeps changing raises `SourceChanged`.
    """
    fd, status = open_regular(tree, directory, name, path)
    try:
        if clock.now_ns() - status.st_ctime_ns > _SURELY_SETTLED_AFTER_NS:
            return fd, status
        for _ in range(_TICKS):
            wait = settled_in(status.st_ctime_ns, clock.now_ns())
            if wait <= 0:
                return fd, status
            clock.sleep(wait)
            status = os.fstat(fd)
        raise SourceChanged(f"{display_name(path)}: is being written")  # noqa: TRY301
    except BaseException:
        release(fd)
        raise
