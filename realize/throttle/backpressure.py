"""The producers on both sides: the application's, which is held back, and the one that the transport is told of.

While bytes are held back, the transport's producer is `Backpressure`, so the application's is paused by a limit and by
a full transport alike. Otherwise the transport drives the application's itself, through `RegulatedProducer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.interfaces import IProducer, IPullProducer, IPushProducer, IReactorTime
from zope.interface import implementer

from realize.throttle.backlog import Backlog
from realize.throttle.producers import PulledProducer, RegulatedProducer

QUEUE_S: Final = 0.05
"""The high-water mark of the backlog, above which the producer is paused, in seconds at the expected rate."""

MIN_QUEUE_BYTES: Final = 512
"""The lowest high-water mark in bytes."""

_MAX_QUEUE_BYTES: Final = 1 << 20
_UNLIMITED_QUEUE_BYTES: Final = 1 << 16


@implementer(IPushProducer)
class Backpressure:
    """Tells the application's producer when to pause and when to go on.

    ``filled`` is called when the transport takes no more, ``drained`` when it does again, and ``stopped`` when it has
    lost its connection.
    """

    def __init__(
        self,
        backlog: Backlog,
        filled: Callable[[], None],
        drained: Callable[[], None],
        stopped: Callable[[], None],
    ) -> None:
        self._backlog = backlog
        self._filled, self._drained, self._stopped = filled, drained, stopped
        self._transport: Any = None
        self._registered: IPushProducer | None = None
        self._high_water_bytes = float(_UNLIMITED_QUEUE_BYTES)
        self.producer: RegulatedProducer | None = None
        """The application's."""
        self.full = False
        """Whether the transport has said, since this object is its producer, that it takes no more."""

    def onto(self, transport: Any) -> None:
        """Be the producer of ``transport`` from now on, whenever there is a reason to."""
        self._transport = transport

    # The application's producer

    def take(
        self, producer: IProducer, *, streaming: bool, clock: IReactorTime, failed: Callable[[], None], passing: bool
    ) -> None:
        """Let ``producer`` write while it may; raises `RuntimeError` if there is one already.

        If it is ``passing``, nothing is held back, and the transport drives it itself.
        ``failed`` is called when one that is pulled has raised.
        """
        if self.producer is not None:
            raise RuntimeError(f"cannot register {producer}: {self.producer.push} was never unregistered")

        def pull_failed(pulled: PulledProducer) -> None:
            if self.producer is not None and self.producer.push is pulled:
                failed()

        push = (
            cast("IPushProducer", producer)
            if streaming
            else PulledProducer(cast("IPullProducer", producer), clock, pull_failed)
        )
        # Who pushes is paused by its first write at the earliest: TLS above this layer is not ready for it here.
        taken = self.producer = RegulatedProducer(push, paused=not streaming)
        self._register(taken if passing else self)
        if not streaming and not self._too_much and self.producer is taken:
            taken.resumeProducing()

    def release(self) -> None:
        """Forget the application's producer, which has written all it had."""
        producer, self.producer = self.producer, None
        if producer is not None and isinstance(producer.push, PulledProducer):
            producer.push.pauseProducing()

    def wrote(self, amount: int) -> None:
        """Pause the producer, if ``amount`` more bytes in the backlog are too much."""
        if self.producer is not None and self._too_much:
            self.producer.wrote_too_much(amount)

    def regulate(self, share: float | None) -> None:
        """Let the producer go on, or pause it, as it fits to ``share``, the expected rate in bytes per second."""
        self._high_water_bytes = (
            _UNLIMITED_QUEUE_BYTES if share is None else min(_MAX_QUEUE_BYTES, max(MIN_QUEUE_BYTES, share * QUEUE_S))
        )
        self._regulate()

    # The transport's producer

    def stand_between(self) -> None:
        """Take the place of the application's producer at the transport, if there is one."""
        if self.producer is not None:
            self._register(self)

    def stand_aside(self) -> None:
        """Leave the application's producer to the transport."""
        producer = self.producer
        self._register(producer)
        if producer is not None:
            producer.resumeProducing()

    def attach(self) -> None:
        """Be the transport's producer, if it has none: bytes wait."""
        if self._registered is None:
            self._register(self)

    def detach(self) -> None:
        """Let the transport have no producer: nothing waits, and the application has none."""
        self._register(None)

    def anew(self, change: Callable[[], None]) -> None:
        """Call ``change``, after which the transport knows nothing of a producer nor of having been full."""
        registered = self._registered
        self._register(None)
        change()
        self._register(registered)
        if registered is not None and registered is self.producer:
            registered.resumeProducing()

    def pauseProducing(self) -> None:
        """The transport takes no more."""
        if not self.full:
            self.full = True
            self._filled()
            self._regulate()

    def resumeProducing(self) -> None:
        """The transport takes more."""
        self.full = False
        self._drained()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._registered = None
        self._stopped()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()

    @property
    def _too_much(self) -> bool:
        """Whether the producer should write nothing now."""
        return self.full or self._backlog.size > self._high_water_bytes

    def _regulate(self) -> None:
        producer = self.producer
        if producer is None:
            return
        if not producer.paused:
            if self._too_much:
                producer.pauseProducing()
        elif not self.full and self._backlog.size <= self._high_water_bytes / 2:
            producer.resumeProducing()

    def _register(self, producer: IPushProducer | None) -> None:
        """Make ``producer``, or nobody, the transport's producer, in place of the one it has."""
        if producer is self._registered:
            return
        if self._registered is not None:
            self._registered = None
            self.full = False
            self._transport.unregisterProducer()
        if producer is not None:
            self._registered = producer
            self._transport.registerProducer(producer, True)  # noqa: FBT003
