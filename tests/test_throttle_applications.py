"""What people run, behind ``throttle:`` strings, over loopback sockets: nothing is lost, cut off, or left waiting."""

import io

import pytest
import pytest_twisted
from cryptography.hazmat.primitives import serialization
from twisted.internet import endpoints, reactor, ssl
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, clientFromString, serverFromString
from twisted.internet.interfaces import IPullProducer, ISSLTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.mail import imap4, smtp
from twisted.protocols import amp
from twisted.protocols.basic import LineReceiver
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

from realize.throttle.endpoints import ThrottleParser, throttle_server
from tests.test_pacing import certificate, key_and_certificate

KIB, MIB = 1 << 10, 1 << 20

# Both are between Twisted and pyOpenSSL, or within Twisted.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Passing pyOpenSSL:DeprecationWarning", "ignore:Using readBody with:DeprecationWarning"
)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Let Twisted find the parser whether or not the checkout's plugins are on its path."""
    original = endpoints.getPlugins

    def with_ours(interface, *rest):
        found = [plugin for plugin in original(interface, *rest) if getattr(plugin, "prefix", None) != "throttle"]
        return [*found, ThrottleParser()]

    monkeypatch.setattr(endpoints, "getPlugins", with_ours)


def pem():
    """A private key and its certificate."""
    key, made = key_and_certificate()
    encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, kind, serialization.NoEncryption()) + made.public_bytes(encoding)


class Ends(Factory):
    """Builds what another factory builds, and knows when all of that is lost."""

    def __init__(self, factory):
        self.factory, self.lost = factory, []

    def doStart(self):
        """Pass it on."""
        self.factory.doStart()

    def doStop(self):
        """Pass it on."""
        self.factory.doStop()

    def buildProtocol(self, addr):
        """Build one, and listen to its end."""
        protocol, lost = self.factory.buildProtocol(addr), Deferred()
        told = protocol.connectionLost

        def ended(reason):
            told(reason)
            lost.callback(None)

        protocol.connectionLost = ended
        self.lost.append(lost)
        return protocol


async def listen(factory, options="rate=4M", inner="tcp:0:interface=127.0.0.1"):
    """Serve behind a limit; the port."""
    ends = Ends(factory)
    port = await serverFromString(reactor, f"throttle:{inner}:{options}").listen(ends)
    port.ends = ends
    return port


async def closed(port):
    """Listen no more, when all connections have ended."""
    for lost in port.ends.lost:
        await lost
    await port.stopListening()


async def connect(port, protocol, options="rate=4M"):
    """Connect a protocol to it, behind a limit of its own."""
    endpoint = clientFromString(reactor, f"throttle:tcp:127.0.0.1:{port.getHost().port}:{options}")
    return await endpoint.connect(Factory.forProtocol(protocol))


class Collecting(Protocol):
    """Collects until the connection is lost."""

    def __init__(self):
        self.received, self.lost = bytearray(), Deferred()

    def dataReceived(self, data):
        """Collect."""
        self.received += data

    def connectionLost(self, reason):
        """Tell what came."""
        self.lost.callback(bytes(self.received))


@implementer(IPullProducer)
class Pieces:
    """Gives a consumer one piece after the other, and calls ``done``."""

    def __init__(self, consumer, pieces, done):
        self.consumer, self.pieces, self.done = consumer, list(pieces), done

    def resumeProducing(self):
        """Write one."""
        self.consumer.write(self.pieces.pop(0))
        if not self.pieces:
            self.consumer.unregisterProducer()
            self.done()

    def stopProducing(self):
        """The connection is lost."""


