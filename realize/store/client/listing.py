"""The listing of a directory at the other end of a connection: pages that are asked for ahead.

A peer that lists without end, or what it was not asked for, is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from realize.concurrency.shielded import cancellable
from realize.errors import ProtocolError, RealizeError, ignore_expected
from realize.store.interfaces import IListing
from realize.values import Entry, Kind
from realize.wire import commands
from realize.wire.connection import PeerProtocol

UNASKED_IDENTITIES: Final = "the peer tells identities of files that it was not asked for"
"""Of a listing, and of files that are looked up by their names."""

MAX_PAGES_AHEAD: Final = 3
"""Pages of a listing that are asked for ahead at most; the peer counts 4 MiB for each."""

PAGE_S: Final = 0.05
"""Seconds that it takes to work off a page, about."""

MAX_LISTED_ENTRIES: Final = 1 << 28
"""Most entries of one listing: more than any usable directory has, so a peer's endless listing ends here."""


@implementer(IListing)
class RemoteListing:
    """Requests the next page while the last one is being processed, over a long link some more."""

    held = 0

    def __init__(
        self,
        protocol: PeerProtocol,
        handle: int,
        *,
        partials: bool,
        avoid: bytes,
        leave: Sequence[bytes],
        one_file_system: bool,
        links: bool,
        hard_links: bool,
    ) -> None:
        self._protocol = protocol
        self._listing = protocol.choose_listing()
        self._question = {"handle": handle, "listing": self._listing, "partials": partials, "avoid": avoid}
        self._first: dict[str, Any] = {
            "leave": list(leave) or None,
            "one_file_system": one_file_system or None,
            "links": links or None,
            "hard_links": hard_links or None,
        }
        """What only the first question says."""
        theirs = protocol.theirs
        self._further: dict[str, Any] = (
            {"further": True} if theirs is not None and commands.WALK_AHEAD in theirs.capabilities else {}
        )
        """What the others say, if the peer lets several of them wait."""
        self._links = links
        self._hard_links = hard_links
        self._ahead: deque[Deferred[dict[str, Any]]] = deque()
        self.now_ns = 0
        self._started = False
        self._ended = False
        self._listed = 0

    @cancellable
    async def next_page(self) -> list[Entry]:
        """See `IListing`."""
        while not self._ended:
            asked = self._ahead.popleft() if self._ahead else self._ask()
            try:
                answer = await asked
            except RealizeError:
                self._end()
                raise
            self._listed += len(answer["entries"])
            if answer["more"] and not answer["entries"]:
                self.close()
                raise ProtocolError("the peer sends empty pages of a listing without end")
            if not self._links and any(entry.kind is Kind.LINK for entry in answer["entries"]):
                self.close()
                raise ProtocolError("the peer lists symlinks that it was not asked for")
            if not self._hard_links and any(entry.identity for entry in answer["entries"]):
                self.close()
                raise ProtocolError(UNASKED_IDENTITIES)
            if self._listed > MAX_LISTED_ENTRIES:
                self.close()
                raise ProtocolError(f"the peer lists more than {MAX_LISTED_ENTRIES:,} names")
            if not answer["more"]:
                self._end()
            while not self._ended and len(self._ahead) < self._pages_ahead():
                self._ahead.append(self._ask())
            self.now_ns = answer["now"]
            if answer["entries"]:
                return list(answer["entries"])
        return []

    def _pages_ahead(self) -> int:
        """How many pages to ask for ahead: all of them wait for a round trip, and a page is worked off in less."""
        if not self._further:
            return 1
        return min(MAX_PAGES_AHEAD, 1 + int((self._protocol.round_trip.look() or 0.0) / PAGE_S))

    def _ask(self) -> Deferred[dict[str, Any]]:
        first, self._first = self._first, self._further
        self._started = True
        asked = self._protocol.call(commands.Walk, patient=True, **self._question, **first)
        # A page requested ahead may fail before anybody waits for it: then the error is kept until somebody does.
        held = Deferred[dict[str, Any]]()
        asked.addCallbacks(held.callback, held.errback)
        return held

    def _end(self) -> None:
        self._ended = True
        while self._ahead:
            self._ahead.popleft().addErrback(ignore_expected)

    def close(self) -> None:
        """See `IListing`."""
        if self._ended:
            return
        self._end()
        if self._started and not self._protocol.lost:
            self._protocol.call(commands.EndWalk, listing=self._listing).addErrback(ignore_expected)
