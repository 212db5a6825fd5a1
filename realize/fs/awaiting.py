"""The mark of a directory that was made for something that has not arrived: nobody else knows of it, so it may go.

It is an extended attribute, and is taken off when a file arrives below the directory: from then on that is a directory
like any other, also when it is empty again.
It says which directory it is for: one that somebody has copied together with its attributes, renamed, or given to
another user, is his.
Where no such attributes are to be had it is so from the start.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from blake3 import blake3

AWAITING_ATTRIBUTE: Final = "user.realize.awaiting"


def mark(fd: int, name: bytes) -> None:
    """An open directory was made just now, with that name."""
    with contextlib.suppress(OSError, MemoryError):
        os.setxattr(fd, AWAITING_ATTRIBUTE, _value(os.fstat(fd), name))


def unmark(fd: int) -> None:
    """Something has arrived below an open directory."""
    with contextlib.suppress(OSError):
        os.removexattr(fd, AWAITING_ATTRIBUTE)


def is_marked(fd: int, name: bytes) -> bool:
    """Whether an open directory of that name still waits."""
    try:
        status = os.fstat(fd)
        return status.st_uid == os.geteuid() and os.getxattr(fd, AWAITING_ATTRIBUTE) == _value(status, name)
    except OSError:
        return False


def _value(status: os.stat_result, name: bytes) -> bytes:
    return status.st_ino.to_bytes(8, "big") + blake3(name).digest(8)
