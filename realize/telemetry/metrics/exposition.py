"""Serve a registry of metrics over HTTP: ``/metrics`` for Prometheus, ``/healthz`` for supervisors, and other pages.

`Exposition` is the factory to listen with, and `listen` listens at an endpoint string.
Of `twisted.web` only the HTTP parser is used, because a ``Site`` wakes up every second for the date of its access log.
The resource that `prometheus_client` offers is WSGI and would queue behind disk jobs in the reactor's threads; here the
answer is made at once in the reactor's thread (`docs/metrics.md` says how long that takes).

Invariants: a connection carries one request and lives for at most `REQUEST_TIMEOUT_S`; there are at most `MAX_SCRAPES`
connections, and a new one beyond that closes the oldest; the header of a request is bounded in size, and its body is
discarded as it arrives; the metrics are rendered at most once every `CACHE_S` for each format.
So a client that is silent, slow to ask or to read, or asks too often costs little and keeps no other client out.
"""

from __future__ import annotations

import ipaddress
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import frozen
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure
from twisted.web import http

from realize.by_value import ByValue
from realize.errors import ConfigError
from realize.logger import Logger

REQUEST_TIMEOUT_S: Final = 10.0
"""Time limit for a request and its answer together; Prometheus' own default timeout for a scrape."""

MAX_SCRAPES: Final = 16
"""Connections at one time."""

CACHE_S: Final = 0.25
"""How long rendered metrics are reused, which bounds the work for a client that asks too often."""

PLAIN: Final = "text/plain; charset=utf-8"

Health = Callable[[], tuple[bool, str]]
"""Returns whether the service is working, and a short text for people."""


class _OwnRegistry(CollectorRegistry):
    """Leaves out the gauge of its creation time that each counter has; what other registries show is not ours."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def new_registry() -> CollectorRegistry:
    """A registry for one service.

    The global registry cannot hold two services, and has metrics of the process, which must not be pushed since they
    would stay when it is gone.
    """
    return _OwnRegistry(auto_describe=True)


def listen(
    endpoint_of: Callable[[str], IStreamServerEndpoint], description: str, exposition: Exposition
) -> Deferred[IListeningPort]:
    """Serve at the endpoint of a string; fails with a `ConfigError` whose text begins with that string."""

    def refused(failure: Failure) -> IListeningPort:
        failure.trap(ValueError, TypeError, CannotListenError, OSError)
        raise ConfigError(f"{description}: {failure.getErrorMessage()}")

    opening = maybeDeferred(lambda: endpoint_of(description).listen(exposition))
    return opening.addErrback(refused)


def wants_openmetrics(accept: str) -> bool:
    """Whether an ``Accept`` header prefers OpenMetrics 1.0 to the classic text format (RFC 9110, 12.5.1)."""
    openmetrics_quality = text_quality = 0.0
    for part in accept.split(","):
        kind, *parameters = (each.strip().lower() for each in part.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        quality = _quality(values.get("q", "1"))
        if kind == "application/openmetrics-text" and values.get("version", "1.0.0").strip('"') == "1.0.0":
            openmetrics_quality = max(openmetrics_quality, quality)
        elif kind in {"text/plain", "text/*", "*/*"}:
            text_quality = max(text_quality, quality)
    return openmetrics_quality > 0 and openmetrics_quality >= text_quality


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # of a Unix socket, for example
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


@frozen(kw_only=True, eq=False, repr=False)
class HttpAsked(ByValue):
    """What was asked with GET or HEAD.

    ``path`` is as it was sent, without the query; ``host`` and ``accept`` are those headers, empty if there are none.
    ``on_loopback`` says whether the connection came to a loopback address.
    """

    path: bytes
    host: str = ""
    accept: str = ""
    on_loopback: bool = False


@frozen(eq=False, repr=False)
class HttpAnswer(ByValue):
    """An answer; ``headers`` are those besides its type, its length and that it must not be stored."""

    code: int
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Pages = Mapping[bytes, Callable[[HttpAsked], HttpAnswer]]
"""What answers which other paths; called in the reactor's thread, so it must not wait."""


