"""Which command of a peer may begin: the one that there is memory for; the first one that there is none for waits.

`Admission` reads nothing and answers nothing: whoever reads the boxes of a connection asks it before each command,
reads nothing more while one waits, and is called with that one when its wait is over.

Invariants: a command waits for `MEMORY_TIMEOUT_S` at most, then it is to be refused; small ones go on in any case; the
memory of a command that is not begun after all is given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from realize.concurrency.memory import UNBOUNDED, Claim, Share
from realize.wire import costs
from realize.wire.boxes import Box

UNQUEUED_COMMAND_BYTES: Final = 256 * 1024
"""Bytes of commands in progress below which a command never waits for memory: what holds it may depend on them."""

MEMORY_TIMEOUT_S: Final = 30.0
"""Seconds that a command waits for memory before it is to be refused: what holds it may be waiting for it."""

WAITER_CHECK_S: Final = 1.0
"""Seconds between checks whether the peer of a waiting command is still there: it may wait for what it holds itself."""


class CommandReader(Protocol):
    """What reads the boxes of a connection."""

    open: bool
    """Whether boxes are still read."""

    def peer_has_gone(self) -> bool:
        """Whether nobody waits for answers any more."""

    def give_up(self) -> None:
        """End the connection, since the peer has gone."""

    def go_on(self, box: Box) -> None:
        """Read again, beginning with the box that waited."""


class Admission:
    """The memory for the commands of one connection."""

    def __init__(self, clock: IReactorTime, reading: CommandReader) -> None:
        self.claim: Claim = UNBOUNDED.of("").claim()
        """For commands in progress; the connection adds what it could not send."""
        self._clock = clock
        self._reading = reading
        self._waiting: Deferred[None] | None = None
        """Fires when there is memory for the command that waits."""
        self._timer: IDelayedCall | None = None
        """Checks whether that is still worth waiting for."""
        self._admitted: Box | None = None
        """The command that has waited, and now has its memory."""
        self._refused: Box | None = None
        """The command that has waited in vain."""

    @property
    def waiting(self) -> bool:
        """Whether a command waits, so that nothing behind it may be read."""
        return self._waiting is not None

    def use(self, share: Share) -> Claim:
        """Claim from ``share`` from now on; returns the new `claim`."""
        self.claim.release()
        self.claim = share.claim()
        return self.claim

    def may_begin(self, box: Box, *, may_wait: bool) -> bool:
        """Whether a command can go on now; if not, it waits if it may."""
        if box is self._admitted or box is self._refused:
            return True
        cost = costs.of(box)
        if self.claim.size + cost <= UNQUEUED_COMMAND_BYTES:
            self.claim.force(cost)
            return True
        if self.claim.grow_now(cost):
            return True
        if may_wait:
            self._waiting = self.claim.grow(cost).addCallbacks(self._has_memory, lambda _: None, (box,))
            self._timer = self._clock.callLater(0, self._look, box, self._clock.seconds() + MEMORY_TIMEOUT_S)
        return False

    def has_waited(self, box: Box) -> bool:
        """Whether this is the command that waited until there was memory for it."""
        return box is self._admitted

    def begun(self, box: Box) -> bool:
        """Note that a command goes on; returns False if it is to be refused instead, for it has no memory."""
        refused, self._refused, self._admitted = box is self._refused, None, None
        return not refused

    def ended(self, box: Mapping[bytes, bytes]) -> None:
        """Give back the memory of a command that is done."""
        self.claim.shrink(costs.of(box))

    def stop(self) -> None:
        """Let nothing wait any more."""
        waiting, self._waiting = self._waiting, None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if waiting is not None:
            waiting.cancel()

    def _has_memory(self, _: None, box: Box) -> None:
        if not self._reading.open:
            self.ended(box)
            return
        self._admitted = box
        self._go_on(box)

    def _look(self, box: Box, until: float) -> None:
        """Check whether it is still worth waiting for memory."""
        self._timer = None
        if self._reading.peer_has_gone():
            self._reading.give_up()
        elif self._clock.seconds() >= until:
            self._refused = box
            if self._waiting is not None:
                self._waiting.cancel()
            self._go_on(box)
        else:
            self._timer = self._clock.callLater(WAITER_CHECK_S, self._look, box, until)

    def _go_on(self, box: Box) -> None:
        self._waiting = None
        self.stop()
        self._reading.go_on(box)
