"""The metrics of one run of the command: their names, and how they are exposed.

There are two sets with names of their own, because one describes a process and the other a job.
`live` (``realize_run_...``) is scraped while the run goes on.
`last` (``realize_last_...``) is pushed or written to a textfile, and stays when the process is gone, so all its metrics
are gauges.

Invariants: a push by POST replaces metrics of the same name and leaves the others of its group alone.
So every push has all the metrics that describe a run, with 0 or +Inf where there is nothing to report; otherwise the
values of an earlier run would remain.
Metrics that are known only at the end of a run, or only after a success, are left out until then, so that the values of
an earlier run do remain.
No label has more than a few values, and none is taken from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from attrs import frozen
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from realize.by_value import ByValue

FILE_RESULTS: Final = (
    "created",
    "replaced",
    "renamed",
    "already_there",
    "skipped",
    "gone",
    "failed",
    "left",
    "unknown",
    "remaining",
)
"""What can become of a file; each file that a run found is counted under one of these."""

DIRECTIONS: Final = ("send", "receive")

LAST_SUCCESS: Final = "realize_last_success_timestamp_seconds"
"""The one metric that an unsuccessful run must not change."""


@frozen(eq=False, repr=False)
class Figures(ByValue):
    """The state of a run at one instant.

    ``files`` has the number of files for each of `FILE_RESULTS`, ``sizes`` their bytes for those results where sizes
    are known.
    ``started`` and ``deadline`` are in seconds since the epoch, ``duration`` in seconds, ``sent`` in bytes, and
    ``limits`` in bytes per second by direction (absent is unlimited).
    """

    started: float
    duration: float
    files: Mapping[str, int]
    sizes: Mapping[str, int]
    sent: int
    retries: int
    unknown_removals: int
    limits: Mapping[str, float]
    deadline: float | None = None


@frozen(eq=False, repr=False)
class Pushes(ByValue):
    """How many pushes were tried, and how many of them failed."""

    tried: int
    failed: int


@frozen(eq=False, repr=False)
class Ending(ByValue):
    """How a run ended, and when (``at``, in seconds since the epoch); ``succeeded`` says that everything was moved.

    ``busy`` counts files that failed since others use them, which a later run moves; ``lasting`` all else that failed,
    the run as a whole too.
    """

    exit_code: int
    at: float
    succeeded: bool
    busy: int = 0
    lasting: int = 0


def live(look: Callable[[], Figures], pushes: Callable[[], Pushes] | None) -> Collector:
    """The metrics of the current run, evaluated at each collection; ``pushes`` is None without a gateway."""
    return _Families(lambda: _live(look(), None if pushes is None else pushes()))


def last(figures: Figures, ending: Ending | None, labels: Mapping[str, str] | None = None) -> CollectorRegistry:
    """The metrics that a run leaves behind, all of them with ``labels``; ``ending`` is None while it still goes on."""
    return _registry(_last(figures, ending, labels or {}))


def with_success(registry: CollectorRegistry, at: float, labels: Mapping[str, str]) -> CollectorRegistry:
    """The same metrics, and the time of an earlier success (``at``, in seconds since the epoch)."""
    return _registry([*registry.collect(), _success(at, labels)])


@frozen(repr=False)
class _Families(Collector):
    """Collects what a function returns at the time."""

    _families: Callable[[], Iterable[Metric]]

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        return self._families()


def _registry(families: Iterable[Metric]) -> CollectorRegistry:
    fixed = tuple(families)
    registry = CollectorRegistry()
    registry.register(_Families(lambda: fixed))
    return registry


def _shared(prefix: str, figures: Figures, labels: Mapping[str, str]) -> Iterator[Metric]:
    """The metrics that both sets have in the same form."""
    yield _gauge(f"{prefix}_start_timestamp_seconds", "When the process began.", figures.started, labels)
    text = "Files that were found, by what became of them."
    yield _split(f"{prefix}_files", text, figures.files, "result", labels)
    text = "Bytes of the files that were found, by what became of them."
    yield _split(f"{prefix}_bytes", text, figures.sizes, "result", labels)


def _live(figures: Figures, pushes: Pushes | None) -> Iterator[Metric]:
    yield from _shared("realize_run", figures, {})
    if figures.deadline is not None:
        yield _gauge("realize_run_deadline_timestamp_seconds", "When --max-duration ends the run.", figures.deadline)
    yield _count("realize_run_sent_bytes", "Bytes of content that were sent, before compression.", figures.sent)
    yield _count(
        "realize_run_retries",
        "Connections that were lost, or could not be made, and were tried again.",
        figures.retries,
    )
    yield _split(
        "realize_run_throttle_limit_bytes_per_second",
        "Rate limits of the command line; +Inf is unlimited.",
        _all_limits(figures),
        "direction",
    )
    if pushes is not None:
        yield _count("realize_run_pushes", "Pushes to the Pushgateway that were tried.", pushes.tried)
        yield _count("realize_run_push_failures", "Pushes to the Pushgateway that failed.", pushes.failed)


def _last(figures: Figures, ending: Ending | None, labels: Mapping[str, str]) -> Iterator[Metric]:
    def gauge(name: str, text: str, value: float) -> Metric:
        return _gauge(name, text, value, labels)

    yield from _shared("realize_last", figures, labels)
    yield gauge("realize_last_in_progress", "1 while the run goes on, 0 when it has ended.", ending is None)
    yield gauge(
        "realize_last_duration_seconds", "Duration of the run so far, from the start of the process.", figures.duration
    )
    yield gauge("realize_last_sent_bytes", "Bytes of content that were sent, before compression.", figures.sent)
    yield gauge(
        "realize_last_retries",
        "Connections that were lost, or could not be made, and were tried again.",
        figures.retries,
    )
    text = "Files at the destination that may be at the source too: their removal got no answer."
    yield gauge("realize_last_unknown_removals", text, figures.unknown_removals)
    yield _split(
        "realize_last_throttle_limit_bytes_per_second",
        "Rate limits of the command line; +Inf is unlimited.",
        _all_limits(figures),
        "direction",
        labels,
    )
    if ending is None:
        return
    yield gauge("realize_last_exit_code", "Exit code of the last run that ended.", ending.exit_code)
    text = "What failed in the last run that ended, by whether it goes away by itself."
    yield _split("realize_last_failures", text, {"busy": ending.busy, "lasting": ending.lasting}, "kind", labels)
    yield gauge("realize_last_completion_timestamp_seconds", "When a run last ended, with any result.", ending.at)
    if ending.succeeded:
        yield _success(ending.at, labels)


def _success(at: float, labels: Mapping[str, str]) -> Metric:
    return _gauge(LAST_SUCCESS, "When a run last ended with everything done.", at, labels)


def _all_limits(figures: Figures) -> dict[str, float]:
    return {direction: figures.limits.get(direction, float("inf")) for direction in DIRECTIONS}


def _gauge(name: str, text: str, value: float, labels: Mapping[str, str] | None = None) -> Metric:
    labels = labels or {}
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), float(value))
    return family


def _split(
    name: str, text: str, values: Mapping[str, float], label: str, labels: Mapping[str, str] | None = None
) -> Metric:
    labels = labels or {}
    family = GaugeMetricFamily(name, text, labels=[*labels, label])
    for which, value in values.items():
        family.add_metric([*labels.values(), which], float(value))
    return family


def _count(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=float(value))
