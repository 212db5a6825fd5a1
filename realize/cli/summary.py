"""What a run has come to so far, counted from the mover's events; pure."""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from realize.mover.events import Event, Failed, Finished, Found, How, Left, Planned
from realize.mover.plan import Action
from realize.units import format_size

FAILED = 1
"""Exit code of a run in which something failed."""

ARRIVED = (How.CREATED, How.REPLACED, How.ALREADY_THERE)
"""The outcomes after which the file is at the destination."""


@define
class Tally:
    """Files and bytes by outcome.

    Only what failed makes the exit code differ from 0: files skipped by policy, files that somebody else took, and
    things that are never moved (symlinks, devices, ...) are reported, but nothing went wrong with them.
    """

    found_files: int = 0
    found_bytes: int = 0
    finished: Counter[How] = field(factory=Counter)
    planned: Counter[Action] = field(factory=Counter)
    planned_bytes: int = 0
    arrived_bytes: int = 0
    sent_bytes: int = 0
    removed: int = 0
    failed: int = 0
    left: int = 0

    def __call__(self, event: Event) -> None:
        """Count one event."""
        match event:
            case Found(files, size):
                self.found_files += files
                self.found_bytes += size
            case Finished():
                self.finished[event.how] += 1
                self.sent_bytes += event.sent
                self.removed += event.removed
                if event.how in ARRIVED:
                    self.arrived_bytes += event.size
            case Planned():
                self.planned[event.action] += 1
                self.planned_bytes += event.size
            case Failed():
                self.failed += 1
            case Left():
                self.left += 1
            case _:
                pass

    @property
    def arrived(self) -> int:
        """How many files are at the destination now."""
        return sum(self.finished[how] for how in ARRIVED)

    def exit_code(self) -> int:
        """0, or 1 if anything failed."""
        return FAILED if self.failed else 0

    def sentence(self, seconds: float, *, remove: bool, dry_run: bool) -> str:
        """The closing line for people."""
        if dry_run:
            what = f"would {'move' if remove else 'copy'} {_files(self.planned.total())}, "
            what += format_size(self.planned_bytes)
        else:
            what = f"{'moved' if remove else 'copied'} {_files(self.arrived)}, {format_size(self.arrived_bytes)}"
            what += f" ({format_size(self.sent_bytes)} sent) in {seconds:.1f} s"
        rest = (
            (self.finished[How.ALREADY_THERE], "already there"),
            (self.finished[How.SKIPPED], "skipped"),
            (self.finished[How.GONE], "gone"),
            (self.left, "left (not regular files)"),
            (self.failed, "failed"),
        )
        return "; ".join([what, *(f"{count:,} {label}" for count, label in rest if count)])


def _files(count: int) -> str:
    return f"{count:,} file" if count == 1 else f"{count:,} files"
