"""Where the control socket of a daemon is unless its configuration says, and where the command looks for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

SYSTEM_RUNTIME_DIRECTORY: Final = "/run/realize"
"""The directory of a daemon of the system, as systemd makes it for ``RuntimeDirectory=realize``."""

_SOCKET_NAME: Final = "control.sock"


def daemon_control_path(environ: Mapping[str, str], system: str = SYSTEM_RUNTIME_DIRECTORY) -> str | None:
    """Where a daemon of this user makes its socket; None if there is no directory for it.

    That is the one that systemd has made for it (``RUNTIME_DIRECTORY``), that of the system if it is ours, or one in
    our ``XDG_RUNTIME_DIR``.
    """
    if (of_unit := _of_unit(environ)) is not None:
        return os.path.join(of_unit, _SOCKET_NAME)
    if _is_ours(system):
        return os.path.join(system, _SOCKET_NAME)
    return next((path for path in _of_user(environ) if _is_ours(os.path.dirname(os.path.dirname(path)))), None)


def command_control_paths(environ: Mapping[str, str], system: str = SYSTEM_RUNTIME_DIRECTORY) -> tuple[str, ...]:
    """Where the command looks for the socket of a daemon of this machine.

    First for one of the same unit of systemd, which runs the command to reload it, then for one of the same user.
    A directory of another user, as ``sudo -E`` leaves it in the environment, is not looked at: root means that of the
    system.
    """
    of_unit = _of_unit(environ)
    ours = [] if of_unit is None or _is_of_somebody_else(of_unit) else [os.path.join(of_unit, _SOCKET_NAME)]
    if not _is_of_somebody_else(environ.get("XDG_RUNTIME_DIR", "")):
        ours += _of_user(environ)
    return (*dict.fromkeys((*ours, os.path.join(system, _SOCKET_NAME))),)


def _of_unit(environ: Mapping[str, str]) -> str | None:
    """The directory that systemd has made for the unit of this process."""
    given = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return given if os.path.isabs(given) else None


def _of_user(environ: Mapping[str, str]) -> tuple[str, ...]:
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return (os.path.join(runtime, "realize", _SOCKET_NAME),) if os.path.isabs(runtime) else ()


def _is_ours(directory: str) -> bool:
    return _owner(directory) == os.geteuid()


def _is_of_somebody_else(directory: str) -> bool:
    return _owner(directory) not in {None, os.geteuid()}


def _owner(directory: str) -> int | None:
    """The user that a directory belongs to; None if it is not there."""
    try:
        return os.stat(directory).st_uid
    except OSError:
        return None
