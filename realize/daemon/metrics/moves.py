"""The metrics of standing moves, read at the time of a scrape from what the engine knows.

Nothing is counted here, so a move that a reload has removed leaves no series behind, and a scrape costs no I/O.
``docs/metrics.md`` lists them.

Invariants: ``move`` is a name of the configuration; the other labels have values that are known from the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from attrs import frozen
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from realize.daemon.metrics.counters import FAILURES
from realize.errors import AccessDenied, InternalError, VersionMismatch, WrongPeer, every_error
from realize.moves.status import MoveStatus, Phase
from realize.wire.commands import Direction

MoveFamily = CounterMetricFamily | GaugeMetricFamily


MOVE_FAILURES: Final = tuple(
    sorted(error.wire_code.decode() for error in (*FAILURES, AccessDenied, VersionMismatch, WrongPeer))
)
"""The usual errors of moves: exposed with 0 from the start, so that already the first one is an increase."""

_CODES: Final = frozenset(error.wire_code.decode() for error in every_error())

_OTHER: Final = InternalError.wire_code.decode()
"""Where an error of a kind that is not known is counted."""

# Family, name without _total, help, labels besides the move.
_FAMILIES_OF_MOVES: Final[tuple[tuple[type[MoveFamily], str, str, tuple[str, ...]], ...]] = (
    (GaugeMetricFamily, "realize_move_state", "1 for the present state of the move, 0 for the others.", ("state",)),
    (GaugeMetricFamily, "realize_move_sources", "Local sources, by how they are watched.", ("watching",)),
    (GaugeMetricFamily, "realize_move_backlog_files", "Files that wait to be moved.", ()),
    (GaugeMetricFamily, "realize_move_backlog_bytes", "Bytes of the files that wait to be moved.", ()),
    (GaugeMetricFamily, "realize_move_backlog_incomplete", "1 if more files wait than are known.", ()),
    (
        GaugeMetricFamily,
        "realize_move_backlog_oldest_timestamp_seconds",
        "Since when the oldest waiting file has been there.",
        (),
    ),
    (CounterMetricFamily, "realize_move_moved_files", "Files that were moved.", ()),
    (CounterMetricFamily, "realize_move_moved_bytes", "Bytes of the files that were moved.", ()),
    (CounterMetricFamily, "realize_move_failures", "Failures of whole runs and of single files.", ("reason",)),
    (GaugeMetricFamily, "realize_move_failed_files", "Files that failed and wait for another attempt.", ()),
    (GaugeMetricFamily, "realize_move_busy_files", "Files among those that failed which others use.", ()),
    (GaugeMetricFamily, "realize_move_run_start_timestamp_seconds", "When the present run began.", ()),
    (GaugeMetricFamily, "realize_move_last_run_duration_seconds", "Duration of the last run.", ()),
    (GaugeMetricFamily, "realize_move_last_run_timestamp_seconds", "When the last run ended.", ()),
    (
        GaugeMetricFamily,
        "realize_move_last_success_timestamp_seconds",
        "When a run last ended with everything done.",
        (),
    ),
    (GaugeMetricFamily, "realize_move_next_run_timestamp_seconds", "When the move runs again by itself.", ()),
    (
        GaugeMetricFamily,
        "realize_move_failing_since_timestamp_seconds",
        "Since when the move has been failing as a whole.",
        (),
    ),
    (CounterMetricFamily, "realize_move_after", "Programs after a run, by how they ended.", ("outcome",)),
    (
        GaugeMetricFamily,
        "realize_move_throttle_limit_bytes_per_second",
        "Rate limits of the move; +Inf is unlimited.",
        ("direction",),
    ),
)


@frozen(eq=False, repr=False)
class MoveMetrics(Collector):
    """What there is to know of the standing moves that ``statuses`` returns."""

    statuses: Callable[[], Sequence[MoveStatus]]

    def describe(self) -> Iterator[MoveFamily | SummaryMetricFamily]:
        """The metric families without values."""
        yield from _families()
        yield _durations()

    def collect(self) -> Iterator[MoveFamily | SummaryMetricFamily]:
        """The metric families with their values now."""
        families = {family.name: family for family in _families()}
        durations = _durations()
        for status in self.statuses():
            for name, value, labels in _samples(status):
                families[name].add_metric((status.name, *labels), value)
            durations.add_metric((status.name,), status.totals.runs, status.totals.run_seconds)
        yield from families.values()
        yield durations


def _families() -> Iterator[MoveFamily]:
    for family, name, meaning, labels in _FAMILIES_OF_MOVES:
        yield family(name, meaning, labels=("move", *labels))


def _durations() -> SummaryMetricFamily:
    return SummaryMetricFamily(
        "realize_move_run_duration_seconds", "Duration of the runs that have ended.", labels=("move",)
    )


def _samples(status: MoveStatus) -> Iterator[tuple[str, float, tuple[str, ...]]]:
    """Name, value and labels besides the move of all samples that are one number; what is not known is left out."""
    for phase in Phase:
        yield "realize_move_state", phase is status.phase, (phase.value,)
    ways = list(status.watching.values())
    for way in dict.fromkeys(ways):
        yield "realize_move_sources", ways.count(way), (way,)
    yield "realize_move_backlog_files", status.backlog.files, ()
    yield "realize_move_backlog_bytes", status.backlog.size, ()
    yield "realize_move_backlog_incomplete", status.backlog.at_least, ()
    yield "realize_move_moved_files", status.totals.moved_files, ()
    yield "realize_move_moved_bytes", status.totals.moved_bytes, ()
    for reason, failures in failures_by_code(status).items():
        yield "realize_move_failures", failures, (reason,)
    yield "realize_move_failed_files", status.failed_files, ()
    yield "realize_move_busy_files", status.busy_files, ()
    for outcome, programs in status.totals.after.items():
        yield "realize_move_after", programs, (outcome,)
    for direction, bps in ((Direction.SEND, status.up_bps), (Direction.RECEIVE, status.down_bps)):
        limit = math.inf if bps is None else bps
        yield "realize_move_throttle_limit_bytes_per_second", limit, (direction.value,)
    running, last = status.running, status.last_run
    for name, known in (
        ("realize_move_backlog_oldest_timestamp_seconds", status.backlog.oldest),
        ("realize_move_run_start_timestamp_seconds", None if running is None else running.began),
        ("realize_move_last_run_duration_seconds", None if last is None else last.ended - last.began),
        ("realize_move_last_run_timestamp_seconds", None if last is None else last.ended),
        ("realize_move_last_success_timestamp_seconds", status.last_success),
        ("realize_move_next_run_timestamp_seconds", status.next_run),
        ("realize_move_failing_since_timestamp_seconds", status.failing_since),
    ):
        if known is not None:
            yield name, known, ()


def failures_by_code(status: MoveStatus) -> dict[str, int]:
    """The failures of a move by error code; all usual ones, and what has no code of ours counts as internal."""
    found = dict.fromkeys(MOVE_FAILURES, 0)
    for word, failures in status.totals.failures.items():
        code = word.upper() if word.upper() in _CODES else _OTHER
        found[code] = found.get(code, 0) + failures
    return found
