"""The mark of a directory that was made for a file which has not arrived yet: such a directory may be removed.

It is an extended attribute, and is removed when a file arrives below the directory: from then on it is a directory like
any other, even when it is empty again.
The mark names the directory that it is for: one that somebody has copied with its attributes, renamed, or given to
another user does not count as marked.
Where extended attributes are not supported, directories are never marked.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from blake3 import blake3

AWAITING_ATTRIBUTE: Final = "user.realize.awaiting"


def mark(fd: int, name: bytes) -> None:
    """Mark an open directory that we have just made with that name."""
    with contextlib.suppress(OSError, MemoryError):
        os.setxattr(fd, AWAITING_ATTRIBUTE, _value(os.fstat(fd), name))


def unmark(fd: int) -> None:
    """Remove the mark of an open directory, since a file has arrived below it."""
    with contextlib.suppress(OSError):
        os.removexattr(fd, AWAITING_ATTRIBUTE)


def is_marked(fd: int, name: bytes) -> bool:
    """Return whether an open directory of that name is still waiting for its first file."""
    try:
        status = os.fstat(fd)
        return status.st_uid == os.geteuid() and os.getxattr(fd, AWAITING_ATTRIBUTE) == _value(status, name)
    except OSError:
        return False


def _value(status: os.stat_result, name: bytes) -> bytes:
    return status.st_ino.to_bytes(8, "big") + blake3(name).digest(8)
