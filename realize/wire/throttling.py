"""The rate limits of a connection at both of its ends: its flow, and the limits that the other end may request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.protocols import amp

from realize.errors import AccessDenied, ProtocolError, RealizeError
from realize.logger import Logger
from realize.schedule.timetable import RateTimetable
from realize.throttle.factory import ThrottledFactory
from realize.throttle.timed_limits import Cause
from realize.throttle.transport import ThrottledProtocol
from realize.throttle.tree import Limit, Scope, ThrottleTree
from realize.wire.commands import Direction, GetThrottle, SetThrottle
from realize.wire.connection import PeerProtocol


def pacing(clock: IReactorTime) -> Callable[[IProtocolFactory], IProtocolFactory]:
    """Return the ``wrap`` that inserts traffic shaping between TLS and AMP, which `limit_by` needs."""
    return lambda factory: ThrottledFactory(factory, clock)


def limit_by(tree: ThrottleTree, connection: PeerProtocol, peer: str, name: str, *, configured: bool = True) -> None:
    """Subject what this connection sends, from now until it is lost, to the limits of ``tree``.

    ``configured`` is as for `ThrottleTree.attach`.
    """
    paced = connection.transport
    if not isinstance(paced, ThrottledProtocol):
        raise ProtocolError("the connection is not one that can be paced")
    paced.use(tree.attach(peer, name, configured=configured))


def seconds_of(milliseconds: int | None) -> float | None:
    """Return how many seconds a limit lasts; None means for good."""
    return None if milliseconds is None else milliseconds / 1000


def whole(rate: float | None) -> int | None:
    """Return a limit in whole bytes per second, as it is reported."""
    return None if rate is None else int(rate)


def as_row(
    scope: Scope,
    name: str,
    peer: str,
    direction: Direction,
    limit: float | None,
    *,
    rate: float | None = None,
    waited: float | None = None,
    lasts: float | None = None,
    change: tuple[float, float | None] | None = None,
    timetable: RateTimetable | None = None,
) -> dict[str, Any]:
    """Return one limit as GetThrottle reports it: rates in bytes per second, times in seconds.

    ``change`` is in how many seconds the limit becomes another one by itself, and which.
    """
    return {
        "scope": scope.value,
        "name": name,
        "peer": peer,
        "direction": direction.value,
        "limit": limit,
        "rate": None if rate is None else round(rate),
        "waited": None if waited is None else round(waited, 3),
        "lasts": None if lasts is None else round(lasts, 1),
        "timetable": None if timetable is None else str(timetable),
        "changes_in": None if change is None else round(change[0], 1),
        "changes_to": None if change is None else whole(change[1]),
    }


def as_report(limits: Iterable[Limit]) -> list[dict[str, Any]]:
    """Return limits on sending as GetThrottle reports them."""
    return [
        as_row(
            each.scope,
            each.name,
            each.peer,
            Direction.SEND,
            each.limit,
            rate=each.rate,
            waited=each.waited,
            lasts=each.lasts,
            change=each.change,
            timetable=each.timetable,
        )
        for each in limits
    ]


class OwnLimit(amp.CommandLocator):
    """Lets the other end of a connection limit how fast we send to it, and nothing else.

    ``own`` is our own limit in bytes per second.
    Until the other end knows it, the lower of the two limits applies; from then on it is part of what the other end
    requests, and can be changed there while we run.
    The same goes for another one that takes its place by `change`, as a timetable says.
    """

    def __init__(self, tree: ThrottleTree, name: str, log: Logger, own: float | None = None) -> None:
        self._tree = tree
        self._name = name
        self._log = log
        self._own = own
        self._asked: float | None = None
        self._was_asked = False
        self._was_changed = False
        tree.set_rate(Scope.CONNECTION, name, own, by_itself=True)

    @property
    def rate(self) -> float | None:
        """The limit in force on what we send, in bytes per second."""
        return self._tree.rate(Scope.CONNECTION, self._name)

    def known(self) -> None:
        """Note that the other end knows our own limit; unless it has requested one within it, ours stays in force.

        But who has requested any before may say what takes the place of one that has changed: it may have a reason.
        """
        within = self._own is not None and self._asked is not None and self._asked <= self._own
        if within or (self._was_changed and self._was_asked):
            self._tree.set_rate(Scope.CONNECTION, self._name, None, by_itself=True)

    def change(self, own: float | None) -> None:
        """Let ``own`` take the place of our own limit, at once; to be told to the other end, and then `known`."""
        self._own, self._was_changed = own, True
        self._tree.set_rate(Scope.CONNECTION, self._name, own, by_itself=True)

    @SetThrottle.responder
    def _set_throttle(
        self, scope: Scope, name: str, direction: Direction, rate: int | None = None, milliseconds: int | None = None
    ) -> dict[str, Any]:
        seconds, log = seconds_of(milliseconds), self._log.bind(scope=scope.value, direction=direction.value, new=rate)
        try:
            if scope is not Scope.CONNECTION or name or direction is not Direction.SEND:
                raise AccessDenied("only what this very connection sends can be limited from the other end")
            former = whole(self._tree.set_rate(Scope.CONNECTION, self._name, rate, seconds))
        except RealizeError as error:
            log.warning("throttle_refused", name=name, error=str(error))
            raise
        self._asked, self._was_asked = rate, True
        log.info("throttle_changed", name=self._name, old=former, seconds=seconds, cause=Cause.PEER.value)
        return {} if former is None else {"former": former}

    @GetThrottle.responder
    def _get_throttle(self) -> dict[str, Any]:
        return {"report": json.dumps(as_report(each for each in self._tree.snapshot() if self._is_ours(each)))}

    def _is_ours(self, limit: Limit) -> bool:
        """What else there is in the tree is nothing to the other end."""
        return limit.scope is Scope.CONNECTION and limit.name == self._name

    def transfers(self) -> list[dict[str, Any]]:
        """See `realize.wire.responding.Served`; this end serves no files."""
        return []

    def failed(self, box: Mapping[bytes, bytes]) -> None:
        """See `realize.wire.responding.Served`; nothing is open here."""
