"""The log of one command: only our own bugs are logged, unless an option asks for more.

What a user can do something about is in the error that ends the run; our own bugs are logged with their traceback.
Without such an option the logging modules are loaded when there is a fault, see `realize.cli.faults`.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import ILogObserver

from realize.cli.faults import FaultLogger, FaultWatch
from realize.cli.options import LogOptions
from realize.fs.own_files import OWN_FILES
from realize.logger import Logger
from realize.units import display_text

if TYPE_CHECKING:
    from realize.telemetry.logging.logs import Logs

_current: list[tuple[Logs, Callable[[], None]]] = []
"""The log of this process, if one was started, and the function that removes its hooks."""

_watches: list[FaultWatch] = []
"""What begins a log at the first fault, if none was asked for."""


@contextlib.contextmanager
def command_log(options: LogOptions, reactor: IReactorFromThreads) -> Iterator[None]:
    """Within the block, log as the options say; raises `realize.errors.ConfigError` if the file cannot be opened.

    SIGUSR1 opens the log file again; the number of records that could not be written to it, perhaps because its disk is
    full, is reported on stderr at the end.
    """
    former = None
    if options.file is not None:
        OWN_FILES.add(options.file)
    if options.asked:
        _begin(options)

        from realize.telemetry.logging.bridging import begin_observing

        begin_observing()
    else:
        _watches.append(FaultWatch(_begin_for_faults))
    if options.file is not None:
        former = signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(_reopen))
    try:
        yield
    finally:
        if former is not None:
            signal.signal(signal.SIGUSR1, former)
        while _current:
            logs, undo = _current.pop()
            undo()
            logs.close()
            if options.file is not None and logs.unwritten:
                problem = f"{logs.unwritten} records could not be written to the log file"
                click.echo(f"realize: warning: {problem} {display_text(options.file)}", err=True)
        # After the log, whose hooks are in front of theirs.
        while _watches:
            _watches.pop().undo()


def logger_of(component: str) -> Logger:
    """The logger of a component; unless an option asked for more, it leaves out all but our own bugs."""
    if _current and not _watches:
        return _logger(component)
    return FaultLogger(lambda: _begun(component), {"component": component})


def _begun(component: str) -> Logger:
    for watch in _watches:
        watch.begun()
    if not _current:
        _begin(LogOptions())
    return _logger(component)


def _logger(component: str) -> Logger:
    from realize.telemetry import structlog

    logger: Logger = structlog.get_logger(component=component).bind()
    return logger


def flush(seconds: float) -> None:
    """Wait at most ``seconds`` until everything logged so far is written; for use before the process is killed."""
    for logs, _ in _current:
        logs.flush(seconds)


def _begin(options: LogOptions) -> None:
    from realize.levels import Levels
    from realize.telemetry.logging.bridging import carry_python
    from realize.telemetry.logging.logs import Logs

    level = options.level or Levels("info" if options.file is not None else "error")
    logs = Logs(level, options.format or "auto", options.file)
    logs.start()
    _current.append((logs, carry_python()))


def _begin_for_faults() -> ILogObserver:
    _begin(LogOptions())

    from realize.telemetry.logging.bridging import TwistedObserver

    return TwistedObserver()


def _reopen() -> None:
    for logs, _ in _current:
        logs.reopen()
