"""What is expected of a logger by all who are given one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, Self, TypeAlias


class Logger(Protocol):
    """Writes structured records: an event, whose name is constant, and fields for all that varies."""

    def bind(self, **fields: object) -> Self:
        """A logger whose records have these fields as well."""

    def debug(self, event: str, /, **fields: object) -> None:
        """What only somebody who searches wants to know."""

    def info(self, event: str, /, **fields: object) -> None:
        """The audit trail."""

    def warning(self, event: str, /, **fields: object) -> None:
        """Something was refused, is tried again, or goes worse than it should."""

    def error(self, event: str, /, **fields: object) -> None:
        """Somebody must act."""


LoggerOf: TypeAlias = Callable[[str], Logger]
"""Returns the logger of a component, one of `realize.levels.COMPONENTS`."""


class LogSource(Protocol):
    """Where a service gets its loggers from."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Records so far, by level."""

    def of(self, component: str) -> Logger:
        """The logger of a component, one of `realize.levels.COMPONENTS`."""
