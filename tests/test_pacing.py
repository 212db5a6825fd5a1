"""`realize.throttle.transport` on a pumped clock, and over TLS in memory."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.internet import _producer_helpers
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocolNegotiationFactory,
    IPullProducer,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock, Cooperator
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test import iosim
from zope.interface import implementer
from zope.interface.verify import verifyObject

from realize.throttle import producers
from realize.throttle import scheduler as pacer
from realize.throttle.buckets import Bucket
from realize.throttle.factory import ThrottledFactory
from realize.throttle.producers import MAX_PAUSED_BYTES
from realize.throttle.scheduler import Scheduler
from realize.throttle.transport import ThrottledProtocol
from tests.faults import Quiet

KIB, MIB = 1 << 10, 1 << 20
TICK = 0.001


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Application(Protocol):
    """Records what it is told."""

    def __init__(self):
        self.told = []
        self.received = b""

    def connectionMade(self):
        """Recorded by being connected."""
        self.told.append("made")

    def dataReceived(self, data):
        """Collect."""
        self.received += data

    def handshakeCompleted(self):
        """Record."""
        self.told.append("handshake")

    def readConnectionLost(self):
        """Record."""
        self.told.append("read lost")

    def writeConnectionLost(self):
        """Record."""
        self.told.append("write lost")

    def connectionLost(self, reason):
        """Record."""
        self.told.append("lost")


class Link(StringTransport):
    """A transport that remembers when things were written, and what else it was told."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.moments = []
        self.calls = []

    def write(self, data):
        """Remember the time."""
        self.moments.append((self.clock.seconds(), len(data)))
        super().write(data)

    def loseConnection(self):
        """Remember it."""
        self.calls.append("lose")
        super().loseConnection()

    def abortConnection(self):
        """Remember it."""
        self.calls.append("abort")

    def loseWriteConnection(self):
        """Remember it."""
        self.calls.append("lose write")

    def getPeerCertificate(self):
        """Something that only the transport below has."""
        return "certificate"


@implementer(IPushProducer)
class Pushing:
    """Writes pieces for as long as it may, and counts what it is told."""

    def __init__(self, consumer, piece=1000, pieces=1 << 30):
        self.consumer, self.piece, self.pieces = consumer, piece, pieces
        self.running = False
        self.paused = self.resumed = self.stopped = 0

    def resumeProducing(self):
        """Write until told to stop."""
        self.resumed += 1
        self.run()

    def run(self):
        """Start."""
        self.running = True
        while self.running and self.pieces:
            self.pieces -= 1
            self.consumer.write(b"x" * self.piece)

    def pauseProducing(self):
        """Stop writing."""
        self.paused += 1
        self.running = False

    def stopProducing(self):
        """Give up."""
        self.stopped += 1
        self.running = False


@implementer(IPullProducer)
class Pulling:
    """Writes one piece whenever asked, and goes after the last."""

    def __init__(self, consumer, pieces):
        self.consumer, self.pieces = consumer, pieces
        self.stopped = 0

    def resumeProducing(self):
        """Write one piece, or leave."""
        if self.pieces:
            self.pieces -= 1
            self.consumer.write(b"p" * 1000)
        else:
            self.consumer.unregisterProducer()

    def stopProducing(self):
        """Give up."""
        self.stopped += 1


class Setting:
    """A paced application on a link, below a bucket that tests may change."""

    def __init__(self, rate=None, application=None):
        self.clock = Clock()
        self.clock.pump([1000])
        self.root = Bucket(rate)
        self.pacer = Scheduler(self.clock, self.root)
        self.factory = ThrottledFactory(Factory.forProtocol(Application), self.clock, self.lane)
        self.link, self.paced = self.connect()
        self.application = self.paced.wrappedProtocol
        self.start = self.clock.seconds()

    def lane(self):
        """A new place below the root."""
        return self.pacer.flow(Bucket(parent=self.root))

    def connect(self):
        """One more connection."""
        paced = self.factory.buildProtocol(None)
        link = Link(self.clock)
        paced.makeConnection(link)
        return link, paced

    def pass_time(self, seconds):
        """Let time go by in small steps."""
        self.clock.pump([TICK] * round(seconds / TICK))

    def written(self):
        """How much has reached the link."""
        return sum(amount for _, amount in self.link.moments)

    @property
    def timers(self):
        """What the clock still has to do."""
        return list(self.clock.getDelayedCalls())


def worst_window(moments, width=0.1):
    """The most bytes that any window of ``width`` seconds holds."""
    worst = first = held = 0
    for now, amount in moments:
        held += amount
        while moments[first][0] < now - width:
            held -= moments[first][1]
            first += 1
        worst = max(worst, held)
    return worst


