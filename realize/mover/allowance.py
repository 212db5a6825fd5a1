"""How much content a run may still send; see ``--max-transfer``."""

from __future__ import annotations

from twisted.internet.defer import Deferred


class Spent(Exception):
    """Nothing more of a file may be sent in this run; never leaves the mover."""


class Allowance:
    """The bytes of content that may be sent, divided among the files in flight.

    Whoever sends reserves first, and gives back what was not needed, so what is sent is never more than the limit.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes
        self._reserved = 0
        """Bytes that are reserved, and neither sent nor given back."""
        self._waiting: list[Deferred[None]] = []

    def take(self, wanted: int) -> int:
        """Reserve up to so many bytes, as many as are left now; returns how many."""
        taken = min(wanted, self._left)
        self._left -= taken
        self._reserved += taken
        return taken

    async def reserve(self, wanted: int) -> int:
        """The same, but if none are left, wait for what others may give back; 0 if none do.

        To be called only by those that have nothing reserved.
        """
        while wanted and not self._left and self._reserved:
            changed: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(changed)
            await changed
        return self.take(wanted)

    def settle(self, reserved: int, sent: int) -> None:
        """Say that of a reservation so many bytes were sent; the rest is given back."""
        self._reserved -= reserved
        self._left += max(0, reserved - sent)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
