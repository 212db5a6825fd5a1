"""`ShortJobs`: one thread for work that is many short system calls, and more of them while that is slow.

Each such call lets go of the interpreter's lock and has to get it back: with four such threads beside the reactor, that
took 32 calls of futex(2) for each file of 10 KiB at either end, with two of them 5 at the daemon and 2 at the command
(``strace -f -c``), and a fifth less CPU.
What is in the kernel's cache takes some five milliseconds for a batch, and one thread takes 4 % less time than two.
What has to come from a disk takes longer, and waits rather than works: there, two let the disk go on (10,000 files of
10 KiB that were not in the cache took as long as with two threads always, and a tenth more CPU with up to three).
The third is for another peer, whom two slow pieces of work of the first must not keep waiting.
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
"""Threads at a time, for one directory."""

MAX_THREADS_PER_PEER: Final = 2
"""Threads of them for one peer."""

SLOW_JOB_S: Final = 0.01
"""Seconds after which work counts as slow."""

_Job: TypeAlias = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]


class ShortJobs:
    """A part of the threads of ``run_in_thread``; what comes first of a peer begins first, and the peers take turns."""

    def __init__(self, run_in_thread: RunInThread, clock: IReactorTime) -> None:
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._waiting: Rota[_Job] = Rota()
        self._running: list[tuple[float, str]] = []
        """When each job that is under way has begun, and whose it is."""
        self._beginning = False
        self._later: IDelayedCall | None = None

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Call ``work`` in a thread, after what was asked for before; fires with what comes of it.

        Cancelled, it fires at once, and the work is done all the same.
        """
        return self._ask("", work, args)

    def of(self, owner: str) -> RunInThread:
        """The same for the work of one of several owners."""
        return lambda work, *args: self._ask(owner, work, args)

    @property
    def waiting(self) -> int:
        """How much has not begun."""
        return len(self._waiting)

    def _ask(self, owner: str, work: Callable[..., Any], args: tuple[Any, ...]) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        self._waiting.add(owner, (result, work, args))
        self._go_on()
        return result

    def _go_on(self, *, at_once: bool = False, after: float | None = None) -> None:
        """Begin what need not wait; if that fails, and nothing is under way that would go on, nobody waits for ever.

        What began at ``after`` has ended; if it was slow, it makes room for one more of its kind.
        """
        try:
            slow = after is not None and self._clock.seconds() - after >= SLOW_JOB_S
            self._begin_some(at_once=at_once or slow)
        except Exception:  # noqa: BLE001 -- whoever waits is told
            while not self._running and (found := self._waiting.peek(self._may)):
                self._waiting.pop(found[0])
                found[1][0].errback(Failure())

    def _begin_some(self, *, at_once: bool) -> None:
        """Begin what need not wait, which is one job if ``at_once``; else see when what is under way will be slow."""
        if self._beginning:  # what has just begun has ended already
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
        # What becomes of the next one is nothing to whoever asked for this outcome, which may hold locks.
        self._go_on(after=began[0])
        return outcome
