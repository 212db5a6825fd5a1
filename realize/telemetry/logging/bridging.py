"""Bring into our log what others log: Twisted's events, `logging`, `warnings` and uncaught errors.

`begin_observing` installs the one observer of Twisted's events, and `carry_python` takes the rest of the process.
In the other direction, `TwistedSink` hands our lines to Twisted's log, for a process that has no log of its own.
"""

from __future__ import annotations

import logging
import resource
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Final

import structlog
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsText,
    globalLogBeginner,
)
from twisted.logger import Logger as TwistedLogger
from zope.interface import implementer

from realize.logger import Logger

_OWN: Final = "realize.log"
"""The namespace of our lines in Twisted's log."""

_LISTENING: Final = "twisted.internet.tcp"
"""The namespace of what Twisted says of the ports at which it listens, or the beginning of that."""

_NO_DESCRIPTOR: Final = "EMFILE encountered"
_NOT_ACCEPTED: Final = "Could not accept new connection"
"""How the formats begin of what Twisted says, at the level of info, when it has to do without a connection."""


@implementer(ILogObserver)
class TwistedObserver:
    """Logs Twisted's events: failures as errors with their traceback, warnings as such, everything else at debug.

    But that no connection can be accepted is an error, though Twisted mentions it only.
    """

    def __init__(self) -> None:
        self._twisted: Logger = structlog.get_logger(component="twisted").bind()
        self._python: Logger = structlog.get_logger(component="python").bind()

    def __call__(self, event: LogEvent) -> None:
        """Log one event."""
        level, failure = event.get("log_level"), event.get("log_failure")
        source = str(event.get("log_namespace", ""))
        if source == _OWN:
            return
        if failure is not None or level in {LogLevel.error, LogLevel.critical}:
            if source == "stderr":
                # Twisted logs what is printed to stderr as an error.
                self._twisted.warning("twisted_warned", source=source, text=_text(event))
            else:
                exc = "" if failure is None else failure.getTraceback()
                self._twisted.error("twisted_failed", source=source, text=_text(event), exc=exc)
        elif "warning" in event and "category" in event:
            text = f"{event['filename']}:{event['lineno']}: {event['warning']}"
            self._python.warning("python_warned", source=str(event["category"]), text=text)
        elif level is LogLevel.warn:
            self._twisted.warning("twisted_warned", source=source, text=_text(event))
        elif source.startswith(_LISTENING) and (why := _why_not_accepted(event)):
            self._twisted.error("connection_not_accepted", error=why)
        else:
            self._twisted.debug("twisted_said", source=source, text=_text(event))


def _why_not_accepted(event: LogEvent) -> str:
    """Why a port has closed a new connection, or left it waiting; empty if the event says something else."""
    said = str(event.get("log_format", ""))
    if said.startswith(_NO_DESCRIPTOR):
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (
            f"all {most} file descriptors are in use; LimitNOFILE= of the unit, or ulimit -n, sets how many there are"
        )
    return _text(event) if said.startswith(_NOT_ACCEPTED) else ""


def begin_observing() -> None:
    """Log Twisted's events from now on, and those it has buffered until now; to be called once in a process."""
    globalLogBeginner.beginLoggingTo([TwistedObserver()], redirectStandardIO=False)


class TwistedSink:
    """A sink that logs our lines as events of Twisted's own log."""

    def __init__(self) -> None:
        self._log = TwistedLogger(namespace=_OWN)

    def debug(self, line: bytes, _audit: bool) -> None:  # noqa: FBT001 -- a `realize.telemetry.logging.logs.Sink`
        """Take a line."""
        self._log.debug("{line}", line=line.decode().rstrip("\n"))

    def info(self, line: bytes, _audit: bool) -> None:  # noqa: FBT001
        """Take a line."""
        self._log.info("{line}", line=line.decode().rstrip("\n"))

    def warning(self, line: bytes, _audit: bool) -> None:  # noqa: FBT001
        """Take a line."""
        self._log.warn("{line}", line=line.decode().rstrip("\n"))

    def error(self, line: bytes, _audit: bool) -> None:  # noqa: FBT001
        """Take a line."""
        self._log.error("{line}", line=line.decode().rstrip("\n"))


def carry_python() -> Callable[[], None]:
    """Log records of `logging` from WARNING up, and uncaught exceptions; returns a function that undoes this."""
    handler = _Handler()
    logging.getLogger().addHandler(handler)
    log: Logger = structlog.get_logger(component="python").bind()
    former = sys.excepthook, threading.excepthook, sys.unraisablehook

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, Exception):
            former[0](kind, error, trace)
            return
        text = "".join(traceback.format_exception(kind, error, trace))
        log.error("python_failed", source="main", text=_brief(error), exc=text)

    def in_thread(what: threading.ExceptHookArgs) -> None:
        if what.exc_type is SystemExit:
            return
        text = "".join(traceback.format_exception(what.exc_type, what.exc_value, what.exc_traceback))
        name = "" if what.thread is None else what.thread.name
        log.error("python_failed", source=f"thread {name}", text=_brief(what.exc_value), exc=text)

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        text = "".join(traceback.format_exception(what.exc_type, what.exc_value, what.exc_traceback))
        log.error("python_failed", source=repr(what.object), text=_brief(what.exc_value), exc=text)

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, in_thread, unraisable

    def undo() -> None:
        logging.getLogger().removeHandler(handler)
        sys.excepthook, threading.excepthook, sys.unraisablehook = former

    return undo


class _Handler(logging.Handler):
    """Logs what libraries log with `logging`."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._log: Logger = structlog.get_logger(component="python").bind()

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        try:
            text = record.getMessage()
            exc = "" if not record.exc_info else "".join(traceback.format_exception(*record.exc_info))
        except Exception:  # noqa: BLE001 -- as `logging` does: a library's bad format string is no reason to fail
            self.handleError(record)
            return
        if record.levelno >= logging.ERROR:
            self._log.error("python_failed", source=record.name, text=text, exc=exc)
        else:
            self._log.warning("python_warned", source=record.name, text=text)


def _text(event: LogEvent) -> str:
    return eventAsText(event, includeTraceback=False, includeTimestamp=False, includeSystem=False)


def _brief(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"
