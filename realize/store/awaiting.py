"""The mark of a directory that was made for something that has not arrived: nobody else knows of it, so it may go.

It is an extended attribute, and is taken off when a file arrives below the directory: from then on that is a directory
like any other, also when it is empty again.
Where no such attributes are to be had it is so from the start.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

ATTRIBUTE: Final = "user.realize.awaiting"


def mark(fd: int) -> None:
    """An open directory was made just now."""
    with contextlib.suppress(OSError):
        os.setxattr(fd, ATTRIBUTE, b"\x01")


def unmark(fd: int) -> bool:
    """Something has arrived below an open directory; whether it was marked until now."""
    try:
        os.removexattr(fd, ATTRIBUTE)
    except OSError:
        return False
    return True


def is_marked(fd: int) -> bool:
    """Whether an open directory still waits."""
    try:
        return bool(os.getxattr(fd, ATTRIBUTE))
    except OSError:
        return False
