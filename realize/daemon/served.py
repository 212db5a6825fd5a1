"""The directories that the daemon serves, as stores."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from attrs import Factory, frozen
from twisted.internet.interfaces import IReactorTime

from realize.concurrency import short_jobs as brief
from realize.concurrency.memory import Memory
from realize.concurrency.shielded import RunInThread
from realize.concurrency.short_jobs import ShortJobs
from realize.concurrency.turns import Turn, Turns
from realize.config import DirectoryConfig, Right
from realize.config.reading import DISK_ANSWER_S
from realize.errors import StorageError
from realize.fs.tree import Inode
from realize.store.hooks import CommitHooks
from realize.store.local.footprint import Footprint
from realize.store.local.group_commit import Committer
from realize.store.local.headroom import Headroom
from realize.store.local.promised_space import Ledger
from realize.store.local.store import LocalStore, root_identity
from realize.units import display_text

LONG_JOB_THREADS: Final = 5
"""Threads of a directory for jobs that are not short."""

LONG_JOB_THREADS_PER_PEER: Final = 4
"""How many of these one peer may use; more would only queue at the disk."""

THREADS: Final = LONG_JOB_THREADS + brief.MAX_THREADS + 1
"""Threads for the disk work of each directory: for long jobs, for short jobs, and one for commits, so that none of
these can block the others.

Threads are started when there is work for them.
"""

MAX_READING_COMMANDS: Final = 2
"""Commands of one peer at once that read much of one directory and answer little (digests, comparisons)."""


@frozen
class ServedDirectory:
    """One directory, as it was when the configuration was read.

    All its stores share a committer, so that files of different peers are committed together, and threads, which the
    peers use in turn.
    """

    name: str
    path: str
    identity: Inode
    committer: Committer
    run_in_thread: RunInThread
    brief: ShortJobs
    long: Turns
    reading: Turns
    headroom: Headroom
    memory: Memory
    footprints: dict[str, Footprint] = Factory(dict)
    """What each peer has changed in this directory, by peer name."""

    def store(self, base: bytes, peer: str, rights: frozenset[Right], origin: bytes | None) -> LocalStore:
        """The store of the files below ``base``, for a peer with these rights.

        ``origin`` identifies the peer's own files if it may not read the others; None if it may read all.
        """
        return LocalStore(
            self.path,
            base,
            run_in_thread=self.long.threads_of(peer, self.run_in_thread),
            run_briefly=self.brief.of(peer),
            root_identity=self.identity,
            committer=self.committer,
            headroom=self.headroom,
            origin=origin,
            footprint=self.footprints.setdefault(peer, Footprint()),
            changes_all=Right.WRITE in rights,
            prunes_all=Right.PRUNE in rights,
            shown=self.name.encode(),
            memory=self.memory.of(peer),
            owner=peer,
        )

    @property
    def waiting(self) -> int:
        """How many jobs of peers wait for their turn."""
        return self.brief.waiting + self.long.waiting + self.reading.waiting

    def turns_of(self, peer: str) -> Turn:
        """The turns of that peer, on all its connections, for commands that read much."""
        return partial(self.reading.run, peer)


def look_at(directories: Mapping[str, DirectoryConfig]) -> dict[str, Inode | None]:
    """The identity of each directory, by name; None for one whose disk does not answer.

    Blocks for up to `realize.config.reading.DISK_ANSWER_S`, so call it in a thread where that is too long.
    Raises `StorageError` if a directory does not exist or cannot be opened.
    """
    looks = {name: _Look(directory.path) for name, directory in directories.items()}
    until = time.monotonic() + DISK_ANSWER_S
    found: dict[str, Inode | None] = {}
    for name, look in looks.items():
        try:
            found[name] = look.found(max(0.0, until - time.monotonic()))
        except OSError as error:
            path = display_text(directories[name].path)
            raise StorageError(f"dirs.{name}.path: {path}: {error.strerror}") from error
    return found


def serve_directories(
    directories: Mapping[str, DirectoryConfig],
    found: Mapping[str, Inode | None],
    threads_of: Callable[[str], RunInThread],
    clock: IReactorTime,
    watch: Callable[[str], CommitHooks],
    ledger: Ledger,
    freed: Callable[[str, bytes, int], object],
    memory: Memory,
) -> dict[str, ServedDirectory]:
    """The directories that `look_at` ``found``, by name.

    ``threads_of`` returns, for a path, what runs jobs in its threads; ``watch`` returns, for a name, the hooks of its
    commits.
    ``freed`` is called with the name of a directory, and the path and size in bytes of a partial that was removed there
    to make space.
    """
    served = {}
    for name, identity in found.items():
        if identity is not None:
            directory = directories[name]
            run_in_thread = threads_of(directory.path)
            committer = Committer(run_in_thread, watch(name))
            served[name] = ServedDirectory(
                name,
                directory.path,
                identity,
                committer,
                run_in_thread,
                ShortJobs(run_in_thread, clock),
                Turns(LONG_JOB_THREADS, LONG_JOB_THREADS_PER_PEER),
                Turns(sys.maxsize, MAX_READING_COMMANDS),
                Headroom(run_in_thread, ledger, directory.reserve, partial(freed, name)),
                memory,
            )
    return served


class _Look:
    """Looks at a directory in a daemon thread of its own, because a dead disk or mount may never answer."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: Inode | None = None
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._look, daemon=True, name="look")
        self._thread.start()

    def found(self, seconds: float) -> Inode | None:
        """The identity of the directory, None if it does not answer within ``seconds``; raises OSError."""
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return self._found

    def _look(self) -> None:
        try:
            self._found = root_identity(self._path)
        except OSError as error:
            self._error = error
