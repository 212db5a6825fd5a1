"""Whether content is compressed on its way, and how much of it is tried: decisions, without Zstandard itself.

Each side decides for what it sends, piece by piece: where the line is slower than compression, and as long as the
content shrinks.
`realize.wire.frames`, which is loaded when it is needed, compresses and expands in threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, maybeDeferred

from realize.concurrency.shielded import RunInThread
from realize.values import MAX_VALUE_BYTES, Compress, Content, Hole, Piece
from realize.wire import commands
from realize.wire.boxes import CompressedBox
from realize.wire.line_rate import LineRate

FASTER_TIMES: Final = 8
"""Compression must be so many times as fast as a line to be used there.

It takes an eighth of the time of one processor then, or less, and the line is never kept waiting.
"""

FIRST_SPEED_BPS: Final = 128 << 20
"""Bytes per second that compression takes, until it has shown how fast it is here."""

STEP_BYTES: Final = 4 * MAX_VALUE_BYTES
"""Bytes of content that are compressed in a thread at once: about 1.5 ms."""

FIRST_STRIDE_BYTES: Final = 16 * 1024
"""Bytes of content after which the line is looked at for the first time."""

MAX_STRIDE_BYTES: Final = 2 << 20
"""Bytes of content that are sent as they are before the line is looked at again."""

FIRST_PAUSE_BYTES: Final = 128 * 1024
"""Bytes of content that are sent as they are after some did not shrink; twice as many each time."""

MAX_PAUSE_BYTES: Final = 16 << 20
"""The most of these, so that an archive with something else behind its films is compressed there."""

MIN_PORTION_BYTES: Final = 16 * 1024
"""Bytes of content in a frame, however slow the line: shorter ones shrink less."""

CHUNKS_PER_PORTION: Final = 4
"""How much longer than what is written at once the content of a frame may be, as it shrinks."""

_T = TypeVar("_T")


def capabilities(compress: Compress) -> tuple[str, ...]:
    """The capabilities to announce to a peer with which content is to be compressed like that."""
    if compress is Compress.NEVER:
        return tuple(each for each in commands.CAPABILITIES if each != commands.ZSTD)
    if compress is Compress.ALWAYS:
        return (*commands.CAPABILITIES, commands.ZSTD_ALWAYS)
    return commands.CAPABILITIES


class SendingLine(Protocol):
    """What is looked at of a connection."""

    bytes_sent: int

    def now(self) -> float:
        """The time in seconds, of a clock that nobody sets."""

    def unsent(self) -> int:
        """How many of the bytes written have not arrived."""

    def limit(self) -> float | None:
        """What the throttle leaves for this connection, in bytes per second."""


class Compression:
    """Compression of one connection whose two ends both know it, with the threads ``in_thread``.

    If ``always``, every line counts as slow.
    """

    def __init__(self, line: SendingLine, in_thread: RunInThread, *, always: bool) -> None:
        self._line = line
        self._in_thread = in_thread
        self._always = always
        self._rate = LineRate()
        self._speed_bps: float = FIRST_SPEED_BPS
        self._stride = FIRST_STRIDE_BYTES

    def wanted(self) -> bool:
        """Whether what is written next is to be compressed, if it shrinks; to be asked right before a write."""
        if self._always:
            return True
        line = self._line
        slow = self._speed_bps / FASTER_TIMES
        limit = line.limit()
        if limit is not None and limit < slow:
            return True
        now = line.now()
        if self._rate.is_due(now):
            self._rate.look(now, line.bytes_sent, line.unsent())
        rate = self._rate.rate_bps
        return rate is not None and rate < slow

    def wrote(self, begin: int) -> None:
        """Content was written, at that position among all bytes that are sent."""
        if not self._always:
            self._rate.wrote(self._line.now(), begin)

    def stride(self) -> int:
        """How many bytes of content to send as they are before `wanted` is asked again."""
        stride = self._stride
        self._stride = min(2 * stride, MAX_STRIDE_BYTES)
        return stride

    def shrink(self, contents: Sequence[Content], *, sampled: bool) -> Deferred[list[bytes | None]]:
        """Compress each of the contents; None for one that does not shrink.

        If ``sampled``, a long one is judged by a small part of it.
        """
        return self._run("shrink", contents, sampled=sampled).addCallback(self._shrunk, sum(map(len, contents)))

    def _shrunk(self, result: tuple[list[bytes | None], float], length: int) -> list[bytes | None]:
        frames, seconds = result
        if length >= MAX_VALUE_BYTES:
            # Where processors are busy this becomes less, and compression makes way.
            self._speed_bps += (length / max(seconds, 1e-6) - self._speed_bps) / 8
        return frames

    def expand(self, pieces: list[Piece | CompressedBox]) -> Deferred[list[Piece]]:
        """Put content in the place of the pieces that are compressed; fails with `ProtocolError`."""
        return self._run("expand", pieces)

    def _run(self, what: str, *args: Any, **options: Any) -> Deferred[Any]:
        # Without a slow line, Zstandard is not loaded for it.
        from realize.wire import frames

        return maybeDeferred(self._in_thread, getattr(frames, what), *args, **options)


class Hope:
    """Whether the content of a stream is worth trying, by how the last of it went; pure."""

    def __init__(self) -> None:
        self.pause = 0
        """How many bytes of content to send as they are."""
        self._next_pause = FIRST_PAUSE_BYTES
        self._proven = False

    @property
    def step(self) -> int:
        """How many bytes of content to try at once."""
        return STEP_BYTES if self._proven else MAX_VALUE_BYTES

    def tried(self, *, shrank: bool) -> None:
        """Some content was tried, and shrank or did not."""
        self._proven = shrank
        if shrank:
            self._next_pause = FIRST_PAUSE_BYTES
        else:
            self.pause = self._next_pause
            self._next_pause = min(2 * self.pause, MAX_PAUSE_BYTES)

    def passed(self, length: int) -> None:
        """``length`` bytes were sent as they are."""
        self.pause = max(0, self.pause - length)


def beginning(pieces: Sequence[_T], most: int) -> tuple[list[_T], Sequence[_T]]:
    """Split the pieces behind ``most`` bytes of content; holes count for nothing, and stay whole."""
    if sum(map(len, cast("Sequence[Piece]", pieces))) < most:
        return list(pieces), ()
    taken: list[_T] = []
    for index, piece in enumerate(pieces):
        if isinstance(piece, Hole):
            taken.append(piece)
            continue
        content = cast("Content", piece)
        if len(content) >= most:
            view = memoryview(content)
            rest = [view[most:]] if len(content) > most else []
            return [*taken, cast("_T", view[:most])], [*cast("list[_T]", rest), *pieces[index + 1 :]]
        taken.append(piece)
        most -= len(content)
    return taken, ()


def portions(contents: Sequence[Content], most: int, *, apart: bool) -> list[Content]:
    """Cut the contents into portions of at most ``most`` bytes, for a frame each; if ``apart``, join none of them."""
    wholes = contents if apart or len(contents) < 2 else [b"".join(contents)]
    return [memoryview(whole)[start : start + most] for whole in wholes for start in range(0, len(whole), most)]
