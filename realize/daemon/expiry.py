"""Remove partials that were abandoned for too long, and count the others.

Directories are checked concurrently, each in its own threads, so that one whose disk hangs does not hold up the others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Final

from attrs import define, field
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from realize.daemon.served import ServedDirectory
from realize.logger import Logger
from realize.store.local.backups import expire_backups
from realize.store.local.expiry import expire_partials, next_step
from realize.store.local.location import RootedLocation, locate
from realize.units import display_name

FIRST_EXPIRY_S: Final = 60.0
"""Delay before the first check."""

EXPIRY_INTERVAL_S: Final = 3600.0
"""Time between two checks."""


@define(eq=False, repr=False)
class Partials:
    """What the last check found in a directory, and how many partials were removed from it since the start."""

    files: int = 0
    size: int = 0
    """Bytes."""
    counted_at: float | None = None
    """Seconds since the epoch; None before the first check has ended."""
    expired: int = 0
    expired_size: int = 0


@define(eq=False, repr=False)
class Housekeeping:
    """Checks all directories once an hour, or more often if partials expire sooner; a page at a time, in a thread."""

    clock: IReactorTime
    log: Logger
    partials: dict[str, Partials] = field(factory=dict, init=False)
    """By directory name."""
    _directories: Mapping[str, ServedDirectory] = field(factory=dict, init=False)
    _max_age: float = field(default=0.0, init=False)
    _next: IDelayedCall | None = field(default=None, init=False)
    _stopped: bool = field(default=True, init=False)
    _checking: set[str] = field(factory=set, init=False)

    def start(self, directories: Mapping[str, ServedDirectory], max_age: float) -> None:
        """From now on, remove partials older than ``max_age`` seconds from these directories."""
        self._directories, self._max_age = directories, max_age
        self.partials = {name: found for name, found in self.partials.items() if name in directories}
        if self._stopped:
            self._stopped = False
            self._next = self.clock.callLater(min(FIRST_EXPIRY_S, max_age), self._check)

    def stop(self) -> None:
        """Stop; a check under way ends after its current step."""
        self._stopped = True
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _check(self) -> None:
        self._next = self.clock.callLater(min(EXPIRY_INTERVAL_S, self._max_age), self._check)
        for name, directory in self._directories.items():
            if name not in self._checking:  # else the previous check goes on: it is very large, or hangs
                self._checking.add(name)
                ensureDeferred(self._check_directory(name, directory))

    async def _check_directory(self, name: str, directory: ServedDirectory) -> None:
        try:
            await self._expire(name, directory)
        except Exception as error:  # noqa: BLE001 -- must not affect the other directories, nor the next check
            self.log.warning("expiry_failed", dir=name, error=str(error) or repr(error))
        finally:
            self._checking.discard(name)

    async def _expire(self, name: str, directory: ServedDirectory) -> None:
        known = self.partials.setdefault(name, Partials())
        files = size = 0
        # Whatever else is at the path, where the disk of the directory is gone, is not ours.
        location = locate(os.fsencode(directory.path), b"", directory.identity, name.encode())
        removing = expire_partials(location, int(self._max_age * 1e9), directory.committer.stamps.present())
        try:
            while not self._stopped and (step := await directory.run_in_thread(next_step, removing)) is not None:
                files += step.partials
                size += step.size
                for path, removed in step.removed:
                    known.expired += 1
                    known.expired_size += removed
                    self.log.info("partial_expired", dir=name, path=display_name(path), size=removed)
        finally:
            removing.close()
        await self._expire_backups(name, directory, location)
        if not self._stopped:
            known.files, known.size, known.counted_at = files, size, time.time()

    async def _expire_backups(self, name: str, directory: ServedDirectory, location: RootedLocation) -> None:
        """Remove the backups of a directory that are too old, if it says when they are."""
        place, max_age_s = directory.backups.place, directory.backups.max_age_s
        if place is None or max_age_s is None:
            return
        removing = expire_backups(location, place, int(max_age_s * 1e9), directory.committer.stamps.present())
        try:
            while not self._stopped and (removed := await directory.run_in_thread(next, removing, None)) is not None:
                for path, size in removed:
                    self.log.info("backup_expired", dir=name, path=display_name(path), size=size)
        finally:
            removing.close()
