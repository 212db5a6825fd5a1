"""One standing move, with a trigger and runs that a test drives: `realize.moves.standing_move`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from realize.config import Config, MoveConfig, PeerConfig
from realize.errors import AccessDenied, Conflict, ConnectionFailed, NoSpace, RealizeError
from realize.keys import generate_identity
from realize.mover.events import End, Failed
from realize.moves import standing_move
from realize.moves.after_program import AfterProgram
from realize.moves.one_run import Occasion, OneRun, RunEnd
from realize.moves.plan import Plan, plans_of
from realize.moves.standing_move import StandingMove, Surroundings
from realize.moves.state import FileFailure, MoveState
from realize.moves.status import KnownBacklog, LimitChange, Phase, RunNow, RunResult
from realize.moves.trigger import Trigger
from tests.test_episodes import Records

LOST = ConnectionFailed("nas is away")
PEERS = {"nas": PeerConfig(generate_identity().public_key, "nas.example")}


def a_plan(peers: Mapping[str, PeerConfig] = PEERS, **more: Any) -> Plan:
    """The plan of a move from /a."""
    move = MoveConfig(sources=("/a",), destination="nas::inbox", **more)
    return plans_of(Config(key=generate_identity(), peers=peers, moves={"cam": move}))["cam"]


class Hand:
    """A trigger that is due when the test says so."""

    last_due = None
    unfinished = None
    backlog = KnownBacklog(files=3)
    watching: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.changed: Callable[[], object] = lambda: None
        self.source_hung: Callable[[], object] = lambda: None
        self.due = False
        self.was_asked = 0
        self.running = False
        self.failures: list[FileFailure] = []
        self.stopped: Deferred[None] = succeed(None)

    @property
    def failed_files(self) -> int:
        """How many failed."""
        return len(self.failures)

    @property
    def busy_files(self) -> int:
        """How many of these others use."""
        return sum(failed.code == "busy" for failed in self.failures)

    def is_first_failure(self, path: bytes) -> bool:
        """As `Trigger`."""
        return path not in {failed.path for failed in self.failures}

    def start(self) -> None:
        """As `Trigger`."""
        self.running = True

    def stop(self) -> Deferred[None]:
        """As `Trigger`."""
        self.running = False
        return self.stopped

    def wait_s(self, delay_s: float) -> float | None:
        """As `Trigger`."""
        return delay_s if self.due else None

    def asked(self) -> None:
        """As `Trigger`."""
        self.was_asked += 1
        self.due = True
        self.changed()

    def begin(self) -> Occasion | None:
        """As `Trigger`."""
        return Occasion(["/a"])

    def ended(self, end: RunEnd) -> None:
        """As `Trigger`; nothing more is due."""
        self.due = end.error is not None

    def set_off(self) -> None:
        """Let a run be due."""
        self.due = True
        self.changed()


class HandRun:
    """A run that ends when the test says so."""

    def __init__(self, plan: Plan, names_file: Callable[[Failed], bool]) -> None:
        self.plan = plan
        self.names_file = names_file
        self.ended: Deferred[RunEnd] = Deferred()
        self.asked_to: list[str] = []
        self.failures: Counter[str] = Counter()
        self.found_left = (0, 0)

    def start(self) -> Deferred[RunEnd]:
        """As `OneRun`."""
        return self.ended

    def cancel(self) -> None:
        """As `OneRun`."""
        self.asked_to.append("cancel")

    def finish_early(self) -> None:
        """As `OneRun`."""
        self.asked_to.append("finish early")

    def now(self) -> RunNow:
        """As `OneRun`."""
        return RunNow(run="1", began=1.0, moved_files=7, moved_bytes=70)

    def end(self, error: RealizeError | None = None, *, complete: bool = True, **result: Any) -> None:
        """End it."""
        values = RunResult(run="1", began=1_000.0, ended=1_010.0, error="" if error is None else str(error))
        end = RunEnd(evolve(values, **result), error, complete and error is None, (), self.failures, 0, 0)
        self.ended.callback(end)


class HandProgram:
    """A program after a run that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[RunResult] = []
        self.patience: list[float] = []
        self.changed: list[tuple[tuple[str, ...], float]] = []

    def change(self, command: tuple[str, ...], timeout_s: float) -> None:
        """As `AfterProgram`."""
        self.changed.append((command, timeout_s))

    def ran(self, result: RunResult, _failed: object) -> None:
        """As `AfterProgram`."""
        self.told.append(result)

    def stop(self, patience_s: float) -> Deferred[None]:
        """As `AfterProgram`."""
        self.patience.append(patience_s)
        return succeed(None)


