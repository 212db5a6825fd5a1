"""The log of one command: off but for faults of ours, unless an option asks for it.

All that a user can help is in the error that ends the run; faults of ours are logged, with their traceback.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from realize.cli.options import LogOptions
from realize.levels import Levels
from realize.telemetry.bridging import begin_observing, carry_python
from realize.telemetry.logs import Logs

_current: list[Logs] = []


@contextlib.contextmanager
def command_log(options: LogOptions, reactor: Any) -> Iterator[None]:
    """While entered, what is logged goes where the options say; raises `realize.errors.ConfigError` if it cannot.

    SIGUSR1 opens the file anew.
    """
    level = options.level or Levels("info" if options.file is not None else "error")
    logs = Logs(level, options.format or "auto", options.file)
    logs.start()
    _current.append(logs)
    undo = carry_python()
    begin_observing()
    former = None
    if options.file is not None:
        former = signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(logs.reopen))
    try:
        yield
    finally:
        if former is not None:
            signal.signal(signal.SIGUSR1, former)
        undo()
        _current.remove(logs)
        logs.close()


def flush(seconds: float) -> None:
    """Wait, but not for ever, until what was logged is written: before the process ends on the spot."""
    for logs in _current:
        logs.flush(seconds)
