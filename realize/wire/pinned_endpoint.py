"""TLS 1.3 with both keys pinned, for any Twisted application: the prefix ``realize:``, and a factory for servers.

``realize:hostb:9771:key=FILE:peer=KEY`` connects to the holder of KEY and shows the key in FILE.
Realize's own protocol is not involved: the bytes are the application's.

Invariants, on both sides: an application's protocol is connected once the handshake is completed, never to the holder
of any but a pinned key, and not at all if the handshake fails.

With TLS 1.3 the connecting side's handshake is completed before the accepting side has checked its key.
So a refusal of *our* key comes after `PinnedClientEndpoint.connect` has fired: as ``connectionLost`` with `WrongPeer`,
before any byte from the other side, or with another reason if the alert was lost in transit.
An application that must know waits for the first answer.

No reactor is imported, and little else, because Twisted loads this module with its other plugins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from realize.errors import ConnectionFailed, RealizeError, WrongPeer
from realize.keys import Identity, PublicKey, load_identity, read_public_key
from realize.units import display_text, format_address, parse_duration, quoted
from realize.wire.connecting import CONNECT_TIMEOUT_S, UNREACHABLE, in_time, unreachable
from realize.wire.tls import AcceptingTLS, ConnectingTLS, Refused, refused_by_peer, tune
from realize.wire.tls_bulk import BulkTLSFactory, BulkTLSTransport

_FORM: Final = "realize:HOST:PORT:key=FILE:peer=KEY"


@implementer(IHandshakeListener)
class _AfterHandshake(Protocol):
    """Sits between TLS and the application, and connects the application once the handshake is completed."""

    def __init__(self, application: IProtocol) -> None:
        self.application = application
        self._shaken = False

    def connectionMade(self) -> None:
        tune(self.transport)

    def handshakeCompleted(self) -> None:
        self._shaken = True
        transport: Any = self.transport
        self.application.makeConnection(transport)
        if IHandshakeListener.providedBy(self.application):
            self.application.handshakeCompleted()

    def dataReceived(self, data: bytes) -> None:
        self.application.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._shaken:
            self.application.connectionLost(reason)

    def logPrefix(self) -> str:
        if ILoggingContext.providedBy(self.application):
            return self.application.logPrefix()
        return type(self.application).__name__


class _Connecting(_AfterHandshake):
    """Fires ``connected`` with the application once the handshake is completed, or with the reason why it failed."""

    def __init__(self, application: IProtocol, connected: Deferred[IProtocol], label: str, own_key: PublicKey) -> None:
        super().__init__(application)
        self._connected = connected
        self._label = label
        self._own_key = own_key

    def handshakeCompleted(self) -> None:
        super().handshakeCompleted()
        if not self._connected.called:
            self._connected.callback(self.application)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if refused_by_peer(reason.value):
            reason = Failure(WrongPeer(f"{self._label} does not know the key of this side: {self._own_key.base64}"))
        try:
            super().connectionLost(reason)
        finally:
            if not self._connected.called:
                # If the handshake was completed, this is what the application itself raised while it was connected.
                self._connected.errback(reason if self._shaken else self._handshake_failed(reason))

    def _handshake_failed(self, reason: Failure) -> Failure:
        error = reason.value
        if isinstance(error, RealizeError):
            return reason
        if isinstance(error, SSL.Error):
            causes = ", ".join(str(entry[-1]) for entry in error.args[0]) if error.args else "no reason given"
            return Failure(ConnectionFailed(f"{self._label}: the TLS 1.3 handshake failed: {causes}"))
        return Failure(ConnectionFailed(f"{self._label} closed the connection before TLS was established"))


class _Accepting(_AfterHandshake):
    """Aborts a connection whose handshake takes too long."""

    def __init__(self, application: IProtocol, clock: IReactorTime) -> None:
        super().__init__(application)
        self._clock = clock
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        transport: Any = self.transport
        self._timer = self._clock.callLater(CONNECT_TIMEOUT_S, transport.abortConnection)

    def handshakeCompleted(self) -> None:
        self._stop_timer()
        super().handshakeCompleted()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()
        super().connectionLost(reason)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


class _PinnedFactory(BulkTLSFactory):
    """Wraps the protocols of an application's factory in what ``make`` returns, and that in TLS."""

    def __init__(
        self,
        creator: ConnectingTLS | AcceptingTLS,
        factory: IProtocolFactory,
        clock: IReactorTime,
        make: Callable[[IProtocol], _AfterHandshake],
    ) -> None:
        is_client = isinstance(creator, ConnectingTLS)
        super().__init__(creator, isClient=is_client, wrappedFactory=factory, clock=clock)
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> BulkTLSTransport | None:  # type: ignore[override]
        application = self.wrappedFactory.buildProtocol(addr)
        return None if application is None else self.protocol(self, self._make(application))


