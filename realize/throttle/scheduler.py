"""Turns for waiting connections, on a clock: one timer for a whole tree of buckets.

A `Flow` is the place of one connection in a tree.
The connection says how much it has to send with `Flow.ask`, and is called with `Waiter.granted` when it may.
Bytes are only ever granted from the timer, never from within ``ask``: what is written in one turn of the reactor is
granted together, and no connection is called back while it is writing.

A flow without a limit must not ask: it sends what it likes and adds it to `Flow.passed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from realize.throttle.buckets import Bucket

_log = Logger()


class Waiter(Protocol):
    """What a connection has to offer to have a flow."""

    def granted(self, amount: int) -> None:
        """Send ``amount`` bytes now; whatever is left over has to be asked for again."""

    def limits_changed(self) -> None:
        """The limits above the flow are others now; ask again, or stop asking if there is none any more."""


class Scheduler:
    """Serves the tree below ``root`` whenever there is somebody who waits and something to give."""

    def __init__(self, clock: IReactorTime, root: Bucket) -> None:
        self._clock = clock
        self.now: Final = clock.seconds
        """The time that the buckets are asked with."""
        self._root = root
        self._flows: dict[Bucket, Flow] = {}
        self._call: IDelayedCall | None = None
        self._serving = False

    def flow(self, bucket: Bucket, left: Callable[[], None] | None = None) -> Flow:
        """A flow for ``bucket``, a leaf of the tree; ``left`` is called when it leaves."""
        flow = self._flows[bucket] = Flow(self, bucket, left)
        return flow

    def set_rate(self, bucket: Bucket, rate: float | None, burst: float | None = None) -> None:
        """Limit ``bucket`` to ``rate`` from now on; who waits below it waits by the new limit at once."""
        bucket.set_rate(rate, self.now(), burst)
        for leaf in bucket.leaves():
            flow = self._flows.get(leaf)
            if flow is not None and flow.waiter is not None:
                flow.waiter.limits_changed()
        self._arm()

    def wait(self, bucket: Bucket, amount: int) -> None:
        """Let ``bucket`` wait for ``amount`` bytes in all."""
        fresh = not bucket.demand
        bucket.wait_for(amount, self.now())
        if self._serving:
            return
        if not self._root.demand:
            self._cancel()
        elif amount and fresh:
            self._arm()

    def leave(self, bucket: Bucket) -> None:
        """Forget ``bucket``; what it had not been granted goes to the others."""
        if self._flows.pop(bucket, None) is not None:
            bucket.leave(self.now())
            if not self._root.demand:
                self._cancel()

    def _serve(self) -> None:
        self._call = None
        self._serving = True
        try:
            for bucket, amount in self._root.serve(self.now()).items():
                flow = self._flows.get(bucket)
                if flow is not None and flow.waiter is not None:
                    with _log.failuresHandled("while a throttled connection was sending"):
                        flow.waiter.granted(amount)
        finally:
            self._serving = False
            self._arm()

    def _arm(self) -> None:
        if self._serving:
            return
        delay = self._root.delay(self.now())
        if delay is None:
            self._cancel()
        else:
            self._schedule(delay)

    def _schedule(self, delay: float) -> None:
        if self._call is None:
            self._call = self._clock.callLater(delay, self._serve)
        else:
            self._call.reset(delay)

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


class Flow:
    """The place of one connection in a tree of buckets."""

    __slots__ = ("_left", "_scheduler", "bucket", "passed", "waiter")

    def __init__(self, scheduler: Scheduler, bucket: Bucket, left: Callable[[], None] | None) -> None:
        self._scheduler = scheduler
        self._left = left
        self.bucket = bucket
        self.waiter: Waiter | None = None
        self.passed = 0
        """Bytes that were sent without a limit since the last `collect`."""

    @property
    def limited(self) -> bool:
        """Whether anything limits this flow at present."""
        return self.bucket.limited

    @property
    def share(self) -> float | None:
        """Bytes per second that the flow may expect at present, or None if nothing limits it."""
        return self.bucket.share()

    def ask(self, amount: int) -> None:
        """Wait for ``amount`` bytes in all, in place of what was asked for before; 0 to stop waiting."""
        self._scheduler.wait(self.bucket, amount)

    def collect(self) -> bool:
        """Put what `passed` into the meter; to be called about every second, so that the meter can tell the rate.

        Answers whether there was anything.
        """
        passed, self.passed = self.passed, 0
        if passed:
            self.bucket.meter.count(passed, self._scheduler.now())
        return passed > 0

    def leave(self) -> None:
        """Give up the flow, for good; harmless if that has happened."""
        self.waiter = None
        self.collect()
        self._scheduler.leave(self.bucket)
        left, self._left = self._left, None
        if left is not None:
            left()
