"""Hooks through which a served directory reports what happens in it; these base classes do nothing.

They do not know who listens: the daemon turns them into metrics (`realize.daemon.metrics.counters`).
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterator, Sequence

from realize.errors import RealizeError
from realize.values import Committed, HardLinked, Linked


class Saved(enum.Enum):
    """Why content did not have to be sent."""

    RESUME = "resume"
    """A partial held it."""
    ALREADY_THERE = "already_there"
    """A final file held the same content, all of it."""
    DELTA = "delta"
    """The earlier version of the file held it."""
    HOLE = "hole"
    """It is a hole of the file, and was told as such."""
    CLAIMED = "claimed"
    """The reader of a file says that it holds it already, in a partial, a final file or an earlier version."""


class Sync(enum.Enum):
    """What was made durable."""

    FILE = "file"
    """The content of one file: fsync(2)."""
    FILE_SYSTEM = "file_system"
    """The content of all files of a group: syncfs(2)."""
    DIRECTORIES = "directories"
    """The names of all files of a group: fsync(2) of each directory and of those above it."""


class FileHooks:
    """Called in the reactor's thread with what becomes of files; ``directory`` is the name of a served directory."""

    def committed(self, directory: str, outcome: Committed, files: int = 1) -> None:
        """``files`` files were committed."""

    def linked(self, directory: str, outcome: Linked, links: int = 1) -> None:
        """``links`` symlinks were made, or found to be there already, or skipped."""

    def hard_linked(self, directory: str, outcome: HardLinked, names: int = 1) -> None:
        """``names`` names were given to files, or found to be theirs already, or could not be given to them."""

    def removed(self, directory: str, files: int = 1) -> None:
        """``files`` files or symlinks were removed after they were moved away."""

    def failed(self, directory: str, error: RealizeError) -> None:
        """A request about one file failed."""

    def saved(self, how: Saved, size: int) -> None:
        """``size`` bytes of content did not have to be sent."""


class CommitHooks:
    """Called in threads with how one directory makes files durable."""

    def group(self, files: int) -> None:
        """``files`` files are about to be committed together."""

    def synced(self, what: Sync, seconds: Sequence[float]) -> None:
        """Calls that made ``what`` durable took this many seconds each."""

    @contextlib.contextmanager
    def syncing(self, what: Sync) -> Iterator[None]:
        """Measure the body, and report its duration even if it fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.synced(what, (time.perf_counter() - started,))