class TestRates:
    """How fast bytes leave."""

    @pytest.mark.parametrize("rate", [KIB, 64 * KIB, MIB, 10 * MIB, 100 * MIB])
    def test_one_huge_write_leaves_at_the_limit(self, rate):
        """The mean of 5 s is within 1 %, and from 1 MiB/s on no 100 ms carry more than 1.10 times their share."""
        setting = Setting(rate)
        setting.paced.write(b"h" * (rate * 6))
        setting.pass_time(5)

        assert setting.written() == pytest.approx(5 * rate, rel=0.01 if rate > KIB else 0.11)
        if rate >= MIB:
            assert worst_window(setting.link.moments) <= 1.10 * 0.1 * rate

    def test_many_small_writes_leave_at_the_limit_in_order(self):
        """It does not matter how the bytes were cut."""
        setting = Setting(MIB)
        data = bytes(range(256)) * 8192
        for start in range(0, len(data), 100):
            setting.paced.write(data[start : start + 100])
        setting.pass_time(1)

        assert setting.written() == pytest.approx(MIB, rel=0.02)
        setting.pass_time(1.1)
        assert data == setting.link.value()

    def test_write_sequence_is_a_write(self):
        """It is paced like everything else, and keeps its order."""
        setting = Setting(KIB)
        setting.paced.writeSequence([b"a" * 1000, b"b" * 1000])
        setting.pass_time(1)
        early = setting.written()
        setting.pass_time(2)

        assert 0 < early < 2000
        assert b"a" * 1000 + b"b" * 1000 == setting.link.value()

    def test_nothing_is_saved_up_while_idle(self):
        """After an idle minute the first 100 ms carry no more than any others."""
        setting = Setting(MIB)
        setting.pass_time(1)
        setting.clock.pump([60])
        setting.paced.write(b"x" * MIB)
        setting.pass_time(0.5)

        assert worst_window(setting.link.moments) <= 1.10 * 0.1 * MIB

    def test_a_small_message_is_not_held_back(self):
        """What is alone and small leaves in the next turn of the reactor."""
        setting = Setting(64 * KIB)
        setting.paced.write(b"hello")
        before = setting.link.value()
        setting.clock.pump([0])

        assert (b"", b"hello") == (before, setting.link.value())

    def test_one_byte_per_second_works(self):
        """The lowest limit sends a byte each second."""
        setting = Setting(1)
        setting.paced.write(b"x" * 100)
        setting.clock.pump([1] * 60)

        assert setting.written() == pytest.approx(61, abs=1)

    def test_ten_connections_share_what_is_above_them(self):
        """Each of ten gets a tenth, within 5 %."""
        setting = Setting(10 * MIB)
        links = [setting.link]
        setting.paced.write(b"x" * 20 * MIB)
        for _ in range(9):
            link, paced = setting.connect()
            links.append(link)
            paced.write(b"x" * 20 * MIB)
        setting.pass_time(5)
        sent = [len(link.value()) for link in links]

        assert [5 * MIB] * 10 == [pytest.approx(amount, rel=0.05) for amount in sent]

    @pytest.mark.parametrize("tightest", [0, 1, 2])
    def test_the_tightest_of_three_limits_holds(self, tightest):
        """Service, peer and connection at once."""
        rates = [4 * MIB] * 3
        rates[tightest] = MIB
        setting = Setting(rates[0])
        peer = Bucket(rates[1], parent=setting.root)
        setting.paced.use(setting.pacer.flow(Bucket(rates[2], parent=peer)))
        setting.paced.write(b"x" * 8 * MIB)
        setting.pass_time(5)

        assert setting.written() == pytest.approx(5 * MIB, rel=0.01)

    def test_what_tls_adds_is_counted(self):
        """Over TLS the limit is one of records, so that the wire carries what was asked for."""
        setting = Setting(64 * KIB)
        setting.paced._tls.is_secure()
        setting.paced.write(b"x" * 640 * KIB)
        setting.pass_time(5)

        wire = setting.written() + 22 * len(setting.link.moments)
        assert wire == pytest.approx(5 * 64 * KIB, rel=0.01)
        setting.pass_time(6)
        assert b"x" * 640 * KIB == setting.link.value()


class TestWhatIsWritten:
    """The call itself."""

    @pytest.mark.parametrize("rate", [None, KIB])
    @pytest.mark.parametrize("data", ["text", bytearray(b"x"), memoryview(b"x"), None])
    def test_only_bytes_can_be_written(self, rate, data):
        """Anything else is refused at the call, by whoever made the mistake, with a limit and without."""
        setting = Setting(rate)
        with pytest.raises(TypeError, match="only bytes can be sent"):
            setting.paced.write(data)
        setting.paced.write(b"good")
        setting.pass_time(0.1)

        assert b"good" == setting.link.value()

    @pytest.mark.parametrize("before", [None, KIB])
    def test_a_write_that_the_application_has_kept_goes_the_way_of_all(self, before):
        """As twisted.mail keeps it: it overtakes nothing and strands nothing when a limit comes or goes."""
        setting = Setting(before)
        kept, expected = setting.paced.write, b""
        for turn, rate in enumerate([KIB, None, 4 * KIB, None]):
            for write in (kept, setting.paced.write):
                data = bytes([65 + turn]) * 500
                write(data)
                expected += data
            setting.pacer.set_rate(setting.root, rate)
            setting.pass_time(0.1)
        kept(b"end")

        assert expected + b"end" == setting.link.value()


