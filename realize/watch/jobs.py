"""`SourceJobs`: the work in threads, and the timers, of one source; knows when that has ended, and when it hangs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from realize.concurrency.shielded import RunInThread
from realize.logger import Logger

HANGS_AFTER_S: Final = 30.0
"""A piece of work that takes longer than this hangs."""


class SourceJobs:
    """Works in threads and by the clock until `stop`; calls ``hang_changed`` when `hang` has changed."""

    def __init__(
        self, reactor: IReactorTime, run_in_thread: RunInThread, log: Logger, hang_changed: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._run_in_thread = run_in_thread
        self._log = log
        self._hang_changed = hang_changed
        self._running: set[Deferred[Any]] = set()
        self._timers: dict[str, IDelayedCall] = {}
        self._hanging = 0
        self.stopped = False

    @property
    def hang(self) -> bool:
        """Whether some work has been going on for too long."""
        return bool(self._hanging)

    def in_thread(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Call ``work`` in a thread; the Deferred fires with its result, and cannot be cancelled."""
        result: Deferred[Any] = Deferred()
        hanging = self._reactor.callLater(HANGS_AFTER_S, self._hang)
        job = maybeDeferred(self._run_in_thread, work, *args)

        def done(outcome: Any) -> None:
            if hanging.active():
                hanging.cancel()
            else:
                self._hanging -= 1
                if not self._hanging:
                    self._log.info("source_answers_again")
                    self._hang_changed()
            self._running.discard(job)
            result.callback(outcome)

        self._running.add(job)
        job.addBoth(done)
        return result

    def _hang(self) -> None:
        self._hanging += 1
        if self._hanging == 1:
            self._log.warning("source_hangs", after_s=HANGS_AFTER_S)
            self._hang_changed()

    def later(self, name: str, delay_s: float, work: Callable[..., object], *args: object) -> None:
        """Call ``work`` after that time, unless there is a timer of that name, which goes on instead."""
        if name in self._timers or self.stopped:
            return

        def now() -> None:
            del self._timers[name]
            work(*args)

        self._timers[name] = self._reactor.callLater(delay_s, now)

    def sooner(self, name: str, delay_s: float, work: Callable[[], object]) -> None:
        """As `later`, but a timer of that name is set to that time if it is to fire after it."""
        timer = self._timers.get(name)
        if timer is None:
            self.later(name, delay_s, work)
        elif timer.getTime() > self._reactor.seconds() + delay_s:
            timer.reset(delay_s)

    def waits(self, name: str) -> bool:
        """Whether there is a timer of that name."""
        return name in self._timers

    def cancel(self, *names: str) -> None:
        """Forget the timers of these names."""
        for name in names:
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()

    def stop(self) -> None:
        """Forget all timers, and take no new ones."""
        self.stopped = True
        self.cancel(*self._timers)

    async def idle(self) -> None:
        """Wait until no thread works for this source."""
        while self._running:
            await DeferredList(list(self._running))
