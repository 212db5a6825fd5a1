"""What both programs exit with, and what each code says; part of the interface, so no code ever changes its meaning."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """The exit codes of the command, each with its ``meaning`` as the help says it."""

    DONE = 0, "everything was moved"
    FAILED = 1, "something failed"
    USAGE = 2, "the command line or the configuration is wrong"
    CHECK_FAILED = 3, "check: a step failed"
    DEADLINE_REACHED = 11, "--max-duration or --max-transfer was reached before everything was done"
    NOT_REPORTED = 12, "everything was moved, but the metrics could not be delivered"
    INTERRUPTED = 20, "interrupted"

    meaning: str

    def __new__(cls, number: int, meaning: str) -> Self:
        """The code ``number``, which is also its value."""
        code = int.__new__(cls, number)
        code._value_ = number
        code.meaning = meaning
        return code


class DaemonExitCode(IntEnum):
    """What ``twistd realized`` exits with when it cannot start."""

    FAILED = 1
    """Something is wrong that may be over by itself, such as a port that is in use: worth another attempt."""
    CONFIGURATION = 78
    """The command line or the configuration is wrong, until somebody changes it; ``EX_CONFIG`` of sysexits(3)."""