class TestUnlimited:
    """Without a limit the layer stays out of the way."""

    def test_writes_pass_straight_through(self):
        """No timer, no queue, no producer below."""
        setting = Setting()
        setting.paced.write(b"abc")
        setting.paced.writeSequence([b"d", b"ef"])

        assert b"abcdef" == setting.link.value()
        assert [] == setting.timers
        assert setting.link.producer is None

    def test_a_connection_without_a_lane_has_no_limit(self):
        """Until it is told to use one."""
        clock = Clock()
        paced = ThrottledFactory(Factory.forProtocol(Application), clock).buildProtocol(None)
        link = Link(clock)
        paced.makeConnection(link)
        paced.write(b"abc")
        lane = Scheduler(clock, Bucket(KIB)).flow(Bucket(KIB))
        paced.use(lane)
        paced.write(b"x" * 1024)

        assert b"abc" == link.value()
        assert 1024 == paced.queued

    def test_what_passes_is_counted(self):
        """`GetThrottle` shows the current rate of unlimited connections too."""
        setting = Setting()
        setting.paced.write(b"x" * 1000)
        setting.paced._flow.collect()

        assert 1000 == setting.root.sent() == setting.root.current_rate(setting.clock.seconds())

    def test_the_suggested_chunk_is_as_large_as_a_box(self):
        """There is no reason for small ones."""
        assert 65_535 == Setting().paced.suggested_chunk


class TestChanges:
    """A limit that changes while bytes wait."""

    @pytest.mark.parametrize(("before", "after"), [(4 * MIB, MIB), (MIB, 4 * MIB), (KIB, 10 * MIB)])
    def test_the_timer_of_the_old_limit_is_not_sat_out(self, before, after):
        """Within the next 100 ms the new rate is there, up or down."""
        setting = Setting(before)
        setting.paced.write(b"x" * 40 * MIB)
        setting.pass_time(0.25)
        earlier = setting.written()
        assert 1 == len(setting.timers)
        setting.pacer.set_rate(setting.root, after)
        setting.pass_time(0.1)

        assert setting.written() - earlier == pytest.approx(0.1 * after, rel=0.1)

    def test_a_lifted_limit_lets_everything_go_at_once(self):
        """The queue is written, no timer is left, and writes pass straight through again."""
        setting = Setting(KIB)
        setting.paced.write(b"x" * MIB)
        setting.pass_time(0.1)
        setting.pacer.set_rate(setting.root, None)
        flushed = setting.written()
        setting.paced.write(b"y")

        assert MIB == flushed
        assert b"y" == setting.link.value()[-1:]
        assert [] == setting.timers
        assert setting.link.producer is None

    def test_a_lifted_limit_still_respects_the_transport(self):
        """If the transport is full, the rest of the queue goes when it has room, before anything new."""
        setting = Setting(KIB)
        setting.paced.write(b"x" * MIB)
        setting.pass_time(0.1)
        setting.link.producer.pauseProducing()
        earlier = setting.written()
        setting.pacer.set_rate(setting.root, None)
        setting.paced.write(b"y")
        held = setting.written()
        setting.link.producer.resumeProducing()

        assert earlier == held
        assert MIB + 1 == setting.written()
        assert b"xy" == setting.link.value()[-2:]

    def test_a_limit_set_later_holds_for_what_is_written_then(self):
        """From unlimited to limited, in the middle of a connection."""
        setting = Setting()
        setting.paced.write(b"x" * MIB)
        setting.pacer.set_rate(setting.root, MIB)
        setting.paced.write(b"x" * 2 * MIB)
        setting.pass_time(1)

        assert setting.written() - MIB == pytest.approx(MIB, rel=0.01)

    def test_another_lane_takes_what_waits_along(self):
        """A connection that turns out to belong to a peer is limited by that peer from then on."""
        setting = Setting(KIB)
        setting.paced.write(b"x" * 2 * MIB)
        setting.pass_time(0.1)
        other = Scheduler(setting.clock, Bucket(MIB))
        earlier = setting.written()
        setting.paced.use(other.flow(Bucket(parent=other._root)))
        setting.pass_time(1)

        assert 0 == setting.root.demand
        assert setting.written() - earlier == pytest.approx(MIB, rel=0.02)


