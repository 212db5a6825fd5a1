"""``throttle:`` in front of any endpoint string, for any Twisted application.

``throttle:tcp:example.org:80:rate=1M:burst=64k`` connects as ``tcp:example.org:80`` does and sends at most 1 MiB/s.
``rate``, ``burst`` and ``name`` belong to this prefix, all other arguments to the endpoint behind it.
All connections of the endpoint together have one limit, which they share evenly; it applies to what this side sends.
Endpoints whose limits have the same ``name`` share one, which ``realize.throttle.limits`` has under it.

The layer sits next to the application: ``throttle:tls:example.org:443:rate=1M`` throttles what is written into TLS, so
the handshake is not held back; what TLS adds to each record is counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

from realize.by_value import ByValue
from realize.errors import UsageError
from realize.throttle import limits
from realize.throttle.factory import ThrottledFactory
from realize.throttle.rates import check_burst, check_rate
from realize.throttle.shared_limits import SharedLimit
from realize.units import parse_rate, parse_size


@implementer(IStreamClientEndpoint)
@define(eq=False, repr=False)
class ThrottledClientEndpoint:
    """Connects through ``inner``; all connections made share one ``limit``."""

    _inner: IStreamClientEndpoint
    limit: SharedLimit

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; the Deferred fires with the application's protocol, not the layer around it."""
        connecting: Deferred[Any] = self._inner.connect(_throttled(protocolFactory, self.limit))
        return connecting.addCallback(lambda paced: paced.wrappedProtocol)

    def set_rate(self, rate: float | None, burst: float | None = None) -> None:
        """Change the limit, also for what is connected: see `SharedLimit.set_rate`."""
        self.limit.set_rate(rate, burst)


@implementer(IStreamServerEndpoint)
@define(eq=False, repr=False)
class ThrottledServerEndpoint:
    """Listens through ``inner``; all connections accepted share one ``limit``."""

    _inner: IStreamServerEndpoint
    limit: SharedLimit

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen for connections of ``protocolFactory``."""
        return self._inner.listen(_throttled(protocolFactory, self.limit))

    def set_rate(self, rate: float | None, burst: float | None = None) -> None:
        """Change the limit, also for what is connected: see `SharedLimit.set_rate`."""
        self.limit.set_rate(rate, burst)


def throttle_client(
    reactor: IReactorTime,
    endpoint: IStreamClientEndpoint,
    rate: float | None,
    burst: float | None = None,
    *,
    name: str | None = None,
) -> ThrottledClientEndpoint:
    """Wrap ``endpoint``: its connections together send at most ``rate`` bytes per second, ``burst`` bytes at once.

    With a ``name``, all that has this name shares the limit, which is ``realize.throttle.limits[name]``.
    Raises `ValueError` if rate or burst are not valid, or not those that the name was given before.
    """
    return ThrottledClientEndpoint(endpoint, _limit(reactor, rate, burst, name))


def throttle_server(
    reactor: IReactorTime,
    endpoint: IStreamServerEndpoint,
    rate: float | None,
    burst: float | None = None,
    *,
    name: str | None = None,
) -> ThrottledServerEndpoint:
    """Wrap ``endpoint``, as `throttle_client` does for what it accepts."""
    return ThrottledServerEndpoint(endpoint, _limit(reactor, rate, burst, name))


def _limit(clock: IReactorTime, rate: float | None, burst: float | None, name: str | None) -> SharedLimit:
    return SharedLimit(clock, rate, burst) if name is None else limits.share(name, clock, rate, burst)


def _throttled(factory: IProtocolFactory, limit: SharedLimit) -> ThrottledFactory:
    return ThrottledFactory(factory, limit.clock, limit.flow)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser)
class ThrottleParser:
    """Parses ``throttle:`` descriptions; raises `ValueError`, saying what is wrong, for one that makes no sense."""

    prefix = "throttle"

    def parseStreamClient(self, reactor: Any, *args: object, **kwargs: object) -> ThrottledClientEndpoint:
        """The client endpoint that the arguments describe."""
        options = _parse(args, kwargs)
        inner = clientFromString(reactor, options.inner)
        with _said_of_the_prefix():
            return throttle_client(reactor, inner, options.rate, options.burst, name=options.name)

    def parseStreamServer(self, reactor: Any, *args: object, **kwargs: object) -> ThrottledServerEndpoint:
        """The server endpoint that the arguments describe."""
        options = _parse(args, kwargs)
        inner = serverFromString(reactor, options.inner)
        with _said_of_the_prefix():
            return throttle_server(reactor, inner, options.rate, options.burst, name=options.name)


@frozen(eq=False, repr=False)
class _Description(ByValue):
    """What a description says: rate, burst and name of the limit, and the description of the inner endpoint."""

    rate: float | None
    burst: int | None
    name: str | None
    inner: str


def _parse(args: tuple[object, ...], kwargs: Mapping[str, object]) -> _Description:
    named = {key: str(value) for key, value in kwargs.items()}
    rate, burst = named.pop("rate", ""), named.pop("burst", "")
    name = named.get("name") if _names_a_socket(args) else named.pop("name", None)
    if not rate:
        raise ValueError("throttle: needs rate=, bytes per second such as 512k or 1.5MiB/s")
    if not args:
        raise ValueError("throttle: needs an endpoint behind it, as in throttle:tcp:example.org:80:rate=1M")
    inner = [*(_quoted(str(arg)) for arg in args), *(f"{_quoted(key)}={_quoted(named[key])}" for key in sorted(named))]
    with _said_of_the_prefix():
        options = _Description(parse_rate(rate), parse_size(burst) if burst else None, name, ":".join(inner))
        check_rate(options.rate)
        check_burst(options.burst, options.rate)
    return options


def _names_a_socket(args: tuple[object, ...]) -> bool:
    """Whether ``name`` goes on to the endpoint as well: ``systemd:`` finds a socket by it, and the limit has it too."""
    behind = itertools.dropwhile(lambda prefix: prefix in {"haproxy", "throttle"}, args)
    return next(behind, None) == "systemd"


@contextmanager
def _said_of_the_prefix() -> Iterator[None]:
    """Raise what is wrong as a `ValueError` that names this prefix: there may be several in a description."""
    try:
        yield
    except (UsageError, ValueError) as error:
        raise ValueError(f"throttle: {error}") from None


def _quoted(text: str) -> str:
    # Twisted's function does not quote the equals sign, which would turn a positional argument into a keyword.
    return quoteStringArgument(text).replace("=", "\\=")  # type: ignore[no-any-return]
