"""A program that limits what its own protocol sends, to peers whose keys it knows."""

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocol, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from realize.clocks import use_monotonic_clock
from realize.errors import ConnectionFailed, WrongPeer
from realize.keys import Identity, PublicKey
from realize.throttle import SharedLimit, limits
from realize.throttle.endpoints import throttle_client, throttle_server
from realize.throttle.metrics import NamedLimitsCollector
from realize.units import parse_rate
from realize.wire.pinned_endpoint import PinnedClientEndpoint, pinned_server_factory
from realize.wire.tls import peer_public_key


class Greeter(Protocol):
    """Knows whom it talks to."""

    def connectionMade(self) -> None:
        key: PublicKey = peer_public_key(self.transport)
        self.fingerprint = key.fingerprint


def serve(reactor: Any, identity: Identity, friends: set[PublicKey]) -> Deferred[IListeningPort]:
    """At 1 MiB/s at most."""
    use_monotonic_clock(reactor)
    endpoint: IStreamServerEndpoint = throttle_server(
        reactor, serverFromString(reactor, "tcp:0"), parse_rate("1M"), name="greetings"
    )
    factory = pinned_server_factory(identity, friends.__contains__, Factory.forProtocol(Greeter), reactor)
    return endpoint.listen(factory)


def ask(reactor: Any, factory: Factory) -> Deferred[IProtocol]:
    """Without a limit, for now."""
    endpoint: IStreamClientEndpoint = throttle_client(reactor, clientFromString(reactor, "tcp:localhost:1"), None)
    return endpoint.connect(factory)


def ask_friend(reactor: Any, identity: Identity, pin: PublicKey, factory: Factory) -> Deferred[IProtocol]:
    """By the key, and with a limit of its own."""
    pinned: IStreamClientEndpoint = PinnedClientEndpoint(reactor, "localhost", 9771, identity, pin)
    return throttle_client(reactor, pinned, 1 << 20, burst=64_000).connect(factory)


def may_be_better_later(failure: Failure) -> bool:
    """Whether to try again."""
    return failure.trap(WrongPeer, ConnectionFailed) is ConnectionFailed


def slow_down(registry: CollectorRegistry) -> tuple[float | None, int, int]:
    """What was sent at which rate, and what waits."""
    registry.register(NamedLimitsCollector())
    limit: SharedLimit = limits["greetings"]
    limit.set_rate(4 << 10)
    limits.forget("greetings")
    return limit.rate, limit.sent, limit.waiting
