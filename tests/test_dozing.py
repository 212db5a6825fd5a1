"""Idle connections that pings do not wake: what wakes them all the same, and what is noticed when.

Over real sockets on loopback, because the kernel is what keeps the pings.
"""

import contextlib
import select
import socket

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactor
from twisted.protocols import amp

from realize.throttle.tree import Scope
from realize.wire import coarse_timers, keepalive
from realize.wire.boxes import PING, encode
from realize.wire.commands import Direction, Ping, SetThrottle, every_command
from realize.wire.dozing import PING_RECORD_BYTES, doze_of
from realize.wire.keepalive import IDLE_TIMEOUT_S, PING_AFTER_S, Keepalive
from realize.wire.reply_timeouts import ReplyTimeouts
from tests.loopback import Raw
from tests.test_tls import serving, settled

RECORD = b"p" * PING_RECORD_BYTES


class Reading(Protocol):
    """Keeps what comes, and says that it came, as TLS does."""

    def __init__(self):
        self.came = []
        self.doze = None
        self.fault = None

    def dataReceived(self, data):
        """Keep."""
        self.doze.arrived(len(data))
        self.came.append(data)
        if self.fault is not None:
            raise self.fault


class Socket:
    """One end of a TCP connection as Twisted has it, and the other one."""

    def __init__(self, ours, theirs):
        self.theirs = theirs
        self.reading = Reading()
        self.transport = Connection(ours, self.reading, MemoryReactor())
        self.transport.connected = True
        self.told = []
        self.fault = None
        self.doze = self.reading.doze = doze_of(self.transport, self)
        self._poll = select.poll()
        self._poll.register(ours, select.POLLIN)

    def dozes(self):
        """Remember that it did."""
        self.told.append("dozes")

    def looked(self):
        """Remember after how many deliveries."""
        self.told.append(len(self.reading.came))
        if self.fault is not None:
            raise self.fault

    def wakes(self):
        """Whether the reactor would be told of anything."""
        return bool(self._poll.poll(50))


