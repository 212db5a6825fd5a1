"""Giving memory that is free back to the system.

The C library keeps what was freed between blocks that are still in use, and a heap of its own for each thread: what
peers have made the daemon hold would stay resident for ever, though it is free.
Only glibc does so, and only glibc has the calls; elsewhere there is nothing to do.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

HEAP_CHECK_INTERVAL_S: Final = 10.0
"""Seconds between two looks."""

MIN_GROWTH_BYTES: Final = 8 << 20
"""Bytes by which the process must have grown for the work, some milliseconds, to be worth while."""

MIN_FREED_BYTES: Final = 1 << 20
"""Bytes that may become free at any time."""

MAX_SKIPPED_CHECKS: Final = 63
"""Looks that are left out at most, where nothing goes."""

MALLOC_ARENAS: Final = 2
"""Heaps that threads take memory from; each keeps something."""

_M_ARENA_MAX: Final = -8  # malloc.h
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def bound_heaps() -> Callable[[], object] | None:
    """Let there be few heaps; what gives back what is free in them, None if there is no such thing here."""
    library = ctypes.CDLL(None)
    try:
        bound, trim = library.mallopt, library.malloc_trim
    except AttributeError:
        return None
    bound(_M_ARENA_MAX, MALLOC_ARENAS)
    return lambda: trim(ctypes.c_size_t(0))


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


class Heap:
    """Looks now and then whether the process is larger than it need be.

    ``held`` is how many bytes peers make it hold: while that is much, only what is free is given back, and what waits
    for the garbage collector is left to that.
    """

    def __init__(
        self,
        clock: IReactorTime,
        held: Callable[[], int],
        trim: Callable[[], object] | None,
        resident: Callable[[], int] = resident,
    ) -> None:
        self._clock = clock
        self._held = held
        self._trim = trim
        self._resident = resident
        self._lowest = 0
        """Bytes that it had when nobody was served yet."""
        self._left = 0
        """Bytes that were left by the last look that gave something back, or tried to."""
        self._in_vain = 0
        """How many such looks in a row have given nothing back."""
        self._pause = 0
        """So many looks are left out."""
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """From now on."""
        if self._trim is not None:
            self._lowest = self._resident()
            self._call = self._clock.callLater(HEAP_CHECK_INTERVAL_S, self._look, self._trim)

    def stop(self) -> None:
        """No more."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _look(self, trim: Callable[[], object]) -> None:
        self._call = self._clock.callLater(HEAP_CHECK_INTERVAL_S, self._look, trim)
        size = self._resident()
        if size < self._lowest + MIN_GROWTH_BYTES:
            return
        if self._pause and size < self._left + MIN_GROWTH_BYTES:
            self._pause -= 1
            return
        quiet = self._held() < MIN_GROWTH_BYTES
        if quiet:
            gc.collect()
        trim()
        self._left = self._resident()
        # What seems to be needed for good may wait for a thread: it is looked at again, but ever more rarely.
        self._in_vain = self._in_vain + 1 if quiet and size - self._left < MIN_FREED_BYTES else 0
        self._pause = min(2**self._in_vain - 1, MAX_SKIPPED_CHECKS)
