"""Pinned TLS, connecting and accepting.

Over real sockets on loopback, because that is where alerts and resets are real.
"""

import contextlib
import socket
import ssl

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater

from realize.errors import Busy, ConnectionFailed, VersionMismatch, WrongPeer
from realize.keys import generate_identity
from realize.wire import commands
from realize.wire.commands import Reason
from realize.wire.endpoints import connect, connecting_protocol
from realize.wire.protocol import Greeting, PeerProtocol
from realize.wire.serving import FEW, HELLO_WITHIN, LEAST_TURN, PeerServerFactory, turn
from realize.wire.tls import CHUNK, peer_public_key
from tests.loopback import Log, Wire

SERVER, CLIENT, OTHER = generate_identity(), generate_identity(), generate_identity()


class Site:
    """A server on loopback, and the means to connect to it."""

    def __init__(self, clock=None, **options):
        from twisted.internet import reactor

        self.reactor = reactor
        self.log = Log()
        self.known = {CLIENT.public_key}
        self.factory = PeerServerFactory(
            clock=clock or reactor,
            log=self.log,
            identity=SERVER,
            greeting=Greeting("server"),
            is_known=lambda key: key in self.known,
            welcome=lambda protocol, key, greeting: "tester",
            **options,
        )
        self.port = reactor.listenTCP(0, self.factory.secured(), interface="127.0.0.1")
        self.number = self.port.getHost().port

    def connect(self, identity=CLIENT, pin=SERVER.public_key, *, port=None, host="127.0.0.1", timeout=5, **greeting):
        """Connect as a client does."""
        make = connecting_protocol(clock=self.reactor, log=self.log, greeting=Greeting("client", **greeting))
        return connect(self.reactor, host, port or self.number, identity, pin, make_protocol=make, timeout=timeout)

    async def error(self, **options):
        """The error of a connection that fails."""
        try:
            protocol = await self.connect(**options)
        except (ConnectionFailed, WrongPeer, VersionMismatch, CancelledError) as error:
            return error
        protocol.close()
        await protocol.when_lost()
        raise AssertionError("it should have failed")

    async def stop(self):
        """End everything."""
        await self.port.stopListening()
        await self.factory.stop()


@contextlib.asynccontextmanager
async def serving(**options):
    """A `Site` while a test runs."""
    site = Site(**options)
    try:
        yield site
    finally:
        await site.stop()


async def settled(reactor, condition):
    """Wait until something is the case."""
    for _ in range(500):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it does not come to pass")


async def test_two_who_know_each_other_connect():
    """Connected means: TLS 1.3, both keys verified, Hello answered, the socket set up."""
    async with serving() as site:
        protocol = await site.connect(run="run-1")
        (accepted,) = site.factory
        handle = protocol.transport.getHandle()
        socket_ = protocol.transport.transport

        assert "TLSv1.3" == handle.get_protocol_version_name()
        assert SERVER.public_key == peer_public_key(protocol.transport)
        assert CLIENT.public_key == accepted.key
        assert ("tester", "server") == (protocol.name, protocol.theirs.software)
        assert (CHUNK, True) == (socket_.bufferSize, socket_.getTcpNoDelay())
        assert ["tester"] == [fields["peer"] for fields in site.log.named("peer_accepted")]
        protocol.close()
        await protocol.when_lost()
        await settled(site.reactor, lambda: not site.factory.connections)


