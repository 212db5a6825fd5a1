"""`Coalesced`: work that is asked for again and again, of which one at a time is done, and one waits at most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred


class Coalesced:
    """Does ``work`` when it is asked for; however often that is while it is at it, it is done once more after that.

    So the last request is followed by work that began after it.
    """

    def __init__(self, work: Callable[[], Deferred[Any]]) -> None:
        self._work = work
        self._busy = False
        self._wanted = False

    def request(self) -> None:
        """Begin now, or when the work that is being done has ended, whatever came of it."""
        self._wanted = True
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        self._wanted, self._busy = False, True
        self._work().addBoth(self._ended)

    def _ended(self, result: object) -> object:
        self._busy = False
        if self._wanted:
            self._begin()
        return result
