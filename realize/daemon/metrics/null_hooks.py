"""What the daemon tells of connections, commands and commits: a null object that counts none of them.

`realize.daemon.metrics.counters` overrides it and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from realize.store.hooks import CommitHooks, FileHooks
from realize.wire.server import Refusal


class EventHooks(FileHooks):
    """Called for each event in one daemon: a connection, a refusal, a command, a commit."""

    def started(self, at: float) -> None:
        """Called when the service starts; ``at`` is in seconds since the epoch."""

    def expect(self, directories: Iterable[str], peers: Iterable[str]) -> None:
        """Called with the directory and peer names of the configuration, also after a reload; others are gone."""

    def accepted(self, peer: str) -> None:
        """Called when a peer has said Hello."""

    def former_key(self, peer: str, of: str) -> None:
        """Called when a former key was used for a connection: ``of`` the ``peer`` or of the ``daemon``."""

    def refused(self, refusal: Refusal) -> None:
        """Called when a connection was refused."""

    def command(self, _name: str) -> Callable[[str], None]:
        """Called when a command has arrived; see `realize.wire.responding.Watch`."""
        return lambda _outcome: None

    def commits(self, _directory: str) -> CommitHooks:
        """The hooks of that directory for making files durable."""
        return CommitHooks()
