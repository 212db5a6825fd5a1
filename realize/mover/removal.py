"""Remove files at the source that have arrived, recorded first: the manifest has every file that is gone."""

from __future__ import annotations

from collections.abc import Sequence

from realize.errors import RealizeError
from realize.mover.interfaces import Arrived
from realize.mover.work import Work
from realize.values import Removal


async def remove_arrived(
    work: Work, arrived: Sequence[Arrived], removals: Sequence[Removal]
) -> list[RealizeError | None]:
    """Record files that are durable at the destination, and remove them at the source if asked to, perhaps later.

    ``arrived`` has the same files as ``removals``, or none if there is no manifest.
    Returns for each file why the source has refused to remove it, or None; the store itself compares it with the
    version that was sent.
    Raises what recording raises, and `StoreFailed` if the source did not answer or failed as a whole.
    """
    await work.arrived(arrived)
    if work.removals is not None:
        work.removals.update({each.path: each.version for each in removals})
        return [None] * len(removals)
    if not work.options.remove or not removals:
        return [None] * len(removals)
    refusals = await work.remove(removals)
    if arrived:
        work.removed([each for each, refused in zip(arrived, refusals, strict=True) if refused is None])
    return refusals
