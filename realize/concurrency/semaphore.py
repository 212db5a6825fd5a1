"""`FairSemaphore`: so many at a time, for each peer in order of coming; the peers take turns."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from realize.concurrency.turns import Rota


class FairSemaphore:
    """Places for at most ``places`` at once; whoever wants more than that waits until all are free."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0
        self._waiting: Rota[tuple[int, Deferred[None]]] = Rota()

    async def enter(self, count: int, owner: str = "") -> None:
        """Wait for so many places, and take them."""
        if self._waiting or not self._fits(count):

            def give_up(turn: Deferred[None]) -> None:
                """Nobody waits for it any more: no place is kept for it, and it keeps nobody out."""
                self._waiting.remove(owner, (count, turn))
                self._let_in()

            turn: Deferred[None] = Deferred(give_up)
            self._waiting.add(owner, (count, turn))
            await turn
        else:
            self._taken += count

    def leave(self, count: int) -> None:
        """Give so many places back."""
        self._taken -= count
        self._let_in()

    def _let_in(self) -> None:
        while (found := self._waiting.peek()) and self._fits(found[1][0]):
            owner, (count, turn) = found
            self._waiting.pop(owner)
            self._taken += count
            turn.callback(None)

    def _fits(self, count: int) -> bool:
        return not self._taken or self._taken + count <= self._places
