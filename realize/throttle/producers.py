"""Adapters between Twisted's kinds of producers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

MAX_FINISHING_WRITES: Final = 64
"""How many writes a producer that is paused may still do in the same turn of the reactor, before it is paused again."""

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


@implementer(IPushProducer)
class RegulatedProducer:
    """The application's producer, ``push``, and whether it was last told to pause.

    Whoever holds it back, a limit or the transport, tells this object, so that each of them knows what the other said.
    """

    __slots__ = ("_clock", "_may_finish", "_stopped", "_turn", "paused", "push")

    def __init__(self, push: IPushProducer, clock: IReactorTime, *, paused: bool) -> None:
        self._clock = clock
        self._turn: IDelayedCall | None = None
        """What is called when the turn of the reactor is over in which it was told to pause."""
        self._may_finish = 0
        self._stopped = False
        self.push = push
        self.paused = paused

    def pauseProducing(self) -> None:
        """Tell it to pause, and tell it again if that was done before, but not in this turn of the reactor.

        Each write while it is paused comes here. Somebody in between may have resumed it: TLS does once its handshake
        is completed, knowing nothing of our pause. But what it writes in the turn in which it was paused may still
        belong to what it was about, as a body behind a header does, and twisted.web counts pauses: a second one would
        outlast the only `resumeProducing`. So that many writes are let pass first.
        """
        if self.paused and self._turn is not None and self._may_finish:
            self._may_finish -= 1
            return
        self.paused = True
        self._may_finish = MAX_FINISHING_WRITES
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._turn_is_over)
        self.push.pauseProducing()

    def resumeProducing(self) -> None:
        """Tell it to go on, if it was told to pause: twisted.web fails if it was not."""
        if self.paused:
            self.paused = False
            self.push.resumeProducing()

    def stopProducing(self) -> None:
        """Tell it, once, that the connection is lost."""
        self.forget()
        if not self._stopped:
            self._stopped = True
            self.push.stopProducing()

    def forget(self) -> None:
        """Leave no timer behind, nor ask for data: it is done."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if isinstance(self.push, PulledProducer):
            self.push.pauseProducing()

    def _turn_is_over(self) -> None:
        self._turn = None


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
