"""All standing moves of a daemon: started, changed by a reload, steered, and ended together."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure

from realize.concurrency.reactor import IReactor
from realize.concurrency.thread_pool import ThreadPools
from realize.config import Config
from realize.errors import NotFound
from realize.logger import Logger, LoggerOf
from realize.mover.events import Failed
from realize.moves.after_program import AfterProgram
from realize.moves.one_run import Occasion, OneRun
from realize.moves.plan import Plan
from realize.moves.settling import Settling
from realize.moves.standing_move import StandingMove, Surroundings
from realize.moves.state import MoveState
from realize.moves.state_directory import StateDirectory
from realize.moves.status import MoveStatus
from realize.moves.timed import Timed
from realize.moves.trigger import Trigger
from realize.runs.credentials import GivenCredentials
from realize.runs.limit_tree import LimitTree
from realize.schedule.when import Settled
from realize.units import quoted
from realize.watch.events import DirectoryEvents
from realize.watch.source_watch import SourceWatch

WATCH_THREADS: Final = 2
"""Threads that look at the files of each source; more would only queue at its disk."""

STATE_ANSWER_S: Final = 5.0
"""How long moves wait for what is known of them from before; a disk that hangs must not keep them from moving."""

_chance: Final = random.SystemRandom().random


def no_such_move(name: str) -> NotFound:
    """The error for a name that no move has."""
    return NotFound(f"there is no move {quoted(name)} in the configuration of this daemon")


class StandingMoves:
    """The standing moves of ``config``, which has our identity in it.

    ``within`` has limits that their connections keep to with others of this process.
    ``now`` returns the wall clock's seconds since the epoch, and ``chance`` random numbers from 0 to 1.
    """

    def __init__(
        self,
        config: Config,
        reactor: IReactor,
        logger_of: LoggerOf,
        *,
        within: LimitTree | None = None,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = _chance,
    ) -> None:
        self._reactor = reactor
        self._logger_of = logger_of
        self._within = within
        self._now = now
        self._plans: dict[str, Plan] = {}
        self._credentials = GivenCredentials(config)
        self._moves: dict[str, StandingMove] = {}
        self._directory_events = DirectoryEvents(reactor)
        self._watch_pools = ThreadPools(reactor, WATCH_THREADS, "watch")
        self._program_pools = ThreadPools(reactor, 1, "program")
        self._state_pools = ThreadPools(reactor, 1, "state")
        self._states = StateDirectory(
            config.state,
            clock=reactor,
            run_in_thread=self._state_pools.of("").run,
            log=logger_of("moves"),
        )
        self._around = Surroundings(
            reactor=reactor,
            logger_of=logger_of,
            now=now,
            chance=chance,
            run_of=self._run_of,
            trigger_of=self._trigger_of,
            after_of=self._after_of,
            save=self._states.save,
        )
        self._removed: dict[str, Deferred[None]] = {}
        """For each move that is no more, and has not ended: fires when it has."""
        self._running = False

    def start(self, plans: Mapping[str, Plan]) -> None:
        """Begin to move, each once it is known how it fared before; for plans see `realize.moves.plan.plans_of`."""
        self._running = True
        self._plans = dict(plans)
        for plan in plans.values():
            self._load(plan)

    def reload(self, config: Config, plans: Mapping[str, Plan]) -> None:
        """Add, change and remove moves; one that runs is changed after the files that are in flight."""
        self._credentials = GivenCredentials(config)
        before, self._plans = self._plans, dict(plans)
        if not self._running:
            return
        for name in [name for name in self._moves if name not in plans]:
            self._remove(name)
        for name, plan in plans.items():
            if name in self._moves:
                self._moves[name].change(plan)
            elif name not in before:
                self._load(plan)
        self._program_pools.keep(list(plans))
        self._watch_pools.keep([path for plan in plans.values() for path in plan.texts])

    def stop(self, patience_s: float) -> Deferred[None]:
        """End all in order; what still runs is cut short, keeping partials, and fires when nothing is left."""
        self._running = False
        return Deferred.fromCoroutine(self._stop(patience_s))

    async def _stop(self, patience_s: float) -> None:
        await DeferredList([move.stop(patience_s) for move in self._moves.values()] + list(self._removed.values()))
        await self._states.flush()
        await self._watch_pools.ended()
        await self._program_pools.ended()
        await self._state_pools.ended()

    def statuses(self) -> list[MoveStatus]:
        """What there is to know of each, in the order of the configuration."""
        return [self._moves[name].status() for name in self._plans if name in self._moves]

    def run(self, name: str) -> None:
        """Start a run of a move now; raises `NotFound`, and `realize.errors.Conflict` if it is paused."""
        self._named(name).run()

    def pause(self, name: str) -> None:
        """Pause a move; raises `NotFound`."""
        self._named(name).pause()

    def resume(self, name: str) -> None:
        """Resume a move; raises `NotFound`."""
        self._named(name).resume()

    def _named(self, name: str) -> StandingMove:
        if name not in self._moves:
            raise no_such_move(name)
        return self._moves[name]

    def _load(self, plan: Plan) -> None:
        if plan.name in self._removed:
            return  # it is loaded when the former one of that name has ended
        loading = self._states.load(plan.name).addTimeout(STATE_ANSWER_S, self._reactor)
        loading.addErrback(self._hangs, plan.name).addCallback(self._loaded, plan.name)

    def _hangs(self, failure: Failure, name: str) -> MoveState:
        failure.trap(DeferredTimeout)
        self._logger_of("moves").warning("state_not_read", move=name, error="the disk does not answer")
        return MoveState()

    def _loaded(self, state: MoveState, name: str) -> None:
        plan = self._plans.get(name)
        if not self._running or plan is None or name in self._moves:
            return
        move = self._moves[name] = StandingMove(plan, state, self._around)
        move.start()

    def _remove(self, name: str) -> None:
        self._states.forget(name)
        ended = self._removed[name] = self._moves.pop(name).stop(0.0)
        ended.addBoth(lambda _: self._is_removed(name))

    def _is_removed(self, name: str) -> None:
        del self._removed[name]
        self._states.forget(name)  # again: a run that has just ended was remembered
        if self._running and name in self._plans:
            self._load(self._plans[name])

    def _run_of(self, plan: Plan, occasion: Occasion, names_file: Callable[[Failed], bool]) -> OneRun:
        def logger_of(component: str) -> Logger:
            return self._logger_of("moves" if component == "cli" else component).bind(move=plan.name)

        return OneRun(
            self._reactor, plan, self._credentials, logger_of, occasion, within=self._within, names_file=names_file
        )

    def _trigger_of(self, plan: Plan, state: MoveState) -> Trigger:
        max_duration_s = plan.options.max_duration_s
        if not isinstance(plan.when, Settled):
            return Timed(
                self._reactor,
                plan.when,
                self._now,
                plan.texts[:-1],
                max_duration_s,
                jitter_s=plan.jitter_s(self._credentials.identities()[0].public_key.spki),
                last_due=state.last_due,
                unfinished=state.unfinished,
                failures=state.failures,
            )
        selection = plan.options.transfer(remove=True).selection
        log = self._logger_of("watch").bind(move=plan.name)

        def watch_of(path: str) -> SourceWatch:
            return SourceWatch(
                os.fsencode(path),
                settle_s=plan.config.settle_s,
                accepts=selection.accepts_path,
                accepts_size=selection.accepts_size,
                accepts_unreadable=selection.accepts_unreadable,
                leave=selection.leaving(),
                one_file_system=plan.options.one_file_system,
                links=plan.options.links,
                reactor=self._reactor,
                events=self._directory_events,
                run_in_thread=self._watch_pools.of(path).run,
                log=log,
            )

        return Settling(
            self._reactor,
            plan.texts[:-1],
            watch_of,
            prunes=plan.config.prune_age_s is not None,
            max_duration_s=max_duration_s,
            failures=state.failures,
        )

    def _after_of(self, plan: Plan, ended: Callable[[str], object]) -> AfterProgram | None:
        if not plan.config.after:
            return None
        log: Logger = self._logger_of("moves").bind(move=plan.name)
        return AfterProgram(
            plan.config.after,
            move=plan.name,
            reactor=self._reactor,
            run_in_thread=self._program_pools.of(plan.name).run,
            log=log,
            timeout_s=plan.config.after_timeout_s,
            on_outcome=lambda outcome: ended(outcome.value),
        )
