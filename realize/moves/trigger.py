"""What sets off the runs of a standing move: files that settle, or the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from realize.moves.one_run import Occasion, RunEnd
from realize.moves.state import FileFailure, Unfinished
from realize.moves.status import KnownBacklog


class Trigger(Protocol):
    """Knows when the next run is due, and what has not been moved yet.

    ``changed`` is called when `wait_s` may have become less by itself, and ``source_hung`` when the disk of a source
    that the present run works on does not answer any more: the run would keep the other sources waiting.
    """

    changed: Callable[[], object]
    source_hung: Callable[[], object]

    @property
    def watching(self) -> Mapping[str, str]:
        """How each source is watched, by path; empty by the clock."""

    @property
    def backlog(self) -> KnownBacklog:
        """What is known and not moved; while a run goes on, without what that has found."""

    @property
    def failures(self) -> Sequence[FileFailure]:
        """The files that could not be moved and wait for another attempt, at most some thousand of them."""

    @property
    def failed_files(self) -> int:
        """How many these are."""

    @property
    def busy_files(self) -> int:
        """How many of these others use, so that nobody has to do anything; see `realize.errors.is_busy`."""

    @property
    def last_due(self) -> float | None:
        """The last occasion that was taken, in seconds since the epoch; None as files settle."""

    @property
    def unfinished(self) -> Unfinished | None:
        """Whether another run is to go on with that occasion, also after a restart."""

    def is_first_failure(self, path: bytes) -> bool:
        """Whether a file that has just failed was not known to fail before."""

    def start(self) -> None:
        """Begin to look out."""

    def stop(self) -> Deferred[None]:
        """Look out no more; fires when nothing is open."""

    def wait_s(self, delay_s: float) -> float | None:
        """In how many seconds the next run is due; None if only `changed` can tell.

        ``delay_s`` is what is left of the delay after trouble.
        """

    def asked(self) -> None:
        """Make the next run due now, whatever failed before."""

    def begin(self) -> Occasion | None:
        """What the run that begins now is to do; None if there is nothing."""

    def ended(self, end: RunEnd) -> None:
        """Learn how that run ended."""
