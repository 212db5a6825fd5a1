"""The end of a process that has not ended by its time limit, enforced by a thread of its own on the monotonic clock.

A run ends itself at its limit, by a timer of the reactor; but that does not fire while the reactor is stuck.
If the run has not ended `KILL_AFTER_S` after its limit and its grace, because something hangs (a thread on a dead disk,
a name server), the process is killed.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Final, Self

from realize.process import process_started
from realize.runs.options import Patience

KILL_AFTER_S: Final = 5.0
"""Delay after limit and grace until the process is killed."""


class Deadline:
    """Watches one run, while entered.

    ``overdue`` is called in the watching thread if the run has not ended when the process is to be killed, and returns
    the exit code;
    it is called ``overdue_lead`` seconds earlier, which is the time it takes.
    """

    def __init__(self, patience: Patience, overdue: Callable[[], int], overdue_lead: float = 0.0) -> None:
        self._limit = patience.max_duration
        self._last = (patience.max_duration or 0.0) + patience.grace + KILL_AFTER_S
        self._overdue_lead = overdue_lead
        self._overdue = overdue
        self._ended = threading.Event()
        self._began = process_started()

    def __enter__(self) -> Self:
        """Start watching, if there is a limit."""
        if self._limit is not None:
            threading.Thread(target=self._watch, name="deadline", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching: the run has ended."""
        self._ended.set()

    def left(self) -> float:
        """Seconds until the process would be killed; infinite without a limit."""
        return math.inf if self._limit is None else self._last - self.elapsed()

    def elapsed(self) -> float:
        """Seconds since the process started."""
        return time.monotonic() - self._began

    def _watch(self) -> None:
        if self._ended.wait(max(0.0, self._last - self._overdue_lead - self.elapsed())):
            return
        os._exit(self._overdue())
