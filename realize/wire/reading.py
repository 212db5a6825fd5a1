"""Reading what arrives on one connection: box by box, in turns with the other connections, and not ahead of memory.

`BoxReader` owns the parser, what has arrived and was not looked at, and the turns; what becomes of a box is for the
connection to say.

Invariants:

* boxes are handled in the order in which they came, each once;
* a flood of small boxes delays other connections by no more than its turn;
* a command is begun, and what follows it is read, only when there is memory for it (`realize.wire.admission`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final, Protocol, TypeAlias

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from realize.errors import ProtocolError
from realize.wire.admission import Admission
from realize.wire.boxes import Box, BoxParser, ContentBox, CreditBox
from realize.wire.keepalive import Keepalive

MAX_BOXES_PER_TURN: Final = 128
"""Boxes read in one turn of the reactor, on all connections of a peer; the rest waits for the next turn."""

TURN_S: Final = 0.01
"""Seconds after which a turn ends even if fewer boxes were read: some commands take long."""

MIN_BOXES_PER_TURN: Final = 4
"""Boxes that a connection may read in a turn, if there is time, however many connections its peer has."""

MAX_BOXES_AFTER_END: Final = 256
"""Boxes still read after the transport is gone; each may take as long as the whole turn of another peer."""

MAX_FIRST_BOX_BYTES: Final = 8 * 1024
"""The longest box, in bytes, that is accepted before Hello is over."""

_MORE_THAN_A_PING_BYTES: Final = 32
"""Bytes: more than this of an unfinished box is a sign of work; a ``Ping`` is shorter."""

AnyBox: TypeAlias = ContentBox | CreditBox | Box


class Receiver(Protocol):
    """The connection, as far as reading needs it."""

    def pause(self) -> None:
        """Let the transport deliver nothing more for now."""

    def resume(self) -> None:
        """Let it deliver again."""

    def received(self, box: AnyBox) -> None:
        """Handle a box; raises `ProtocolError` if it is a violation."""

    def refuse(self, box: Box) -> None:
        """Refuse a command, for there is no memory for it."""

    def delivered(self) -> None:
        """All boxes that came together were received."""

    def needs_memory(self, box: Box) -> bool:
        """Whether a box is a command that takes memory of the peer's."""

    def is_question(self, box: Box) -> bool:
        """Whether a box is a command that is not worth doing when nobody waits for the answer."""

    def peer_has_gone(self) -> bool:
        """Whether nobody waits for answers any more."""

    def give_up(self) -> None:
        """End the connection, since the peer has gone."""

    def violated(self, error: ProtocolError) -> None:
        """The peer broke the protocol."""

    def broken(self, failure: Failure) -> None:
        """A fault of ours."""


class BoxReader:
    """Reads the boxes of one connection."""

    def __init__(self, clock: IReactorTime, receiver: Receiver, keepalive: Keepalive) -> None:
        self.open = False
        """Whether boxes are read; the connection sets it."""
        self.sharing = 1
        """How many connections of the peer share its turns of reading."""
        self.parser = BoxParser(MAX_FIRST_BOX_BYTES)
        self.admission = Admission(clock, self)
        self._clock = clock
        self._receiver = receiver
        self._keepalive = keepalive
        self._arrived: list[bytes] = []  # there are few, and an empty deque takes 760 bytes
        self._boxes: Iterator[AnyBox] = iter(())
        self._turn: IDelayedCall | None = None
        self._may_wait = True

    @property
    def is_at_rest(self) -> bool:
        """Whether all that came was read, so that what comes now begins with a box of its own."""
        return self._turn is None and not self._arrived and not self.parser.unfinished and not self.admission.waiting

    def feed(self, data: bytes) -> None:
        """Read what has come: now, or later if the peer has had its turn or waits for memory."""
        self._arrived.append(data)
        if self._turn is None and not self.admission.waiting and not self._read(self._at_once):
            self._receiver.pause()
            self._take_turns()

    def take_the_rest(self) -> None:
        """Read what arrived before the end, a Goodbye above all, as far as there is memory for it; then no more."""
        self._may_wait = False
        try:
            if not self.admission.waiting:
                self._read(MAX_BOXES_AFTER_END)
        finally:
            self.admission.stop()
            self._arrived.clear()

    def stop_turn(self) -> None:
        """Take no further turn."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()

    # What `Admission` calls.

    def peer_has_gone(self) -> bool:
        """See `Receiver`."""
        return self._receiver.peer_has_gone()

    def give_up(self) -> None:
        """See `Receiver`."""
        self._receiver.give_up()

    def go_on(self, box: Box) -> None:
        """Begin again with the box that waited."""
        self._keepalive.deaf(on=False)
        self._boxes = chain((box,), self._boxes)
        if self.open:
            self._next_turn()

    @property
    def _at_once(self) -> int:
        return max(MIN_BOXES_PER_TURN, MAX_BOXES_PER_TURN // self.sharing)

    def _take_turns(self) -> None:
        if not self.admission.waiting:
            self._turn = self._clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        if not self._read(self._at_once):
            self._take_turns()
        elif self.open:
            self._receiver.resume()

    def _read(self, most: int) -> bool:
        """Read what has arrived; False if that ended early: after ``most`` boxes, or for want of time or memory."""
        receiver, admission = self._receiver, self.admission
        count, until = 0, self._clock.seconds() + TURN_S / self.sharing
        try:
            while self.open:
                for box in self._boxes:
                    if not isinstance(box, dict):
                        receiver.received(box)
                    elif not self._is_vain(box):
                        if receiver.needs_memory(box) and not admission.may_begin(box, may_wait=self._may_wait):
                            if admission.waiting:
                                self._keepalive.deaf(on=True)
                            receiver.delivered()
                            return False
                        if admission.begun(box):
                            receiver.received(box)
                        else:
                            receiver.refuse(box)
                    count += 1
                    if not self.open:
                        return True
                    if count >= most or self._clock.seconds() > until:
                        return False
                receiver.delivered()
                if not self._arrived:
                    break
                self._boxes = self.parser.feed(self._arrived.pop(0))
            if self.parser.unfinished > _MORE_THAN_A_PING_BYTES:
                # At a slow pace one answer may take minutes to arrive.
                self._keepalive.worked()
        except ProtocolError as error:
            receiver.violated(error)
        except Exception:  # noqa: BLE001 -- this connection ends by it, and no other one
            receiver.broken(Failure())
        return True

    def _is_vain(self, box: Box) -> bool:
        """Whether a box only asks for an answer that nobody waits for, since the peer has hung up behind it."""
        receiver = self._receiver
        return receiver.is_question(box) and not self.admission.has_waited(box) and receiver.peer_has_gone()
