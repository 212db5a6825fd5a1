"""Serves a tree of buckets on a clock: one timer for the tree, however many connections wait.

A `Flow` is one connection's leaf in the tree.
The connection calls `Flow.ask` with the number of bytes that it has to send; `Waiter.granted` tells it how many it may.
Only the timer grants bytes, never ``ask`` itself: what is written in one turn of the reactor is granted together, and
no connection is called back while it is writing.

A timer that is late is made up for: what would have been granted in between is granted step by step, each at its own
time, as far back as `realize.throttle.lateness` allows. To the buckets, the timer is punctual.
The connections are told in one go, because their transports are full after the first step: what these keep waiting
then, with `Flow.hold`, is made up for as far back.

A flow without a limit must not ask: its connection sends at once, and adds the bytes to `Flow.passed`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from realize.throttle.buckets import Bucket
from realize.throttle.lateness import MIN_CATCH_UP_S, Lateness

MIN_STEP_S: Final = 0.001
"""Seconds between two steps that are made up for: a reactor's timers are no finer."""

BUSY_BYTES: Final = 1024
"""What a flow sends between two calls of `Flow.collect` if it sends more than pings and short answers."""

PINGS_BYTES: Final = 64
"""The most that a flow sends and receives between two calls of `Flow.collect` if that is pings alone."""

_log = Logger()


class Waiter(Protocol):
    """What a flow calls on its connection."""

    def granted(self, amount: int) -> None:
        """Send ``amount`` bytes now, and ask again for what still waits."""

    def limits_changed(self) -> None:
        """The limits of the flow have changed: ask again, or send everything if none is left."""


class Activity(enum.IntEnum):
    """How much flows have carried, both ways."""

    NONE = 0
    """Pings at most."""
    LITTLE = 1
    """Something else, but they sent less than `BUSY_BYTES`, if without a limit."""
    MUCH = 2
    """More."""


