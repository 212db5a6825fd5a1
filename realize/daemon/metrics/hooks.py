"""What the daemon tells whoever counts; this one counts nothing, `realize.daemon.metrics.counters` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from realize.store.hooks import CommitHooks, FileHooks
from realize.wire.server import Refusal


class MetricsHooks(FileHooks):
    """Is told what happens in one daemon."""

    def started(self, at: float) -> None:
        """The service starts, in seconds since the epoch."""

    def expect(self, directories: Iterable[str], peers: Iterable[str]) -> None:
        """These are the directories and peers of the configuration, from now on."""

    def accepted(self, peer: str) -> None:
        """A peer has said Hello."""

    def refused(self, refusal: Refusal) -> None:
        """Somebody was not let in."""

    def command(self, _name: str) -> Callable[[str], None]:
        """A command has come; see `realize.wire.responding.Watch`."""
        return _ignore

    def commits(self, _directory: str) -> CommitHooks:
        """Who is told how that directory makes files durable."""
        return CommitHooks()


def _ignore(_outcome: str) -> None:
    """Count nothing."""
