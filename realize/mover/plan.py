"""Decide what to do with one file, from what source and destination have; pure."""

from __future__ import annotations

import enum

from realize.errors import Conflict
from realize.mover.other_names import OtherNames
from realize.units import display_name
from realize.values import Existing, OnConflict, Stored, Where, WhereKind, coarseness_ns


class Action(enum.Enum):
    """What to do with a file of the source."""

    SEND = "send"
    """The destination has nothing of that name."""
    RESUME = "resume"
    """The destination has a partial; the part of it that matches is not sent again."""
    REPLACE = "replace"
    """The destination has a file of another size."""
    COMPARE = "compare"
    """The destination has a file of the same size: equal content is not sent, for other content `resolve` decides."""
    SKIP = "skip"
    """The destination has another file, and the policy is to leave both alone."""
    RENAME = "rename"
    """Something else has the name at the destination, and the policy is to keep both: it gets a numbered name."""


def decide(
    path: bytes,
    size: int,
    existing: Existing,
    policy: OnConflict,
    *,
    run_started_ns: int,
    sent: Stored | None,
    others: OtherNames,
) -> Action:
    """The action for a source file of ``size`` bytes; raises `Conflict` if it must stay at the source."""
    if existing.obstacle:
        if policy is OnConflict.RENAME:
            return Action.RENAME
        raise Conflict(f"{display_name(path)}: a {existing.obstacle} has this name")
    if existing.final_size is None:
        return Action.SEND if existing.partial_size is None else Action.RESUME
    if existing.final_size == size:
        return Action.COMPARE
    return resolve(path, existing, policy, run_started_ns=run_started_ns, sent=sent, others=others)


def resolve(
    path: bytes,
    existing: Existing,
    policy: OnConflict,
    *,
    run_started_ns: int,
    sent: Stored | None,
    others: OtherNames,
) -> Action:
    """The action once the destination is known to have a file of that name with other content.

    A final that changed at or after ``run_started_ns`` (by the destination's clock) may have come from another source
    of this run, or from somebody else, and is never replaced: that would lose it.
    The same holds for a final that the destination itself calls recent, since its clock may have been set meanwhile.
    The one exception is the file that this run has ``sent`` from an earlier version of the same source: with ``sent``,
    that file and no other may be replaced.
    Where both files are to be kept, only that one is replaced, and nothing else.
    A final that stays because the run itself has changed it through one of the ``others`` of its names is said to.
    Raises `Conflict` if the file must stay at the source.
    """
    if policy is OnConflict.RENAME:
        return Action.REPLACE if sent is not None and sent.is_still(existing) else Action.RENAME
    if policy is OnConflict.SKIP:
        return Action.SKIP
    if policy is OnConflict.FAIL:
        raise Conflict(f"{display_name(path)}: another file has this name")
    arrived_ns = existing.ctime_ns + coarseness_ns(existing.ctime_ns)
    recent = existing.recent or arrived_ns >= run_started_ns
    if recent if sent is None else not sent.is_still(existing):
        if others.has(existing):
            raise Conflict(
                f"{display_name(path)}: this run has replaced, or found identical, the same file under another name "
                "(hard link); run it again to replace it here, too"
            )
        raise Conflict(f"{display_name(path)}: the file of this name arrived there, or changed, during this run")
    return Action.REPLACE


def overlap(source: Where, destination: Where) -> str:
    """Why the two locations cannot be source and destination of one move; empty if they can."""
    if source.kind is WhereKind.FILE:
        same = destination.kind is WhereKind.DIRECTORY and source.identities[1:2] == destination.identities[:1]
        return "the file is already in that directory" if same else ""
    if source.kind is WhereKind.ABSENT:
        return ""
    here, there = source.identities[0], destination.identities[0]
    if destination.kind is WhereKind.DIRECTORY and here == there:
        return "they are the same directory"
    if here in destination.identities:
        return "the destination is inside the source"
    if destination.kind is WhereKind.DIRECTORY and there in source.identities:
        return "the source is inside the destination"
    return ""
