"""What there is to know about a standing move at one instant, for people, metrics and peers.

Plain values.
Times are seconds since the epoch by the wall clock, durations are seconds, sizes are bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import Factory, asdict, frozen

from realize.by_value import ByValue


class Phase(enum.Enum):
    """What a standing move does."""

    IDLE = "idle"
    """It waits for files, or for its time."""
    RUNNING = "running"
    """It moves files."""
    STUCK = "stuck"
    """Single files could not be moved, and wait for another attempt; else it is as when idle."""
    FAILING = "failing"
    """Its last run failed as a whole; it waits for the next attempt."""
    PAUSED = "paused"
    """It was paused by hand, and moves nothing until it is resumed."""


@frozen(kw_only=True, eq=False, repr=False)
class KnownBacklog(ByValue):
    """What a move knows of and has not moved.

    ``oldest`` is since when the oldest of them has been there; None if that is unknown, or there are none.
    ``at_least`` says that there are more than are known.
    """

    files: int = 0
    size: int = 0
    oldest: float | None = None
    at_least: bool = False

    @classmethod
    def together(cls, backlogs: Iterable[KnownBacklog]) -> KnownBacklog:
        """Several as one."""
        known = list(backlogs)
        return cls(
            files=sum(each.files for each in known),
            size=sum(each.size for each in known),
            oldest=min((each.oldest for each in known if each.oldest is not None), default=None),
            at_least=any(each.at_least for each in known),
        )


@frozen(kw_only=True, eq=False, repr=False)
class RunResult(ByValue):
    """What came of one run; ``error`` is what ended it early, or empty, and ``code`` the word of its exit code.

    ``began`` and ``ended`` are by the clock as it is at the end, so a clock that is set meanwhile changes no duration.
    """

    run: str
    began: float
    ended: float
    moved_files: int = 0
    moved_bytes: int = 0
    failed_files: int = 0
    error: str = ""
    code: str = "done"


@frozen(kw_only=True, eq=False, repr=False)
class FileUnderWay(ByValue):
    """A file that is on its way; ``path`` is for people."""

    path: str
    size: int
    done: int


@frozen(kw_only=True, eq=False, repr=False)
class RunNow(ByValue):
    """A run that goes on; ``rate_bps`` is measured, None until it is known."""

    run: str
    began: float
    moved_files: int = 0
    moved_bytes: int = 0
    failed_files: int = 0
    rate_bps: float | None = None
    in_flight: Sequence[FileUnderWay] = ()


@frozen(kw_only=True, eq=False, repr=False)
class Totals(ByValue):
    """What a move did since the daemon started, a run that goes on included; none of it ever gets less.

    ``runs`` and ``run_seconds`` are of runs that ended.
    ``failures`` counts by the word of the error, such as ``no_space``; ``after`` counts how the program after a run
    ended, by the word for that, with 0 from the start if there is such a program.
    """

    moved_files: int = 0
    moved_bytes: int = 0
    runs: int = 0
    run_seconds: float = 0.0
    failures: Mapping[str, int] = Factory(dict)
    after: Mapping[str, int] = Factory(dict)


@frozen(kw_only=True, eq=False, repr=False)
class LimitChange(ByValue):
    """When a limit becomes another one by itself, and which; None is unlimited."""

    at: float
    bps: int | None


@frozen(kw_only=True, eq=False, repr=False)
class MoveStatus(ByValue):
    """One standing move.

    ``when`` is as configured; ``watching`` says for each local source how it is watched, such as "events" or "polled".
    ``error`` and ``failing_since`` tell of a move that fails as a whole, ``failed_files`` of single files that wait for
    another attempt, and ``busy_files`` of those among them that others use; ``file_error`` is the most recent error of
    one.
    ``error_code`` and ``file_error_code`` are the words of these errors, such as ``no_space``: they name no file.
    ``next_run`` is when it starts again by itself; None for one that waits for files, or is paused.
    ``up_bps`` and ``down_bps`` are its own limits now, None is unlimited; ``up_change`` and ``down_change`` what they
    become next by their timetables.
    """

    name: str
    sources: Sequence[str]
    destination: str
    when: str
    phase: Phase
    watching: Mapping[str, str] = Factory(dict)
    backlog: KnownBacklog = KnownBacklog()
    running: RunNow | None = None
    last_run: RunResult | None = None
    last_success: float | None = None
    next_run: float | None = None
    failing_since: float | None = None
    error: str = ""
    error_code: str = ""
    failed_files: int = 0
    busy_files: int = 0
    file_error: str = ""
    file_error_code: str = ""
    up_bps: int | None = None
    down_bps: int | None = None
    up_change: LimitChange | None = None
    down_change: LimitChange | None = None
    totals: Totals = Factory(Totals)

    @property
    def stuck_files(self) -> int:
        """How many of the files that failed somebody has to look after."""
        return self.failed_files - self.busy_files

    def as_row(self) -> dict[str, Any]:
        """The same as a JSON object: enums by their values, nested values as objects."""
        row = asdict(self, value_serializer=lambda _, __, value: value.value if isinstance(value, Phase) else value)
        row["sources"] = list(self.sources)
        return row
