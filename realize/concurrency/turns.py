"""`Turns`: work of several peers begins one piece of each after the other, however much one of them asks for.

Pure: knows no threads, only what is to be begun and what fires when it has ended.
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
"""Calls what it is given when it is the owner's turn; fires with what comes of it."""


class Rota(Generic[_T]):
    """What waits, of each owner in the order in which it came; the owners take turns."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_T]] = {}
        """Never an empty one; whose turn is next comes first."""

    def add(self, owner: str, item: _T) -> None:
        """Let something wait behind what waits of the same owner."""
        items = self._waiting.get(owner)
        if items is None:
            self._waiting[owner] = deque((item,))
        else:
            items.append(item)

    def peek(self, may: Callable[[str], bool] | None = None) -> tuple[str, _T] | None:
        """Who is next, of those who ``may`` if not all may, and with what."""
        owner = next(iter(self._waiting) if may is None else filter(may, self._waiting), None)
        return None if owner is None else (owner, self._waiting[owner][0])

    def pop(self, owner: str) -> None:
        """What is next of an owner waits no more, and the turn goes on."""
        items = self._waiting[owner]
        items.popleft()
        del self._waiting[owner]
        if items:
            self._waiting[owner] = items

    def remove(self, owner: str, item: _T) -> None:
        """Something waits no more; others keep their turns."""
        items = self._waiting.get(owner, deque[_T]())
        if item in items:
            items.remove(item)
            if not items:
                del self._waiting[owner]

    def __len__(self) -> int:
        """How much waits."""
        return sum(map(len, self._waiting.values()))


class Turns:
    """At most ``most`` pieces of work at once, ``most_each`` of them for one owner."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._rota: Rota[tuple[Deferred[Any], Callable[[], Deferred[Any]]]] = Rota()
        self._running: dict[str, int] = {}
        self._under_way = 0
        self._beginning = False

    def run(self, owner: str, work: Callable[[], Deferred[_T]]) -> Deferred[_T]:
        """Call ``work`` when it is its turn; fires with what comes of it.

        Cancelled, it fires at once, and the work is done all the same.
        """
        result: Deferred[_T] = Deferred()
        self._rota.add(owner, (result, work))
        self._go_on()
        return result

    def threads_of(self, owner: str, run_in_thread: RunInThread) -> RunInThread:
        """Runs work in a thread when it is its turn."""
        return lambda *work, **options: self.run(owner, lambda: run_in_thread(*work, **options))

    @property
    def waiting(self) -> int:
        """How much has not begun."""
        return len(self._rota)

    def _go_on(self) -> None:
        """Begin what may; if that fails, and nothing is under way that would go on, nobody waits for ever."""
        try:
            self._begin_some()
        except Exception:  # noqa: BLE001 -- whoever waits is told
            while not self._running and (found := self._rota.peek(self._may)):
                self._rota.pop(found[0])
                found[1][0].errback(Failure())

    def _begin_some(self) -> None:
        # In a loop: of thousands that end as soon as they begin, each would begin the next one inside of itself.
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
