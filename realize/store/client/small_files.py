"""Batches of small files on their way to and from a peer.

One command describes the files, and their content follows on a stream of its own.
The command itself grants all the credit for that stream, so no round trip comes first, and other messages of the
connection go in between.
The batches of a connection are sent one after the other, so that on a slow link the first one arrives first.

This module decides how large a batch should be: large batches cost less work, but take long on a slow link, and an
interrupted batch is lost as a whole.
10,000 files of 10 KiB took both ends together 7.0 s of CPU in batches of 64 KiB (the size of an AMP value), and 3.6 to
4.4 s in batches of 1 MiB (``python -m benchmarks.moving small``); ``benchmarks/RECORD.md`` has more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.python.failure import Failure

from realize.concurrency.shielded import steady
from realize.errors import ConnectionFailed, ProtocolError, RealizeError, Unanswered
from realize.store.client.transit import Transit
from realize.store.client.unanswered import unanswered
from realize.values import (
    MAX_SMALL_BYTES,
    MAX_VALUE_BYTES,
    Attributes,
    Content,
    Directory,
    Fetched,
    OnConflict,
    SmallFile,
    Stored,
)
from realize.wire import commands, packing
from realize.wire.connection import PeerProtocol
from realize.wire.outbound_stream import OutboundStream
from realize.wire.packing import FetchedHead

if TYPE_CHECKING:
    from realize.extras import Extras

SLOW_LINK_BATCH_BYTES: Final = MAX_VALUE_BYTES
"""Smallest size of a batch, for slow links: it takes about a minute at 1 KiB/s."""

FIRST_BATCH_BYTES: Final = MAX_SMALL_BYTES // 2
"""Size of the first batch sent, before the speed of the link is known."""

_MAX_BATCH_S: Final = 5.0
"""How long the next batch should take at the throughput of the last one, other traffic included."""

_MIN_SAMPLE_BYTES: Final = SLOW_LINK_BATCH_BYTES // 4
"""Smallest amount of content from which the speed of the link can be told."""


def _fitting(size: int, seconds: float, before: int) -> int:
    """Return the size in bytes of the next batch, from the throughput of the last one; pure.

    It is ``before`` if ``size`` is too small a sample.
    """
    if size < _MIN_SAMPLE_BYTES:
        return before
    return min(MAX_SMALL_BYTES, max(SLOW_LINK_BATCH_BYTES, int(size * _MAX_BATCH_S / max(seconds, 1e-3))))


class RemoteBatches:
    """Sends and fetches the batches of one store, whose handle is ``opened()``; each must fit one command.

    With ``after_reconnect``, since the link has failed before, the first batch is as small as on a slow link.
    """

    def __init__(
        self, protocol: PeerProtocol, opened: Callable[[], int], transit: Transit, *, after_reconnect: bool
    ) -> None:
        self._protocol = protocol
        self._opened = opened
        self._transit = transit
        self._sending = DeferredLock()
        self._cut_short = False
        """Whether a batch was given up half-way: the peer waits for the rest and accepts no other one."""
        self._sent_fits = SLOW_LINK_BATCH_BYTES if after_reconnect else FIRST_BATCH_BYTES
        self._read_fits = SLOW_LINK_BATCH_BYTES

    def takes_at_once(self) -> int:
        """See `realize.store.interfaces.IStore`; depends on our send limits and on how long the last batch took."""
        return self._sent_fits if self._protocol.chunk() >= MAX_VALUE_BYTES else SLOW_LINK_BATCH_BYTES

    def reads_at_once(self) -> int:
        """See `realize.store.interfaces.IStore`; by how long the last batch took; limits of the peer are not known."""
        return self._read_fits

    def arrived(self, size: int, seconds: float) -> None:
        """Note that ``size`` bytes sent other than in a batch took that long; this can only enlarge the next batch."""
        self._sent_fits = max(self._sent_fits, _fitting(size, seconds, self._sent_fits))

    async def put(
        self, files: list[SmallFile], policy: OnConflict, directories: Sequence[Directory] = ()
    ) -> list[Stored | RealizeError]:
        """Send the files, and what directories are to be made for them; return what became of each."""
        handle, streams, clock = self._opened(), self._protocol.streams, self._protocol.clock
        contents = [file.content for file in files]
        size = sum(map(len, contents))
        await self._sending.acquire()
        began = clock.seconds()
        number = 0
        try:
            self._check()
            # Chosen only now that it is our turn, since stream numbers must reach the peer in order.
            number = streams.choose()
            stream = streams.outbound(number)
            stream.give(size)
            self._transit.begin(number, [file.path for file in files], stream.travelled)
            asked = self._protocol.call(
                commands.PutSmall,
                patient=True,
                handle=handle,
                stream=number,
                policy=policy,
                heads=files,
                extras=extras_of([file.attributes for file in files]),
                directories=list(directories) or None,
            )
        except BaseException:
            self._sending.release()
            self._ended(number)
            raise
        # A peer that refuses does not wait for the content; its answer says why.
        asked.addErrback(_stopping, stream.fail)
        try:
            answer = await steady(Deferred.fromCoroutine(self._send(stream, contents, asked)))
        except Unanswered as error:
            if stream.content == size:
                raise
            # The peer uses nothing of a batch before all of it has arrived.
            self._cut_short = True
            stream.fail(error)
            raise CancelledError from error
        except ConnectionFailed as error:
            if stream.content < size:
                raise
            unanswered(error)
        self._sent_fits = _fitting(size, clock.seconds() - began, self._sent_fits)
        return listed(answer, "outcomes", len(files))

    def _check(self) -> None:
        if self._cut_short:
            raise ConnectionFailed("a batch was given up before all of it was sent")

    async def _send(
        self, stream: OutboundStream, contents: list[Content], asked: Deferred[dict[str, Any]]
    ) -> dict[str, Any]:
        """Send the content of a batch; return the answer to its command."""
        try:
            with contextlib.suppress(RealizeError):
                await stream.send(contents, apart=True)
        finally:
            self._sending.release()
        try:
            return await asked
        finally:
            self._ended(stream.number)

    async def read(self, paths: list[bytes], *, removing: bool) -> list[Fetched | RealizeError]:
        """Fetch the files; return each of them, or why it could not be read."""
        handle, streams, clock = self._opened(), self._protocol.streams, self._protocol.clock
        number = streams.choose()
        try:
            stream = streams.inbound(number, MAX_SMALL_BYTES)
            stream.promised()
            self._transit.begin(number, paths, stream.travelled)
            began = clock.seconds()
            answer = await self._protocol.call(
                commands.ReadSmall, handle=handle, stream=number, paths=paths, removing=removing
            )
            heads: list[FetchedHead | RealizeError] = listed(answer, "heads", len(paths))
            sizes = [head.size for head in heads if isinstance(head, FetchedHead)]
            pieces = cast("list[Content]", await stream.read()) if stream.arrived else []  # a batch has no holes
        finally:
            self._ended(number)
        contents = iter(packing.split_contents(sizes, pieces))
        self._read_fits = _fitting(sum(sizes), clock.seconds() - began, self._read_fits)
        return [
            head
            if isinstance(head, RealizeError)
            else Fetched(SmallFile(path, next(contents), head.digest, head.attributes), head.version)
            for path, head in zip(paths, heads, strict=True)
        ]

    def _ended(self, number: int) -> None:
        self._transit.end(number)
        self._protocol.streams.close(number)


def extras_of(attributes: Sequence[Attributes | None]) -> list[Extras | None] | None:
    """Return what else each is to get; None if that is nothing for any of them."""
    return if_any([None if each is None else each.extras for each in attributes])


def if_any(extras: list[Extras | None]) -> list[Extras | None] | None:
    """Return these, or None if there is nothing among them, which an older peer would not understand."""
    return extras if any(extras) else None


def _stopping(failure: Failure, stop: Callable[[RealizeError], None]) -> Failure:
    failure.trap(RealizeError)
    error: Any = failure.value
    stop(error)
    return failure


def listed(answer: dict[str, Any], name: str, length: int) -> list[Any]:
    """Return the list ``name`` of an answer; raises `ProtocolError` unless it has ``length`` items."""
    found: list[Any] = answer[name]
    if len(found) != length:
        raise ProtocolError(f"{len(found)} answers to {length} questions")
    return found
