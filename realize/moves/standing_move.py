"""One standing move: it runs when its trigger says so, waits after trouble, and remembers how it fared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger as TwistedLogger
from twisted.python.failure import Failure

from realize.by_value import ByValue
from realize.concurrency.reactor import IReactor
from realize.errors import Conflict, ConnectionFailed, NoSpace, RealizeError
from realize.logger import LoggerOf
from realize.mover.events import Failed
from realize.moves.after_program import AfterOutcome, AfterProgram
from realize.moves.episodes import Episodes, kind_of_error
from realize.moves.one_run import Occasion, OneRun, RunEnd
from realize.moves.plan import Plan
from realize.moves.state import FileFailure, MoveState
from realize.moves.status import KnownBacklog, LimitChange, MoveStatus, Phase, RunNow, Totals
from realize.moves.trigger import Trigger
from realize.runs.reconnecting import Backoff
from realize.schedule.timetable import RateByTime, change_after, rate_now

MAX_TIMER_S: Final = 60.0
"""The wall clock is looked at again after so long, in case it was set or the machine was suspended."""

MAX_AWAY_DELAY_S: Final = 4.0
"""The longest delay while a peer cannot be reached: to try costs next to nothing, and files wait until it is back."""

_twisted = TwistedLogger()


@frozen(kw_only=True, eq=False, repr=False)
class Surroundings(ByValue):
    """What a standing move needs of the daemon that it is part of.

    ``now`` returns the wall clock's seconds since the epoch; ``chance`` random numbers from 0 to 1.
    ``run_of`` makes a run of a plan, which asks a function whether to name a file that failed in the log.
    ``trigger_of`` makes the trigger of a plan, and ``after_of`` its program after a run, if it has one, which tells how
    it ended.
    ``save`` keeps what is known of a move beyond a restart.
    """

    reactor: IReactor
    logger_of: LoggerOf
    now: Callable[[], float]
    chance: Callable[[], float]
    run_of: Callable[[Plan, Occasion, Callable[[Failed], bool]], OneRun]
    trigger_of: Callable[[Plan, MoveState], Trigger]
    after_of: Callable[[Plan, Callable[[str], object]], AfterProgram | None]
    save: Callable[[str, MoveState], object]


class StandingMove:
    """Moves what its plan says for as long as the daemon runs; ``state`` is what is known from before."""

    def __init__(self, plan: Plan, state: MoveState, around: Surroundings) -> None:
        self.plan = plan
        self._state = state
        self._around = around
        self._reactor = around.reactor
        self._log = around.logger_of("moves").bind(move=plan.name)
        self._episodes = Episodes(self._log, around.now)
        self._backoff = Backoff(around.chance)
        self._after_outcomes: Counter[str] = Counter()
        self._trigger = around.trigger_of(plan, state)
        self._after = around.after_of(plan, self._after_ended)
        self._next_plan: Plan | None = None
        """What the plan becomes when the run that goes on has ended."""
        self._run: OneRun | None = None
        self._run_ended: Deferred[None] = succeed(None)
        self._replaced: Deferred[None] = succeed(None)
        """Fires when what a former plan had open is closed."""
        self._timer: IDelayedCall | None = None
        self._not_before = 0.0
        """Until when, on the reactor's clock, it waits after trouble."""
        self._running = False
        self._ended_totals = Totals()
        """Of the runs that have ended."""

    def start(self) -> None:
        """Begin to move, from now on by itself."""
        self._running = True
        if self._state.failing_since is not None:
            self._log.info("move_was_failing", error=self._state.error, since=self._state.failing_since)
        self._look_out()

    def stop(self, patience_s: float) -> Deferred[None]:
        """End in order: what is in flight is kept as a partial; a program after a run gets ``patience_s`` seconds."""
        self._running = False
        self._stop_timer()
        self._cancel_run()
        return Deferred.fromCoroutine(self._stopped(patience_s))

    async def _stopped(self, patience_s: float) -> None:
        await self._run_ended
        program_ended = succeed(None) if self._after is None else self._after.stop(patience_s)
        await self._replaced
        await self._trigger.stop()
        await program_ended

    def change(self, plan: Plan) -> None:
        """Do what another plan says: at once, or after the files that are in flight now.

        A run is ended at once if a key of a peer is not accepted any more: its connection may be with whoever has that.
        """
        if plan == (self.plan if self._next_plan is None else self._next_plan):
            return
        self._next_plan = plan
        if self._run is None:
            self._take_next_plan()
        elif self.plan.pins <= plan.pins:
            self._run.finish_early()
        else:
            self._run.cancel()

    def run(self) -> None:
        """Start a run now, and forget all delays; raises `Conflict` if the move is paused."""
        if self._state.paused:
            raise Conflict(f"move {self.plan.name} is paused: resume it first")
        self._forget_delay()
        self._trigger.asked()

    def pause(self) -> None:
        """Move nothing until `resume`, also after a restart; a run that goes on ends in order."""
        if not self._state.paused:
            self._keep(evolve(self._state, paused=True))
        self._cancel_run()
        self._look()

    def resume(self) -> None:
        """Go on after `pause`, at once if there is anything to do."""
        if self._state.paused:
            self._keep(evolve(self._state, paused=False))
        self._forget_delay()
        self._look()

    def status(self) -> MoveStatus:
        """All there is to know of it now."""
        plan, state = self.plan, self._state
        failures, now = self._trigger.failures, self._around.now()
        running = None if self._run is None else self._run.now()
        newest = max(failures, key=lambda failed: failed.since, default=None)
        return MoveStatus(
            name=plan.name,
            sources=plan.texts[:-1],
            destination=plan.texts[-1],
            when=plan.config.when,
            phase=self._phase(),
            watching=self._trigger.watching,
            backlog=self._backlog(),
            running=running,
            last_run=state.last_run,
            last_success=state.last_success,
            next_run=self._next_run(),
            failing_since=state.failing_since,
            error=state.error,
            error_code=state.error_code,
            failed_files=self._trigger.failed_files,
            busy_files=self._trigger.busy_files,
            file_error="" if newest is None else newest.error,
            file_error_code="" if newest is None else newest.code,
            up_bps=rate_now(plan.options.up_bps, now),
            down_bps=rate_now(plan.options.down_bps, now),
            up_change=_change_of(plan.options.up_bps, now),
            down_change=_change_of(plan.options.down_bps, now),
            totals=self._totals(running),
        )

    def _phase(self) -> Phase:
        if self._state.paused:
            return Phase.PAUSED
        if self._run is not None:
            return Phase.RUNNING
        if self._state.failing_since is not None:
            return Phase.FAILING
        return Phase.STUCK if self._trigger.failed_files > self._trigger.busy_files else Phase.IDLE

    def _backlog(self) -> KnownBacklog:
        known = self._trigger.backlog
        if self._run is None or self._trigger.watching:
            return known
        files, size = self._run.found_left
        return evolve(known, files=files, size=size, at_least=True)

    # When it runs.

    def _look_out(self) -> None:
        self._trigger.changed = self._look
        self._trigger.source_hung = self._cancel_run
        self._trigger.start()
        self._look()

    def _look(self) -> None:
        """Start a run if it is time to, or set the timer for the next look."""
        self._stop_timer()
        if not self._running or self._run is not None or self._state.paused:
            return
        wait = self._trigger.wait_s(self._delay_s())
        if wait is None:
            return
        if wait <= 0.0 and self._begins():
            return
        self._timer = self._reactor.callLater(min(wait, MAX_TIMER_S) if wait > 0.0 else MAX_TIMER_S, self._look)

    def _next_run(self) -> float | None:
        """When it starts again by itself, by the wall clock, as far as that is known."""
        if not self._running or self._run is not None or self._state.paused:
            return None
        wait = self._trigger.wait_s(self._delay_s())
        return None if wait is None else self._around.now() + max(0.0, wait)

    def _delay_s(self) -> float:
        return max(0.0, self._not_before - self._reactor.seconds())

    def _delay_after(self, trouble: RealizeError) -> None:
        delay = self._backoff.next()
        if isinstance(trouble, ConnectionFailed):
            delay = min(delay, MAX_AWAY_DELAY_S)
        self._not_before = self._reactor.seconds() + delay

    def _forget_delay(self) -> None:
        self._not_before = 0.0
        self._backoff.reset()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # One run.

    def _begins(self) -> bool:
        """Begin a run, if there is anything to do after all."""
        occasion = self._trigger.begin()
        if occasion is None:
            return False
        self._run = self._around.run_of(self.plan, occasion, self._names_file)
        self._run_ended = self._run.start().addCallbacks(self._ended, self._broke)
        return True

    def _cancel_run(self) -> None:
        if self._run is not None:
            self._run.cancel()

    def _ended(self, end: RunEnd) -> None:
        self._run = None
        self._trigger.ended(end)
        self._count(end)
        trouble = end.error
        if trouble is not None:
            self._episodes.failed(trouble, since=self._state.failing_since)
            if end.result.moved_files:
                self._backoff.reset()
            self._delay_after(trouble)
        elif end.complete:
            self._forget_delay()
        failures = self._trigger.failures
        self._tell_what_lasts(end, failures)
        self._remember(end, failures)
        if self._after is not None and (end.result.moved_files or end.result.failed_files):
            self._after.ran(end.result, end.failed)
        self._go_on()

    def _broke(self, failure: Failure) -> None:
        """Go on after a fault of ours, as after any trouble."""
        _twisted.failure("a standing move broke", failure)
        self._run = None
        self._not_before = self._reactor.seconds() + self._backoff.next()
        self._go_on()

    def _go_on(self) -> None:
        self._take_next_plan()
        # Not at once: whoever ended the run may still be at work with it.
        self._reactor.callLater(0.0, self._look)

    def _count(self, end: RunEnd) -> None:
        before, result = self._ended_totals, end.result
        failures = Counter(before.failures) + end.failures
        if end.error is not None:
            failures[kind_of_error(end.error)] += 1
        self._ended_totals = Totals(
            moved_files=before.moved_files + result.moved_files,
            moved_bytes=before.moved_bytes + result.moved_bytes,
            runs=before.runs + 1,
            run_seconds=before.run_seconds + max(0.0, result.ended - result.began),
            failures=dict(failures),
        )

    def _totals(self, running: RunNow | None) -> Totals:
        expected = dict.fromkeys((outcome.value for outcome in AfterOutcome), 0) if self.plan.config.after else {}
        totals = evolve(self._ended_totals, after={**expected, **self._after_outcomes})
        if self._run is None or running is None:
            return totals
        return evolve(
            totals,
            moved_files=totals.moved_files + running.moved_files,
            moved_bytes=totals.moved_bytes + running.moved_bytes,
            failures=dict(Counter(totals.failures) + self._run.failures),
        )

    def _after_ended(self, outcome: str) -> None:
        self._after_outcomes[outcome] += 1

    def _names_file(self, failed: Failed) -> bool:
        """Whether the log names this file: it does at the first attempt, and not each of very many.

        That there is no room is trouble of the whole move with the first file.
        """
        if isinstance(failed.error, NoSpace):
            self._episodes.stuck(failed.error)
        return self._trigger.is_first_failure(failed.path) and self._episodes.may_name(failed.error)

    def _tell_what_lasts(self, end: RunEnd, failures: Sequence[FileFailure]) -> None:
        if end.error is None and not end.complete:
            return
        whole = set() if end.error is None else {kind_of_error(end.error)}
        self._episodes.last(whole, {failed.code for failed in failures})

    def _remember(self, end: RunEnd, failures: Sequence[FileFailure]) -> None:
        result, error = end.result, end.error
        # A file that failed in an earlier run and waits is not moved either.
        good = error is None and end.complete and not result.failed_files and not self._trigger.failed_files
        since, code = self._state.failing_since, self._state.error_code
        if error is not None:
            since = result.began if since is None else since
            code = kind_of_error(error)
        elif end.complete:
            since = None
        self._keep(
            evolve(
                self._state,
                last_run=result,
                last_success=result.ended if good else self._state.last_success,
                failing_since=since,
                attempts=0 if since is None else self._state.attempts + 1,
                error="" if since is None else self._state.error if error is None else str(error),
                error_code="" if since is None else code,
                last_due=self._trigger.last_due,
                unfinished=self._trigger.unfinished,
                failures=failures,
            )
        )

    def _keep(self, state: MoveState) -> None:
        self._state = state
        self._around.save(self.plan.name, self._state)

    # Another plan.

    def _take_next_plan(self) -> None:
        plan, self._next_plan = self._next_plan, None
        if plan is None:
            return
        old_trigger = self._trigger
        old_trigger.changed = old_trigger.source_hung = lambda: None
        self.plan = plan
        self._trigger = self._around.trigger_of(plan, self._state)
        if self._after is None:
            self._after = self._around.after_of(plan, self._after_ended)
        else:
            self._after.change(plan.config.after, plan.config.after_timeout_s)
        self._forget_delay()
        self._replaced = Deferred.fromCoroutine(_closed(self._replaced, old_trigger))
        if self._running:
            self._look_out()


async def _closed(before: Deferred[None], trigger: Trigger) -> None:
    await before
    await trigger.stop()


def _change_of(limit: RateByTime, now: float) -> LimitChange | None:
    change = change_after(limit, now)
    return None if change is None else LimitChange(at=change[0], bps=change[1])
