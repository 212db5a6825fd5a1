"""The accepting side: limits on unauthenticated connections, and the registry of authenticated ones.

`PeerServerFactory` owns the connections of one service.
A connection is unauthenticated until its Hello has been accepted.
It has `HANDSHAKE_TIMEOUT_S` seconds for that, and there may be `MAX_UNAUTHENTICATED_CONNECTIONS` such connections.
When one more arrives, the oldest connection of the address that holds most of them is closed, so that one address
cannot keep the others out.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Final

from attrs import evolve, frozen
from OpenSSL import SSL
from twisted.internet.defer import DeferredList
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from realize.by_value import ByValue
from realize.errors import Busy, ConnectionFailed, ProtocolError, RealizeError, WrongPeer
from realize.keys import Identity, PublicKey
from realize.logger import Logger
from realize.tracing import run_of
from realize.wire.client import Wrap
from realize.wire.coarse_timers import CoarseTimers
from realize.wire.commands import Goodbye, Reason
from realize.wire.connection import Greeting, PeerProtocol, Role
from realize.wire.every_address import without_mapping
from realize.wire.responding import Watch
from realize.wire.tls import (
    IO_CHUNK_BYTES,
    AcceptingTLS,
    handshake_error,
    own_public_key,
    peer_public_key,
    read_at_once,
    tune,
)
from realize.wire.tls_bulk import BulkTLSFactory
from realize.wire.traffic import Traffic

HANDSHAKE_TIMEOUT_S: Final = 10.0
"""For the TLS handshake and Hello together."""

FULL_READ_CONNECTIONS: Final = 16
"""Up to this many connections read `realize.wire.tls.IO_CHUNK_BYTES` bytes each in a turn of the reactor; more of them
share that total.

A turn in which all of them read then takes 0.14 s.  When each of 64 read the full amount, an answer took 486 ms (99th
percentile) and the daemon 317 MiB; when each of 16 read a sixteenth of it, they carried a tenth less.
"""

MIN_READ_BYTES: Final = 128 * 1024
"""Each connection may read at least this much in a turn, however many there are."""

MAX_UNAUTHENTICATED_CONNECTIONS: Final = 64
"""Connections that may be waiting for their Hello to be accepted."""

MAX_PEER_CONNECTIONS: Final = 64
"""Connections that one peer may have; as the cost of each is bounded, so is that of a peer."""

OnWelcome = Callable[["AcceptedProtocol", str, Greeting], object]
"""Called with the name of the peer when one with a known key has sent Hello.

