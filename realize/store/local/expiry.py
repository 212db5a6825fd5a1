"""Removing partials that were abandoned, and the directories made for them; for a thread, one page at a time."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

from attrs import define, field

from realize.fs.stamps import Present
from realize.store.local.leftovers import find_leftovers, gained_ns, remove_awaiting, remove_unlocked
from realize.store.local.location import RootedLocation, locate

Expired = tuple[bytes, int]
"""The path of a removed partial, relative to the root, and its size in bytes."""


@define(eq=False, repr=False)
class Step:
    """The result for one page of files."""

    removed: list[Expired] = field(factory=list)
    partials: int = 0
    """Number of partials that were kept."""
    size: int = 0
    """Total size of these, in bytes."""


def expire_partials(
    root: bytes | str | RootedLocation, older_than_ns: int, present: Present, *, deep: bool = True
) -> Generator[Step, None, None]:
    """Remove the partials below ``root`` that have not grown for longer than ``older_than_ns``.

    Each step handles a page of files and yields its result, often an empty one; close the generator to stop early.
    A partial that is locked is kept.
    The empty directories that were made for a removed partial are removed, too, and so are others that have waited that
    long for their first file.
    Without ``deep``, directories below ``root`` are not entered.
    """
    location = root if isinstance(root, RootedLocation) else locate(os.fsencode(root), b"", None)
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
    """Do one step, in a thread; returns None at the end, as a Deferred cannot carry StopIteration."""
    return next(steps, None)