class Trial:
    """A standing move, and all that it is given."""

    def __init__(self, state: MoveState | None = None, **more: Any) -> None:
        self.clock = Clock()
        self.log = Records()
        self.triggers: list[Hand] = []
        self.runs: list[HandRun] = []
        self.programs: list[HandProgram] = []
        self.saved: list[MoveState] = []
        around = Surroundings(
            reactor=cast("Any", self.clock),
            logger_of=lambda _: self.log,
            now=lambda: 1_000_000.0 + self.clock.seconds(),
            chance=lambda: 0.0,
            run_of=self._run_of,
            trigger_of=self._trigger_of,
            after_of=self._after_of,
            save=lambda _, state: self.saved.append(state),
        )
        self.move = StandingMove(a_plan(**more), state or MoveState(), around)
        self.move.start()
        self.settle()

    def _run_of(self, plan: Plan, _: Occasion, names_file: Callable[[Failed], bool]) -> OneRun:
        self.runs.append(HandRun(plan, names_file))
        return cast("OneRun", self.runs[-1])

    def _trigger_of(self, _plan: Plan, _state: MoveState) -> Trigger:
        self.triggers.append(Hand())
        return self.triggers[-1]

    def _after_of(self, _: Plan, ended: Callable[[str], object]) -> AfterProgram:
        self.programs.append(HandProgram())
        self.ended_after = ended
        return cast("AfterProgram", self.programs[-1])

    @property
    def trigger(self) -> Hand:
        """That of the plan in force."""
        return self.triggers[-1]

    @property
    def run(self) -> HandRun:
        """The last one that began."""
        return self.runs[-1]

    def settle(self) -> None:
        """Let happen what is to happen at once."""
        self.clock.advance(0.0)

    def begin(self) -> HandRun:
        """Begin a run."""
        self.trigger.set_off()
        return self.run

    def events(self) -> list[str]:
        """What was logged."""
        return [event for event, _ in self.log.kept]


@pytest.fixture
def trial() -> Trial:
    """A move that has nothing to do yet."""
    return Trial()


def test_a_run_begins_when_its_trigger_says_so_and_never_two_at_once(trial: Trial) -> None:
    """What becomes due meanwhile is done by the next one."""
    first = trial.begin()
    trial.trigger.set_off()
    during = len(trial.runs), trial.move.status().phase
    first.end(moved_files=2, moved_bytes=20)
    trial.trigger.set_off()

    assert (1, Phase.RUNNING) == during
    assert 2 == len(trial.runs)


def test_an_occasion_that_turns_out_to_be_none_is_looked_for_again(trial: Trial) -> None:
    """A trigger that has nothing to do after all does not stop the move."""
    nothing, trial.trigger.begin = trial.trigger.begin, lambda: None  # type: ignore[method-assign]
    trial.trigger.set_off()
    before = len(trial.runs)
    trial.trigger.begin = nothing  # type: ignore[method-assign]
    trial.clock.advance(60.0)

    assert (0, 1) == (before, len(trial.runs))


def test_trouble_delays_the_next_run_longer_each_time_up_to_a_bound(trial: Trial) -> None:
    """A week without a right: it is tried again some 2,000 times, told once at its begin and once at its end."""
    denied = AccessDenied("nas lets nobody in")
    trial.begin().end(denied)
    while trial.clock.seconds() < 7 * 86_400:
        trial.settle()
        before = len(trial.runs)
        trial.clock.advance(300.0)
        assert len(trial.runs) > before
        trial.run.end(denied)
    failing = trial.move.status()
    trial.settle()
    trial.clock.advance(300.0)
    trial.run.end(moved_files=1)

    assert (Phase.FAILING, 1_000.0, "nas lets nobody in") == (failing.phase, failing.failing_since, failing.error)
    assert 2_000 < len(trial.runs) < 2_100
    assert ["move_failing", "move_recovered"] == trial.events()
    assert Phase.IDLE is trial.move.status().phase
    assert {"denied": len(trial.runs) - 1} == trial.move.status().totals.failures


def test_a_peer_that_is_away_is_tried_every_few_seconds(trial: Trial) -> None:
    """However long it was: what has waited for it must not wait for minutes more when it is back."""
    trial.begin().end(LOST)
    for _ in range(1_000):
        trial.settle()
        before = len(trial.runs)
        trial.clock.advance(4.0)
        assert before + 1 == len(trial.runs)
        trial.run.end(LOST)


def test_what_was_known_before_a_restart_is_known_again() -> None:
    """Since when it fails, when the last good run was, and that it is paused."""
    trial = Trial(MoveState(paused=True, failing_since=5.0, error="nas is away", last_success=4.0))
    trial.trigger.set_off()
    status = trial.move.status()

    assert [] == trial.runs
    assert (Phase.PAUSED, 5.0, "nas is away", 4.0) == (
        status.phase,
        status.failing_since,
        status.error,
        status.last_success,
    )


