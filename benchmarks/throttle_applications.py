"""How exactly other programs are throttled, and in how much memory, beside Twisted's own ``ThrottlingFactory``.

    python -m benchmarks.throttle_applications                          # some ten minutes
    python -m benchmarks.throttle_applications --only web --rate 1M     # a row or a column of it

Each application sends as much as it may from a process of its own, over loopback, to this process, which reads with
plain blocking sockets and notes when how much arrived, the first `SETTLING_S` seconds aside.
Per row: the mean over the limit, the worst 100 ms over its share, and by how many MiB the sender's memory grew at most
(some 8 of them are what it takes to begin).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import socket
import ssl
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ClassVar, Final

from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.protocols import amp
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import ThrottlingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from benchmarks.machine import print_machine
from benchmarks.throttle_accuracy import carried, certificate, windows
from realize.units import parse_rate

MIB: Final = 1 << 20
PIECE: Final = b"\xa5" * (1 << 16)
LINE: Final = b"\xa5" * 998
SPAWN: Final = multiprocessing.get_context("spawn")
SETTLING_S: Final = 1.0
MEASURED_S: Final = 4.0
RATES: Final = ("64k", "1M", "20M")
LAYERS: Final = ("realize", "ThrottlingFactory")


# The applications, in the process that sends


class Endless(io.RawIOBase):
    """A file that never ends; its size is said to be 1 TiB."""

    offset = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """As much as is wanted, 64 KiB at most."""
        return PIECE[:size] if size >= 0 else PIECE

    def seek(self, offset: int, whence: int = 0) -> int:
        """Its end is where its size says."""
        self.offset = 1 << 40 if whence == os.SEEK_END else offset
        return self.offset

    def tell(self) -> int:
        """Where it was put."""
        return self.offset


@implementer(IPushProducer)
class Pushing(Protocol):
    """Writes 64 KiB at a time until it is paused."""

    running = False

    def connectionMade(self) -> None:
        """Begin."""
        self.transport.registerProducer(self, True)  # noqa: FBT003
        self.resumeProducing()

    def piece(self) -> None:
        """Write once."""
        self.transport.write(PIECE)

    def resumeProducing(self) -> None:
        """Write until paused."""
        self.running = True
        while self.running:
            self.piece()

    def pauseProducing(self) -> None:
        """Stop for the moment."""
        self.running = False

    def stopProducing(self) -> None:
        """The connection is lost."""
        self.running = False


class Lines(Pushing, LineReceiver):
    """Sends lines of 1,000 bytes."""

    def piece(self) -> None:
        """Send a line."""
        self.sendLine(LINE)


@implementer(IPullProducer)
class Pulled(Protocol):
    """Writes 64 KiB whenever it is asked."""

    def connectionMade(self) -> None:
        """Begin."""
        self.transport.registerProducer(self, False)  # noqa: FBT003

    def resumeProducing(self) -> None:
        """Write once."""
        self.transport.write(PIECE)

    def stopProducing(self) -> None:
        """The connection is lost."""


class Pour(amp.Command):
    """Asks for data without an end."""

    requiresAnswer = False


class Drop(amp.Command):
    """A piece of it."""

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"content", amp.String())]
    requiresAnswer = False


class Guarded(Pushing, amp.AMP):
    """Turns TLS on when it is asked to, then pours."""

    def connectionMade(self) -> None:
        """Wait to be asked."""
        amp.AMP.connectionMade(self)

    @amp.StartTLS.responder
    def secured(self) -> dict[str, Any]:
        """With a certificate that nobody knows."""
        return {"tls_localCertificate": PrivateCertificate.loadPEM(_pem())}

    @Pour.responder
    def pour(self) -> dict[str, Any]:
        """Begin."""
        Pushing.connectionMade(self)
        return {}

    def piece(self) -> None:
        """Send a command."""
        self.callRemote(Drop, content=PIECE[:-1])


def _pem() -> bytes:
    made: Any = certificate()
    key = made.privateKey.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key + made.certificate.public_bytes(Encoding.PEM)  # type: ignore[no-any-return]


def _peak_kib() -> int:
    """The most memory that this process ever had; getrusage(2) would tell that of the process that started it."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def web() -> Any:
    """twisted.web, which serves a file of 1 TiB without a byte in it."""
    from twisted.web.server import Site
    from twisted.web.static import File

    hole = os.memfd_create("hole")
    os.truncate(hole, 1 << 40)
    resource = File(f"/proc/self/fd/{hole}")
    resource.isLeaf = True
    return Site(resource)


