"""The legal order of a transfer: which step of a file that is written, or read, may come when.

Pure, and the only place that knows: a store of this machine, one at a peer, the half that answers peers and the store
in memory all ask here before they do anything.

Invariants:

* a step that is not legal raises `realize.errors.ProtocolError` and changes nothing, but that an attempt to offer or to
  write ends the comparison of the partial;
* what is matched, offered and appended is never more, in sum, than the file is to have;
* at most `realize.values.SPANS_AHEAD` spans are offered and not answered, or cut and not picked.

``docs/states.md`` draws both machines, under "A transfer".
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence

from attrs import define, field, frozen

from realize.by_value import ByValue
from realize.errors import ProtocolError
from realize.units import display_name
from realize.values import BLOCK_BYTES, SPAN_BYTES, SPANS_AHEAD


class WritePhase(enum.Enum):
    """How far a file that is written has come; it never goes back."""

    COMPARING = "comparing"
    """Blocks of the partial are compared with those of the source: nothing was offered or written yet."""
    FILLING = "filling"
    """Chunks are offered, and what is wanted of them is written."""
    APPENDING = "appending"
    """More was written than was wanted of the chunks: only the rest of the content follows."""
    ENDED = "ended"
    """It was committed or abandoned."""


class ReadPhase(enum.Enum):
    """What a file that is read can be asked for."""

    STANDING = "standing"
    """Its next bytes can be compared, skipped, cut and picked."""
    FLOWING = "flowing"
    """All the rest comes, in order."""
    ENDED = "ended"
    """It was closed."""


@define(eq=False, repr=False)
class TransferState:
    """What a write and a read have in common: ``size`` is the bytes of the whole file.

    Errors name the ``path``, unless it is None: a peer knows which file it asked about.
    """

    size: int
    path: bytes | None = None
    position: int = field(default=0, init=False)
    """Bytes of the file that are dealt with, or promised to be; what is skipped or read, the reader adds by itself."""

    def check_digests(self, count: int, length: int) -> None:
        """Raise `ProtocolError` unless ``length`` bytes have ``count`` blocks, of which the last one may be shorter."""
        if count != -(-length // BLOCK_BYTES):
            raise self._refusal(f"{count} digests do not fit {length} bytes")

    def _refusal(self, why: str) -> ProtocolError:
        return ProtocolError(why if self.path is None else f"{display_name(self.path)}: {why}")


@define(eq=False, repr=False)
class WriteState(TransferState):
    """The steps of a file that is written: match, then offer, then write, then end.

    ``have`` is how many bytes of the partial may be compared; None where the partial itself ends a comparison.
    """

    have: int | None = None
    arrived: int = field(default=0, init=False)
    """Bytes of content that have come: `write` counts them; where it comes otherwise, set this before each step."""
    spared: int = field(default=0, init=False)
    """Bytes that need not come: they matched, or were found in the old version."""
    unanswered: int = field(default=0, init=False)
    """Offers that were neither answered nor dropped yet."""
    _wanted: int = field(default=0, init=False)
    _begun: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)

    @property
    def phase(self) -> WritePhase:
        """Where it is now."""
        if self._ended:
            return WritePhase.ENDED
        if self.arrived > self._wanted:
            return WritePhase.APPENDING
        return WritePhase.FILLING if self._begun or self.arrived else WritePhase.COMPARING

    def match(self, digests: int, length: int) -> None:
        """Compare the next ``length`` bytes of the partial with this number of digests."""
        if self.phase is not WritePhase.COMPARING:
            raise self._refusal("blocks are compared before the first byte is written")
        self.check_digests(digests, length)
        if self.have is not None and self.position + length > min(self.have, self.size):
            raise self._refusal("a match beyond the end of the partial")

    def matched(self, length: int) -> None:
        """``length`` bytes were the same."""
        self.position += length
        self.spared += length

    def offer(self, length: int) -> None:
        """Chunks of ``length`` bytes together are offered; `answered` or `dropped` follows, in any order."""
        phase = self.phase
        self._begun = True
        if phase in {WritePhase.APPENDING, WritePhase.ENDED} or self.unanswered >= SPANS_AHEAD or length > SPAN_BYTES:
            raise self._refusal("chunks that may not be offered now")
        if self.position + length > self.size:
            raise self._refusal(f"more than the announced {self.size} bytes are offered")
        self.position += length
        self.unanswered += 1

    def answered(self, length: int, wanted: int) -> None:
        """Of chunks of ``length`` bytes that were offered, ``wanted`` bytes are to be written."""
        self.unanswered -= 1
        self._wanted += wanted
        self.spared += length - wanted

    def dropped(self) -> None:
        """An offer failed: nobody will say what is wanted of it."""
        self.unanswered -= 1

    def write(self, length: int) -> None:
        """``length`` bytes of content come: first what was wanted of the chunks, then all the rest."""
        if self._ended:
            raise self._refusal("the writer is closed")
        self._begun = True
        arrived = self.arrived + length
        appended = arrived - self._wanted
        if appended > 0:
            if self.unanswered:
                raise self._refusal("more arrives than was wanted so far")
            if self.position + appended > self.size:
                raise self._refusal(f"more than the announced {self.size} bytes arrive")
        self.arrived = arrived

    def end(self) -> None:
        """It is committed or abandoned; may be called more than once."""
        self._ended = True


@frozen(eq=False, repr=False)
class Picked(ByValue):
    """What is wanted of a span."""

    parts: list[tuple[int, int]]
    """Offset in the file and length of each piece, neighbours in one."""
    wanted: int
    """Bytes in all of them."""
    spared: int
    """The other bytes of the span."""


@define(eq=False, repr=False)
class ReadState(TransferState):
    """The steps of a file that is read: look or skip, then cut and pick, then read, then finish."""

    phase: ReadPhase = field(default=ReadPhase.STANDING, init=False)
    _spans: deque[tuple[int, list[int]]] = field(factory=deque, init=False)
    """Where each span that is not picked yet begins in the file, and the lengths of its chunks."""

    def look(self, length: int) -> None:
        """Compare or skip the next ``length`` bytes."""
        if self.phase is ReadPhase.ENDED or not 0 <= length <= self.size - self.position:
            raise self._refusal(f"{length} bytes reach beyond the end of the file")

    def cut(self) -> None:
        """Ask for the next span; it is cut in its turn: see `make_way`."""
        if self.phase is not ReadPhase.STANDING:
            raise self._refusal("nothing is cut any more")

    def make_way(self) -> None:
        """Cut the next span now: fewer than `SPANS_AHEAD` may wait to be picked."""
        if len(self._spans) >= SPANS_AHEAD:
            raise self._refusal(f"{SPANS_AHEAD} spans are not picked yet")

    def was_cut(self, lengths: list[int]) -> None:
        """The lengths of the chunks of the next span; none at the end of the file.

        Of a span that is cut only when content flows nothing can be picked any more.
        """
        if lengths and self.phase is ReadPhase.STANDING:
            self._spans.append((self.reached, lengths))

    def check_cut(self, length: int) -> None:
        """Raise `ProtocolError` if a peer has cut a span that is longer than spans are, or than what is left."""
        standing = self.phase is ReadPhase.STANDING
        if length > SPAN_BYTES or (standing and self.reached + length > self.size):
            raise self._refusal("more was cut than there is")

    @property
    def reached(self) -> int:
        """Where in the file the next span begins."""
        if not self._spans:
            return self.position
        begin, lengths = self._spans[-1]
        return begin + sum(lengths)

    @property
    def choices(self) -> int:
        """How many chunks the span has that is to be picked next; 0 if there is none."""
        return len(self._spans[0][1]) if self._spans else 0

    def pick(self, wanted: Sequence[bool]) -> Picked:
        """What is wanted of the first span that was cut; the position is behind that span then, even after a skip."""
        if self.phase is not ReadPhase.STANDING or not self._spans or len(wanted) != self.choices:
            raise self._refusal("a pick that does not fit what was cut")
        parts: list[tuple[int, int]] = []
        start, lengths = self._spans.popleft()
        position = start
        begin: int | None = None
        for length, want in zip(lengths, wanted, strict=True):
            if want and begin is None:
                begin = position
            elif not want and begin is not None:
                parts.append((begin, position - begin))
                begin = None
            position += length
        if begin is not None:
            parts.append((begin, position - begin))
        self.position = position
        sent = sum(length for _, length in parts)
        return Picked(parts, sent, position - start - sent)

    def flow(self) -> None:
        """Content is to come as it is: what was cut and not picked is read like the rest."""
        self._check_open()
        self.phase = ReadPhase.FLOWING
        self._spans.clear()

    def stand(self) -> None:
        """Content flows no more, and what follows can be looked at again."""
        self._check_open()
        self.phase = ReadPhase.STANDING

    def finish(self) -> None:
        """The digest of the whole is asked for."""
        if self.position != self.size:
            raise self._refusal("was not read to its end")

    def end(self) -> None:
        """It is closed; may be called more than once."""
        self.phase = ReadPhase.ENDED

    def _check_open(self) -> None:
        if self.phase is ReadPhase.ENDED:
            raise self._refusal("the reader is closed")
