"""Whether a directory is ours alone, so that nobody else can put files into it, or take ours away."""

from __future__ import annotations

import os
import stat

from realize.units import display_text


def put_by_others(status: os.stat_result, folder: str) -> str | None:
    """How users other than root and ourselves could put files into a directory; None if they cannot.

    A sticky one is no exception: there they cannot take ours away, but be first.
    """
    shown = display_text(folder)
    if status.st_uid not in {os.geteuid(), 0}:
        return f"the directory {shown} belongs to user {status.st_uid}; expected one of the daemon's user or root"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        return f"others can write to the directory {shown} (its mode is {mode:04o}): chmod go-w {shown}"
    return None
