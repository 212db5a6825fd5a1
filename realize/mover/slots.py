"""Slots for jobs, of which there are as many as somebody says at the moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred, succeed


class VaryingSlots:
    """Lets a job run beside others if ``may_begin`` says so; it is asked whenever one is to start, or has ended.

    It is given how many run, and how large they are with the new one, together.
    When it allows less, those that run go on, and none starts until it may.
    Who waits is served in order, and may be cancelled.
    """

    def __init__(self, may_begin: Callable[[int, int], bool]) -> None:
        self._may_begin = may_begin
        self._taken = self._size = 0
        self._waiting: deque[tuple[Deferred[None], int]] = deque()

    def for_size(self, size: int) -> SizedSlots:
        """The same slots, for a job of that size."""
        return SizedSlots(self, size)

    def acquire(self, size: int = 0) -> Deferred[None]:
        """Take a slot; fires when there is one."""
        if not self._waiting and self._may_begin(self._taken, self._size + size):
            self._take(size)
            return succeed(None)
        turn: Deferred[None] = Deferred(lambda turn: self._waiting.remove((turn, size)))
        self._waiting.append((turn, size))
        return turn

    def release(self, size: int = 0) -> None:
        """Give a slot back."""
        self._taken -= 1
        self._size -= size
        while self._waiting and self._may_begin(self._taken, self._size + self._waiting[0][1]):
            turn, wanted = self._waiting.popleft()
            self._take(wanted)
            turn.callback(None)

    def _take(self, size: int) -> None:
        self._taken += 1
        self._size += size


@frozen(eq=False, repr=False)
class SizedSlots:
    """Slots for jobs of one size."""

    slots: VaryingSlots
    size: int

    def acquire(self) -> Deferred[None]:
        """See `VaryingSlots`."""
        return self.slots.acquire(self.size)

    def release(self) -> None:
        """See `VaryingSlots`."""
        self.slots.release(self.size)
