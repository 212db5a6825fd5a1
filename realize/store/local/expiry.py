"""Removing what nobody came back for: partials, and directories made for them; for a thread, a slice at a time."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

from attrs import define, field

from realize.fs.stamps import Present
from realize.store.local.leftovers import find_leftovers, gained_ns, remove_awaiting, remove_unlocked
from realize.store.local.location import Location, locate

Expired = tuple[bytes, int]
"""Path of a partial that was removed, relative to the root, and its size."""


@define(eq=False)
class Step:
    """What one page of files held."""

    removed: list[Expired] = field(factory=list)
    partials: int = 0
    """Partials that are still there."""
    size: int = 0
    """Their bytes."""


def expire_partials(
    root: bytes | str | Location, older_than_ns: int, present: Present, *, deep: bool = True
) -> Generator[Step, None, None]:
    """Remove the partials below ``root`` that have gained nothing for longer than ``older_than_ns``.

    Each step looks at a page of files and yields what it found, often nothing; close the generator to stop early.
    A partial that somebody holds the lock of is let be.
    The directories that were made for one go with it, and others that have waited as long for something to arrive.
    ``deep`` says whether directories below it are looked into.
    """
    location = root if isinstance(root, Location) else locate(os.fsencode(root), b"", None)
    finding = find_leftovers(location, deep=deep)
    try:
        for partials, directories in finding:
            old = [each for each in partials if each.status and present.age_ns(gained_ns(each.status)) > older_than_ns]
            removed = remove_unlocked(location, old) if old else []
            vacant = [
                (*each.directory, each.name)
                for each in directories
                if each.status and present.age_ns(each.status.st_ctime_ns) > older_than_ns
            ]
            vacant += dict.fromkeys(each.directory for each in removed)
            if vacant:
                remove_awaiting(location, vacant)
            step = Step([(each.path, each.size) for each in removed])
            step.partials = len(partials) - len(removed)
            step.size = sum(each.size for each in partials) - sum(each.size for each in removed)
            yield step
    finally:
        finding.close()


def next_step(steps: Iterator[Step]) -> Step | None:
    """One step, in a thread; StopIteration could not come back through a Deferred."""
    return next(steps, None)
