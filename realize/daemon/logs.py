"""The daemon's log, beside that of ``twistd``: one stream for both, unless twistd's own options ask for another.

Our records go to the file of ``--log-file`` or ``logs.file``, else to stderr, and Twisted's events with them.
If the command line of twistd says where its log goes (``--logfile``, ``--syslog``, ``--logger``), Twisted's events go
there, as always, and only ours go where ours go.
A process that becomes a daemon has no stderr: without a file of ours, our records are handed to twistd's log.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from realize.config import LogsConfig
from realize.errors import RealizeError
from realize.levels import Levels
from realize.telemetry.logging.bridging import TwistedObserver, TwistedSink, carry_python
from realize.telemetry.logging.logs import Logs
from realize.telemetry.logging.rendering import PRIORITIES
from realize.telemetry.logging.writing import is_journal


def complain(error: RealizeError) -> None:
    """Say on stderr what keeps the daemon from being started, before there is a log; to the journal, as an error."""
    priority = f"<{PRIORITIES['error']}>" if is_journal(os.environ) else ""
    for line in str(error).splitlines():
        print(f"{priority}realized: error: {line}", file=sys.__stderr__)


@frozen
class DaemonLogOptions:
    """What the command line says of the log; it outranks the configuration."""

    level: Levels | None = None
    format: str | None = None
    file: str | None = None

    def over(self, config: LogsConfig) -> LogsConfig:
        """What counts."""
        return LogsConfig(self.level or config.level, self.format or config.format, self.file or config.file)


class DaemonLogs:
    """The log of one daemon, from before it listens to its end.

    ``runner`` are the options of ``twistd``; empty for another runner, which looks after Twisted's events itself.
    """

    def __init__(self, config: LogsConfig, given: DaemonLogOptions, runner: Mapping[str, Any]) -> None:
        self._given = given
        self._used = given.over(config)
        elsewhere = not runner or any(runner.get(name) for name in ("logfile", "syslog", "logger"))
        handed_over = bool(runner) and not runner.get("nodaemon") and self._used.file is None
        self._carries_twisted = not elsewhere and not handed_over
        sink = TwistedSink() if handed_over else None
        self._logs = Logs(self._used.level, self._used.format, self._used.file, sink)
        self._undo: Callable[[], None] = lambda: None
        self._former: Any = None
        self._reactor: Any = None

    @property
    def counts(self) -> Mapping[str, int]:
        """Records of each level so far."""
        return self._logs.counts

    def attach(self, parent: Any) -> None:
        """Before logging starts: have twistd give Twisted's events to us, if they are for us."""
        if self._carries_twisted and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, TwistedObserver())

    def start(self, reactor: Any) -> None:
        """Begin to write; SIGUSR1 opens the file anew from now on.

        Raises `realize.errors.ConfigError` if it cannot be opened.
        """
        self._logs.start()
        self._reactor = reactor
        self._undo = carry_python()
        self._former = signal.signal(signal.SIGUSR1, self._rotated)

    def stop(self) -> None:
        """Write what waits; little is logged after it."""
        self._undo()
        if self._former is not None:
            signal.signal(signal.SIGUSR1, self._former)
        self._logs.close()

    def flush(self, seconds: float) -> None:
        """Wait for what is to be written, but not for ever."""
        self._logs.flush(seconds)

    def reload(self, config: LogsConfig) -> bool:
        """Take over what a new configuration says; whether something in it needs a restart."""
        wanted = self._given.over(config)
        self._logs.set_levels(wanted.level)
        return (wanted.format, wanted.file) != (self._used.format, self._used.file)

    def _rotated(self, number: int, frame: Any) -> None:
        self._reactor.callFromThread(self._logs.reopen)
        if callable(self._former):
            self._former(number, frame)  # twistd's own, for its --logfile


def absolute(path: str | None) -> str | None:
    """The file as it is before twistd changes its directory."""
    return None if path is None else os.path.abspath(path)
