"""The application's producer, whatever kind it is of, as one that knows what it was told last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

MAX_PAUSED_BYTES: Final = 1 << 20
"""How much a producer that is paused may write before it is told again to pause: more than one writes in one go."""

_UNKNOWN_WRITE_BYTES: Final = 1 << 16
"""What a write counts of which a transport tells no more than that it was too much."""

_log = Logger()


@implementer(IPushProducer)
class RegulatedProducer:
    """The application's producer, ``push``, and whether it was last told to pause.

    Whoever holds it back, a limit or the transport, tells this object, so that each of them knows what the other said.
    """

    __slots__ = ("_allowed", "_stopped", "paused", "push")

    def __init__(self, push: IPushProducer, *, paused: bool) -> None:
        self._allowed = 0
        """How many bytes it may still write while it is paused, before it is told again."""
        self._stopped = False
        self.push = push
        self.paused = paused

    def pauseProducing(self) -> None:
        """Tell it to pause; transports do so at each write of one that is paused."""
        self.wrote_too_much(_UNKNOWN_WRITE_BYTES)

    def wrote_too_much(self, amount: int) -> None:
        """Tell it to pause because it has written ``amount`` bytes, also if it was told so before.

        Somebody in between may have resumed it: TLS does once its handshake is completed, knowing nothing of our pause.
        But some writes belong to one pause: a header is followed by a body, and HTTP/2 answers pings in between.
        Its connection in Twisted forgets who waits for the end of the first pause at a second one, and twisted.web
        counts pauses, so that a second one outlasts the only `resumeProducing`. So `MAX_PAUSED_BYTES` are let pass.
        """
        if self.paused:
            self._allowed -= amount
            if self._allowed >= 0:
                return
        self.paused = True
        self._allowed = MAX_PAUSED_BYTES
        self.push.pauseProducing()

    def resumeProducing(self) -> None:
        """Tell it to go on, if it was told to pause: twisted.web fails if it was not."""
        if self.paused:
            self.paused = False
            self.push.resumeProducing()

    def stopProducing(self) -> None:
        """Tell it, once, that the connection is lost."""
        if not self._stopped:
            self._stopped = True
            self.push.stopProducing()


@implementer(IPushProducer)
class PulledProducer:
    """Makes a push producer of a pull producer: asks it for data once in each turn of the reactor until paused.

    Twisted's own adapter does so on the global reactor; this one takes a ``clock``.
    As there, an exception of the producer is logged and ends its producing: ``failed`` is called with this object then,
    to unregister it.
    """

    def __init__(self, producer: IPullProducer, clock: IReactorTime, failed: Callable[[PulledProducer], None]) -> None:
        self._producer = producer
        self._clock = clock
        self._failed = failed
        self._call: IDelayedCall | None = None
        self._running = False

    def resumeProducing(self) -> None:
        """Ask for data from the next turn of the reactor on."""
        self._running = True
        if self._call is None:
            self._call = self._clock.callLater(0, self._pull)

    def pauseProducing(self) -> None:
        """Ask for no more data."""
        self._running = False
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def stopProducing(self) -> None:
        """Tell the pull producer that the connection is lost."""
        self.pauseProducing()
        self._producer.stopProducing()

    def _pull(self) -> None:
        self._call = None
        asked = False
        with _log.failuresHandled("while a pull producer was asked for data"):
            self._producer.resumeProducing()
            asked = True
        if not asked:
            self._failed(self)
        elif self._running:
            self.resumeProducing()
