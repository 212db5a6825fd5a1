"""What to do with one file, decided from what both ends have; pure."""

from __future__ import annotations

import enum

from realize.errors import Conflict
from realize.units import display_name
from realize.values import Existing, OnConflict, Stored, Where, WhereKind, coarseness_ns


class Action(enum.Enum):
    """What to do with a file of the source."""

    SEND = "send"
    """The destination has nothing of that name."""
    RESUME = "resume"
    """It has a partial; what of it matches is not sent again."""
    REPLACE = "replace"
    """It has a file of another size."""
    COMPARE = "compare"
    """It has a file of the same size: equal content is not sent, other content is a conflict."""
    SKIP = "skip"
    """It has another file, and the policy is to leave both alone."""


def decide(
    path: bytes, size: int, existing: Existing, policy: OnConflict, *, taken_since_ns: int, sent: Stored | None
) -> Action:
    """The action for a file of ``size`` bytes; raises `Conflict` where it must stay at the source."""
    if existing.obstacle:
        raise Conflict(f"{display_name(path)}: a {existing.obstacle} has this name")
    if existing.final_size is None:
        return Action.SEND if existing.partial_size is None else Action.RESUME
    if existing.final_size == size:
        return Action.COMPARE
    return resolve(path, existing, policy, taken_since_ns=taken_since_ns, sent=sent)


def resolve(path: bytes, existing: Existing, policy: OnConflict, *, taken_since_ns: int, sent: Stored | None) -> Action:
    """The action once the destination is known to hold another file of that name.

    A final file that changed at or after ``taken_since_ns`` (by the destination's clock), or that the destination calls
    recent, because that clock may have been set since, may have come from another source of the same run, or from
    somebody else, and is never replaced: that would lose it.
    But the run may replace what it has ``sent`` itself from an earlier version of the same source, and nothing else.
    """
    if policy is OnConflict.SKIP:
        return Action.SKIP
    if policy is OnConflict.FAIL:
        raise Conflict(f"{display_name(path)}: another file has this name")
    arrived_ns = existing.ctime_ns + coarseness_ns(existing.ctime_ns)
    recent = existing.recent or arrived_ns >= taken_since_ns
    if recent if sent is None else not sent.is_still(existing):
        raise Conflict(f"{display_name(path)}: another file of this name arrived there during this run")
    return Action.REPLACE


def overlap(source: Where, destination: Where) -> str:
    """Why the two locations may not be source and destination of one move, or an empty string."""
    if source.kind is WhereKind.FILE:
        same = destination.kind is WhereKind.DIRECTORY and source.chain[1:2] == destination.chain[:1]
        return "the file is already in that directory" if same else ""
    if source.kind is WhereKind.ABSENT:
        return ""
    here, there = source.chain[0], destination.chain[0]
    if destination.kind is WhereKind.DIRECTORY and here == there:
        return "they are the same directory"
    if here in destination.chain:
        return "the destination is inside the source"
    if destination.kind is WhereKind.DIRECTORY and there in source.chain:
        return "the source is inside the destination"
    return ""
