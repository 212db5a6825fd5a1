"""Check whether other users could change a file that says whom to trust."""

from __future__ import annotations

import os
import stat
from typing import Final

from realize.units import display_text

_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def changeable_by_others(path: str, status: os.stat_result) -> str | None:
    """How users other than root and ourselves could change an open file of that name and status; None if they cannot.

    They could also put another file in its place, if its directory is theirs, or writable for them and not sticky.
    """
    if not stat.S_ISREG(status.st_mode):
        return None  # such as a pipe, which is gone once it was read
    folder = os.path.dirname(os.path.realpath(path))
    return _changeable("the configuration file", status, path) or _changeable(
        f"its directory {display_text(folder)}", os.stat(folder), folder
    )


def _changeable(what: str, status: os.stat_result, path: str) -> str | None:
    if status.st_uid not in {os.geteuid(), 0}:
        return f"{what} belongs to user {status.st_uid}; it must belong to the user who runs this, or to root"
    if status.st_mode & _OTHERS and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
        mode = stat.S_IMODE(status.st_mode)
        return f"others can write to {what} (its mode is {mode:04o}): chmod go-w {display_text(path)}"
    return None
