"""Ask a daemon for what its page shows.

Invariants: nothing is read from a disk or a peer; of many moves, transfers and limits only as many are looked at
closely as the page shows.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from realize import __version__
from realize.daemon.page.contents import Contents, ShownAbsence, ShownChange, ShownLimit, ShownTransfer
from realize.daemon.page.history import HistorySampler
from realize.daemon.page.withholding import without_names
from realize.daemon.page.wording import all_that_waits, headline, urgency
from realize.daemon.rates import RateSampler
from realize.daemon.status import transfers_of
from realize.daemon.throttling import Throttling
from realize.moves.status import FileUnderWay, MoveStatus
from realize.throttle.tree import Scope
from realize.wire.commands import Direction
from realize.wire.server import PeerServerFactory

SHOWN_MOVES: Final = 100
"""Moves on the page at most, those that somebody should look at before the others."""

SHOWN_DIRECTORIES: Final = 50
"""Directories that are not there at most."""

SHOWN_TRANSFERS: Final = 50
"""Files on their way at most."""

SHOWN_LIMITS: Final = 100
"""Rows of limits at most."""

_ABOUT: Final = {Direction.RECEIVE: "from {peer} into {dir}", Direction.SEND: "to {peer} from {dir}"}
"""Where a file of a peer comes from or goes to."""

_DOING: Final = {Direction.SEND: "sending", Direction.RECEIVE: "receiving"}

_LIMITED: Final = {
    Scope.SERVICE: "all peers together",
    Scope.PEER: "peer {name}",
    Scope.CONNECTION: "connection {name} of {peer}",
}
"""What a limit is for."""

_SENT: Final = ("peers", "sent")
_RECEIVED: Final = ("peers", "received")
_MOVED: Final = ("moves",)


class PageCollector:
    """What the page of one daemon shows; ``is_running`` says whether the daemon is not about to end."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        factory: PeerServerFactory,
        throttling: Throttling,
        rates: RateSampler,
        absent: Callable[[], Sequence[ShownAbsence]],
        moves: Callable[[], Sequence[MoveStatus]],
        uptime_s: Callable[[], float],
        is_running: Callable[[], bool],
        names_allowed: bool,
    ) -> None:
        self._factory = factory
        self._throttling = throttling
        self._rates = rates
        self._absent = absent
        self._moves = moves
        self._uptime_s = uptime_s
        self._is_running = is_running
        self._names_allowed = names_allowed
        self.sampler = HistorySampler(clock, self._totals)

    def collect(self) -> Contents:
        """What there is now."""
        now = time.time()
        moves = self._moves()
        urgent_first = sorted(moves, key=urgency)[:SHOWN_MOVES]
        transfers, more_transfers = self._transfers(moves)
        absent = self._absent()
        limits = [*self._limits(now), *_limits_of(moves)]
        history = self.sampler.history
        return Contents(
            now=now,
            host=socket.gethostname(),
            version=__version__,
            uptime_s=self._uptime_s(),
            headline=headline(
                moves,
                is_ending=not self._is_running(),
                is_busy=bool(transfers),
                absent=[each.name for each in absent],
            ),
            absent=absent[:SHOWN_DIRECTORIES],
            more_absent=max(0, len(absent) - SHOWN_DIRECTORIES),
            moves=urgent_first if self._names_allowed else [without_names(move) for move in urgent_first],
            more_moves=len(moves) - len(urgent_first),
            waiting=all_that_waits(moves),
            peers={name: len(connections) for name, connections in self._factory.connections.items() if connections},
            transfers=transfers,
            more_transfers=more_transfers,
            limits=limits[:SHOWN_LIMITS],
            more_limits=max(0, len(limits) - SHOWN_LIMITS),
            sent=history.of(_SENT),
            received=history.of(_RECEIVED),
            moved_by_all=history.of(_MOVED),
            moved={move.name: history.of(_series_of(move)) for move in urgent_first},
        )

    def _totals(self) -> Mapping[Hashable, int]:
        """What the history of rates is made of."""
        traffic = self._factory.traffic().values()
        totals: dict[Hashable, int] = {
            _SENT: sum(each.sent for each in traffic),
            _RECEIVED: sum(each.received for each in traffic),
        }
        moved = {
            _series_of(move): move.totals.moved_bytes + sum(file.done for file in _in_flight(move))
            for move in self._moves()
        }
        return {**totals, _MOVED: sum(moved.values()), **moved}

    def _transfers(self, moves: Sequence[MoveStatus]) -> tuple[list[ShownTransfer], int]:
        """The files on their way that are shown, and how many more there are."""
        found = [
            self._shown(file.path, f"move {move.name}", file.size, file.done)
            for move, file in islice(((move, file) for move in moves for file in _in_flight(move)), SHOWN_TRANSFERS)
        ]
        more = sum(len(_in_flight(move)) for move in moves) - len(found)
        for connection in sorted(self._factory, key=lambda each: each.number):
            if len(found) == SHOWN_TRANSFERS:
                more += len(connection.transfers())
                continue
            for transfer in transfers_of(connection, self._rates):
                if len(found) < SHOWN_TRANSFERS:
                    about = _ABOUT[Direction(transfer["direction"])].format(**transfer)
                    found.append(
                        self._shown(transfer["path"], about, transfer["size"], transfer["done"], transfer["rate"])
                    )
                else:
                    more += 1
        return found, more

    def _shown(self, name: str, about: str, size: int, done: int, rate_bps: float | None = None) -> ShownTransfer:
        return ShownTransfer(
            name=name if self._names_allowed else "", about=about, size=size, done=done, rate_bps=rate_bps
        )

    def _limits(self, now: float) -> list[ShownLimit]:
        """The limits of the service, of peers and of connections; a row for each that has any."""
        found: dict[tuple[str, str], dict[Direction, Mapping[str, Any]]] = {}
        for row in self._throttling.report("", is_admin=True):
            if row["limit"] is not None or row["changes_in"] is not None:
                found.setdefault((row["scope"], row["name"]), {})[Direction(row["direction"])] = row
        return [_shown_limit(rows, now) for rows in found.values()]


def _series_of(move: MoveStatus) -> Hashable:
    return "move", move.name


def _in_flight(move: MoveStatus) -> Sequence[FileUnderWay]:
    return () if move.running is None else move.running.in_flight


def _limits_of(moves: Sequence[MoveStatus]) -> Iterator[ShownLimit]:
    """The limits that moves have of their own."""
    for move in moves:
        changes = [
            ShownChange(change.at, _DOING[direction], change.bps)
            for direction, change in ((Direction.SEND, move.up_change), (Direction.RECEIVE, move.down_change))
            if change is not None
        ]
        if changes or move.up_bps is not None or move.down_bps is not None:
            yield ShownLimit(
                about=f"move {move.name}", sending_bps=move.up_bps, receiving_bps=move.down_bps, changes=changes
            )


def _shown_limit(rows: Mapping[Direction, Mapping[str, Any]], now: float) -> ShownLimit:
    row = next(iter(rows.values()))
    limits = {direction: row["limit"] for direction, row in rows.items()}
    return ShownLimit(
        about=_LIMITED[Scope(row["scope"])].format(**row),
        sending_bps=limits.get(Direction.SEND),
        receiving_bps=limits.get(Direction.RECEIVE),
        changes=[
            ShownChange(now + row["changes_in"], _DOING[direction], row["changes_to"])
            for direction, row in rows.items()
            if row["changes_in"] is not None
        ],
    )
