"""Adapters between Twisted's kinds of producers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

_log = Logger()


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


class RegulatedProducer:
    """The application's producer, ``push``, and whether it was last told to pause."""

    __slots__ = ("_may_finish", "paused", "push")

    def __init__(self, push: IPushProducer, *, paused: bool) -> None:
        self.push = push
        self.paused = paused
        self._may_finish = False
        """Whether the last write paused it, so that the next may still belong to what it was about."""

    def pause(self) -> None:
        """Tell it to pause."""
        self.paused = True
        self._may_finish = False
        self.push.pauseProducing()

    def resume(self) -> None:
        """Tell it to go on."""
        self.paused = False
        self.push.resumeProducing()

    def wrote_too_much(self) -> None:
        """Pause it because of a write, also if it was told so before.

        Somebody in between may have resumed it: TLS does once its handshake is completed, knowing nothing of our pause.
        But one write more is let pass first: a header is followed by a body, and twisted.web counts pauses, so that a
        second one for both would outlast the only `resume`.
        """
        if self._may_finish:
            self._may_finish = False
        else:
            self.pause()
            self._may_finish = True


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
