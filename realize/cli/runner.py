"""Run one coroutine on the reactor, and end it in order at a signal.

A replacement for `twisted.internet.task.react`, which at the first signal stops the reactor while work is going on.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, NoReturn, Self, TypeVar, cast

from twisted.internet.base import ReactorBase
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from realize.cli.logs import command_log, flush
from realize.cli.options import LogOptions
from realize.cli.stand_ins import load_all
from realize.clocks import use_monotonic_clock
from realize.concurrency.loading_ahead import load_ahead
from realize.concurrency.reactor import IReactor
from realize.errors import Interrupted
from realize.exit_codes import ExitCode
from realize.process import allow_many_files, keep_freed_memory

T = TypeVar("T")

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that ask for an orderly end; SIGHUP is left alone if it is ignored, as under nohup(1)."""

SIGNAL_KILL_AFTER_S: Final = 10.0
"""Delay after a signal until the process is killed if it has not ended; in order it takes up to five seconds."""

LOG_FLUSH_TIMEOUT_S: Final = 0.2
"""How long a process that ends at once waits for its log to be written."""

LOADED_AHEAD: Final = ("realize.telemetry.logging.bridging", "realize.telemetry.logging.logs")
"""What `realize.cli.faults` needs for a fault, however late it comes."""

SHOW_CURSOR = b"\x1b[?25h"


def run(
    main: Callable[[IReactor], Coroutine[Any, Any, T]],
    log: LogOptions = LogOptions(),  # noqa: B008 -- frozen
    after: Callable[[Callable[[], T]], T] = lambda result: result(),
    at_once: Callable[[int], object] = lambda _code: None,
) -> T:
    """Call ``main`` with the reactor, run the reactor until the coroutine ends, and return or raise what it did.

    ``log`` says where to log meanwhile.
    The first signal of `ENDING` cancels what the coroutine awaits; the second ends the process at once, and so does
    the first if the reactor has not ended `SIGNAL_KILL_AFTER_S` after it, because something hangs.
    A CancelledError that leaves the coroutine is raised as `Interrupted`.
    ``after`` is called when the reactor has ended, with a function that returns or raises what ``main`` did; its own
    result is the final one, and a first signal does not interrupt it.
    ``at_once`` is called with the exit code before the process is ended at once, perhaps in another thread, and must be
    quick.
    """
    from twisted.internet import reactor as installed

    reactor = cast("IReactor", installed)
    use_monotonic_clock(reactor)
    allow_many_files()
    keep_freed_memory()
    outcome: list[T | Failure] = []
    work: list[Deferred[T]] = []
    not_ahead = load_ahead(reactor, LOADED_AHEAD, load_all)

    def begin() -> None:
        work.append(Deferred.fromCoroutine(main(reactor)))
        work[0].addBoth(end)

    def end(result: T | Failure) -> None:
        outcome.append(result)
        not_ahead()
        reactor.stop()

    def interrupt() -> None:
        if not outcome and work:
            work[0].cancel()

    reactor.callWhenRunning(begin)
    # Garbage collection was off during start-up, see `realize.cli.start`; ignore for ever what was loaded until now.
    gc.freeze()
    gc.enable()
    with command_log(log, reactor), _EndingSignals(lambda: reactor.callFromThread(interrupt), at_once) as signals:
        cast("ReactorBase", installed).run(installSignalHandlers=False)
        signals.in_order()
        return after(lambda: _result(outcome))


def _result(outcome: list[T | Failure]) -> T:
    if not outcome:
        raise Interrupted("interrupted")
    result = outcome[0]
    if isinstance(result, Failure):
        if isinstance(result.value, CancelledError):
            raise Interrupted("interrupted")
        result.raiseException()
    return result


class _EndingSignals:
    """While entered, the first signal of `ENDING` calls ``first``; the next calls ``at_once`` and ends the process.

    Without a next one that happens `SIGNAL_KILL_AFTER_S` later, unless all went `in_order` by then.
    """

    def __init__(self, first: Callable[[], object], at_once: Callable[[int], object]) -> None:
        self._first: Callable[[], object] | None = first
        self._at_once = at_once
        self._ended = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in ENDING:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._received)
        return self

    def in_order(self) -> None:
        """Note that what was to be ended has ended."""
        self._ended.set()

    def __exit__(self, *_: object) -> None:
        self.in_order()
        for number, action in self._before.items():
            signal.signal(number, action)

    def _received(self, _number: int, _frame: FrameType | None) -> None:
        first, self._first = self._first, None
        if first is None:
            self._end_now()
        first()
        with contextlib.suppress(RuntimeError):  # if there can be no thread, it takes a second signal
            threading.Thread(target=self._watch, name="end after a signal", daemon=True).start()

    def _watch(self) -> None:
        if not self._ended.wait(SIGNAL_KILL_AFTER_S):
            self._end_now()

    def _end_now(self) -> NoReturn:
        try:
            self._at_once(ExitCode.INTERRUPTED)
        finally:
            flush(LOG_FLUSH_TIMEOUT_S)
            _show_cursor()
            os._exit(ExitCode.INTERRUPTED)


def _show_cursor() -> None:
    """Do so if stderr is a terminal, and takes it now: nobody may look at it any more, or somebody has stopped it."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty() and select.select([], [sys.stderr], [], 0)[1]:
            os.write(sys.stderr.fileno(), SHOW_CURSOR)
