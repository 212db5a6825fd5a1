"""The throttled transport under random events: whatever comes when, the stream is whole, and nobody is left waiting."""

import random

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPullProducer, IPushProducer, ISSLTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from realize.throttle.buckets import Bucket
from realize.throttle.factory import ThrottledFactory
from realize.throttle.scheduler import Scheduler

KIB, MIB = 1 << 10, 1 << 20
RATES_BPS = [None, None, 100, KIB, 64 * KIB, MIB, 20 * MIB, 100 * MIB]
SEEDS = 50


@implementer(IPushProducer)
class Socket:
    """A socket as Twisted's, with a kernel that takes bytes when it is told to."""

    FULL_BYTES = 1 << 16

    def __init__(self):
        self.sent, self.buffer, self.told = bytearray(), bytearray(), []
        self.producer, self.producer_paused, self.reads = None, False, True
        self.closing = self.half_closing = self.lost = False
        self.protocol = None

    def write(self, data):
        """Queue, and pause the producer at each write while full."""
        if self.lost or "half closed" in self.told or not data:
            return
        self.buffer += data
        if self.producer is not None and len(self.buffer) > self.FULL_BYTES:
            self.producer_paused = True
            self.producer.pauseProducing()

    def drain(self, amount):
        """The kernel takes so much."""
        if self.lost or not (self.buffer or self.closing or self.half_closing):
            return
        self.sent += self.buffer[:amount]
        del self.buffer[:amount]
        if self.buffer:
            return
        if self.producer is not None and self.producer_paused:
            self.producer_paused = False
            self.producer.resumeProducing()
        elif self.closing and self.producer is None:
            self.lose()
        elif self.half_closing and "half closed" not in self.told:
            self.told.append("half closed")

    def lose(self):
        """The connection ends."""
        if not self.lost:
            self.lost = True
            producer, self.producer = self.producer, None
            if producer is not None:
                producer.stopProducing()
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def registerProducer(self, producer, streaming):
        """As sockets do; what was said of an earlier one is not forgotten."""
        assert streaming
        assert self.producer is None
        if self.lost:
            producer.stopProducing()
        else:
            self.producer = producer

    def unregisterProducer(self):
        """As sockets do."""
        self.producer = None

    def startTLS(self, context, normal=True):
        """Mark the place, and begin with a producer anew."""
        assert self.producer is None
        self.write(b"|")
        directlyProvides(self, IPushProducer, ISSLTransport)

    def loseConnection(self):
        """When all is sent."""
        self.closing, self.reads = True, False

    def loseWriteConnection(self):
        """When all is sent."""
        self.half_closing = True

    def abortConnection(self):
        """In the next turn; what is queued is lost."""
        self.buffer.clear()
        self.closing, self.aborted = True, True

    def pauseProducing(self):
        """Read nothing."""
        self.reads = False

    def resumeProducing(self):
        """Read."""
        self.reads = True


class Application(Protocol):
    """Knows whether it was told of the end."""

    ends, received = 0, b""

    def dataReceived(self, data):
        """Collect."""
        self.received += data

    def connectionLost(self, reason):
        """Count."""
        self.ends += 1


class Stream:
    """What was written, each byte as its place says, with a mark where TLS was started."""

    def __init__(self, write):
        self.write_below, self.expected, self.place = write, bytearray(), 0

    def write(self, amount):
        """Write the next bytes."""
        data = bytes(65 + (self.place + each) % 23 for each in range(amount))
        self.place += amount
        self.expected += data
        self.write_below(data)


@implementer(IPushProducer)
class Pushing:
    """Writes in turns of the reactor until paused, as often as it was told; strict as twisted.web's."""

    def __init__(self, setting, pieces, size):
        self.setting, self.pieces, self.size = setting, pieces, size
        self.pauses, self.stopped, self.call = 0, False, None
        self.at_a_time = setting.dice.choice([1, 1, 2, 4])

    def start(self):
        """Begin."""
        self.call = self.setting.clock.callLater(0, self.produce)

    def produce(self):
        """Write some pieces."""
        self.call = None
        for _ in range(self.at_a_time):
            if self.pieces:
                self.pieces -= 1
                self.setting.stream.write(self.size)
        if not self.pieces:
            self.setting.done(self)
        elif not self.pauses:
            self.start()

    def pauseProducing(self):
        """Count it."""
        self.pauses += 1
        if self.call is not None:
            self.call.cancel()
            self.call = None

    def resumeProducing(self):
        """Count it; who is not paused cannot be resumed."""
        assert self.pauses
        self.pauses -= 1
        if not self.pauses and self.pieces and self.call is None:
            self.start()

    def stopProducing(self):
        """The connection is lost."""
        assert not self.stopped
        self.stopped = True
        if self.call is not None:
            self.call.cancel()
            self.call = None


@implementer(IPullProducer)
class Pulled(Pushing):
    """Writes when asked."""

    def start(self):
        """Wait to be asked."""

    def resumeProducing(self):
        """Write."""
        self.produce()


