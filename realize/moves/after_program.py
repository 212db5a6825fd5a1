"""`AfterProgram`: the program that a standing move runs after a run that moved or failed something.

There is one of it at a time for each move.
Runs that end meanwhile are told together when it has ended, so it is never more than one program behind, and nothing is
left out but names of files.
What goes wrong with it is logged and counted, and is nothing to the move.
"""

from __future__ import annotations

import enum
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from realize.by_value import ByValue
from realize.concurrency.shielded import RunInThread
from realize.errors import RealizeError
from realize.logger import Logger
from realize.moves.after_report import MAX_NAMED_FILES, AfterReport
from realize.moves.child import CHILD_KILL_AFTER_S, Child, ChildEnd, Spawned, spawn
from realize.moves.status import RunResult
from realize.units import format_duration

GIVEN_UP_S: Final = 1.0
"""Seconds after SIGKILL that a stop waits for a program that has not ended: the kernel does not let it go."""

INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "TZ", "USER")
"""What the environment of the program has of ours."""


class AfterOutcome(enum.Enum):
    """How a program ended."""

    OK = "ok"
    """Its exit code was 0."""
    FAILED = "failed"
    """It had another exit code, or a signal that was not ours ended it."""
    TIMED_OUT = "timed_out"
    """It was ended because it took too long."""
    STOPPED = "stopped"
    """It was ended, or not started any more, because the daemon stops or the move is changed."""
    NOT_STARTED = "not_started"
    """It could not be started."""


@frozen(eq=False, repr=False)
class _Call(ByValue):
    """A program that is to be run, and what it is to be told."""

    command: Sequence[str]
    timeout_s: float
    report: AfterReport


class AfterProgram:
    """Runs ``command``, an absolute path and arguments, for the move of that name.

    Each may take ``timeout_s`` seconds. There is one of this for as long as there is the move, so that programs of
    its former and its present configuration are not at work together.
    ``run_in_thread`` starts it, and hangs where the disk with the program does.
    ``log`` knows the name of the move; ``on_outcome`` is called with the outcome of each.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        move: str,
        reactor: Any,
        run_in_thread: RunInThread,
        log: Logger,
        timeout_s: float,
        on_outcome: Callable[[AfterOutcome], object],
    ) -> None:
        self._command = command
        self._move = move
        self._reactor = reactor
        self._clock: IReactorTime = reactor
        self._run_in_thread = run_in_thread
        self._log = log
        self._timeout_s = timeout_s
        self._on_outcome = on_outcome
        self._waiting: _Call | None = None
        self._busy = False
        self._child: Child | None = None
        self._stopping = False
        self._impatient = False
        self._timers: list[IDelayedCall] = []
        self._stopped: list[Deferred[None]] = []

    def ran(self, result: RunResult, failed: Sequence[tuple[bytes, RealizeError]] = ()) -> None:
        """Tell the program of a run, at once or when it has ended; ``failed`` are files that could not be moved."""
        if self._stopping or not self._command:
            return
        report = AfterReport(self._move, result, failed[:MAX_NAMED_FILES])
        if self._waiting is not None:
            report = self._waiting.report.followed_by(report)
        self._waiting = _Call(self._command, self._timeout_s, report)
        self._next()

    def change(self, command: Sequence[str], timeout_s: float) -> None:
        """Run another program after the runs that end from now on, or none if ``command`` is empty."""
        self._command = command
        self._timeout_s = timeout_s

    def stop(self, patience_s: float) -> Deferred[None]:
        """Take no more runs; what it knows of already has so many seconds, and then its end comes.

        Fires when no program is left, at most `CHILD_KILL_AFTER_S` and `GIVEN_UP_S` later.
        """
        self._stopping = True
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        self._timers.append(self._clock.callLater(max(0.0, patience_s), self._lose_patience))
        self._check()
        return stopped

    def _lose_patience(self) -> None:
        if self._impatient:
            return
        self._impatient = True
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._failed(waiting, AfterOutcome.STOPPED, "it was stopped before it began")
        if self._child is not None:
            self._child.stop()
        self._timers.append(self._clock.callLater(CHILD_KILL_AFTER_S + GIVEN_UP_S, self._fire))

    def _check(self) -> None:
        if not self._busy and self._waiting is None:
            self._fire()

    def _fire(self) -> None:
        stopped, self._stopped = self._stopped, []
        if stopped:
            for timer in self._timers:
                if timer.active():
                    timer.cancel()
        for each in stopped:
            each.callback(None)

    def _next(self) -> None:
        call = self._waiting
        if self._busy or call is None:
            return
        self._waiting, self._busy = None, True
        Deferred.fromCoroutine(self._run(call)).addBoth(self._ran)

    def _ran(self, result: object) -> object:
        self._busy = False
        self._child = None
        self._next()
        self._check()
        return result

    async def _run(self, call: _Call) -> None:
        try:
            spawned: Spawned = await maybeDeferred(
                self._run_in_thread, spawn, call.command, self._environment(), call.report.to_json()
            )
        except (OSError, ValueError, subprocess.SubprocessError, RealizeError, MemoryError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            self._failed(call, AfterOutcome.NOT_STARTED, reason or str(error) or "not enough memory")
            return
        self._child = Child(spawned, self._reactor, timeout_s=call.timeout_s, on_line=self._said)
        if self._impatient:
            self._child.stop()
        self._ended(call, await self._child.ended)

    def _environment(self) -> dict[str, str]:
        ours = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {"PATH": os.defpath, **ours, "REALIZE_MOVE": self._move}

    def _said(self, line: str) -> None:
        self._log.info("after_program_said", text=line)

    def _ended(self, call: _Call, end: ChildEnd) -> None:
        if end.timed_out:
            outcome, error = AfterOutcome.TIMED_OUT, f"it took longer than {format_duration(call.timeout_s)}"
        elif end.stopped:
            outcome, error = AfterOutcome.STOPPED, "it was ended"
        elif end.status == 0:
            self._log.info("after_program_ended", seconds=round(end.seconds, 3), lines_left_out=end.lines_left_out)
            self._on_outcome(AfterOutcome.OK)
            return
        else:
            outcome, error = AfterOutcome.FAILED, _sentence(end.status)
        self._failed(call, outcome, error, end)

    def _failed(self, call: _Call, outcome: AfterOutcome, error: str, end: ChildEnd | None = None) -> None:
        self._log.warning(
            "after_program_failed",
            outcome=outcome.value,
            error=error,
            program=call.command[0],
            seconds=0.0 if end is None else round(end.seconds, 3),
            lines_left_out=0 if end is None else end.lines_left_out,
        )
        self._on_outcome(outcome)


def _sentence(status: int | None) -> str:
    if status is None:
        return "its exit code is not known: another part of this process waits for all children, or ignores SIGCHLD"
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