@pytest.mark.parametrize(
    ("connections", "amount"),
    [(0, CHUNK), (1, CHUNK), (FEW, CHUNK), (2 * FEW, CHUNK // 2), (4 * FEW, CHUNK // 4), (100_000, LEAST_TURN)],
)
def test_turns_are_shorter_the_more_there_are(connections, amount):
    """Together, connections read no more in a turn than a few do, down to what is worth a turn."""
    assert amount == turn(connections)


async def test_connections_share_the_turn(monkeypatch):
    """Each that comes makes the turns of all shorter, and each that goes longer again."""
    monkeypatch.setattr("realize.wire.serving.FEW", 1)
    async with serving() as site:
        first, second = await site.connect(run="run-1"), await site.connect(run="run-2")
        together = [each.transport.transport.bufferSize for each in site.factory]
        second.close()
        await second.when_lost()
        await settled(site.reactor, lambda: len(list(site.factory)) == 1)
        (left,) = site.factory
        alone = left.transport.transport.bufferSize
        first.close()
        await first.when_lost()

        assert [CHUNK // 2, CHUNK // 2] == together
        assert CHUNK == alone


async def test_a_server_with_another_key_is_not_talked_to():
    """The client ends the handshake, and says both keys."""
    async with serving() as site:
        error = await site.error(pin=OTHER.public_key)

        assert WrongPeer is type(error)
        for key in (SERVER.public_key, OTHER.public_key):
            assert key.fingerprint in str(error)
        assert SERVER.public_key.base64 in str(error)
        assert f"127.0.0.1:{site.number}" in str(error)


async def test_a_client_that_is_not_known_learns_what_to_do():
    """Every time, not just if no reset overtakes the alert; the server logs who it was."""
    async with serving() as site:
        errors = [await site.error(identity=OTHER) for _ in range(5)]
        refused = site.log.named("peer_refused")

        assert {WrongPeer} == set(map(type, errors))
        assert f'[peers.NAME] key = "{OTHER.public_key.base64}"' in str(errors[0])
        assert (OTHER.public_key.fingerprint, "127.0.0.1") == (refused[0]["fingerprint"], refused[0]["address"])
        assert 5 == len(refused)
        await settled(site.reactor, lambda: not site.factory.strangers)


async def test_who_is_known_is_decided_at_each_handshake():
    """A key that is added or withdrawn counts for the next connection."""
    async with serving() as site:
        site.known.clear()
        first = await site.error()
        site.known.add(CLIENT.public_key)
        protocol = await site.connect()
        protocol.close()
        await protocol.when_lost()

        assert WrongPeer is type(first)


async def test_versions_are_compared():
    """The error of Hello is the error of connecting."""
    async with serving() as site:
        error = await site.error(major=9)

        assert VersionMismatch is type(error)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Twisted leaves a refused socket to the garbage collector
async def test_refused_and_unknown_hosts_are_named():
    """An error of the network says where to, and why."""
    async with serving() as site:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            number = free.getsockname()[1]
            refused = await site.error(port=number)
        unknown = await site.error(host="no-such-host.invalid")

        assert ConnectionFailed is type(refused) is type(unknown)
        assert f"127.0.0.1:{number}" in str(refused)
        assert "refused" in str(refused)
        assert "no-such-host.invalid" in str(unknown)


async def test_connecting_takes_a_limited_time():
    """Somebody who accepts and says nothing does not hold us up; the socket is closed."""
    from twisted.internet import reactor

    lost = Deferred()

    class Mute(Protocol):
        def connectionLost(self, reason):
            lost.callback(None)

    port = reactor.listenTCP(0, Factory.forProtocol(Mute), interface="127.0.0.1")
    async with serving() as site:
        error = await site.error(port=port.getHost().port, timeout=0.3)
        await lost

        assert ConnectionFailed is type(error)
        assert "within 0.3 seconds" in str(error)
    await port.stopListening()


async def test_connecting_may_be_cancelled():
    """Nothing is left of it."""
    async with serving() as site:
        connecting = site.connect()
        connecting.cancel()
        with pytest.raises(CancelledError):
            await connecting


def raw_context(folder, identity, version=ssl.TLSVersion.TLSv1_3):
    """Python's own TLS as a client, with the certificate of an identity."""
    key = identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "pem").write_bytes(key + identity.certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(folder / "pem")
    return context


async def in_thread(work):
    """Blocking work, while the reactor runs."""
    from twisted.internet.threads import deferToThread

    return await deferToThread(work)


async def test_older_versions_of_tls_are_refused(tmp_path):
    """TLS 1.2 does not connect."""
    async with serving() as site:

        def old():
            context = raw_context(tmp_path, CLIENT, ssl.TLSVersion.TLSv1_2)
            with socket.create_connection(("127.0.0.1", site.number)) as plain:
                try:
                    context.wrap_socket(plain).close()
                except (ssl.SSLError, ConnectionError):
                    return "refused"
            return "accepted"

        assert "refused" == await in_thread(old)
        await settled(site.reactor, lambda: not site.factory.strangers)
        assert ["handshake"] == [fields["reason"] for fields in site.log.named("peer_refused")]


async def test_a_client_without_certificate_is_refused():
    """Nobody is anonymous."""
    async with serving() as site:

        def anonymous():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with socket.create_connection(("127.0.0.1", site.number)) as plain:
                try:
                    with context.wrap_socket(plain) as secured:
                        return secured.recv(1)
                except (ssl.SSLError, ConnectionError):
                    return b""

        assert b"" == await in_thread(anonymous)
        await settled(site.reactor, lambda: not site.factory.strangers)
        assert {} == site.factory.connections
        (refused,) = site.log.named("peer_refused")
        assert ("handshake", "127.0.0.1") == (refused["reason"], refused["address"])
        assert "certificate" in refused["error"]


async def test_one_peer_has_a_limited_number_of_connections(monkeypatch):
    """Beyond it the answer is BUSY, and worth trying again."""
    monkeypatch.setattr("realize.wire.serving.MOST_CONNECTIONS", 2)
    async with serving() as site:
        first, second = await site.connect(), await site.connect()
        make = connecting_protocol(clock=site.reactor, log=site.log, greeting=Greeting("client"))
        with pytest.raises(Busy):
            await connect(site.reactor, "127.0.0.1", site.number, CLIENT, SERVER.public_key, make_protocol=make)
        first.close()
        await first.when_lost()
        await settled(site.reactor, lambda: len(list(site.factory)) == 1)
        third = await site.connect()
        for protocol in (second, third):
            protocol.close()
            await protocol.when_lost()
        await settled(site.reactor, lambda: not site.factory.strangers)


async def test_a_run_that_comes_back_takes_the_place_of_its_dead_connection(monkeypatch):
    """It is not refused because its peer has all the connections it may have: one of them is its own."""
    monkeypatch.setattr("realize.wire.serving.MOST_CONNECTIONS", 1)
    async with serving() as site:
        make = connecting_protocol(clock=site.reactor, log=site.log, greeting=Greeting("client", run="1"))
        first = await connect(site.reactor, "127.0.0.1", site.number, CLIENT, SERVER.public_key, make_protocol=make)
        second = await connect(site.reactor, "127.0.0.1", site.number, CLIENT, SERVER.public_key, make_protocol=make)
        await first.when_lost()

        assert not second.lost
        second.close()
        await second.when_lost()


async def test_a_session_cannot_be_resumed(tmp_path):
    """A key that was withdrawn does not come back by an earlier session: there are none to resume."""
    async with serving() as site:
        hello = b"".join(
            len(part).to_bytes(2, "big") + part
            for part in (
                b"_ask", b"1", b"_command", b"Hello", b"capabilities", b"", b"major", b"%d" % commands.MAJOR,
                b"minor", b"0", b"run", b"", b"software", b"x", b"",
            )
        )  # fmt: skip

        def twice():
            context = raw_context(tmp_path, CLIENT)
            outcomes = []
            session = None
            for _ in range(2):
                with (
                    socket.create_connection(("127.0.0.1", site.number)) as plain,
                    context.wrap_socket(plain, session=session) as secured,
                ):
                    secured.sendall(hello)
                    try:
                        outcomes.append((secured.session_reused, bool(secured.recv(10))))
                    except (ssl.SSLError, ConnectionError):
                        outcomes.append((secured.session_reused, False))
                    session = secured.session
                site.known.clear()
            return outcomes

        assert [(False, True), (False, False)] == await in_thread(twice)


def accept(factory, address="192.0.2.1"):
    """A connection without TLS, below the factory."""

    class Address:
        host = address

    class Nobody:
        def connectionLost(self, reason):
            pass

        def dataReceived(self, data):
            pass

    protocol = factory.buildProtocol(Address)
    here, there = Wire(factory.clock, 1000), Wire(factory.clock, 1000)
    here.other, there.other, here.protocol, there.protocol = there, here, protocol, Nobody()
    protocol.makeConnection(here)
    return protocol


@pytest.fixture
def door():
    """A factory on a `Clock`, without sockets."""
    clock = Clock()
    log = Log()
    factory = PeerServerFactory(
        clock=clock,
        log=log,
        identity=SERVER,
        greeting=Greeting("server"),
        is_known=lambda key: True,
        welcome=lambda protocol, key, greeting: "tester",
        strangers=4,
    )
    factory.seen = log
    return factory


def test_strangers_have_little_time(door):
    """Who does not say Hello is cut off."""
    protocol = accept(door)
    door.clock.pump([1] * int(HELLO_WITHIN - 1))
    before = protocol.lost
    door.clock.pump([1, 1, 1])

    assert (False, True, 0) == (before, protocol.lost, door.strangers)
    assert ["timeout"] == [fields["reason"] for fields in door.seen.named("peer_refused")]


def test_one_address_cannot_keep_others_out(door):
    """When all places are taken, whoever holds most loses its oldest."""
    other = accept(door, "198.51.100.7")
    flood = [accept(door, f"2001:db8::{number}") for number in range(10)]
    door.clock.advance(0)

    assert not other.lost
    assert [True] * 7 + [False] * 3 == [protocol.lost for protocol in flood]
    assert 4 == door.strangers


async def test_stopping_says_goodbye():
    """Peers learn why, what connects later is closed at once, and stopping ends when all are gone."""
    async with serving() as site:
        protocol = await site.connect()
        await site.factory.stop()
        reason = await protocol.when_lost()

        assert "is shutting down" in str(reason)
        assert Reason.DRAINING is protocol.goodbye
        assert ConnectionFailed is type(await site.error())


async def test_stopping_waits_for_what_runs():
    """A stream that ends within the grace is not cut off."""
    async with serving() as site:
        protocol = await site.connect()
        (accepted,) = site.factory
        accepted.streams.accept(1)
        stopping = Deferred.fromCoroutine(site.factory.stop(5))
        await deferLater(site.reactor, 0.1)
        before = protocol.lost
        accepted.streams.close(1)
        await stopping

        assert before is False
        assert (await protocol.when_lost()) is not None


async def test_commands_travel_both_ways():
    """The same protocol serves both sides."""
    async with serving() as site:
        protocol = await site.connect()
        (accepted,) = site.factory
        assert isinstance(accepted, PeerProtocol)
        with pytest.raises(Exception, match="does not know"):
            await accepted.call(commands.Status)
        with pytest.raises(Exception, match="does not know"):
            await protocol.call(commands.Status)
        protocol.close()
        await protocol.when_lost()
