"""A gate that opens once for all who wait before it."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure


class Gate:
    """Opens when ``opening`` succeeds; if that fails, so does who waits.

    Who waits may be cancelled.
    """

    def __init__(self, opening: Deferred[None]) -> None:
        self._opening = opening
        self._outcome: Failure | bool | None = None
        """Whether it has opened, or why it never will; None until that is known."""
        self._waiting: list[Deferred[None]] = []
        opening.addCallback(self._opened).addErrback(self._failed)

    def passed(self) -> Deferred[None]:
        """Fires when the gate is open."""
        if isinstance(self._outcome, Failure):
            return fail(self._outcome)
        if self._outcome:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def abandon(self) -> None:
        """Cancel what was to open it, if that is under way; who waits then is for others to cancel."""
        if self._outcome is None:
            self._outcome = False
            self._opening.cancel()

    def _opened(self, _: None) -> None:
        if self._outcome is None:
            self._outcome = True
            while self._waiting:
                self._waiting.pop(0).callback(None)

    def _failed(self, failure: Failure) -> None:
        """Tell who still waits, also where it was not the opening that failed but to tell of it."""
        if self._outcome is not False:
            self._outcome = failure
            while self._waiting:
                self._waiting.pop(0).errback(failure)
