"""The limits and standard streams of this process, set right before it opens anything."""

from __future__ import annotations

import os
import resource
import sys


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: each connection and each file on its way needs one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def hold_standard_streams() -> None:
    """Put /dev/null in the place of each standard stream that was closed before this process began.

    Else the next file that is opened would have its number, and what is written to stderr would go into that file.
    To be called before anything is opened; a number that is taken already stays with whoever has it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            stream = open(fd, mode, closefd=False)  # noqa: SIM115 -- as long as the process
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
