"""`Child`: a program that runs beside the daemon, with all that it starts, for a limited time.

It has a session and process group of its own, no descriptor of ours but its standard streams, and ``/`` as its working
directory.
Its standard input is a file in memory: it may read it when it likes, or never, and nobody waits for that.
Its output, of both streams, is read as fast as it comes up to a bound, and slowly beyond it.

Its end is learned from a pidfd, so neither SIGCHLD nor a reactor that handles it is needed.
It stays a zombie until its process group was killed: until then no other process can have the number of that group.

`IReactorProcess.spawnProcess` is not taken because it makes no session, runs Python between fork(2) and exec(2) in a
process with threads where the working directory is another one, and holds up the reactor while a program is loaded from
a disk that hangs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from realize.by_value import ByValue
from realize.fs.descriptors import release
from realize.fs.durable import write_all

CHILD_KILL_AFTER_S: Final = 5.0
"""Seconds from SIGTERM to SIGKILL."""

MAX_LINES: Final = 100
"""Lines of output that are passed on."""

MAX_LINE_CHARS: Final = 1_000
"""Characters of a line that are passed on."""

_MAX_LINE_BYTES: Final = 4 * MAX_LINE_CHARS
_OUTPUT_READ_BYTES: Final = 1 << 16
_READ_PAUSE_S: Final = 0.01
"""Pause between two reads of what is not passed on: a program that writes without end is not to keep a core busy."""

_MFD_NOEXEC_SEAL: Final = 8
"""As linux/memfd.h has it; Python has no name for it before 3.13."""


@frozen(eq=False, repr=False)
class Spawned(ByValue):
    """A program that was started: the descriptor by which its exit is known, and the one with its output."""

    process: subprocess.Popen[bytes]
    exit_fd: int
    output_fd: int


@frozen(eq=False, repr=False)
class ChildEnd(ByValue):
    """How a program ended.

    ``status`` is its exit code, or minus the number of the signal that killed it; None if somebody else has learned it.
    ``timed_out`` and ``stopped`` say why we ended it, if we did.
    ``lines_left_out`` counts the lines of its output beyond `MAX_LINES`.
    """

    status: int | None
    timed_out: bool
    stopped: bool
    lines_left_out: int
    seconds: float


def spawn(command: Sequence[str], environment: Mapping[str, str], content: bytes) -> Spawned:
    """Start a program that reads ``content``; blocks, so call it in a thread.

    Raises `OSError` or `ValueError` if it cannot be started.
    """
    # Here a disk that hangs holds up this thread alone; during exec(2) Python would let no other one run.
    if not os.access(command[0], os.X_OK):
        os.stat(command[0])
        raise PermissionError("may not be executed")
    stdin = _file_in_memory(content)
    output_fd, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        process = subprocess.Popen(  # noqa: S603 -- the administrator has configured it
            command, stdin=stdin, stdout=theirs, stderr=theirs, cwd="/", env=environment, start_new_session=True
        )
    except BaseException:
        release(output_fd)
        raise
    finally:
        release(stdin, theirs)
    try:
        os.set_blocking(output_fd, False)
        return Spawned(process, _exit_of(process.pid), output_fd)
    except BaseException:
        release(output_fd)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _exit_of(pid: int) -> int:
    """A descriptor that is readable when the process has ended."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:  # SIGCHLD is ignored in this process, and it has ended already
        at_its_end, writing = os.pipe2(os.O_CLOEXEC)
        release(writing)
        return at_its_end