class TestProducers:
    """Backpressure, from the limit and from the transport, to the application's producer."""

    def test_the_queue_in_front_of_the_limit_is_short(self):
        """The producer is paused as soon as some 50 ms of bytes wait, and once only."""
        setting, producer = self.producing_for(MIB)

        assert (1, 0) == (producer.paused, producer.resumed)
        assert setting.paced.queued <= 0.05 * MIB + 1000

    def producing_for(self, rate):
        """Start a producer on a link that never has enough, without passing time."""
        setting = Setting(rate)
        producer = Pushing(setting.paced)
        setting.paced.registerProducer(producer, streaming=True)
        producer.running = True
        while producer.running:
            setting.paced.write(b"x" * 1000)
        return setting, producer

    def test_the_producer_keeps_the_link_busy(self):
        """It is resumed in time, as often as it was paused, and the rate is held."""
        setting, producer = self.producing_for(MIB)
        setting.pass_time(5)

        assert setting.written() == pytest.approx(5 * MIB, rel=0.01)
        assert producer.paused in {producer.resumed, producer.resumed + 1}
        assert setting.paced.queued <= 0.05 * MIB + 1000

    def test_a_full_transport_pauses_the_producer_and_the_pacing(self):
        """While the transport below says so, nothing is written to it and no timer runs."""
        setting, _ = self.producing_for(MIB)
        setting.pass_time(0.1)
        setting.link.producer.pauseProducing()
        before = setting.written()
        setting.pass_time(0.5)
        held = setting.written()
        timers = setting.timers
        setting.link.producer.resumeProducing()
        setting.pass_time(1)

        assert before == held
        assert [] == timers
        assert setting.written() - held == pytest.approx(MIB, rel=0.02)

    def test_without_a_limit_the_transport_alone_decides(self):
        """It drives the application's producer itself."""
        setting = Setting()
        producer = Pushing(setting.paced, pieces=0)
        setting.paced.registerProducer(producer, streaming=True)
        setting.link.producer.pauseProducing()
        setting.link.producer.resumeProducing()

        assert producer is setting.link.producer.push
        assert (1, 1) == (producer.paused, producer.resumed)

    def test_a_transport_that_resumes_without_having_paused_is_not_followed(self):
        """As sockets do that were full before the producer came; twisted.web's counted pause would fail."""
        setting = Setting()
        producer = Pushing(setting.paced, pieces=0)
        setting.paced.registerProducer(producer, streaming=True)
        setting.link.producer.resumeProducing()

        assert (0, 0) == (producer.paused, producer.resumed)

    def test_a_limit_set_while_the_transport_is_full_resumes_as_often_as_was_paused(self):
        """twisted.web counts the pauses of a pull producer: one of the transport and one of ours would stop it."""
        setting = Setting()
        producer = Pushing(setting.paced, pieces=0)
        setting.paced.registerProducer(producer, streaming=True)
        setting.link.producer.pauseProducing()
        setting.pacer.set_rate(setting.root, MIB)

        assert (1, 1) == (producer.paused, producer.resumed)

    def test_a_limit_comes_between_a_producer_and_its_transport(self):
        """Set and lifted in the middle of a transfer, with the transport full or not: nobody gets stuck."""
        setting = Setting()
        producer = Pushing(setting.paced, pieces=0)
        setting.paced.registerProducer(producer, streaming=True)
        setting.link.producer.pauseProducing()
        producer.pieces = 1 << 30
        setting.pacer.set_rate(setting.root, MIB)
        setting.pass_time(1)
        limited = setting.written()
        setting.link.producer.pauseProducing()
        producer.pieces = 0
        setting.pacer.set_rate(setting.root, None)
        held = setting.written()
        setting.link.producer.resumeProducing()

        assert limited == held == pytest.approx(MIB, rel=0.01)
        assert 0 == setting.paced.queued
        assert producer is setting.link.producer.push
        assert producer.running

    def test_pauses_are_told_once(self):
        """However often the transport says it, while a limit holds."""
        setting = Setting(MIB)
        producer = Pushing(setting.paced, pieces=0)
        setting.paced.registerProducer(producer, streaming=True)
        below = setting.link.producer
        below.pauseProducing()
        below.pauseProducing()
        below.resumeProducing()
        below.pauseProducing()

        assert (2, 1) == (producer.paused, producer.resumed)

    @pytest.mark.parametrize("held_by", ["limit", "transport"])
    def test_a_producer_that_others_have_resumed_is_paused_again(self, held_by):
        """TLS above the layer resumes it without asking; no more than 1 MiB and a write come of each time."""
        setting = Setting(KIB)
        producer = Pushing(setting.paced, pieces=100_000)
        setting.paced.registerProducer(producer, streaming=True)
        if held_by == "transport":
            setting.link.producer.pauseProducing()
        producer.run()
        for _ in range(10):
            producer.resumeProducing()

        assert not producer.running
        assert setting.paced.queued <= 11 * (MAX_PAUSED_BYTES + 2 * producer.piece)

    @pytest.mark.parametrize("rate", [None, KIB])
    def test_a_producer_that_writes_on_without_an_end_is_paused_at_last(self, rate):
        """Also if it is the transport that tells it so."""
        setting = Setting(rate)
        producer = Pushing(setting.paced, pieces=0)
        setting.paced.registerProducer(producer, streaming=True)
        for _ in range(100):
            setting.paced.write(b"x" * 65_536)
            if rate is None:
                setting.link.producer.pauseProducing()

        assert producer.paused in {6, 7}

    def test_what_is_written_in_one_go_is_paused_once(self):
        """A page of twisted.web that wrote 420 KB at a time and was paused by the first piece stood still for good."""
        setting = Setting(KIB)
        producer = Pushing(setting.paced, pieces=0)
        setting.paced.registerProducer(producer, streaming=True)
        for _ in range(5):
            setting.paced.write(b"x" * 83_880)

        assert 1 == producer.paused

    def test_what_is_written_in_spite_of_a_pause_is_no_reason_for_another_one(self):
        """twisted.web counts pauses, and is resumed once; its HTTP/2 answers pings while it is paused."""
        setting = Setting(KIB)
        producer = Pushing(setting.paced, pieces=0)
        setting.paced.registerProducer(producer, streaming=True)
        setting.paced.write(b"h" * 1000)
        for _ in range(5):
            setting.clock.advance(TICK)
            setting.paced.write(b"b" * 100)
        setting.pass_time(3)

        assert (1, 1) == (producer.paused, producer.resumed)

    @pytest.mark.parametrize("streaming", [True, False])
    def test_registering_never_pauses_within_the_call(self, streaming):
        """TLS above is not ready for it; who pushes is paused by its first write, and who is pulled is not pulled."""
        setting = Setting(KIB)
        setting.paced.write(b"x" * 2048)
        producer = Pushing(setting.paced, pieces=100) if streaming else Pulling(setting.paced, pieces=1)
        setting.paced.registerProducer(producer, streaming)
        before = setting.paced.queued
        if streaming:
            told = producer.paused
            producer.run()
            assert (0, 1) == (told, producer.paused)
        else:
            setting.clock.pump([0, 0])
            early = producer.pieces
            setting.pass_time(2)
            assert (1, 0) == (early, producer.pieces)

        assert 2048 == before

    def test_a_pull_producer_is_pulled_at_the_limit(self):
        """On the clock that was given, not on a global one."""
        setting = Setting(MIB)
        producer = Pulling(setting.paced, pieces=3000)
        setting.paced.registerProducer(producer, streaming=False)
        setting.pass_time(1)
        sent = setting.written()
        setting.paced.loseConnection()
        setting.pass_time(3)

        assert sent == pytest.approx(MIB, rel=0.02)
        assert 3_000_000 == setting.written()
        assert ["lose"] == setting.link.calls
        assert [] == setting.timers

    @pytest.mark.parametrize("goes_first", [False, True])
    def test_a_pull_producer_that_raises_does_not_keep_the_connection_open(self, goes_first, monkeypatch):
        """It is logged and unregistered, as by Twisted; one that was unregistered already takes no other along."""
        setting = Setting(MIB)
        logged = []
        monkeypatch.setattr(producers, "_log", Quiet(logged))
        producer, next_one = Pulling(setting.paced, pieces=1), Pushing(setting.paced, pieces=0)

        def fails():
            if goes_first:
                setting.paced.unregisterProducer()
                setting.paced.registerProducer(next_one, streaming=True)
            raise ValueError

        producer.resumeProducing = fails
        setting.paced.registerProducer(producer, streaming=False)
        setting.paced.write(b"x")
        setting.paced.loseConnection()
        setting.pass_time(0.1)

        assert [ValueError] == logged
        assert ([] if goes_first else ["lose"]) == setting.link.calls
        assert [] == setting.timers

    def test_a_second_producer_is_refused(self):
        """As every transport does."""
        setting = Setting()
        setting.paced.registerProducer(Pushing(setting.paced), streaming=True)

        with pytest.raises(RuntimeError, match="never unregistered"):
            setting.paced.registerProducer(Pushing(setting.paced), streaming=True)

    def test_unregistering_without_a_producer_is_harmless(self):
        """Nothing happens."""
        setting = Setting()
        setting.paced.unregisterProducer()

        assert setting.link.producer is None

    def test_a_lost_connection_stops_the_producer_once(self):
        """However the loss is told."""
        setting, producer = self.producing_for(MIB)
        setting.link.producer.stopProducing()
        setting.paced.connectionLost(Failure(ConnectionError()))

        assert 1 == producer.stopped
        late = Pushing(setting.paced)
        setting.paced.registerProducer(late, streaming=True)
        assert 1 == late.stopped

    def test_reading_is_paused_at_the_transport(self):
        """``pauseProducing`` of the application's transport is about what it receives."""
        setting = Setting(KIB)
        setting.paced.pauseProducing()
        paused = setting.link.producerState
        setting.paced.resumeProducing()

        assert ("paused", "producing") == (paused, setting.link.producerState)


