"""Metrics over HTTP: `realize.telemetry.metrics.exposition`."""

from __future__ import annotations

import re
from functools import partial

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter, generate_latest
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor, StringTransport

from realize.errors import ConfigError
from realize.telemetry.metrics.exposition import (
    CACHE_S,
    MAX_SCRAPES,
    REQUEST_TIMEOUT_S,
    Exposition,
    HttpAnswer,
    listen,
    new_registry,
    wants_openmetrics,
)

PROMETHEUS = (  # what Prometheus 3 sends
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class Served:
    """An exposition of one counter, and connections to it."""

    def __init__(self):
        self.clock = Clock()
        self.registry = new_registry()
        self.health = (True, "ready")
        Counter("realize_things", "Things.", registry=self.registry).inc(3)
        self.factory = Exposition(self.registry, lambda: self.health, clock=self.clock, log=structlog.get_logger())

    def connect(self):
        transport = StringTransport()
        protocol = self.factory.buildProtocol(None)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def ask(self, request):
        """Status, headers and body of the answer; the server has closed the connection."""
        transport = self.connect()
        transport.protocol.dataReceived(request.replace("\n", "\r\n").encode())
        assert transport.disconnecting
        lost(transport)
        head, _, body = transport.value().decode().partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        return int(first.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}, body


def lost(transport):
    from twisted.internet.error import ConnectionDone
    from twisted.python.failure import Failure

    transport.protocol.connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def served():
    served = Served()
    yield served
    assert [] == served.clock.getDelayedCalls()


def test_text_is_the_default(served):
    """Who asks for nothing in particular gets the classic format, which `promtool check metrics` reads."""
    code, headers, body = served.ask("GET /metrics HTTP/1.1\nHost: a\n\n")

    assert (200, "text/plain; version=0.0.4; charset=utf-8") == (code, headers["content-type"])
    assert "close" == headers["connection"]
    assert str(len(body)) == headers["content-length"]
    assert (
        "# HELP realize_things_total Things.\n# TYPE realize_things_total counter\nrealize_things_total 3.0\n" == body
    )


def test_prometheus_gets_openmetrics(served):
    """Who prefers OpenMetrics gets it, with its end mark."""
    code, headers, body = served.ask(f"GET /metrics HTTP/1.1\nHost: a\nAccept: {PROMETHEUS}\n\n")

    assert (200, "application/openmetrics-text; version=1.0.0; charset=utf-8") == (code, headers["content-type"])
    assert "# HELP realize_things Things.\n# TYPE realize_things counter\nrealize_things_total 3.0\n# EOF\n" == body


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text, */*", True),
        ('application/openmetrics-text; version="1.0.0"', True),
        ("text/plain;q=0.5, APPLICATION/openmetrics-text;q=0.7", True),
        ("application/openmetrics-text;q=0.5, text/plain", False),
        ("application/openmetrics-text;q=0.5, */*", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nan", False),
        ("application/openmetrics-text;q=x", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;version=0.0.1,*/*;q=0.1", False),
        (";;=,,;q", False),
        (PROMETHEUS, True),
    ],
)
def test_negotiation(accept, expected):
    """OpenMetrics 1.0 only for those who understand it and do not like the classic format better."""
    assert expected == wants_openmetrics(accept)


def test_a_flood_of_questions_is_answered_with_what_there_is(served):
    """An answer is good for a moment, each format for itself; then it is made anew."""
    made = []

    class Slow:
        def describe(self):
            return []

        def collect(self):
            made.append(1)
            return []

    served.registry.register(Slow())
    for _ in range(5):
        served.ask("GET /metrics HTTP/1.1\nHost: a\n\n")
    served.ask("GET /metrics HTTP/1.1\nHost: a\nAccept: application/openmetrics-text\n\n")
    few = len(made)
    served.clock.advance(CACHE_S)
    served.ask("GET /metrics HTTP/1.1\nHost: a\n\n")

    assert (2, 3) == (few, len(made))


def test_health(served):
    """200 while we work, 503 when not, with a word for people."""
    ready = served.ask("GET /healthz HTTP/1.1\nHost: a\n\n")
    served.health = (False, "draining")
    draining = served.ask("GET /healthz HTTP/1.1\nHost: a\n\n")

    assert (200, "ready\n") == (ready[0], ready[2])
    assert (503, "draining\n") == (draining[0], draining[2])


def test_head_has_no_body(served):
    """HEAD is GET without the body."""
    code, headers, body = served.ask("HEAD /metrics HTTP/1.0\n\n")

    assert (200, "") == (code, body)
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("GET / HTTP/1.1\nHost: a\n\n", 404),
        ("GET /metrics/ HTTP/1.1\nHost: a\n\n", 404),
        ("GET //metrics HTTP/1.1\nHost: a\n\n", 404),
        ("GET /metrics?name[]=x HTTP/1.1\nHost: a\n\n", 200),
        ("POST /metrics HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc", 405),
        ("DELETE /metrics HTTP/1.1\nHost: a\n\n", 405),
        ("POST /healthz HTTP/1.1\nHost: a\nContent-Type: multipart/form-data; boundary=x\nContent-Length: 1\n\nx", 405),
        ("nonsense\n", 400),
        ("GET /metrics HTTP/1.1\nHost: a\n" + "".join(f"h{n}: x\n" for n in range(70)), 400),
        ("GET /" + "a" * 9000 + " HTTP/1.1\n", 400),
    ],
)
def test_nothing_else_is_answered(served, request_, expected):
    """Other paths, other methods, and what is no request."""
    transport = served.connect()
    transport.protocol.dataReceived(request_.replace("\n", "\r\n").encode())
    answer = transport.value().decode()
    lost(transport)

    assert expected == int(answer.split()[1])
    assert transport.disconnecting


def test_one_answer_a_connection(served):
    """A second request on the same connection is not looked at."""
    transport = served.connect()
    transport.protocol.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
    answers = re.findall(rb"HTTP/1.1 200", transport.value())
    lost(transport)

    assert [b"HTTP/1.1 200"] == answers


def test_a_body_takes_no_memory(served):
    """What comes behind a request is thrown away as it arrives."""
    transport = served.connect()
    protocol = transport.protocol
    protocol.dataReceived(b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    for _ in range(10):
        protocol.dataReceived(bytes(1000))
    kept = protocol.requests[0].content.tell()
    lost(transport)

    assert 0 == kept


@pytest.mark.parametrize("asked", [b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_who_is_slow_is_dropped(served, asked):
    """Who is silent, asks slowly or does not read the answer loses the connection in time."""
    transport = served.connect()
    transport.protocol.dataReceived(asked)
    served.clock.advance(REQUEST_TIMEOUT_S - 1)
    transport.protocol.dataReceived(b"x")

    assert not transport.disconnected
    served.clock.advance(1)
    assert transport.disconnected
    lost(transport)


def test_connections_are_few(served):
    """When there are too many connections the oldest goes, so that nobody can keep the others out."""
    transports = [served.connect() for _ in range(MAX_SCRAPES)]
    assert not transports[0].disconnected
    served.connect().protocol.connectionLost()
    code, _, _ = served.ask("GET /healthz HTTP/1.1\nHost: a\n\n")

    assert 200 == code
    assert [True, False] == [each.disconnected for each in transports[:2]]
    served.factory.close()
    assert [True] * MAX_SCRAPES == [each.disconnected for each in transports]
    for transport in transports:
        lost(transport)


def test_a_fault_is_an_answer_too(served):
    """A collector that raises is logged and answered with 500."""

    class Broken:
        def describe(self):
            return []

        def collect(self):
            raise RuntimeError("broken")

    served.registry.register(Broken())
    with structlog.testing.capture_logs() as logs:
        code, _, body = served.ask("GET /metrics HTTP/1.1\nHost: a\n\n")

    assert (500, "see the log\n") == (code, body)
    assert ["metrics_failed"] == [record["event"] for record in logs]


def test_listening(served):
    """An endpoint string is listened on; one that is wrong or taken is an error that names it."""
    reactor = MemoryReactor()
    listened = []
    listen(partial(serverFromString, reactor), "tcp:9772:interface=127.0.0.1", served.factory).addCallback(
        listened.append
    )

    assert [(9772, served.factory, 50, "127.0.0.1")] == reactor.tcpServers
    assert 1 == len(listened)
    for wrong in ("unknown:1", "tcp:9772::interface=x"):
        failures = []
        listen(partial(serverFromString, reactor), wrong, served.factory).addErrback(failures.append)
        assert failures[0].check(ConfigError)
        assert failures[0].getErrorMessage().startswith(f"{wrong}: ")


def test_a_port_that_is_taken(served):
    """With real sockets: the second to want a port is told so."""
    from twisted.internet import reactor

    port = reactor.listenTCP(0, served.factory, interface="127.0.0.1")
    description = f"tcp:{port.getHost().port}:interface=127.0.0.1"
    failures = []
    listen(partial(serverFromString, reactor), description, served.factory).addErrback(failures.append)
    stopped = port.stopListening()

    assert failures[0].check(ConfigError)
    assert "Address already in use" in failures[0].getErrorMessage()
    return stopped


def test_other_pages(served):
    """Whoever serves more than metrics answers for its paths, with headers of its own, and is told what was asked."""
    asked = []

    def page(each):
        asked.append(each)
        return HttpAnswer(200, "text/html", b"<p>", (("refresh", "10"),))

    served.factory = Exposition(
        served.registry,
        lambda: served.health,
        clock=served.clock,
        log=structlog.get_logger(),
        pages={b"/": page},
    )
    code, headers, body = served.ask("GET /?a=b HTTP/1.1\nHost: nas:9772\n\n")
    nothing = served.ask("GET /else HTTP/1.1\nHost: a\n\n")
    refused = served.ask("POST / HTTP/1.1\nHost: a\n\n")

    assert (200, "text/html", "10", "no-store", "<p>") == (
        code,
        headers["content-type"],
        headers["refresh"],
        headers["cache-control"],
        body,
    )
    assert [(b"/", "nas:9772")] == [(each.path, each.host) for each in asked]
    assert (404, "/, /metrics or /healthz\n") == (nothing[0], nothing[2])
    assert 405 == refused[0]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback(served, host, expected):
    """Whether the connection came to this machine's own address, which is nothing that a client could say."""
    asked = []
    served.factory = Exposition(
        served.registry,
        lambda: served.health,
        clock=served.clock,
        log=structlog.get_logger(),
        pages={b"/": lambda each: asked.append(each) or HttpAnswer(200, "text/html", b"")},
    )
    transport = StringTransport(hostAddress=IPv4Address("TCP", host, 9772))
    protocol = served.factory.buildProtocol(None)
    protocol.makeConnection(transport)
    protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    transport.protocol = protocol
    lost(transport)

    assert [expected] == [each.on_loopback for each in asked]


def test_no_wakeup(served):
    """An endpoint that nobody asks does nothing at all."""
    served.factory.doStart()

    assert [] == served.clock.getDelayedCalls()
    served.factory.doStop()


def test_what_a_program_has_of_prometheus_is_left_as_it_is():
    """Our own registries leave out when each counter was made; those of the program do as it has set."""
    own, of_the_program = new_registry(), CollectorRegistry()
    for registry in (own, of_the_program):
        Counter("realize_things", "Things.", registry=registry).inc(3)

    assert "_created" not in generate_latest(own).decode()
    assert "realize_things_created" in generate_latest(of_the_program).decode()
