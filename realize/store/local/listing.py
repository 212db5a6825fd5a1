"""`LocalListing`: the walker, a page at a time in a thread."""

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
        """Bytes that are remembered between two pages."""
        return self._walker.held

    @shielded
    async def next_page(self) -> list[Entry]:
        """The next entries; empty at the end."""
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
        if self._closed:  # while it waited for the thread
            return []
        page = self._walker.page()
        self.now_ns = self._read_clock()
        return page

    def close(self) -> None:
        """Give up the rest, when the thread that is reading has come back."""
        self._closed = True
        self._on_closed(self)
        if not self._busy:
            self._walker.close()
