"""Which of the directories of a daemon are there: they may be absent from the start, go, and come back.

All are looked at again and again, whether they are there or not.
A directory that is there is known by its identity (device and inode).
One that comes back as another directory is taken up if its file system is mounted where that of the former was, or
below that; else its disk is gone, and what is there is the mount point, where nothing may be written.

Invariants: of one directory there is one look at a time, so a disk that hangs keeps one thread; the log tells when a
directory goes and when it comes, and nothing in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from realize.by_value import ByValue
from realize.config import DirectoryConfig
from realize.daemon.looks import SILENT, FoundDirectory, Missing, Sight
from realize.errors import ConfigError
from realize.fs.mounts import is_at_or_below
from realize.logger import Logger
from realize.store.local.location import ANOTHER_IN_ITS_PLACE

LOOK_INTERVAL_S: Final = 5.0
"""Time between two looks while all directories are there."""

ABSENT_LOOK_INTERVAL_S: Final = 2.0
"""The same while one is absent."""

SILENT_AFTER_S: Final = 30.0
"""A disk that was well hangs if a look has taken so long; a busy one may take some seconds."""

_TAKEN: Final = Missing("another service in the same process serves it")

CHANGED: Final = Missing(ANOTHER_IN_ITS_PLACE)


@frozen(eq=False, repr=False)
class Absence(ByValue):
    """That a directory is not there, or that its disk hangs."""

    why: str
    hangs: bool
    since: float
    """Seconds on the clock of the reactor."""


@define(eq=False, repr=False)
class Availability:
    """Knows which directories are there; ``look`` begins a look at one.

    ``take_up`` is called with the name of a directory, and what was found, when that is to be served from now on; it
    raises `ConfigError` if it cannot be.
    """

    clock: IReactorTime
    log: Logger
    look: Callable[[DirectoryConfig], Deferred[Sight]]
    take_up: Callable[[str, FoundDirectory], object]
    _directories: Mapping[str, DirectoryConfig] = field(factory=dict, init=False)
    _served: dict[str, FoundDirectory] = field(factory=dict, init=False)
    """What each directory was when it was taken up, by name."""
    _absent: dict[str, Absence] = field(factory=dict, init=False)
    _asked: dict[tuple[str, str], float] = field(factory=dict, init=False)
    """When the look began that has not ended, by name and path: two names may have one path, a name later another."""
    _next: IDelayedCall | None = field(default=None, init=False)

    @property
    def absent(self) -> Mapping[str, Absence]:
        """The directories that cannot be asked for now, by name."""
        return MappingProxyType({name: each for name, each in self._absent.items() if self._is_refused(name)})

    def why_refused(self, name: str) -> str | None:
        """Why a directory cannot be asked for now; None if it can.

        One that is served, and whose disk hangs, can: it may answer at any moment.
        """
        return self._absent[name].why if self._is_refused(name) else None

    def rows(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """A row for each of these directories for `realize.daemon.status`: whether it is there, since when not, why."""
        rows: list[dict[str, Any]] = []
        for name in sorted(names):
            known = self._absent.get(name)
            since = None if known is None else round(self.clock.seconds() - known.since, 1)
            rows.append(
                {
                    "name": name,
                    "available": not self._is_refused(name),
                    "absent": since,
                    "error": "" if known is None else known.why,
                }
            )
        return rows

    def watch(
        self,
        directories: Mapping[str, DirectoryConfig],
        served: Mapping[str, FoundDirectory],
        seen: Mapping[str, Sight],
    ) -> None:
        """From now on, watch ``directories``, of which those are ``served``; ``seen`` is what the last looks saw."""
        self.stop()
        self._directories, self._served = directories, dict(served)
        self._absent = {name: each for name, each in self._absent.items() if name in directories}
        for name, sight in seen.items():
            if isinstance(sight, Missing):
                self._went(name, sight)
            else:
                self._came(name)
        self._wait()

    def stop(self) -> None:
        """Look no more."""
        upcoming, self._next = self._next, None
        if upcoming is not None and upcoming.active():
            upcoming.cancel()

    def _wait(self) -> None:
        delay = ABSENT_LOOK_INTERVAL_S if self._absent else LOOK_INTERVAL_S
        self._next = self.clock.callLater(delay, self._look_at_all)

    def _look_at_all(self) -> None:
        now = self.clock.seconds()
        self._wait()
        for name, directory in self._directories.items():
            began = self._asked.get((name, directory.path))
            if began is None:
                self._asked[name, directory.path] = now
                self.look(directory).addCallback(self._saw, name, directory)
            elif now - began >= SILENT_AFTER_S:
                self._went(name, SILENT)

    def _saw(self, sight: Sight, name: str, directory: DirectoryConfig) -> None:
        self._asked.pop((name, directory.path), None)
        if self._next is None or self._directories.get(name) is not directory:
            return  # it is over, or the configuration is another one by now
        served = self._served.get(name)
        if isinstance(sight, FoundDirectory) and served is not None and not comes_back(served, sight):
            sight = CHANGED
        if isinstance(sight, FoundDirectory) and (served is None or sight.identity != served.identity):
            try:
                self.take_up(name, sight)
            except ConfigError:
                sight = _TAKEN
            else:
                self._served[name] = sight
        if isinstance(sight, Missing):
            self._went(name, sight)
        else:
            self._came(name)

    def _went(self, name: str, missing: Missing) -> None:
        known = self._absent.get(name)
        if known is None or (known.why, known.hangs) != (missing.why, missing.hangs):
            since = self.clock.seconds() if known is None else known.since
            self._absent[name] = Absence(missing.why, missing.hangs, since)
            if missing.hangs:
                self.log.error("directory_hangs", dir=name, served=name in self._served)
            else:
                self.log.error("directory_absent", dir=name, path=self._directories[name].path, error=missing.why)

    def _came(self, name: str) -> None:
        known = self._absent.pop(name, None)
        if known is not None:
            self.log.info("directory_available", dir=name, seconds=round(self.clock.seconds() - known.since, 3))

    def _is_refused(self, name: str) -> bool:
        known = self._absent.get(name)
        return known is not None and not (known.hangs and name in self._served)


def is_unmounted(served: FoundDirectory, found: FoundDirectory) -> bool:
    """Whether what was found is in the place of what was served because its file system is not mounted any more."""
    known = served.mount is not None and found.mount is not None
    return found.identity != served.identity and known and not _is_mounted(served, found)


def may_be_mounted(served: FoundDirectory, directory: DirectoryConfig) -> bool:
    """Whether what was served may be what ``directory`` says now, as it is not there: not if it was mounted elsewhere.

    Else it is the mount point, of a daemon that was not told of the mount when it began to serve that.
    """
    expected = directory.mount
    return expected is None or (served.mount is not None and is_at_or_below(served.mount, os.fsencode(expected)))


def comes_back(served: FoundDirectory, found: FoundDirectory) -> bool:
    """Whether what was found is the directory that was served, or is in its place on a disk that is mounted there."""
    return found.identity == served.identity or _is_mounted(served, found)


def _is_mounted(served: FoundDirectory, found: FoundDirectory) -> bool:
    return served.mount is not None and found.mount is not None and is_at_or_below(found.mount, served.mount)
