"""Coroutines that run side by side, so many at a time, and end together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

CANCEL_TIMEOUT_S: Final = 2.0
"""Seconds that jobs which are cancelled may wait for answers to what is done whether they wait or not."""


class Slots(Protocol):
    """What says when a job may start, such as a `twisted.internet.defer.DeferredSemaphore`."""

    def acquire(self) -> Deferred[Any]:
        """Fires when there is a slot."""

    def release(self) -> None:
        """A slot is free again."""


class Jobs:
    """Starts coroutines, waits for them, and stops them all when one fails.

    A job deals with its own errors.
    One that it lets out ends the others, and is raised by the next `start` or `drained`.
    What is stopped is cancelled, and again after `CANCEL_TIMEOUT_S`: see `realize.store.interfaces.IStore.put_small`.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._parting: IDelayedCall | None = None
        self._running: set[Deferred[None]] = set()
        self._waiting: list[Deferred[None]] = []
        self._failure: Failure | None = None
        self._cancelling = False

    async def start(self, slots: Slots, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for one of the slots, then start the job; returns while it runs."""
        await slots.acquire()
        if self._failure is not None or self._cancelling:
            slots.release()
            if self._failure is not None:
                self._failure.raiseException()
            raise CancelledError
        running = Deferred.fromCoroutine(job())
        self._running.add(running)

        def ended(result: object) -> None:
            self._running.discard(running)
            if isinstance(result, Failure):
                # Before the next one has the slot: it is not to begin any more.
                self._failed(result)
            try:
                slots.release()
            except Exception:  # noqa: BLE001 -- a failure like one of the job: whoever waits is told, not left waiting
                self._failed(Failure())
            if not self._running:
                if self._parting is not None and self._parting.active():
                    self._parting.cancel()
                while self._waiting:
                    # One at a time: what one of them does may cancel another.
                    self._waiting.pop(0).callback(None)

        running.addBoth(ended)

    async def drained(self) -> None:
        """Wait until no job runs any more."""
        await self._idle()
        if self._failure is not None:
            self._failure.raiseException()

    async def cancelled(self) -> None:
        """Cancel all jobs and wait until they have put things in order; that is not cut short by being cancelled."""
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
        # Of those that got an answer meanwhile, and went on to what is done whether they wait or not, the first time
        # only finds them there.
        self._cancel_all()
        self._cancel_all()

    def _cancel_all(self) -> None:
        for running in list(self._running):
            running.cancel()