@implementer(IStreamClientEndpoint)
@define(eq=False, repr=False)
class PinnedClientEndpoint:
    """Connects to the holder of ``pin`` on a host, given by name or address, and authenticates as ``identity``."""

    _reactor: IReactorTime
    _host: str
    _port: int
    _identity: Identity
    _pin: PublicKey
    _timeout: float = CONNECT_TIMEOUT_S
    """Seconds for name look-up, TCP and TLS together."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; the Deferred fires with the application's protocol once the handshake is completed.

        Fails with `WrongPeer`, which names both fingerprints, if the other end shows another key, and with
        `ConnectionFailed` for everything that a later attempt may not run into.
        Cancelling it closes whatever was opened.
        """
        label = format_address(self._host, self._port)
        started: list[_Connecting] = []
        given_up = False

        def give_up(_: Deferred[IProtocol]) -> None:
            nonlocal given_up
            given_up = True
            trying.cancel()
            for protocol in started:
                transport: Any = protocol.transport
                transport.abortConnection()

        def start(application: IProtocol) -> _Connecting:
            protocol = _Connecting(application, connected, label, self._identity.public_key)
            started.append(protocol)
            return protocol

        def failed(failure: Failure) -> None:
            # A cancelled endpoint of Twisted's may fail with many kinds of errors; ours fails with one.
            if not given_up and not connected.called:
                # The others are what the application's factory raised, or NoProtocol if it made none.
                error = failure.value
                connected.errback(Failure(unreachable(error, label)) if isinstance(error, UNREACHABLE) else failure)

        connected = Deferred[IProtocol](give_up)
        # The other end may be any program, which may look for a server name that it knows.
        creator = ConnectingTLS([self._identity], [self._pin], label, hints=False)
        secured = _PinnedFactory(creator, protocolFactory, self._reactor, start)
        trying: Deferred[Any] = HostnameEndpoint(self._reactor, self._host, self._port, timeout=self._timeout).connect(
            secured
        )
        trying.addErrback(failed)
        return in_time(connected, label, self._timeout, self._reactor)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class PinnedParser:
    """Parses ``realize:`` descriptions; raises ``ValueError`` if one is wrong.

    The key files are read at once, not when a connection is made.
    """

    prefix = "realize"

    def parseStreamClient(self, reactor: Any, *args: object, **kwargs: object) -> PinnedClientEndpoint:
        """Return the endpoint that the arguments describe; ``reactor`` is a clock too, which Twisted does not say."""
        try:
            return _parse(reactor, [str(arg) for arg in args], {name: str(value) for name, value in kwargs.items()})
        except RealizeError as error:
            raise ValueError(f"realize: {error}") from None


def _parse(reactor: IReactorTime, places: list[str], named: dict[str, str]) -> PinnedClientEndpoint:
    from realize.config.addresses import DEFAULT_PORT, parse_address

    if len(places) > 2:
        raise ValueError(f"realize: {quoted(places[2])} has no place in {_FORM}; a colon in a value is written \\:")
    for name, place in zip(("host", "port"), places, strict=False):
        if name in named:
            raise ValueError(f"realize: the {name} is there twice")
        named[name] = place
    host, port = named.pop("host", ""), named.pop("port", str(DEFAULT_PORT))
    key, peer, timeout = named.pop("key", ""), named.pop("peer", ""), named.pop("timeout", None)
    if named:
        unknown = display_text(min(named))
        raise ValueError(f"realize: {unknown}= is not an option of it; its options are key=, peer= and timeout=")
    if not host:
        raise ValueError(f"realize: needs a host, as in {_FORM}")
    if not key:
        raise ValueError("realize: needs key=, the file of the private key, as `realize keygen FILE` makes it")
    if not peer:
        raise ValueError("realize: needs peer=, the public key of the other side or a file that holds it")
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    host, number = parse_address(f"{host}:{port}")
    within = CONNECT_TIMEOUT_S if timeout is None else parse_duration(timeout)
    return PinnedClientEndpoint(reactor, host, number, load_identity(key), read_public_key(peer), within)


_log = Logger(namespace="realize.pinned")


def _log_refusal(protocol: TLSMemoryBIOProtocol, error: RealizeError, _: PublicKey | None) -> None:
    transport: Any = protocol.transport
    address = transport.getPeer()
    _log.warn("{peer} was refused: {error}", peer=getattr(address, "host", address), error=str(error))


def pinned_server_factory(
    identity: Identity,
    is_known: Callable[[PublicKey], bool],
    factory: IProtocolFactory,
    clock: IReactorTime,
    *,
    refused: Refused = _log_refusal,
) -> BulkTLSFactory:
    """Return a factory to listen with: ``factory`` behind TLS, for peers whose key ``is_known`` accepts.

    ``is_known`` is called anew for every connection.
    ``refused`` is called for peers that were refused; by default they are logged.
    From ``connectionMade`` on, a protocol can find out who its peer is with
    ``realize.wire.tls.peer_public_key(self.transport)``.
    """
    return _PinnedFactory(
        AcceptingTLS([identity], is_known, refused), factory, clock, lambda application: _Accepting(application, clock)
    )
