"""The prefix ``realize:``, and the server factory for it.

Over real sockets on loopback, because that is where alerts are real.
"""

import contextlib
import re
import socket
import subprocess
import sys

import pytest
import pytest_twisted
from twisted.application.service import IServiceMaker
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import (
    IHandshakeListener,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.plugin import IPlugin, getPlugins
from zope.interface import implementer
from zope.interface.verify import verifyObject

from realize.errors import ConnectionFailed, WrongPeer
from realize.keys import generate_identity, write_identity
from realize.throttle.endpoints import ThrottledClientEndpoint
from realize.wire import pinned_endpoint
from realize.wire.pinned_endpoint import PinnedClientEndpoint, PinnedParser, pinned_server_factory
from realize.wire.tls import peer_public_key
from tests.processes import ENVIRONMENT, free_port

SERVER, CLIENT, OTHER = generate_identity(), generate_identity(), generate_identity()
PEER = SERVER.public_key.base64


@implementer(IHandshakeListener)
class Talker(Protocol):
    """An application that notes what it is told."""

    def __init__(self):
        self.seen = []
        self.received = Deferred()
        self.lost = Deferred()

    def connectionMade(self):
        """The peer is known by now."""
        self.seen.append(("made", peer_public_key(self.transport)))

    def handshakeCompleted(self):
        """After that."""
        self.seen.append("handshake")

    def dataReceived(self, data):
        """Only the first bytes count."""
        if not self.received.called:
            self.received.callback(data)

    def connectionLost(self, reason):
        """Say why."""
        self.lost.callback(reason.value)


class Echo(Talker):
    """Sends back what comes."""

    def dataReceived(self, data):
        """Send it back."""
        self.transport.write(data)


class Talkers(Factory):
    """Keeps what it has built."""

    def __init__(self, protocol=Talker):
        self.protocol = protocol
        self.built = []

    def buildProtocol(self, addr):
        """Build and note."""
        self.built.append(super().buildProtocol(addr))
        return self.built[-1]


@contextlib.asynccontextmanager
async def serving(factory, *, known=(CLIENT.public_key,), clock=reactor, throttle="", **options):
    """A server of ``factory`` on loopback; gives its port."""
    secured = pinned_server_factory(SERVER, set(known).__contains__, factory, clock, **options)
    rate = ":rate=1M" if throttle else ""
    port = await serverFromString(reactor, f"{throttle}tcp:0:interface=127.0.0.1{rate}").listen(secured)
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()


def endpoint(port, identity=CLIENT, pin=SERVER.public_key, timeout=5.0):
    """An endpoint as the parser makes it."""
    return PinnedClientEndpoint(reactor, "127.0.0.1", port, identity, pin, timeout)


async def error_of(connecting):
    """The error that a Deferred fails with."""
    try:
        await connecting
    except Exception as error:  # noqa: BLE001 -- which one it is, is what the tests look at
        return error
    raise AssertionError("it should have failed")


async def close(protocol):
    """Close a connection and wait until it is."""
    protocol.transport.abortConnection()
    await protocol.lost


@pytest.fixture
def key(tmp_path):
    """The file of the client's key, with characters in its name that need quoting."""
    path = tmp_path / r"a:b=c\d.key"
    write_identity(str(path), CLIENT)
    return quoteStringArgument(str(path))


# The plugins


@pytest.mark.parametrize(
    ("interface", "name"),
    [
        (IServiceMaker, "realized"),
        (IStreamClientEndpointStringParserWithReactor, "throttle"),
        (IStreamServerEndpointStringParser, "throttle"),
        (IStreamClientEndpointStringParserWithReactor, "realize"),
    ],
)
def test_twisted_finds_the_plugins(interface, name):
    """Each once, by the name that is typed."""
    attribute = "tapname" if interface is IServiceMaker else "prefix"

    found = [plugin for plugin in getPlugins(interface) if name == getattr(plugin, attribute)]

    assert 1 == len(found)


def test_the_plugins_install_no_reactor():
    """A program that reads endpoint strings may still choose its reactor, and loads little of ours."""
    script = (
        "import sys; from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin));"
        "assert 'realize.wire.pinned_endpoint' in sys.modules;"
        "print({'twisted.internet.reactor', 'realize.config', 'realize.wire.connection'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)

    assert "set()\n" == done.stdout


def test_the_parser_and_the_endpoint_are_what_twisted_asks_for(key):
    """By their interfaces."""
    parser = PinnedParser()

    assert verifyObject(IPlugin, parser)
    assert verifyObject(IStreamClientEndpointStringParserWithReactor, parser)
    assert verifyObject(IStreamClientEndpoint, clientFromString(reactor, f"realize:hostb:key={key}:peer={PEER}"))


# Descriptions


@pytest.mark.parametrize(
    ("places", "host", "port"),
    [
        ("hostb", "hostb", 9771),
        ("hostb:9999", "hostb", 9999),
        (r"\:\:1:9999", "::1", 9999),
        (r"[\:\:1]", "::1", 9771),
        ("host=hostb:port=1", "hostb", 1),
    ],
)
def test_host_and_port_are_read(key, places, host, port):
    """The port has a default, and IPv6 addresses are quoted as everywhere in Twisted."""
    parsed = clientFromString(reactor, f"realize:{places}:key={key}:peer={PEER}:timeout=1m")

    assert (host, port, 60.0) == (parsed._host, parsed._port, parsed._timeout)
    assert (CLIENT.public_key, SERVER.public_key) == (parsed._identity.public_key, parsed._pin)


def test_the_peer_may_be_a_file(key, tmp_path):
    """Which holds the same text."""
    (tmp_path / "peer").write_text(f"{PEER}\n")

    parsed = clientFromString(reactor, f"realize:hostb:key={key}:peer={tmp_path}/peer")

    assert SERVER.public_key == parsed._pin


def test_it_may_stand_behind_throttle(key):
    """Quoting survives being taken apart and put together again."""
    parsed = clientFromString(reactor, f"throttle:realize:hostb:9999:key={key}:peer={PEER}:rate=1M")
    inner = parsed._inner

    assert isinstance(parsed, ThrottledClientEndpoint)
    assert ("hostb", 9999) == (inner._host, inner._port)
    assert (CLIENT.public_key, SERVER.public_key) == (inner._identity.public_key, inner._pin)


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        ("realize:key={key}:peer={peer}", "needs a host, as in realize:HOST:PORT:key=FILE:peer=KEY"),
        ("realize::9:key={key}:peer={peer}", "needs a host"),
        ("realize:h:peer={peer}", "needs key=, the file of the private key"),
        ("realize:h:key={key}", "needs peer=, the public key of the other side"),
        ("realize:h:0:key={key}:peer={peer}", "'h:0' has no valid port"),
        ("realize:h:http:key={key}:peer={peer}", "'h:http' has no valid port"),
        ("realize:h:70000:key={key}:peer={peer}", "'h:70000' has no valid port"),
        ("realize:h h:9:key={key}:peer={peer}", "'h h:9' is not an address"),
        ("realize:h:9:10:key={key}:peer={peer}", "'10' has no place in realize:HOST:PORT"),
        ("realize:h:9:port=9:key={key}:peer={peer}", "the port is there twice"),
        ("realize:h:key=/nowhere:peer={peer}", "/nowhere: there is no such key file"),
        ("realize:h:key={key}:peer=/nowhere", "'/nowhere' is neither a public key nor a file"),
        ("realize:h:key={key}:peer={peer}:timeout=0", "'0' is not a duration"),
        ("realize:h:key={key}:peer={peer}:timeout=soon", "'soon' is not a duration"),
        ("realize:h:key={key}:peer={peer}:rate=1M", "rate= is not an option of it"),
    ],
)
def test_a_bad_description_is_said_in_one_sentence(key, description, sentence):
    """A ``ValueError`` that names what is wrong, when the string is parsed."""
    with pytest.raises(ValueError, match="^realize: " + re.escape(sentence)) as caught:
        clientFromString(reactor, description.format(key=key, peer=PEER))

    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# Connections


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("throttled", ["neither", "client", "server"])
async def test_two_that_know_each_other_talk(key, throttled):
    """Callers get the application's own protocol, connected when the peer is known; so does the server's side."""
    accepting = Talkers(Echo)
    async with serving(accepting, throttle="throttle:" if throttled == "server" else "") as port:
        prefix, rate = ("throttle:", ":rate=1M") if throttled == "client" else ("", "")
        connecting = clientFromString(reactor, f"{prefix}realize:localhost:{port}:key={key}:peer={PEER}{rate}")
        talker = await connecting.connect(Talkers())
        seen = list(talker.seen)
        talker.transport.write(b"hello")
        received = await talker.received
        echo = accepting.built[0]
        await close(talker)
        await echo.lost

    assert isinstance(talker, Talker)
    assert [("made", SERVER.public_key), "handshake"] == seen
    assert [("made", CLIENT.public_key), "handshake"] == echo.seen
    assert b"hello" == received


