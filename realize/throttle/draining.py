"""Sends what waits in the backlog: as much as was granted, or all of it when there is no limit any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from realize.throttle.backlog import Backlog
from realize.throttle.starting_tls import TLSSwitch
from realize.throttle.tls_records import payload_that_fits, wire_size

_PIECE_BYTES: Final = 1 << 16


class Drain:
    """Takes bytes from ``backlog`` for the transport, and counts with what ``tls`` says that TLS adds."""

    __slots__ = ("_backlog", "_tls", "_transport", "_unspent")

    def __init__(self, backlog: Backlog, tls: TLSSwitch) -> None:
        self._backlog = backlog
        self._tls = tls
        self._transport: Any = None
        self._unspent = 0
        """Bytes that were granted and have not been enough for a record."""

    def into(self, transport: Any) -> None:
        """Send through ``transport`` from now on."""
        self._transport = transport

    @property
    def wanted(self) -> int:
        """How many bytes of grants the backlog needs, besides those that are left."""
        return wire_size(self._backlog.size, self._tls.overhead) - self._unspent

    def spend(self, amount: int) -> None:
        """Send as much as ``amount`` more bytes of grants pay for, with what TLS adds."""
        self._unspent += amount
        while self._backlog.size and (fitting := payload_that_fits(self._unspent, self._tls.overhead)):
            data = self._backlog.take(min(fitting, _PIECE_BYTES))
            self._unspent -= wire_size(len(data), self._tls.overhead)
            self._put(data)

    def flush(self, full: Callable[[], bool], sent: Callable[[int], object]) -> None:
        """Send all without grants, or until ``full`` says so; ``sent`` is told of each piece, in bytes."""
        self._unspent = 0
        while self._backlog.size and not full():
            data = self._backlog.take(_PIECE_BYTES)
            sent(len(data))
            self._put(data)

    def forget_grants(self) -> None:
        """Begin anew: what is left of them was granted by another flow."""
        self._unspent = 0

    def _put(self, data: bytes) -> None:
        self._transport.write(data)
        self._tls.sent()
