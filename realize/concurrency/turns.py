"""`Turns`: pieces of work of several peers begin in turns, one of each, however many one peer asks for.

Pure: it knows nothing of threads, only functions to call and the Deferreds that they return.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from realize.concurrency.shielded import RunInThread

_T = TypeVar("_T")

Turn = Callable[[Callable[[], Deferred[Any]]], Deferred[Any]]
"""Calls a function when it is the owner's turn, and returns a Deferred for its result."""


class Rota(Generic[_T]):
    """Round-robin queue: the items of each owner in order of arrival; the owners take turns."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_T]] = {}
        """In the order of turns; no queue is empty."""

    def add(self, owner: str, item: _T) -> None:
        """Append an item to those of its owner."""
        items = self._waiting.get(owner)
        if items is None:
            self._waiting[owner] = deque((item,))
        else:
            items.append(item)

    def peek(self, may: Callable[[str], bool] | None = None) -> tuple[str, _T] | None:
        """Return the next owner, among those for which ``may`` is true, and its item; None if nothing waits."""
        owner = next(iter(self._waiting) if may is None else filter(may, self._waiting), None)
        return None if owner is None else (owner, self._waiting[owner][0])

    def pop(self, owner: str) -> None:
        """Remove the first item of an owner, and put the owner last in turn."""
        items = self._waiting[owner]
        items.popleft()
        del self._waiting[owner]
        if items:
            self._waiting[owner] = items

    def remove(self, owner: str, item: _T) -> None:
        """Remove an item if it waits; the turns of others do not change."""
        items = self._waiting.get(owner, deque[_T]())
        if item in items:
            items.remove(item)
            if not items:
                del self._waiting[owner]

    def __len__(self) -> int:
        """Number of items."""
        return sum(map(len, self._waiting.values()))


class Turns:
    """Runs at most ``most`` pieces of work at once, at most ``most_each`` of them for one owner."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._rota: Rota[tuple[Deferred[Any], Callable[[], Deferred[Any]]]] = Rota()
        self._running: dict[str, int] = {}
        self._under_way = 0
        self._beginning = False

    def run(self, owner: str, work: Callable[[], Deferred[_T]]) -> Deferred[_T]:
        """Call ``work`` when it is its turn; the Deferred fires with its result.

        If it is cancelled, it fires at once, but the work is done all the same.
        """
        result: Deferred[_T] = Deferred()
        self._rota.add(owner, (result, work))
        self._go_on()
        return result

    def threads_of(self, owner: str, run_in_thread: RunInThread) -> RunInThread:
        """Return a function that runs work in a thread when it is the turn of ``owner``."""
        return lambda *work, **options: self.run(owner, lambda: run_in_thread(*work, **options))

    @property
    def waiting(self) -> int:
        """Number of pieces of work that have not begun."""
        return len(self._rota)

    def _go_on(self) -> None:
        """Begin what may begin.

        If that fails while nothing is running, whose end would call this again, the waiting work fails, so that nobody
        waits for ever.
        """
        try:
            self._begin_some()
        except Exception:  # noqa: BLE001 -- the callers are told
            while not self._running and (found := self._rota.peek(self._may)):
                self._rota.pop(found[0])
                found[1][0].errback(Failure())

    def _begin_some(self) -> None:
        # A loop instead of recursion: thousands of pieces may end as soon as they begin.
        if self._beginning:
            return
        self._beginning = True
        try:
            while self._under_way < self._most and (found := self._rota.peek(self._may)):
                owner, (result, work) = found
                self._running[owner] = self._running.get(owner, 0) + 1
                self._under_way += 1
                self._rota.pop(owner)
                maybeDeferred(work).addBoth(self._end, owner).chainDeferred(result)
        finally:
            self._beginning = False

    def _may(self, owner: str) -> bool:
        return self._running.get(owner, 0) < self._most_each

    def _end(self, outcome: _T, owner: str) -> _T:
        self._under_way -= 1
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]
        self._go_on()
        return outcome
