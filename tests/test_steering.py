"""Who may see and steer the standing moves of a daemon, and what is told of them: `realize.daemon.steering`."""

import json

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from realize.config import Config
from realize.daemon.move_reports import MAX_LISTED_ITEMS, MAX_TEXT_CHARS, moves_text, short_rows
from realize.daemon.steering import Asker, SteeringResponders
from realize.errors import AccessDenied, Busy, Conflict, NotFound
from realize.keys import generate_identity
from realize.moves.standing_moves import StandingMoves
from realize.moves.status import FileUnderWay, KnownBacklog, MoveStatus, Phase, RunNow, RunResult
from realize.throttle.tree import Scope
from realize.wire.commands import Direction, GetThrottle, Moves, SetThrottle, Status, Steering, SteerMove
from realize.wire.reports import MAX_REPORT_BYTES
from tests.loopback import Log, Pair

NOW = 1_000_000.0
OUT = MoveStatus(
    name="out",
    sources=["/store/out"],
    destination="nas::inbox",
    when="settled",
    phase=Phase.RUNNING,
    watching={"/store/out": "events"},
    backlog=KnownBacklog(files=3, size=4096, oldest=NOW - 60.0),
    running=RunNow(run="r2", began=NOW - 5, moved_files=1, in_flight=[FileUnderWay(path="a/b", size=100, done=50)]),
    last_run=RunResult(run="r1", began=NOW - 90, ended=NOW - 80, moved_files=2),
    last_success=NOW - 80,
)
FAILING = evolve(
    OUT, name="failing", phase=Phase.FAILING, running=None, failing_since=NOW - 3600, error="nas: no answer"
)


class FakeMoves:
    """The moves of a daemon: remembers what it was asked to do."""

    def __init__(self, *statuses):
        self.moves = list(statuses)
        self.asked = []

    def statuses(self):
        """What there is to know of each."""
        return self.moves

    def run(self, name):
        """Refuses one that is paused."""
        if self._named(name).phase is Phase.PAUSED:
            raise Conflict(f"{name} is paused")
        self.asked.append(("run", name))

    def pause(self, name):
        """Remember it."""
        self.asked.append(("pause", self._named(name).name))

    def resume(self, name):
        """Remember it."""
        self.asked.append(("resume", self._named(name).name))

    def _named(self, name):
        for each in self.moves:
            if each.name == name:
                return each
        raise NotFound(f"no move {name}")


class Asked:
    """A peer that asks a daemon with these moves, over a connection in memory."""

    def __init__(self, moves, *, is_admin=True, name="nas", is_running=True, throttling=None):
        self.log = Log()
        self.responders = SteeringResponders(
            Asker(name=name, is_admin=is_admin, connection="7"),
            throttling=throttling,
            moves=moves,
            report=lambda: {"version": "1"},
            steering_log=self.log,
            wall_clock=lambda: NOW,
            is_running=lambda: is_running,
        )
        self.pair = Pair(Clock(), welcome=self._welcome).introduced()

    def _welcome(self, protocol, _greeting):
        protocol.serve(self.responders)
        return "nas"

    def ask(self, command, **arguments):
        """The answer, or the error."""
        found = []
        self.pair.client.call(command, **arguments).addBoth(found.append)
        self.pair.flush()
        return getattr(found[0], "value", found[0])

    def close(self):
        """End the connection."""
        self.pair.client.close()
        self.pair.flush()


