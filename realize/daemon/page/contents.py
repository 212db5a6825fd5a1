"""What the page shows, as values: of what there may be many of, no more than fits, and how many more there are.

Times are seconds since the epoch, durations are seconds, sizes are bytes, rates are bytes per second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo

from attrs import Factory, frozen

from realize.by_value import ByValue
from realize.moves.status import KnownBacklog, MoveStatus

HourOfRates = Sequence[float]
"""Rates of the last hour, one for each `realize.daemon.page.history.HISTORY_INTERVAL_S`, the latest last."""


@frozen(eq=False, repr=False)
class Headline(ByValue):
    """The one sentence that the page begins with; ``tone`` is that of a state: bad, warn, busy, good or calm."""

    text: str
    tone: str


@frozen(eq=False, repr=False)
class ShownAbsence(ByValue):
    """A directory that is not there, or whose disk does not answer: its name, for how many seconds, and why."""

    name: str
    seconds: float
    why: str


@frozen(kw_only=True, eq=False, repr=False)
class ShownTransfer(ByValue):
    """A file on its way; ``name`` is empty if it is not to be shown, ``about`` says where it comes from or goes to."""

    name: str
    about: str
    size: int
    done: int
    rate_bps: float | None = None


@frozen(eq=False, repr=False)
class ShownChange(ByValue):
    """What a limit becomes by itself, in which direction, and when."""

    at: float
    direction: str
    bps: float | None


@frozen(kw_only=True, eq=False, repr=False)
class ShownLimit(ByValue):
    """The limits of one thing, None where there is none, and what they become next by themselves."""

    about: str
    sending_bps: float | None = None
    receiving_bps: float | None = None
    changes: Sequence[ShownChange] = ()


@frozen(kw_only=True, eq=False, repr=False)
class Contents(ByValue):
    """All that the page shows.

    ``moves`` are those to be shown, what should be seen first before the others, without names that must not be shown
    (`realize.daemon.page.withholding`); ``waiting`` is the backlog of all, and ``more_…`` say how many were left out.
    ``zone`` is the time zone in which times are shown, None for that of the machine.
    """

    now: float
    host: str
    version: str
    uptime_s: float
    headline: Headline
    absent: Sequence[ShownAbsence] = ()
    more_absent: int = 0
    moves: Sequence[MoveStatus] = ()
    more_moves: int = 0
    waiting: KnownBacklog = Factory(KnownBacklog)
    peers: Mapping[str, int] = Factory(dict)
    """Connections by name of the peer."""
    transfers: Sequence[ShownTransfer] = ()
    more_transfers: int = 0
    limits: Sequence[ShownLimit] = ()
    more_limits: int = 0
    sent: HourOfRates = ()
    received: HourOfRates = ()
    moved_by_all: HourOfRates = ()
    moved: Mapping[str, HourOfRates] = Factory(dict)
    """By name of the move."""
    zone: tzinfo | None = None
