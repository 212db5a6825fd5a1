"""The limits of the daemon: what it sends, what its peers send to it, and who may change them.

What the configuration says may be a timetable; what is set at run time is a rate, for a time or for good.

The daemon's own `realize.throttle.tree.ThrottleTree` limits what it sends.
What peers send is limited at their end: the daemon asks the other end of each connection, by the same command, to keep
to its share of the peer's limit, or to the limit of the connection if that is lower.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from realize.errors import AccessDenied, RealizeError, UsageError
from realize.keys import PublicKey
from realize.logger import Logger
from realize.runs.limit_tree import LimitTree
from realize.schedule.timetable import RateByTime
from realize.throttle.rates import check_rate, lowest
from realize.throttle.timed_limits import Cause, TimedLimits
from realize.throttle.tree import Scope, Setting, ThrottleTree, check_time
from realize.wire.commands import Direction, SetThrottle
from realize.wire.connection import PeerProtocol
from realize.wire.throttling import as_report, as_row, limit_by, whole

RESTORE_LEAD_S: Final = 0.01
"""How many seconds before a limit for a time ends the one that a connection asked for itself is restored."""


@define(eq=False, repr=False)
class Member:
    """A connection, as the limits see it."""

    connection: PeerProtocol
    peer: str
    name: str
    asked: int | None = None
    """The limit that its other end was last asked to keep to, in bytes per second."""


class Throttling:
    """The limits of one daemon; ``sampled`` and ``wall_clock`` are as for a `ThrottleTree`."""

    def __init__(
        self,
        clock: IReactorTime,
        log: Logger,
        sampled: Callable[[bool], object] = lambda _: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._log = log
        self._tree = ThrottleTree(clock, changed=self._changed, sampled=sampled, wall_clock=wall_clock)
        self._members: dict[str, Member] = {}
        """By name of the connection."""
        self._members_of: dict[str, dict[str, Member]] = {}
        """The same for each peer that is connected."""
        self._receiving = TimedLimits[Setting, int](clock, self._receive_again, wall_clock)
        self._configured = False
        self._runs = count(1)

    def configure(self, service: RateByTime, peers: Mapping[str, RateByTime], connection: RateByTime) -> None:
        """Apply what a configuration says of the service, all peers, and new connections; None is unlimited.

        Limits that were set at run time stay where it says nothing new, but for timetables: these hold again.
        What changes is logged, but not at the start.
        """
        before = {(each.scope, each.name): each.limit for each in self._tree.snapshot()}
        self._tree.configure(service=service, peers=peers, connection=connection)
        for each in self._tree.snapshot():
            old = before.get((each.scope, each.name))
            if self._configured and old != each.limit:
                self._tell(Cause.RELOAD, each.scope, each.name, Direction.SEND, old, each.limit)
        self._configured = True

    def _changed(self, scope: Scope, name: str, old: float | None, new: float | None, cause: Cause) -> None:
        self._tell(cause, scope, name, Direction.SEND, old, new)

    def _tell(
        self, cause: Cause, scope: Scope, name: str, direction: Direction, old: float | None, new: float | None
    ) -> None:
        self._log.info(
            "throttle_changed",
            scope=scope.value,
            name=name,
            direction=direction.value,
            old=whole(old),
            new=whole(new),
            cause=cause.value,
        )

    def close(self) -> None:
        """Leave no timer behind."""
        self._tree.close()
        self._receiving.close()

    def of_runs(self, peer_of: Callable[[PublicKey], str]) -> LimitTree:
        """The same limits for connections that the daemon makes itself, to peers whose names ``peer_of`` knows.

        They keep to those of the service and of their peer; what is configured for connections is for accepted ones.
        """
        return LimitTree(self._tree, peer_of, lambda: f"out{next(self._runs)}")

    def joined(self, connection: PeerProtocol, peer: str, name: str) -> None:
        """Apply the limits to a connection that was accepted, until it is lost."""
        limit_by(self._tree, connection, peer, name)
        self._members[name] = self._members_of.setdefault(peer, {})[name] = Member(connection, peer, name)
        connection.when_lost().addCallback(lambda _: self._left(name))
        self._clock.callLater(0, self._ask, peer)

    def set(
        self,
        by: str,
        own: str,
        scope: Scope,
        name: str,
        direction: Direction,
        rate: int | None,
        seconds: float | None,
        *,
        is_admin: bool,
    ) -> int | None:
        """Change a limit for ``by``, who asks on the connection ``own``; the answer is the former one on sending.

        ``own`` is empty for one that has no limits.

        What the configuration, or an admin, has set for a connection stays a ceiling for what a peer sets that is none,
        and takes the place of what that peer has set before.
        What a connection sets for itself and for good, as a command does when its timetable has another rate, waits for
        the end of what somebody has set for a time.
        Raises `AccessDenied` without the right, `NotFound` or `UsageError` if the values make no sense.
        """
        if scope is Scope.CONNECTION:
            name = name or own
        conn = int(own) if own else None
        log = self._log.bind(peer=by, conn=conn, scope=scope.value, name=name, direction=direction.value, new=rate)
        try:
            if not is_admin and not (scope is Scope.CONNECTION and (name == own or self._is_of(name, by))):
                raise AccessDenied(
                    "this peer may only limit its own connections; the others need admin = true in the configuration"
                )
            after = scope is Scope.CONNECTION and name == own and seconds is None
            old = self._set(scope, name, direction, rate, seconds, by_itself=not is_admin, after_temporary=after)
        except RealizeError as error:
            log.warning("throttle_refused", error=str(error))
            raise
        new = rate
        if direction is not Direction.RECEIVE:
            # What is in force: of what a peer asked for itself, only what is below its ceiling.
            new = whole(self._tree.rate(scope, _node(scope, name)))
        log.info("throttle_changed", old=old, new=new, seconds=seconds, cause=Cause.PEER.value)
        return None if direction is Direction.RECEIVE else old

    def report(
        self, peer: str, *, is_admin: bool, own: str = "", with_connections: bool = True
    ) -> list[dict[str, Any]]:
        """All limits for an admin; for others only their own, and the one of the service.

        ``own`` is the connection that asks; the limits that apply to it are marked as ``yours``.
        Without ``with_connections`` those on what connections send are left out.
        """
        sending = self._tree.snapshot(None if is_admin else peer, with_connections=with_connections)
        rows = as_report(sending)
        binding: dict[tuple[Scope, str], Setting] = {}
        for setting in self._receiving:
            node = setting[:2]
            if node not in binding or self._receives(setting) < self._receives(binding[node]):
                binding[node] = setting
        for (scope, name), setting in binding.items():
            owner = name if scope is Scope.PEER else self._members[name].peer
            if is_admin or owner == peer:
                rate, lasts = self._receiving.rate(setting), self._receiving.lasts(setting)
                change = self._receiving.next_change((scope, name, False), (scope, name, True))
                rows.append(as_row(scope, name, owner, Direction.RECEIVE, rate, lasts=lasts, change=change))
        yours = {(Scope.SERVICE.value, ""), (Scope.PEER.value, peer), (Scope.CONNECTION.value, own)}
        return [{**row, "yours": (row["scope"], row["name"]) in yours} for row in rows]

    def _set(
        self,
        scope: Scope,
        name: str,
        direction: Direction,
        rate: int | None,
        seconds: float | None,
        *,
        by_itself: bool,
        after_temporary: bool,
    ) -> int | None:
        check_rate(rate)
        check_time(seconds)
        if direction is not Direction.SEND:
            self._check_receiving(scope, name)
        former: float | None = None
        # What a connection has asked for itself is back first, so that at no moment there is no limit at all.
        aside = None if seconds is None else seconds - min(RESTORE_LEAD_S, seconds / 2)
        if direction is not Direction.SEND:
            former = self._receiving.rate((scope, name, by_itself))
            self._limit_receiving((scope, name, by_itself), rate, seconds, after_temporary=after_temporary)
            if scope is Scope.CONNECTION and not by_itself:
                self._limit_receiving((scope, name, True), None, aside)
        if direction is not Direction.RECEIVE:
            node = _node(scope, name)
            former = self._tree.set_rate(
                scope, node, rate, seconds, by_itself=by_itself, after_temporary=after_temporary
            )
            if scope is Scope.CONNECTION and not by_itself:
                self._tree.set_rate(scope, name, None, aside, by_itself=True)
        return whole(former)

    def _is_of(self, name: str, peer: str) -> bool:
        """Whether there is such a connection of that peer."""
        return name in self._members and self._members[name].peer == peer

    def _check_receiving(self, scope: Scope, name: str) -> None:
        if scope is Scope.SERVICE:
            raise UsageError(
                "the direction receive can be limited for a peer or a connection, not for the whole service"
            )
        self._tree.rate(scope, name)
        if scope is Scope.CONNECTION and name not in self._members:
            raise UsageError(
                "this connection is of a standing move: throttle_down of that move limits what it receives"
            )

    def _limit_receiving(
        self, setting: Setting, rate: int | None, seconds: float | None, *, after_temporary: bool = False
    ) -> None:
        if after_temporary:
            self._receiving.set_lasting(setting, rate)
        else:
            self._receiving.set(setting, rate, seconds)
        self._ask_of(setting)

    def _ask_of(self, setting: Setting) -> None:
        """Tell the connections of the peer that a limit on receiving is about."""
        scope, name, _ = setting
        if scope is Scope.PEER:
            self._ask(name)
        elif name in self._members:
            self._ask(self._members[name].peer)

    def _receive_again(self, setting: Setting, rate: int | None, lasting: int | None, cause: Cause) -> None:
        scope, name, _ = setting
        self._ask_of(setting)
        self._tell(cause, scope, name, Direction.RECEIVE, rate, lasting)

    def _receives(self, setting: Setting) -> float:
        rate = self._receiving.rate(setting)
        return math.inf if rate is None else rate

    def _ask(self, peer: str) -> None:
        """Tell the connections of a peer how fast they may send, those to whom that is news."""
        members = list(self._members_of.get(peer, {}).values())
        whole = self._receiving.rate((Scope.PEER, peer, False))
        for member in members:
            share = None if whole is None else max(1, whole // len(members))
            of_it = (self._receiving.rate((Scope.CONNECTION, member.name, by_itself)) for by_itself in (False, True))
            rate = lowest(share, *of_it)
            if rate != member.asked:
                member.asked = rate
                given: dict[str, Any] = {} if rate is None else {"rate": rate}
                asked = member.connection.call(
                    SetThrottle, scope=Scope.CONNECTION, name="", direction=Direction.SEND, **given
                )
                asked.addErrback(self._not_obeyed(member))

    def _not_obeyed(self, member: Member) -> Callable[[Failure], None]:
        def told(failure: Failure) -> None:
            if not member.connection.lost:
                self._log.warning(
                    "throttle_not_obeyed", peer=member.peer, conn=int(member.name), error=failure.getErrorMessage()
                )

        return told

    def _left(self, name: str) -> None:
        member = self._members.pop(name)
        of_peer = self._members_of[member.peer]
        del of_peer[name]
        if not of_peer:
            del self._members_of[member.peer]
        for by_itself in (False, True):
            self._receiving.forget((Scope.CONNECTION, name, by_itself))
        self._ask(member.peer)


def _node(scope: Scope, name: str) -> str:
    """The name of a node in the tree; a name given for the service is ignored."""
    return "" if scope is Scope.SERVICE else name
