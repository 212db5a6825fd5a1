"""Records as events of Twisted's log, for a service in a program that has a log of its own."""

from __future__ import annotations

from typing import Any, Self

from twisted.logger import Logger as TwistedLogger
from twisted.logger import LogLevel

from realize.levels import LEVELS
from realize.logger import Logger
from realize.telemetry.logging.rendering import renderer

_render = renderer("logfmt")


class TwistedEvents:
    """A `realize.logger.LogSource` whose records become events in the namespaces ``realize.COMPONENT``.

    Each has its text, ``realize_event`` and ``realize_fields``.
    Nothing is left out of it: which levels are of interest is for the program to say.
    """

    def __init__(self) -> None:
        self._counts = dict.fromkeys(LEVELS, 0)

    @property
    def counts(self) -> dict[str, int]:
        """Records so far, by level."""
        return self._counts

    def of(self, component: str) -> Logger:
        """The logger of a component."""
        return _ComponentEvents(TwistedLogger(namespace=f"realize.{component}"), self._counts, {})


class _ComponentEvents:
    def __init__(self, log: TwistedLogger, counts: dict[str, int], fields: dict[str, object]) -> None:
        self._log = log
        self._counts = counts
        self._fields = fields

    def bind(self, **fields: object) -> Self:
        return type(self)(self._log, self._counts, {**self._fields, **fields})

    def debug(self, event: str, /, **fields: object) -> None:
        self._emit("debug", LogLevel.debug, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        self._emit("info", LogLevel.info, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        self._emit("warning", LogLevel.warn, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        self._emit("error", LogLevel.error, event, fields)

    def _emit(self, level: str, twisted_level: Any, event: str, fields: dict[str, object]) -> None:
        self._counts[level] += 1
        known = {**self._fields, **fields}
        # Rendered, so that no name of a file can forge a line of the program's log.
        text = _render(None, level, {"event": event, **known}).decode().rstrip("\n").removeprefix("event=")
        self._log.emit(twisted_level, "{text}", text=text, realize_event=event, realize_fields=known)
