"""The bulk TLS transport does what Twisted's own does, in fewer steps.

Both run over transports in memory; what a scenario makes of the two must be equal.
"""

import random
import socket
from collections import deque
from types import SimpleNamespace

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactor
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from realize.keys import generate_identity
from realize.wire import tls_bulk as bulk
from realize.wire.tls import AcceptingTLS, ConnectingTLS
from realize.wire.tls_bulk import (
    ENCRYPT_BYTES,
    FEED_BYTES,
    MAX_DELIVERY_BYTES,
    MAX_GATHERED_BYTES,
    BulkTLSFactory,
    BulkTLSTransport,
    GatheredWrites,
    TurnEnd,
    send_at_once,
    unacknowledged,
)

SERVER, CLIENT = generate_identity(), generate_identity()
MIB = 1 << 20


class Pipe:
    """A transport that keeps what is written until it is pumped; like TCP, it closes when all has been sent."""

    def __init__(self):
        self.protocol = None
        self.other = None
        self.sent = deque()
        self.writes = []
        self.producer = None
        self.paused = False
        self.disconnecting = False
        self.aborted = False
        self.closed = False

    def write(self, data):
        """Queue."""
        assert isinstance(data, bytes)
        if data and not self.closed:
            self.sent.append(data)
            self.writes.append(len(data))

    def pause(self):
        """Say that this is full."""
        self.paused = True
        self.producer.pauseProducing()

    def loseConnection(self):
        """Close when all was sent, and no producer that was paused wants to send more."""
        self.disconnecting = True

    def abortConnection(self):
        """Close now."""
        self.aborted = self.disconnecting = True
        self.sent.clear()

    def registerProducer(self, producer, streaming):
        """Remember."""
        assert streaming
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self):
        """Forget."""
        self.producer = None

    def pump(self, size=None):
        """Bring everything over, in pieces of a size if one is given; whether anything happened."""
        data = b"".join(self.sent)
        self.sent.clear()
        if not self.other.closed:
            for start in range(0, len(data), size or len(data) or 1):
                self.other.protocol.dataReceived(data[start : start + (size or len(data))])
        happened = bool(data)
        if self.closed:
            return happened
        if self.sent:
            return True
        if self.paused and self.producer is not None:
            # As twisted.internet.abstract.FileDescriptor does: a producer that is resumed is waited for.
            self.paused = False
            self.producer.resumeProducing()
            return True
        if self.disconnecting:
            self.close(ConnectionLost() if self.aborted else ConnectionDone())
            return True
        return happened

    def close(self, reason):
        """The end for both sides."""
        for pipe in (self, self.other):
            if not pipe.closed:
                pipe.closed = True
                pipe.protocol.connectionLost(Failure(reason))


@implementer(IHandshakeListener, IPushProducer)
class Application(Protocol):
    """Records what happens to it."""

    def __init__(self):
        self.received = bytearray()
        self.events = []
        self.reason = None

    def dataReceived(self, data):
        """Record."""
        self.received += data

    def handshakeCompleted(self):
        """Record."""
        self.events.append("handshake")

    def pauseProducing(self):
        """Record."""
        self.events.append("pause")

    def resumeProducing(self):
        """Record."""
        self.events.append("resume")

    def stopProducing(self):
        """Record."""
        self.events.append("stop")

    def connectionLost(self, reason):
        """Record."""
        self.reason = type(reason.value)
        self.events.append("lost")


class Link:
    """Two applications with TLS between them; ``make`` is the factory of the client's TLS."""

    def __init__(self, make):
        self.clock = Clock()
        self.client, self.server = Application(), Application()
        self.near, self.far = Pipe(), Pipe()
        connecting = ConnectingTLS([CLIENT], [SERVER.public_key], "there")
        accepting = AcceptingTLS([SERVER], CLIENT.public_key.__eq__, lambda *_: None)
        self.tls = self._wrap(make, connecting, self.client, client=True)
        self.peer = self._wrap(TLSMemoryBIOFactory, accepting, self.server, client=False)
        self.near.protocol, self.far.protocol = self.tls, self.peer
        self.near.other, self.far.other = self.far, self.near
        self.peer.makeConnection(self.far)
        self.tls.makeConnection(self.near)

    def _wrap(self, make, tls, application, *, client):
        factory = Factory.forProtocol(lambda: application)
        return make(tls, client, factory, self.clock).buildProtocol(None)

    def settle(self, size=None):
        """Until nothing moves any more."""
        for _ in range(200):
            self.clock.advance(0)
            if not any([self.near.pump(size), self.far.pump(size)]) and not self.clock.getDelayedCalls():
                return self
        raise AssertionError("it never comes to rest")

    def outcome(self):
        """What the applications saw."""
        return (
            bytes(self.server.received),
            bytes(self.client.received),
            self.client.events,
            self.server.events,
            self.client.reason,
            self.server.reason,
        )