@pytest.fixture
def wire():
    """A TCP connection on which one ping has come."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        theirs = stack.enter_context(socket.create_connection(server.getsockname()))
        ours = stack.enter_context(server.accept()[0])
        wire = Socket(ours, theirs)
        theirs.sendall(RECORD)
        wire.wakes()
        wire.transport.doRead()
        yield wire


def test_a_ping_waits_until_it_is_looked_for(wire):
    """Then it is read, what was written meanwhile is sent, and the next one waits again."""
    wire.doze.begin()
    for _ in range(2):
        wire.theirs.sendall(RECORD)
        woken = wire.wakes()
        waited = wire.doze.look()

        assert (False, True, True) == (woken, 0.04 < waited < 5, wire.doze.on)
    assert None is wire.doze.look()
    assert ([RECORD] * 3, ["dozes", 2, 3]) == (wire.reading.came, wire.told)


@pytest.mark.parametrize("more", [b"x", b"x" * PING_RECORD_BYTES, b"x" * 100_000])
def test_whatever_is_longer_than_a_ping_wakes_us(wire, more):
    """At once, also with a ping before it; and from then on a single byte does."""
    wire.doze.begin()
    wire.theirs.sendall(RECORD)
    before = wire.wakes()
    wire.theirs.sendall(more)
    woken = wire.wakes()
    wire.transport.doRead()
    while wire.wakes():
        wire.transport.doRead()
    wire.theirs.sendall(b"y")

    assert (False, True, False, True) == (before, woken, wire.doze.on, wire.wakes())


@pytest.mark.parametrize("how", ["close", "reset"])
def test_the_end_of_the_connection_wakes_us(wire, how):
    """Whether or not a ping waits: a connection that is cut is noticed as soon as without dozing."""
    wire.doze.begin()
    wire.theirs.sendall(RECORD[:10])
    if how == "reset":
        wire.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.theirs.close()

    assert wire.wakes()


def test_an_end_that_is_found_while_looking_is_left_to_the_reactor(wire):
    """It still finds it."""
    wire.doze.begin()
    wire.theirs.close()
    wire.wakes()

    assert (None, False, True) == (wire.doze.look(), wire.doze.on, wire.wakes())


@pytest.mark.parametrize("size", [1, PING_RECORD_BYTES - 1])
def test_less_than_a_ping_is_the_beginning_of_something(wire, size):
    """The rest of it may be short, and must not wait."""
    wire.doze.begin()
    wire.theirs.sendall(RECORD[:size])
    wire.wakes()
    wire.doze.look()
    wire.theirs.sendall(b"x")

    assert (False, True) == (wire.doze.on, wire.wakes())


def test_only_upon_a_single_ping_it_dozes(wire):
    """What came last may have been the beginning of something else."""
    wire.theirs.sendall(RECORD * 2)
    wire.wakes()
    wire.transport.doRead()
    wire.doze.begin()

    assert not wire.doze.on


def test_a_connection_that_is_closed_is_not_looked_at(wire):
    """Its socket may be another one by now."""
    wire.doze.begin()
    wire.transport.socket.close()
    wire.transport.connected = False

    assert None is wire.doze.look()
    wire.doze.end()
    wire.doze.begin()
    assert not wire.doze.on


@pytest.mark.parametrize("what", ["what came", "what was written upon it"])
def test_what_cannot_be_handled_ends_the_connection(wire, what):
    """As when the reactor reads: the rest would be without what was read, and nobody would watch it any more."""
    aborted = []
    wire.transport.abortConnection = lambda: aborted.append(True)
    wire.doze.begin()
    wire.theirs.sendall(RECORD)
    wire.wakes()
    if what == "what came":
        wire.reading.fault = MemoryError()
    else:
        wire.fault = MemoryError()
    with pytest.raises(MemoryError):
        wire.doze.look()

    assert [True] == aborted


def test_what_is_no_tcp_connection_never_dozes():
    """There are transports in memory, and Unix sockets."""
    assert doze_of(object(), None) is None


def test_no_command_is_as_short_as_a_ping():
    """Or it would wait until we look."""
    for command in every_command():
        needed = {name: b"" for name, kind in command.arguments if not kind.optional}
        asked = {amp.ASK: b"1"} if command.requiresAnswer else {}
        shortest = encode({amp.COMMAND: command.commandName, **needed, **asked})

        assert command is Ping or len(shortest) > len(PING)


class Dozing:
    """Pings that wait in the kernel: when they came is known."""

    def __init__(self, watched):
        self.on = True
        self.watched = watched
        self.came = None

    def look(self):
        """Read the last one."""
        came, self.came = self.came, None
        if came is None:
            return None
        self.watched.heard()
        self.watched.pinged()
        return self.watched._clock.seconds() - came


def test_who_falls_silent_is_noticed_as_soon_as_without_dozing():
    """A ping counts from when it came, and not from when it was read."""
    clock, pings, silent = Clock(), [], []
    watched = Keepalive(
        clock,
        ReplyTimeouts(clock),
        ping=lambda: pings.append(clock.seconds()),
        silent=lambda _: silent.append(clock.seconds()),
    )
    watched.doze = Dozing(watched)
    watched.start()
    for _ in range(4):
        clock.advance(1)
        watched.doze.came = clock.seconds()
        clock.advance(PING_AFTER_S - 1)
    last = clock.seconds() - PING_AFTER_S + 1
    clock.pump([0.25] * int(4 * IDLE_TIMEOUT_S))
    watched.stop()

    assert [PING_AFTER_S * number for number in range(1, len(pings) + 1)] == pings
    assert [last + IDLE_TIMEOUT_S] == silent


def test_a_connection_that_ends_while_it_is_looked_at_is_watched_no_more():
    """What was read may end it."""
    clock, pings = Clock(), []
    watched = Keepalive(clock, ReplyTimeouts(clock), ping=lambda: pings.append(True), silent=pytest.fail)
    watched.doze = Dozing(watched)
    watched.doze.look = watched.stop
    watched.start()
    clock.advance(PING_AFTER_S)

    assert ([], []) == (pings, clock.getDelayedCalls())


@pytest.fixture
def impatient(monkeypatch):
    """Pings several times a second."""
    monkeypatch.setattr(keepalive, "PING_AFTER_S", 0.3)
    monkeypatch.setattr(keepalive, "ANSWER_AFTER_S", 0.15)
    monkeypatch.setattr(coarse_timers, "STEP_S", 0.05)


async def test_a_daemon_sleeps_through_pings_and_answers_commands_at_once(impatient):
    """It goes on to ping all the while; after the command it is awake, and then dozes again."""
    async with serving() as site:
        client = await site.connect()
        (accepted,) = site.factory
        await settled(site.reactor, lambda: accepted.doze.on)
        sent, received = accepted.bytes_sent, accepted.bytes_received
        await deferLater(site.reactor, 2)
        pinged = (accepted.bytes_sent - sent, accepted.bytes_received - received)
        dozed = accepted.doze.on
        began = site.reactor.seconds()
        with contextlib.suppress(Exception):
            await client.call(SetThrottle, scope=Scope.CONNECTION, name="", direction=Direction.SEND)
        took, awake = site.reactor.seconds() - began, not accepted.doze.on
        await settled(site.reactor, lambda: accepted.doze.on)
        client.close()
        await client.when_lost()
        await settled(site.reactor, lambda: not site.factory.connections)

        assert all(3 * len(PING) <= each <= 8 * len(PING) for each in pinged)
        assert (True, True, True) == (dozed, awake, took < 0.15)


async def test_a_daemon_that_waits_for_an_answer_does_not_doze(impatient):
    """An answer may be shorter than a ping."""
    async with serving() as site:
        client = await site.connect()
        answer = Deferred()
        client.serve(type("Slow", (), {"locateResponder": lambda _, name: lambda box: answer, "failed": print})())
        (accepted,) = site.factory
        await settled(site.reactor, lambda: accepted.doze.on)
        asked = accepted.call(SetThrottle, scope=Scope.CONNECTION, name="", direction=Direction.SEND)
        woken = not accepted.doze.on
        await deferLater(site.reactor, 1)
        waited = not accepted.doze.on
        answer.callback(amp.AmpBox())
        began = site.reactor.seconds()
        await asked
        took = site.reactor.seconds() - began
        await settled(site.reactor, lambda: accepted.doze.on)
        client.close()
        await client.when_lost()
        await settled(site.reactor, lambda: not site.factory.connections)

        assert (True, True, True) == (woken, waited, took < 0.15)


def test_what_only_looks_like_a_ping_wakes_it():
    """It may be a piece of a box, whose rest is short."""
    raw = Raw(Clock())
    raw.server.theirs = raw.server.greeting
    ended = []
    raw.server.doze = type("Doze", (), {"on": True, "end": lambda _: ended.append(True)})()
    box = encode({b"_ask": b"7", b"_command": b"Ping"})
    raw.send(box[: len(PING)])

    assert [True] == ended


def test_what_ends_with_a_ping_is_not_one_that_came_alone():
    """It may be as long as one, and have the beginning of a box behind it, whose rest is short."""
    clock = Clock()
    raw = Raw(clock)
    raw.server.theirs = raw.server.greeting
    began = []
    raw.server.doze = type("Doze", (), {"on": False, "begin": lambda _: began.append(True)})()
    clock.advance(keepalive.ANSWER_AFTER_S)
    box = encode({b"_ask": b"7", b"_command": b"Ping"})
    for piece in (PING[:9], PING[9:] + box[:9], box[9:]):
        raw.send(piece)
    before = len(began)
    clock.advance(keepalive.ANSWER_AFTER_S)
    raw.send(PING)

    assert (0, 1) == (before, len(began))
