"""Limits, standard streams and the age of this process."""

from __future__ import annotations

import os
import resource
import sys
import time


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: each connection and each file in flight needs one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def hold_standard_streams() -> None:
    """Open /dev/null as each standard stream that was closed when this process started.

    Otherwise the next file to be opened would get its descriptor, and output to stderr would go into that file.
    To be called before anything is opened: a descriptor that is in use already is left alone.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor
            stream = open(fd, mode, closefd=False)  # noqa: SIM115 -- stays open as long as the process
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def process_started() -> float:
    """When this process started, in seconds on the monotonic clock; the time to start Python is part of a run."""
    now = time.monotonic()
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return now
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return now - max(0.0, age)