class Scheduler:
    """Serves the tree below ``root`` as soon as a leaf waits and there are tokens for it."""

    def __init__(self, clock: IReactorTime, root: Bucket) -> None:
        self._clock = clock
        self._root = root
        self._flows: dict[Bucket, Flow] = {}
        self._call: IDelayedCall | None = None
        self._lateness = Lateness()
        self._step: float | None = None
        self._held_since: float | None = None
        """When transports that are full took the last of those that wait away; None if none did."""
        self._granted: dict[Bucket, int] = {}
        """What was granted in the steps so far, and the connections were not told yet."""
        self._activity = Activity.NONE
        """How much the liveliest flow has carried since `take_activity`, as far as it was collected."""

    def now(self) -> float:
        """The time of the buckets in seconds: that of the clock, or of the step that is being made up for."""
        return self._clock.seconds() if self._step is None else self._step

    def flow(self, bucket: Bucket, left: Callable[[], None] | None = None) -> Flow:
        """Return a new flow for ``bucket``, a leaf of the tree; ``left`` is called once the flow has left."""
        flow = self._flows[bucket] = Flow(self, bucket, left)
        self._note(Activity.LITTLE)
        return flow

    def set_rate(self, bucket: Bucket, rate: float | None, burst: float | None = None) -> None:
        """Limit ``bucket`` to ``rate`` bytes per second, None for no limit; flows below it follow it at once."""
        self._held_since = None
        bucket.set_rate(rate, self.now(), burst)
        for leaf in bucket.leaves():
            flow = self._flows.get(leaf)
            if flow is not None and flow.waiter is not None:
                flow.waiter.limits_changed()
        self._arm()

    def collect(self) -> None:
        """Count what flows have sent without a limit; see `Flow.collect`."""
        for flow in self._flows.values():
            if flow.passed or flow.received:
                self._note(flow.collect())

    def take_activity(self) -> Activity:
        """Collect, and return how much the liveliest flow has carried since the last call; a new one has carried."""
        self.collect()
        activity, self._activity = self._activity, Activity.NONE
        return activity

    def wait(self, bucket: Bucket, amount: int) -> None:
        """Let ``bucket`` wait for ``amount`` bytes in total; 0 stops waiting."""
        fresh = not bucket.demand
        bucket.wait_for(max(0, amount - self._granted.get(bucket, 0)), self.now())
        if not self._root.demand:
            self._held_since = None
        if self._step is not None:
            return
        if not self._root.demand:
            self._cancel()
        elif amount and fresh and not self._overdue():
            if self._held_since is not None and self.now() - self._held_since > MIN_CATCH_UP_S:
                self._schedule(0)
            else:
                self._held_since = None
                self._arm()

    def hold(self, bucket: Bucket) -> None:
        """Let ``bucket`` wait for nothing while its transport takes nothing, and make up for that time afterwards.

        As far as a timer that is late by as much: who held it up may have held up the transport.
        """
        bucket.wait_for(0, self.now())
        if not self._root.demand:
            if self._held_since is None:
                self._held_since = self.now() if self._call is None else min(self.now(), self._call.getTime())
            self._cancel()

    def leave(self, bucket: Bucket) -> None:
        """Forget ``bucket``; what it was not granted goes to the others."""
        if self._flows.pop(bucket, None) is not None:
            bucket.leave(self.now())
            if not self._root.demand:
                self._held_since = None
                self._cancel()

    def _serve(self) -> None:
        now = self._clock.seconds()
        call, self._call = self._call, None
        step = now if call is None else self._lateness.begin(call.getTime(), now)
        since, self._held_since = self._held_since, None
        if since is not None:
            step = max(since, now - self._lateness.bound(now))
        try:
            while step <= now:
                self._step = step
                self._grant()
                self._tell([bucket for bucket in self._granted if not bucket.demand])
                delay = self._root.delay(step)
                if delay is None:
                    break
                step += max(MIN_STEP_S, delay)
            self._tell(list(self._granted))
        finally:
            self._step = None
            self._arm()

    def _note(self, activity: Activity) -> None:
        self._activity = max(self._activity, activity)

    def _grant(self) -> None:
        self._note(Activity.LITTLE)
        for bucket, amount in self._root.serve(self.now()).items():
            self._granted[bucket] = self._granted.get(bucket, 0) + amount

    def _tell(self, buckets: Iterable[Bucket]) -> None:
        """Tell the connections at ``buckets`` what they were granted."""
        for bucket in buckets:
            amount = self._granted.pop(bucket, 0)
            flow = self._flows.get(bucket)
            if amount and flow is not None and flow.waiter is not None:
                with _log.failuresHandled("while a throttled connection was sending"):
                    flow.waiter.granted(amount)

    def _overdue(self) -> bool:
        """Whether the timer should have fired already: what waits now is served with what it makes up for."""
        return self._call is not None and self._call.getTime() <= self._clock.seconds()

    def _arm(self) -> None:
        if self._step is not None:
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
    """One connection's leaf in a tree of buckets."""

    __slots__ = ("_left", "_scheduler", "bucket", "passed", "received", "waiter")

    def __init__(self, scheduler: Scheduler, bucket: Bucket, left: Callable[[], None] | None) -> None:
        self._scheduler = scheduler
        self._left = left
        self.bucket = bucket
        self.waiter: Waiter | None = None
        self.passed = 0
        """Bytes sent without a limit since the last `collect`."""
        self.received = 0
        """Bytes received since then."""

    @property
    def limited(self) -> bool:
        """Whether any limit applies to this flow now."""
        return self.bucket.limited

    @property
    def share(self) -> float | None:
        """The rate in bytes per second that the flow can expect now; None without a limit."""
        return self.bucket.share()

    def ask(self, amount: int) -> None:
        """Wait for ``amount`` bytes in total, in place of what was asked for before; 0 stops waiting."""
        self._scheduler.wait(self.bucket, amount)

    def hold(self) -> None:
        """Wait for nothing until the transport, which is full, takes more, and `ask` then."""
        self._scheduler.hold(self.bucket)

    def collect(self) -> Activity:
        """Move `passed` into the meter, and return how much was carried since the last call.

        Call it about once a second, for the meter's rate to be right.
        """
        passed, received, self.passed, self.received = self.passed, self.received, 0, 0
        if passed:
            self.bucket.meter.count(passed, self._scheduler.now())
        if passed >= BUSY_BYTES:
            return Activity.MUCH
        return Activity.LITTLE if passed + received > PINGS_BYTES else Activity.NONE

    def leave(self) -> None:
        """Leave the tree for good; a second call does nothing."""
        self.waiter = None
        self.collect()
        self._scheduler.leave(self.bucket)
        left, self._left = self._left, None
        if left is not None:
            left()
