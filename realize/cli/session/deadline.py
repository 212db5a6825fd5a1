"""The time limit of a run, kept by a thread of its own on the monotonic clock.

The reactor's timers run on the wall clock and stand still while the reactor is stuck; neither may make a run longer
than it was allowed.
When the limit is reached, the run is told; when it has not ended `KILL_AFTER_S` seconds after its grace, whatever
hangs in it
(a dead disk under a thread, a name server), the process ends at once.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Final, Self

from realize.cli.options import Patience

KILL_AFTER_S: Final = 5.0
"""Seconds beyond limit and grace, after which the process is ended by force."""


class Deadline:
    """Watches one run.

    ``reached`` is called in the watching thread; ``overdue`` there too, and answers the exit code.
    ``parting`` is how many seconds before the end by force ``overdue`` is called, for what it has to do.
    """

    def __init__(
        self, patience: Patience, reached: Callable[[], None], overdue: Callable[[], int], parting: float = 0.0
    ) -> None:
        self._limit = patience.max_duration
        self._last = (patience.max_duration or 0.0) + patience.grace + KILL_AFTER_S
        self._parting = parting
        self._reached = reached
        self._overdue = overdue
        self._ended = threading.Event()
        self._began = process_started()

    def __enter__(self) -> Self:
        """Start to watch, if there is a limit."""
        if self._limit is not None:
            threading.Thread(target=self._watch, args=(self._limit,), name="deadline", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """The run has ended."""
        self._ended.set()

    def left(self) -> float:
        """Seconds until the process would be ended by force; infinite without a limit."""
        return math.inf if self._limit is None else self._last - self.elapsed()

    def elapsed(self) -> float:
        """Seconds since the process began."""
        return time.monotonic() - self._began

    def _watch(self, limit: float) -> None:
        if self._ended.wait(max(0.0, limit - self.elapsed())):
            return
        self._reached()
        if self._ended.wait(max(0.0, self._last - self._parting - self.elapsed())):
            return
        os._exit(self._overdue())


def process_started() -> float:
    """When this process began, by the monotonic clock; starting Python is part of a run."""
    now = time.monotonic()
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return now
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return now - max(0.0, age)
