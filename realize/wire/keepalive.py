"""When to send a ping, and when to conclude that the peer is gone.

Owns one timer of a connection and no bytes.
There are two time limits: the peer is gone if nothing at all is received for `IDLE_TIMEOUT_S`; and if an answer is
expected, it or a sign of other work must arrive within `REPLY_TIMEOUT_S` or `SLOW_REPLY_TIMEOUT_S`, unless it is our
own side that holds things up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

PING_AFTER_S: Final = 15.0
"""A ``Ping`` is sent after this long without sending anything."""

IDLE_TIMEOUT_S: Final = 45.0
"""The peer counts as gone after this long without receiving anything."""

REPLY_TIMEOUT_S: Final = 60.0
"""How long an ordinary command may go unanswered while nothing but pings arrives."""


SLOW_REPLY_TIMEOUT_S: Final = 900.0
"""The same for anything that may take long, and for credit or content of a stream, which has stalled by then.

Work on a stream shows in smaller steps than this even at the lowest limit of a throttle: 512 bytes at 1 byte/s.
"""


class Keepalive:
    """Watches one connection; calls ``ping`` to send one, and ``silent`` with the reason if the peer is gone."""

    def __init__(self, clock: IReactorTime, *, ping: Callable[[], None], silent: Callable[[str], None]) -> None:
        self._clock = clock
        self._ping = ping
        self._silent = silent
        self._call: IDelayedCall | None = None
        self._heard = self._sent = self._worked = 0.0
        self._held_up = False
        self._deaf = False
        self._asked: dict[int, tuple[float, float, str]] = {}
        self._questions = 0

    def start(self) -> None:
        """Begin to watch, when the connection is made."""
        self._heard = self._sent = self._worked = self._clock.seconds()
        self._schedule(self._heard)

    def stop(self) -> None:
        """Stop watching."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self._asked.clear()

    def heard(self) -> None:
        """Note that bytes were received."""
        self._heard = self._clock.seconds()

    def worked(self) -> None:
        """Note that something other than a ping was received."""
        self._worked = self._heard

    def sent(self) -> None:
        """Note that bytes were sent."""
        self._sent = self._clock.seconds()

    def held_up(self, *, on: bool) -> None:
        """Note that our transport is full, or no longer is: a peer cannot answer what has not left us."""
        self._held_up = on
        self._worked = self._clock.seconds()

    def deaf(self, *, on: bool) -> None:
        """Note that we stop reading, or read again: a peer must not count as silent because we do not read."""
        self._deaf = on
        self.heard()

    def asked(self, what: str, patience: float = REPLY_TIMEOUT_S) -> int:
        """Note that an answer to ``what`` is expected within ``patience`` seconds; return a ticket for `answered`."""
        self._questions += 1
        self._asked[self._questions] = (self._clock.seconds(), patience, what)
        return self._questions

    def answered(self, ticket: int) -> None:
        """Note that the answer has arrived, or that nobody waits for it any more."""
        self._asked.pop(ticket, None)

    def _schedule(self, now: float) -> None:
        due = min(self._sent + PING_AFTER_S, self._heard + IDLE_TIMEOUT_S, now + PING_AFTER_S)
        self._call = self._clock.callLater(max(due - now, 0.0), self._check)

    def _check(self) -> None:
        self._call = None
        now = self._clock.seconds()
        if self._deaf:
            self._heard = now
        if now - self._heard >= IDLE_TIMEOUT_S:
            self._silent(f"has not been heard of for {IDLE_TIMEOUT_S:.0f} seconds")
            return
        for asked, patience, what in self._asked.values():
            if not self._held_up and now - max(asked, self._worked) >= patience:
                self._silent(f"did not answer {what} for {patience:.0f} seconds")
                return
        try:
            if now - self._sent >= PING_AFTER_S:
                self._ping()
                self._sent = now
        finally:
            self._schedule(now)
