"""Connecting to a peer: name look-up, TCP, TLS and Hello as one step with one timeout."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IHandshakeListener, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from realize.errors import ConnectionFailed, RealizeError, WrongPeer
from realize.keys import Identity, PublicKey
from realize.logger import Logger
from realize.pasting import admission
from realize.units import format_address
from realize.wire.connecting import CONNECT_TIMEOUT_S, UNREACHABLE, in_time, unreachable
from realize.wire.connection import Greeting, PeerProtocol, Role
from realize.wire.tcp_connecting import connect_tcp
from realize.wire.tls import ConnectingTLS, own_public_key, peer_public_key, refused_by_peer, tune
from realize.wire.tls_bulk import BulkTLSFactory

Wrap = Callable[[IProtocolFactory], IProtocolFactory]
"""Wraps a factory, to insert a layer between TLS and AMP, such as the traffic shaping of `realize.throttle`."""

Ahead = Callable[["ConnectingProtocol"], object]
"""Called once Hello is sent, to send behind it what may be asked before it is answered: a round trip less."""


@implementer(IHandshakeListener)
class ConnectingProtocol(PeerProtocol):
    """The connecting side of a connection."""

    own_key: PublicKey | None = None
    """Our key: the first one until the handshake has completed, then the one that was shown."""
    their_key: PublicKey | None = None
    """The key that the peer has shown, once it has proved that it holds that; it is one of the pinned ones."""
    reached = False
    """Whether the TCP connection was established."""
    recognised = False
    """Whether the peer has proved that it holds a pinned key."""
    refused = False
    """Whether the peer has reported that it does not know our key."""

    def connectionMade(self) -> None:
        """Tune the socket."""
        self.reached = True
        tune(self.transport)
        super().connectionMade()

    def handshakeCompleted(self) -> None:
        """Note which keys were shown: the peer has a pinned one; whether it accepts ours is still open."""
        self.recognised = True
        self.own_key, self.their_key = own_public_key(self.transport), peer_public_key(self.transport)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Distinguish a peer that does not accept our key from a lost connection."""
        if self.theirs is None and self.goodbye is None and self.own_key is not None:
            if refused_by_peer(reason.value):
                self.refused = True
                reason = Failure(WrongPeer(f"{self.label} does not know the key of this machine"))
            elif self.recognised and not isinstance(reason.value, RealizeError):
                reason = Failure(
                    ConnectionFailed(
                        f"{self.label} closed the connection before it answered; "
                        "if that goes on, it may not know the key of this machine (`realize check` shows what it needs)"
                    )
                )
        super().connectionLost(reason)


def connecting_protocol(
    *, clock: IReactorTime, log: Logger, greeting: Greeting, make: type[ConnectingProtocol] = ConnectingProtocol
) -> Callable[[], ConnectingProtocol]:
    """Return the usual ``make_protocol`` for `connect`."""
    return lambda: make(clock=clock, log=log, greeting=greeting, role=Role.CONNECTING)


class _OnceFactory(Factory):
    noisy = False

    def __init__(self, protocol: PeerProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, _: IAddress | None) -> PeerProtocol:
        return self._protocol


def connect(
    reactor: IReactorTime,
    host: str,
    port: int,
    identities: Sequence[Identity],
    pins: Sequence[PublicKey],
    *,
    make_protocol: Callable[[], ConnectingProtocol],
    timeout: float = CONNECT_TIMEOUT_S,
    wrap: Wrap | None = None,
    ahead: Ahead | None = None,
) -> Deferred[ConnectingProtocol]:
    """Connect to the holder of one of ``pins``; the Deferred fires when the peer has answered our Hello.

    Of our ``identities``, newest first, that one is shown which the peer knows.
    ``timeout`` is in seconds.
    What is asked ``ahead`` fails if the peer does not let us in.
    Fails with `WrongPeer` if either side does not accept the other's key, with `VersionMismatch` if they do not speak
    the same protocol, and with `ConnectionFailed` for everything that a later attempt may not run into.
    Cancelling it closes whatever was opened.
    """
    label = format_address(host, port)
    connecting = Deferred.fromCoroutine(
        _connect(reactor, host, port, identities, pins, label, make_protocol, timeout, wrap, ahead),
    )
    given_up = False

    def give_up(_: Deferred[ConnectingProtocol]) -> None:
        nonlocal given_up
        given_up = True
        connecting.cancel()

    # A Deferred of our own, because a cancelled endpoint of Twisted's may fail with many kinds of errors.
    connected = Deferred[ConnectingProtocol](give_up)

    def succeeded(protocol: ConnectingProtocol) -> None:
        if given_up:
            protocol.abort(ConnectionFailed(f"connecting to {label} was given up"))
        else:
            connected.callback(protocol)

    def failed(failure: Failure) -> None:
        if not given_up:
            connected.errback(failure)

    connecting.addCallbacks(succeeded, failed)
    return in_time(connected, label, timeout, reactor)


async def _connect(
    reactor: IReactorTime,
    host: str,
    port: int,
    identities: Sequence[Identity],
    pins: Sequence[PublicKey],
    label: str,
    make_protocol: Callable[[], ConnectingProtocol],
    timeout: float,
    wrap: Wrap | None,
    ahead: Ahead | None,
) -> ConnectingProtocol:
    protocol = make_protocol()
    protocol.label = label
    protocol.own_key = identities[0].public_key
    factory: IProtocolFactory = _OnceFactory(protocol)
    if wrap is not None:
        factory = wrap(factory)
    tls = ConnectingTLS(identities, pins, label)
    secured = BulkTLSFactory(tls, isClient=True, wrappedFactory=factory, clock=reactor)
    try:
        await connect_tcp(reactor, host, port, secured, timeout)
        greeted = protocol.hello()
        if ahead is not None:
            ahead(protocol)
        await greeted
    except RealizeError as error:
        protocol.abort(error)
        if protocol.refused:
            raise WrongPeer("\n".join((str(error), *admission(identities[0].public_key)))) from error
        raise
    except CancelledError:
        protocol.abort(ConnectionFailed(f"connecting to {label} was given up"))
        raise
    except (*UNREACHABLE, ValueError) as error:
        raise unreachable(error, label) from error
    except Exception:
        protocol.abort(ConnectionFailed(f"connecting to {label} failed"))
        raise
    return protocol
