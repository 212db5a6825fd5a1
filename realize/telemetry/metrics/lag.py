"""Measure how late the reactor is, which delays everything that runs in its thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

LAG_PROBE_INTERVAL_S: Final = 2.0
"""Time between two probes; long, so that an idle program wakes up seldom."""


@define(eq=False, repr=False)
class LagProbe:
    """Calls ``observe`` regularly with how many seconds too late a timer fired.

    ``now`` is a clock that is never set, unlike the reactor's.
    """

    clock: IReactorTime
    observe: Callable[[float], None]
    now: Callable[[], float] = time.monotonic
    _due: float = field(default=0.0, init=False)
    _next: IDelayedCall | None = field(default=None, init=False)

    def start(self) -> None:
        """Start probing."""
        self._due = self.now() + LAG_PROBE_INTERVAL_S
        self._next = self.clock.callLater(LAG_PROBE_INTERVAL_S, self._probe)

    def stop(self) -> None:
        """Stop probing; leaves no timer behind."""
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _probe(self) -> None:
        try:
            self.observe(max(0.0, self.now() - self._due))
        finally:
            self.start()