def _file_in_memory(content: bytes) -> int:
    try:
        fd = os.memfd_create("standard input", os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError:  # Linux before 6.3
        fd = os.memfd_create("standard input", os.MFD_CLOEXEC)
    try:
        write_all(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        release(fd)
        raise
    return fd


@implementer(IReadDescriptor)
class _Readable:
    """A descriptor in the reactor."""

    def __init__(self, fd: int, read: Callable[[], None]) -> None:
        self._fd = fd
        self._read = read

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return self._fd

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "program"

    def doRead(self) -> None:
        """See `IReadDescriptor`."""
        self._read()

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 -- the interface has it
        """See `IReadDescriptor`: the end of a pipe that is empty shows like this."""
        self._read()


class Child:
    """Watches over a program that was spawned.

    It may take ``timeout_s`` seconds; ``on_line`` is called with each line of its output, up to `MAX_LINES`.
    """

    def __init__(self, spawned: Spawned, reactor: Any, *, timeout_s: float, on_line: Callable[[str], object]) -> None:
        self._process = spawned.process
        self._clock: IReactorTime = reactor
        self._descriptors: IReactorFDSet = reactor
        self._began = self._clock.seconds()
        self._on_line = on_line
        self._output = _Readable(spawned.output_fd, self._read)
        self._exiting = _Readable(spawned.exit_fd, self._look)
        self._line = bytearray()
        self._lines = 0
        self._status: int | None = None
        self._exited = False
        self._reaped_elsewhere = False
        self._output_ended = False
        self._timed_out = False
        self._stopped = False
        self._terminated = False
        self._killed = False
        self._limit: IDelayedCall | None = self._clock.callLater(timeout_s, self._time_over)
        self._kill_call: IDelayedCall | None = None
        self._read_call: IDelayedCall | None = None
        self.ended: Deferred[ChildEnd] = Deferred()
        """Fires when it has ended, and with it what was left of its process group."""
        self._descriptors.addReader(self._output)
        self._descriptors.addReader(self._exiting)

    def stop(self) -> None:
        """End it: SIGTERM to its process group, and after `CHILD_KILL_AFTER_S` SIGKILL."""
        self._stopped = self._stopped or not self._exited
        self._terminate()

    def _time_over(self) -> None:
        self._timed_out = True
        self._terminate()

    def _terminate(self) -> None:
        if not self._terminated and not self.ended.called:
            self._terminated = True
            self._signal(signal.SIGTERM)
            self._kill_call = self._clock.callLater(CHILD_KILL_AFTER_S, self._kill)

    def _kill(self) -> None:
        self._killed = True
        self._signal(signal.SIGKILL)
        self._check()

    def _signal(self, number: signal.Signals) -> None:
        if not self._reaped_elsewhere:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _look(self) -> None:
        """Find out how the program itself has ended; others of its group may live on."""
        try:
            found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # SIGCHLD is ignored in this process, or somebody waits for whatever child
            self._reaped_elsewhere = True
        else:
            if found is None:
                return
            self._status = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        self._exited = True
        self._descriptors.removeReader(self._exiting)
        self._cancel(self._limit)
        if not self._output_ended and self._read_call is None:
            self._read()
        if not self._output_ended:
            self._terminate()
        self._check()

    def _read(self) -> None:
        self._read_call = None
        self._descriptors.removeReader(self._output)
        try:
            piece = os.read(self._output.fileno(), _OUTPUT_READ_BYTES)
        except BlockingIOError:
            self._descriptors.addReader(self._output)
            return
        if not piece:
            self._output_ended = True
            self._check()
            return
        self._take(piece)
        if self._lines <= MAX_LINES:
            self._descriptors.addReader(self._output)
        else:
            self._read_call = self._clock.callLater(_READ_PAUSE_S, self._read)

    def _take(self, piece: bytes) -> None:
        *whole, rest = piece.split(b"\n")
        for line in whole:
            self._add(line)
            self._pass_on()
        self._add(rest)

    def _add(self, part: bytes) -> None:
        self._line += part[: _MAX_LINE_BYTES - len(self._line)]

    def _pass_on(self) -> None:
        self._lines += 1
        if self._lines <= MAX_LINES:
            self._on_line(self._line.decode(errors="replace")[:MAX_LINE_CHARS])
        self._line.clear()

    def _check(self) -> None:
        if self._exited and (self._output_ended or self._killed) and not self.ended.called:
            self._finish()

    def _finish(self) -> None:
        for call in (self._limit, self._kill_call, self._read_call):
            self._cancel(call)
        self._descriptors.removeReader(self._output)
        if not self._output_ended:  # somebody who has left the group still has it
            with contextlib.suppress(BlockingIOError):
                self._take(os.read(self._output.fileno(), _OUTPUT_READ_BYTES))
        if self._line:
            self._pass_on()
        self._signal(signal.SIGKILL)
        self._process.wait()
        release(self._output.fileno(), self._exiting.fileno())
        self.ended.callback(
            ChildEnd(
                status=self._status,
                timed_out=self._timed_out,
                stopped=self._stopped,
                lines_left_out=max(0, self._lines - MAX_LINES),
                seconds=self._clock.seconds() - self._began,
            )
        )

    @staticmethod
    def _cancel(call: IDelayedCall | None) -> None:
        if call is not None and call.active():
            call.cancel()
