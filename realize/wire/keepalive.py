"""When to send a ping, and when to conclude that the peer is gone.

Owns one timer of a connection and no bytes; whoever has many connections gives them timers that are served together.
The peer is gone if nothing at all is received for `IDLE_TIMEOUT_S`, or if a reply is overdue; how long replies may
take is in `realize.wire.reply_timeouts`.

A connection is at rest here if nothing but pings came for `PING_AFTER_S`, and its owner says that nothing is under way.
It has longer times then, and the usual ones from the moment when something begins again.
The two sides need not agree: each answers the pings of the other, so the one that is not at rest hears enough.

A process that was suspended makes its overdue timers' calls before it reads what came meanwhile.
So a verdict that comes late waits until that was read.
"""

from __future__ import annotations

import math
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

RESTING_PING_AFTER_S: Final = 35.0
"""The same as `PING_AFTER_S` at rest, for the side that pings first.

Some proxies forget a connection on which nothing goes for 50 seconds.
"""

RESTING_PING_BEHIND_S: Final = 45.0
"""The same for the other side, which only answers unless the first one fails to ping."""

RESTING_STEP_S: Final = 5.0
"""Pings at rest are sent on whole multiples of this, by the clock: many connections wake up a process once."""

RESTING_TIMEOUT_S: Final = RESTING_PING_BEHIND_S + IDLE_TIMEOUT_S - PING_AFTER_S
"""The same as `IDLE_TIMEOUT_S` at rest: the answer to a ping may take as long as it may otherwise."""

STOOD_STILL_S: Final = 5.0
"""Seconds that our timer is late if the process was suspended, or busy with something else."""

CATCHING_UP_S: Final = 1.0
"""Seconds in which such a process reads what came, before a peer counts as gone."""


class Keepalive:
    """Watches one connection; calls ``ping`` to send one, and ``silent`` with the reason if the peer is gone.

    ``may_rest`` says whether the peer agrees to rest, and nothing is under way.
    ``first`` says whether we ping first then.
    """

    def __init__(
        self,
        clock: IReactorTime,
        replies: ReplyTimeouts,
        *,
        ping: Callable[[], None],
        silent: Callable[[str], None],
        may_rest: Callable[[], bool],
        first: bool,
        timers: Timers | None = None,
    ) -> None:
        self._clock = clock
        self._timers: Timers = clock if timers is None else timers
        self._replies = replies
        self._ping = ping
        self._silent = silent
        self._may_rest = may_rest
        self._ping_at_rest_after = RESTING_PING_AFTER_S if first else RESTING_PING_BEHIND_S
        self._call: Cancellable | None = None
        self._due = 0.0
        """When that call is due."""
        self._catching_up = False
        """Whether a verdict waits until what came is read."""
        self._heard = self._sent = 0.0
        self._roused = 0.0
        """When something began, at rest."""
        self._resting = False
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
        if self._resting:
            self._rouse()

    def asked(self, what: str, patience: float) -> int:
        """Note that an answer to ``what`` is expected within ``patience`` seconds; see `ReplyTimeouts.asked`."""
        if self._resting:
            self._rouse()
        return self._replies.asked(what, patience)

    def sent(self) -> None:
        """Note that bytes were sent."""
        self._sent = self._clock.seconds()

    def deaf(self, *, on: bool) -> None:
        """Note that we stop reading, or read again: a peer must not count as silent because we do not read."""
        self._deaf = on
        self.heard()

    @property
    def _ping_after(self) -> float:
        return self._ping_at_rest_after if self._resting else PING_AFTER_S

    @property
    def _waiting_since(self) -> float:
        return max(self._heard, self._roused)

    @property
    def _patience(self) -> float:
        return RESTING_TIMEOUT_S if self._resting else IDLE_TIMEOUT_S

    def _rouse(self) -> None:
        """End the rest: the usual times count from now."""
        self._resting = False
        if self._watching:
            now = self._roused = self._clock.seconds()
            # A ping that is due earlier stays so: the peer may wait for one since we sent the last.
            if self._due > now + PING_AFTER_S:
                if self._call is not None:
                    self._call.cancel()
                self._look_at(now + PING_AFTER_S, now)

    def _schedule(self, now: float) -> None:
        ping = self._sent + self._ping_after
        if self._resting:
            ping = math.ceil(ping / RESTING_STEP_S) * RESTING_STEP_S
        self._look_at(min(ping, self._waiting_since + self._patience), now)

    def _look_at(self, due: float, now: float) -> None:
        self._due = max(due, now)
        self._call = self._timers.callLater(self._due - now, self._check)

    def _verdict(self, now: float) -> str | None:
        """Why the peer counts as gone, as the end of a sentence; None if it does not."""
        if now - self._waiting_since >= self._patience:
            return f"has not been heard of for {self._patience:.0f} seconds"
        return self._replies.overdue(now)

    def _check(self) -> None:
        self._call = None
        now = self._clock.seconds()
        if self._deaf:
            self._heard = now
        verdict = self._verdict(now)
        if verdict is not None:
            self._catching_up = not self._catching_up and now - self._due >= STOOD_STILL_S
            if self._catching_up:
                self._look_at(now + CATCHING_UP_S, now)
            else:
                self._silent(verdict)
            return
        self._catching_up = False
        try:
            resting = now - self._replies.last_work >= PING_AFTER_S and self._may_rest()
            if self._resting and not resting:
                self._roused = now
            self._resting = resting
            if now - self._sent >= self._ping_after:
                self._ping()
                self._sent = now
        finally:
            # To send it may have ended the connection.
            if self._watching:
                self._schedule(now)