class _Request(http.Request):
    """One request, answered as soon as it has arrived."""

    channel: Any

    def handleContentChunk(self, _: bytes) -> None:
        """Discard the body of a request."""

    def process(self) -> None:
        """Answer the request."""
        if self.method in {b"GET", b"HEAD"}:
            asked = HttpAsked(
                path=self.path,
                host=",".join(self.requestHeaders.getRawHeaders("host", [])),
                accept=",".join(self.requestHeaders.getRawHeaders("accept", [])),
                on_loopback=_is_loopback(getattr(self.channel.transport.getHost(), "host", "")),
            )
            answer = self.channel.factory.answer(asked)
        else:
            answer = HttpAnswer(http.NOT_ALLOWED, PLAIN, b"GET or HEAD\n")
            self.setHeader("allow", "GET, HEAD")
        self.setResponseCode(answer.code)
        self.setHeader("content-type", answer.kind)
        self.setHeader("content-length", str(len(answer.body)))
        self.setHeader("cache-control", "no-store")
        for name, value in answer.headers:
            self.setHeader(name, value)
        self.write(answer.body)
        self.finish()


class _Channel(http.HTTPChannel):
    """One connection, for one request."""

    factory: Exposition
    transport: Any
    requestFactory = _Request
    timeOut = None
    totalHeadersSize = 8192
    maxHeaders = 64
    _limit: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start the time limit."""
        super().connectionMade()
        self._limit = self.factory.clock.callLater(REQUEST_TIMEOUT_S, self.abort)
        self.factory.arrived(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the time limit."""
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        self.factory.left(self)
        super().connectionLost(reason)

    def checkPersistence(self, request: http.Request, _version: bytes) -> bool:
        """Close the connection after this request."""
        request.responseHeaders.setRawHeaders("connection", ["close"])
        return False

    def abort(self) -> None:
        """Close at once, dropping what is unsent."""
        self.transport.abortConnection()


class Exposition(ServerFactory):
    """Serves ``registry``; ``health`` is asked for ``/healthz``, and ``pages`` have paths of their own."""

    noisy = False
    protocol = _Channel  # type: ignore[assignment]

    def __init__(
        self,
        registry: CollectorRegistry,
        health: Health,
        *,
        clock: IReactorTime,
        log: Logger,
        pages: Pages = MappingProxyType({}),
    ) -> None:
        self.clock = clock
        self._registry = registry
        self._health = health
        self._pages = pages
        self._log = log
        self._connections: dict[_Channel, None] = {}
        self._made: dict[bool, tuple[float, HttpAnswer]] = {}

    def answer(self, asked: HttpAsked) -> HttpAnswer:
        """The answer to a GET."""
        if asked.path == b"/metrics":
            return self._metrics(asked.accept)
        if asked.path == b"/healthz":
            ready, text = self._health()
            return HttpAnswer(http.OK if ready else http.SERVICE_UNAVAILABLE, PLAIN, f"{text}\n".encode())
        page = self._pages.get(asked.path)
        if page is not None:
            return page(asked)
        there = b", ".join([*self._pages, b"/metrics"])
        return HttpAnswer(http.NOT_FOUND, PLAIN, b"%s or /healthz\n" % there)

    def _metrics(self, accept: str) -> HttpAnswer:
        preferred = wants_openmetrics(accept)
        now = self.clock.seconds()
        made_at, answer = self._made.get(preferred, (-math.inf, None))
        if answer is None or not 0 <= now - made_at < CACHE_S:
            answer = self._render(openmetrics=preferred)
            self._made[preferred] = now, answer
        return answer

    def _render(self, *, openmetrics: bool) -> HttpAnswer:
        try:
            if openmetrics:
                return HttpAnswer(http.OK, CONTENT_TYPE_LATEST, generate_openmetrics(self._registry))
            return HttpAnswer(http.OK, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry))
        except Exception:  # noqa: BLE001 -- a bug of ours must not leave the client without an answer
            self._log.error("metrics_failed", exc=traceback.format_exc())
            return HttpAnswer(http.INTERNAL_SERVER_ERROR, PLAIN, b"see the log\n")

    def close(self) -> None:
        """Close the remaining connections; stop listening first."""
        for connection in list(self._connections):
            connection.abort()

    # Called by the connections.

    def arrived(self, connection: _Channel) -> None:
        """Add a new connection, closing the oldest if there are too many."""
        if len(self._connections) >= MAX_SCRAPES:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.abort()
        self._connections[connection] = None

    def left(self, connection: _Channel) -> None:
        """Forget a connection that has ended."""
        self._connections.pop(connection, None)

    def log(self, request: http.Request) -> None:
        """Do nothing: `twisted.web` calls this for each request, and a line for each scrape would flood the log."""
