"""Give free memory back to the system when the process has grown.

The C library keeps memory that was freed between blocks still in use (`realize.process` tells it how much).
So memory that the daemon once used for its peers would stay resident for ever, though it is free.
Only glibc does this, and only glibc has the calls to change it; elsewhere there is nothing to do.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

HEAP_CHECK_INTERVAL_S: Final = 10.0
"""Time between two checks."""

MIN_GROWTH_BYTES: Final = 8 << 20
"""Growth of the process from which on trimming, which takes some milliseconds, is worth while."""

MIN_FREED_BYTES: Final = 1 << 20
"""A trim that gives back less than this counts as useless: that much may become free at any time."""

MAX_SKIPPED_CHECKS: Final = 63
"""Checks that are skipped at most after useless trims."""

_MEMORY_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """The resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _MEMORY_PAGE_BYTES


class Heap:
    """Checks regularly whether the process has grown, and then trims its heaps.

    ``held`` returns how many bytes are held for peers.
    While that is much, only memory that is free already is given back; otherwise a garbage collection comes first.
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
        self._idle_bytes = 0
        """The resident size before any peer was served."""
        self._left_bytes = 0
        """The resident size after the last trim."""
        self._useless_trims = 0
        """How many trims in a row have been useless."""
        self._skips = 0
        """How many of the next checks to skip."""
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Start checking; what was loaded until now is not looked at for garbage any more.

        That is 75,000 objects, which take a collection 50 ms; without them it takes 2 ms, and 65 with 1,000 peers.
        """
        gc.freeze()
        if self._trim is not None:
            self._idle_bytes = self._resident()
            self._call = self._clock.callLater(HEAP_CHECK_INTERVAL_S, self._check, self._trim)

    def stop(self) -> None:
        """Stop checking."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _check(self, trim: Callable[[], object]) -> None:
        self._call = self._clock.callLater(HEAP_CHECK_INTERVAL_S, self._check, trim)
        size = self._resident()
        if size < self._idle_bytes + MIN_GROWTH_BYTES:
            return
        if self._skips and size < self._left_bytes + MIN_GROWTH_BYTES:
            self._skips -= 1
            return
        quiet = self._held() < MIN_GROWTH_BYTES
        if quiet:
            gc.collect()
        trim()
        self._left_bytes = self._resident()
        # Memory that cannot be given back now may be in use by a thread only for the moment: check again, ever more
        # rarely.
        self._useless_trims = self._useless_trims + 1 if quiet and size - self._left_bytes < MIN_FREED_BYTES else 0
        self._skips = min(2**self._useless_trims - 1, MAX_SKIPPED_CHECKS)