class TestClosing:
    """Ends of a connection while bytes wait."""

    def test_lose_connection_sends_what_waits_first(self):
        """At the limit; only then the transport is closed."""
        setting = Setting(KIB)
        setting.paced.write(b"x" * 2048)
        setting.paced.loseConnection()
        setting.paced.write(b"too late")
        setting.pass_time(1)
        early = list(setting.link.calls)
        setting.pass_time(1.5)

        assert [] == early
        assert ["lose"] == setting.link.calls
        assert b"x" * 2048 == setting.link.value()
        assert setting.link.producer is None
        assert [] == setting.timers

    def test_lose_connection_waits_for_the_producer(self):
        """As transports do: it may write until it is unregistered."""
        setting = Setting(MIB)
        setting.paced.registerProducer(Pushing(setting.paced, pieces=0), streaming=True)
        setting.paced.loseConnection()
        setting.paced.write(b"more")
        setting.pass_time(0.1)
        early = list(setting.link.calls)
        setting.paced.unregisterProducer()

        assert ([], ["lose"]) == (early, setting.link.calls)
        assert b"more" == setting.link.value()

    @pytest.mark.parametrize("how", ["loseConnection", "abortConnection", "stopProducing", "stopConsuming"])
    def test_nothing_is_delivered_after_the_application_has_closed(self, how):
        """While what waits goes out, the application that has said good-bye hears nothing more."""
        setting = Setting(KIB)
        setting.paced.dataReceived(b"before")
        setting.paced.write(b"x" * 2048)
        getattr(setting.paced, how)()
        setting.paced.dataReceived(b"after")

        assert b"before" == setting.application.received

    @pytest.mark.parametrize("rate", [None, KIB])
    @pytest.mark.parametrize("how", ["stopProducing", "stopConsuming"])
    def test_a_producer_that_gives_up_closes_as_the_application_does(self, how, rate):
        """What waits goes out first."""
        setting = Setting(rate)
        setting.paced.registerProducer(Pushing(setting.paced, pieces=0), streaming=True)
        setting.paced.write(b"x" * 2048)
        getattr(setting.paced, how)()
        if how == "stopProducing":
            setting.paced.unregisterProducer()
        setting.pass_time(3)

        assert b"x" * 2048 == setting.link.value()
        assert ["lose"] == setting.link.calls

    @pytest.mark.parametrize(("secure", "reads"), [(False, "paused"), (True, "producing")])
    def test_a_closing_socket_reads_no_more(self, secure, reads):
        """So a peer that closes its half does not cut off what it is still to get; TLS needs to read to finish."""
        setting = Setting(KIB)
        if secure:
            setting.paced._tls.is_secure()
        setting.paced.write(b"x" * 2048)
        setting.paced.loseConnection()
        setting.paced.resumeProducing()

        assert reads == setting.link.producerState

    def test_lose_connection_with_nothing_waiting_is_immediate(self):
        """With and without a limit, and once only."""
        for rate in (None, MIB):
            setting = Setting(rate)
            setting.paced.loseConnection()
            setting.paced.loseConnection()

            assert ["lose"] == setting.link.calls
            assert setting.paced.disconnecting

    def test_the_application_is_told_whatever_fails_at_the_end(self, monkeypatch):
        """A lane that cannot be left, for want of memory perhaps, does not keep the end to itself."""
        setting = Setting(KIB)

        def fails(_):
            raise MemoryError

        monkeypatch.setattr(pacer.Flow, "leave", fails)
        with pytest.raises(MemoryError):
            setting.paced.connectionLost(Failure(ConnectionDone()))

        assert "lost" == setting.application.told[-1]

    def test_a_grant_that_cannot_be_sent_ends_the_connection(self, monkeypatch):
        """What has left the queue may not have reached the transport: a stream with a gap must not go on."""
        setting = Setting(KIB)
        logged = []
        monkeypatch.setattr(pacer, "_log", Quiet(logged))

        def fails(_):
            raise MemoryError

        setting.paced.write(b"x" * 16_384)
        setting.link.write = fails
        setting.pass_time(1)

        assert "abort" in setting.link.calls
        assert {MemoryError} == set(logged)

    def test_abort_drops_what_waits(self):
        """Nothing more is written, and no timer is left."""
        setting = Setting(KIB)
        setting.paced.write(b"x" * 16_384)
        setting.pass_time(0.1)
        before = setting.written()
        setting.paced.abortConnection()
        timers = setting.timers
        setting.paced.write(b"y")
        setting.pass_time(5)

        assert ["abort"] == setting.link.calls
        assert before == setting.written()
        assert [] == timers
        assert () == setting.root.children

    def test_a_lost_connection_cancels_the_timer_and_leaves_its_lane(self):
        """And the application hears of it, once."""
        setting = Setting(KIB)
        setting.paced.write(b"x" * 16_384)
        setting.paced.connectionLost(Failure(ConnectionError()))

        assert [] == setting.timers
        assert () == setting.root.children
        assert ["made", "lost"] == setting.application.told
        assert setting.paced.wrappedProtocol is None

    def test_the_turn_of_a_lost_connection_goes_to_the_others(self):
        """Losing one in the middle of serving does not hold up the rest."""
        setting = Setting(MIB)
        link, paced = setting.connect()
        setting.paced.write(b"x" * 4 * MIB)
        paced.write(b"x" * 4 * MIB)
        setting.pass_time(0.1)
        setting.paced.connectionLost(Failure(ConnectionError()))
        before = len(link.value())
        setting.pass_time(1)

        assert len(link.value()) - before == pytest.approx(MIB, rel=0.02)

    def test_half_close_sends_what_waits_first(self):
        """The sending half is closed when the queue is empty; the connection stays."""
        setting = Setting(KIB)
        setting.paced.write(b"x" * 1024)
        setting.paced.loseWriteConnection()
        early = list(setting.link.calls)
        setting.pass_time(1.5)
        setting.pacer.set_rate(setting.root, MIB)
        setting.paced.loseConnection()

        assert [] == early
        assert ["lose write", "lose"] == setting.link.calls
        assert b"x" * 1024 == setting.link.value()

    def test_a_half_close_overtaken_by_a_close_is_not_done_later(self):
        """The transport is told once, to close, whatever changes afterwards."""
        setting = Setting(KIB)
        setting.paced.write(b"x" * 1024)
        setting.paced.loseWriteConnection()
        setting.paced.loseConnection()
        setting.pass_time(1.5)
        setting.pacer.set_rate(setting.root, MIB)

        assert ["lose"] == setting.link.calls

    def test_a_lane_that_comes_too_late_is_left_at_once(self):
        """A connection that is gone keeps no place in the tree."""
        setting = Setting()
        setting.paced.connectionLost(Failure(ConnectionError()))
        setting.paced.use(setting.lane())

        assert () == setting.root.children