@pytest.fixture
def asked():
    """Makes askers, and closes them."""
    made = []

    def make(*statuses, **options):
        made.append(Asked(FakeMoves(*statuses), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_admin_is_told_of_all_moves_or_of_one(asked):
    """In the order of the configuration, with all that there is to know; the clock of the daemon comes along."""
    admin = asked(OUT, FAILING)

    everything = json.loads(admin.ask(Moves)["report"])
    one = json.loads(admin.ask(Moves, name="failing")["report"])
    assert {"now": NOW, "moves": [OUT.as_row(), FAILING.as_row()], "truncated": False} == everything
    assert {"now": NOW, "moves": [FAILING.as_row()], "truncated": False} == one
    assert NotFound is type(admin.ask(Moves, name="other"))


@pytest.mark.parametrize("action", list(Steering), ids=lambda each: each.value)
def test_an_admin_steers_a_move_and_the_log_says_who(asked, action):
    """The record has the name of who asked, which at the control socket is a user."""
    admin = asked(OUT, name="uid 0")

    assert {} == admin.ask(SteerMove, name="out", action=action)
    assert [(action.value, "out")] == admin.responders._moves.asked
    assert [{"peer": "uid 0", "move": "out", "action": action.value}] == admin.log.named("move_steered")


def test_what_cannot_be_done_is_refused_with_the_reason_and_logged(asked):
    """A name that no move has, and a run of a paused one; nothing is done."""
    admin = asked(evolve(OUT, phase=Phase.PAUSED))

    paused = admin.ask(SteerMove, name="out", action=Steering.RUN)
    unknown = [admin.ask(SteerMove, name="other", action=each) for each in Steering]
    assert (Conflict, "out is paused") == (type(paused), str(paused))
    assert {NotFound} == {type(each) for each in unknown}
    assert [] == admin.responders._moves.asked
    refused = admin.log.named("steering_refused")
    assert [str(paused), *map(str, unknown)] == [each["error"] for each in refused]
    assert ["run", "run", "pause", "resume"] == [each["action"] for each in refused]
    assert [] == admin.log.named("move_steered")


def test_a_daemon_that_stops_is_seen_and_not_steered(asked):
    """How its moves end can be looked at; whoever steers them then would have it forgotten, or hold up the end."""
    admin = asked(OUT, is_running=False)

    steered = [admin.ask(SteerMove, name="out", action=each) for each in Steering]
    assert [(Busy, "the daemon is shutting down, and its moves end")] * 3 == [(type(e), str(e)) for e in steered]
    assert [] == admin.responders._moves.asked
    assert ["out"] == [each["name"] for each in json.loads(admin.ask(Moves)["report"])["moves"]]


def test_who_is_no_admin_neither_sees_nor_steers(asked):
    """Not even whether there is a move of that name."""
    peer = asked(OUT, is_admin=False)

    answers = [peer.ask(Moves), peer.ask(Moves, name="out"), peer.ask(Moves, name="other")]
    steered = [peer.ask(SteerMove, name=name, action=Steering.PAUSE) for name in ("out", "other")]
    assert {AccessDenied} == {type(each) for each in (*answers, *steered)}
    assert 1 == len({str(each) for each in answers}) == len({str(each) for each in steered})
    assert "admin = true" in str(answers[0])
    assert [] == peer.responders._moves.asked
    assert [("nas", "out"), ("nas", "other")] == [
        (each["peer"], each["move"]) for each in peer.log.named("steering_refused")
    ]


def test_a_daemon_without_moves_says_so():
    """An empty list, and no such name."""
    admin = Asked(StandingMoves(Config(key=generate_identity()), Clock(), lambda _: Log()))

    listed = json.loads(admin.ask(Moves)["report"])
    refused = [admin.ask(SteerMove, name="out", action=each) for each in Steering]
    admin.close()
    assert [] == listed["moves"]
    assert {NotFound} == {type(each) for each in refused}


class FakeThrottling:
    """The limits of a daemon: remembers who asked for what."""

    def __init__(self, former):
        self.former, self.asked = former, []

    def set(self, by, own, *arguments, is_admin):
        """Remember it."""
        self.asked.append((by, own, *arguments, is_admin))
        return self.former

    def report(self, by, *, is_admin, own):
        """Who asks, as the only row."""
        return [{"by": by, "is_admin": is_admin, "own": own}]


@pytest.mark.parametrize("is_admin", [True, False])
@pytest.mark.parametrize("former", [None, 0, 5])
def test_limits_are_shown_and_set_for_who_asks(is_admin, former):
    """On its own connection, with its own rights; the former limit is told if there was one."""
    throttling = FakeThrottling(former)
    asked = Asked(FakeMoves(), is_admin=is_admin, throttling=throttling)

    change = {"scope": Scope.CONNECTION, "name": "", "direction": Direction.BOTH, "rate": 9, "milliseconds": 1500}
    answer = asked.ask(SetThrottle, **change)
    shown = json.loads(asked.ask(GetThrottle)["report"])
    status = json.loads(asked.ask(Status)["report"])
    asked.close()
    assert former == answer["former"]
    assert [("nas", "7", Scope.CONNECTION, "", Direction.BOTH, 9, 1.5, is_admin)] == throttling.asked
    assert [{"by": "nas", "is_admin": is_admin, "own": "7"}] == shown
    assert {"version": "1"} == status
    assert [] == asked.responders.transfers()


def test_a_report_leaves_out_details_before_moves():
    """And says when moves are missing; whatever is in it, it fits."""
    running = evolve(OUT.running, in_flight=[FileUnderWay(path="é" * 1000, size=1, done=0)] * 50)
    many = [evolve(OUT, name=f"m{each}", running=running) for each in range(40)]
    too_many = [evolve(each, error="é" * 1000, file_error="é" * 1000) for each in many]

    short, cut = (json.loads(moves_text(each, NOW)) for each in (many, too_many))
    assert (40, False) == (len(short["moves"]), short["truncated"])
    assert set(OUT.as_row()) - set(short["moves"][0]) == {"running", "watching", "totals"}
    assert 0 < len(cut["moves"]) < 40
    assert cut["truncated"]
    assert all(len(moves_text(each, NOW)) <= MAX_REPORT_BYTES for each in (many, too_many))


def test_texts_and_lists_of_a_row_have_bounds():
    """The end of what is cut shows that it was."""
    running = evolve(OUT.running, in_flight=[FileUnderWay(path="x" * 5000, size=1, done=0)] * 50)
    [row] = json.loads(moves_text([evolve(OUT, running=running, error="y" * 5000)], NOW))["moves"]

    assert MAX_LISTED_ITEMS == len(row["running"]["in_flight"])
    paths = {each["path"] for each in row["running"]["in_flight"]}
    assert {MAX_TEXT_CHARS} == {len(each) for each in (*paths, row["error"])}
    assert row["error"].endswith("y…")


def test_the_status_has_a_short_row_for_each_move():
    """Ages instead of times; the error of the whole move, or of a file of it."""
    of_a_file = evolve(OUT, failed_files=2, file_error="a: is a directory\nmore")

    first, second, third = short_rows([OUT, FAILING, of_a_file], NOW)
    assert {
        "name": "out",
        "state": "running",
        "files": 3,
        "bytes": 4096,
        "oldest": 60.0,
        "failing": None,
        "failed_files": 0,
        "error": "",
    } == first
    assert ("failing", 3600.0, "nas: no answer") == tuple(second[key] for key in ("state", "failing", "error"))
    assert (2, "a: is a directory") == (third["failed_files"], third["error"])
