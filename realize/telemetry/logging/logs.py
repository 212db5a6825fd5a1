"""Structured logs: one line per event, readable on a terminal and parseable elsewhere.

Event names are constant, and all of them are in ``docs/logging.md``; everything that varies is a field.
Modules get their logger by ``structlog.get_logger(component="wire")`` once a `Logs` exists; packages that may not
import this one are passed a logger.
File names are made printable by `realize.units.display_name` before they are logged.
"""

from __future__ import annotations

import atexit
import os
import time
from typing import Any, ClassVar, Final, Protocol

import structlog

from realize.levels import COMPONENTS, LEVELS, Levels
from realize.logger import Logger
from realize.telemetry.logging.limiting import AUDIT, Limiter
from realize.telemetry.logging.rendering import renderer, stamper
from realize.telemetry.logging.writing import Writer, is_journal, is_terminal

LOG_CLOSE_TIMEOUT_S: Final = 2.0
"""How long an exiting process waits for its last log lines to be written."""

_DEBUG, _INFO, _WARNING = LEVELS["debug"], LEVELS["info"], LEVELS["warning"]


class Sink(Protocol):
    """Takes finished lines, each by the method named after its level; ``audit`` says that it is of the audit log."""

    def debug(self, line: bytes, audit: bool, /) -> None: ...  # noqa: D102, FBT001
    def info(self, line: bytes, audit: bool, /) -> None: ...  # noqa: D102, FBT001
    def warning(self, line: bytes, audit: bool, /) -> None: ...  # noqa: D102, FBT001
    def error(self, line: bytes, audit: bool, /) -> None: ...  # noqa: D102, FBT001


class ComponentLogger(structlog.BoundLoggerBase):
    """Logs events at or above the level of its component; ``component`` is one of its bound fields."""

    thresholds: ClassVar[dict[str, int]] = {}
    counts: ClassVar[dict[str, int]] = {}
    stamp = staticmethod(stamper())

    def debug(self, event: str, **fields: Any) -> None:
        """Log what is of interest only while looking for a problem."""
        if self.thresholds[self._context["component"]] <= _DEBUG:
            self._emit("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log what happened: the audit log, and other events of normal operation."""
        if self.thresholds[self._context["component"]] <= _INFO:
            self._emit("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log that something was refused, is retried, or works worse than it should."""
        if self.thresholds[self._context["component"]] <= _WARNING:
            self._emit("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log that somebody has to act."""
        self._emit("error", event, fields)

    def _emit(self, level: str, event: str, fields: dict[str, Any]) -> None:
        """Do what `structlog.BoundLoggerBase` does, in a third of the time, since this runs for every file."""
        self.counts[level] += 1
        record: Any = {"ts": self.stamp(), "level": level, "event": event, **self._context, **fields}
        try:
            for process in self._processors:
                record = process(self._logger, level, record)
        except structlog.DropEvent:
            return
        getattr(self._logger, level)(record, event in AUDIT)


class Logs:
    """The log of this process; creating it configures all loggers to use it.

    It goes to ``sink`` if there is one, else to the file at ``path``, or to stderr if that is None.
    ``form`` is one of `realize.levels.FORMATS`.
    """

    def __init__(self, levels: Levels, form: str, path: str | None = None, sink: Sink | None = None) -> None:
        self._writer: Writer | None = None
        if sink is None:
            self._writer = Writer(path, periodic=self._sweep, dropped=self._dropped, not_reopened=self._not_reopened)
            sink = _WriterSink(self._writer)
        self._path = path
        self._limiter = Limiter(time.monotonic, self._left_out, self._wake)
        self._thresholds: dict[str, int] = {}
        self.counts = dict.fromkeys(LEVELS, 0)
        """Records so far by level, including those that the limiter left out."""
        self.set_levels(levels)
        on_stderr = self._writer is not None and path is None
        render = renderer(_chosen(form, on_stderr=on_stderr), colors=on_stderr and _colors())

        structlog.configure(
            processors=[self._limiter, render],
            wrapper_class=type("Logger", (ComponentLogger,), {"thresholds": self._thresholds, "counts": self.counts}),
            logger_factory=lambda *_: sink,
            context_class=dict,
            cache_logger_on_first_use=False,
        )
        self._log: Logger = structlog.get_logger(component="telemetry").bind()

    def start(self) -> None:
        """Open the file and begin to write; raises `realize.errors.ConfigError` if it cannot be opened.

        Lines logged before that wait in memory.
        """
        if self._writer is not None:
            self._writer.start()
        atexit.register(self.close)

    def set_levels(self, levels: Levels) -> None:
        """Change the levels, at once."""
        for component in COMPONENTS:
            self._thresholds[component] = levels.of(component)

    def reopen(self) -> None:
        """Open the log file again, under its name."""
        if self._writer is not None and self._path is not None:
            self._writer.reopen()
            self._log.info("log_reopened")

    def flush(self, seconds: float = LOG_CLOSE_TIMEOUT_S) -> None:
        """Wait at most ``seconds`` until everything logged so far is written."""
        if self._writer is not None:
            self._writer.flush(seconds)

    def close(self, seconds: float = LOG_CLOSE_TIMEOUT_S) -> None:
        """Log what was left out and write what waits, taking at most ``seconds``; may be called more than once."""
        atexit.unregister(self.close)
        self._limiter.sweep(everything=True)
        if self._writer is not None:
            self._writer.close(seconds)

    @property
    def unwritten(self) -> int:
        """After `close`: how many records could not be written."""
        return 0 if self._writer is None else self._writer.unwritten

    def _wake(self) -> None:
        if self._writer is not None:
            self._writer.wake()

    def _sweep(self) -> float | None:
        return self._limiter.sweep()

    def _left_out(self, event: str, peer: str, count: int) -> None:
        self._log.warning("records_left_out", left_out=event, peer=peer, count=count)

    def _dropped(self, ordinary: int, audit: int) -> None:
        self._log.error("records_dropped", count=ordinary, audit=audit)

    def _not_reopened(self, reason: str) -> None:
        self._log.error("log_not_reopened", error=reason)


class _WriterSink:
    """Hands lines to a `Writer`; warnings and errors are urgent."""

    def __init__(self, writer: Writer) -> None:
        self.debug = self.info = writer.put
        self.warning = self.error = writer.put_urgent


def _chosen(form: str, *, on_stderr: bool) -> str:
    journal = on_stderr and is_journal(os.environ)
    if form == "auto":
        if on_stderr and is_terminal():
            return "console"
        return "systemd" if journal else "json"
    return "systemd" if form == "console" and journal else form


def _colors() -> bool:
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
