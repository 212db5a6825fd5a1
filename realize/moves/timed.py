"""Runs by the clock: at intervals, or at the times of a calendar expression."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from realize.errors import RealizeError, is_busy
from realize.moves.episodes import is_busy_kind, kind_of_error
from realize.moves.one_run import Occasion, RunEnd
from realize.moves.state import MAX_FILE_FAILURES, FileFailure, Unfinished
from realize.moves.status import KnownBacklog
from realize.schedule.when import Calendar, Every
from realize.units import display_name

SMALL_STEP_S: Final = 10.0
"""A clock that is corrected by no more than this has not been set back: a time that comes again was taken already."""


class Timed:
    """Sets off a run at each occasion, and after trouble again, until the time limit of the occasion is over.

    ``now`` returns the wall clock's seconds since the epoch; ``last_due`` is the last occasion by it that was taken,
    and ``unfinished`` what is left of that.
    ``jitter_s`` is how much later than others this machine runs.
    """

    watching: Final[Mapping[str, str]] = {}

    def __init__(
        self,
        clock: IReactorTime,
        when: Every | Calendar,
        now: Callable[[], float],
        texts: Sequence[str],
        max_duration_s: float | None,
        *,
        jitter_s: float = 0.0,
        last_due: float | None = None,
        unfinished: Unfinished | None = None,
        failures: Iterable[FileFailure] = (),
    ) -> None:
        self.changed: Callable[[], object] = lambda: None
        self.source_hung: Callable[[], object] = lambda: None
        self.last_due = last_due
        self._clock = clock
        self._when = when
        self._now = now
        self._since = now()
        self._jitter_s = jitter_s
        self._texts = texts
        self._max_duration_s = max_duration_s
        self._over = self._over_of(unfinished)
        """When, on the reactor's clock, the time limit of the present occasion ends; None if it has none."""
        self._again = unfinished is not None
        """Whether the last run ended in trouble, or was cut short, so that another one goes on with its occasion."""
        self._asked = False
        self._failed = {failed.path: failed for failed in failures}
        self._failed_files = len(self._failed)
        self._busy_files = sum(is_busy_kind(failed.code) for failed in self._failed.values())
        self._left = (0, 0)

    @property
    def unfinished(self) -> Unfinished | None:
        """See `realize.moves.trigger.Trigger`."""
        if not self._again or not self._in_time(0.0):
            return None
        return Unfinished(until=None if self._over is None else self._now() + self._over - self._clock.seconds())

    @property
    def backlog(self) -> KnownBacklog:
        """What the last run found and did not move."""
        files, size = self._left
        oldest = min((failed.since for failed in self._failed.values()), default=None)
        return KnownBacklog(files=files, size=size, oldest=oldest if files else None)

    @property
    def failures(self) -> Sequence[FileFailure]:
        """Those of the last run."""
        return list(self._failed.values())

    @property
    def failed_files(self) -> int:
        """How many these are, with those that are not remembered."""
        return self._failed_files

    @property
    def busy_files(self) -> int:
        """See `realize.moves.trigger.Trigger`."""
        return self._busy_files

    def is_first_failure(self, path: bytes) -> bool:
        """See `realize.moves.trigger.Trigger`."""
        return path not in self._failed

    def start(self) -> None:
        """See `realize.moves.trigger.Trigger`; the clock goes by itself."""

    def stop(self) -> Deferred[None]:
        """See `realize.moves.trigger.Trigger`."""
        return succeed(None)

    def wait_s(self, delay_s: float) -> float | None:
        """See `realize.moves.trigger.Trigger`."""
        if self._asked:
            return 0.0
        occasion = self._occasion_s()
        if self._again and self._in_time(max(0.0, delay_s)):
            return delay_s if occasion is None else min(occasion, delay_s)
        return occasion

    def asked(self) -> None:
        """See `realize.moves.trigger.Trigger`."""
        self._asked = True
        self.changed()

    def begin(self) -> Occasion:
        """See `realize.moves.trigger.Trigger`."""
        occasion = self._occasion_s()
        tries_again = self._again and not self._asked and (occasion is None or occasion > 0.0)
        self._again = self._asked = False
        if not tries_again:
            self.last_due = self._now()
            self._over = self._over_of(None)
        remaining_s = None if self._over is None else max(0.001, self._over - self._clock.seconds())
        return Occasion(self._texts, remaining_s=remaining_s)

    def _occasion_s(self) -> float | None:
        """In how many seconds the next occasion is, negative if it has passed; None if there is none any more."""
        now = self._now()
        # What lies ahead was before the clock was set back. It counts as of now once, or the next time would recede.
        self._since = min(self._since, now)
        if self.last_due is not None and self.last_due > now + SMALL_STEP_S:
            self.last_due = now
        due = self._when.due(self.last_due, self._since, self._jitter_s)
        return None if due is None else due - now

    def _over_of(self, unfinished: Unfinished | None) -> float | None:
        """When the time limit of an occasion is over that begins now, or of which this is left."""
        if self._max_duration_s is None:
            return None
        left_s = self._max_duration_s
        if unfinished is not None and unfinished.until is not None:
            left_s = min(left_s, unfinished.until - self._now())
        return self._clock.seconds() + left_s

    def _in_time(self, wait_s: float) -> bool:
        """Whether the time limit of the occasion will not be over in so many seconds."""
        return self._over is None or self._clock.seconds() + wait_s < self._over

    def ended(self, end: RunEnd) -> None:
        """See `realize.moves.trigger.Trigger`."""
        self._again = end.error is not None or end.cut_short
        self._left = (end.left_files + len(end.failed), end.left_bytes)
        if not end.complete and not end.failed:
            return
        before, self._failed = self._failed, {}
        self._failed_files = len(end.failed)
        self._busy_files = sum(is_busy(error) for _, error in end.failed)
        for path, error in end.failed[:MAX_FILE_FAILURES]:
            known = before.get(path)
            self._failed[path] = FileFailure(
                source=self._texts[0] if len(self._texts) == 1 else "",
                path=path,
                since=end.result.began if known is None else known.since,
                attempts=1 if known is None else known.attempts + 1,
                code=kind_of_error(error),
                error=_naming(path, error),
            )


def _naming(path: bytes, error: RealizeError) -> str:
    """The error with the name of the file at its start; most have it there."""
    name = display_name(path)
    return str(error) if str(error).startswith(name) else f"{name}: {error}"
