"""`realize.throttle.producers` on a clock."""

from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from realize.throttle import producers
from realize.throttle.producers import PulledProducer, RegulatedProducer
from tests.faults import Quiet


@implementer(IPullProducer)
class Pulled:
    """Counts what it is told, and has itself paused after ``pieces``."""

    producer: PulledProducer
    asked = stopped = 0

    def __init__(self, pieces=1):
        self.pieces = pieces

    def resumeProducing(self):
        """Count."""
        self.asked += 1
        if self.asked == self.pieces:
            self.producer.pauseProducing()

    def stopProducing(self):
        """Count."""
        self.stopped += 1


def never(_):
    """What must not happen."""
    raise AssertionError


def test_a_pull_producer_is_asked_until_paused():
    """From the next turn of the reactor on, with one timer however often it is resumed."""
    clock, pulled = Clock(), Pulled(pieces=3)
    producer = pulled.producer = PulledProducer(pulled, clock, never)
    producer.resumeProducing()
    producer.resumeProducing()
    at_once, timers = pulled.asked, len(clock.getDelayedCalls())
    clock.advance(0)

    assert (0, 1) == (at_once, timers)
    assert 3 == pulled.asked
    assert [] == clock.getDelayedCalls()


def test_a_pull_producer_that_raises_is_asked_no_more(monkeypatch):
    """The exception is logged, and who registered it is told which one it was."""
    logged, failed = [], []
    monkeypatch.setattr(producers, "_log", Quiet(logged))
    clock, pulled = Clock(), Pulled()
    pulled.resumeProducing = lambda: 1 / 0
    producer = PulledProducer(pulled, clock, failed.append)
    producer.resumeProducing()
    clock.advance(0)

    assert [ZeroDivisionError] == logged
    assert [producer] == failed
    assert [] == clock.getDelayedCalls()


def test_a_stopped_pull_producer_is_told_and_not_asked_any_more():
    """No timer is left."""
    clock, pulled = Clock(), Pulled()
    producer = pulled.producer = PulledProducer(pulled, clock, never)
    producer.resumeProducing()
    producer.stopProducing()
    clock.advance(0)

    assert (0, 1) == (pulled.asked, pulled.stopped)
    assert [] == clock.getDelayedCalls()


def test_both_are_push_producers():
    """To whom they are registered with."""
    pulled = PulledProducer(Pulled(), Clock(), never)

    assert verifyObject(IPushProducer, pulled)
    assert verifyObject(IPushProducer, RegulatedProducer(pulled, paused=False))
