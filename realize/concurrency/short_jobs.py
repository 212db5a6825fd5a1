"""`ShortJobs`: runs jobs of many short system calls in one thread, and in more threads while they are slow.

Each such call releases the GIL and has to take it again: with four such threads beside the reactor, that took 32 calls
of futex(2) for each file of 10 KiB at either end; with two threads it took 5 at the daemon and 2 at the command
(``strace -f -c``), and a fifth less CPU.
When everything is in the kernel's cache, a batch takes some five milliseconds, and one thread needs 4 % less time than
two.
When content has to come from a disk, a job takes longer, and waits rather than works: then a second thread keeps the
disk busy (10,000 files of 10 KiB that were not in the cache took as long as with two threads always, and a tenth more
CPU with up to three).
The third thread is for another peer, which two slow jobs of the first one must not keep waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from realize.concurrency.shielded import RunInThread
from realize.concurrency.turns import Rota

MAX_THREADS: Final = 3
"""Threads in use at a time, for one directory."""

MAX_THREADS_PER_PEER: Final = 2
"""How many of these one peer may use."""

SLOW_JOB_S: Final = 0.01
"""A job that takes longer counts as slow."""

_Job: TypeAlias = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]


class ShortJobs:
    """Uses some of the threads of ``run_in_thread``; the jobs of a peer begin in order, and peers take turns."""

    def __init__(self, run_in_thread: RunInThread, clock: IReactorTime) -> None:
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._waiting: Rota[_Job] = Rota()
        self._running: list[tuple[float, str]] = []
        """The start time and the owner of each running job."""
        self._beginning = False
        self._later: IDelayedCall | None = None

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Call ``work`` in a thread, after earlier jobs; the Deferred fires with its result.

        If it is cancelled, it fires at once, but the work is done all the same.
        """
        return self._ask("", work, args)

    def of(self, owner: str) -> RunInThread:
        """Return the same as `run`, for the jobs of one owner."""
        return lambda work, *args: self._ask(owner, work, args)

    @property
    def waiting(self) -> int:
        """Number of jobs that have not begun."""
        return len(self._waiting)

    def _ask(self, owner: str, work: Callable[..., Any], args: tuple[Any, ...]) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        self._waiting.add(owner, (result, work, args))
        self._go_on()
        return result

    def _go_on(self, *, at_once: bool = False, after: float | None = None) -> None:
        """Begin the jobs that need not wait.

        If that fails while no job is running, whose end would call this again, the waiting jobs fail, so that nobody
        waits for ever.
        ``after`` is the start time of a job that has just ended; if that one was slow, one job begins at once.
        """
        try:
            slow = after is not None and self._clock.seconds() - after >= SLOW_JOB_S
            self._begin_some(at_once=at_once or slow)
        except Exception:  # noqa: BLE001 -- the callers are told
            while not self._running and (found := self._waiting.peek(self._may)):
                self._waiting.pop(found[0])
                found[1][0].errback(Failure())

    def _begin_some(self, *, at_once: bool) -> None:
        """Begin the jobs that need not wait; with ``at_once`` one begins in any case.

        If others have to wait, set the timer for when the running jobs will count as slow.
        """
        if self._beginning:  # called by a job that ended as soon as it began
            return
        self._beginning = True
        try:
            now = self._clock.seconds()
            while (
                len(self._running) < MAX_THREADS
                and (at_once or all(now - each >= SLOW_JOB_S for each, _ in self._running))
                and (found := self._waiting.peek(self._may))
            ):
                at_once = False
                self._begin(*found)
        finally:
            self._beginning = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._waiting.peek(self._may) and len(self._running) < MAX_THREADS:
            self._later = self._clock.callLater(max(self._running)[0] + SLOW_JOB_S - now, self._is_late)

    def _is_late(self) -> None:
        self._later = None
        self._go_on(at_once=True)

    def _may(self, owner: str) -> bool:
        return sum(1 for _, each in self._running if each == owner) < MAX_THREADS_PER_PEER

    def _begin(self, owner: str, job: _Job) -> None:
        began = self._clock.seconds(), owner
        result, work, args = job
        self._running.append(began)
        self._waiting.pop(owner)
        maybeDeferred(self._run_in_thread, work, *args).addBoth(self._end, began).chainDeferred(result)

    def _end(self, outcome: Any, began: tuple[float, str]) -> Any:
        self._running.remove(began)
        # A failure to begin the next job goes to its caller: this outcome, which may hold locks, must reach its own.
        self._go_on(after=began[0])
        return outcome
