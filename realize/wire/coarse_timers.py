"""Timers that may be late by a second: one timer of the clock serves all calls of the same second.

A process with a thousand idle connections has a thousand timers for their pings.
Each on its own would wake it up when the processor has long forgotten what it needs for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

STEP_S: Final = 1.0
"""Calls are served together once in as many seconds: the most that one may be late."""

MAX_SERVING_S: Final = 0.01
"""Seconds after which others have a turn of the reactor before more calls are made."""

_log = Logger()


class Cancellable(Protocol):
    """A call that has not been made yet."""

    def cancel(self) -> object:
        """Do not make it."""


class Timers(Protocol):
    """What makes calls later: a reactor, `CoarseTimers`."""

    def callLater(self, delay: float, callable: Callable[[], object]) -> Cancellable:  # noqa: A002 -- Twisted's name
        """Call a function after ``delay`` seconds."""


class CoarseTimers:
    """Makes calls later, on whole multiples of `STEP_S` by the clock."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: dict[int, dict[CoarseCall, None]] = {}
        """What is to be called, by the number of the step; no step is empty."""
        self._timer: IDelayedCall | None = None
        self._serving = False

    def callLater(self, delay: float, callable: Callable[[], object]) -> CoarseCall:  # noqa: A002
        """Call a function after ``delay`` seconds, or up to `STEP_S` later."""
        step = math.ceil((self._clock.seconds() + delay) / STEP_S)
        call = CoarseCall(self, step, callable)
        self._calls.setdefault(step, {})[call] = None
        self._arm()
        return call

    def forget(self, call: CoarseCall) -> None:
        """Do not make a call; does nothing if it was made."""
        calls = self._calls.get(call.step, {})
        calls.pop(call, None)
        if not calls:
            self._calls.pop(call.step, None)
        self._arm()

    def _arm(self) -> None:
        """Let the clock call us when the next step is due, and not at all if there is none."""
        if self._serving:
            return
        if not self._calls:
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            return
        due = min(self._calls) * STEP_S
        if self._timer is None:
            self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._serve)
        elif self._timer.getTime() > due:
            self._timer.reset(max(0.0, due - self._clock.seconds()))

    def _serve(self) -> None:
        self._timer, self._serving = None, True
        try:
            now = self._clock.seconds()
            for step in sorted(step for step in self._calls if step <= now / STEP_S):
                # One at a time: what one of them does may cancel another.
                while calls := self._calls.get(step):
                    call = next(iter(calls))
                    with _log.failuresHandled("while a timer went off"):
                        self.forget(call)
                        call.function()
                    if self._clock.seconds() - now > MAX_SERVING_S:
                        return
        finally:
            # Whatever fails here, such as for want of memory: without a timer, no connection is watched any more.
            self._serving = False
            self._arm()


class CoarseCall:
    """A call that has not been made yet."""

    __slots__ = ("_timers", "function", "step")

    def __init__(self, timers: CoarseTimers, step: int, function: Callable[[], object]) -> None:
        self._timers = timers
        self.step = step
        self.function = function

    def cancel(self) -> None:
        """Do not make it; does nothing if it was made."""
        self._timers.forget(self)
