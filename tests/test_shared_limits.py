"""Limits that other programs change by name: `realize.throttle.limits`, endpoints that have them, and their metrics."""

import math

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport

from realize.throttle import limits
from realize.throttle.endpoints import ThrottleParser, throttle_client, throttle_server
from realize.throttle.metrics import NamedLimitsCollector
from realize.throttle.shared_limits import SharedLimit, SharedLimits

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(autouse=True)
def forgotten():
    """Leave no name behind."""
    yield
    for name in limits:
        limits.forget(name)


class Filling(Protocol):
    """Writes ten seconds' worth at 1 MiB/s when it is connected."""

    def connectionMade(self):
        """Write it all."""
        self.transport.write(b"x" * 10 * MIB)


def accepted(memory, index=-1):
    """A connection to the last port that was opened: the transport of its server."""
    transport = StringTransport()
    memory.tcpServers[index][1].buildProtocol(None).makeConnection(transport)
    return transport


def pump(memory, seconds):
    """Let time go by."""
    memory.pump([0.001] * round(seconds * 1000))


def parse(memory, *description):
    """A server from the words of a description behind the prefix."""
    words = [each.split("=") for each in description]
    positional = [word[0] for word in words if len(word) == 1]
    return ThrottleParser().parseStreamServer(memory, *positional, **dict(word for word in words if len(word) == 2))


class TestByName:
    """``name=`` in a description, and in code."""

    def test_a_limit_is_changed_by_its_name_while_connections_are_open(self):
        """What is sent follows at once; rate, bytes sent and bytes waiting can be read."""
        memory = MemoryReactorClock()
        parse(memory, "tcp", "8080", "rate=1M", "name=web").listen(Factory.forProtocol(Filling))
        transport = accepted(memory)
        pump(memory, 1)
        slow = len(transport.value())
        web = limits["web"]
        before = (web.rate, web.sent, web.sent + web.waiting)
        web.set_rate(4 * MIB)
        pump(memory, 1)

        assert slow == pytest.approx(MIB, rel=0.02)
        assert (MIB, slow, 10 * MIB) == before
        assert len(transport.value()) - slow == pytest.approx(4 * MIB, rel=0.02)
        assert 4 * MIB == web.rate

    def test_a_limit_can_be_lifted_and_set_again(self):
        """Unlimited is a rate as any other; what was sent meanwhile is counted."""
        memory = MemoryReactorClock()
        parse(memory, "tcp", "8080", "rate=1k", "name=web").listen(Factory.forProtocol(Filling))
        accepted(memory)
        limits["web"].set_rate(None)
        free = limits["web"].sent
        limits["web"].set_rate(MIB)
        transport = accepted(memory)
        pump(memory, 1)

        assert 10 * MIB == free
        assert len(transport.value()) == pytest.approx(MIB, rel=0.02)
        assert limits["web"].sent == free + len(transport.value())

    def test_two_ports_of_one_name_share_its_limit(self):
        """Evenly, whoever has something to send."""
        memory = MemoryReactorClock()
        for port in ("8080", "8081"):
            parse(memory, "tcp", port, "rate=1M", "name=both").listen(Factory.forProtocol(Filling))
        transports = accepted(memory, 0), accepted(memory, 1)
        pump(memory, 1)

        assert [len(each.value()) for each in transports] == [pytest.approx(MIB / 2, rel=0.02)] * 2
        assert ["both"] == list(limits)

    @pytest.mark.parametrize(
        ("other", "said"),
        [
            (["rate=2M"], "throttle: the limit 'web' was given as 1 MiB/s, and cannot be 2 MiB/s too"),
            (["rate=unlimited"], "throttle: the limit 'web' was given as 1 MiB/s, and cannot be unlimited too"),
            (["rate=1M", "burst=64k"], "and cannot be 1 MiB/s with a burst of 65536 bytes too"),
        ],
    )
    def test_one_name_with_two_rates_is_refused(self, other, said):
        """Nobody could tell which one was meant; also after the limit was changed at run time."""
        memory = MemoryReactorClock()
        parse(memory, "tcp", "8080", "rate=1M", "name=web")
        limits["web"].set_rate(2 * MIB)

        with pytest.raises(ValueError, match=said):
            parse(memory, "tcp", "8081", "name=web", *other)
        assert 2 * MIB == limits["web"].rate

    def test_the_same_description_again_is_the_same_limit_as_it_is_now(self):
        """A program that parses its string for each connection does not undo what was set meanwhile."""
        memory = MemoryReactorClock()
        first = parse(memory, "tcp", "8080", "rate=1M", "name=web")
        first.set_rate(5 * MIB)
        again = parse(memory, "tcp", "8080", "rate=1M", "name=web")

        assert first.limit is again.limit is limits["web"]
        assert 5 * MIB == again.limit.rate

    def test_a_name_belongs_to_one_reactor(self):
        """A limit has one clock."""
        parse(MemoryReactorClock(), "tcp", "8080", "rate=1M", "name=web")

        with pytest.raises(ValueError, match="the limit 'web' belongs to another reactor"):
            parse(MemoryReactorClock(), "tcp", "8080", "rate=1M", "name=web")

    def test_an_empty_name_is_refused(self):
        """It is a mistake, not a limit that all without a name share."""
        with pytest.raises(ValueError, match="throttle: the name of a limit cannot be empty"):
            parse(MemoryReactorClock(), "tcp", "8080", "rate=1M", "name=")

    def test_a_description_that_is_wrong_elsewhere_takes_no_name(self):
        """The mended one may have another rate."""
        with pytest.raises(ValueError, match="nonsense"):
            parse(MemoryReactorClock(), "nonsense", "rate=1M", "name=web")

        assert [] == list(limits)

    def test_without_a_name_nobody_shares(self):
        """Each endpoint has a limit of its own, which no name leads to."""
        memory = MemoryReactorClock()
        first, second = (parse(memory, "tcp", "8080", "rate=1M") for _ in range(2))

        assert first.limit is not second.limit
        assert 0 == len(limits)

    def test_a_socket_of_systemd_keeps_its_name_and_its_limit_has_it_too(self, monkeypatch):
        """``name`` is an option of ``systemd:`` as well."""
        inner = []
        monkeypatch.setattr("realize.throttle.endpoints.serverFromString", lambda _, text: inner.append(text))
        parse(MemoryReactorClock(), "systemd", "domain=INET", "name=web", "rate=1M")
        parse(MemoryReactorClock(), "haproxy", "systemd", "domain=INET", "name=other", "rate=1M")

        assert ["systemd:domain=INET:name=web", "haproxy:systemd:domain=INET:name=other"] == inner
        assert ["web", "other"] == list(limits)

    def test_a_name_can_be_forgotten(self):
        """It is free for another limit then; who has the old one keeps it."""
        memory = MemoryReactorClock()
        old = parse(memory, "tcp", "8080", "rate=1M", "name=web")
        limits.forget("web")
        new = parse(memory, "tcp", "8080", "rate=2M", "name=web")

        assert (MIB, 2 * MIB) == (old.limit.rate, new.limit.rate)
        with pytest.raises(KeyError):
            limits.forget("never")


