"""What a directory that is served tells whoever counts: base classes that count nothing.

Nothing here knows what becomes of it: the daemon makes metrics of it (`realize.daemon.metrics.counters`).
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterator, Sequence

from realize.errors import RealizeError
from realize.values import Committed


class Saved(enum.Enum):
    """Why content did not have to be sent."""

    RESUME = "resume"
    """A partial had it."""
    ALREADY_THERE = "already_there"
    """All of it was there: a final file had the same content."""
    DELTA = "delta"
    """The earlier version of the file had it."""
    CLAIMED = "claimed"
    """Whoever reads a file says that it has it: a partial, a final file or an earlier version there."""


class Sync(enum.Enum):
    """What was made durable."""

    FILE = "file"
    """The content of one file: fsync(2)."""
    FILE_SYSTEM = "file_system"
    """The content of all files of a group: syncfs(2)."""
    DIRECTORIES = "directories"
    """The names of all files of a group: fsync(2) of each directory, and of those above."""


class FileHooks:
    """Is told what becomes of the files of directories, by name of the directory; in the reactor's thread."""

    def committed(self, directory: str, outcome: Committed, files: int = 1) -> None:
        """Files arrived."""

    def removed(self, directory: str, files: int = 1) -> None:
        """Files that were moved away are gone."""

    def failed(self, directory: str, error: RealizeError) -> None:
        """Something that was asked about one file could not be done."""

    def saved(self, how: Saved, size: int) -> None:
        """So many bytes of content needed no sending."""


class CommitHooks:
    """Is told how one directory makes files durable; from threads."""

    def group(self, files: int) -> None:
        """So many files are committed together."""

    def synced(self, what: Sync, seconds: Sequence[float]) -> None:
        """It took so long, each time."""

    @contextlib.contextmanager
    def syncing(self, what: Sync) -> Iterator[None]:
        """Measure what is done inside; what fails counts too."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.synced(what, (time.perf_counter() - started,))
