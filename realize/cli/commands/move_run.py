"""Runs a move, or a copy, from the words of the command line to the exit code."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeAlias

import click
from twisted.internet.task import LoopingCall

from realize.cli.credentials import credentials_of
from realize.cli.deadline import Deadline
from realize.cli.display.choice import Display, choose
from realize.cli.display.options import DisplayOptions
from realize.cli.display.summary import deadline_line
from realize.cli.logs import flush, logger_of
from realize.cli.options import Access, LogOptions
from realize.cli.runner import run
from realize.concurrency.reactor import IReactor
from realize.errors import DeadlineReached, RealizeError, StorageError
from realize.exit_codes import ExitCode
from realize.mover.events import Event, Observer
from realize.runs.metrics import RunMetrics
from realize.runs.move_options import MoveOptions
from realize.runs.move_run import MoveRun
from realize.runs.options import Patience
from realize.runs.session import Session
from realize.runs.tally import Tally
from realize.units import format_duration

MakeRun: TypeAlias = Callable[[Observer, Callable[[], Awaitable[None]]], MoveRun]
"""Makes a run for its observer, and for what is awaited once it is connected."""

LAST_LINE_TIMEOUT_S: Final = 0.5
"""Seconds to wait until the last line of a hanging run is written: stderr itself may be what hangs."""


def run_move(
    texts: Sequence[str],
    access: Access,
    options: MoveOptions,
    look: DisplayOptions,
    metrics: RunMetrics,
    log: LogOptions = LogOptions(),  # noqa: B008 -- frozen
) -> int:
    """Move to the last of ``texts``, show progress, and return the exit code; raise what ended the run early."""
    moving = MoveCommandRun(look, options.patience, metrics)

    async def main(reactor: IReactor) -> int:
        try:
            credentials = credentials_of(access)
            async with (
                metrics.during(reactor),
                Session(reactor, credentials, logger_of, options.rates, compress=options.compress) as session,
            ):
                if log.asked:
                    from realize.runs.run_log import RunLog

                    run_log = RunLog(session.run, logger_of)
                    run_log.started(texts, options, remove=look.remove)
                    moving.observers.append(run_log)

                def make(observe: Observer, when_connected: Callable[[], Awaitable[None]]) -> MoveRun:
                    return MoveRun(
                        reactor,
                        session,
                        texts,
                        options,
                        observe,
                        metrics.tally,
                        remove=look.remove,
                        when_connected=when_connected,
                    )

                return await moving.run(reactor, session, deadline, make)
        except RealizeError as error:
            if log.asked and not moving.observers:
                from realize.runs.run_log import log_failure

                log_failure(error, logger_of)
            raise

    # Until the reactor has ended, and with it all its threads, for they may be what hangs.
    with Deadline(options.patience, moving.overdue, metrics.urgent_timeout) as deadline:
        return run(main, log, lambda result: metrics.close_after(result, deadline.left()), moving.killed)


class RunObserver(Protocol):
    """Takes part in a run beside its display."""

    def __call__(self, event: Event) -> None:
        """Take one event of the mover."""

    def deadline_reached(self, tally: Tally, seconds: float) -> None:
        """The time limit ended the run, which is said once, at the latest before `ended`; perhaps in another thread."""

    def ended(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """The run has ended; ``error`` is what ended it before its time."""


class MoveCommandRun:
    """What the command adds to a `MoveRun`: its display, its last line, and the exit code."""

    def __init__(self, look: DisplayOptions, patience: Patience, metrics: RunMetrics) -> None:
        self._patience = patience
        self._verbose = look.verbose and not look.json
        self._metrics = metrics
        self.observers: list[RunObserver] = []
        self._screen = _Observers(choose(look, sys.stdout, sys.stderr, time.monotonic), metrics, self.observers)
        self._moving: MoveRun | None = None
        self._said = False

    async def run(self, reactor: IReactor, session: Session, deadline: Deadline, make: MakeRun) -> int:
        """Move everything, and return the exit code; raises what ended the run, but for the time limit."""
        screen = self._screen
        self._moving = moving = make(screen, lambda: self._say_limits(session))
        ticking = LoopingCall(screen.tick)
        ticking.clock = reactor
        ticking.start(screen.display.interval, now=False)
        # Not at once: the mover is in the middle of telling us something.
        screen.when_broken = lambda: reactor.callLater(0, moving.cancel)
        error: RealizeError | None = None
        try:
            await moving.start(deadline.elapsed())
        except RealizeError as problem:
            error = problem
        finally:
            ticking.stop()
        seconds = deadline.elapsed()
        screen.close(seconds, error)
        if screen.broken is None and isinstance(error, DeadlineReached):
            self._say_how_far(seconds)
        for observer in self.observers:
            observer.ended(screen.tally, seconds, screen.broken or error)
        if screen.broken is not None:
            raise screen.broken from error
        if error is not None and not isinstance(error, DeadlineReached):
            raise error
        return screen.tally.exit_code(error)

    def overdue(self) -> int:
        """Print the last line and report, since the reactor is stuck; from another thread. Return the exit code."""
        tally = self._screen.tally
        tally.give_up()
        code: int = ExitCode.FAILED if self._moving is None else tally.exit_code(self._moving.limit_error())
        if self._metrics.closing:
            # It is only the report that takes its time.
            return self._metrics.close_urgently(code)
        seconds = (self._patience.max_duration or 0.0) + self._patience.grace
        saying = threading.Thread(target=self._say_how_far, args=(seconds,), daemon=True)
        saying.start()
        code = self._metrics.close_urgently(code)
        saying.join(LAST_LINE_TIMEOUT_S)
        flush(LAST_LINE_TIMEOUT_S)
        return code

    def killed(self, code: int) -> None:
        """Report what is known of a run that a second signal ends on the spot."""
        self._screen.tally.give_up()
        self._metrics.close_urgently(code)

    def _say_how_far(self, seconds: float) -> None:
        if not self._said:
            self._said = True
            limit = f"--max-duration {format_duration(self._patience.max_duration or 0.0)}"
            if self._moving is not None and self._moving.sent_all_it_may:
                limit = "--max-transfer"
            for observer in self.observers:
                observer.deadline_reached(self._screen.tally, seconds)
            click.echo(f"realize: {deadline_line(self._screen.tally, limit, seconds)}", err=True)

    async def _say_limits(self, session: Session) -> None:
        if self._verbose:
            for line in await session.limits():
                click.echo(line, err=True)


class _Observers:
    """The observer of a run: counts, displays, and keeps failures of the output away from the mover."""

    def __init__(self, display: Display, metrics: RunMetrics, observers: Sequence[RunObserver]) -> None:
        self._observers = observers
        self.tally = metrics.tally
        self.display = display
        self.metrics = metrics
        self.broken: StorageError | None = None
        self.when_broken: Callable[[], object] = lambda: None

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self.tally(event)
        self.metrics(event)
        for observer in self._observers:
            observer(event)
        if self.broken is None:
            try:
                self.display(event)
            except OSError as error:
                self._fail(error)

    def tick(self) -> None:
        """Show how far the run has come."""
        self._safely(self.display.tick)

    def close(self, seconds: float, error: RealizeError | None) -> None:
        """Show what it came to."""
        self._safely(lambda: self.display.close(self.tally, seconds, error))

    def _safely(self, show: Callable[[], None]) -> None:
        if self.broken is not None:
            return
        try:
            show()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.broken = StorageError(f"cannot write output: {error.strerror}")
        self.when_broken()
