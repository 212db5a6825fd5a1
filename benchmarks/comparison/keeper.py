"""Run a command, and keep hold of every process that comes of it.

    python -m benchmarks.comparison.keeper COMMAND...

A line on stdin starts the command; when it has ended, a line of JSON on stdout says after how many seconds, and how.
A process whose parent ends without waiting for it becomes a child of the keeper.
So the CPU time of all that have ended adds up in the keeper, and /proc below the keeper shows all that live.
When stdin ends, all of them are ended: nothing outlives the harness, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from benchmarks.procfs import cpu_seconds_of_tree, resident_memory, tree, tree_at_a_glance
from tests.processes import ENVIRONMENT, ROOT

PR_SET_CHILD_SUBREAPER: Final = 36
PATIENCE_S: Final = 5.0
"""Seconds between SIGTERM and SIGKILL."""

STOPPED: Final = 128
"""The exit code of a command that a signal has ended, less the signal's number."""


@frozen
class Ended:
    """How a command ended."""

    seconds: float
    code: int


class Kept:
    """A command with its keeper, from the outside."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
        """Prepare the command, which will run in ``folder`` and write to the end of ``log``."""
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.comparison.keeper", str(folder), *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                cwd=ROOT,
                env={**environment, "PYTHONPATH": ENVIRONMENT["PYTHONPATH"]},
            )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._output.readline()  # it holds what will come of the command from now on

    def go(self) -> None:
        """Start the command."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def wait(self, limit: float) -> Ended | None:
        """Wait until the command has ended; None if ``limit`` seconds were not enough, and it was stopped."""
        timer = threading.Timer(limit, self._end)
        timer.start()
        line = self._output.readline()
        timer.cancel()
        timer.join()
        if not line or self._process.poll() is not None:
            return None
        return Ended(**json.loads(line))

    @property
    def cpu(self) -> float:
        """CPU time in seconds of everything that has come of the command so far."""
        return cpu_seconds_of_tree(self._process.pid)

    @property
    def processes(self) -> list[int]:
        """What lives of it."""
        return tree(self._process.pid)[1:]

    @property
    def memory(self) -> int:
        """Resident memory in bytes of all of them together; to look costs little, for it is done during the run."""
        return sum(map(resident_memory, tree_at_a_glance(self._process.pid)[1:]))

    def stop(self) -> None:
        """End everything that has come of the command."""
        self._end()
        self._output.close()

    def _end(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()


def keep(folder: str, argv: Sequence[str]) -> None:
    """Be the keeper."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    threading.Thread(target=_end_with_stdin).start()
    started = time.monotonic()
    command = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), cwd=folder)
    with contextlib.suppress(ChildProcessError):  # when there is nothing left to wait for
        while True:
            pid, status = os.wait()
            if pid == command.pid:
                seconds = time.monotonic() - started
                code = os.waitstatus_to_exitcode(status)
                command.returncode = code if code >= 0 else STOPPED - code
                print(json.dumps({"seconds": seconds, "code": command.returncode}), flush=True)


def _end_with_stdin() -> None:
    sys.stdin.read()
    deadline = time.monotonic() + PATIENCE_S
    while living := tree(os.getpid())[1:]:
        number = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(0.02)
    os._exit(0)


if __name__ == "__main__":
    keep(sys.argv[1], sys.argv[2:])
