"""What is asked of a run as a whole: its rates, its patience, and where its metrics go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

from realize.by_value import ByValue
from realize.schedule.timetable import RateByTime

if TYPE_CHECKING:
    from realize.telemetry.metrics.pushing import Gateway

JOB: Final = "realize"
"""What the job is called if nobody says otherwise."""


@frozen(eq=False, repr=False)
class Rates(ByValue):
    """How fast this machine may send and be sent to, in bytes per second, or timetables of such; None is unlimited."""

    up: RateByTime = None
    down: RateByTime = None


@frozen(eq=False, repr=False)
class Patience(ByValue):
    """How long a run may take in seconds, how long files under way may then still take, and whether to reconnect."""

    max_duration: float | None = None
    grace: float = 0.0
    retry: bool = True


@frozen(eq=False, repr=False)
class MetricsTargets(ByValue):
    """Where metrics go: an endpoint string to serve them at, a gateway to push them to, a file; None is nowhere.

    ``job`` tells the jobs of one machine apart.
    """

    endpoint: str | None = None
    gateway: Gateway | None = None
    textfile: str | None = None
    job: str = JOB
