"""What a move or copy came to."""

from __future__ import annotations

from typing import Self

from attrs import frozen

from realize.by_value import ByValue
from realize.exit_codes import ExitCode
from realize.mover.events import How
from realize.runs.tally import Tally


@frozen(kw_only=True, eq=False, repr=False)
class Summary(ByValue):
    """What a run came to; sizes are in bytes.

    Files that failed, that were left, or whose outcome is unknown are at the source; each had its event.
    """

    exit_code: ExitCode
    """What the command would have ended with: `ExitCode.DONE` if everything was moved and nothing failed."""
    seconds: float
    """How long it took."""
    deadline_reached: bool
    """Whether the run ended at its time limit, with work left."""
    sources: tuple[str, ...]
    """The locations, resolved."""
    destination: str
    found: int
    """Files that were found, and their size."""
    found_bytes: int
    created: int
    """Files that are new at the destination."""
    replaced: int
    """Files that replaced another one there."""
    renamed: int
    """Files that have a numbered name there, since their own was taken."""
    already_there: int
    """Files that were there already, with the same content."""
    skipped: int
    """Files that stay because the destination has another one of that name."""
    gone: int
    """Files that somebody else removed before their turn came."""
    arrived_bytes: int
    """The size of all files that are at the destination now: created, replaced, renamed and already there."""
    sent_bytes: int
    """How many bytes of content were sent."""
    compression_saved_bytes: int
    """How many of these did not travel because they were compressed."""
    removed: int
    """Files that were removed from the source."""
    failed: int
    busy: int
    """How many of those that failed are in use by others, or changed: a later run moves them."""
    not_kept: tuple[str, ...]
    """The kinds of attributes that were not kept of some files, which were moved all the same."""
    left: int
    """Entries that are never moved: symlinks, devices, sockets, FIFOs."""
    held_back: int
    """Files that stay because of the minimum age, with times in the future."""
    pruned: int
    """Directories that were removed."""
    not_started: int
    interrupted: tuple[bytes, ...]
    """Files that were started and not completed; a later run goes on with them."""
    unknown_arrivals: int
    """Files that may or may not be at the destination; all of them are at the source."""
    unknown_removals: int
    """Files that may or may not be removed from the source; all of them are at the destination."""
    planned: int
    """Files that a dry run would have moved, and their size."""
    planned_bytes: int

    @property
    def arrived(self) -> int:
        """Files that are at the destination now."""
        return self.created + self.replaced + self.renamed + self.already_there

    @classmethod
    def of(cls, tally: Tally, seconds: float, exit_code: ExitCode, *, deadline_reached: bool) -> Self:
        """The summary of what was counted."""
        return cls(
            exit_code=exit_code,
            seconds=seconds,
            deadline_reached=deadline_reached,
            sources=tuple(tally.sources),
            destination=tally.destination,
            found=tally.found_files,
            found_bytes=tally.found_bytes,
            created=tally.count(How.CREATED),
            replaced=tally.count(How.REPLACED),
            renamed=tally.count(How.RENAMED),
            already_there=tally.count(How.ALREADY_THERE),
            skipped=tally.count(How.SKIPPED),
            gone=tally.count(How.GONE),
            arrived_bytes=tally.arrived_bytes,
            sent_bytes=tally.sent_bytes,
            compression_saved_bytes=tally.compression_saved_bytes,
            removed=tally.removed,
            failed=tally.failed,
            busy=tally.busy,
            not_kept=tuple(tally.not_kept),
            left=tally.left,
            held_back=tally.held_back,
            pruned=tally.pruned,
            not_started=tally.not_started,
            interrupted=tuple(tally.interrupted),
            unknown_arrivals=tally.unknown_arrivals,
            unknown_removals=tally.unknown_removals,
            planned=tally.planned.total(),
            planned_bytes=tally.planned_bytes,
        )
