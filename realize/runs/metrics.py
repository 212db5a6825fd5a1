"""Export the metrics of one run: on a port while it runs, to a Pushgateway, and to a textfile.

The end of a run is reported once, by whatever comes first: the run itself, an error before it starts, or the thread
that kills a hanging run.
Reporting takes a limited time and never fails a run; if reporting fails, and nothing else did, the exit code is
`NOT_REPORTED`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import LoopingCall

from realize.concurrency.loading_ahead import load_ahead
from realize.concurrency.reactor import IReactor
from realize.errors import RealizeError, UsageError
from realize.exit_codes import ExitCode
from realize.fs.own_files import OWN_FILES
from realize.logger import LoggerOf
from realize.mover.events import Event, How, Retrying
from realize.runs.board import Board
from realize.runs.exit_code import exit_code_of
from realize.runs.options import MetricsTargets, Patience, Rates
from realize.runs.tally import Tally
from realize.schedule.timetable import rate_now
from realize.units import display_text

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from realize.telemetry.metrics.pushing import Gateway, Pusher
    from realize.telemetry.metrics.run_metrics import Ending, Figures

LOADED_AHEAD: Final = ("realize.telemetry.metrics.run_metrics", "realize.telemetry.metrics.textfile")
"""What the report at the end needs."""

PUSH_INTERVAL_S: Final = 15.0
"""Time between two pushes while a run goes on."""

REPORT_TIMEOUT_S: Final = 5.0
"""Time limit for the last push, and again for the textfile."""

URGENT_REPORT_TIMEOUT_S: Final = 1.0
"""The same when the time limit of the run leaves no more, or the process is about to be killed."""


class RunMetrics:
    """The metrics of one run; if none are wanted, it does nothing and does not import the Prometheus client.

    A context manager: an error that leaves the block before `close` was called is reported too.
    ``tally`` has the statistics of the run, counted by its observer.
    ``began`` is when the run began, in seconds on the monotonic clock; a dry run reports nothing at its end.
    ``warn`` is called with a sentence when something could not be delivered, perhaps in another thread;
    ``serving_at`` with the URL at which the metrics are served.
    ``code_of`` chooses the exit code for an error.
    """

    def __init__(
        self,
        wanted: MetricsTargets,
        rates: Rates = Rates(),  # noqa: B008 -- frozen
        patience: Patience = Patience(),  # noqa: B008 -- frozen
        *,
        began: float,
        dry_run: bool,
        warn: Callable[[str], object],
        logger_of: LoggerOf,
        serving_at: Callable[[str], object] = lambda _where: None,
        code_of: Callable[[BaseException], ExitCode] = exit_code_of,
    ) -> None:
        self.tally = Tally()
        self._board = Board()
        self._retries = 0
        self._rates = rates
        self._warn = warn
        self._serving_at = serving_at
        self._logger_of = logger_of
        self._code_of = code_of
        self._max_duration = patience.max_duration
        self._began = began
        self._started = time.time() - (time.monotonic() - self._began)
        self._wanted = wanted
        # A dry run does nothing worth reporting, and above all must not count as a success.
        self._textfile = None if dry_run else wanted.textfile
        if self._textfile is not None:
            OWN_FILES.add(self._textfile)
        self._pusher = None if wanted.gateway is None or dry_run else self._pusher_to(wanted.gateway)
        self._idle = wanted.endpoint is None and self._pusher is None and self._textfile is None
        self._closing = threading.Lock()
        self._closed = threading.Event()
        self._code: int | None = None

    @property
    def closing(self) -> bool:
        """Whether the end of the run has been, or is being, reported."""
        return self._code is not None

    @property
    def reports_end(self) -> bool:
        """Whether `close` has anything to do, which takes its time."""
        return self._pusher is not None or self._textfile is not None

    @property
    def urgent_timeout(self) -> float:
        """Seconds that `close_urgently` takes at most."""
        return URGENT_REPORT_TIMEOUT_S * ((self._pusher is not None) + (self._textfile is not None))

    def __enter__(self) -> Self:
        """Start reporting errors."""
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        """Report an error that ended the command before, or outside of, its run."""
        if error is not None and not self.closing:
            self.close(self._code_of(error), as_a_whole=True)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if not self._idle:
            self._board(event)
            self._retries += isinstance(event, Retrying)

    @asynccontextmanager
    async def during(self, reactor: IReactor) -> AsyncIterator[None]:
        """Within the block, serve metrics, and push at once and every `PUSH_INTERVAL_S`.

        Raises `UsageError` if it cannot listen.
        """
        stop_serving = await self._serve(reactor)
        not_ahead = load_ahead(reactor, LOADED_AHEAD if self.reports_end else ())
        beating = LoopingCall(self._beat, self._pusher)
        beating.clock = reactor
        if self._pusher is not None:
            # Or a run that is killed before the first interval is over would leave nothing behind.
            self._pusher.begin(self._unfinished())
            beating.start(PUSH_INTERVAL_S, now=False)
        try:
            yield
        finally:
            not_ahead()
            if beating.running:
                beating.stop()
            await stop_serving()

    def close_after(self, result: Callable[[], int], left: float) -> int:
        """Call ``result``, and report the exit code that it returns or the error that it raises.

        Returns the exit code to end with, as `close` does, or raises that error.
        ``left`` is how many seconds are left before the process is killed.
        """
        within = min(REPORT_TIMEOUT_S, max(URGENT_REPORT_TIMEOUT_S, left / 2))
        try:
            code = result()
        except BaseException as error:
            self.close(self._code_of(error), within, as_a_whole=True)
            raise
        return self.close(code, within)

    def close(self, code: int, within: float = REPORT_TIMEOUT_S, *, as_a_whole: bool = False) -> int:
        """Report, once, that the run ends with this exit code; returns the exit code to end with.

        ``within`` is the time limit in seconds for the push, and again for the textfile.
        ``as_a_whole`` says that an error ended the run, and not only single files failed.
        A second call waits a little for the first one to finish.
        May be called from any thread.
        """
        with self._closing:
            first = self._code is None
            if first:
                self._code = code
        if first:
            self._code = self._report(code, within, as_a_whole=as_a_whole)
            self._closed.set()
        elif not self._closed.wait(self.urgent_timeout):
            return self._code or ExitCode.NOT_REPORTED
        return self._code or ExitCode.DONE

    def close_urgently(self, code: int) -> int:
        """`close` for a process that is about to be killed: takes at most `urgent_timeout`, even if stderr blocks."""
        closing = threading.Thread(target=self.close, args=(code, URGENT_REPORT_TIMEOUT_S), name="closing", daemon=True)
        closing.start()
        closing.join(self.urgent_timeout)
        final = code if self._code is None else self._code
        return final if self._closed.is_set() else final or ExitCode.NOT_REPORTED

    def _report(self, code: int, within: float, *, as_a_whole: bool) -> int:
        if not self.reports_end:
            return code
        from realize.telemetry.metrics.run_metrics import Ending, last

        figures, now, busy = self._figures(), time.time(), self.tally.busy
        lasting = self.tally.failed - busy + (as_a_whole and code in {ExitCode.FAILED, ExitCode.USAGE})
        warnings = []
        if self._wanted.gateway is not None and self._pusher is not None:
            ending = Ending(code, now, succeeded=code == 0, busy=busy, lasting=lasting)
            failure = self._pusher.finish(last(figures, ending), within)
            if failure is not None:
                warnings.append(_not_pushed(self._wanted.gateway, failure))
                code = code or ExitCode.NOT_REPORTED
        if self._textfile is not None:
            # Even if the push failed, the run was a success: everything was moved.
            succeeded = code in {0, ExitCode.NOT_REPORTED}
            ending = Ending(code, now, succeeded=succeeded, busy=busy, lasting=lasting)
            failure = self._write(figures, ending, within)
            if failure is not None:
                warnings.append(f"the metrics were not written to {display_text(self._textfile)}: {failure}")
                code = code or ExitCode.NOT_REPORTED
        for warning in warnings:
            self._warn(warning)
        return code

    def _write(self, figures: Figures, ending: Ending, within: float) -> str | None:
        """Write the textfile, in a thread because a disk may hang; returns why it failed, or None."""
        from realize.telemetry.metrics.textfile import write_textfile

        outcome: list[str | None] = []

        def write() -> None:
            try:
                write_textfile(str(self._textfile), figures, ending, {"task": self._wanted.job})
            except OSError as error:
                outcome.append(error.strerror or str(error))
            else:
                outcome.append(None)

        writing = threading.Thread(target=write, name="textfile", daemon=True)
        writing.start()
        writing.join(within)
        return outcome[0] if outcome else f"not done within {within:g} s"

    async def _serve(self, reactor: IReactor) -> Callable[[], Any]:
        async def nothing() -> None:
            pass

        if self._wanted.endpoint is None:
            return nothing
        from realize.telemetry.metrics.exposition import Exposition, listen, new_registry
        from realize.telemetry.metrics.run_metrics import live
        from realize.wire.every_address import server_endpoint_of

        registry = new_registry()
        registry.register(live(self._figures, None if self._pusher is None else self._pusher.pushes))
        exposition = Exposition(registry, lambda: (True, "ready"), clock=reactor, log=self._logger_of("cli"))
        try:
            port = await listen(partial(server_endpoint_of, reactor), self._wanted.endpoint, exposition)
        except RealizeError as error:
            raise UsageError(f"the address for metrics: {error}") from error
        self._serving_at(self._where(port.getHost()))

        async def stop() -> None:
            await maybeDeferred(port.stopListening)
            exposition.close()

        return stop

    def _pusher_to(self, gateway: Gateway) -> Pusher:
        from realize.telemetry.metrics.pushing import Pusher

        return Pusher(gateway.push, lambda why: self._warn(_not_pushed(gateway, why)))

    def _beat(self, pusher: Pusher) -> None:
        pusher.beat(self._unfinished())

    def _unfinished(self) -> CollectorRegistry:
        """What is known of the run so far."""
        from realize.telemetry.metrics.run_metrics import last

        return last(self._figures(), None)

    def _figures(self) -> Figures:
        from realize.telemetry.metrics.run_metrics import FILE_RESULTS, Figures

        tally, board = self.tally, self._board
        files = {how.name.lower(): tally.count(how) for how in How}
        sizes = {how.name.lower(): tally.size(how) for how in How}
        files |= {"failed": tally.failed, "left": tally.left, "unknown": tally.unknown_arrivals}
        files["remaining"] = max(0, tally.found_files - tally.done - tally.unknown_arrivals - tally.unknown_removals)
        # Copy the values first: a thread may ask while the mover changes them.
        in_flight = sum(file.reached for file in list(board.in_flight.values()))
        sizes["remaining"] = max(0, tally.found_bytes - sum(sizes.values()) - in_flight)
        now = time.time()
        limits = {"send": rate_now(self._rates.up, now), "receive": rate_now(self._rates.down, now)}
        return Figures(
            started=self._started,
            duration=time.monotonic() - self._began,
            files={result: files[result] for result in FILE_RESULTS},
            sizes=sizes,
            sent=board.sent.total,
            retries=self._retries,
            unknown_removals=tally.unknown_removals,
            limits={direction: limit for direction, limit in limits.items() if limit is not None},
            deadline=None if self._max_duration is None else self._started + self._max_duration,
        )

    def _where(self, address: IAddress) -> str:
        """The URL of the metrics; the endpoint if they are at no address of IP."""
        if not isinstance(address, IPv4Address | IPv6Address):
            return str(self._wanted.endpoint)
        host = f"[{address.host}]" if isinstance(address, IPv6Address) else address.host
        return f"http://{host}:{address.port}/metrics"


def _not_pushed(gateway: Gateway, why: str) -> str:
    return f"the metrics were not pushed to {gateway.url}: {why}"
