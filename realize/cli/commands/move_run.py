"""Runs a move, or a copy, from the words of the command line to the exit code."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater

from realize.cli.display.choice import Display, choose
from realize.cli.display.options import DisplayOptions
from realize.cli.display.summary import Tally
from realize.cli.logs import flush
from realize.cli.manifest import recording
from realize.cli.metrics import RunMetrics
from realize.cli.options import Access, LogOptions, Patience, Rates
from realize.cli.session.deadline import Deadline
from realize.cli.session.runner import run
from realize.cli.session.session import Session
from realize.cli.session.tidying import Tidying
from realize.concurrency.reactor import IReactor
from realize.errors import ConnectionFailed, DeadlineReached, Interrupted, RealizeError, StorageError, mending
from realize.locations import Location, RemoteLocation
from realize.mover.backoff import Backoff
from realize.mover.events import Event, PartialGone, Retrying
from realize.mover.interfaces import IManifest
from realize.mover.run import MoveOptions, Run, Side
from realize.mover.stop_flag import StopFlag

FAILED_ATTEMPTS_BEFORE_ADVICE: Final = 5
"""After this many failed attempts, some six seconds, the user is told how to find the cause."""

LAST_LINE_TIMEOUT_S: Final = 0.5
"""Seconds to wait until the last line of a hanging run is written: stderr itself may be what hangs."""


def run_move(
    sources: Sequence[str],
    destination: str,
    access: Access,
    options: MoveOptions,
    look: DisplayOptions,
    rates: Rates,
    patience: Patience,
    *,
    metrics: RunMetrics,
    manifest: str | None = None,
    trusting: bool = False,
    log: LogOptions = LogOptions(),  # noqa: B008 -- frozen
) -> int:
    """Move ``sources`` to ``destination``, show progress, and return the exit code; raise what ended the run early.

    ``manifest`` is the file in which to record what was moved.
    ``trusting`` says that sources may learn what the destination holds, and so compares with all of it.
    """
    moving = MoveRun([*sources, destination], options, look, patience, metrics, manifest, trusting=trusting)

    async def main(reactor: IReactor) -> int:
        try:
            async with metrics.during(reactor), Session(reactor, access, rates) as session:
                if log.asked:
                    from realize.cli.run_log import RunLog

                    run_log = RunLog(session.run)
                    run_log.started([*sources, destination], options, rates, patience)
                    moving.observers.append(run_log)
                return await moving.run(reactor, session, deadline)
        except RealizeError as error:
            if log.asked and not moving.observers:
                from realize.cli.run_log import log_failure

                log_failure(error)
            raise

    # Until the reactor has ended, and with it all its threads, for they may be what hangs.
    with Deadline(patience, moving.limit_reached, moving.overdue, metrics.urgent_timeout) as deadline:
        return run(main, log, lambda result: metrics.close_after(result, deadline.left()), moving.killed)


class RunObserver(Protocol):
    """Takes part in a run beside its display."""

    def __call__(self, event: Event) -> None:
        """Take one event of the mover."""

    def deadline_reached(self, tally: Tally, seconds: float) -> None:
        """The time limit ended the run, which is said once, at the latest before `ended`; perhaps in another thread."""

    def ended(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """The run has ended; ``error`` is what ended it before its time."""


class MoveRun:
    """One move: its display, its time limit, and its new attempts after lost connections."""

    def __init__(
        self,
        texts: Sequence[str],
        options: MoveOptions,
        look: DisplayOptions,
        patience: Patience,
        metrics: RunMetrics,
        manifest: str | None = None,
        *,
        trusting: bool = False,
    ) -> None:
        self._trusting = trusting
        self._reactor: IReactor | None = None
        self._texts = texts
        self._manifest = manifest
        self._options = options
        self._patience = patience
        self._verbose = look.verbose and not look.json
        self._stop_flag = StopFlag()
        self._tidying: Tidying | None = None
        self.observers: list[RunObserver] = []
        self._metrics = metrics
        self._screen = _Observers(choose(look, sys.stdout, sys.stderr, time.monotonic), metrics, self.observers)
        self._work: Deferred[None] | None = None
        self._late = False
        self._between = False
        self._connected = False
        self._lost: ConnectionFailed | None = None
        self._said = False

    async def run(self, reactor: IReactor, session: Session, deadline: Deadline) -> int:
        """Move everything, and return the exit code; raises what ended the run, but for the time limit."""
        self._reactor = reactor
        screen = self._screen
        ticking = LoopingCall(screen.tick)
        ticking.clock = reactor
        ticking.start(screen.display.interval, now=False)
        # Not at once: the mover is in the middle of telling us something.
        screen.when_broken = lambda: reactor.callLater(0, self._cancel)
        error: RealizeError | None = None
        start: Deferred[None] = Deferred()
        self._work = start.addCallback(lambda _: Deferred.fromCoroutine(self._move(reactor, session)))
        if self._late:
            self._out_of_time(reactor)
        start.callback(None)
        try:
            await self._work
        except CancelledError:
            error = Interrupted("interrupted")
        except RealizeError as problem:
            error = problem
        finally:
            ticking.stop()
        if self._late and isinstance(error, Interrupted):
            error = self._limit_error()
        seconds = deadline.elapsed()
        screen.close(seconds, error)
        session.ended_by(error)
        if screen.broken is None and isinstance(error, DeadlineReached):
            self._say_how_far(seconds)
        for observer in self.observers:
            observer.ended(screen.tally, seconds, screen.broken or error)
        if screen.broken is not None:
            raise screen.broken from error
        if error is not None and not isinstance(error, DeadlineReached):
            raise error
        return screen.tally.exit_code(error)

    def limit_reached(self) -> None:
        """End the run, because its time is over; called from another thread."""
        self._late = True
        if self._reactor is not None:
            self._reactor.callFromThread(self._out_of_time, self._reactor)

    def overdue(self) -> int:
        """Print the last line and report, since the reactor is stuck; from another thread. Return the exit code."""
        self._screen.tally.give_up()
        code: int = self._screen.tally.exit_code(self._limit_error())
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

    def _limit_error(self) -> RealizeError:
        """The error for a run at its time limit: one that never got a connection has failed."""
        cause = "" if self._lost is None else f"; {self._lost}"
        if self._connected:
            return DeadlineReached(f"the time limit was reached{cause}")
        return ConnectionFailed(f"the time limit was reached, and no connection was made{cause}")

    def _out_of_time(self, reactor: IReactor) -> None:
        if not self._stop_flag.requested:
            self._stop_flag.request()
            # The grace is for files under way, and between two attempts there are none.
            reactor.callLater(0.0 if self._between else self._patience.grace, self._cancel)

    def _cancel(self) -> None:
        # A signal does the same: it is the orderly way to stop a run.
        if self._work is not None:
            self._work.cancel()

    def _say_how_far(self, seconds: float) -> None:
        if not self._said:
            self._said = True
            limit = self._patience.max_duration or 0.0
            for observer in self.observers:
                observer.deadline_reached(self._screen.tally, seconds)
            click.echo(f"realize: {self._screen.tally.deadline_sentence(limit, seconds)}", err=True)

    async def _move(self, reactor: IReactor, session: Session) -> None:
        """Run until everything is moved, and recorded if a manifest was asked for."""
        locations = session.resolve(*self._texts)
        *self._screen.tally.sources, self._screen.tally.destination = [each.resolved for each in locations]
        async with recording(self._manifest, session, locations) as manifest:
            self._tidying = None if self._options.dry_run else session.tidying(locations[-1], self._screen)
            session.on_freed = lambda path, size: self._screen(PartialGone(path, size, expired=False))
            await self._until_done_tidily(reactor, session, locations, manifest)
            if manifest is not None:
                await manifest.finish()

    async def _until_done_tidily(
        self, reactor: IReactor, session: Session, locations: Sequence[Location], manifest: IManifest | None
    ) -> None:
        """The same, while old partials at a local destination are removed."""
        tidying = self._tidying
        if tidying is None:
            await self._until_done(reactor, session, locations, manifest)
            return
        tidying.start()
        try:
            await self._until_done(reactor, session, locations, manifest)
            if not self._stop_flag.requested:
                await tidying.finish()
        finally:
            tidying.stop()

    def _observe(self, event: Event) -> None:
        self._screen(event)
        if self._tidying is not None:
            self._tidying(event)

    async def _until_done(
        self, reactor: IReactor, session: Session, locations: Sequence[Location], manifest: IManifest | None
    ) -> None:
        """Run until everything is moved, reconnecting after lost connections."""
        journey: Run | None = None
        backoff = Backoff(random.SystemRandom().random)
        while True:
            steps = self._screen.tally.steps
            try:
                sources, destination = await self._sides(session, locations)
                self._connected, self._lost = True, None
                if journey is None:
                    await self._say_limits(session)
                    options, observe = self._options, self._observe
                    journey = Run(sources, destination, options, observe, reactor, self._stop_flag, manifest)
                else:
                    journey = journey.resumed(sources, destination)
                await journey.start()
            except ConnectionFailed as error:
                if not self._patience.retry or error.permanent:
                    raise
                self._lost = error
                if self._stop_flag.requested:
                    raise self._limit_error() from error
                if self._screen.tally.steps > steps:
                    backoff.reset()
                delay = backoff.next()
                what_helps = advice(error, locations) if backoff.attempts >= FAILED_ATTEMPTS_BEFORE_ADVICE else ""
                self._screen(Retrying(error, delay, what_helps))
            else:
                return
            self._between = True
            await session.disconnect()
            await deferLater(reactor, delay)
            self._between = False

    async def _sides(self, session: Session, locations: Sequence[Location]) -> tuple[list[Side], Side]:
        """The sources, and the destination, which is a store of its own for each that may not learn what it holds."""
        *sources, destination = locations
        stores = [await session.store(each) for each in sources]
        origins = [None if self._trusting else session.origin(each, destination) for each in sources]
        into = {origin: await session.store(destination, origin) for origin in dict.fromkeys(origins)}
        sides = [Side(*each) for each in zip(stores, map(str, sources), map(into.__getitem__, origins), strict=True)]
        return sides, Side(into[origins[0]], str(destination))

    async def _say_limits(self, session: Session) -> None:
        if self._verbose:
            for line in await session.limits():
                click.echo(line, err=True)


def advice(error: ConnectionFailed, locations: Sequence[Location]) -> str:
    """The command that shows why a connection failed; empty if ``error`` names none of the remote locations."""
    remote = (each for each in locations if isinstance(each, RemoteLocation) and each.address in str(error))
    return next((mending(str(each)) for each in remote), "")


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
        self._safely(lambda: self.display(event))

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
            self.broken = StorageError(f"cannot write output: {error.strerror}")
            self.when_broken()
