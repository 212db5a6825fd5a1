"""Sources one after the other, unless the current one hangs."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class SourceTurns:
    """Lets one job run at a time, and the next one beside it once the running ones made no progress for ``patience``.

    ``patience`` is in seconds: a source whose disk hangs must not hold up the others.
    At most one job may wait.
    """

    def __init__(self, clock: IReactorTime, patience: float) -> None:
        self.clock = clock
        self.patience = patience
        self._inside = 0
        self._waiting: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None

    def acquire(self) -> Deferred[None]:
        """Fires when the next job may run."""
        self._inside += 1
        if self._inside == 1:
            return succeed(None)
        self._waiting = Deferred(self._give_up)
        self._timer = self.clock.callLater(self.patience, self._let_in)
        return self._waiting

    def release(self) -> None:
        """Say that a job has ended."""
        self._inside -= 1
        self._let_in()

    def alive(self) -> None:
        """Say that a running job makes progress."""
        if self._timer is not None:
            self._timer.reset(self.patience)

    def _let_in(self) -> None:
        waiting = self._stop_waiting()
        if waiting is not None:
            waiting.callback(None)

    def _give_up(self, _waiting: Deferred[None]) -> None:
        self._inside -= 1
        self._stop_waiting()

    def _stop_waiting(self) -> Deferred[None] | None:
        waiting, self._waiting = self._waiting, None
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        return waiting
