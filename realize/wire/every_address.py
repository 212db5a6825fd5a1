"""Listening at all addresses of this machine, IPv4 and IPv6, with one socket.

Twisted's ``tcp:`` endpoint listens at IPv4 addresses alone.
Whether its ``tcp6:`` takes IPv4 as well is a setting of the system (``net.ipv6.bindv6only``), and it fails where there
is no IPv6.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from realize.by_value import ByValue
from realize.config.addresses import LISTEN_BACKLOG, port_of_every_address

_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})
"""What the system says where IPv6 is switched off, or forbidden to this process."""


def server_endpoint_of(reactor: Any, description: str) -> IStreamServerEndpoint:
    """The endpoint that a string of the configuration describes.

    That is a string of Twisted, or one of `realize.config.addresses.server_endpoint` for all addresses.
    Raises what `serverFromString` does.
    """
    port = port_of_every_address(description)
    if port is not None:
        return EveryAddress(reactor, port)
    found: IStreamServerEndpoint = serverFromString(reactor, description)
    return found


def without_mapping(address: str) -> str:
    """The IPv4 address, if that is one as a socket for both families shows it (``::ffff:192.0.2.1``)."""
    with contextlib.suppress(ValueError):
        mapped = getattr(ipaddress.ip_address(address), "ipv4_mapped", None)
        return address if mapped is None else str(mapped)
    return address


@implementer(IStreamServerEndpoint)
@frozen(eq=False, repr=False)
class EveryAddress(ByValue):
    """Listens at a TCP port of all addresses; only of those of IPv4 where there is no IPv6.  Port 0 is any free one."""

    reactor: Any
    port: int

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See `IStreamServerEndpoint`; fails with `CannotListenError`."""
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        with self._opened() as listener:
            # It has a descriptor of its own then.
            found: IListeningPort = self.reactor.adoptStreamPort(listener.fileno(), listener.family, factory)
            return found

    def _opened(self) -> socket.socket:
        try:
            return self._bound(socket.AF_INET6, "::")
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise CannotListenError("any", self.port, error) from error
        try:
            return self._bound(socket.AF_INET, "0.0.0.0")
        except OSError as error:
            raise CannotListenError("any", self.port, error) from error

    def _bound(self, family: socket.AddressFamily, address: str) -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.settimeout(0.0)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind((address, self.port))
            listener.listen(LISTEN_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener
