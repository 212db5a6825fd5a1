"""`LocalListing`: runs the walker in a thread, one page at a time."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from realize.concurrency.shielded import RunInThread, shielded
from realize.store.interfaces import IListing
from realize.store.local.walker import Walker
from realize.values import Entry


@implementer(IListing)
class LocalListing:
    """The entries below a local location."""

    def __init__(
        self,
        walker: Walker,
        run_in_thread: RunInThread,
        on_closed: Callable[[LocalListing], None],
        now_ns: Callable[[], int],
    ) -> None:
        self.now_ns = now_ns()
        self._read_clock = now_ns
        self._walker = walker
        self._run_in_thread = run_in_thread
        self._on_closed = on_closed
        self._busy = False
        self._closed = False

    @property
    def held(self) -> int:
        """Approximate number of bytes kept in memory between two pages."""
        return self._walker.held

    @shielded
    async def next_page(self) -> list[Entry]:
        """Return the next entries; an empty list is the end."""
        if self._closed:
            return []
        self._busy = True
        try:
            page: list[Entry] = await self._run_in_thread(self._page)
        finally:
            self._busy = False
            if self._closed:
                self._walker.close()
        if not page:
            self.close()
        return page

    def _page(self) -> list[Entry]:
        if self._closed:  # while waiting for the thread
            return []
        page = self._walker.page()
        self.now_ns = self._read_clock()
        return page

    def close(self) -> None:
        """Give up the rest, once the thread that is reading has returned."""
        self._closed = True
        self._on_closed(self)
        if not self._busy:
            self._walker.close()