Gives the connection its responders with `PeerProtocol.serve`.
"""


class AcceptedProtocol(PeerProtocol):
    """The accepting side of a connection."""

    factory: PeerServerFactory
    address: str = ""
    number: int = 0
    """Distinguishes this connection from the others of the service."""
    key: PublicKey | None = None
    """The key that the peer has shown, once it has said Hello."""
    shown: PublicKey | None = None
    """Which of our keys it was shown, once it has said Hello."""
    origin: PublicKey | None = None
    """The key by which it is known what came from the peer; set by who welcomes it."""
    told = False
    """Whether the refusal of this connection has been logged."""
    _timeout: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start the handshake timeout."""
        tune(self.transport)
        super().connectionMade()
        self._timeout = self.clock.callLater(HANDSHAKE_TIMEOUT_S, self._timed_out)
        self.factory.arrived(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the registry, and report a failed handshake as a refusal."""
        try:
            self.admitted()
            if isinstance(reason.value, SSL.Error) and self.theirs is None and not self.told and self.ending() is None:
                self.factory.note_refusal("handshake", self.address, None, handshake_error(reason.value))
        finally:
            try:
                super().connectionLost(reason)
            finally:
                self.factory.left(self)

    def is_of(self, run: str) -> bool:
        """Return whether this is a connection of that run; an empty ``run`` matches none."""
        return bool(run) and self.theirs is not None and self.theirs.run == run

    def admitted(self) -> None:
        """Stop the handshake timeout."""
        timeout, self._timeout = self._timeout, None
        if timeout is not None and timeout.active():
            timeout.cancel()

    def _timed_out(self) -> None:
        self._timeout = None
        self.factory.note_refusal("timeout", self.address, None, f"no Hello within {HANDSHAKE_TIMEOUT_S:.0f} seconds")
        self.abort(ConnectionFailed("no Hello in time"))


class _Closed(AcceptedProtocol):
    """A connection that arrives while the service is closing: it is closed at once, and not counted."""

    def connectionMade(self) -> None:
        """Close at once."""
        self.transport.abortConnection()

    def connectionLost(self, _: Failure = connectionDone) -> None:
        """Do nothing: the connection was never registered."""


@frozen(eq=False, repr=False)
class Refusal(ByValue):
    """A refused connection; for metrics."""

    reason: str
    address: str
    fingerprint: str


class PeerServerFactory(Factory):
    """Builds the accepted connections and keeps track of them.

    ``watch`` is told of every command that any connection receives; see `realize.wire.responding`.
    ``identities`` are our keys, newest first; each peer is shown the first one that it accepts.
    ``known`` answers the name of the peer for each key that is let in; it is called at every handshake, so that a
    reload takes effect at once.
    Listen with what `secured` returns, never with the factory itself: that would be without TLS.
    """

    noisy = False

    def __init__(
        self,
        *,
        clock: IReactorTime,
        log: Logger,
        identities: Sequence[Identity],
        greeting: Greeting,
        known: Callable[[], Mapping[PublicKey, str]],
        welcome: OnWelcome,
        on_refusal: Callable[[Refusal], None] = lambda _: None,
        watch: Watch | None = None,
        max_unauthenticated: int = MAX_UNAUTHENTICATED_CONNECTIONS,
    ) -> None:
        self.clock = clock
        self.log = log
        self._timers = CoarseTimers(clock)
        self._turn = IO_CHUNK_BYTES
        self.connections: dict[str, set[AcceptedProtocol]] = {}
        """The authenticated connections, by name of the peer."""
        self._connected = 0
        """How many of these there are."""
        self._identities = identities
        self.greeting = greeting
        """What peers are told about us; for connections that come."""
        self._known = known
        self._welcome = welcome
        self._on_refusal = on_refusal
        self._watch = watch
        self._ended: dict[str, Traffic] = {}
        """Traffic of connections that have ended, by name of the peer; an empty name for the unauthenticated ones."""
        self._max_unauthenticated = max_unauthenticated
        self._unauthenticated: dict[AcceptedProtocol, str] = {}
        self._closing = False
        self._count = 0

    def secured(self, wrap: Wrap | None = None) -> BulkTLSFactory:
        """Return the factory to listen with; ``wrap`` inserts a layer between TLS and AMP."""
        inner: IProtocolFactory = self if wrap is None else wrap(self)
        tls = AcceptingTLS(
            self._identities, lambda key: key in self._known(), self._certificate_refused, known=self._known
        )
        return BulkTLSFactory(tls, isClient=False, wrappedFactory=inner, clock=self.clock)

    def __iter__(self) -> Iterator[AcceptedProtocol]:
        """Iterate over all authenticated connections."""
        for connections in list(self.connections.values()):
            yield from list(connections)

    @property
    def unauthenticated(self) -> int:
        """Number of unauthenticated connections."""
        return len(self._unauthenticated)

    def traffic(self) -> dict[str, Traffic]:
        """Return the traffic so far by name of the peer, including connections that have ended.

        Unauthenticated connections have an empty name.
        """
        found = {name: evolve(traffic) for name, traffic in self._ended.items()}
        for connection in (*self._unauthenticated, *self):
            found.setdefault(connection.name, Traffic()).add(connection.traffic())
        return found

    def forget_all_but(self, names: Container[str]) -> None:
        """Forget the traffic of ended connections, but for that of these peers, and of unauthenticated ones."""
        self._ended = {name: traffic for name, traffic in self._ended.items() if not name or name in names}

    def buildProtocol(self, addr: IAddress | None) -> AcceptedProtocol:  # type: ignore[override]
        """Return a protocol for a connection from ``addr``; never None, which the TLS wrapper cannot handle."""
        self._count += 1
        address = without_mapping(getattr(addr, "host", str(addr)))
        make = _Closed if self._closing else AcceptedProtocol
        protocol = make(
            clock=self.clock,
            log=self.log.bind(conn=self._count, address=address),
            greeting=self.greeting,
            role=Role.ACCEPTING,
            label=address,
            welcome=self._admit,
            timers=self._timers,
        )
        protocol.factory = self
        protocol.address = address
        protocol.number = self._count
        if self._watch is not None:
            protocol.watch = self._watch
        return protocol

    # Called by the connections.

    def arrived(self, protocol: AcceptedProtocol) -> None:
        """Register a new connection as unauthenticated, evicting another one if there are too many."""
        if len(self._unauthenticated) >= self._max_unauthenticated:
            self._evict()
        self._unauthenticated[protocol] = _network(protocol.address)

    def joined(self, protocol: AcceptedProtocol, name: str) -> None:
        """Register a connection as one of the peer called ``name``."""
        self._unauthenticated.pop(protocol, None)
        self.connections.setdefault(name, set()).add(protocol)
        self._connected += 1
        self._share_turns(name)
        read_at_once(protocol.transport, self._turn)

    def left(self, protocol: AcceptedProtocol) -> None:
        """Remove a connection that has ended from the registry."""
        self._unauthenticated.pop(protocol, None)
        self._ended.setdefault(protocol.name, Traffic()).add(protocol.traffic())
        known = self.connections.get(protocol.name)
        if known is not None and protocol in known:
            known.discard(protocol)
            if not known:
                del self.connections[protocol.name]
            self._connected -= 1
            self._share_turns(protocol.name)
            reason = "was lost" if protocol.goodbye is None else protocol.goodbye.value
            protocol.log.info(
                "peer_disconnected", reason=reason, received=protocol.bytes_received, sent=protocol.bytes_sent
            )

    def _share_turns(self, name: str) -> None:
        """Divide what is done in a turn of the reactor among the connections, so that each gets its turn soon.

        One of the peer called ``name`` has come or gone. It is nothing to those of others, of which there may be very
        many, once each may read no less than `MIN_READ_BYTES`.
        """
        connections = self.connections.get(name, ())
        for connection in connections:
            connection.reading.sharing = len(connections)
        amount = turn(self._connected)
        if amount != self._turn:
            self._turn = amount
            for connection in self:
                read_at_once(connection.transport, amount)

    def note_refusal(self, reason: str, address: str, key: PublicKey | None, text: str) -> None:
        """Count and log a refusal; the log itself limits bursts."""
        fingerprint = key.fingerprint if key is not None else ""
        self._on_refusal(Refusal(reason, address, fingerprint))
        self.log.warning("peer_refused", reason=reason, address=address, fingerprint=fingerprint, error=text)

    def _certificate_refused(
        self, connection: TLSMemoryBIOProtocol, error: RealizeError, key: PublicKey | None
    ) -> None:
        inner = connection.wrappedProtocol
        while not isinstance(inner, AcceptedProtocol) and hasattr(inner, "wrappedProtocol"):
            inner = inner.wrappedProtocol
        if isinstance(inner, AcceptedProtocol):
            inner.told = True
        self.note_refusal("pin_unknown", getattr(inner, "address", ""), key, str(error))

    def _admit(self, protocol: PeerProtocol, greeting: Greeting) -> str:
        if not isinstance(protocol, AcceptedProtocol):
            raise ProtocolError("not one of our connections")
        key = peer_public_key(protocol.transport)
        name = self._known().get(key)
        if name is None:
            self.note_refusal("pin_unknown", protocol.address, key, "the key is not known any more")
            raise WrongPeer(f"the key {key.fingerprint} is not known")
        held = [each for each in self.connections.get(name, ()) if not each.is_of(greeting.run)]
        if len(held) >= MAX_PEER_CONNECTIONS:
            text = f"this peer has {MAX_PEER_CONNECTIONS} connections already"
            self.note_refusal("limit", protocol.address, key, text)
            raise Busy(text)
        protocol.key, protocol.shown = key, own_public_key(protocol.transport)
        self._welcome(protocol, name, greeting)
        self._supersede(name, greeting.run)
        protocol.admitted()
        protocol.log = protocol.log.bind(peer=name, run=run_of(greeting.run))
        self.joined(protocol, name)
        # `left` looks the connection up by this name, even if it ends before Hello is answered.
        protocol.name = name
        protocol.log.info(
            "peer_accepted",
            software=greeting.software,
            fingerprint=key.fingerprint,
            shown=protocol.shown.fingerprint,
            link=greeting.run,
        )
        return name

    def _supersede(self, name: str, run: str) -> None:
        """Abort the former connections of a run that has reconnected: they are dead, noticed or not."""
        for former in list(self.connections.get(name, ())):
            if former.is_of(run):
                former.log.warning("peer_came_back")
                former.abort(ConnectionFailed("the peer has come back on another connection"))

    def _evict(self) -> None:
        held = Counter(self._unauthenticated.values())
        network, _ = held.most_common(1)[0]
        oldest = next(protocol for protocol, where in self._unauthenticated.items() if where == network)
        del self._unauthenticated[oldest]
        self.note_refusal("limit", oldest.address, None, "too many connections that have not said Hello")
        oldest.abort(ConnectionFailed("too many connections"))

    # Ending.

    async def stop(self, grace: float = 0.0) -> None:
        """Send Goodbye, let running commands finish for at most ``grace`` seconds, and close all connections.

        Returns when all are closed, which takes at most five seconds longer.
        Stop listening first; a connection that arrives nevertheless is closed at once.
        """
        self._closing = True
        unauthenticated, connections = list(self._unauthenticated), list(self)
        lost = [connection.when_lost() for connection in (*unauthenticated, *connections)]
        for connection in unauthenticated:
            connection.abort(ConnectionFailed("the service is shutting down"))
        for connection in connections:
            connection.tell(Goodbye, reason=Reason.DRAINING)
        if grace > 0 and connections:
            idle = DeferredList([connection.when_idle() for connection in connections], consumeErrors=True)
            await idle.addTimeout(grace, self.clock, onTimeoutCancel=lambda *_: None)
        for connection in connections:
            connection.close(Reason.DRAINING)
        await DeferredList(lost)


def turn(connections: int) -> int:
    """Return how many bytes each of ``connections`` may read in a turn."""
    return max(MIN_READ_BYTES, IO_CHUNK_BYTES * FULL_READ_CONNECTIONS // max(FULL_READ_CONNECTIONS, connections))


def _network(address: str) -> str:
    """Return the network that an address is counted for: an IPv6 host may use any address of its /64."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