class Setting:
    """A throttled connection on a clock, and what is expected of it."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.clock = Clock()
        self.clock.advance(1000)
        self.root = Bucket(self.dice.choice(RATES_BPS))
        self.scheduler = Scheduler(self.clock, self.root)
        factory = ThrottledFactory(Factory.forProtocol(Application), self.clock, self.flow)
        self.paced, self.socket = factory.buildProtocol(None), Socket()
        self.socket.protocol = self.paced
        self.paced.makeConnection(self.socket)
        self.application = self.paced.wrappedProtocol
        self.stream = Stream(self.paced.write)
        self.producer, self.ended, self.secure = None, False, False

    def flow(self):
        """A place below the root."""
        return self.scheduler.flow(Bucket(parent=self.root))

    def done(self, producer):
        """It has written all it had."""
        assert producer is self.producer
        self.producer = None
        self.paced.unregisterProducer()

    # Events

    def write(self):
        """Some bytes, that may be none, or beside a producer some more."""
        if not self.ended:
            amount = self.dice.choice([0, 1, 100, 5000, 70_000] if self.producer is None else [0, 1, 50])
            self.stream.write(amount)

    def register(self):
        """A producer, if there is none."""
        if self.producer is None and not self.ended:
            kind = self.dice.choice([Pushing, Pulled])
            self.producer = kind(self, self.dice.randint(1, 20), self.dice.choice([1, 700, 20_000, 65_536]))
            self.paced.registerProducer(self.producer, kind is Pushing)
            self.producer.start()

    def limit(self):
        """Another limit, or none."""
        self.scheduler.set_rate(self.root, self.dice.choice(RATES_BPS))

    def move(self):
        """Another place."""
        self.paced.use(self.flow())

    def drain(self):
        """The kernel takes some."""
        self.socket.drain(self.dice.choice([1, 1000, 1 << 16, 1 << 30]))

    def wait(self):
        """Time passes, the reactor being punctual or not."""
        if self.dice.random() < 0.2:
            self.clock.rightNow += self.dice.choice([0.01, 0.2, 5])
        self.clock.pump([self.dice.choice([0, 0.001])] * 10)

    def switch(self):
        """Encrypt from here on."""
        if not self.secure and not self.ended:
            self.secure = True
            self.stream.expected += b"|"
            self.paced.startTLS("context")

    def receive(self):
        """Something comes, if anybody reads."""
        if self.socket.reads and not self.socket.lost:
            before = self.application.received
            self.paced.dataReceived(b"r")
            assert self.application.received == before + b"r" * (not self.closing)

    def half_close(self):
        """No more is written, but for what a producer has."""
        self.ended = True
        self.paced.loseWriteConnection()

    def close(self):
        """No more is written, but for what a producer has."""
        self.ended = self.closing = True
        self.paced.loseConnection()

    closing = False

    def read(self):
        """The application reads or does not."""
        self.dice.choice([self.paced.pauseProducing, self.paced.resumeProducing])()

    def go(self, steps=60):
        """A random life."""
        events = [self.write, self.register, self.limit, self.move, self.drain, self.wait, self.receive, self.read]
        weights = [4, 3, 2, 1, 6, 8, 1, 1]
        for _ in range(steps):
            self.dice.choices(events, weights)[0]()
            self.check()
            chance = self.dice.random()
            if chance < 0.02:
                self.switch()
            elif chance < 0.025:
                self.half_close()
            elif chance < 0.03:
                self.close()

    def check(self):
        """What has left is the beginning of what was written, and little waits that a producer made."""
        out = bytes(self.socket.sent + self.socket.buffer)
        assert self.stream.expected.startswith(out)
        if not self.socket.lost:
            assert self.paced.queued == len(self.stream.expected) - len(out) - self.marks_that_wait(out)

    def marks_that_wait(self, out):
        """Whether the mark of TLS is still to come."""
        return int(self.secure and b"|" not in out)

    def settle(self):
        """All that may move moves, until nothing does."""
        for _ in range(20_000):
            self.clock.pump([0.001] * 4)
            self.socket.drain(1 << 20)
            if self.producer is None and not self.paced.queued and not self.socket.buffer:
                return
        raise AssertionError("it never comes to rest")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_all_that_was_written_leaves_in_order_whatever_happens_meanwhile(seed):
    """Producers, limits, full sockets, TLS, half closes in any order; then the end, which leaves nothing behind."""
    setting = Setting(seed)
    setting.go()
    setting.scheduler.set_rate(setting.root, setting.dice.choice([None, MIB, 20 * MIB]))
    setting.settle()

    assert bytes(setting.stream.expected) == bytes(setting.socket.sent)
    setting.close()
    setting.clock.advance(0)
    for _ in range(3):
        setting.socket.drain(1)
    assert 1 == setting.application.ends
    assert [] == setting.clock.getDelayedCalls()
    assert () == setting.root.children


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_connection_that_is_lost_at_any_time_leaves_nothing_behind(seed):
    """No timer, no place below the limit, no producer that was not told, once."""
    setting = Setting(seed)
    setting.go(setting.dice.randrange(60))
    producer = setting.producer
    if setting.dice.random() < 0.5:
        setting.paced.abortConnection()
    setting.socket.lose()

    assert 1 == setting.application.ends
    assert producer is None or producer.stopped
    assert [] == setting.clock.getDelayedCalls()
    assert () == setting.root.children
