"""Who may write to a transport next, and how much: fairness among senders, and backpressure.

A sender of content asks `SendQueue.writable` before each write; what is short (commands, answers, credit) is written
without asking.
The queue is the transport's push producer, so the transport itself says when it is full and when it takes more.
It writes nothing and reads no time; its clock only calls it again in the next turn of the reactor.

Invariants:

* senders write in the order in which they asked, and none while the transport is full;
* they write about `SEND_TURN_BYTES` in one turn of the reactor, then everybody else has a turn;
* what is written while the transport is full counts as held for the peer, and `overfull` says when it is too much;
* every sender that waits is called back, or fails with the connection.
"""

from __future__ import annotations

from typing import Final, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from realize.concurrency.memory import Claim, Share
from realize.errors import RealizeError

SEND_TURN_BYTES: Final = 2 << 20
"""Bytes after which senders wait for the next turn of the reactor even if the transport takes more.

As much as a source reads at once.
"""

MAX_UNSENT_BYTES: Final = 16 << 20
"""The most bytes that may be written while the transport is full; beyond that the peer is given up, since it does not
read."""

MAX_UNCLAIMED_BYTES: Final = 256 * 1024
"""The same for a peer that already holds more memory than it may."""


class HeldUp(Protocol):
    """Called whenever the transport becomes full, and whenever it takes more again."""

    def __call__(self, *, on: bool) -> None:
        """The transport is full if ``on``."""


@implementer(IPushProducer)
class SendQueue:
    """The senders of one connection.

    Whoever writes counts it here: ``left`` goes down by each write, and, if ``full``, ``backlog`` goes up and ``claim``
    grows.
    These are attributes because a call would cost too much for each box.
    """

    def __init__(self, clock: IReactorTime, share: Share, claim: Claim, *, held_up: HeldUp) -> None:
        self.full = False
        """Whether the transport asked for nothing more."""
        self.backlog = 0
        """Bytes that were written although the transport is full."""
        self.left = SEND_TURN_BYTES
        """Bytes that may still be written in this turn of the reactor before senders have to wait; negative when more
        were written."""
        self.share = share
        """What the peer may make us hold."""
        self.claim = claim
        """Where the backlog is claimed."""
        self._clock = clock
        self._held_up = held_up
        self._senders: list[Deferred[None]] = []  # there are few, and an empty deque takes 760 bytes
        self._next_turn: IDelayedCall | None = None
        self._letting_go = False
        """Whether the sender that runs now is one that had waited: it may write ahead of those who still wait."""
        self._closed: RealizeError | None = None

    def writable(self) -> Deferred[None] | None:
        """None if the caller may write now, else a Deferred that fires when it should ask again.

        The Deferred fails with the reason if the connection ends first, and may be cancelled.
        """
        if self._closed is not None:
            return fail(self._closed)
        if not self.full and self.left > 0 and (self._letting_go or not self._senders):
            return None
        waiter = Deferred[None](self._cancelled)
        self._senders.append(waiter)
        if not self.full and not self._letting_go:
            self._schedule()
        return waiter

    def overfull(self) -> bool:
        """Whether the backlog is more than the peer may make us hold."""
        limit = MAX_UNCLAIMED_BYTES if self.share.overdrawn else MAX_UNSENT_BYTES
        return self.backlog > limit

    def close(self, error: RealizeError) -> None:
        """Let no sender join any more: `writable` fails with ``error``; those that wait already have their turn."""
        self._closed = error

    def fail(self, error: RealizeError) -> None:
        """The transport is gone: fail all senders, now and later, and give back what the backlog held."""
        self._closed = error
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self.claim.shrink(self.backlog)
        self.backlog = 0
        while self._senders:
            # One at a time: what one of them does may cancel another.
            self._senders.pop(0).errback(error)

    # What the transport calls.

    def pauseProducing(self) -> None:
        """The transport is full."""
        if not self.full:
            self.full = True
            self._held_up(on=True)

    def resumeProducing(self) -> None:
        """The transport takes more: let senders go, in order, until it is full again or their turn is over."""
        if self.full:
            self.full = False
            self.claim.shrink(self.backlog)
            self.backlog = 0
            self._held_up(on=False)
        if self._next_turn is None and not self._letting_go:
            self._let_go()

    def stopProducing(self) -> None:
        """The transport is gone; the connection is told as well, and calls `fail`."""

    def _let_go(self) -> None:
        self._next_turn = None
        self.left = SEND_TURN_BYTES
        self._letting_go = True
        try:
            while self._senders and not self.full and self.left > 0:
                self._senders.pop(0).callback(None)
        finally:
            self._letting_go = False
        if self._senders and not self.full:
            self._schedule()

    def _schedule(self) -> None:
        if self._next_turn is None:
            self._next_turn = self._clock.callLater(0, self._let_go)

    def _cancelled(self, waiter: Deferred[None]) -> None:
        if waiter in self._senders:
            self._senders.remove(waiter)