def test_a_good_run_is_one_that_did_everything(trial: Trial) -> None:
    """One that left a file, ended early, or went on beside a file that waits, is not; its end is remembered anyhow."""
    trial.begin().end(moved_files=1)
    good = trial.saved[-1]
    trial.begin().end(failed_files=1)
    trial.begin().end(complete=False)
    trial.trigger.failures = [FileFailure(source="/a", path=b"x", since=1.0)]
    trial.begin().end(moved_files=1, ended=2_000.0)

    assert 1_010.0 == good.last_success
    assert {1_010.0} == {state.last_success for state in trial.saved}
    assert 4 == len(trial.saved)


def test_pausing_ends_the_run_and_resuming_goes_on(trial: Trial) -> None:
    """It is remembered over a restart; a paused move does not run, not even when it is asked to."""
    run = trial.begin()
    trial.move.pause()
    trial.move.pause()
    run.end(complete=False)
    trial.trigger.set_off()
    paused = len(trial.runs), trial.saved[-1].paused
    with pytest.raises(Conflict, match="move cam is paused"):
        trial.move.run()
    trial.move.resume()

    assert ["cancel", "cancel"] == run.asked_to
    assert (1, True) == paused
    assert 2 == len(trial.runs)
    assert not trial.saved[-1].paused


def test_a_run_that_is_asked_for_waits_for_no_delay(trial: Trial) -> None:
    """And while one goes on, none begins beside it."""
    trial.begin().end(LOST)
    trial.settle()
    trial.move.run()
    trial.move.run()

    assert 2 == len(trial.runs)


def test_another_plan_waits_for_the_files_in_flight(trial: Trial) -> None:
    """The run is told to finish, and the next one does what the new plan says; the old trigger is closed."""
    old, run = trial.trigger, trial.begin()
    plan = a_plan(exclude=("*.tmp",))
    trial.move.change(plan)
    trial.move.change(plan)
    during = len(trial.triggers)
    run.end(complete=False)
    trial.begin()

    assert ["finish early"] == run.asked_to
    assert (1, 2) == (during, len(trial.triggers))
    assert (False, True) == (old.running, trial.trigger.running)
    assert plan is trial.run.plan


def test_a_key_that_is_not_accepted_any_more_ends_a_run_at_once(trial: Trial) -> None:
    """Its connection may be with a thief; one that is accepted now, too, is used after the files in flight."""
    run = trial.begin()
    more = {"nas": PeerConfig(keys=[PEERS["nas"].pins[0], generate_identity().public_key], address="nas.example")}
    trial.move.change(a_plan(more))
    trial.move.change(a_plan({"nas": PeerConfig(more["nas"].pins[1], "nas.example")}))

    assert ["finish early", "cancel"] == run.asked_to


def test_the_same_plan_changes_nothing(trial: Trial) -> None:
    """A reload leaves alone what it does not change."""
    trial.move.change(evolve(trial.move.plan))

    assert 1 == len(trial.triggers)


def test_a_changed_mind_is_the_last_one(trial: Trial) -> None:
    """Two reloads during a run: the second one counts, also if it goes back to what was there."""
    run, plan = trial.begin(), trial.move.plan
    trial.move.change(a_plan(exclude=("*.tmp",)))
    trial.move.change(plan)
    run.end(complete=False)

    assert plan == trial.move.plan


def test_the_kind_of_an_error_is_told_without_its_text(trial: Trial) -> None:
    """So that who may see no names knows why a move fails; when it is well there is none."""
    trial.begin().end(LOST)
    failing = trial.move.status()
    trial.clock.advance(3600.0)
    trial.run.end()

    assert (Phase.FAILING, "connection") == (failing.phase, failing.error_code)
    assert "" == trial.move.status().error_code


def test_the_program_after_a_run_is_told_of_runs_that_did_something(trial: Trial) -> None:
    """Not of one that found nothing to do, or could not connect; how it ended is counted."""
    trial.begin().end()
    trial.begin().end(LOST)
    trial.settle()
    trial.clock.advance(60.0)
    trial.run.end(moved_files=2, moved_bytes=20)
    trial.ended_after("failed")

    [told] = trial.programs[0].told
    assert (2, 20, "") == (told.moved_files, told.moved_bytes, told.error)
    assert {"failed": 1} == trial.move.status().totals.after


def test_another_plan_has_its_program_from_the_same_hand(trial: Trial) -> None:
    """So that those of two plans are never at work together; one that runs was of the former plan."""
    trial.move.change(a_plan(after=("/bin/new",), after_timeout_s=5.0))
    trial.move.change(a_plan())
    trial.begin().end(moved_files=1)

    [program] = trial.programs
    assert [(("/bin/new",), 5.0), ((), 60.0)] == program.changed
    assert 1 == len(program.told)
    assert [] == program.patience


