"""Troubles that last: one log record when each begins, and one when it ends, however often it is met in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

from attrs import define, field

from realize.by_value import ByValue
from realize.errors import BUSY_CODES, RealizeError, is_busy
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
    """The troubles of one move by kind; ``now`` returns the wall clock's seconds since the epoch.

    They are apart for the move as a whole and for its files, as its states are.
    """

    log: Logger
    now: Callable[[], float]
    _whole: dict[str, _Trouble] = field(factory=dict, init=False)
    _of_files: dict[str, _Trouble] = field(factory=dict, init=False)
    _named: Counter[str] = field(factory=Counter, init=False)
    """Files that were named, by kind of trouble."""

    def failed(self, error: RealizeError, *, since: float | None = None) -> None:
        """Note that the move failed as a whole; the first time is logged.

        ``since`` is for trouble that began before a restart.
        """
        if self._is_news(self._whole, error, since):
            self.log.error("move_failing", code=kind_of_error(error), error=str(error))

    def stuck(self, error: RealizeError) -> None:
        """Note that files of the move cannot be moved; the first time is logged."""
        if self._is_news(self._of_files, error, None):
            self.log.error("move_stuck", code=kind_of_error(error), error=str(error))

    def may_name(self, error: RealizeError) -> bool:
        """Whether to name another file with this trouble in the log, to be asked once for each.

        Where there are too many of them, that is one trouble that lasts; but not if others use these files.
        """
        kind = kind_of_error(error)
        self._named[kind] += 1
        if self._named[kind] > MAX_TOLD_FILES and not is_busy(error):
            self.stuck(error)
        return self._named[kind] <= MAX_TOLD_FILES

    def last(self, whole: Collection[str], of_files: Collection[str]) -> None:
        """Note that only these kinds of trouble last; the end of each other one is logged."""
        for lasting, known in ((whole, self._whole), (of_files, self._of_files)):
            for kind in [each for each in known if each not in lasting]:
                trouble = known.pop(kind)
                seconds = max(0.0, self.now() - trouble.since)
                self.log.info("move_recovered", code=kind, seconds=round(seconds, 3), attempts=trouble.attempts)
        for kind in [each for each in self._named if each not in of_files]:
            del self._named[kind]

    def _is_news(self, known: dict[str, _Trouble], error: RealizeError, since: float | None) -> bool:
        kind = kind_of_error(error)
        trouble = known.get(kind)
        if trouble is None:
            known[kind] = _Trouble(self.now() if since is None else since)
            return True
        trouble.attempts += 1
        return False
