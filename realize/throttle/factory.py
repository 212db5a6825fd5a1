"""The factory that puts a `realize.throttle.transport.ThrottledProtocol` around every protocol of another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from realize.throttle.scheduler import Flow
from realize.throttle.transport import ThrottledProtocol, log_prefix


class ThrottledFactory(ClientFactory):
    """Puts a `ThrottledProtocol` around every protocol of ``wrapped``, a factory of clients or of servers.

    ``flow`` makes the flow of a connection once it is made: of the protocols that are built, some never are connected.
    Without it, a connection has no limit until `ThrottledProtocol.use`.
    """

    noisy = False

    def __init__(self, wrapped: IProtocolFactory, clock: IReactorTime, flow: Callable[[], Flow] | None = None) -> None:
        self.wrappedFactory: Any = wrapped
        self._clock = clock
        self._flow = flow
        if IProtocolNegotiationFactory.providedBy(wrapped):
            alsoProvides(self, IProtocolNegotiationFactory)

    def buildProtocol(self, addr: IAddress | None) -> ThrottledProtocol | None:
        """A throttled protocol, or None if the wrapped factory refuses the connection."""
        protocol = self.wrappedFactory.buildProtocol(addr)
        if protocol is None:
            return None
        paced = ThrottledProtocol(self._clock, protocol, self._flow)
        paced.factory = self
        return paced

    def acceptableProtocols(self) -> list[bytes]:
        """The ALPN protocols of the wrapped factory."""
        return self.wrappedFactory.acceptableProtocols()  # type: ignore[no-any-return]

    def doStart(self) -> None:
        """Forward that the factory is in use."""
        self.wrappedFactory.doStart()
        super().doStart()

    def doStop(self) -> None:
        """Forward that the factory is no longer in use."""
        self.wrappedFactory.doStop()
        super().doStop()

    def startedConnecting(self, connector: IConnector) -> None:
        """Forward that a client connects."""
        self.wrappedFactory.startedConnecting(connector)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Forward that a client could not connect."""
        self.wrappedFactory.clientConnectionFailed(connector, reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        """Forward that a client was disconnected."""
        self.wrappedFactory.clientConnectionLost(connector, reason)

    def logPrefix(self) -> str:
        """The wrapped factory's prefix, marked as paced."""
        return log_prefix(self.wrappedFactory)