def test_stopping_waits_for_all_that_is_open(trial: Trial) -> None:
    """The run ends in order, the program gets its time, and nothing begins any more."""
    run = trial.begin()
    stopped = trial.move.stop(10.0)
    before = stopped.called
    trial.trigger.stopped = Deferred()
    run.end(complete=False)
    trial.settle()
    between = stopped.called
    trial.trigger.stopped.callback(None)
    trial.trigger.set_off()

    assert (False, False, True) == (before, between, stopped.called)
    assert ["cancel"] == run.asked_to
    assert [10.0] == trial.programs[0].patience
    assert 1 == len(trial.runs)
    assert [] == trial.clock.getDelayedCalls()


def test_a_fault_of_ours_stops_no_move(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, and tried again after a delay."""
    seen: list[Failure] = []
    monkeypatch.setattr(standing_move, "_twisted", SimpleNamespace(failure=lambda _, failure: seen.append(failure)))
    trial.begin().ended.errback(ZeroDivisionError())
    trial.settle()
    trial.clock.advance(60.0)

    assert 2 == len(trial.runs)
    assert [ZeroDivisionError] == [failure.type for failure in seen]


def test_a_file_is_named_in_the_log_when_it_first_fails(trial: Trial) -> None:
    """Not at each further attempt; where there is no room, only some are."""
    run = trial.begin()
    conflict = Failed(b"a", End.DESTINATION, Conflict("there is another one"))
    first = run.names_file(conflict)
    trial.trigger.failures = [FileFailure(source="/a", path=b"a", since=1.0, code="conflict")]
    again = run.names_file(conflict)
    full = [run.names_file(Failed(b"%d" % number, End.DESTINATION, NoSpace("full"))) for number in range(1_000)]

    assert (True, False) == (first, again)
    assert 0 < sum(full) <= 100
    assert ["move_stuck"] == trial.events()


def test_a_move_whose_files_cannot_be_moved_is_stuck(trial: Trial) -> None:
    """The state says what the log says, until they are moved; a file that somebody uses is nobody's trouble."""
    phases = []
    for code in ("no_space", "busy", ""):
        trial.trigger.failures = [FileFailure(source="/a", path=b"a", since=1.0, code=code)] if code else []
        trial.begin().end(failed_files=bool(code))
        phases.append(trial.move.status().phase)
    trial.trigger.failures = [FileFailure(source="/a", path=b"a", since=1.0, code="no_space")]
    trial.begin()
    phases.append(trial.move.status().phase)
    trial.run.end(LOST)
    phases.append(trial.move.status().phase)

    assert [Phase.STUCK, Phase.IDLE, Phase.IDLE, Phase.RUNNING, Phase.FAILING] == phases


def test_a_file_for_which_there_is_no_room_is_named_once(trial: Trial) -> None:
    """While the disk stays full it is tried again for hours; the log named it each time."""
    full = Failed(b"a", End.DESTINATION, NoSpace("a: No space left on device"))
    first = trial.begin().names_file(full)
    trial.trigger.failures = [FileFailure(source="/a", path=b"a", since=1.0, code="no_space")]
    again = trial.runs[-1].names_file(full)

    assert (True, False) == (first, again)


def test_totals_never_get_less(trial: Trial) -> None:
    """What a run that goes on has moved is in them already."""
    run = trial.begin()
    during = trial.move.status().totals
    run.end(moved_files=7, moved_bytes=70)
    after = trial.move.status().totals

    assert (7, 70, 0) == (during.moved_files, during.moved_bytes, during.runs)
    assert (7, 70, 1, 10.0) == (after.moved_files, after.moved_bytes, after.runs, after.run_seconds)


def test_its_limits_are_told_and_what_they_become_next() -> None:
    """By the time of day at which one asks; a plain limit becomes nothing else."""
    at = datetime.fromtimestamp(1_000_000.0 + 60).replace(second=0)
    trial = Trial(throttle_up=f"{at:%H:%M},1M {at + timedelta(hours=1):%H:%M},off", throttle_down="2M")
    before = trial.move.status()
    trial.clock.advance(60.0)
    after = trial.move.status()

    assert (None, 2 << 20, None) == (before.up_bps, before.down_bps, before.down_change)
    assert LimitChange(at=at.timestamp(), bps=1 << 20) == before.up_change
    assert (1 << 20, LimitChange(at=at.timestamp() + 3_600, bps=None)) == (after.up_bps, after.up_change)
    assert {"at": at.timestamp(), "bps": 1 << 20} == before.as_row()["up_change"]
