"""Local time, where it is not what a clock counts: hours that do not exist in spring, and come twice in autumn.

A zone is a `datetime.tzinfo`; None is the zone of the machine, as the C library knows it.
Moments are seconds since the epoch; a time without a zone is what clocks on the wall show.
"""

from __future__ import annotations

from datetime import datetime, tzinfo


def shown(moment: float, zone: tzinfo | None = None) -> datetime:
    """What clocks on the wall show at a moment; without a zone, and without saying which of two such hours it is."""
    return datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)


def first_shown(time: datetime, zone: tzinfo | None = None) -> float | None:
    """The first moment at which clocks show ``time``; None if they skip it."""
    moment = time.replace(tzinfo=zone, fold=0).timestamp()
    return moment if shown(moment, zone) == time else None


def first_reached(time: datetime, zone: tzinfo | None = None) -> float:
    """The first moment at which clocks show ``time``, in whole seconds, or, if they skip it, at which they do."""
    # Read by the offset after a change it is before the change, and the other way round.
    late = int(time.replace(tzinfo=zone, fold=0).timestamp())
    early = int(time.replace(tzinfo=zone, fold=1).timestamp())
    if early >= late:
        return float(late)
    while late - early > 1:
        middle = (early + late) // 2
        early, late = (early, middle) if shown(middle, zone) >= time else (middle, late)
    return float(late)
