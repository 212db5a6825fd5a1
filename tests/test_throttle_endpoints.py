"""``throttle:`` endpoint strings, parsed and over real loopback sockets (quoting and unwrapping are Twisted's work)."""

import time

import pytest
import pytest_twisted
from twisted.internet import endpoints, reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.plugin import IPlugin
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface.verify import verifyObject

from realize.throttle.endpoints import ThrottleParser, throttle_client, throttle_server
from realize.throttle.transport import ThrottledProtocol
from tests.processes import BUSY_S

MIB = 1 << 20


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Let Twisted find the parser whether or not the checkout's plugins are on its path."""
    original = endpoints.getPlugins

    def with_ours(interface, *rest):
        found = [plugin for plugin in original(interface, *rest) if getattr(plugin, "prefix", None) != "throttle"]
        return [*found, ThrottleParser()]

    monkeypatch.setattr(endpoints, "getPlugins", with_ours)


def test_it_is_a_plugin_for_clients_and_servers():
    """One object serves both kinds of strings."""
    parser = ThrottleParser()

    for interface in (IPlugin, IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser):
        assert verifyObject(interface, parser)
    assert "throttle" == parser.prefix


def test_a_client_string_connects_with_the_rest_of_it():
    """Host, port and the inner endpoint's own options arrive where they belong."""
    memory = MemoryReactorClock()
    endpoint = clientFromString(memory, "throttle:tcp:127.0.0.1:80:rate=1M:burst=64k:timeout=3")
    endpoint.connect(Factory.forProtocol(Protocol))
    host, port, _, timeout, _ = memory.tcpClients[0]

    assert verifyObject(IStreamClientEndpoint, endpoint)
    assert ("127.0.0.1", 80, 3) == (host, port, timeout)


def test_a_server_string_listens_with_the_rest_of_it():
    """Also through another prefix, and with a path that needs quoting."""
    memory = MemoryReactorClock()
    for description in (r"throttle:haproxy:tcp:8000:rate=5", r"throttle:unix:/run/a\:b\=c\\d:rate=5:mode=600"):
        endpoint = serverFromString(memory, description)
        endpoint.listen(Factory.forProtocol(Protocol))
        assert verifyObject(IStreamServerEndpoint, endpoint)

    assert 8000 == memory.tcpServers[0][0]
    assert ("/run/a:b=c\\d", 0o600) == (memory.unixServers[0][0], memory.unixServers[0][3])


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        ("throttle:tcp:80", "throttle: needs rate=, bytes per second such as 512k or 1.5MiB/s"),
        ("throttle:tcp:80:rate=0", "rate"),
        ("throttle:tcp:80:rate=fast", "rate"),
        ("throttle:tcp:80:rate=100T", "throttle: '100T' is too much: at most 10 TiB/s is allowed"),
        ("throttle:tcp:80:rate=1M:burst=0", "throttle: a limit of 1 MiB/s needs a burst of at least 3145 bytes, not 0"),
        (
            "throttle:tcp:80:rate=100M:burst=64k",
            "a limit of 100 MiB/s needs a burst of at least 314572 bytes, not",
        ),
        ("throttle:tcp:80:rate=1M:burst=x", "size"),
        ("throttle:rate=1M", "throttle: needs an endpoint behind it"),
        ("throttle:nonsense:80:rate=1M", "nonsense"),
    ],
)
@pytest.mark.parametrize("parse", [clientFromString, serverFromString])
def test_a_bad_description_is_said_in_one_sentence(parse, description, sentence):
    """A ``ValueError`` as from Twisted's own endpoints, and nothing of how it was found."""
    with pytest.raises(ValueError, match=sentence) as caught:
        parse(MemoryReactorClock(), description)

    assert "\n" not in str(caught.value)


def test_rate_unlimited_is_no_limit():
    """So that a configuration can switch it off."""
    assert clientFromString(MemoryReactorClock(), "throttle:tcp:h:80:rate=unlimited")


class Receiver(Protocol):
    """Notes how much came when it ends."""

    def __init__(self):
        self.received = 0
        self.ended = Deferred()

    def dataReceived(self, data):
        """Count."""
        self.received += len(data)

    def connectionLost(self, reason):
        """Tell."""
        self.ended.callback(self.received)


class Sender(Receiver):
    """Sends as soon as it is connected, then closes."""

    def connectionMade(self):
        """Send."""
        self.transport.write(b"x" * MIB)
        self.transport.loseConnection()


@pytest.mark.parametrize("side", ["client", "server"])
@pytest_twisted.inlineCallbacks
def test_a_real_connection_is_limited_on_the_side_that_has_the_prefix(side):
    """1 MiB at 4 MiB/s takes a quarter of a second; callers get the application's protocol, not the layer."""
    sides = {"server": ("throttle:", ":rate=4M", "", ""), "client": ("", "", "throttle:", ":rate=4M")}
    before_server, after_server, before_client, after_client = sides[side]
    accepted = Deferred()

    class Accepting(Factory):
        def buildProtocol(self, addr):
            protocol = (Sender if side == "server" else Receiver)()
            accepted.callback(protocol)
            return protocol

    listening = serverFromString(reactor, f"{before_server}tcp:0:interface=127.0.0.1{after_server}")
    port = yield listening.listen(Accepting())
    connecting = clientFromString(reactor, f"{before_client}tcp:127.0.0.1:{port.getHost().port}{after_client}")
    begun = time.monotonic()
    client = yield connecting.connect(Factory.forProtocol(Sender if side == "client" else Receiver))
    server = yield accepted
    received = yield (client if side == "server" else server).ended
    took = time.monotonic() - begun
    yield port.stopListening()

    assert MIB == received
    assert not isinstance(client, ThrottledProtocol)
    assert 0.2 < took < BUSY_S


def test_endpoints_of_ones_own_can_be_wrapped():
    """The functions behind the strings take any endpoint."""
    memory = MemoryReactorClock()
    inner_client = clientFromString(memory, "tcp:127.0.0.1:80")
    inner_server = serverFromString(memory, "tcp:80")

    throttle_client(memory, inner_client, 1024).connect(Factory.forProtocol(Protocol))
    throttle_server(memory, inner_server, 1024, 4096).listen(Factory.forProtocol(Protocol))

    assert (1, 1) == (len(memory.tcpClients), len(memory.tcpServers))


class Socket(StringTransport):
    """A transport that is a TCP socket, on which Nagle's algorithm is at work at first."""

    no_delay = False

    def setTcpNoDelay(self, enabled):
        """Switch it off or on."""
        self.no_delay = enabled


def test_what_is_let_go_piece_by_piece_is_not_joined_again_by_the_kernel():
    """Nagle's algorithm is off below a limit, through TLS too, unless it is wanted; pipes have none."""
    factory = Factory.forProtocol(Protocol)
    memory = MemoryReactorClock()
    throttle_server(memory, serverFromString(memory, "tcp:80"), None).listen(factory)
    throttled = memory.tcpServers[0][1]
    plain, wanted, within_tls = Socket(), Socket(), Socket()
    throttled.buildProtocol(None).makeConnection(plain)
    application = throttled.buildProtocol(None)
    application.makeConnection(wanted)
    application.wrappedProtocol.transport.setTcpNoDelay(False)
    TLSMemoryBIOFactory(CertificateOptions(), True, throttled, memory).buildProtocol(None).makeConnection(within_tls)
    throttled.buildProtocol(None).makeConnection(StringTransport())

    assert (True, False, True) == (plain.no_delay, wanted.no_delay, within_tls.no_delay)
