"""The hooks that the daemon calls for its metrics: a null object that counts nothing.

`realize.daemon.metrics.counters` overrides it and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from realize.store.hooks import CommitHooks, FileHooks
from realize.wire.server import Refusal


class MetricsHooks(FileHooks):
    """Called for what happens in one daemon."""

    def started(self, at: float) -> None:
        """Called when the service starts; ``at`` is in seconds since the epoch."""

    def expect(self, directories: Iterable[str], peers: Iterable[str]) -> None:
        """Called with the directory and peer names of the configuration, also after a reload."""

    def accepted(self, peer: str) -> None:
        """Called when a peer has said Hello."""

    def refused(self, refusal: Refusal) -> None:
        """Called when a connection was refused."""

    def command(self, _name: str) -> Callable[[str], None]:
        """Called when a command has arrived; see `realize.wire.responding.Watch`."""
        return lambda _outcome: None

    def commits(self, _directory: str) -> CommitHooks:
        """The hooks of that directory for making files durable."""
        return CommitHooks()
