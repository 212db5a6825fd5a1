"""Slots for jobs, of which there are as many as somebody says at the moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed


class VaryingSlots:
    """Lets ``limit()`` jobs run at once; it is asked whenever one is to start, or has ended.

    When it falls, those that run go on, and none starts until fewer do.
    Who waits is served in order, and may be cancelled.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._taken = 0
        self._waiting: deque[Deferred[None]] = deque()

    def acquire(self) -> Deferred[None]:
        """Take a slot; fires when there is one."""
        if not self._waiting and self._taken < self._limit():
            self._taken += 1
            return succeed(None)
        turn: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(turn)
        return turn

    def release(self) -> None:
        """Give a slot back."""
        self._taken -= 1
        while self._waiting and self._taken < self._limit():
            self._taken += 1
            self._waiting.popleft().callback(None)
