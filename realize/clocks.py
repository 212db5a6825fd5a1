"""The clock that the timers of both programs run on: one that nobody can set.

Twisted's reactors tell the wall clock's time.
Set back by an hour, it makes every timer an hour late: a command that waits to come back would do so for that long.
"""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_clock(reactor: Any) -> None:
    """Let all timers of this reactor run on CLOCK_MONOTONIC, those that are pending included.

    Every reactor of Twisted reckons by its ``seconds``, and gives that to its delayed calls
    (`twisted.internet.base.ReactorBase.callLater`).
    The clock stands still while the machine is suspended: what was left of a delay is left afterwards.
    To be called in the reactor's thread, or before it runs.
    """
    ahead = time.monotonic() - reactor.seconds()
    reactor.seconds = time.monotonic
    for call in reactor.getDelayedCalls():
        call.seconds = time.monotonic
        call.time += ahead
