"""``throttle:`` in front of any endpoint string, for any Twisted application.

``throttle:tcp:example.org:80:rate=1M:burst=64k`` connects as ``tcp:example.org:80`` does and sends at most 1 MiB/s.
``rate`` and ``burst`` belong to this prefix, all other arguments to the endpoint behind it.
All connections of the endpoint together have one limit, which they share evenly; it applies to what this side sends.

The layer sits next to the application: ``throttle:tls:example.org:443:rate=1M`` throttles what is written into TLS, so
the handshake is not held back; what TLS adds to each record is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define
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

from realize.errors import UsageError
from realize.throttle.buckets import Bucket
from realize.throttle.rates import check_burst, check_rate
from realize.throttle.scheduler import Flow, Scheduler
from realize.throttle.transport import ThrottledFactory
from realize.units import parse_rate, parse_size


class _EndpointLimit:
    """The limit that all connections of an endpoint share; each has a flow."""

    def __init__(self, clock: IReactorTime, rate: float | None, burst: float | None) -> None:
        self._clock = clock
        self._root = Bucket(rate, burst)
        self._scheduler = Scheduler(clock, self._root)

    def wrap(self, factory: IProtocolFactory) -> ThrottledFactory:
        return ThrottledFactory(factory, self._clock, self._flow)

    def _flow(self) -> Flow:
        return self._scheduler.flow(Bucket(parent=self._root))


@implementer(IStreamClientEndpoint)
@define(eq=False)
class ThrottledClientEndpoint:
    """Connects through ``inner``; all connections made share one ``limit``."""

    _inner: IStreamClientEndpoint
    _limit: _EndpointLimit

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; the Deferred fires with the application's protocol, not the layer around it."""
        connecting: Deferred[Any] = self._inner.connect(self._limit.wrap(protocolFactory))
        return connecting.addCallback(lambda paced: paced.wrappedProtocol)


@implementer(IStreamServerEndpoint)
@define(eq=False)
class ThrottledServerEndpoint:
    """Listens through ``inner``; all connections accepted share one ``limit``."""

    _inner: IStreamServerEndpoint
    _limit: _EndpointLimit

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen for connections of ``protocolFactory``."""
        return self._inner.listen(self._limit.wrap(protocolFactory))


def throttle_client(
    reactor: IReactorTime, endpoint: IStreamClientEndpoint, rate: float | None, burst: float | None = None
) -> ThrottledClientEndpoint:
    """Wrap ``endpoint``: its connections together send at most ``rate`` bytes per second, ``burst`` at once."""
    return ThrottledClientEndpoint(endpoint, _EndpointLimit(reactor, rate, burst))


def throttle_server(
    reactor: IReactorTime, endpoint: IStreamServerEndpoint, rate: float | None, burst: float | None = None
) -> ThrottledServerEndpoint:
    """Wrap ``endpoint``: its connections together send at most ``rate`` bytes per second, ``burst`` at once."""
    return ThrottledServerEndpoint(endpoint, _EndpointLimit(reactor, rate, burst))


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser)
class ThrottleParser:
    """Parses ``throttle:`` descriptions; raises `ValueError`, saying what is wrong, for one that makes no sense."""

    prefix = "throttle"

    def parseStreamClient(self, reactor: Any, *args: object, **kwargs: object) -> ThrottledClientEndpoint:
        """The client endpoint that the arguments describe."""
        limits, description = _parse(args, kwargs)
        inner = clientFromString(reactor, description)
        return throttle_client(reactor, inner, *limits)

    def parseStreamServer(self, reactor: Any, *args: object, **kwargs: object) -> ThrottledServerEndpoint:
        """The server endpoint that the arguments describe."""
        limits, description = _parse(args, kwargs)
        inner = serverFromString(reactor, description)
        return throttle_server(reactor, inner, *limits)


def _parse(args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[tuple[float | None, float | None], str]:
    """Rate and burst, and the description of the inner endpoint, put together and quoted again."""
    named = {key: str(value) for key, value in kwargs.items()}
    limits = _limits(named.pop("rate", ""), named.pop("burst", ""))
    if not args:
        raise ValueError("throttle: needs an endpoint behind it, as in throttle:tcp:example.org:80:rate=1M")
    options = [f"{_quoted(key)}={_quoted(value)}" for key, value in sorted(named.items())]
    return limits, ":".join([*(_quoted(str(arg)) for arg in args), *options])


def _limits(rate: str, burst: str) -> tuple[float | None, float | None]:
    if not rate:
        raise ValueError("throttle: needs rate=, bytes per second such as 512k or 1.5MiB/s")
    try:
        limit = parse_rate(rate)
        check_rate(limit)
        saved = parse_size(burst) if burst else None
        check_burst(saved, limit)
    except UsageError as error:
        raise ValueError(f"throttle: {error}") from None
    return limit, saved


def _quoted(text: str) -> str:
    # Twisted's function does not quote the equals sign, which would turn a positional argument into a keyword.
    return quoteStringArgument(text).replace("=", "\\=")  # type: ignore[no-any-return]
