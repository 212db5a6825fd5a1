"""The closing lines of a run, for people; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from realize.mover.events import How
from realize.runs.tally import Tally
from realize.units import display_name, display_text, format_size

MAX_NAMED_SOURCES: Final = 3
"""Sources that the closing line names at most."""


def closing_line(tally: Tally, seconds: float, *, remove: bool, dry_run: bool) -> str:
    """What a run that took ``seconds`` came to."""
    verb = "would be removed" if dry_run else "removed"
    if dry_run:
        what = f"would {'move' if remove else 'copy'} {_files(tally.planned.total())}, "
        what += format_size(tally.planned_bytes)
    else:
        what = f"{'moved' if remove else 'copied'} {_files(tally.arrived)}, {format_size(tally.arrived_bytes)}"
        holes = f", {format_size(tally.hole_bytes)} in holes" if tally.hole_bytes else ""
        saved = tally.compression_saved_bytes
        compressed = f", {format_size(saved)} less by compression" if saved else ""
        what += f" ({format_size(tally.sent_bytes)} sent{compressed}{holes}) in {seconds:.1f} s"
    if tally.destination:
        what += f", from {_origins(tally)} to {display_text(tally.destination)}"
    rest = (
        (tally.finished[How.ALREADY_THERE], "already there"),
        (tally.count(How.RENAMED), "kept beside another under a numbered name"),
        (tally.finished[How.SKIPPED], "skipped"),
        (tally.finished[How.GONE], "gone"),
        (tally.links, "of them symlinks" if tally.links != 1 else "of them a symlink"),
        (tally.linked, "of them hard links to others" if tally.linked != 1 else "of them a hard link to another"),
        (tally.left, "left"),
        (tally.held_back, "held back by --min-age, with times in the future"),
        (tally.failed, "failed"),
        (tally.pruned, f"empty {'directory' if tally.pruned == 1 else 'directories'} {verb}"),
        *_unknown(tally),
    )
    lost = [f"{', '.join(tally.not_kept)} not kept of all files"] if tally.not_kept else []
    return "; ".join([what, *(f"{count:,} {label}" for count, label in rest if count), *lost])


def deadline_line(tally: Tally, limit: str, seconds: float) -> str:
    """What a run came to that its ``limit`` ended: moved, interrupted, not started, elapsed.

    ``seconds`` is the time it took.
    """
    shown = [
        f"{display_name(path)} ({'' if reached is None else f'{format_size(reached)} of '}{format_size(size)})"
        for path, (size, reached) in tally.interrupted.copy().items()
    ]
    moved = f"{_files(tally.arrived)}, {format_size(tally.arrived_bytes)}, are there"
    parts = [
        f"{limit} reached: {moved}",
        f"interrupted: {', '.join(shown)}" if shown else "none interrupted",
        f"{tally.not_started:,} found but not started",
    ]
    if tally.failed:
        parts.append(f"{tally.failed:,} failed")
    parts += [f"{count:,} {label}" for count, label in _unknown(tally) if count]
    return "; ".join([*parts, f"{seconds:.1f} s elapsed"])


def _unknown(tally: Tally) -> Sequence[tuple[int, str]]:
    """The counts of unknown outcomes, with their labels for people."""
    return (
        (tally.unknown_arrivals, "unknown (no answer came)"),
        (tally.unknown_removals, "perhaps not removed (no answer came)"),
    )


def _origins(tally: Tally) -> str:
    """The sources for people; of many, the first ones."""
    named = ", ".join(map(display_text, tally.sources[:MAX_NAMED_SOURCES]))
    more = len(tally.sources) - MAX_NAMED_SOURCES
    return f"{named} and {more:,} more" if more > 0 else named


def _files(count: int) -> str:
    return f"{count:,} file" if count == 1 else f"{count:,} files"
