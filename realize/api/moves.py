"""Moves and copies of another program, as the command makes them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool

from realize.api.access import ConfigOrFile, credentials_of, location_text, loggers_or_twisted, warn
from realize.api.cancelling import cancellable_anywhere
from realize.concurrency.loading_ahead import load_now
from realize.concurrency.reactor import IReactor
from realize.errors import DeadlineReached, Interrupted, RealizeError, UsageError
from realize.exit_codes import ExitCode
from realize.logger import LoggerOf
from realize.mover.events import Event, Observer
from realize.runs.metrics import RunMetrics
from realize.runs.move_options import MoveOptions
from realize.runs.move_run import BEGINNING_AHEAD, KEEPING_AHEAD, LOADED_AHEAD, MoveRun
from realize.runs.run_log import RunLog, log_failure
from realize.runs.session import Session
from realize.runs.summary import Summary

# The program may live for years, and make short moves only: it must not load what is missing from a later version.
load_now((*LOADED_AHEAD, *KEEPING_AHEAD, *BEGINNING_AHEAD, "realize.config.reading_moves"))

Place: TypeAlias = str | os.PathLike[str]
"""A location as on the command line, a path or ``PEER::DIRECTORY/PATH``; a `pathlib.Path` is always a path."""

DEFAULT_OPTIONS = MoveOptions()
"""Those of the command."""


def move(
    reactor: IReactor,
    sources: Place | Sequence[Place],
    destination: Place,
    *,
    config: ConfigOrFile = None,
    options: MoveOptions = DEFAULT_OPTIONS,
    on_event: Observer | None = None,
    logger_of: LoggerOf | None = None,
) -> Deferred[Summary]:
    """Move files: each is copied, verified, durable at ``destination``, and only then removed from its source.

    ``config`` has our identity and the peers; it may be the name of a file, and None is the file of the command.
    It is not read if both ends are on this machine.
    ``on_event`` is called with each event of `realize.api.events` in the reactor's thread, and must be quick; an error
    that it raises ends the run in order, and is what the Deferred fails with.
    ``logger_of`` returns the loggers of the run; by default its records are events of Twisted's log.

    Fires with a `Summary` when every file was tried, or the time limit of the options was reached.
    Fails with the `RealizeError` that ended the run early, such as `ConnectionFailed`; events told how far it came.
    Cancelled, it ends in order, which keeps what has arrived, and then fails with CancelledError; cancelled once more,
    it does not wait for peers to say goodbye.
    """
    run = _ApiRun(reactor, _texts(sources, destination), options, on_event, loggers_or_twisted(logger_of), remove=True)
    return cancellable_anywhere(reactor, run.to_the_end(config))


def copy(
    reactor: IReactor,
    sources: Place | Sequence[Place],
    destination: Place,
    *,
    config: ConfigOrFile = None,
    options: MoveOptions = DEFAULT_OPTIONS,
    on_event: Observer | None = None,
    logger_of: LoggerOf | None = None,
) -> Deferred[Summary]:
    """Do the same as `move`, but leave the sources as they are."""
    run = _ApiRun(reactor, _texts(sources, destination), options, on_event, loggers_or_twisted(logger_of), remove=False)
    return cancellable_anywhere(reactor, run.to_the_end(config))


def _texts(sources: Place | Sequence[Place], destination: Place) -> list[str]:
    several = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not several:
        raise UsageError("sources: expected at least one location")
    return [location_text(each) for each in (*several, destination)]


class _ApiRun:
    """One run of another program, which shows it to whom it likes."""

    def __init__(
        self,
        reactor: IReactor,
        texts: Sequence[str],
        options: MoveOptions,
        on_event: Observer | None,
        logger_of: LoggerOf,
        *,
        remove: bool,
    ) -> None:
        self._reactor = reactor
        self._texts = texts
        self._options = options
        self._on_event = on_event
        self._logger_of = logger_of
        self._remove = remove
        self._began = time.monotonic()
        self._metrics = RunMetrics(
            options.metrics,
            options.rates,
            options.patience,
            began=self._began,
            dry_run=options.dry_run,
            warn=warn,
            logger_of=logger_of,
        )
        self._run_log: RunLog | None = None
        self._broken: Exception | None = None
        self._cancel: Callable[[], object] = lambda: None

    async def to_the_end(self, config: ConfigOrFile) -> Summary:
        """Run; returns, and raises, what `move` says."""
        tally = self._metrics.tally
        error: RealizeError | None = None
        try:
            await self._run(config)
        except CancelledError:
            error = Interrupted("interrupted")
        except RealizeError as problem:
            error = problem
        seconds = time.monotonic() - self._began
        self._log_end(seconds, error)
        as_a_whole = error is not None and not isinstance(error, DeadlineReached)
        code = await self._report(tally.exit_code(error), as_a_whole=as_a_whole)
        if self._broken is not None:
            raise self._broken from error
        if isinstance(error, Interrupted):
            raise CancelledError(str(error)) from error
        if error is not None and not isinstance(error, DeadlineReached):
            raise error
        return Summary.of(tally, seconds, code, deadline_reached=error is not None)

    async def _run(self, config: ConfigOrFile) -> None:
        async with (
            self._metrics.during(self._reactor),
            Session(
                self._reactor,
                credentials_of(config),
                self._logger_of,
                self._options.rates,
                compress=self._options.compress,
            ) as session,
        ):
            self._run_log = RunLog(session.run, self._logger_of)
            self._run_log.started(self._texts, self._options, remove=self._remove)
            moving = MoveRun(
                self._reactor,
                session,
                self._texts,
                self._options,
                self._observe,
                self._metrics.tally,
                remove=self._remove,
            )
            self._cancel = moving.cancel
            await moving.start()

    def _observe(self, event: Event) -> None:
        self._metrics.tally(event)
        self._metrics(event)
        if self._run_log is not None:
            self._run_log(event)
        if self._on_event is not None and self._broken is None:
            try:
                self._on_event(event)
            except Exception as error:  # noqa: BLE001 -- of the program; raised when the run has ended in order
                self._broken = error
                # Not at once: the mover is in the middle of telling us something.
                self._reactor.callFromThread(self._cancel)

    def _log_end(self, seconds: float, error: RealizeError | None) -> None:
        if self._run_log is None:
            if error is not None:
                log_failure(error, self._logger_of)
            return
        if isinstance(error, DeadlineReached):
            self._run_log.deadline_reached(self._metrics.tally, seconds)
        self._run_log.ended(self._metrics.tally, seconds, error)

    async def _report(self, code: ExitCode, *, as_a_whole: bool) -> ExitCode:
        """Report the end to where the metrics go, in a thread, for a gateway may take its time."""
        if not self._metrics.reports_end:
            return code
        threads = self._reactor.getThreadPool()
        after = await deferToThreadPool(self._reactor, threads, self._metrics.close, code, as_a_whole=as_a_whole)
        return ExitCode.NOT_REPORTED if after == ExitCode.NOT_REPORTED else code
