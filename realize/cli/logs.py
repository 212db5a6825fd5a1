"""The log of one command: only our own bugs are logged, unless an option asks for more.

What a user can do something about is in the error that ends the run; our own bugs are logged with their traceback.
A command that needs no log and makes no connection does not import the logging modules, which takes 0.1 s.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click
from twisted.internet.interfaces import IReactorFromThreads

from realize.cli.options import LogOptions
from realize.logger import Logger
from realize.units import display_text

if TYPE_CHECKING:
    from realize.telemetry.logging.logs import Logs

_current: list[tuple[Logs, Callable[[], None]]] = []
"""The log of this process, if one was started, and the function that removes its hooks."""


@contextlib.contextmanager
def command_log(options: LogOptions, reactor: IReactorFromThreads) -> Iterator[None]:
    """Within the block, log as the options say; raises `realize.errors.ConfigError` if the file cannot be opened.

    SIGUSR1 opens the log file again; the number of records that could not be written to it, perhaps because its disk is
    full, is reported on stderr at the end.
    """
    former = None
    if options.asked:
        _begin(options)
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


def logger_of(component: str) -> Logger:
    """The logger of a component; from the first call on our own bugs are logged, unless an option asked for more."""
    if not _current:
        _begin(LogOptions())
    from realize.telemetry import structlog

    logger: Logger = structlog.get_logger(component=component).bind()
    return logger


def flush(seconds: float) -> None:
    """Wait at most ``seconds`` until everything logged so far is written; for use before the process is killed."""
    for logs, _ in _current:
        logs.flush(seconds)


def _begin(options: LogOptions) -> None:
    from realize.levels import Levels
    from realize.telemetry.logging.bridging import begin_observing, carry_python
    from realize.telemetry.logging.logs import Logs

    level = options.level or Levels("info" if options.file is not None else "error")
    logs = Logs(level, options.format or "auto", options.file)
    logs.start()
    _current.append((logs, carry_python()))
    begin_observing()


def _reopen() -> None:
    for logs, _ in _current:
        logs.reopen()