class TestForwarding:
    """What has nothing to do with sending passes through."""

    def test_the_application_hears_everything(self):
        """Data, handshake, half close, loss."""
        setting = Setting()
        setting.paced.dataReceived(b"in")
        setting.paced.handshakeCompleted()
        setting.paced.readConnectionLost()
        setting.paced.writeConnectionLost()
        setting.paced.connectionLost(Failure(ConnectionError()))

        assert b"in" == setting.application.received
        assert ["made", "handshake", "read lost", "write lost", "lost"] == setting.application.told

    def test_it_provides_what_the_application_provides(self):
        """Before and after it is connected; a plain application gets neither notice."""
        before = ThrottledProtocol(None, Application())
        plain = ThrottledProtocol(None, Protocol())
        after = Setting().paced

        for protocol in (before, after):
            assert IHalfCloseableProtocol.providedBy(protocol)
            assert IHandshakeListener.providedBy(protocol)
        assert not IHalfCloseableProtocol.providedBy(plain)
        assert not IHandshakeListener.providedBy(plain)

    def test_it_is_a_transport_and_a_consumer(self):
        """In the sense of Twisted's interfaces."""
        paced = Setting().paced

        assert verifyObject(ITransport, paced)
        assert verifyObject(IConsumer, paced)

    def test_other_attributes_are_the_transports(self):
        """Addresses, certificates, handles."""
        setting = Setting()

        assert "certificate" == setting.paced.getPeerCertificate()
        assert setting.link.getPeer() == setting.paced.getPeer()
        assert setting.link.getHost() == setting.paced.getHost()
        with pytest.raises(AttributeError):
            _ = setting.paced.no_such_thing

    def test_a_factory_that_wants_no_connection_is_obeyed(self):
        """None is passed on."""

        class Refusing(Factory):
            def buildProtocol(self, addr):
                return None

        assert ThrottledFactory(Refusing(), Clock()).buildProtocol(None) is None

    def test_a_protocol_that_is_never_connected_takes_no_place(self):
        """``throttle:realize:`` builds one before the handshake, and drops it if that fails."""
        setting = Setting(KIB)
        before = setting.root.children
        setting.factory.buildProtocol(None)

        assert before == setting.root.children

    def test_the_factory_passes_on_its_life(self):
        """Start, stop, and the protocols it would negotiate."""

        @implementer(IProtocolNegotiationFactory)
        class Negotiating(Factory):
            running = False

            def doStart(self):
                self.running = True

            def doStop(self):
                self.running = False

            def acceptableProtocols(self):
                return [b"h2"]

        inner = Negotiating()
        outer = ThrottledFactory(inner, Clock())
        outer.doStart()
        running = inner.running
        outer.doStop()

        assert (True, False) == (running, inner.running)
        assert [b"h2"] == outer.acceptableProtocols()
        assert IProtocolNegotiationFactory.providedBy(outer)
        assert not IProtocolNegotiationFactory.providedBy(ThrottledFactory(Factory(), Clock()))
        assert "Negotiating (paced)" == outer.logPrefix()


