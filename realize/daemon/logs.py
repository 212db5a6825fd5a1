"""The daemon's log, and how it shares a stream with the log of ``twistd``.

Our records go to the file of ``--log-file`` or ``logs.file``, else to stderr, and Twisted's events go with them.
If options of twistd say where its log goes (``--logfile``, ``--syslog``, ``--logger``), Twisted's events go there as
usual, and only ours go where ours go.
A process that daemonizes has no stderr, so without a file of our own our records are handed to twistd's log.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType, TracebackType
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from realize.by_value import ByValue
from realize.config import LogsConfig
from realize.errors import RealizeError
from realize.fs.own_files import OWN_FILES
from realize.levels import Levels
from realize.logger import Logger
from realize.telemetry import structlog
from realize.telemetry.logging.bridging import TwistedObserver, TwistedSink, carry_python
from realize.telemetry.logging.logs import Logs
from realize.telemetry.logging.rendering import PRIORITIES
from realize.telemetry.logging.writing import is_journal
from realize.units import display_text


def complain(error: RealizeError) -> None:
    """Print on stderr why the daemon cannot start, before there is a log; in the journal it has priority ``err``."""
    priority = f"<{PRIORITIES['error']}>" if is_journal(os.environ) else ""
    for line in str(error).splitlines():
        print(f"{priority}realized: error: {line}", file=sys.__stderr__)


def tell_why(
    former: Callable[[type[BaseException], BaseException, TracebackType | None], Any],
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
) -> None:
    """Say on stderr what the system has refused ``twistd`` before the daemon has a log, such as a pidfile.

    For `sys.excepthook`; twistd's own way leads to that log, so that it ended without a word. What else goes wrong is
    for the ``former`` hook, and so is what twistd logs to a file of its own.
    """
    if isinstance(error, OSError) and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        where = {"": "", os.curdir: "the working directory: "}.get(name, f"{display_text(name)}: ")
        complain(RealizeError(f"twistd cannot start: {where}{error.strerror}"))
        if sys.stderr is sys.__stderr__:
            return
    former(kind, error, traceback)


@frozen(eq=False, repr=False)
class DaemonLogOptions(ByValue):
    """The log options of the command line, which override the configuration; None where none was given."""

    level: Levels | None = None
    format: str | None = None
    file: str | None = None

    def over(self, config: LogsConfig) -> LogsConfig:
        """The settings that apply over that configuration."""
        return LogsConfig(self.level or config.level, self.format or config.format, self.file or config.file)


class DaemonLogs:
    """The log of one daemon, from before it listens until it ends.

    ``runner`` has the options of ``twistd``; it is empty under another runner, which handles Twisted's events itself.
    """

    def __init__(self, config: LogsConfig, given: DaemonLogOptions, runner: Mapping[str, Any]) -> None:
        self._given = given
        self._used = given.over(config)
        if self._used.file is not None:
            OWN_FILES.add(self._used.file)
        elsewhere = not runner or any(runner.get(name) for name in ("logfile", "syslog", "logger"))
        handed_over = bool(runner) and not runner.get("nodaemon") and self._used.file is None
        self._carries_twisted = not elsewhere and not handed_over
        sink = TwistedSink() if handed_over else None
        self._logs = Logs(self._used.level, self._used.format, self._used.file, sink)
        self._undo: Callable[[], None] = lambda: None
        self._former: Callable[[int, FrameType | None], Any] | int | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        """Records so far by level."""
        return self._logs.counts

    def of(self, component: str) -> Logger:
        """The logger of a component."""
        logger: Logger = structlog.get_logger(component=component).bind()
        return logger

    def attach(self, parent: Any) -> None:
        """Have twistd pass Twisted's events to us if they belong in our log; to be called before logging starts."""
        if self._carries_twisted and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, TwistedObserver())

    def start(self, reactor: Any) -> None:
        """Begin to write, and have SIGUSR1 open the log file again from now on.

        Raises `realize.errors.ConfigError` if the file cannot be opened.
        """
        self._logs.start()
        self._undo = carry_python()
        self._former = signal.signal(signal.SIGUSR1, partial(self._rotated, reactor))

    def stop(self) -> None:
        """Write what waits, and put the signal handlers and hooks back; to be called last."""
        self._undo()
        if self._former is not None:
            signal.signal(signal.SIGUSR1, self._former)
        self._logs.close()

    def flush(self, seconds: float) -> None:
        """Wait at most ``seconds`` until everything logged so far is written."""
        self._logs.flush(seconds)

    def reload(self, config: LogsConfig) -> bool:
        """Apply the levels of a new configuration; returns whether something else in it needs a restart."""
        wanted = self._given.over(config)
        self._logs.set_levels(wanted.level)
        return (wanted.format, wanted.file) != (self._used.format, self._used.file)

    def _rotated(self, reactor: IReactorFromThreads, number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(self._logs.reopen)
        if callable(self._former):
            self._former(number, frame)  # twistd's own, for its --logfile


def absolute(path: str | None) -> str | None:
    """The absolute path, since twistd changes the working directory later."""
    return None if path is None else os.path.abspath(path)
