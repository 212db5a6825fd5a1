"""`SourceWalk`: what is below a source, or a directory of it, a page at a time; each is watched before it is read.

So there is no gap: what comes into a directory after it was read causes an event.
Everything here is done in a thread, by one at a time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from attrs import define, field, frozen

from realize.by_value import ByValue
from realize.fs import names
from realize.fs.changed_elsewhere import may_change_elsewhere
from realize.fs.descriptors import release
from realize.fs.mounts import mounts_below, read_mountinfo
from realize.fs.oserrors import Deed, storage_error
from realize.fs.stamps import STAMPS
from realize.fs.tree import identity_of
from realize.leaving import Leaving
from realize.store.local.location import Root, RootedLocation
from realize.store.local.looks import unchanged_s, version_number
from realize.store.local.walker import PAGE_ENTRIES, Walker, entry_of
from realize.values import Entry, Kind
from realize.watch.settling import FoundFile


@define(eq=False, repr=False)
class WalkPage:
    """What a piece of a walk has found.

    ``entered`` are the directories, with their watches or None; ``elsewhere`` are those of them that others may change,
    so that watching is of no use; ``refused`` is why one could not be watched although it should be.
    """

    files: list[FoundFile] = field(factory=list)
    unreadable: list[tuple[bytes, str]] = field(factory=list)
    entered: list[tuple[bytes, int | None]] = field(factory=list)
    elsewhere: list[bytes] = field(factory=list)
    refused: OSError | None = None
    entries: int = 0
    """How many names were looked at."""


@frozen(eq=False, repr=False)
class Situation(ByValue):
    """Which directory a source is, and what is mounted on it and below; differs if anything of that has changed."""

    identity: tuple[int, int]
    mounts: frozenset[tuple[bytes, bytes]]


def locate_source(path: bytes) -> tuple[RootedLocation, Situation]:
    """Return the location of a source, which is an existing directory; raises `RealizeError` if it is not."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error(error, path, Deed.OPEN) from error
    try:
        identity = identity_of(os.fstat(fd))
    finally:
        release(fd)
    situation = Situation(identity, mounts_below(os.path.realpath(path), read_mountinfo()))
    return RootedLocation(Root(path, identity), ()), situation


class SourceWalk:
    """A walk that begins at ``start``, empty for the whole source.

    ``leave`` says what directories are not entered; with ``one_file_system``, those on another one are not either.

    ``accepts`` says whether a file of that path is of interest, ``accepts_size`` whether one of that size in bytes is;
    both are called in a thread.
    ``links`` says whether symlinks are found like files.
    ``add`` watches an open directory, and returns the number of the watch; None to watch nothing.
    """

    def __init__(
        self,
        location: RootedLocation,
        *,
        accepts: Callable[[bytes], bool],
        accepts_size: Callable[[int], bool],
        leave: Leaving,
        one_file_system: bool = False,
        add: Callable[[int], int] | None,
        start: bytes = b"",
        links: bool = False,
    ) -> None:
        components = names.judge(start) if start else ()
        self._walker = Walker(
            location, leave=leave, one_file_system=one_file_system, start=components, entering=self._enter
        )
        self._accepts = accepts
        self._accepts_size = accepts_size
        self._links = links
        self._add = add
        self._page = WalkPage()
        self._devices: dict[int, bool] = {}
        """Whether the files of a device may change elsewhere."""
        self.ended = False

    def read(self, page: WalkPage) -> None:
        """Add to a page what comes next; raises `RealizeError` if the source itself cannot be read."""
        self._page = page
        present = STAMPS.present()
        found = self._walker.found(PAGE_ENTRIES)
        page.entries += len(found)
        self.ended = not found
        for each in found:
            entry = entry_of(each, links=self._links)
            if entry.kind is Kind.UNREADABLE:
                page.unreadable.append((entry.path, entry.note))
            elif entry.kind in {Kind.FILE, Kind.LINK} and each.status is not None and self._is_meant(entry):
                status = each.status
                elsewhere = self._devices.get(status.st_dev, False)
                page.files.append(
                    FoundFile(
                        entry.path,
                        entry.size,
                        version_number(status),
                        0.0 if elsewhere else unchanged_s(status, present),
                        None if elsewhere else status.st_ctime,
                    )
                )

    def close(self) -> None:
        """Give up the rest."""
        self._walker.close()

    def _is_meant(self, entry: Entry) -> bool:
        return self._accepts_size(entry.size) and self._accepts(entry.path)

    def _enter(self, path: bytes, fd: int) -> None:
        watch: int | None = None
        try:
            elsewhere = self._devices[os.fstat(fd).st_dev] = may_change_elsewhere(fd)
            if elsewhere:
                self._page.elsewhere.append(path)
            elif self._add is not None:
                watch = self._add(fd)
        except OSError as error:
            if error.errno != errno.ESTALE:  # it is gone; where /proc is missing, for one, nothing can be watched
                self._page.refused = error
        self._page.entered.append((path, watch))


def read_page(walks: list[SourceWalk]) -> WalkPage:
    """Return what comes next of these walks; those that have ended are taken out."""
    page = WalkPage()
    while walks and page.entries < PAGE_ENTRIES:
        walks[-1].read(page)
        if walks[-1].ended:
            walks.pop()
    return page
