"""Pinned TLS, connecting and accepting.

Over real sockets on loopback, because that is where alerts and resets are real.
"""

import contextlib
import socket
import ssl

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from realize.errors import Busy, ConnectionFailed, ProtocolError, VersionMismatch, WrongPeer
from realize.keys import generate_identity
from realize.pasting import admission
from realize.wire import commands
from realize.wire.client import connect, connecting_protocol
from realize.wire.commands import Reason
from realize.wire.connection import Greeting, PeerProtocol, Role
from realize.wire.keepalive import RESTING_TIMEOUT_S
from realize.wire.server import (
    FULL_READ_CONNECTIONS,
    HANDSHAKE_TIMEOUT_S,
    MIN_READ_BYTES,
    PeerServerFactory,
    Refusal,
    turn,
)
from realize.wire.throttling import pacing
from realize.wire.tls import IO_CHUNK_BYTES, peer_public_key
from realize.wire.traffic import Traffic
from tests.loopback import Log, Pair, Wire

SERVER, CLIENT, OTHER = generate_identity(), generate_identity(), generate_identity()


class Site:
    """A server on loopback, and the means to connect to it."""

    def __init__(self, clock=None, identities=(SERVER,), **options):
        from twisted.internet import reactor

        self.reactor = reactor
        self.log = Log()
        self.known = {CLIENT.public_key: "tester"}
        self.factory = PeerServerFactory(
            clock=clock or reactor,
            log=self.log,
            identities=identities,
            greeting=Greeting("server"),
            known=lambda: self.known,
            welcome=lambda protocol, name, greeting: None,
            **options,
        )
        self.port = reactor.listenTCP(0, self.factory.secured(), interface="127.0.0.1")
        self.number = self.port.getHost().port

    def connect(self, *own, pins=(SERVER.public_key,), port=None, host="127.0.0.1", timeout=5, layer=(), **greeting):
        """Connect as a client does; ``layer`` has further options, such as a layer between TLS and AMP."""
        make = connecting_protocol(clock=self.reactor, log=self.log, greeting=Greeting("client", **greeting))
        own = own or (CLIENT,)
        options = {"make_protocol": make, "timeout": timeout, **dict(layer)}
        return connect(self.reactor, host, port or self.number, own, pins, **options)

    async def error(self, *own, **options):
        """The error of a connection that fails."""
        try:
            protocol = await self.connect(*own, **options)
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
    for _ in range(3_000):
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
        assert (IO_CHUNK_BYTES, True) == (socket_.bufferSize, socket_.getTcpNoDelay())
        assert ["tester"] == [fields["peer"] for fields in site.log.named("peer_accepted")]
        protocol.close()
        await protocol.when_lost()
        await settled(site.reactor, lambda: not site.factory.connections)