@pytest_twisted.ensureDeferred
async def test_a_server_with_another_key_is_never_talked_to():
    """The error tells both fingerprints, and neither application is connected."""
    accepting, connecting = Talkers(), Talkers()
    async with serving(accepting) as port:
        error = await error_of(endpoint(port, pin=OTHER.public_key).connect(connecting))

    assert isinstance(error, WrongPeer)
    assert SERVER.public_key.fingerprint in str(error)
    assert OTHER.public_key.fingerprint in str(error)
    assert [[]] == [talker.seen for talker in connecting.built]
    assert [] == [talker.seen for talker in accepting.built if talker.seen]


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_know_our_key_says_so_by_closing():
    """TLS 1.3 connects us first; then we learn why we are not wanted, and the server's application learns nothing."""
    accepting, refused = Talkers(), []
    async with serving(accepting, known=(), refused=lambda protocol, error, key: refused.append(key)) as port:
        talker = await endpoint(port, identity=OTHER).connect(Talkers())
        error = await talker.lost

    assert isinstance(error, WrongPeer)
    assert OTHER.public_key.base64 in str(error)
    assert [OTHER.public_key] == refused
    assert [[]] == [talker.seen for talker in accepting.built]


@pytest_twisted.ensureDeferred
async def test_refusals_are_logged_unless_somebody_wants_them():
    """With address and fingerprint."""
    from twisted.logger import globalLogPublisher

    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        async with serving(Talkers(), known=()) as port:
            talker = await endpoint(port).connect(Talkers())
            await talker.lost
    finally:
        globalLogPublisher.removeObserver(events.append)
    told = [event for event in events if event.get("log_namespace") == "realize.pinned"]

    assert [("127.0.0.1", True)] == [(e["peer"], CLIENT.public_key.fingerprint in e["error"]) for e in told]


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_reached_may_be_better_later():
    """A closed port."""
    number = free_port()

    error = await error_of(endpoint(number).connect(Talkers()))

    assert isinstance(error, ConnectionFailed)
    assert f"127.0.0.1:{number} cannot be reached" in str(error)


