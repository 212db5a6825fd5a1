"""`FairSemaphore`: a weighted semaphore; each owner is served in order of arrival, and owners take turns."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from realize.concurrency.turns import Rota


class FairSemaphore:
    """Has ``capacity`` slots; a request for more than that waits until all of them are free."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._taken = 0
        self._waiting: Rota[tuple[int, Deferred[None]]] = Rota()

    async def acquire(self, count: int, owner: str = "") -> None:
        """Wait for ``count`` free slots, and take them; may be cancelled while it waits."""
        if self._waiting or not self._fits(count):

            def give_up(turn: Deferred[None]) -> None:
                """Withdraw a cancelled request, so that it does not hold up others."""
                self._waiting.remove(owner, (count, turn))
                self._serve()

            turn: Deferred[None] = Deferred(give_up)
            self._waiting.add(owner, (count, turn))
            await turn
        else:
            self._taken += count

    def release(self, count: int) -> None:
        """Give ``count`` slots back."""
        self._taken -= count
        self._serve()

    def _serve(self) -> None:
        while (found := self._waiting.peek()) and self._fits(found[1][0]):
            owner, (count, turn) = found
            self._waiting.pop(owner)
            self._taken += count
            turn.callback(None)

    def _fits(self, count: int) -> bool:
        return not self._taken or self._taken + count <= self._capacity
