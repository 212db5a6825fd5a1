"""A program that limits what its own protocol sends."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocol, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory

from realize.throttle.endpoints import throttle_client, throttle_server
from realize.units import parse_rate


def serve(reactor: Any, factory: Factory) -> Deferred[IListeningPort]:
    """At 1 MiB/s at most."""
    endpoint: IStreamServerEndpoint = throttle_server(reactor, serverFromString(reactor, "tcp:0"), parse_rate("1M"))
    return endpoint.listen(factory)


def ask(reactor: Any, factory: Factory) -> Deferred[IProtocol]:
    """Without a limit, for now."""
    endpoint: IStreamClientEndpoint = throttle_client(reactor, clientFromString(reactor, "tcp:localhost:1"), None)
    return endpoint.connect(factory)