def content(size, seed=1):
    """Some bytes."""
    return random.Random(seed).randbytes(size)


def write_sizes(link):
    """Writes of all sizes around those of records, and one that is big."""
    link.settle()
    for size in (0, 1, 16_383, 16_384, 16_385, 32_768, 65_535, 3 * MIB + 7, 0, 5):
        link.client.transport.write(content(size, size))
    link.client.transport.writeSequence([b"a", b"", b"b" * 20_000])
    link.settle()


def write_before_the_handshake(link):
    """What is written too early waits, and pauses the producer."""
    link.client.transport.registerProducer(link.client, True)
    for size in (100_000, 5, 70_000):
        link.client.transport.write(content(size))
    link.clock.advance(0)
    link.settle()


def write_in_crumbs(link):
    """The other side's bytes arrive in pieces that cut every record."""
    link.settle(7)
    link.client.transport.write(content(200_000))
    link.settle(1_000)


def lose_after_a_write(link):
    """An orderly close sends what was written first."""
    link.settle()
    link.client.transport.write(content(2 * MIB))
    link.client.transport.loseConnection()
    link.client.transport.write(b"too late")
    link.settle()


def lose_before_the_handshake(link):
    """A close that comes with early writes."""
    link.client.transport.write(content(100_000))
    link.client.transport.loseConnection()
    link.settle()


def lose_with_a_producer(link):
    """A registered producer may go on writing; the close comes when it has ended."""
    link.settle()
    link.client.transport.registerProducer(link.client, True)
    link.client.transport.loseConnection()
    link.client.transport.write(content(100_000))
    link.settle()
    link.client.transport.unregisterProducer()
    link.settle()


def abort_after_a_write(link):
    """An abort sends nothing more."""
    link.settle()
    link.client.transport.write(content(MIB))
    link.client.transport.abortConnection()
    link.client.transport.write(b"too late")
    link.settle()


def peer_closes(link):
    """What is written after the peer closed goes nowhere, and hurts nobody."""
    link.settle()
    link.server.transport.loseConnection()
    link.settle()
    link.client.transport.write(content(100_000))
    link.settle()


def cut_while_writing(link):
    """The connection is lost below."""
    link.settle()
    link.client.transport.write(content(100_000))
    link.clock.advance(0)
    link.near.close(ConnectionLost())
    link.client.transport.write(b"more")
    link.clock.advance(0)


def garbage_arrives(link):
    """A record that cannot be decrypted ends the connection with an error."""
    link.settle()
    link.tls.dataReceived(b"\x17\x03\x03\x00\x20" + bytes(32))
    link.client.transport.write(content(100_000))
    link.settle()


def receive_sizes(link):
    """Writes of all sizes from the other side, which arrive in one piece."""
    link.settle()
    for size in (1, 16_383, 16_385, 262_144, 3 * MIB + 7, 5):
        link.server.transport.write(content(size, size))
    link.settle()


def receive_in_parts(link):
    """The same in pieces that end anywhere in a record."""
    link.settle()
    link.server.transport.write(content(2 * MIB))
    link.settle(100_003)


def receive_before_a_close(link):
    """What the other side wrote before it closed arrives all the same."""
    link.settle()
    link.server.transport.write(content(MIB))
    link.server.transport.loseConnection()
    link.settle()


def garbage_behind_content(link):
    """What came before a record that cannot be decrypted arrives."""
    link.settle()
    link.server.transport.write(content(300_000))
    link.clock.advance(0)
    link.far.sent.append(b"\x17\x03\x03\x00\x20" + bytes(32))
    link.settle()


def a_full_transport(link):
    """Pauses and resumes reach the producer."""
    link.settle()
    link.client.transport.registerProducer(link.client, True)
    link.near.pause()
    link.client.transport.write(content(100_000))
    link.settle()
    link.client.transport.unregisterProducer()
    link.settle()


