"""Adapters between Twisted's kinds of producers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from zope.interface import implementer


@implementer(IPushProducer)
class ProducerCallbacks:
    """A push producer made of three functions.

    For an object that cannot be one itself: on a transport, ``pauseProducing`` and ``resumeProducing`` are about
    *reading*.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None], stop: Callable[[], None]) -> None:
        self.pauseProducing = pause
        self.resumeProducing = resume
        self.stopProducing = stop


@implementer(IPushProducer)
class PulledProducer:
    """Makes a push producer of a pull producer: asks it for data once in each turn of the reactor until paused.

    Twisted's own adapter does so on the global reactor; this one takes a ``clock``.
    """

    def __init__(self, producer: IPullProducer, clock: IReactorTime) -> None:
        self._producer = producer
        self._clock = clock
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
        self._producer.resumeProducing()
        if self._running:
            self.resumeProducing()
