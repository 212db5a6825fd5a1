"""Decide what to do with one file, from what source and destination have; pure."""

from __future__ import annotations

import enum

from realize.errors import Conflict
from realize.mover.history import RunHistory
from realize.units import display_name
from realize.values import Existing, OnConflict, Where, WhereKind


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


def decide(path: bytes, size: int, existing: Existing, policy: OnConflict, history: RunHistory) -> Action:
    """The action for a source file of ``size`` bytes; raises `Conflict` if it must stay at the source."""
    if existing.obstacle:
        if policy is OnConflict.RENAME:
            return Action.RENAME
        raise Conflict(f"{display_name(path)}: a {existing.obstacle} has this name")
    if existing.final_size is None:
        return Action.SEND if existing.partial_size is None else Action.RESUME
    if existing.final_size == size:
        return Action.COMPARE
    return resolve(path, existing, policy, history)


def resolve(path: bytes, existing: Existing, policy: OnConflict, history: RunHistory) -> Action:
    """The action once the destination is known to have a file of that name with other content.

    A final that ``history`` protects is never replaced.
    Where both files are to be kept, what this run has stored of an earlier version of the file is replaced, and nothing
    else.
    Raises `Conflict` if the file must stay at the source, and says so if the final only stays because the run itself
    has changed it by another of its names.
    """
    if policy is OnConflict.RENAME:
        return Action.REPLACE if history.has_stored(existing) else Action.RENAME
    if policy is OnConflict.SKIP:
        return Action.SKIP
    if policy is OnConflict.FAIL:
        raise Conflict(f"{display_name(path)}: another file has this name")
    if history.protects(existing):
        if history.other_names.has(existing):
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