SCENARIOS = [
    write_sizes,
    write_before_the_handshake,
    write_in_crumbs,
    lose_after_a_write,
    lose_before_the_handshake,
    lose_with_a_producer,
    abort_after_a_write,
    peer_closes,
    cut_while_writing,
    garbage_arrives,
    a_full_transport,
    receive_sizes,
    receive_in_parts,
    receive_before_a_close,
    garbage_behind_content,
]


def test_one_timer_sends_what_many_connections_wrote_in_a_turn(monkeypatch):
    """Each in the order of its writes, whatever becomes of another one; those that have closed need no timer."""
    clock, written, told = Clock(), [], []
    end = TurnEnd(clock)
    monkeypatch.setattr(bulk, "_log", SimpleNamespace(failure=told.append))

    def fails(_):
        raise OSError

    first, second = (GatheredWrites(written.append, end) for _ in range(2))
    for each in (first, GatheredWrites(fails, end), second, first):
        each.write(b"12345")
    timers = len(clock.getDelayedCalls())
    clock.advance(0)
    sent = list(written)
    second.write(b"x" * (MAX_GATHERED_BYTES + 1))
    first.write(b"y")
    first.close()

    assert (1, [b"1234512345", b"12345"], 1) == (timers, sent, len(told))
    assert [MAX_GATHERED_BYTES + 1, 1] == list(map(len, written[2:]))
    second.close()
    assert [] == clock.getDelayedCalls()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_it_does_what_twisteds_own_does(scenario):
    """The applications at both ends cannot tell the two apart."""
    original, ours = Link(TLSMemoryBIOFactory), Link(BulkTLSFactory)
    scenario(original)
    scenario(ours)

    assert isinstance(original.tls, BufferingTLSTransport)
    assert isinstance(ours.tls, BulkTLSTransport)
    assert original.outcome() == ours.outcome()
    assert original.near.disconnecting == ours.near.disconnecting
    assert original.near.closed == ours.near.closed
    assert bool(original.near.sent) == bool(ours.near.sent)


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_steps_has_the_same_outcome(seed):
    """Writes of any size, deliveries, pauses and an end of any kind, in any order."""
    links = [Link(TLSMemoryBIOFactory), Link(BulkTLSFactory)]
    for link in links:
        rng = random.Random(seed)
        for number in range(rng.randrange(1, 30)):
            match rng.randrange(5):
                case 0:
                    link.client.transport.write(content(rng.choice([0, 1, 40, 16_384, 70_000, 300_000]), number))
                case 1:
                    link.server.transport.write(content(rng.choice([1, 20_000]), number))
                case 2:
                    link.near.pump()
                case 3:
                    link.far.pump()
                case 4:
                    link.clock.advance(0)
        end = rng.choice([link.client.transport.loseConnection, link.server.transport.loseConnection, lambda: None])
        end()
        link.settle()

    assert links[0].outcome() == links[1].outcome()


