"""`NamedListing`: the files of a source that the user has named, looked up in order instead of found by a walk."""

from __future__ import annotations

import sys
from typing import Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from realize.errors import NotFound, RealizeError
from realize.mover.ancestors import ancestors
from realize.mover.interfaces import Names
from realize.store.interfaces import IListing, IStore
from realize.values import Entry, Kind

PAGE_NAMES: Final = 250
"""Names that are looked up at a time, with the directories that they are in besides."""

DIRECTORY_NOTE: Final = "directory; only files are moved by name"


@implementer(IListing)
class NamedListing:
    """Lists those of ``names`` that ``store`` has, with the directories that they are in.

    A name of a directory is listed as left, and one of nothing as unreadable, unless it was there when it was looked up
    before: then this run has moved it, before a connection was lost.
    One of nothing is listed once; a page counts as reported when the next one is asked for, so that what was looked up
    ahead when a connection was lost is listed again.
    A symlink is listed as one with ``links``, else as left; ``hard_links`` is as for a listing.
    """

    held: Final = 0

    def __init__(self, store: IStore, names: Names, *, links: bool, hard_links: bool = False) -> None:
        self.now_ns = sys.maxsize
        self._store = store
        self._names = names
        self._links = links
        self._hard_links = hard_links
        self._position = 0
        self._number = 0
        """How many names were looked up."""
        self._missing: list[int] = []
        """The numbers of those on the last page of which there is nothing."""
        self._inside: tuple[bytes, ...] = ()
        """The directories that the last name is in, the outermost first."""
        self._closed = False

    def next_page(self) -> Deferred[list[Entry]]:
        """See `IListing`."""
        return Deferred.fromCoroutine(self._next_page())

    async def _next_page(self) -> list[Entry]:
        for number in self._missing:
            self._names.note(number)
        self._missing.clear()
        while not self._closed:
            names, self._position = await self._names.read(self._position, PAGE_NAMES)
            if not names:
                break
            page = await self._page(names)
            if page:
                return page
        self.close()
        return []

    def close(self) -> None:
        """See `IListing`."""
        self._closed = True

    async def _page(self, names: list[bytes]) -> list[Entry]:
        wanted: list[tuple[bytes, bool]] = []
        """What to look up, and whether it is a name rather than a directory that one is in."""
        for name in names:
            inside = tuple(ancestors(name))
            wanted += [(each, False) for each in inside if each not in self._inside]
            self._inside = inside
            wanted.append((name, True))
        examined = await self._store.examine(
            [path for path, _ in wanted], links=self._links, hard_links=self._hard_links
        )
        self.now_ns = examined.now_ns
        page: list[Entry] = []
        for (path, named), found in zip(wanted, examined.entries, strict=True):
            if named:
                entry = self._named(path, found)
                page += [] if entry is None else [entry]
            elif isinstance(found, Entry) and found.kind is Kind.DIRECTORY:
                page.append(found)
        return page

    def _named(self, path: bytes, found: Entry | RealizeError) -> Entry | None:
        number, self._number = self._number, self._number + 1
        if isinstance(found, NotFound):
            if self._names.known(number):
                return None
            self._missing.append(number)
            return Entry(path, Kind.UNREADABLE, note=_reason(found))
        self._names.note(number)
        if isinstance(found, RealizeError):
            return Entry(path, Kind.UNREADABLE, note=_reason(found))
        if found.kind is Kind.DIRECTORY:
            return Entry(path, Kind.LEFT, note=DIRECTORY_NOTE)
        return found


def _reason(error: RealizeError) -> str:
    """What is wrong, without the name that the entry has."""
    return str(error).rpartition(": ")[2]
