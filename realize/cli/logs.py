"""The log of one command: off but for faults of ours, unless an option asks for it.

All that a user can help is in the error that ends the run; faults of ours are logged, with their traceback.
A command that is asked for no log and connects to nobody loads nothing of all this: it takes a tenth of a second.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from realize.cli.options import LogOptions
from realize.units import display_text

if TYPE_CHECKING:
    from realize.telemetry.logging.logs import Logs

_current: list[tuple[Logs, Callable[[], None]]] = []
"""The log that was begun, if one was, and what undoes its hooks."""


@contextlib.contextmanager
def command_log(options: LogOptions, reactor: Any) -> Iterator[None]:
    """While entered, what is logged goes where the options say; raises `realize.errors.ConfigError` if it cannot.

    SIGUSR1 opens the file anew; records that it did not take, perhaps for a full disk, are told of on stderr.
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


def log_faults() -> None:
    """From now on faults of ours are logged, if no option asked for more: before there is something to connect to."""
    if not _current:
        _begin(LogOptions())


def flush(seconds: float) -> None:
    """Wait, but not for ever, until what was logged is written: before the process ends on the spot."""
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