def agent(connect: Callable[[Factory], Any]) -> None:
    """twisted.web's Agent, which uploads one."""
    from twisted.internet import reactor
    from twisted.web.client import Agent, FileBodyProducer

    class Ours:
        def endpointForURI(self, uri: object) -> Any:
            del uri
            return type("Endpoint", (), {"connect": staticmethod(connect)})()

    asked = Agent.usingEndpointFactory(reactor, Ours()).request(
        b"POST", b"http://localhost/", bodyProducer=FileBodyProducer(Endless(), readSize=len(PIECE))
    )
    asked.addErrback(lambda _: None)


def smtp(connect: Callable[[Factory], Any]) -> None:
    """SMTP of twisted.mail: sends a mail without an end."""
    from twisted.internet.defer import Deferred
    from twisted.mail.smtp import SMTPSenderFactory

    sent: Deferred[Any] = Deferred()
    sent.addErrback(lambda _: None)
    connect(SMTPSenderFactory("a@localhost", "b@localhost", Endless(), sent, retries=0))


def imap(connect: Callable[[Factory], Any]) -> None:
    """IMAP of twisted.mail: appends one to a mailbox."""
    from twisted.mail.imap4 import IMAP4Client

    class Appending(IMAP4Client):
        def serverGreeting(self, caps: object) -> None:
            del caps
            self.append("inbox", Endless()).addErrback(lambda _: None)

    connect(ClientFactory.forProtocol(Appending))


# What the other end does first, with plain blocking sockets


def lines_of(connection: socket.socket, *answers: bytes) -> None:
    """Answer each line, or each run of lines that comes at once, with the next of ``answers``."""
    for answer in answers:
        connection.sendall(answer)
        connection.recv(1 << 12)


def ask_for_file(connection: socket.socket) -> socket.socket:
    """HTTP."""
    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
    return connection


def take_mail(connection: socket.socket) -> socket.socket:
    """SMTP."""
    lines_of(connection, b"220 here\r\n", *[b"250 fine\r\n"] * 3)
    connection.sendall(b"354 go on\r\n")
    return connection


def take_message(connection: socket.socket) -> socket.socket:
    """IMAP."""
    lines_of(connection, b"* OK here\r\n")
    connection.sendall(b"+ go on\r\n")
    return connection


def take_tls(connection: socket.socket) -> socket.socket:
    """TLS, whoever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connection)


def start_tls(connection: socket.socket) -> socket.socket:
    """AMP: TLS is turned on, and data asked for."""
    connection.sendall(amp.AmpBox({b"_command": b"StartTLS", b"_ask": b"1"}).serialize())
    connection.recv(1 << 12)
    secured = take_tls(connection)
    secured.sendall(amp.AmpBox({b"_command": b"Pour"}).serialize())
    return secured


def nothing_first(connection: socket.socket) -> socket.socket:
    """The sender begins by itself."""
    return connection


@frozen
class Application:
    """One row: what it is, what its other end does first, and how it is made: a server's factory, or a client."""

    title: str
    begin: Callable[[socket.socket], socket.socket]
    serves: Callable[[], Factory] | None = None
    connects: Callable[[Callable[[Factory], Any]], None] | None = None
    tls: str = ""


def _of(protocol: type[Protocol]) -> Callable[[], Factory]:
    return lambda: Factory.forProtocol(protocol)


APPLICATIONS: Final = {
    "push": Application("push producer", nothing_first, _of(Pushing)),
    "pull": Application("pull producer", nothing_first, _of(Pulled)),
    "lines": Application("LineReceiver", nothing_first, _of(Lines)),
    "web": Application("twisted.web, serving a file", ask_for_file, web),
    "agent": Application("Agent, uploading", nothing_first, connects=agent),
    "smtp": Application("SMTP client", take_mail, connects=smtp),
    "imap": Application("IMAP client, APPEND", take_message, connects=imap),
    "tls-push": Application("push, wire → TLS → throttle", take_tls, _of(Pushing), tls="below"),
    "tls-pull": Application("pull, wire → TLS → throttle", take_tls, _of(Pulled), tls="below"),
    "push-tls": Application("push, wire → throttle → TLS", take_tls, _of(Pushing), tls="above"),
    "pull-tls": Application("pull, wire → throttle → TLS", take_tls, _of(Pulled), tls="above"),
    "starttls": Application("AMP with StartTLS", start_tls, _of(Guarded)),
}