def content(amount):
    """So many bytes, no two blocks of which are alike."""
    return b"".join(number.to_bytes(8, "big") for number in range(amount // 8))


@pytest.mark.parametrize("tls", ["none", "inside", "outside"])
@pytest.mark.parametrize("kind", ["written", "pulled"])
@pytest_twisted.ensureDeferred
async def test_a_server_that_sends_and_closes_is_heard_to_the_end(tls, kind, tmp_path):
    """``throttle:tcp:``, ``throttle:ssl:``, and TLS in the factory; written at once before any handshake, or pulled."""
    sent = content(MIB)

    class Sending(Protocol):
        def connectionMade(self):
            if kind == "written":
                self.transport.write(sent)
                self.transport.loseConnection()
            else:
                pieces = [sent[start : start + 65_536] for start in range(0, len(sent), 65_536)]
                self.transport.registerProducer(Pieces(self.transport, pieces, self.transport.loseConnection), False)

    factory, inner = Factory.forProtocol(Sending), "tcp:0:interface=127.0.0.1"
    if tls == "outside":
        factory = TLSMemoryBIOFactory(certificate(), False, factory)
    elif tls == "inside":
        (tmp_path / "both.pem").write_bytes(pem())
        path = tmp_path / "both.pem"
        inner = f"ssl:0:interface=127.0.0.1:privateKey={path}:certKey={path}"
    port = await listen(factory, "rate=8M", inner)
    collecting = Collecting()
    wanting = Factory.forProtocol(lambda: collecting)
    if tls != "none":
        wanting = TLSMemoryBIOFactory(ssl.CertificateOptions(), True, wanting)
    await clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}").connect(wanting)
    received = await collecting.lost
    await closed(port)

    assert sent == received


@pytest_twisted.ensureDeferred
async def test_who_closes_the_own_half_gets_the_whole_answer():
    """As from Twisted's own sockets: the end of what the client sends does not end what it is sent."""
    sent = content(256 * KIB)

    class Answering(Protocol):
        def dataReceived(self, data):
            self.transport.write(sent)
            self.transport.loseConnection()

    port = await listen(Factory.forProtocol(Answering), "rate=1M")
    collecting = Collecting()
    endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}")
    await endpoint.connect(Factory.forProtocol(lambda: collecting))
    collecting.transport.write(b"go")
    collecting.transport.loseWriteConnection()
    received = await collecting.lost
    await closed(port)

    assert sent == received


@pytest_twisted.ensureDeferred
async def test_lines_are_echoed_whole_and_in_order():
    """A `LineReceiver` at both ends."""
    lines = [b"%d" % number for number in range(20_000)]

    class Echoing(LineReceiver):
        def lineReceived(self, line):
            self.sendLine(line)

    class Counting(LineReceiver):
        def __init__(self):
            self.lines, self.all = [], Deferred()

        def connectionMade(self):
            for line in lines:
                self.sendLine(line)

        def lineReceived(self, line):
            self.lines.append(line)
            if len(self.lines) == len(lines):
                self.all.callback(None)

        def connectionLost(self, reason):
            self.lost.callback(None)

    port = await listen(Factory.forProtocol(Echoing), "rate=1M")
    counting = await connect(port, Counting, "rate=1M")
    counting.lost = Deferred()
    await counting.all
    counting.transport.loseConnection()
    await counting.lost
    await closed(port)

    assert lines == counting.lines


class Page(Resource):
    """Answers with a long header and a body that is pulled."""

    isLeaf = True

    def __init__(self, header, pieces):
        super().__init__()
        self.header, self.pieces = header, pieces

    def render_GET(self, request):
        """Answer."""
        request.setHeader(b"X-Long", self.header)
        request.registerProducer(Pieces(request, self.pieces, request.finish), False)
        return NOT_DONE_YET


@pytest.mark.parametrize(
    ("rate", "header", "size", "count"), [("8k", 900, 500, 3), ("4M", 10, 65_536, 16), ("20M", 10, 65_536, 64)]
)
@pytest_twisted.ensureDeferred
async def test_pages_come_whole_at_any_rate(rate, header, size, count):
    """twisted.web and its Agent, three pages on a connection; a header above the mark is no reason to stop for good."""
    pieces = [bytes([65 + number % 26]) * size for number in range(count)]
    port = await listen(Site(Page(b"h" * header, pieces)), f"rate={rate}")
    pool = HTTPConnectionPool(reactor)
    agent, bodies = Agent(reactor, pool=pool), []
    for _ in range(3):
        response = await agent.request(b"GET", b"http://127.0.0.1:%d/" % port.getHost().port)
        bodies.append(await readBody(response))
    await pool.closeCachedConnections()
    await closed(port)

    assert [b"".join(pieces)] * 3 == bodies


@pytest.mark.parametrize("pieces_at_a_time", [1, 5])
@pytest_twisted.ensureDeferred
async def test_a_limit_that_is_set_while_the_socket_is_full_does_not_stop_a_page(pieces_at_a_time):
    """twisted.web counts the pauses of its pull producers, and both the socket and the limit have one."""
    sent, requests = content(8 * MIB), []

    class Several(Pieces):
        def resumeProducing(self):
            for _ in range(pieces_at_a_time):
                super().resumeProducing()

    class Serving(Resource):
        isLeaf = True

        def render_GET(self, request):
            size = len(sent) // 100 // 8 * 8
            pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
            pieces += [b""] * (-len(pieces) % pieces_at_a_time)
            requests.append(request)
            request.setHeader(b"Content-Length", b"%d" % len(sent))
            request.registerProducer(Several(request, pieces, request.finish), False)
            return NOT_DONE_YET

    endpoint = throttle_server(reactor, TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), None)
    ends = Ends(Site(Serving()))
    port = await endpoint.listen(ends)
    port.ends = ends
    collecting = Collecting()
    client = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    await client.connect(Factory.forProtocol(lambda: collecting))
    collecting.transport.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    collecting.transport.pauseProducing()
    while not (requests and requests[0].channel._waitingForTransport):
        await deferLater(reactor, 0)
    endpoint.set_rate(100 * MIB)
    collecting.transport.resumeProducing()
    received = await collecting.lost
    await closed(port)

    assert sent == received.partition(b"\r\n\r\n")[2]


