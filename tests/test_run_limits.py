"""The limits of a run on a connection to a peer, as its timetables change: `realize.runs.connections`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from realize.errors import AccessDenied, ConnectionFailed
from realize.keys import PublicKey, generate_identity
from realize.runs import connections
from realize.runs.connections import Connections
from realize.runs.limit_tree import LimitTree
from realize.runs.options import Rates
from realize.runs.peers import Peer
from realize.schedule.timetable import parse_timetable
from realize.throttle.tree import Scope, ThrottleTree
from realize.wire.commands import Direction
from realize.wire.throttling import OwnLimit
from tests.loopback import Log
from tests.walls import Wall

M = 1 << 20
DAY = parse_timetable("08:00,1M 08:01,3M 08:02,unlimited")
IDENTITY = generate_identity()
PIN = generate_identity().public_key
NAS = Peer("nas.example", 9771, (PIN,), PIN)


class Nas:
    """A connection to a daemon, which takes every limit that it is told, and asks for what it is to be sent."""

    lost = False
    theirs = None
    refuses = False

    def __init__(self) -> None:
        self.told: list[tuple[Direction, int | None]] = []
        self.held: int | None = None
        """What somebody has set there for a time, if it is not None."""
        self.closing: Deferred[Any] = Deferred()
        self.ours: Any = None
        self.their_key = self.own_key = PIN

    def call(self, _command: object, *, direction: Direction, rate: int | None = None, **_: object) -> Deferred[Any]:
        """Be told of a limit; what it asks for in return arrives before its answer."""
        if self.refuses:
            return fail(AccessDenied("no"))
        self.told.append((direction, rate))
        if direction is Direction.RECEIVE:
            self.ask(rate if self.held is None else self.held)
        return succeed({})

    def ask(self, rate: int | None) -> None:
        """Ask to be sent no more than that."""
        self.ours._set_throttle(Scope.CONNECTION, "", Direction.SEND, rate)

    def serve(self, ours: OwnLimit) -> None:
        """What answers what is asked of the other end."""
        self.ours = ours

    def when_lost(self) -> Deferred[Any]:
        """Not yet."""
        return self.closing

    def close(self, *_: object, **__: object) -> None:
        """It is closed at once."""
        self.closing.callback(ConnectionFailed("closed"))


class Running:
    """A run whose limits go by the time of day; it begins half a minute before 08:00."""

    def __init__(self, rates: Rates, within: LimitTree | None = None) -> None:
        self.clock = Clock()
        self.log = Log()
        self.connections = Connections(
            self.clock,  # type: ignore[arg-type]
            rates,
            "run",
            lambda _component: self.log,  # type: ignore[arg-type, return-value]
            within=within,
            wall_clock=Wall(self.clock, "07:59:30"),
        )
        self.nas: Any = done(self.connections.to(NAS, [IDENTITY]))

    @property
    def sends(self) -> float | None:
        """What this machine may send."""
        rate: float | None = self.nas.ours.rate
        return rate


def done(main: Any) -> Any:
    """Run a coroutine that waits for nothing."""
    found: list[Any] = []
    Deferred.fromCoroutine(main).addBoth(found.append)
    return found[0]


@pytest.fixture(autouse=True)
def wire(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network."""

    async def connect(*_: object, **__: object) -> Nas:
        return Nas()

    monkeypatch.setattr(connections, "connect", connect)
    monkeypatch.setattr(
        connections, "limit_by", lambda tree, _connection, peer, name, **how: tree.attach(peer, name, **how)
    )


def test_what_is_sent_and_received_follows_the_timetable() -> None:
    """At its times, here at once, and the peer is told at the same moment; its log has each change."""
    run = Running(Rates(up=DAY, down=DAY))
    sends = []
    for _ in range(4):
        sends.append(run.sends)
        run.clock.pump([10.0] * 6)

    assert [None, M, 3 * M, None] == sends
    assert [
        (direction, rate) for rate in (M, 3 * M, None) for direction in (Direction.SEND, Direction.RECEIVE)
    ] == run.nas.told
    done(run.connections.close("DONE", silent=False))
    assert [] == run.clock.getDelayedCalls()


def test_a_plain_limit_is_told_once() -> None:
    """Nothing wakes for it."""
    run = Running(Rates(up=M, down=2 * M))

    assert [(Direction.SEND, 2 * M), (Direction.RECEIVE, M)] == run.nas.told
    assert M == run.sends
    done(run.connections.close("DONE", silent=False))


@pytest.mark.parametrize("refused", [0, 1])
def test_both_limits_are_told_in_one_round_trip(monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    """The second one does not wait for the answer to the first; nothing moves before both are obeyed."""
    answers: list[Deferred[Any]] = []
    monkeypatch.setattr(Nas, "call", lambda *_, **__: answers.append(Deferred()) or answers[-1])
    found: list[Any] = []
    rates = Rates(up=M, down=2 * M)
    clock = Clock()
    made = Connections(clock, rates, "run", lambda _component: Log())  # type: ignore[arg-type, return-value]
    Deferred.fromCoroutine(made.to(NAS, [IDENTITY])).addBoth(found.append)

    assert 2 == len(answers)
    answers[refused].errback(AccessDenied("no"))
    answers[1 - refused].callback({})
    assert [AccessDenied] == [each.type for each in found]
    done(made.close("DONE", silent=False))


def test_what_somebody_has_set_at_the_daemon_for_a_time_outranks_the_timetable() -> None:
    """Whether it is more or less than that; afterwards the daemon asks for what holds then."""
    run = Running(Rates(up=DAY))
    run.nas.held = 9 * M
    run.nas.ask(9 * M)
    run.clock.pump([10.0] * 4)
    during = run.sends
    run.nas.held = None
    run.nas.ask(M)

    assert (9 * M, M) == (during, run.sends)
    done(run.connections.close("DONE", silent=False))


def test_a_daemon_that_refuses_is_named_and_what_is_sent_is_limited_all_the_same() -> None:
    """That needs nobody."""
    run = Running(Rates(up=DAY))
    run.nas.refuses = True
    run.clock.pump([10.0] * 4)

    assert M == run.sends
    assert ["throttle_not_obeyed"] == [event for _, event, _ in run.log.events if event == "throttle_not_obeyed"]
    done(run.connections.close("DONE", silent=False))


def test_a_connection_that_is_lost_is_told_nothing() -> None:
    """And nothing is logged of it."""
    run = Running(Rates(up=DAY, down=DAY))
    run.nas.lost = True
    run.clock.pump([10.0] * 4)

    assert [] == run.nas.told
    done(run.connections.close("DONE", silent=False))


def test_within_the_limits_of_a_process_its_connections_have_names_there() -> None:
    """The tree stays when the run ends, and what is configured for connections is not for these."""
    clock = Clock()
    tree = ThrottleTree(clock, service=5 * M, connection=10)
    asked: list[PublicKey] = []

    def peer_of(key: PublicKey) -> str:
        asked.append(key)
        return "nas"

    run = Running(Rates(up=2 * M), LimitTree(tree, peer_of, lambda: "out7"))

    assert ([PIN], 2 * M) == (asked, tree.rate(Scope.CONNECTION, "out7"))
    assert [("service", ""), ("peer", "nas"), ("connection", "out7")] == [
        (each.scope.value, each.name) for each in tree.snapshot()
    ]
    done(run.connections.close("DONE", silent=False))
    assert 2 * M == tree.set_rate(Scope.CONNECTION, "out7", None)
    tree.close()
