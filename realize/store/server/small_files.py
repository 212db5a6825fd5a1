"""Serving batches of small files, whose content travels on streams; see `realize.store.client.small_files`.

A batch has at most `realize.values.MAX_SMALL_BYTES` bytes, for which memory is claimed with its command.
Only one batch of a connection may be arriving at a time: then, when we stop reading a connection because there is no
memory for its next command, no other batch is left incomplete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, cast

from twisted.internet.defer import DeferredLock, DeferredSemaphore

from realize.errors import ProtocolError
from realize.values import MAX_SMALL_BYTES, Content, SmallFile
from realize.wire import packing
from realize.wire.connection import PeerProtocol
from realize.wire.inbound_stream import InboundStream
from realize.wire.packing import SmallHead

MAX_SENT_BATCHES: Final = 4
"""Batches of one directory that may be read and sent at the same time on a connection."""


class ServedBatches:
    """Receives and sends the content of the batches of one connection."""

    def __init__(self, protocol: PeerProtocol) -> None:
        self._streams = protocol.streams
        self._sending = DeferredLock()
        self._arriving: InboundStream | None = None
        """The stream of the last batch that was received."""
        self._turns: dict[str, DeferredSemaphore] = {}

    def turns_of(self, directory: str) -> DeferredSemaphore:
        """Return the semaphore for batches of a directory that are read and sent; those that wait take no memory."""
        return self._turns.setdefault(directory, DeferredSemaphore(MAX_SENT_BATCHES))

    @contextmanager
    def on(self, number: int) -> Iterator[None]:
        """A context that accepts the number of a stream, and closes the stream in the end.

        Enter it before refusing anything, because content may follow the command at once.
        """
        self._streams.accept(number)
        try:
            yield
        finally:
            self._streams.close(number)

    async def receive(self, number: int, heads: Sequence[SmallHead]) -> list[SmallFile]:
        """Return the files once all of their content has arrived; raises `ProtocolError` if it cannot fit ``heads``."""
        sizes = [head.size for head in heads]
        if sum(sizes) > MAX_SMALL_BYTES:
            raise ProtocolError(f"{sum(sizes)} bytes are not a batch of small files")
        if self._arriving is not None and self._arriving.arrived < self._arriving.limit:
            raise ProtocolError("the content of one batch comes behind that of the other")
        self._arriving = stream = self._streams.inbound(number, sum(sizes))
        stream.promised()
        pieces: list[Content] = []
        while arrived := await stream.read():
            pieces += cast("list[Content]", arrived)  # a batch has no holes
        contents = packing.split_contents(sizes, pieces)
        return [
            SmallFile(head.path, content, head.digest, head.attributes, head.replaces, head.number)
            for head, content in zip(heads, contents, strict=True)
        ]

    async def send(self, number: int, contents: Sequence[Content]) -> None:
        """Send the content of a batch, after those that were begun before."""
        stream = self._streams.outbound(number)
        stream.give(sum(map(len, contents)))
        await self._sending.acquire()
        try:
            await stream.send(contents, apart=True)
        finally:
            self._sending.release()
