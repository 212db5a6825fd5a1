"""Remove files at the source that have arrived, recorded first: the manifest has every file that is gone.

Small files by the batch and larger ones each by itself end here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from realize.errors import RealizeError, SameFile
from realize.mover.events import End, How
from realize.mover.interfaces import Arrived
from realize.mover.work import SideError, Work, whole
from realize.units import display_name
from realize.values import Committed, Existing, Removal, Stored

_HOW_COMMITTED: Final = {
    Committed.CREATED: How.CREATED,
    Committed.REPLACED: How.REPLACED,
    Committed.SKIPPED: How.SKIPPED,
    Committed.RENAMED: How.RENAMED,
}


def how_arrived(stored: Stored | None) -> How:
    """How a file has arrived that was ``stored``, or had been there before."""
    return How.ALREADY_THERE if stored is None else _HOW_COMMITTED[stored.how]


async def refuse_same_file(work: Work, path: bytes, existing: Existing) -> None:
    """Raise `SideError` if the file at the destination *is* the file at the source, reached by another path.

    Equal content is the one case in which the source is removed without anything having been written; if both names
    were one directory entry (say, through a bind mount below the two directories), that would remove the only copy.
    """
    with whole(End.SOURCE):
        [here] = await work.source.describe([path])
    if isinstance(here, RealizeError):
        raise SideError(End.SOURCE, here)
    if here.identity == existing.identity:
        raise SideError(
            End.DESTINATION, SameFile(f"{display_name(path)}: source and destination are one and the same file")
        )


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
