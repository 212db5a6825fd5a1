"""The directories that the daemon serves, as stores."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Final

from attrs import Factory, frozen
from twisted.internet.interfaces import IReactorTime

from realize.by_value import ByValue
from realize.concurrency import short_jobs as brief
from realize.concurrency.memory import Memory
from realize.concurrency.one_at_work import OneAtWork
from realize.concurrency.shielded import RunInThread
from realize.concurrency.short_jobs import ShortJobs
from realize.concurrency.turns import Turn, Turns
from realize.config import DirectoryConfig, Right
from realize.daemon.looks import FoundDirectory
from realize.fs.names import judge
from realize.fs.tree import Inode
from realize.store.hooks import CommitHooks
from realize.store.local.acceptance import Acceptance
from realize.store.local.footprint import Footprint
from realize.store.local.group_commit import Committer
from realize.store.local.headroom import Headroom
from realize.store.local.link_policy import LinkPolicy
from realize.store.local.location import BackupPlace, Backups
from realize.store.local.promised_space import Ledger
from realize.store.local.store import LocalStore

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


@frozen(eq=False, repr=False)
class ServedDirectory(ByValue):
    """One directory, as it was when it was taken up.

    All its stores share a committer, so that files of different peers are committed together, and threads, which the
    peers use in turn.
    """

    name: str
    path: str
    found: FoundDirectory
    committer: Committer
    run_in_thread: RunInThread
    run_in_turn: RunInThread
    brief: ShortJobs
    long: Turns
    reading: Turns
    headroom: Headroom
    memory: Memory
    backups: Backups
    links: LinkPolicy
    acceptance: Acceptance
    footprints: dict[str, Footprint] = Factory(dict)
    """What each peer has changed in this directory, by peer name."""

    def store(
        self, base: bytes, peer: str, rights: frozenset[Right], origin: bytes | None, backup_dir: bytes = b""
    ) -> LocalStore:
        """The store of the files below ``base``, for a peer with these rights.

        ``origin`` identifies the peer's own files if it may not read the others; None if it may read all.
        ``backup_dir`` is where the peer wants to have what it replaces; the daemon's own place, if it has one, comes
        first.
        """
        return LocalStore(
            self.path,
            base,
            run_in_thread=self.long.threads_of(peer, self.run_in_thread),
            run_briefly=self.brief.of(peer),
            run_in_turn=self.long.threads_of(peer, self.run_in_turn),
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
            backups=self.backups,
            backup_dir=backup_dir,
            link_policy=self.links,
            acceptance=self.acceptance,
        )

    def configure(self, directory: DirectoryConfig) -> None:
        """Take over what a reload may change while peers are connected."""
        self.headroom.reserve = directory.reserve
        self.backups.place = (
            None if directory.backup is None else BackupPlace(judge(os.fsencode(directory.backup)), own=True)
        )
        self.backups.max_age_s = directory.backup_max_age_s
        self.acceptance.kinds = frozenset(directory.accept)
        self.links.gives = self.links.takes = directory.links

    def forget_all_but(self, peers: Container[str]) -> None:
        """Forget what peers have changed here, but for these."""
        for gone in [peer for peer in self.footprints if peer not in peers]:
            del self.footprints[gone]

    @property
    def identity(self) -> Inode:
        """Which directory of the machine it is."""
        return self.found.identity

    @property
    def waiting(self) -> int:
        """How many jobs of peers wait for their turn."""
        return self.brief.waiting + self.long.waiting + self.reading.waiting

    def turns_of(self, peer: str) -> Turn:
        """The turns of that peer, on all its connections, for commands that read much."""
        return partial(self.reading.run, peer)


def serve_directories(
    directories: Mapping[str, DirectoryConfig],
    found: Mapping[str, FoundDirectory],
    threads_of: Callable[[str], RunInThread],
    clock: IReactorTime,
    watch: Callable[[str], CommitHooks],
    ledger: Ledger,
    freed: Callable[[str, bytes, int], object],
    memory: Memory,
) -> dict[str, ServedDirectory]:
    """The directories that were ``found``, by name.

    ``threads_of`` returns, for a path, what runs jobs in its threads; ``watch`` returns, for a name, the hooks of its
    commits.
    ``freed`` is called with the name of a directory, and the path and size in bytes of a partial that was removed there
    to make space.
    """
    served = {}
    one_at_work = OneAtWork(clock)
    for name, each in found.items():
        directory = directories[name]
        run_in_thread = threads_of(directory.path)
        run_in_turn = one_at_work.through(run_in_thread)
        served[name] = ServedDirectory(
            name,
            directory.path,
            each,
            Committer(run_in_turn, watch(name)),
            run_in_thread,
            run_in_turn,
            ShortJobs(run_in_turn, clock),
            Turns(LONG_JOB_THREADS, LONG_JOB_THREADS_PER_PEER),
            Turns(sys.maxsize, MAX_READING_COMMANDS),
            Headroom(run_in_thread, ledger, directory.reserve, partial(freed, name)),
            memory,
            Backups(),
            LinkPolicy(directory.links, directory.links),
            Acceptance(frozenset(directory.accept)),
        )
        served[name].configure(directory)
    return served
