"""Clocks that cannot be set: what the timers of both programs run on, and what measures how long something took.

Twisted's reactors use the wall clock.
If that is set back by an hour, every timer is an hour late: a command would wait that much longer to reconnect.
"""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_clock(reactor: Any) -> None:
    """Make all timers of this reactor run on CLOCK_MONOTONIC, including those that are pending.

    Every reactor of Twisted takes the time from its ``seconds``, and passes that on to its delayed calls
    (`twisted.internet.base.ReactorBase.callLater`).
    The clock stands still while the machine is suspended, so a delay continues afterwards with what was left of it.
    To be called in the reactor's thread, or before it runs.
    """
    ahead = time.monotonic() - reactor.seconds()
    reactor.seconds = time.monotonic
    for call in reactor.getDelayedCalls():
        call.seconds = time.monotonic
        call.time += ahead


def since_boot_s() -> float:
    """Return how long ago the machine was started, in seconds, with the time for which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
