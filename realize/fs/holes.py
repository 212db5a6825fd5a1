"""Holes of files: stretches that were never written, read as zeros and take no room; for a thread.

What lseek(2) calls a hole may also have been allocated without being written to.
"""

from __future__ import annotations

import errno
import os

from realize.fs.syscalls import always_fresh


def next_content(fd: int, offset: int, end: int) -> int:
    """Return where content begins, from ``offset`` on, as far as the file system says: before that is a hole.

    It is ``end`` at most, and never beyond the end of the file.
    Where the file system tells nothing of holes, and at the end of the file, it is ``offset``.
    """
    try:
        return max(offset, min(os.lseek(fd, offset, os.SEEK_DATA), end))
    except OSError as error:
        # The rest is one hole, if there is a rest: the file may have become shorter.
        return max(offset, min(os.lseek(fd, 0, os.SEEK_END), end)) if error.errno == errno.ENXIO else offset


def next_hole(fd: int, offset: int, end: int) -> int:
    """Return where the content ends that begins at ``offset``, ``end`` at most."""
    try:
        found = os.lseek(fd, offset, os.SEEK_HOLE)
    except OSError:
        return end
    return min(found, end) if found > offset else end


def holes_are_sure(fd: int) -> bool:
    """Return whether what the file system of ``fd`` calls a hole needs no look: it certainly reads as zeros.

    Other machines, and servers in user space, may not know yet what was written here or there; ZFS has been wrong, too.
    """
    return always_fresh(fd)


def sure_hole(fd: int, offset: int, end: int) -> int:
    """Return the end of the hole that begins at ``offset``, ``end`` at most; ``offset`` if it is none, or not sure."""
    found = next_content(fd, offset, end)
    return found if found == offset or holes_are_sure(fd) else offset
