"""TCP to a host: to each address of a name until one answers, or straight to an address."""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConnector, IProtocol, IProtocolFactory
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure


def connect_tcp(reactor: Any, host: str, port: int, factory: IProtocolFactory, timeout: float) -> Deferred[Any]:
    """Connect a protocol of ``factory``; fires when the connection is made.

    ``reactor`` keeps time, connects, and looks names up; ``timeout`` is in seconds.
    Fails with `realize.wire.connecting.UNREACHABLE`, or with ValueError for what cannot be the name of a host.
    """
    if isIPAddress(host) or isIPv6Address(host):
        attempt = _Attempt(reactor, factory)
        attempt.connector = reactor.connectTCP(host, port, attempt, timeout)
        return attempt.made

    # An address needs no look-up, and a short run to one does without these, which take a thirtieth of it.
    from twisted.internet.endpoints import HostnameEndpoint

    return HostnameEndpoint(reactor, host, port, timeout=timeout).connect(factory)


class _Attempt(ClientFactory):
    """One attempt to connect to an address."""

    noisy = False
    connector: IConnector

    def __init__(self, reactor: Any, factory: IProtocolFactory) -> None:
        self._reactor = reactor
        self._factory = factory
        self.made = Deferred[None](lambda _: self.connector.disconnect())

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, address: IAddress) -> IProtocol | None:  # type: ignore[override]
        # Twisted connects the protocol to its transport when it has got it, and then goes on with what is due.
        self._reactor.callLater(0, self._connected)
        return self._factory.buildProtocol(address)

    def clientConnectionFailed(self, _: IConnector, reason: Failure) -> None:
        if not self.made.called:
            self.made.errback(reason)

    def _connected(self) -> None:
        if not self.made.called:
            self.made.callback(None)
