"""When to send a ping, and when to conclude that the peer is gone.

Owns one timer of a connection and no bytes; whoever has many connections gives them timers that are served together.
The peer is gone if nothing at all is received for `IDLE_TIMEOUT_S`, or if a reply is overdue; how long replies may
take is in `realize.wire.reply_timeouts`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from realize.wire.coarse_timers import Cancellable, Timers
from realize.wire.reply_timeouts import ReplyTimeouts

PING_AFTER_S: Final = 15.0
"""A ``Ping`` is sent after this long without sending anything."""

ANSWER_AFTER_S: Final = PING_AFTER_S / 2
"""One is sent at once after this long, if one comes: two idle ends then wake up together, and not one after the other.
"""

IDLE_TIMEOUT_S: Final = 45.0
"""The peer counts as gone after this long without receiving anything."""


class Keepalive:
    """Watches one connection; calls ``ping`` to send one, and ``silent`` with the reason if the peer is gone."""

    def __init__(
        self,
        clock: IReactorTime,
        replies: ReplyTimeouts,
        *,
        ping: Callable[[], None],
        silent: Callable[[str], None],
        timers: Timers | None = None,
    ) -> None:
        self._clock = clock
        self._timers: Timers = clock if timers is None else timers
        self._replies = replies
        self._ping = ping
        self._silent = silent
        self._call: Cancellable | None = None
        self._heard = self._sent = 0.0
        self._deaf = False
        self._watching = False

    def start(self) -> None:
        """Begin to watch, when the connection is made."""
        self._heard = self._sent = self._replies.last_work = self._clock.seconds()
        self._watching = True
        self._schedule(self._heard)

    def stop(self) -> None:
        """Stop watching."""
        self._watching = False
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self._replies.clear()

    def heard(self) -> None:
        """Note that bytes were received."""
        self._heard = self._clock.seconds()

    def pinged(self) -> None:
        """Note that a ping was received, and send one now if that would be due soon."""
        now = self._clock.seconds()
        if now - self._sent >= ANSWER_AFTER_S:
            self._ping()
            self._sent = now

    def worked(self) -> None:
        """Note that something other than a ping was received."""
        self._replies.last_work = self._heard

    def sent(self) -> None:
        """Note that bytes were sent."""
        self._sent = self._clock.seconds()

    def deaf(self, *, on: bool) -> None:
        """Note that we stop reading, or read again: a peer must not count as silent because we do not read."""
        self._deaf = on
        self.heard()

    def _schedule(self, now: float) -> None:
        due = min(self._sent + PING_AFTER_S, self._heard + IDLE_TIMEOUT_S, now + PING_AFTER_S)
        self._call = self._timers.callLater(max(due - now, 0.0), self._check)

    def _check(self) -> None:
        self._call = None
        now = self._clock.seconds()
        if self._deaf:
            self._heard = now
        if now - self._heard >= IDLE_TIMEOUT_S:
            self._silent(f"has not been heard of for {IDLE_TIMEOUT_S:.0f} seconds")
            return
        overdue = self._replies.overdue(now)
        if overdue is not None:
            self._silent(overdue)
            return
        try:
            if now - self._sent >= PING_AFTER_S:
                self._ping()
                self._sent = now
        finally:
            # To send it may have ended the connection.
            if self._watching:
                self._schedule(now)
