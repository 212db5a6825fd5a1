"""How late the reactor is: what everything that the network thread does has to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

LAG_PROBE_INTERVAL_S: Final = 2.0
"""Seconds between two probes; an idle program shall wake up seldom."""


@define(eq=False)
class LagProbe:
    """Tells ``observe`` how many seconds too late a timer went off, again and again.

    ``now`` is a clock that nobody sets, unlike that of the reactor.
    """

    clock: IReactorTime
    observe: Callable[[float], None]
    now: Callable[[], float] = time.monotonic
    _due: float = field(default=0.0, init=False)
    _next: IDelayedCall | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to probe."""
        self._due = self.now() + LAG_PROBE_INTERVAL_S
        self._next = self.clock.callLater(LAG_PROBE_INTERVAL_S, self._probe)

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _probe(self) -> None:
        try:
            self.observe(max(0.0, self.now() - self._due))
        finally:
            self.start()
