"""Answer the commands of a peer: those about directories, and those about rate limits."""

from __future__ import annotations

from typing import Any

from realize.daemon.throttling import Throttling
from realize.store.server.responders import DirectoryResponders
from realize.throttle.tree import Scope
from realize.wire.commands import Direction, GetThrottle, SetThrottle
from realize.wire.reports import MAX_REPORT_BYTES, dumped
from realize.wire.throttling import seconds_of


class DaemonResponders(DirectoryResponders):
    """Answers one peer on one connection; ``number`` is the name of the connection in the limits."""

    def __init__(
        self, *arguments: Any, throttling: Throttling, number: str, is_admin: bool, name: str, **more: Any
    ) -> None:
        super().__init__(*arguments, **more)
        self._throttling = throttling
        self._number = number
        self._is_admin = is_admin
        self._peer = name

    @SetThrottle.responder
    def _set_throttle(
        self, scope: Scope, name: str, direction: Direction, rate: int | None = None, milliseconds: int | None = None
    ) -> dict[str, Any]:
        former = self._throttling.set(
            self._peer,
            self._number,
            scope,
            name,
            direction,
            rate,
            seconds_of(milliseconds),
            is_admin=self._is_admin,
        )
        return {} if former is None else {"former": former}

    @GetThrottle.responder
    def _get_throttle(self) -> dict[str, Any]:
        rows = self._throttling.report(self._peer, is_admin=self._is_admin, own=self._number)
        return {"report": dumped(rows, MAX_REPORT_BYTES)}
