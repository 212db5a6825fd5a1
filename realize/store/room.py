"""`Room`: so many at a time, in order of coming."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred


class Room:
    """Places for at most ``places`` at once; whoever wants more than that waits until all are free."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()

    async def enter(self, count: int) -> None:
        """Wait for so many places, and take them."""
        if self._waiting or not self._fits(count):
            turn: Deferred[None] = Deferred(self._given_up)
            self._waiting.append((count, turn))
            await turn
        else:
            self._taken += count

    def leave(self, count: int) -> None:
        """Give so many places back."""
        self._taken -= count
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            count, turn = self._waiting.popleft()
            self._taken += count
            turn.callback(None)

    def _given_up(self, turn: Deferred[None]) -> None:
        """Nobody waits for it any more: no place is kept for it, and it keeps nobody out."""
        self._waiting = deque(each for each in self._waiting if each[1] is not turn)
        self._let_in()

    def _fits(self, count: int) -> bool:
        return not self._taken or self._taken + count <= self._places
