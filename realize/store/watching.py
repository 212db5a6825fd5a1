"""What a directory that is served tells whoever counts: base classes that count nothing.

Nothing here knows what becomes of it: the daemon makes metrics of it (`realize.daemon.metrics`).
"""

from __future__ import annotations

import enum
import time

from realize.errors import RealizeError
from realize.values import Committed


class Saved(enum.Enum):
    """Why content did not have to be sent."""

    RESUME = "resume"
    """A partial had it."""
    ALREADY_THERE = "already_there"
    """All of it was there: a final file had the same content."""


class Sync(enum.Enum):
    """What was made durable."""

    FILE = "file"
    """The content of one file: fsync(2)."""
    FILE_SYSTEM = "file_system"
    """The content of all files of a group: syncfs(2)."""
    DIRECTORIES = "directories"
    """The names of all files of a group: fsync(2) of each directory, and of those above."""


class FileWatch:
    """Is told what becomes of the files of directories, by name of the directory; in the reactor's thread."""

    def committed(self, directory: str, outcome: Committed) -> None:
        """A file arrived."""

    def removed(self, directory: str) -> None:
        """A file that was moved away is gone."""

    def failed(self, directory: str, error: RealizeError) -> None:
        """Something that was asked about one file could not be done."""

    def saved(self, how: Saved, size: int) -> None:
        """So many bytes of content needed no sending."""


class CommitWatch:
    """Is told how one directory makes files durable; from threads."""

    def group(self, files: int) -> None:
        """So many files are committed together."""

    def synced(self, what: Sync, seconds: float) -> None:
        """It took so long."""

    def syncing(self, what: Sync) -> Syncing:
        """Measure what is done inside ``with``; what fails counts too."""
        return Syncing(self, what)


class Syncing:
    """Measures one sync; a generator would cost thrice as much, for each small file."""

    __slots__ = ("_started", "_watch", "_what")

    def __init__(self, watch: CommitWatch, what: Sync) -> None:
        self._watch = watch
        self._what = what

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._watch.synced(self._what, time.perf_counter() - self._started)