class Whoami(amp.Command):
    """Ask whether the server finds the connection encrypted."""

    response = [(b"secure", amp.Boolean()), (b"filling", amp.String())]  # noqa: RUF012


class Server(amp.AMP):
    """Starts TLS when asked, and answers."""

    own = None

    @amp.StartTLS.responder
    def _start(self):
        return {"tls_localCertificate": self.own}

    @Whoami.responder
    def _whoami(self):
        return {"secure": ISSLTransport.providedBy(self.transport), "filling": b"f" * 30_000}


@pytest.mark.parametrize("rate", ["64k", "1M", "20M"])
@pytest_twisted.ensureDeferred
async def test_amp_starts_tls(rate):
    """Behind other answers that are still queued; both ends have the prefix."""
    own = ssl.PrivateCertificate.loadPEM(pem())
    port = await listen(Factory.forProtocol(type("Own", (Server,), {"own": own})), f"rate={rate}")
    client = await connect(port, amp.AMP, f"rate={rate}")
    first = client.callRemote(Whoami)
    await client.callRemote(amp.StartTLS)
    before, after = await first, await client.callRemote(Whoami)
    shown = ssl.Certificate.peerFromTransport(client.transport).digest()
    lost = Deferred()
    client.connectionLost = lambda reason: lost.callback(None)
    client.transport.loseConnection()
    await lost
    await closed(port)

    assert (False, True) == (before["secure"], after["secure"])
    assert own.digest() == shown


@pytest.mark.parametrize("rate", ["64k", "20M"])
@pytest_twisted.ensureDeferred
async def test_mail_is_sent_over_starttls(rate):
    """twisted.mail's ESMTP at both ends; the text arrives as it was, over a connection that was switched."""
    text = b"Subject: x\n\n" + b"line\n" * 500
    arrived, secure = [], []

    @implementer(smtp.IMessage)
    class Message:
        def __init__(self):
            self.lines = []

        def lineReceived(self, line):
            self.lines.append(line)

        def eomReceived(self):
            arrived.append(self.lines)
            return succeed(None)

        def connectionLost(self):
            self.lines = []

    class Receiving(smtp.ESMTP):
        def receivedHeader(self, helo, origin, recipients):
            return b"Received: here"

        def validateFrom(self, helo, origin):
            secure.append(ISSLTransport.providedBy(self.transport))
            return origin

        def validateTo(self, user):
            return Message

    options = certificate()
    port = await listen(Factory.forProtocol(lambda: Receiving(contextFactory=options)), f"rate={rate}")
    sent = Deferred()
    sender = smtp.ESMTPSenderFactory(
        None, None, "a@b", "c@d", io.BytesIO(text), sent, retries=0, contextFactory=ssl.CertificateOptions(),
        requireAuthentication=False, requireTransportSecurity=True, hostname="h",
    )  # fmt: skip
    endpoint = clientFromString(reactor, f"throttle:tcp:127.0.0.1:{port.getHost().port}:rate={rate}")
    await endpoint.connect(sender)
    await sent
    await closed(port)

    assert [True] == secure
    assert [[b"Received: here", b"Subject: x", b"", *[b"line"] * 500]] == arrived


@pytest.mark.parametrize("rate", ["64k", "20M"])
@pytest_twisted.ensureDeferred
async def test_imap_starts_tls(rate):
    """twisted.mail's IMAP, which keeps ``transport.write``: the answers before and after come."""
    options = certificate()
    port = await listen(Factory.forProtocol(lambda: imap4.IMAP4Server(contextFactory=options)), f"rate={rate}")
    client = await connect(port, lambda: imap4.IMAP4Client(ssl.CertificateOptions()), f"rate={rate}")
    before = await client.getCapabilities(useCache=False)
    await client.startTLS()
    after = await client.getCapabilities(useCache=False)
    lost = Deferred()
    client.connectionLost = lambda reason: lost.callback(None)
    await client.logout()
    await lost
    await closed(port)

    assert b"STARTTLS" in before
    assert b"STARTTLS" not in after
