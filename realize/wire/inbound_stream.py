"""Content that we receive: claimed in memory, then promised as credit, kept until its consumer takes it.

Loaded where something is received: a command that only sends needs none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from realize.errors import ProtocolError, RealizeError
from realize.values import MAX_HOLE_BYTES, MAX_VALUE_BYTES, MIN_HOLE_BYTES, Content, Hole, Piece
from realize.wire.boxes import CompressedBox
from realize.wire.commands import HOLE_CREDIT_BYTES, MIN_COMPRESSED_BYTES
from realize.wire.windows import FIRST_WINDOW_BYTES, StreamWindow

if TYPE_CHECKING:
    from realize.wire.stream_link import Link

MIN_GRANT_BYTES: Final = 1 << 20
"""The least credit worth a box, in bytes, unless less content is left."""

AHEAD_BYTES: Final = 2 * MIN_GRANT_BYTES
"""Bytes that may be under way beyond the window: credit comes in steps, and takes time to arrive."""

MAX_NARROW_BYTES: Final = FIRST_WINDOW_BYTES + AHEAD_BYTES
"""Bytes of one stream that may be under way, or waiting for the consumer, before the link has shown that it takes more.

What the consumer works on, about `TAKE_BYTES`, comes on top.
"""

TAKE_BYTES: Final = 2 << 20
"""About how many bytes a consumer gets at once; while it works on them, the window goes on filling."""

_FRAGMENT_BYTES: Final = 4096
"""Bytes: what came together and is shorter is collected until there is more."""

_LARGE_VIEW_BYTES: Final = 16 * 1024
"""Bytes that views must have on average to be kept instead of copied."""


class InboundStream:
    """Content that we receive: ``limit`` bytes of it.

    Memory is claimed before credit is given, until the consumer is done with the content.
    Without the first MiB of credit nothing would go on, so memory for that is waited for; more only makes the sender
    faster, and is given while there is plenty.
    What the link takes beyond `MAX_NARROW_BYTES` is given from what nobody else wants.
    A hole takes no memory to speak of, but credit, and waits for the consumer like content.
    """

    def __init__(self, number: int, limit: int, link: Link) -> None:
        self.number = number
        self.limit = limit
        self.arrived = 0
        """Bytes of content that have come, holes among them."""
        self.holes = 0
        """Bytes of content that were told to be holes."""
        self.saved = 0
        """Bytes of content that did not travel since it was compressed."""
        self._link = link
        self._granted = 0
        """Up to where content may come."""
        self._cap: int | None = None
        """Up to where credit is given, if not to the end."""
        self._takes_holes = True
        self._leapt = 0
        """How much further holes have brought `arrived` than the credit that they used up."""
        self._window = StreamWindow()
        self._claim = link.memory.claim()
        self._asking = False
        """Whether we wait for memory."""
        self._taken = 0
        """Bytes that the consumer works on."""
        self._views: list[Content] = []
        self._pieces: list[Piece | CompressedBox] = []
        self._compressed = 0
        """How many of these are compressed."""
        self._fragments = bytearray()
        self._waiting: Deferred[list[Piece]] | None = None
        self._expanding: Deferred[Any] | None = None
        """What was compressed and is to be read next, or why it cannot be; None if nobody waits for that."""
        self._held = 0
        self._error: RealizeError | None = None

    @property
    def content(self) -> int:
        """Bytes of content that have arrived, without holes."""
        return self.arrived - self.holes

    def travelled(self) -> int:
        """Bytes of content that have arrived, without holes, including those of an unfinished box."""
        return min(self.limit, self.arrived + self._link.arriving(self.number)) - self.holes

    @property
    def unread(self) -> bool:
        """Whether there is content that has arrived, and that nobody has read yet."""
        return bool(self._held) or self._expanding is not None

    def cap(self, length: int) -> None:
        """Give credit for hardly more than ``length`` bytes, holes not counted: no more of it is wanted.

        To be called before `start`.
        """
        # If a hole comes next, there is enough to be told of it.
        self._cap = self.arrived + length + HOLE_CREDIT_BYTES

    def start(self) -> None:
        """Give the first credit."""
        self._grant()

    def promised(self) -> None:
        """The command that opened the stream gave credit for all of its content, which has no holes."""
        self._granted = self.limit
        self._takes_holes = False

    def matched(self, length: int) -> None:
        """``length`` bytes of the content need not be sent; raises `ProtocolError` if fewer are still to come."""
        if length > self.limit - self.arrived:
            raise ProtocolError("less is to be sent than has arrived")
        promised = min(self._granted, self.limit)
        self.limit -= length
        self._claim.shrink(promised - min(self._granted, self.limit))
        self._serve()

    def receive(self, content: Content) -> None:
        """A ``Data`` box arrived; raises `realize.errors.ProtocolError` if it was not allowed.

        ``content`` may be a view; it must stay valid until `delivered` is called.
        """
        self.arrived += len(content)
        if not content:
            raise ProtocolError("a Data box without content")
        self._check_arrived()
        if self._error is None:
            self._views.append(content)
            self._held += len(content)

    def _check_arrived(self) -> None:
        if self.arrived > self._granted:
            raise ProtocolError(f"stream {self.number}: more content than credit")
        if self.arrived > self.limit:
            raise ProtocolError(f"stream {self.number}: more content than announced")

    def receive_compressed(self, box: CompressedBox) -> None:
        """A ``Compressed`` box arrived; raises `realize.errors.ProtocolError` if it was not allowed."""
        length, frame = box.length, box.frame
        if not MIN_COMPRESSED_BYTES <= length <= MAX_VALUE_BYTES or not 0 < len(frame) < length:
            raise ProtocolError(f"stream {self.number}: {length} bytes compressed to {len(frame)}")
        self.arrived += length
        self.saved += length - len(frame)
        self._check_arrived()
        if self._error is None:
            self._gather()
            self._end_fragments()
            self._pieces.append(box)
            self._compressed += 1
            self._held += length

    def receive_hole(self, length: int) -> None:
        """A ``Zeros`` box arrived; raises `realize.errors.ProtocolError` if it was not allowed."""
        if not self._takes_holes or not MIN_HOLE_BYTES <= length <= MAX_HOLE_BYTES:
            raise ProtocolError(f"stream {self.number}: a hole of {length} bytes")
        usable = min(self._granted, self.limit) - self.arrived
        self.arrived += length
        self.holes += length
        self._granted += length - HOLE_CREDIT_BYTES
        if self._cap is not None:
            self._cap += length
        self._leapt += length - HOLE_CREDIT_BYTES
        self._check_arrived()
        if self._error is None:
            # What need not come any more takes no memory.
            self._claim.shrink(usable - HOLE_CREDIT_BYTES - (min(self._granted, self.limit) - self.arrived))
            self._gather()
            self._end_fragments()
            self._pieces.append(Hole(length))
            self._held += HOLE_CREDIT_BYTES

    def delivered(self) -> None:
        """All boxes of one delivery were received: keep their content alone, and serve whoever waits."""
        self._gather()
        self._serve()

    def read(self) -> Deferred[list[Piece]]:
        """Return the next content: about `TAKE_BYTES` at most, waiting for some if necessary; an empty list at the end.

        The last of the pieces may be a hole that is longer.

        The caller is done with what it got before, so new credit may be given.
        Fails with the error of `fail`, or with that of `end` once all is read that has arrived.
        If it is cancelled, the next call returns what this one would have.
        """
        if self._expanding is not None:
            return self._hand(self._expanding, Deferred())
        if self._error is not None and not self._held:
            self._claim.release()
            return fail(self._error)
        self._claim.shrink(self._taken)
        self._taken = 0
        if self._held or self.arrived >= self.limit:
            taken = self._take()
            self._grant()
            return taken if self._expanding is None else self._hand(taken, Deferred())
        self._grant()
        self._waiting = Deferred(self._forget)
        return self._waiting

    def end(self, error: RealizeError) -> None:
        """Nothing more will come: let `read` return what has arrived, and then fail with ``error``.

        To be followed by `fail` if nobody reads on: what was not read takes memory.
        """
        if self._error is not None:
            return
        self.delivered()
        if not self.unread:
            self.fail(error)
            return
        self._error = error
        self._claim.shrink(min(self._granted, self.limit) - self.arrived)

    def fail(self, error: RealizeError) -> None:
        """Make `read` fail, now and later, and drop all that was not read; the first error counts."""
        if self._error is None:
            self._error = error
        self._claim.release()
        self._views.clear()
        self._pieces.clear()
        self._fragments.clear()
        self._held = self._compressed = 0
        self._expanding = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(self._error)

    def _forget(self, _: Deferred[list[Piece]]) -> None:
        self._waiting = None

    def _serve(self) -> None:
        if self._waiting is None or self._expanding is not None:
            return
        if self._held or self.arrived >= self.limit:
            taken = self._take()
            self._grant()
            # Without threads, it was told already that something could not be expanded.
            if self._waiting is not None:
                self._hand(taken, self._waiting)

    def _hand(self, taken: Deferred[Any], reader: Deferred[list[Piece]]) -> Deferred[list[Piece]]:
        """Tell the reader what was taken, or why it cannot be read; one that is cancelled leaves it to the next.

        Until then it goes on waiting: whatever fails in between ends the connection, and that tells it.
        """

        def tell(found: list[Piece] | Exception) -> Any:
            if reader.called:
                return found
            self._expanding = self._waiting = None
            reader.callback(found) if isinstance(found, list) else reader.errback(found)
            return None

        def lost(failure: Failure) -> None:
            """Tell the reader that it could not be told: else it would wait for ever."""
            if not reader.called:
                self._waiting = None
                reader.errback(failure)

        taken.addCallback(tell).addErrback(lost)
        return reader

    def _gather(self) -> None:
        """Append what has come since the last time to what is there.

        A window full of tiny boxes must not become millions of objects, nor a small view keep a large buffer alive.
        """
        views = self._views
        if _worth_keeping(views):
            self._end_fragments()
            self._pieces += views
        elif sum(map(len, views)) < _FRAGMENT_BYTES:
            self._fragments += b"".join(views)
        else:
            self._end_fragments()
            self._pieces.append(b"".join(views))
        views.clear()

    def _end_fragments(self) -> None:
        if self._fragments:
            self._pieces.append(bytes(self._fragments))
            self._fragments.clear()

    def _take(self) -> Deferred[Any]:
        self._gather()
        self._end_fragments()
        count = size = held = 0
        compression = self._link.compression if self._compressed else None
        while size < TAKE_BYTES and count < len(self._pieces):
            piece = self._pieces[count]
            length = piece.length if isinstance(piece, CompressedBox) else len(piece)
            size += length
            held += HOLE_CREDIT_BYTES if isinstance(piece, Hole) else length
            count += 1
        pieces = self._pieces[:count]
        del self._pieces[:count]
        self._held -= held
        self._taken += held
        if compression is None:
            return succeed(cast("list[Piece]", pieces))
        self._compressed -= sum(isinstance(piece, CompressedBox) for piece in pieces)
        self._expanding = compression.expand(pieces)
        return self._expanding.addErrback(self._not_expanded)

    def _not_expanded(self, failure: Failure) -> Any:
        """Take nothing more of a peer that sends what is no frame; returns the error."""
        error: Any = failure.value
        if isinstance(error, RealizeError):
            self.fail(error.with_traceback(None))
        return error

    def _grant(self) -> None:
        left = (self.limit if self._cap is None else min(self.limit, self._cap)) - self._granted
        if left <= 0 or self._error is not None:
            return
        round_trip = self._link.round_trip
        known = round_trip.look()
        if round_trip.probing:
            window = 0
        else:
            self._window.fit(self.arrived - self._leapt, self._link.now(), known)
            window = self._window.bytes
        unread = self._granted - self.arrived + self._held
        amount, least = min(window + AHEAD_BYTES - unread, left), min(MIN_GRANT_BYTES, left)
        if amount < least:
            return
        narrow = min(amount, MAX_NARROW_BYTES - unread)
        if narrow < least:
            given = self._claim.widen(amount, least)
        elif self._claim.try_grow(narrow):
            given = narrow + self._claim.widen(amount - narrow, 1)
        elif self._claim.try_grow(first := min(narrow, MIN_GRANT_BYTES)):
            given = first
        else:
            given = 0
            if unread < MIN_GRANT_BYTES:
                self._ask(first)
        if given:
            self._promise(given)

    def _ask(self, amount: int) -> None:
        """Give ``amount`` bytes of credit as soon as there is memory: without it nothing would go on."""
        if not self._asking:
            self._asking = True
            self._claim.grow(amount).addCallbacks(lambda _: self._promise(amount), lambda _: None)

    def _promise(self, amount: int) -> None:
        self._asking = False
        self._granted += amount
        self._link.grant(self.number, amount)


def _worth_keeping(views: Sequence[Content]) -> bool:
    """Whether to keep views: they are large, and what they keep alive is little more than what they show."""
    size = kept = 0
    looked_at: object = None
    for view in views:
        size += len(view)
        owner: Any = view.obj if isinstance(view, memoryview) else view
        if owner is not looked_at:
            looked_at = owner
            kept += len(owner)
    return size >= _LARGE_VIEW_BYTES * len(views) and 3 * kept <= 4 * size
