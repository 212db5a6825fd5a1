"""Troubles that last: one log record when each begins, and one when it ends, however often it is met in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Final

from attrs import define, field

from realize.by_value import ByValue
from realize.errors import BUSY_CODES, RealizeError
from realize.logger import Logger

MAX_TOLD_FILES: Final = 100
"""Files that are named in the log while one kind of trouble lasts."""


def kind_of_error(error: RealizeError) -> str:
    """The word for the kind of an error, such as ``no_space``."""
    return error.wire_code.decode().lower()


def is_busy_kind(kind: str) -> bool:
    """Whether an error of this kind is one of a file that others use: see `realize.errors.is_busy`."""
    return kind.upper().encode() in BUSY_CODES


@define(repr=False)
class _Trouble(ByValue):
    since: float
    attempts: int = 1


@define(eq=False, repr=False)
class Episodes:
    """The troubles of one move by kind; ``now`` returns the wall clock's seconds since the epoch."""

    log: Logger
    now: Callable[[], float]
    _open: dict[str, _Trouble] = field(factory=dict, init=False)
    _named: Counter[str] = field(factory=Counter, init=False)
    """Files that were named, by kind of trouble."""

    @property
    def kinds(self) -> Mapping[str, float]:
        """The kinds of trouble that last, and since when each does."""
        return MappingProxyType({kind: trouble.since for kind, trouble in self._open.items()})

    def met(self, error: RealizeError, *, since: float | None = None) -> None:
        """Note trouble; the first of its kind is logged.  ``since`` is for one that began before a restart."""
        kind = kind_of_error(error)
        trouble = self._open.get(kind)
        if trouble is not None:
            trouble.attempts += 1
            return
        self._open[kind] = _Trouble(self.now() if since is None else since)
        self.log.error("move_failing", code=kind, error=str(error))

    def may_name(self, error: RealizeError) -> bool:
        """Whether to name another file with this trouble in the log, to be asked once for each.

        Where there are too many of them, that is one trouble that lasts.
        """
        kind = kind_of_error(error)
        self._named[kind] += 1
        if self._named[kind] > MAX_TOLD_FILES:
            self.met(error)
        return self._named[kind] <= MAX_TOLD_FILES

    def last(self, kinds: Collection[str]) -> None:
        """Note that only these kinds of trouble last; the end of each other one is logged."""
        for kind in [each for each in self._open if each not in kinds]:
            trouble = self._open.pop(kind)
            seconds = max(0.0, self.now() - trouble.since)
            self.log.info("move_recovered", code=kind, seconds=round(seconds, 3), attempts=trouble.attempts)
        for kind in [each for each in self._named if each not in kinds]:
            del self._named[kind]