def send(pipe: Connection, name: str, rate: int, layer: str, port: int) -> None:
    """Run an application in a process: tell the port that it listens on, and at the end the growth of its memory."""
    from twisted.internet import reactor
    from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint

    from realize.throttle.endpoints import throttle_client, throttle_server

    application = APPLICATIONS[name]
    before = _peak_kib()

    def held(factory: Any) -> Any:
        return factory if layer == "realize" else ThrottlingFactory(factory, writeLimit=rate)

    def below(factory: Any) -> Any:
        return TLSMemoryBIOFactory(certificate(), False, factory, reactor)  # noqa: FBT003

    server: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    client: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    if application.tls == "below":
        inner = server
        server = type("Secured", (), {"listen": staticmethod(lambda factory: inner.listen(below(factory)))})()
    if layer == "realize":
        server, client = throttle_server(reactor, server, rate), throttle_client(reactor, client, rate)
    if application.serves is not None:
        factory = application.serves()
        factory = held(below(factory) if application.tls == "above" else factory)
        server.listen(factory).addCallback(lambda listening: pipe.send(listening.getHost().port))
    elif application.connects is not None:
        application.connects(lambda factory: client.connect(held(factory)))

    def ask() -> None:
        if pipe.poll():
            pipe.send(_peak_kib() - before)
            os._exit(0)
        reactor.callLater(0.25, ask)

    ask()
    reactor.run(installSignalHandlers=False)


# This process: the other end


@frozen
class Result:
    """Mean over the limit, worst 100 ms over its share, and the growth of the sender's memory in KiB."""

    mean: float
    worst: float
    memory: int


def measure(name: str, rate: int, layer: str) -> Result:
    """One application, below one limit, held by one layer."""
    application = APPLICATIONS[name]
    here, there = SPAWN.Pipe()
    listening = socket.create_server(("127.0.0.1", 0))
    process = SPAWN.Process(target=send, args=(there, name, rate, layer, listening.getsockname()[1]), daemon=True)
    process.start()
    try:
        if application.serves is not None:
            connection = socket.create_connection(("127.0.0.1", here.recv()))
        else:
            connection, _ = listening.accept()
        connection.settimeout(SETTLING_S + MEASURED_S)
        events: list[tuple[float, int, int]] = []
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            connection = application.begin(connection)
            begun = time.monotonic()
            while time.monotonic() < begun + SETTLING_S + MEASURED_S and (data := connection.recv(1 << 18)):
                events.append((time.monotonic(), len(data), 0))
        start, end = begun + SETTLING_S, begun + SETTLING_S + MEASURED_S
        _, most = windows(events, 0.1, start, end) if events else (0, 0)
        here.send("memory")
        memory = here.recv() if here.poll(30) else 0
        connection.close()
        return Result(carried(events, start, end) / MEASURED_S / rate, most / (0.1 * rate), memory)
    finally:
        process.kill()
        process.join()
        listening.close()


def row(name: str, text: str) -> list[str]:
    """An application below a limit: both of their names, and mean, worst 100 ms and MiB with each layer."""
    rate = parse_rate(text)
    assert rate is not None
    found = [measure(name, rate, layer) for layer in LAYERS]
    figures = [f"{each.mean:.3f} · {each.worst:.2f} · {each.memory / 1024:.0f}" for each in found]
    return [APPLICATIONS[name].title, text, *figures]


def main() -> None:
    """Parse the command line, measure, and print the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=APPLICATIONS, help="this application; may be repeated")
    parser.add_argument("--rate", action="append", help="at this limit; may be repeated")
    options = parser.parse_args()
    print_machine()
    for line in (["application", "limit", *LAYERS], ["---"] * (2 + len(LAYERS))):
        print(f"| {' | '.join(line)} |", flush=True)
    for name in options.only or APPLICATIONS:
        for text in options.rate or RATES:
            print(f"| {' | '.join(row(name, text))} |", flush=True)


if __name__ == "__main__":
    main()
