"""Serving batches of small files: their content comes, and goes, on streams; see `realize.store.client.small_files`.

A batch has at most `realize.values.MAX_SMALL_BYTES` bytes, for which memory is claimed with its command.
Only one of a connection may be coming at a time: a connection that is not read, because there is no memory for its next
command, then keeps no other batch from becoming complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from twisted.internet.defer import DeferredLock, DeferredSemaphore

from realize.errors import ProtocolError
from realize.values import MAX_SMALL_BYTES, Content, SmallFile
from realize.wire import packing
from realize.wire.connection import PeerProtocol
from realize.wire.packing import SmallHead
from realize.wire.streams import InboundStream

MAX_SENT_BATCHES: Final = 4
"""Batches of one directory that are read and sent at once on a connection."""


class ServedBatches:
    """The content of the batches of one connection."""

    def __init__(self, protocol: PeerProtocol) -> None:
        self._streams = protocol.streams
        self._sending = DeferredLock()
        self._coming: InboundStream | None = None
        """The content of the last batch."""
        self._turns: dict[str, DeferredSemaphore] = {}

    def turns_of(self, directory: str) -> DeferredSemaphore:
        """For batches of a directory that are read and sent; the others wait, and are not in memory."""
        return self._turns.setdefault(directory, DeferredSemaphore(MAX_SENT_BATCHES))

    @contextmanager
    def on(self, number: int) -> Iterator[None]:
        """Take the number of a stream, and close it in the end.

        That comes before anything is refused, for content may follow at once.
        """
        self._streams.accept(number)
        try:
            yield
        finally:
            self._streams.close(number)

    async def receive(self, number: int, heads: Sequence[SmallHead]) -> list[SmallFile]:
        """The files, once all of their content has arrived."""
        sizes = [head.size for head in heads]
        if sum(sizes) > MAX_SMALL_BYTES:
            raise ProtocolError(f"{sum(sizes)} bytes are not a batch of small files")
        if self._coming is not None and self._coming.arrived < self._coming.limit:
            raise ProtocolError("the content of one batch comes behind that of the other")
        self._coming = stream = self._streams.inbound(number, sum(sizes))
        stream.promised()
        pieces: list[Content] = []
        while arrived := await stream.read():
            pieces += arrived
        contents = packing.split_contents(sizes, b"".join(pieces))
        return [
            SmallFile(head.path, content, head.digest, head.attributes, head.replaces)
            for head, content in zip(heads, contents, strict=True)
        ]

    async def send(self, number: int, contents: Sequence[bytes]) -> None:
        """Send the content of a batch; one batch after the other."""
        stream = self._streams.outbound(number)
        stream.give(sum(map(len, contents)))
        await self._sending.acquire()
        try:
            await stream.send(contents)
        finally:
            self._sending.release()
