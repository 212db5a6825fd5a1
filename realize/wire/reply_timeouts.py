"""When a reply takes too long: what the peer was asked and has not answered, and for how long it may not.

Owns no timer: `realize.wire.keepalive` looks, each time it wakes up.
A reply, or a sign of other work, must arrive within `REPLY_TIMEOUT_S` or `SLOW_REPLY_TIMEOUT_S`; pings are no such
sign, and time does not count while it is our own side that holds things up.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

REPLY_TIMEOUT_S: Final = 60.0
"""How long an ordinary command may go unanswered while nothing but pings arrives."""

SLOW_REPLY_TIMEOUT_S: Final = 900.0
"""The same for anything that may take long, and for credit or content of a stream, which has stalled by then.

Work on a stream shows in smaller steps than this even at the lowest limit of a throttle: 512 bytes at 1 byte/s.
"""


class ReplyTimeouts:
    """The questions of one connection that have no reply yet."""

    def __init__(self, clock: IReactorTime) -> None:
        self.last_work = 0.0
        """When something other than a ping was received, or our transport became full or free, by the clock."""
        self._clock = clock
        self._held_up = False
        self._asked: dict[int, tuple[float, float, str]] = {}
        self._questions = 0

    @property
    def expected(self) -> bool:
        """Whether there are any."""
        return bool(self._asked)

    def asked(self, what: str, patience: float = REPLY_TIMEOUT_S) -> int:
        """Note that an answer to ``what`` is expected within ``patience`` seconds; return a ticket for `answered`."""
        self._questions += 1
        self._asked[self._questions] = (self._clock.seconds(), patience, what)
        return self._questions

    def answered(self, ticket: int) -> None:
        """Note that the answer has arrived, or that nobody waits for it any more."""
        self._asked.pop(ticket, None)

    def held_up(self, *, on: bool) -> None:
        """Note that our transport is full, or no longer is: a peer cannot answer what has not left us."""
        self._held_up = on
        self.last_work = self._clock.seconds()

    def overdue(self, now: float) -> str | None:
        """Return what the peer did not do in time, as the end of a sentence; None if nothing is overdue.

        The connection then ends with `realize.errors.Silence` and that sentence.
        """
        if not self._held_up:
            for asked, patience, what in self._asked.values():
                if now - max(asked, self.last_work) >= patience:
                    return f"did not answer {what} for {patience:.0f} seconds"
        return None

    def clear(self) -> None:
        """Expect nothing any more."""
        self._asked.clear()
