"""Whether other users could change a file that says whom to trust, and as which user to run what needs a file."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from typing import Final

from realize.units import display_text

_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def changeable_by_others(path: str, status: os.stat_result, what: str = "the configuration file") -> str | None:
    """How users other than root and ourselves could change an open file of that name and status; None if they cannot.

    They could also put another file in its place, if its directory is theirs, or writable for them and not sticky.
    ``what`` is what to call the file.
    """
    if not stat.S_ISREG(status.st_mode):
        return None  # such as a pipe, which is gone once it was read
    folder = os.path.dirname(os.path.realpath(path))
    return _changeable(what, status, path) or _changeable(
        f"its directory {display_text(folder)}", os.stat(folder), folder
    )


def user_name(number: int) -> str:
    """What a user is called here, for people; the number if nobody has it."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def not_ours(owner: int) -> str:
    """Whose a file is that must be ours or root's, and what to do."""
    return f"{_of(owner)}; it must belong to the user who runs this, or to root. {as_owner(owner)}"


def as_owner(owner: int) -> str:
    """How to run a command as the user whose files it needs."""
    try:
        user = shlex.quote(pwd.getpwuid(owner).pw_name)
    except KeyError:
        user = f"'#{owner}'"
    return f"To run the command as that user, put `sudo -u {user}` before it"


def forbidden(path: str) -> str:
    """What to add to "Permission denied" for a file that is somebody else's, or in a directory of theirs; else nothing.

    Nothing, too, if it is root's: who may read that is not said by its owner.
    """
    while True:
        try:
            owner = os.stat(path).st_uid
        except PermissionError:
            above = os.path.dirname(os.path.abspath(path))
            if above == path:
                return ""
            path = above
        except (OSError, ValueError):
            return ""
        else:
            break
    return "" if owner in {os.geteuid(), 0} else f"; {display_text(path)} {_of(owner)}. {as_owner(owner)}"


def _of(owner: int) -> str:
    return f"belongs to user {user_name(owner)}, and this is user {user_name(os.geteuid())}"


def _changeable(what: str, status: os.stat_result, path: str) -> str | None:
    if status.st_uid not in {os.geteuid(), 0}:
        return f"{what} {not_ours(status.st_uid)}"
    if status.st_mode & _OTHERS and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
        mode = stat.S_IMODE(status.st_mode)
        return f"others can write to {what} (its mode is {mode:04o}): chmod go-w {display_text(path)}"
    return None
