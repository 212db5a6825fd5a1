"""Removing partials that nobody came back for; for a thread, a slice at a time."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

from attrs import define, field

from realize.store.leftovers import find_partials, gained_ns, remove_unlocked
from realize.store.location import Location, locate
from realize.store.stamps import Present

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
    ``deep`` says whether directories below it are looked into.
    """
    location = root if isinstance(root, Location) else locate(os.fsencode(root), b"", None)
    finding = find_partials(location, deep=deep)
    try:
        for partials in finding:
            old = [each for each in partials if each.status and present.age_ns(gained_ns(each.status)) > older_than_ns]
            removed = remove_unlocked(location, old) if old else []
            step = Step([(each.path, each.size) for each in removed])
            step.partials = len(partials) - len(removed)
            step.size = sum(each.size for each in partials) - sum(each.size for each in removed)
            yield step
    finally:
        finding.close()


def next_step(steps: Iterator[Step]) -> Step | None:
    """One step, in a thread; StopIteration could not come back through a Deferred."""
    return next(steps, None)