class TestChunks:
    """What a sender should write at a time."""

    @pytest.mark.parametrize(
        ("rate", "chunk"), [(1, 512), (KIB, 512), (64 * KIB, 3276), (MIB, 52428), (10 * MIB, 65535)]
    )
    def test_the_suggested_chunk_is_50_ms_of_the_limit(self, rate, chunk):
        """Between 512 bytes and what fits an AMP value."""
        assert chunk == Setting(rate).paced.suggested_chunk

    def test_a_control_message_behind_a_transfer_leaves_within_250_ms(self):
        """At 64 KiB/s, if the sender follows the suggestion."""
        setting = Setting(64 * KIB)
        producer = Pushing(setting.paced, piece=setting.paced.suggested_chunk)
        setting.paced.registerProducer(producer, streaming=True)
        producer.run()
        setting.pass_time(1)
        setting.paced.write(b"answer")
        setting.pass_time(0.25)

        assert b"answer" in setting.link.value()


def key_and_certificate():
    """A new key, and what says that it is nobody's in particular."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([])
    day = dt.timedelta(days=1)
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day).sign(key, None)
    return key, made


def certificate():
    """Options for either end, with a key of their own."""
    key, made = key_and_certificate()
    return CertificateOptions(privateKey=key, certificate=made)


class Echo(Application):
    """Sends a number of bytes as soon as TLS is up."""

    amount = 0

    def handshakeCompleted(self):
        """Send."""
        super().handshakeCompleted()
        self.transport.write(b"e" * self.amount)


@implementer(IPullProducer)
class Endless:
    """Writes 64 KiB whenever asked, and counts."""

    produced = 0

    def __init__(self, consumer):
        self.consumer = consumer

    def resumeProducing(self):
        """Write."""
        self.produced += 65_536
        self.consumer.write(bytes(65_536))

    def stopProducing(self):
        """Nothing more is asked for."""


class TestBelowTLS:
    """Below TLS, as in ``throttle:tcp:8124:rate=1M`` with TLS in the factory."""

    @pytest.mark.parametrize("registered", ["before the handshake", "after it", "while full"])
    def test_a_producer_is_held_whenever_it_was_registered(self, registered, monkeypatch):
        """What TLS resumes by itself, as at the end of the handshake, is paused again: memory stays bounded."""
        setting = Setting(MIB)
        monkeypatch.setattr(
            _producer_helpers, "cooperate", Cooperator(scheduler=lambda f: setting.clock.callLater(TICK, f)).cooperate
        )
        server = TLSMemoryBIOFactory(certificate(), False, Factory.forProtocol(Application), setting.clock)
        client = TLSMemoryBIOFactory(CertificateOptions(), True, Factory.forProtocol(Application), setting.clock)
        paced = ThrottledFactory(server, setting.clock, setting.lane).buildProtocol(None)
        receiver = client.buildProtocol(None)
        sender = paced.wrappedProtocol.wrappedProtocol
        pump = iosim.connect(
            paced,
            iosim.makeFakeServer(paced),
            receiver,
            iosim.makeFakeClient(receiver),
            greet=False,
            clock=setting.clock,
        )
        if registered != "before the handshake":
            pump.flush()
        if registered == "while full":
            sender.transport.write(bytes(4 * MIB))
            setting.pass_time(0.01)
        producer = Endless(sender.transport)
        sender.transport.registerProducer(producer, False)
        for _ in range(1000):
            setting.clock.advance(TICK)
            pump.pump(advanceClock=False)
        sender.transport.unregisterProducer()

        assert len(receiver.wrappedProtocol.received) == pytest.approx(MIB, rel=0.05)
        assert producer.produced <= 1.3 * MIB
        assert paced.queued <= 4.1 * MIB


class TestTLS:
    """Inside TLS, where it is meant to be."""

    def test_the_handshake_is_not_held_back_and_the_content_is(self):
        """At 1 KiB/s the handshake is over at once, and 2 KiB take 2 s."""
        clock = Clock()

        def lanes():
            own = Scheduler(clock, Bucket(KIB))
            return own.flow(own._root)

        server = Factory.forProtocol(Echo)
        client = Factory.forProtocol(Application)
        client_protocol = TLSMemoryBIOFactory(
            CertificateOptions(), True, ThrottledFactory(client, clock, lanes), clock
        ).buildProtocol(None)
        server_protocol = TLSMemoryBIOFactory(
            certificate(), False, ThrottledFactory(server, clock, lanes), clock
        ).buildProtocol(None)
        sender = server_protocol.wrappedProtocol.wrappedProtocol
        receiver = client_protocol.wrappedProtocol.wrappedProtocol
        sender.amount = 2048

        pump = iosim.connect(
            server_protocol,
            iosim.makeFakeServer(server_protocol),
            client_protocol,
            iosim.makeFakeClient(client_protocol),
            debug=False,
            greet=False,
            clock=clock,
        )
        pump.flush()
        told = list(sender.told), list(receiver.told)
        for _ in range(1000):
            clock.pump([TICK])
            pump.flush()
        early = len(receiver.received)
        for _ in range(1500):
            clock.pump([TICK])
            pump.flush()

        assert (["made", "handshake"], ["made", "handshake"]) == told
        assert 500 < early < 1600
        assert b"e" * 2048 == receiver.received
        assert sender.transport.getPeerCertificate() is None
