"""One run of a standing move, through the same room as those of the command and of programs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger as TwistedLogger

from realize.by_value import ByValue
from realize.clocks import since_boot_s
from realize.concurrency.reactor import IReactor
from realize.errors import DeadlineReached, InternalError, Interrupted, RealizeError
from realize.logger import LoggerOf
from realize.mover.events import Event, Failed, Found, HeldBack, Left, NoRoom, SourceStarted
from realize.moves.episodes import kind_of_error
from realize.moves.feed import SettledFeed
from realize.moves.plan import Plan
from realize.moves.status import FileUnderWay, RunNow, RunResult
from realize.runs.board import Board
from realize.runs.credentials import Credentials
from realize.runs.limit_tree import LimitTree
from realize.runs.move_run import MoveRun
from realize.runs.run_log import RunLog
from realize.runs.session import Session
from realize.runs.tally import Tally
from realize.units import display_name

MAX_SHOWN_FILES: Final = 20
"""Files in flight that are shown of one run."""

MIN_RATE_S: Final = 1.0
"""Seconds over which a rate is measured at least."""

PATIENCE_S: Final = 10.0
"""Seconds that a run which was cancelled waits for threads; those that hang at a disk end when it answers."""

_twisted = TwistedLogger()


@frozen(eq=False, repr=False)
class Occasion(ByValue):
    """What a run is to do.

    ``texts`` are its sources, one for each feed if there are feeds.
    ``remaining_s`` is what is left of the time limit; None if there is none.
    ``prunes`` says whether it removes empty directories, if the plan does.
    """

    texts: Sequence[str]
    feeds: Sequence[SettledFeed] = ()
    remaining_s: float | None = None
    prunes: bool = True


@frozen(eq=False, repr=False)
class RunEnd(ByValue):
    """How a run ended.

    ``error`` is what ended it early, if that was trouble; a time limit is none, nor is what we ``cut_short`` for a
    reload, a pause or the end of the daemon, but then it is not ``complete`` either.
    ``failed`` has the files that could not be moved and ``failures`` counts them by kind of error.
    """

    result: RunResult
    error: RealizeError | None
    complete: bool
    failed: Sequence[tuple[bytes, RealizeError]]
    failures: Counter[str]
    left_files: int
    left_bytes: int
    cut_short: bool = False


class OneRun:
    """Moves what the feeds of ``occasion`` give, or without them what its sources have; to be started once.

    ``within`` has limits that its connections keep to with others of this process.
    ``names_file`` is asked whether the log names a file that failed.
    """

    def __init__(
        self,
        reactor: IReactor,
        plan: Plan,
        credentials: Credentials,
        logger_of: LoggerOf,
        occasion: Occasion,
        *,
        within: LimitTree | None = None,
        names_file: Callable[[Failed], bool] = lambda _: True,
    ) -> None:
        self._reactor = reactor
        self._within = within
        self._plan = plan
        self._credentials = credentials
        self._logger_of = logger_of
        self._texts = (*occasion.texts, plan.texts[-1])
        self._feeds = occasion.feeds
        self._options = evolve(
            plan.options,
            max_duration_s=occasion.remaining_s,
            prune_age_s=plan.options.prune_age_s if occasion.prunes else None,
        )
        self._names_file = names_file
        self._tally = Tally()
        self._board = Board()
        self._failed: dict[bytes, RealizeError] = {}
        self._failures: Counter[str] = Counter()
        self._began = time.time()
        self._began_s = since_boot_s()
        self._run = ""
        self._run_log: RunLog | None = None
        self._moving: MoveRun | None = None
        self._cut_short = self._cancelled = False
        self._open: Session | None = None
        self._impatient: IDelayedCall | None = None
        self._begin_told = False
        self._source: SourceStarted | None = None
        """One that began, and is not told yet."""
        self._sample: tuple[float, int, float | None] = (reactor.seconds(), 0, None)
        """When the rate was last measured, what was moved by then, and the rate."""

    def start(self) -> Deferred[RunEnd]:
        """Run to the end, whatever happens; the files that it did not come to are given back."""
        return Deferred.fromCoroutine(self._to_the_end())

    def finish_early(self) -> None:
        """Let files in flight arrive, and start no others."""
        self._cut_short = True
        for feed in self._feeds:
            feed.end()
        if self._moving is not None:
            self._moving.finish_early()

    def cancel(self) -> None:
        """End in order at once: what has arrived of files in flight is kept.

        After `PATIENCE_S` it ends whatever hangs.
        """
        if self._cancelled:
            return
        self._cut_short = self._cancelled = True
        self._impatient = self._reactor.callLater(PATIENCE_S, self._lose_patience)
        if self._moving is not None:
            self._moving.cancel()

    def _lose_patience(self) -> None:
        if self._open is not None:
            self._open.abandon_threads()

    def now(self) -> RunNow:
        """How far it is."""
        return RunNow(
            run=self._run,
            began=self._began,
            moved_files=self._tally.arrived,
            moved_bytes=self._tally.arrived_bytes,
            failed_files=self._tally.failed,
            rate_bps=self._rate(),
            in_flight=[
                FileUnderWay(path=display_name(path), size=file.size, done=file.reached)
                for path, file in islice(self._board.in_flight.items(), MAX_SHOWN_FILES)
                if file.size
            ],
        )

    @property
    def failures(self) -> Counter[str]:
        """The files that could not be moved so far, by kind of error."""
        return self._failures

    @property
    def found_left(self) -> tuple[int, int]:
        """How many of the files that were found are not done yet, and their bytes."""
        board = self._board
        return max(0, board.found_files - board.done_files), max(0, board.found_bytes - board.done)

    async def _to_the_end(self) -> RunEnd:
        error: RealizeError | None = None
        try:
            await self._session()
        except RealizeError as problem:
            error = problem
        except Exception as fault:  # noqa: BLE001 -- its files would be in flight for ever
            _twisted.failure("a run of a standing move broke")
            error = InternalError(f"a bug of Realize; the log has the details: {fault!r}")
        if self._impatient is not None and self._impatient.active():
            self._impatient.cancel()
        early = error is not None or self._cut_short
        if isinstance(error, DeadlineReached | Interrupted):
            error = None
        elif error is None and not self._feeds and len(self._texts) == 2 and b"" in self._failed:
            error = self._failed.pop(b"")
        for feed in self._feeds:
            feed.over(complete=not early)
        tally, ended = self._tally, time.time()
        result = RunResult(
            run=self._run,
            # If the clock was set meanwhile, this is when the run began by the clock as it is now.
            began=ended - (since_boot_s() - self._began_s),
            ended=ended,
            moved_files=tally.arrived,
            moved_bytes=tally.arrived_bytes,
            failed_files=tally.failed,
            error="" if error is None else str(error),
            code=tally.exit_code(error).name.lower(),
        )
        self._log_end(result, error)
        files, size = self.found_left
        failed = list(self._failed.items())
        return RunEnd(result, error, not early, failed, self._failures, files, size, self._cut_short)

    async def _session(self) -> None:
        plan = self._plan
        async with Session(
            self._reactor,
            self._credentials,
            self._logger_of,
            plan.options.rates,
            self._within,
            compress=plan.options.compress,
        ) as session:
            self._open, self._run = session, session.run
            self._run_log = RunLog(session.run, self._logger_of)
            self._moving = MoveRun(
                self._reactor,
                session,
                self._texts,
                self._options,
                self._observe,
                self._tally,
                remove=True,
                feeds=self._feeds,
            )
            if self._cut_short:
                self._moving.finish_early()
            if not self._cancelled:
                await self._moving.start()

    def _observe(self, event: Event) -> None:
        self._tally(event)
        self._board(event)
        if isinstance(event, Failed):
            self._failed[event.path] = event.error
            self._failures[kind_of_error(event.error)] += 1
            if not self._names_file(event):
                return
        if self._run_log is not None:
            self._log(self._run_log, event)

    def _log(self, run_log: RunLog, event: Event) -> None:
        """Log an event; the beginnings of a run, and of its sources, are not logged before there is a file.

        What is the same in each run is not logged: what is never moved, and that there is no room.
        """
        if isinstance(event, Left | HeldBack | NoRoom):
            return
        if isinstance(event, SourceStarted):
            self._source = event
            return
        if not self._begin_told and isinstance(event, Found | Failed):
            self._begin_told = True
            if not self._feeds:
                run_log.started(self._texts, self._options, remove=True)
        if self._source is not None and isinstance(event, Found):
            if not self._feeds:
                run_log(self._source)
            self._source = None
        run_log(event)

    def _log_end(self, result: RunResult, error: RealizeError | None) -> None:
        """Log what a run came to that had files; trouble is logged when it begins, not at each attempt."""
        if self._run_log is not None and self._begin_told:
            self._run_log.counted(self._tally, result.ended - result.began, error)

    def _rate(self) -> float | None:
        now, moved = self._reactor.seconds(), self._board.moved
        then, before, rate = self._sample
        if now - then >= MIN_RATE_S:
            rate = (moved - before) / (now - then)
            self._sample = (now, moved, rate)
        return rate