@pytest.mark.parametrize(
    ("connections", "amount"),
    [
        (0, IO_CHUNK_BYTES),
        (1, IO_CHUNK_BYTES),
        (FULL_READ_CONNECTIONS, IO_CHUNK_BYTES),
        (2 * FULL_READ_CONNECTIONS, IO_CHUNK_BYTES // 2),
        (4 * FULL_READ_CONNECTIONS, IO_CHUNK_BYTES // 4),
        (100_000, MIN_READ_BYTES),
    ],
)
def test_turns_are_shorter_the_more_there_are(connections, amount):
    """Together, connections read no more in a turn than a few do, down to what is worth a turn."""
    assert amount == turn(connections)


async def test_connections_share_the_turn(monkeypatch):
    """Each that comes makes the turns of all shorter, and each that goes longer again."""
    monkeypatch.setattr("realize.wire.server.FULL_READ_CONNECTIONS", 1)
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

        assert [IO_CHUNK_BYTES // 2, IO_CHUNK_BYTES // 2] == together
        assert IO_CHUNK_BYTES == alone


async def test_a_server_with_another_key_is_not_talked_to():
    """The client ends the handshake, and says both keys."""
    async with serving() as site:
        error = await site.error(pins=[OTHER.public_key])

        assert WrongPeer is type(error)
        for key in (SERVER.public_key, OTHER.public_key):
            assert key.fingerprint in str(error)
        assert SERVER.public_key.base64 in str(error)
        assert f"127.0.0.1:{site.number}" in str(error)


async def test_a_client_that_is_not_known_learns_what_to_do():
    """Every time, not just if no reset overtakes the alert; the server logs who it was."""
    async with serving() as site:
        errors = [await site.error(OTHER) for _ in range(5)]
        refused = site.log.named("peer_refused")

        assert {WrongPeer} == set(map(type, errors))
        assert admission(OTHER.public_key) == str(errors[0]).splitlines()[1:]
        assert (OTHER.public_key.fingerprint, "127.0.0.1") == (refused[0]["fingerprint"], refused[0]["address"])
        assert 5 == len(refused)
        await settled(site.reactor, lambda: not site.factory.unauthenticated)


async def test_who_is_known_is_decided_at_each_handshake():
    """A key that is added or withdrawn counts for the next connection."""
    async with serving() as site:
        site.known.clear()
        first = await site.error()
        site.known[CLIENT.public_key] = "tester"
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
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_refused_and_unknown_hosts_are_named(host):
    """An error of the network says where to, and why."""
    async with serving() as site:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            number = free.getsockname()[1]
            refused = await site.error(port=number, host=host)
        unknown = await site.error(host="no-such-host.invalid")

        assert ConnectionFailed is type(refused) is type(unknown)
        assert f"{host}:{number}" in str(refused)
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


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_addresses_and_names_connect(host):
    """A name is looked up, an address is not."""
    async with serving() as site:
        protocol = await site.connect(host=host)
        protocol.close()

        assert isinstance(await protocol.when_lost(), ConnectionFailed)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_connecting_may_be_cancelled(host):
    """Nothing is left of it."""
    async with serving() as site:
        connecting = site.connect(host=host)
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
        await settled(site.reactor, lambda: not site.factory.unauthenticated)
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
        await settled(site.reactor, lambda: not site.factory.unauthenticated)
        assert {} == site.factory.connections
        (refused,) = site.log.named("peer_refused")
        assert ("handshake", "127.0.0.1") == (refused["reason"], refused["address"])
        assert "certificate" in refused["error"]


async def test_one_peer_has_a_limited_number_of_connections(monkeypatch):
    """Beyond it the answer is BUSY, and worth trying again."""
    monkeypatch.setattr("realize.wire.server.MAX_PEER_CONNECTIONS", 2)
    async with serving() as site:
        first, second = await site.connect(), await site.connect()
        make = connecting_protocol(clock=site.reactor, log=site.log, greeting=Greeting("client"))
        with pytest.raises(Busy):
            await connect(site.reactor, "127.0.0.1", site.number, [CLIENT], [SERVER.public_key], make_protocol=make)
        first.close()
        await first.when_lost()
        await settled(site.reactor, lambda: len(list(site.factory)) == 1)
        third = await site.connect()
        for protocol in (second, third):
            protocol.close()
            await protocol.when_lost()
        await settled(site.reactor, lambda: not site.factory.unauthenticated)


async def test_a_run_that_comes_back_takes_the_place_of_its_dead_connection(monkeypatch):
    """It is not refused because its peer has all the connections it may have: one of them is its own."""
    monkeypatch.setattr("realize.wire.server.MAX_PEER_CONNECTIONS", 1)
    async with serving() as site:
        make = connecting_protocol(clock=site.reactor, log=site.log, greeting=Greeting("client", run="1"))
        first = await connect(site.reactor, "127.0.0.1", site.number, [CLIENT], [SERVER.public_key], make_protocol=make)
        second = await connect(
            site.reactor, "127.0.0.1", site.number, [CLIENT], [SERVER.public_key], make_protocol=make
        )
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


class Nobody:
    """The other end of a connection that nobody uses."""

    def connectionLost(self, reason):
        """Nothing was begun."""

    def dataReceived(self, data):
        """Nobody cares."""


def accept(factory, address="192.0.2.1", other=None):
    """A connection without TLS, below the factory."""

    class Address:
        host = address

    protocol = factory.buildProtocol(Address)
    here, there = Wire(factory.clock, 1000), Wire(factory.clock, 1000)
    here.other, there.other, here.protocol, there.protocol = there, here, protocol, other or Nobody()
    here.bufferSize = None
    protocol.makeConnection(here)
    if other is not None:
        other.makeConnection(there)
    return protocol


@pytest.fixture
def door():
    """A factory on a `Clock`, without sockets."""
    clock = Clock()
    log = Log()
    known, refusals = {CLIENT.public_key: "tester", OTHER.public_key: "other"}, []
    factory = PeerServerFactory(
        clock=clock,
        log=log,
        identities=[SERVER],
        greeting=Greeting("server"),
        known=lambda: known,
        welcome=lambda protocol, name, greeting: None,
        on_refusal=refusals.append,
        max_unauthenticated=4,
    )
    factory.seen, factory.known, factory.refusals = log, known, refusals
    return factory


def test_strangers_have_little_time(door):
    """Who does not say Hello is cut off."""
    protocol = accept(door)
    door.clock.pump([1] * int(HANDSHAKE_TIMEOUT_S - 1))
    before = protocol.lost
    door.clock.pump([1, 1, 1])

    assert (False, True, 0) == (before, protocol.lost, door.unauthenticated)
    assert ["timeout"] == [fields["reason"] for fields in door.seen.named("peer_refused")]


def test_one_address_cannot_keep_others_out(door):
    """When all places are taken, whoever holds most loses its oldest."""
    other = accept(door, "198.51.100.7")
    flood = [accept(door, f"2001:db8::{number}") for number in range(10)]
    door.clock.advance(0)

    assert not other.lost
    assert [True] * 7 + [False] * 3 == [protocol.lost for protocol in flood]
    assert 4 == door.unauthenticated


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


@pytest.mark.parametrize("wrap", [None, pacing])
async def test_who_needs_nothing_more_does_not_wait_for_the_other_end(wrap):
    """The goodbye arrives all the same, with what was written before it."""
    async with serving() as site:
        layer = {} if wrap is None else {"wrap": wrap(site.reactor)}
        protocol = await site.connect(layer=layer)
        (accepted,) = site.factory
        accepted.transport.pauseProducing()
        protocol.tell(commands.Ping)
        protocol.close(alone=True)
        await protocol.when_lost()
        before = accepted.goodbye, accepted.lost
        accepted.transport.resumeProducing()
        await accepted.when_lost()

        assert ((None, False), Reason.DONE) == (before, accepted.goodbye)
        assert [] == site.log.named("protocol_violation")


async def test_a_command_may_go_behind_hello():
    """It is answered as if it had waited for Hello's answer, which it has not."""
    asked = []

    def ask(protocol):
        asked.append((protocol.theirs, protocol.call(commands.Status)))

    async with serving() as site:
        protocol = await site.connect(layer={"ahead": ask})
        [(greeting, answer)] = asked
        with pytest.raises(Exception, match="does not know"):
            await answer
        protocol.close()
        await protocol.when_lost()

        assert None is greeting


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


@pytest.fixture
def come(door, monkeypatch):
    """Come through the door and say Hello, as whom one wants; both ends."""
    keys = {}
    monkeypatch.setattr("realize.wire.server.peer_public_key", keys.get)
    monkeypatch.setattr("realize.wire.server.own_public_key", lambda _: SERVER.public_key)

    def come(run="", identity=CLIENT, address="192.0.2.1", **options):
        client = PeerProtocol(
            clock=door.clock, log=Log(), greeting=Greeting("client", run=run), role=Role.CONNECTING, label="server"
        )
        accepted = accept(door, address, client)
        keys[accepted.transport] = identity.public_key
        client.hello().addErrback(lambda failure: setattr(client, "refused", failure.value))
        Pair.flush(door)
        return accepted, client

    yield come
    stopping = Deferred.fromCoroutine(door.stop())
    Pair.flush(door)
    assert stopping.called
    assert ([], 0) == (list(door), door.unauthenticated)
    assert [] == door.clock.getDelayedCalls()


def test_who_comes_and_goes_is_logged(door, come):
    """With what tells the connection from all others, and what it carried."""
    come("7-a")
    accepted, client = come("8-b", OTHER, "192.0.2.2")
    received, sent = client.bytes_sent, client.bytes_received
    client.transport.cut()

    common = {"conn": 2, "address": "192.0.2.2", "peer": "other", "run": "8"}
    fingerprint = OTHER.public_key.fingerprint
    keys = {"fingerprint": fingerprint, "shown": SERVER.public_key.fingerprint}
    assert {**common, **keys, "software": "client", "link": "8-b"} == door.seen.named("peer_accepted")[1]
    gone = {**common, "reason": "was lost", "received": received, "sent": sent}
    assert [gone] == door.seen.named("peer_disconnected")
    assert (1, 2) == (next(iter(door)).number, accepted.number)


def test_the_reason_why_somebody_left_is_logged(door, come):
    """If it was said."""
    _, client = come()
    client.close(Reason.INTERRUPTED)
    Pair.flush(door)

    assert [Reason.INTERRUPTED.value] == [line["reason"] for line in door.seen.named("peer_disconnected")]


def test_an_error_of_a_connection_says_whose(door, come):
    """By the address, which is all that is known of a stranger."""
    accepted, client = come(address="192.0.2.3")
    reasons = []
    accepted.when_lost().addCallback(reasons.append)
    client.transport.cut()

    assert "192.0.2.3" in str(reasons[0])


def test_what_was_carried_is_counted_by_peer(door, come):
    """Of connections that have ended too, and of strangers under no name."""
    (first, client), (second, _) = come(), come()
    (other, _) = come(identity=OTHER)
    accept(door).dataReceived(b"\0")
    whole = Traffic()
    for each in (first, second):
        whole.add(each.traffic())
    before = door.traffic()
    client.transport.cut()
    after = door.traffic()

    assert {"tester": whole, "other": other.traffic(), "": Traffic(received=1)} == before == after
    assert whole.received > 0 < whole.sent


def test_whoever_has_said_hello_has_all_the_time_it_wants(door, come):
    """It is asked now and then whether it is still there."""
    accepted, _ = come()
    door.clock.pump([1] * int(2 * RESTING_TIMEOUT_S))

    assert not accepted.lost


def test_whoever_falls_silent_is_gone(door, come):
    """Also after Hello, and it is not a refusal."""
    accepted, client = come()
    client.transport.stalled = True
    door.clock.pump([1] * int(RESTING_TIMEOUT_S + 1))

    assert accepted.lost
    assert [] == door.refusals


def test_a_key_that_became_unknown_since_the_handshake_is_refused(door, come):
    """Whatever is asked before is not answered."""
    door.known.clear()
    accepted, client = come()

    assert (True, WrongPeer) == (accepted.ending() is not None, type(client.refused))
    assert [Refusal("pin_unknown", "192.0.2.1", CLIENT.public_key.fingerprint)] == door.refusals
    assert [] == list(door)


def test_a_peer_that_has_all_its_connections_is_refused_another(door, come, monkeypatch):
    """Other peers are not; and to come back is not to come once more."""
    monkeypatch.setattr("realize.wire.server.MAX_PEER_CONNECTIONS", 2)
    come("1-a")
    come("2-a")
    back, _ = come("2-a")
    other, _ = come("", OTHER)
    _, refused = come("3-a")

    assert Busy is type(refused.refused)
    assert [Refusal("limit", "192.0.2.1", CLIENT.public_key.fingerprint)] == door.refusals
    assert (False, False, 3) == (back.lost, other.lost, len(list(door)))


def test_a_run_that_comes_back_ends_its_former_connection_only(door, come):
    """Not those of another run or another peer, nor any that say nothing of a run."""
    kept = [come("1-a"), come(""), come("2-a", OTHER)]
    former, _ = come("2-a")
    now, _ = come("2-a")
    nameless, _ = come("")

    assert [False] * 3 == [accepted.lost for accepted, _ in kept]
    assert (True, False, False) == (former.lost, now.lost, nameless.lost)
    assert ["2"] == [line["run"] for line in door.seen.named("peer_came_back")]


def test_a_stranger_may_read_much_at_once(door):
    """As long as there are few."""
    assert IO_CHUNK_BYTES == accept(door).transport.bufferSize


def test_a_connection_that_comes_to_many_has_no_longer_turn(door, come, monkeypatch):
    """Also if it changes nothing for the others."""
    monkeypatch.setattr("realize.wire.server.FULL_READ_CONNECTIONS", 1)
    monkeypatch.setattr("realize.wire.server.MIN_READ_BYTES", IO_CHUNK_BYTES // 2)
    accepted = [come()[0] for _ in range(3)]

    assert [IO_CHUNK_BYTES // 2] * 3 == [each.transport.bufferSize for each in accepted]


def test_a_connection_that_is_not_ours_is_not_let_in(door):
    """Only those that were accepted here can be."""
    with pytest.raises(ProtocolError):
        door._admit(Pair(door.clock).server, Greeting("client"))


@pytest.mark.parametrize("why", ["handshake", "told", "ending", "known", "lost"])
def test_a_handshake_that_fails_is_a_refusal(door, why):
    """Once, with what OpenSSL says of it; later errors of TLS, and connections that are lost, are none."""
    protocol = accept(door)
    protocol.told = why == "told"
    if why == "ending":
        protocol.abort(ConnectionFailed("closing"))
    if why == "known":
        protocol.theirs = Greeting("client")
    error = ConnectionFailed("lost") if why == "lost" else SSL.Error([("lib", "func", "no certificate")])
    protocol.connectionLost(Failure(error))
    Pair.flush(door)

    refused = [(line["reason"], line["address"], line["error"]) for line in door.seen.named("peer_refused")]
    assert [("handshake", "192.0.2.1", "no certificate")] * (why == "handshake") == refused
    assert [Refusal("handshake", "192.0.2.1", "")] * (why == "handshake") == door.refusals
    assert 0 == door.unauthenticated


def test_whoever_has_to_leave_the_door_is_told_and_logged(door):
    """It counts as a refusal of that address."""
    flood = [accept(door) for _ in range(5)]
    reasons = []
    flood[0].when_lost().addCallback(reasons.append)
    door.clock.advance(0)

    assert [Refusal("limit", "192.0.2.1", "")] == door.refusals
    assert "too many connections" in str(reasons[0])


@pytest.mark.parametrize(
    ("flood", "is_one"),
    [
        ("2001:db8::{}", True),
        ("2001:db8:0:0:{}00::1", True),
        ("2001:db8:0:{}::1", False),
        ("fe80::{}%eth0", True),
        ("::ffff:192.0.2.{}", False),
        ("192.0.2.{}", False),
        ("socket {}", False),
    ],
)
def test_whom_an_address_counts_for(door, flood, is_one):
    """An IPv6 host has its whole network to choose from; an IPv4 host has one address, however it is written."""
    addresses = [flood.format(1), "198.51.100.7", "198.51.100.7", flood.format(80), flood.format(90)]
    first, two, *_ = [accept(door, address) for address in addresses]
    door.clock.advance(0)

    # If they count as one, they were there first, and are as many as the two.
    assert (is_one, not is_one) == (first.lost, two.lost)


@pytest.mark.parametrize("grace", [0.0, 1.0])
def test_stopping_ends_everybody(door, come, grace):
    """Strangers and whoever does nothing at once, others when they are ready or their time is over."""
    stranger = accept(door)
    why = []
    stranger.when_lost().addCallback(why.append)
    (idle, client), (busy, other) = come(), come()
    busy.streams.accept(1)
    stopping = Deferred.fromCoroutine(door.stop(grace))
    ending = busy.ending()
    Pair.flush(door)
    gone, told = busy.lost, other.goodbye
    door.clock.advance(grace / 2)
    Pair.flush(door)
    halfway = busy.lost
    door.clock.advance(grace / 2)
    Pair.flush(door)

    assert "shutting down" in str(why[0])
    assert (Reason.DRAINING, Reason.DRAINING) == (told, client.goodbye)
    assert (not grace, not grace, not grace) == (ending is not None, gone, halfway)
    assert (True, True) == (busy.lost, idle.lost)
    assert (True, None) == (stopping.called, stopping.result)


def test_whoever_comes_when_all_is_closing_is_closed_at_once(door):
    """It is neither a stranger nor a refusal."""
    Deferred.fromCoroutine(door.stop())
    late = accept(door)
    Pair.flush(door)

    assert late.transport.closed
    assert (0, []) == (door.unauthenticated, door.refusals)


async def test_a_certificate_that_is_refused_below_a_limit_is_one_refusal():
    """However many layers are between TLS and the connection, its address is known."""
    refusals = []
    async with serving(on_refusal=refusals.append) as site:
        wrapped = site.factory.secured(pacing(site.reactor))
        port = site.reactor.listenTCP(0, wrapped, interface="127.0.0.1")
        error = await site.error(OTHER, port=port.getHost().port)
        await settled(site.reactor, lambda: not site.factory.unauthenticated)
        await port.stopListening()

        assert WrongPeer is type(error)
        assert [Refusal("pin_unknown", "127.0.0.1", OTHER.public_key.fingerprint)] == refusals
