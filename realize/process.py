"""Limits, free memory, standard streams, signal handlers and the age of this process."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, TextIO

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

KEPT_FREE_BYTES: Final = 64 << 20
"""Memory at the end of a heap that the C library keeps when it is free, instead of giving it back at once."""

MAPPED_BYTES: Final = 16 << 20
"""A piece of memory from this size on is given back when it is free: larger than any piece of content."""

MALLOC_ARENAS: Final = 2
"""Heaps that the threads of a daemon share; each heap keeps some free memory."""


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: each connection and each file in flight needs one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def keep_freed_memory() -> None:
    """Have the C library keep memory that was freed for what comes next, where it is glibc.

    Otherwise it goes back to the system with each batch, and the next one takes a page fault for every 4 KiB of it,
    which costs as much as to hash them, and in a virtual machine several times that.
    """
    import ctypes  # not for what needs none of it, such as help

    with contextlib.suppress(AttributeError):
        keep = ctypes.CDLL(None).mallopt
        keep(_M_MMAP_THRESHOLD, MAPPED_BYTES)
        keep(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)


def bound_heaps() -> Callable[[], object] | None:
    """Limit the heaps, of which the C library makes one for each thread; for a process that may serve many peers.

    Returns a function that gives back their free memory, or None without glibc.
    """
    import ctypes

    library = ctypes.CDLL(None)
    try:
        bound, trim = library.mallopt, library.malloc_trim
    except AttributeError:
        return None
    bound(_M_ARENA_MAX, MALLOC_ARENAS)
    return lambda: trim(ctypes.c_size_t(0))


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


def discard_output(stream: TextIO) -> None:
    """Lead to /dev/null what a stream that cannot be written to has left, or Python would complain of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def show_threads_when_aborted() -> None:
    """Have SIGABRT, with which the watchdog of systemd ends a process that hangs, show on stderr what each thread does.

    Python does the same at a crash then.
    """
    faulthandler.enable(2)


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


class SignalHandlers:
    """Signal handlers that are restored at the end; to be used in the main thread."""

    def __init__(self) -> None:
        self._former: dict[int, Any] = {}

    def on(self, number: int, action: Callable[[], object]) -> None:
        """Call ``action`` at that signal.

        It interrupts the main thread anywhere, so it must do next to nothing.
        """

        def received(_number: int, _frame: FrameType | None) -> None:
            action()

        former = signal.signal(number, received)
        self._former.setdefault(number, signal.SIG_DFL if former is None else former)

    def restore(self) -> None:
        """Restore the handlers that were there before."""
        while self._former:
            signal.signal(*self._former.popitem())
