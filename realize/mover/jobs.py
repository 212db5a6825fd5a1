"""Coroutines that run concurrently, a limited number at a time, and end together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

CANCEL_TIMEOUT_S: Final = 2.0
"""Grace for cancelled jobs to wait for the answer to work that the other side completes in any case."""


class Slots(Protocol):
    """What limits how many jobs run at once, such as a `twisted.internet.defer.DeferredSemaphore`."""

    def acquire(self) -> Deferred[Any]:
        """Take a slot; fires when there is one."""

    def release(self) -> None:
        """Give a slot back."""


class Jobs:
    """Starts coroutines, waits for them, and stops them all when one fails.

    A job is expected to handle its own errors: one that it raises cancels the other jobs, and the next `start` or
    `drained` raises it.
    Jobs are cancelled once, and once more after `CANCEL_TIMEOUT_S`; `realize.store.interfaces.IStore.put_small` says
    why.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._parting: IDelayedCall | None = None
        self._running: set[Deferred[None]] = set()
        self._waiting: list[Deferred[None]] = []
        self._failure: Failure | None = None
        self._cancelling = False

    async def start(self, slots: Slots, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for a slot and start the job; returns while the job runs.

        Raises the error of a job that failed, and CancelledError if all were cancelled.
        """
        await slots.acquire()
        if self._failure is not None or self._cancelling:
            slots.release()
            if self._failure is not None:
                self._failure.raiseException()
            raise CancelledError
        running = Deferred.fromCoroutine(job())
        self._running.add(running)

        def _fail(failure: Failure) -> None:
            self._running.discard(running)
            # Before the slot is given back: the next job must not start.
            self._failed(failure)
            ended(None)

        def ended(_: None) -> None:
            self._running.discard(running)
            try:
                slots.release()
            except Exception:  # noqa: BLE001 -- treated like a failure of the job, so that waiters do not wait for ever
                self._failed(Failure())
            if not self._running:
                if self._parting is not None and self._parting.active():
                    self._parting.cancel()
                while self._waiting:
                    # One at a time: one waiter may cancel another.
                    self._waiting.pop(0).callback(None)

        running.addCallbacks(ended, _fail)

    async def drained(self) -> None:
        """Wait until no job is running; raises the error of the first job that failed."""
        await self._idle()
        if self._failure is not None:
            self._failure.raiseException()

    async def cancelled(self) -> None:
        """Cancel all jobs and wait until they have cleaned up; cancelling this wait does not cut it short."""
        self._cancel()
        while self._running:
            with contextlib.suppress(CancelledError):
                await self._idle()

    async def _idle(self) -> None:
        while self._running:
            idle: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(idle)
            await idle

    def _failed(self, failure: Failure) -> None:
        if self._failure is None and not (self._cancelling and isinstance(failure.value, CancelledError)):
            self._failure = failure
            self._cancel()

    def _cancel(self) -> None:
        if not self._cancelling:
            self._cancelling = True
            if self._running:
                self._parting = self._clock.callLater(CANCEL_TIMEOUT_S, self._give_up)
            self._cancel_all()

    def _give_up(self) -> None:
        # Twice: a job that got its answer meanwhile may have gone on to another step that the other side completes in
        # any case, and such a step needs a second cancellation to give up.
        self._cancel_all()
        self._cancel_all()

    def _cancel_all(self) -> None:
        for running in list(self._running):
            running.cancel()