@pytest_twisted.ensureDeferred
async def test_names_that_do_not_exist_are_said():
    """RFC 6761 promises that this one does not."""
    connecting = PinnedClientEndpoint(reactor, "nobody.invalid", 9771, CLIENT, SERVER.public_key)

    error = await error_of(connecting.connect(Talkers()))

    assert isinstance(error, ConnectionFailed)
    assert str(error).startswith("nobody.invalid:9771: the name cannot be looked up")


class Plain(Protocol):
    """No TLS at all."""

    greeting = b"220 mail.example ESMTP\r\n"

    def dataReceived(self, data):
        """Answer the TLS handshake with something else."""
        self.transport.write(self.greeting)
        self.transport.loseConnection()


class Closing(Plain):
    """Not even an answer."""

    greeting = b""


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("protocol", "sentence"),
    [(Plain, "the TLS 1.3 handshake failed"), (Closing, "closed the connection before TLS was established")],
)
async def test_a_server_without_tls_is_told_apart(protocol, sentence):
    """By what it does instead of a handshake."""
    port = reactor.listenTCP(0, Factory.forProtocol(protocol), interface="127.0.0.1")
    connecting = Talkers()

    error = await error_of(endpoint(port.getHost().port).connect(connecting))
    await port.stopListening()

    assert isinstance(error, ConnectionFailed)
    assert sentence in str(error)
    assert [[]] == [talker.seen for talker in connecting.built]


def _pause():
    """Time for the reactor to do what was begun."""
    return deferLater(reactor, 0.05, lambda: None)


@contextlib.contextmanager
def silent():
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening, listening.getsockname()[1]


@pytest_twisted.ensureDeferred
async def test_a_silent_server_is_given_up():
    """After the time that the endpoint was given, for everything together."""
    with silent() as (_, port):
        error = await error_of(endpoint(port, timeout=0.2).connect(Talkers()))
        await _pause()

    assert isinstance(error, ConnectionFailed)
    assert f"127.0.0.1:{port} did not answer within 0.2 seconds" == str(error)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("connected", [False, True])
async def test_cancelling_closes_what_was_opened(connected):
    """Before and after TCP is connected, and always with the same error."""
    with silent() as (listening, port):
        connecting = endpoint(port).connect(Talkers())
        if connected:
            await _pause()
        connecting.cancel()
        error = await error_of(connecting)
        await _pause()
        if connected:
            accepted, _ = listening.accept()
            accepted.settimeout(5)
            with accepted, contextlib.suppress(ConnectionResetError):
                while accepted.recv(4096):
                    pass

    assert isinstance(error, CancelledError)


@pytest_twisted.ensureDeferred
async def test_a_client_that_never_finishes_its_handshake_is_dropped():
    """So that nobody can hold connections without a key."""
    clock, accepting = Clock(), Talkers()
    async with serving(accepting, clock=clock) as port:
        lost = Deferred()

        class Dumb(Protocol):
            def connectionLost(self, reason):
                lost.callback(None)

        await clientFromString(reactor, f"tcp:127.0.0.1:{port}").connect(Factory.forProtocol(Dumb))
        while not clock.getDelayedCalls():
            await _pause()
        clock.advance(pinned_endpoint.CONNECT_TIMEOUT_S)
        await lost

    assert [[]] == [talker.seen for talker in accepting.built]


@pytest_twisted.ensureDeferred
async def test_a_factory_may_refuse_to_build():
    """The client gets Twisted's own error; the server just closes."""

    class Nothing(Factory):
        def buildProtocol(self, addr):
            return None

    async with serving(Talkers()) as port:
        ours = await error_of(endpoint(port).connect(Nothing()))
    async with serving(Nothing()) as port:
        theirs = await error_of(endpoint(port).connect(Talkers()))

    assert isinstance(ours, NoProtocol)
    assert isinstance(theirs, ConnectionFailed)
