"""Faults of ours while no log was asked for: what notices the first one, and begins the log for it.

To load the log and start its writer takes a tenth of a short run, and nearly every run has nothing to say there.
It may not be there to be loaded any more, hours later: an upgrade has replaced our package, or there are no descriptors
left. Then a fault is written to stderr with what is loaded already, and whoever told of it notices nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, globalLogBeginner, globalLogPublisher
from zope.interface import implementer

from realize.json_fields import utc_text
from realize.logger import Logger

_HOOKS: Final[tuple[tuple[Any, str], ...]] = (
    (sys, "excepthook"),
    (threading, "excepthook"),
    (sys, "unraisablehook"),
)
"""What Python calls with an error that nobody has caught."""


class FaultLogger:
    """A `realize.logger.Logger` that leaves out all but errors; those go to the logger that ``begun`` returns."""

    def __init__(self, begun: Callable[[], Logger], fields: dict[str, object] | None = None) -> None:
        self._begun = begun
        self._fields = fields or {}

    def bind(self, **fields: object) -> FaultLogger:
        """The same with more fields."""
        return FaultLogger(self._begun, {**self._fields, **fields})

    def debug(self, _event: str, /, **_fields: object) -> None:
        """Leave it out."""

    info = warning = debug

    def error(self, event: str, /, **fields: object) -> None:
        """Log it."""
        fields = {**self._fields, **fields}
        try:
            begun = self._begun()
        except Exception:  # noqa: BLE001 -- whatever is wrong with it, the fault that we were told of counts
            _write(event, fields)
        else:
            begun.error(event, **fields)


@implementer(ILogObserver)
class _Plain:
    """Writes Twisted's faults to stderr."""

    def __call__(self, event: LogEvent) -> None:
        if _is_fault(event):
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            source = str(event.get("log_namespace", ""))
            _write("twisted_failed", {"component": "twisted", "source": source, "text": text})


def _is_fault(event: LogEvent) -> bool:
    return event.get("log_failure") is not None or event.get("log_level") in {LogLevel.error, LogLevel.critical}


def _write(event: str, fields: dict[str, object]) -> None:
    """Write a record to stderr without the log."""
    record = {"ts": utc_text(datetime.now(UTC)), "level": "error", "event": event, **fields}
    line = json.dumps(record, default=repr) + "\n"
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr is full, closed or missing
        sys.stderr.write(line)
        sys.stderr.flush()


@implementer(ILogObserver)
class FaultWatch:
    """Calls ``begin`` when Twisted, `logging` or Python itself tells of a fault, and hands it on to what that began.

    ``begin`` takes over `logging` and the hooks of Python, and returns the observer of Twisted's events.
    If it fails, Python writes what its hooks and `logging` are told, and we write Twisted's faults.
    Faults may come from any thread.
    """

    def __init__(self, begin: Callable[[], ILogObserver]) -> None:
        self._begin = begin
        self._lock = threading.RLock()
        self._observer: ILogObserver | None = None
        self._handler = _ErrorHandler(self._logged)
        self._former = [getattr(module, name) for module, name in _HOOKS]
        for (module, name), former in zip(_HOOKS, self._former, strict=True):
            setattr(module, name, self._hook(module, name, former))
        logging.getLogger().addHandler(self._handler)
        globalLogBeginner.beginLoggingTo([self], redirectStandardIO=False)

    def begun(self) -> ILogObserver:
        """Begin the log, unless it has begun, and return the observer of Twisted's events."""
        with self._lock:
            if self._observer is None:
                logging.getLogger().removeHandler(self._handler)
                try:
                    self._observer = self._begin()
                except Exception:  # noqa: BLE001 -- as for our own faults
                    self._observer = _Plain()
            return self._observer

    def undo(self) -> None:
        """Watch no longer."""
        globalLogPublisher.removeObserver(self)
        logging.getLogger().removeHandler(self._handler)
        for (module, name), former in zip(_HOOKS, self._former, strict=True):
            setattr(module, name, former)

    def __call__(self, event: LogEvent) -> None:
        """Take an event of Twisted's."""
        if _is_fault(event):
            self.begun()(event)

    def _hook(self, module: Any, name: str, former: Callable[..., object]) -> Callable[..., object]:
        def uncaught(*what: Any) -> object:
            if self._observer is not None:
                return former(*what)
            self.begun()
            return getattr(module, name)(*what)

        return uncaught

    def _logged(self, record: logging.LogRecord) -> None:
        self.begun()
        logging.getLogger().handle(record)


class _ErrorHandler(logging.Handler):
    """Hands on what libraries log as errors; without a handler, `logging` would print warnings too."""

    def __init__(self, take: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(logging.WARNING)
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        if record.levelno >= logging.ERROR:
            self._take(record)