class TestInCode:
    """What the wrapping functions return."""

    def test_endpoints_have_their_rate_set(self):
        """Both kinds, with and without a name; they share by name with those from strings."""
        memory = MemoryReactorClock()
        client = throttle_client(memory, clientFromString(memory, "tcp:127.0.0.1:80"), KIB, name="code")
        server = throttle_server(memory, serverFromString(memory, "tcp:80"), KIB)
        client.set_rate(2 * KIB)
        server.set_rate(3 * KIB, 8 * KIB)

        assert (2 * KIB, 3 * KIB, 8 * KIB) == (limits["code"].rate, server.limit.rate, server.limit.burst)
        assert parse(memory, "tcp", "8080", "rate=1k", "name=code").limit is client.limit

    @pytest.mark.parametrize("rate", [0, -1, 0.5, (10 << 40) + 1, math.inf, math.nan])
    def test_a_rate_that_is_none_is_refused_wherever_it_is_given(self, rate):
        """When it is made, by name or not, and when it is set; what was there stays."""
        limit = SharedLimit(Clock(), KIB)
        memory = MemoryReactorClock()
        inner = serverFromString(memory, "tcp:80")
        for refused in (
            lambda: SharedLimit(Clock(), rate),
            lambda: SharedLimits().share("x", Clock(), rate),
            lambda: limit.set_rate(rate),
            lambda: throttle_server(memory, inner, rate),
            lambda: throttle_client(memory, inner, rate),
            lambda: throttle_server(memory, inner, KIB).set_rate(rate),
            lambda: throttle_client(memory, inner, KIB).set_rate(rate),
        ):
            with pytest.raises(ValueError, match="a limit is from 1 byte/s to 10 TiB/s, or unlimited"):
                refused()
        assert KIB == limit.rate

    def test_a_burst_stays_when_the_rate_is_set_and_grows_if_it_must(self):
        """A burst that was given is a wish; what the new rate needs is a must. One that is too small is refused."""
        limit = SharedLimit(Clock(), MIB, 64 * KIB)
        limit.set_rate(2 * MIB)
        kept = limit.burst
        limit.set_rate(100 * MIB)
        grown = limit.burst
        limit.set_rate(None)
        limit.set_rate(MIB)

        assert (64 * KIB, 314_572, 64 * KIB) == (kept, grown, limit.burst)
        with pytest.raises(ValueError, match="a limit of 100 MiB/s needs a burst of at least 314572 bytes, not 65536"):
            limit.set_rate(100 * MIB, 64 * KIB)
        assert (MIB, 64 * KIB) == (limit.rate, limit.burst)


class TestMetrics:
    """What an application registers with prometheus-client."""

    def test_each_name_has_its_figures(self):
        """Rate, bytes sent and bytes waiting; an unlimited rate is +Inf."""
        memory = MemoryReactorClock()
        parse(memory, "tcp", "8080", "rate=1M", "name=web").listen(Factory.forProtocol(Filling))
        parse(memory, "tcp", "8081", "rate=unlimited", "name=free")
        transport = accepted(memory, 0)
        pump(memory, 1)
        registry = CollectorRegistry()
        registry.register(NamedLimitsCollector())

        def figures(what):
            return [
                registry.get_sample_value(f"realize_named_limit_{what}", {"name": each}) for each in ("web", "free")
            ]

        sent = len(transport.value())
        assert [MIB, math.inf] == figures("bytes_per_second")
        assert [sent, 0] == figures("sent_bytes_total")
        assert [10 * MIB - sent, 0] == figures("waiting_bytes")

    def test_an_application_may_show_limits_of_its_own(self):
        """Any mapping of names to limits."""
        registry = CollectorRegistry()
        registry.register(NamedLimitsCollector({"mine": SharedLimit(Clock(), KIB)}))

        assert KIB == registry.get_sample_value("realize_named_limit_bytes_per_second", {"name": "mine"})
