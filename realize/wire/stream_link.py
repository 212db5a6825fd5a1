"""What streams need of a connection; for types only, so no run loads it."""

from __future__ import annotations

from typing import Protocol

from realize.concurrency.memory import Share
from realize.wire.compression import Compression
from realize.wire.send_queue import SendQueue
from realize.wire.windows import RoundTrip


class Link(Protocol):
    """What streams need of a connection."""

    memory: Share
    """What the other end may make us hold."""

    bytes_sent: int
    """How many bytes were written so far."""

    sending: SendQueue
    """To be asked before content is written."""

    round_trip: RoundTrip
    """How long an answer of the other end takes."""

    compression: Compression | None
    """Compresses and expands content; None if not both ends know that."""

    @property
    def takes_holes(self) -> bool:
        """Whether the other end understands what says that content is a hole."""

    def now(self) -> float:
        """The time in seconds, of a clock that nobody sets."""

    def unsent(self) -> int:
        """How many of these bytes the machine at the other end has not confirmed, as far as can be known."""

    def write(self, data: bytes) -> None:
        """Send whole boxes."""

    def chunk(self) -> int:
        """How many bytes of content to write at once."""

    def grant(self, stream: int, amount: int) -> None:
        """Send credit."""

    def arriving(self, stream: int) -> int:
        """How many bytes of an unfinished box are probably content of that stream."""

    def expect(self, what: str) -> int:
        """Let the connection fail unless ``what`` comes in time; returns a ticket for `expected`."""

    def expected(self, ticket: int) -> None:
        """It has come, or nobody waits for it any more."""

    def stream_closed(self) -> None:
        """A stream was closed."""
