"""Looking at named files below a location: what is there, how long it has been unchanged, and whether it is written to.

The answer has the `realize.values.Entry` that `realize.store.local.walker.Walker` would list.
Everything here is done in a thread; no symlink below the root is followed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from attrs import frozen

from realize.by_value import ByValue
from realize.errors import BadName, Conflict, NotFound, RealizeError
from realize.fs import names
from realize.fs.changed_elsewhere import may_change_elsewhere
from realize.fs.descriptors import release
from realize.fs.stamps import STAMPS, Present, Stamps
from realize.fs.syscalls import is_open_for_writing
from realize.fs.tree import Tree
from realize.store.local.location import RootedLocation
from realize.store.local.versions import READ_FLAGS
from realize.store.local.walker import WalkEntry, entry_of, examine, reason_of
from realize.values import Entry, Kind


@frozen(eq=False, repr=False)
class FileLook(ByValue):
    """What was seen under a name.

    ``entry`` is None if there is nothing, or nothing that is ever moved.
    ``version`` is a number that another version of the file hardly has.
    ``unchanged_s`` is for how many seconds at least the file has been what it is; 0.0 where its times prove nothing.
    ``written`` says that a program has it open for writing, as far as the kernel tells.
    ``above`` are the directories that it is in, the outermost first, below the location.
    """

    path: bytes
    entry: Entry | None
    version: int = 0
    unchanged_s: float = 0.0
    written: bool = False
    above: tuple[Entry, ...] = ()


def version_number(status: os.stat_result) -> int:
    """Return a number that another version of a file hardly has, to remember instead of a `realize.values.Version`."""
    return hash((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


def unchanged_s(status: os.stat_result, present: Present) -> float:
    """Return for how many seconds a file was unchanged at that instant, by its change time; 0.0 if that proves none."""
    return max(0, present.age_ns(status.st_ctime_ns)) / 1e9


class Looking:
    """One batch of looks, in one thread: directories are opened, and their file systems are asked for, once each."""

    def __init__(self, location: RootedLocation, stamps: Stamps = STAMPS, *, links: bool = False) -> None:
        """With ``links``, symlinks are looked at as they are; else they are never moved."""
        self._location = location
        self._links = links
        self._stamps = stamps
        self._elsewhere: dict[int, bool] = {}
        self._above: dict[tuple[bytes, ...], tuple[Entry, ...]] = {(): ()}

    def at(self, paths: Sequence[bytes]) -> list[FileLook]:
        """FileLook at each of these; raises an error if the location itself cannot be reached."""
        # Read before any file is looked at, so that no file seems to be older than it is.
        present = self._stamps.present()
        with self._location.tree() as tree:
            return [self._look(tree, path, present) for path in paths]

    def _look(self, tree: Tree, path: bytes, present: Present) -> FileLook:
        if self._location.is_own(path):
            return FileLook(path, None)
        try:
            directory, name = self._location.split(path)
        except BadName as error:
            return FileLook(path, Entry(path, Kind.UNREADABLE, note=reason_of(error)))
        try:
            directory_fd = tree.directory(directory)
        except (NotFound, Conflict, BadName):  # what led there is no directory any more, perhaps a symlink
            return FileLook(path, None)
        except RealizeError as error:
            return FileLook(path, Entry(path, Kind.UNREADABLE, note=reason_of(error)))
        found = examine(directory_fd, directory, name, path)
        if found is None:
            return FileLook(path, None)
        entry = entry_of(found, links=self._links)
        if entry.kind is Kind.LEFT:
            return FileLook(path, None)
        try:
            above = self._entries_above(tree, directory)
            if entry.kind not in {Kind.FILE, Kind.LINK} or found.status is None:
                return FileLook(path, entry, above=above)
            return self._file(tree.directory(directory), found, entry, above, present)
        except (OSError, RealizeError):  # it was moved away meanwhile
            return FileLook(path, None)

    def _file(
        self, directory_fd: int, found: WalkEntry, entry: Entry, above: tuple[Entry, ...], present: Present
    ) -> FileLook:
        assert found.status is not None  # noqa: S101 -- for the type checker
        age_s = 0.0 if self._is_elsewhere(directory_fd, found.status) else unchanged_s(found.status, present)
        written = entry.kind is Kind.FILE and _is_written(directory_fd, found.name)
        return FileLook(found.path, entry, version_number(found.status), age_s, written, above)

    def _is_elsewhere(self, directory_fd: int, status: os.stat_result) -> bool:
        elsewhere = self._elsewhere.get(status.st_dev)
        if elsewhere is None:
            try:
                elsewhere = may_change_elsewhere(directory_fd)
            except OSError:
                elsewhere = True
            self._elsewhere[status.st_dev] = elsewhere
        return elsewhere

    def _entries_above(self, tree: Tree, directory: tuple[bytes, ...]) -> tuple[Entry, ...]:
        below = directory[len(self._location.base) :]
        known = self._above.get(below)
        if known is None:
            path = names.join(below)
            status = os.fstat(tree.directory(directory))
            itself = entry_of(WalkEntry(path, directory[:-1], below[-1], status))
            known = self._above[below] = (*self._entries_above(tree, directory[:-1]), itself)
        return known


def _is_written(directory_fd: int, name: bytes) -> bool:
    """Return whether a program has that regular file open for writing, or has a lease on it that keeps us out."""
    try:
        fd = os.open(name, READ_FLAGS, dir_fd=directory_fd)
    except OSError as error:
        return error.errno == errno.EAGAIN
    try:
        return is_open_for_writing(fd)
    finally:
        release(fd)
