"""`KnownPartials`: the partials below a location, found one page at a time, and not searched for too often."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final

from twisted.internet.defer import DeferredLock

from realize.concurrency.shielded import RunInThread
from realize.errors import RealizeError
from realize.store.local.leftovers import find_partials
from realize.store.local.location import RootedLocation
from realize.store.local.walker import WalkEntry

MIN_LOOK_AGE_S: Final = 5.0
"""How long the result of a search is used at least; that of a long one is used ten times as long as it took."""


class KnownPartials:
    """The partials found by the last search, and those left since; some may be gone, or be written again."""

    def __init__(self, run_in_thread: RunInThread) -> None:
        self._run_in_thread = run_in_thread
        self._location: RootedLocation | None = None
        self._found: dict[bytes, WalkEntry] = {}
        self._until = 0.0
        self._looking = DeferredLock()

    async def on(self, location: RootedLocation, device: int) -> list[WalkEntry]:
        """Return the known partials below a location that are on that device, searching anew if that is due."""
        await self._looking.acquire()
        try:
            if self._location != location or time.monotonic() >= self._until:
                await self._look(location)
        finally:
            self._looking.release()
        return [each for each in self._found.values() if each.status is not None and each.status.st_dev == device]

    async def _look(self, location: RootedLocation) -> None:
        began = time.monotonic()
        self._location, self._found = location, {}
        finding = find_partials(location)
        try:
            while (page := await self._run_in_thread(_next_page, finding)) is not None:
                self._found.update({each.from_root: each for each in page})
        except RealizeError:
            pass  # what cannot be listed cannot be removed
        finally:
            finding.close()
        now = time.monotonic()
        self._until = now + max(MIN_LOOK_AGE_S, 10 * (now - began))

    def note(self, partial: WalkEntry) -> None:
        """Add a partial whose writer has just stopped."""
        if self._location is not None:
            self._found[partial.from_root] = partial

    def forget(self, partials: Iterable[WalkEntry]) -> None:
        """Drop partials that are about to be removed."""
        for each in partials:
            self._found.pop(each.from_root, None)


def _next_page(pages: Iterator[list[WalkEntry]]) -> list[WalkEntry] | None:
    """Return one page, in a thread, or None at the end: a Deferred cannot carry StopIteration."""
    return next(pages, None)
