"""One after the other, as long as the one whose turn it is gets on."""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime


@define(eq=False)
class SourceTurns:
    """Lets one job in at a time, and the next one beside it when nobody has shown a sign of life for long.

    ``patience`` is how many seconds that is: a disk that hangs must not keep others from their work.
    At most one may wait.
    """

    clock: IReactorTime
    patience: float
    _inside: int = 0
    _waiting: Deferred[None] | None = None
    _timer: IDelayedCall | None = None

    def acquire(self) -> Deferred[None]:
        """Fires when it is the turn of the next job."""
        self._inside += 1
        if self._inside == 1:
            return succeed(None)
        self._waiting = Deferred(self._give_up)
        self._timer = self.clock.callLater(self.patience, self._let_in)
        return self._waiting

    def release(self) -> None:
        """A job has ended."""
        self._inside -= 1
        self._let_in()

    def alive(self) -> None:
        """Somebody who is inside gets on."""
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
