"""Answers who may see and steer the daemon: its status, its limits, and its standing moves.

A peer asks over TLS, and may do what the configuration lets it do; the user of the daemon, and root, ask at its control
socket, and may do all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.protocols import amp

from realize.by_value import ByValue
from realize.daemon.move_reports import moves_text
from realize.daemon.status import as_text, limits_text
from realize.daemon.throttling import Throttling
from realize.errors import AccessDenied, Busy, RealizeError
from realize.logger import Logger
from realize.moves.standing_moves import no_such_move
from realize.moves.status import MoveStatus
from realize.throttle.tree import Scope
from realize.wire.commands import Direction, GetThrottle, Moves, SetThrottle, Status, Steering, SteerMove
from realize.wire.throttling import seconds_of


class SteeredMoves(Protocol):
    """The standing moves of a daemon, for whoever looks at them and steers them.

    What names one raises `realize.errors.NotFound` if there is none of that name.
    """

    def statuses(self) -> Sequence[MoveStatus]:
        """What there is to know of each, in the order of the configuration."""

    def run(self, name: str) -> None:
        """Begin a run now; one that goes on goes on.  Raises `realize.errors.Conflict` if it is paused."""

    def pause(self, name: str) -> None:
        """End the run that goes on, in order, and begin none until it is resumed; nothing if it is paused already."""

    def resume(self, name: str) -> None:
        """Go on as configured; nothing if it is not paused."""


@frozen(kw_only=True, eq=False, repr=False)
class Asker(ByValue):
    """Who asks: the name of a peer, or ``uid N`` at the control socket."""

    name: str
    is_admin: bool
    connection: str = ""
    """The name of its connection in the limits; empty for one that has none."""


class SteeringResponders(amp.CommandLocator):
    """Answers one asker; see `realize.wire.responding.Served`.

    ``report`` returns what Status answers; see `realize.daemon.status`.
    ``wall_clock`` returns seconds since the epoch, and ``is_running`` whether the daemon does not stop.
    """

    def __init__(
        self,
        asker: Asker,
        *,
        throttling: Throttling,
        moves: SteeredMoves,
        report: Callable[[], Mapping[str, Any]],
        steering_log: Logger,
        wall_clock: Callable[[], float],
        is_running: Callable[[], bool],
    ) -> None:
        self._asker = asker
        self._throttling = throttling
        self._moves = moves
        self._report = report
        self._steering_log = steering_log
        self._wall_clock = wall_clock
        self._is_running = is_running

    @Status.responder
    def _answer_status(self) -> dict[str, Any]:
        return {"report": as_text(self._report())}

    @SetThrottle.responder
    def _set_throttle(
        self, scope: Scope, name: str, direction: Direction, rate: int | None = None, milliseconds: int | None = None
    ) -> dict[str, Any]:
        former = self._throttling.set(
            self._asker.name,
            self._asker.connection,
            scope,
            name,
            direction,
            rate,
            seconds_of(milliseconds),
            is_admin=self._asker.is_admin,
        )
        return {} if former is None else {"former": former}

    @GetThrottle.responder
    def _get_throttle(self) -> dict[str, Any]:
        rows = self._throttling.report(self._asker.name, is_admin=self._asker.is_admin, own=self._asker.connection)
        return {"report": limits_text(rows)}

    @Moves.responder
    def _answer_moves(self, name: str | None = None) -> dict[str, Any]:
        self._check_admin("see")
        statuses = [each for each in self._moves.statuses() if name is None or each.name == name]
        if name is not None and not statuses:
            raise no_such_move(name)
        return {"report": moves_text(statuses, self._wall_clock())}

    @SteerMove.responder
    def _steer_move(self, name: str, action: Steering) -> dict[str, Any]:
        steer = {Steering.RUN: self._moves.run, Steering.PAUSE: self._moves.pause, Steering.RESUME: self._moves.resume}
        log = self._steering_log.bind(peer=self._asker.name)
        try:
            self._check_admin("steer")
            if not self._is_running():
                raise Busy("the daemon is shutting down, and its moves end")
            steer[action](name)
        except RealizeError as error:
            log.warning("steering_refused", move=name, action=action.value, error=str(error))
            raise
        log.info("move_steered", move=name, action=action.value)
        return {}

    # What else `realize.wire.responding.Served` asks for: nothing here has a stream.

    def transfers(self) -> list[dict[str, Any]]:
        """None: no content goes through what is answered here."""
        return []

    def failed(self, _: Mapping[bytes, bytes]) -> None:
        """Close nothing."""

    def _check_admin(self, doing: str) -> None:
        if not self._asker.is_admin:
            raise AccessDenied(
                f"this peer may not {doing} the moves of the daemon; "
                "that needs admin = true in the daemon's configuration"
            )