def test_a_big_write_goes_down_in_few_pieces():
    """That is what it is for: few writes, not one for each record."""
    link = Link(BulkTLSFactory).settle()
    link.near.writes.clear()
    link.client.transport.write(content(MIB))
    link.clock.advance(0)

    assert -(-MIB // MAX_DELIVERY_BYTES) + 1 == len(link.near.writes)
    assert MIB < sum(link.near.writes) < MIB + MIB // 100


class Fed:
    """OpenSSL, which takes note of how much it is given at once."""

    def __init__(self, openssl):
        self._openssl = openssl
        self.pieces = []

    def __getattr__(self, name):
        return getattr(self._openssl, name)

    def BIO_write(self, bio, data, size):
        """Take note, and take it."""
        self.pieces.append(size)
        return self._openssl.BIO_write(bio, data, size)


class Taking:
    """An OpenSSL connection that takes note of how much it is given at once."""

    def __init__(self, connection):
        self._connection = connection
        self.pieces = []

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def send(self, data):
        """Take note, and take it."""
        self.pieces.append(len(data))
        return self._connection.send(data)


def test_openssl_is_given_little_at_once_and_the_application_much(monkeypatch):
    """What a BIO once had to hold it keeps for as long as the connection lives, and there may be very many of these."""
    fed = Fed(bulk._openssl)
    monkeypatch.setattr(bulk, "_openssl", fed)
    link, deliveries = Link(BulkTLSFactory).settle(), []
    taking = link.tls._tlsConnection = Taking(link.tls._tlsConnection)
    link.client.dataReceived = lambda data: deliveries.append(len(data))
    link.client.transport.write(content(MIB))
    link.server.transport.write(content(MIB))
    link.clock.advance(0)
    arrived = b"".join(link.far.sent)
    link.far.sent.clear()
    link.tls.dataReceived(arrived)

    assert [MIB, MIB] == [sum(taking.pieces), sum(deliveries)]
    assert max(taking.pieces) <= ENCRYPT_BYTES < MAX_DELIVERY_BYTES
    assert max(fed.pieces) <= FEED_BYTES
    assert len(deliveries) <= 2 * MIB // MAX_DELIVERY_BYTES


def test_a_buffer_that_fills_up_within_a_record_is_not_all_there_is():
    """OpenSSL keeps the rest of the record, so whoever decrypts has to ask again, and not to wait for the peer."""
    link = Link(BulkTLSFactory).settle()
    link.server.transport.write(content(1000))
    link.clock.advance(0)
    connection = link.tls._tlsConnection
    connection.bio_write(b"".join(link.far.sent))

    assert (MAX_DELIVERY_BYTES, False) == bulk.decrypt(connection, MAX_DELIVERY_BYTES - 100)
    assert (900, True) == bulk.decrypt(connection)


def test_what_openssl_has_no_memory_for_is_not_skipped(monkeypatch):
    """Nothing that comes behind it is looked at; whoever reads the socket ends the connection for the error."""
    link = Link(BulkTLSFactory).settle()
    openssl = Fed(bulk._openssl)
    openssl.BIO_write = lambda *_: -1
    monkeypatch.setattr(bulk, "_openssl", openssl)

    with pytest.raises(MemoryError):
        link.tls.dataReceived(b"a record")
    assert b"" == link.client.received


class Reluctant:
    """An OpenSSL connection that takes at most so much at a time, then says that it must read first, or fails."""

    def __init__(self, connection, most, error=None):
        self._connection = connection
        self.most = most
        self.error = error
        self.takes = 3

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def send(self, data):
        """Take a part, three times."""
        if not self.takes:
            raise self.error or SSL.WantReadError
        self.takes -= 1
        return self._connection.send(bytes(data[: self.most]))


def reluctant(make, error=None):
    """A link after the handshake, whose OpenSSL is `Reluctant`."""
    link = Link(make).settle()
    link.client.transport.registerProducer(link.client, True)
    link.tls._tlsConnection = Reluctant(link.tls._tlsConnection, 10_000, error)
    link.client.transport.write(content(100_000))
    link.settle()
    return link


def test_what_openssl_does_not_take_waits_for_the_next_bytes_of_the_peer():
    """A write that was taken in parts goes on exactly where it stopped, and the producer is paused meanwhile."""
    outcomes = []
    for make in (TLSMemoryBIOFactory, BulkTLSFactory):
        link = reluctant(make)
        stopped = bytes(link.server.received), list(link.client.events)
        link.tls._tlsConnection.takes = 1_000
        link.server.transport.write(b"go on")
        link.settle()
        outcomes.append((stopped, link.outcome()))

    assert content(100_000)[:30_000] == outcomes[1][0][0]
    assert content(100_000) == outcomes[1][1][0]
    assert ["handshake", "pause"] == outcomes[1][0][1]
    assert outcomes[0] == outcomes[1]


def test_an_error_of_openssl_ends_the_connection_with_it():
    """The application learns what went wrong; what was encrypted before is sent."""
    failed = [reluctant(make, SSL.Error([("a", "b", "c")])) for make in (TLSMemoryBIOFactory, BulkTLSFactory)]

    assert failed[1].client.reason is SSL.Error
    assert content(100_000)[:30_000] == bytes(failed[1].server.received)
    assert failed[0].outcome() == failed[1].outcome()


def test_the_application_is_told_of_the_end_once_whatever_fails_on_the_way(monkeypatch):
    """Without memory for what has arrived last the end is told; what the application raises is none of that."""
    link = Link(BulkTLSFactory).settle()
    told = []

    def short(*_):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(link.client, "connectionLost", told.append)
        patched.setattr(bulk, "decrypt", short)
        with pytest.raises(MemoryError):
            link.tls.connectionLost(Failure(ConnectionLost()))
        first = len(told)
    link = Link(BulkTLSFactory).settle()

    def raises(reason):
        told.append(reason)
        raise KeyError

    monkeypatch.setattr(link.client, "connectionLost", raises)
    with pytest.raises(KeyError):
        link.tls.connectionLost(Failure(ConnectionLost()))

    assert (1, 2) == (first, len(told))


def test_bytes_that_were_left_behind_are_fetched_with_the_next_write():
    """More in the buffer than a write accounts for (an answer to a key update, say) does not stay there."""
    link = Link(BulkTLSFactory).settle()
    for _ in range(50):
        link.tls._tlsConnection.send(bytes(1_000))
    link.client.transport.write(b"end")
    link.settle()

    assert bytes(50_000) + b"end" == bytes(link.server.received)


@pytest.mark.parametrize("full", [False, True])
def test_a_peer_that_closes_while_we_are_full_does_not_keep_the_connection_open(full):
    """A paused producer cannot write any more once TLS has ended; the transport must not wait for it."""
    link = Link(BulkTLSFactory).settle()
    link.client.transport.registerProducer(link.client, True)
    if full:
        link.near.pause()
    link.client.transport.write(content(100_000))
    link.server.transport.loseConnection()
    link.far.pump()
    link.near.pump()

    assert link.near.closed
    assert link.client.reason is ConnectionDone


@pytest.fixture
def wire():
    """Twisted's TCP transport on one end of a pair of sockets, and the other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport = Connection(ours, Protocol(), MemoryReactor())
    transport.connected = True
    with ours, theirs:
        yield transport, theirs


def test_what_the_kernel_takes_is_sent_at_once(wire):
    """With nothing in front of it, a write needs no turn of the reactor."""
    transport, theirs = wire

    assert 3 == send_at_once(transport, memoryview(b"abc"))
    assert b"abc" == theirs.recv(10)


def test_a_full_socket_takes_a_part(wire):
    """What does not fit is left to the transport."""
    transport, _ = wire
    much = memoryview(bytes(64 * MIB))
    sent = send_at_once(transport, much)

    assert 0 < sent < len(much)
    assert 0 == send_at_once(transport, much)


@pytest.mark.parametrize("state", ["waiting", "half sent", "closing", "half closing", "half closed", "lost"])
def test_nothing_overtakes_or_follows_the_end(wire, state):
    """Where something waits, or the end was announced, the transport decides."""
    transport, theirs = wire
    if state == "waiting":
        transport.write(b"first")
    elif state == "half sent":
        transport.dataBuffer = b"first"
    elif state == "closing":
        transport.disconnecting = True
    elif state == "half closing":
        transport._writeDisconnecting = True
    elif state == "half closed":
        transport._writeDisconnected = True
    else:
        transport.connected = False
    sent = send_at_once(transport, memoryview(b"second"))
    theirs.setblocking(False)

    assert 0 == sent
    with pytest.raises(BlockingIOError):
        theirs.recv(10)


def test_a_broken_socket_is_left_to_the_transport(wire):
    """The error comes up where Twisted deals with it."""
    transport, theirs = wire
    theirs.close()

    assert 0 == send_at_once(transport, memoryview(b"abc"))


def test_other_transports_are_written_to():
    """What is not a socket of Twisted's is not reached around."""
    assert 0 == send_at_once(Pipe(), memoryview(b"abc"))


class Wrapper:
    """Something around a transport."""

    def __init__(self, transport):
        self.transport = transport


def test_what_the_other_end_has_not_got_is_counted_where_it_waits():
    """In the transport, however wrapped, or in the kernel; once the connection is lost, nothing is known any more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with ours, theirs:
        ours.setblocking(False)
        transport = Connection(ours, Protocol(), MemoryReactor())
        transport.connected = True
        sent = send_at_once(transport, memoryview(bytes(64 * MIB)))
        transport.write(bytes(1000))
        waiting = unacknowledged(Wrapper(Wrapper(transport)))
        read = 0
        while read < sent:
            read += len(theirs.recv(MIB))
        while unacknowledged(transport) > 1000:
            pass
        left = unacknowledged(transport)
        transport.connected = False

        assert 1000 < waiting <= 1000 + sent
        assert 1000 == left
        assert 0 == unacknowledged(transport)


def test_of_a_transport_that_is_no_socket_nothing_is_known():
    """Nor of one whose socket is closed."""
    ours, theirs = socket.socketpair()
    transport = Connection(ours, Protocol(), MemoryReactor())
    transport.connected = True
    ours.close()
    theirs.close()

    assert 0 == unacknowledged(transport)
    assert 0 == unacknowledged(Pipe())
