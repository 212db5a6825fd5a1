"""`OneAtWork`: begins jobs of many short system calls one after the other, unless the running one waits.

Each system call releases Python's interpreter lock, and then has to get it back: two threads with such jobs hand it to
each other at each call, which costs more than the calls themselves.
A move of 10,000 small files between two directories of one machine, with four such threads, switched between threads
18 times for each file, and 39 times with all attributes; with one thread both took half as long.
A job that waits for a disk or a server uses no processor meanwhile; then the next one begins.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from realize.concurrency.shielded import RunInThread

LOOK_S: Final = 0.001
"""Seconds between two looks at the running jobs, while others wait."""

BUSY_FRACTION: Final = 0.8
"""Processor time per second, of all running jobs and the reactor together, from which on no further job begins.

The reactor counts, since a job that works beside it waits for the interpreter half of the time.
"""

WAITING_FRACTION: Final = 0.1
"""The same for one job, below which it counts as waiting: the next one does not wait for it."""

WAITED_FOR_S: Final = 0.25
"""Seconds after which the next job does not wait for a job any more, whatever that does.

While the reactor is busy, as with the content of large files, a job that hangs cannot be told from one that waits for
the interpreter.
"""

_Asked: TypeAlias = tuple[Deferred[Any], RunInThread, Callable[..., Any], tuple[Any, ...]]


class _Running:
    """One job that was begun."""

    def __init__(self, work: Callable[..., Any], now: float) -> None:
        self.work = work
        self.began = now
        self.waits = False
        self._clock: int | None = None
        """The clock of the processor time of its thread; None until it has begun there."""
        self._seconds = 0.0

    def __call__(self, *args: Any) -> Any:
        """Do the job; in its thread."""
        clock = time.pthread_getcpuclockid(threading.get_ident())
        self._seconds = time.clock_gettime(clock)
        self._clock = clock
        return self.work(*args)

    def used(self) -> float:
        """Return the processor time since the last call, in seconds."""
        if self._clock is None:
            return 0.0
        before = self._seconds
        try:
            self._seconds = time.clock_gettime(self._clock)
        except OSError:  # the thread has ended
            return 0.0
        return self._seconds - before


class OneAtWork:
    """Lets jobs into threads, in the order in which they were asked for."""

    def __init__(self, clock: IReactorTime, own_seconds: Callable[[], float] = time.thread_time) -> None:
        """``own_seconds`` returns the processor time of the calling thread."""
        self._clock = clock
        self._own_seconds = own_seconds
        self._waiting: deque[_Asked] = deque()
        self._running: list[_Running] = []
        self._beginning = False
        self._looked = self._own = 0.0
        self._later: IDelayedCall | None = None

    def through(self, run_in_thread: RunInThread) -> RunInThread:
        """Return what runs jobs by ``run_in_thread`` when it is their turn."""

        def run(work: Callable[..., Any], *args: Any) -> Deferred[Any]:
            result: Deferred[Any] = Deferred()
            self._waiting.append((result, run_in_thread, work, args))
            self._go_on()
            return result

        return run

    def _go_on(self) -> None:
        """Begin the next jobs, unless one that runs is at work.

        If that fails while no job is running, whose end would call this again, the waiting jobs fail, so that nobody
        waits for ever.
        """
        try:
            self._begin_some()
        except Exception:  # noqa: BLE001 -- the callers are told
            while self._waiting and not self._running:
                self._waiting.popleft()[0].errback(Failure())

    def _begin_some(self) -> None:
        if self._beginning:  # called by a job that ended as soon as it began
            return
        self._beginning = True
        try:
            while self._waiting and all(each.waits for each in self._running):
                self._begin()
        finally:
            self._beginning = False
        if self._waiting and self._later is None:
            self._look_later()

    def _begin(self) -> None:
        result, run_in_thread, work, args = self._waiting[0]
        running = _Running(work, self._clock.seconds())
        self._running.append(running)
        self._waiting.popleft()
        if self._later is not None:
            # The next look would come too early to judge the job that begins now.
            self._later.cancel()
            self._later = None
        maybeDeferred(run_in_thread, running, *args).addBoth(self._end, running).chainDeferred(result)

    def _end(self, outcome: Any, running: _Running) -> Any:
        self._running.remove(running)
        # A failure to begin the next job goes to its caller: this outcome, which may hold locks, must reach its own.
        self._go_on()
        return outcome

    def _look_later(self) -> None:
        self._looked, self._own = self._clock.seconds(), self._own_seconds()
        for each in self._running:
            each.used()
        self._later = self._clock.callLater(LOOK_S, self._look)

    def _look(self) -> None:
        """See what the running jobs do; begin one more while all of them together leave the processor to others."""
        self._later = None
        now = self._clock.seconds()
        passed = now - self._looked
        used = [each.used() for each in self._running]
        busy = sum(used, self._own_seconds() - self._own) >= BUSY_FRACTION * passed
        for each, its in zip(self._running, used, strict=True):
            each.waits = now - each.began >= WAITED_FOR_S or (
                its < WAITING_FRACTION * passed and (each.waits or not busy)
            )
        if self._waiting and not busy:
            self._begin()
        self._go_on()
