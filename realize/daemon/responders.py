"""Answer the commands of a peer: those about directories, those about rate limits, and for the status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from realize.daemon.status import as_text
from realize.daemon.throttling import Throttling
from realize.store.server.responders import DirectoryResponders
from realize.throttle.tree import Scope
from realize.wire.commands import Direction, GetThrottle, SetThrottle, Status
from realize.wire.reports import MAX_REPORT_BYTES, dumped
from realize.wire.throttling import seconds_of


class DaemonResponders(DirectoryResponders):
    """Answers one peer on one connection; ``number`` is the name of the connection in the limits.

    ``report`` returns what Status answers; see `realize.daemon.status`.
    """

    def __init__(
        self,
        *arguments: Any,
        throttling: Throttling,
        number: str,
        is_admin: bool,
        name: str,
        report: Callable[[], Mapping[str, Any]],
        **more: Any,
    ) -> None:
        super().__init__(*arguments, **more)
        self._throttling = throttling
        self._number = number
        self._is_admin = is_admin
        self._peer = name
        self._report = report

    @Status.responder
    def _answer_status(self) -> dict[str, Any]:
        return {"report": as_text(self._report())}

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
