"""The limits of one daemon, or of one command: for the service, peers and connections, by name, changed at run time.

`ThrottleTree.attach` gives a connection its flow, which ends with the connection.
A peer keeps its limit and its counters after its last connection is gone; one that the configuration has named and
names no more is forgotten when the next one is applied.
Rates are in bytes per second, None for no limit; a limit for good may be a timetable of such.
A connection has two limits, of which the lower one binds: the one set for it, by the configuration or at run time, and
the one it has asked for itself.
The caller decides who may change a limit; this module decides which values are valid.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from realize.by_value import ByValue
from realize.errors import Conflict, NotFound, UsageError
from realize.schedule.timetable import RateTimetable
from realize.throttle.buckets import Bucket
from realize.throttle.rates import check_rate_by_time, lowest
from realize.throttle.scheduler import Activity, Flow, Scheduler
from realize.throttle.timed_limits import Cause, TimedLimits

SAMPLE_INTERVAL_S: Final = 0.5
"""Seconds between two samples of what connections without a limit have sent, while any of them sends much."""

QUIET_SAMPLE_INTERVAL_S: Final = 1.0
"""The same in seconds while none sends more than pings: an idle process should rarely wake.

The meter allows no longer pause.
"""


class Scope(enum.Enum):
    """What a limit applies to."""

    SERVICE = "service"
    """Everything that the process sends."""
    PEER = "peer"
    """All connections of one peer together."""
    CONNECTION = "connection"
    """One connection."""


Setting = tuple[Scope, str, bool]
"""A node, and whether its limit is what the connection has asked for itself."""


@frozen(eq=False, repr=False)
class Limit(ByValue):
    """A snapshot of one node of the tree.

    ``name`` is the peer or the connection, and empty for the service; ``peer`` is empty for the service, too.
    ``limit`` and ``rate``, what was sent during the last second, are in bytes per second.
    ``sent`` and ``rate`` count bytes handed to the transport; those held back by a limit with what TLS adds to them.
    ``waited`` is how long, in seconds, connections had bytes waiting for a limit, summed over connections.
    ``lasts`` is for how many more seconds a temporary limit holds, None for a permanent one.
    ``timetable`` is what holds for good, if that is a timetable.
    ``change`` is in how many seconds the limit becomes another one by itself, and which; None if it does not.
    """

    scope: Scope
    name: str
    peer: str
    limit: float | None
    rate: float
    sent: int
    waited: float
    lasts: float | None = None
    timetable: RateTimetable | None = None
    change: tuple[float, float | None] | None = None


GivenLimit = float | RateTimetable | None
"""A limit for good: a rate in bytes per second, a timetable of such, or, for None, none."""


def check_time(seconds: float | None) -> None:
    """Raise `UsageError` unless ``seconds`` is None or a finite time above 0."""
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"a limit must hold for more than 0 seconds, not {seconds:g}")


NodeChanged = Callable[[Scope, str, float | None, float | None, Cause], object]


class ThrottleTree:
    """Service, peers and connections with their limits.

    ``peers`` names the peers known beforehand, each with its initial limit.
    ``connection`` is the limit that every new connection starts with.
    ``changed`` is called when a temporary limit has ended, or a timetable has another rate, with the node's scope and
    name, the limit until then, the limit from now on, and which of the two it was.
    ``wall_clock`` is what timetables go by, in seconds since the epoch.
    ``sampled`` is called after each sample of the connections, about once a second while there are any, with whether
    any of them may have carried more than pings since the one before.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        service: GivenLimit = None,
        peers: Mapping[str, GivenLimit] | None = None,
        connection: GivenLimit = None,
        changed: NodeChanged = lambda *_: None,
        sampled: Callable[[bool], object] = lambda _: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._changed = changed
        self._sampled = sampled
        self._service = Bucket()
        self._scheduler = Scheduler(clock, self._service)
        self._peers: dict[str, Bucket] = {}
        self._flows: dict[str, Flow] = {}
        self._peer_of: dict[str, str] = {}
        self._own: set[str] = set()
        self._gone: set[str] = set()
        """Peers that a configuration has named, and the last one does not."""
        self._limits = TimedLimits[Setting, float](clock, self._by_itself, wall_clock)
        self._configured: tuple[GivenLimit, dict[str, GivenLimit], GivenLimit] = (None, {}, None)
        self._sampling: IDelayedCall | None = None
        self.configure(service=service, peers=peers, connection=connection)

    def configure(
        self,
        *,
        service: GivenLimit = None,
        peers: Mapping[str, GivenLimit] | None = None,
        connection: GivenLimit = None,
    ) -> None:
        """Apply what differs from the previous configuration, at once; other limits set at run time stay.

        But a timetable holds again also where it is the same as before; what was set for a time goes on to its end.
        Raises `UsageError`, and changes nothing, if a rate is not valid.
        """
        now = (service, dict(peers or {}), connection)
        for limit in (service, connection, *now[1].values()):
            check_rate_by_time(limit)
        before, self._configured = self._configured, now
        for name in now[1]:
            self._peer(name)
        self._configure(Scope.SERVICE, "", before[0], service)
        for name in sorted({*before[1], *now[1]}):
            self._configure(Scope.PEER, name, before[1].get(name), now[1].get(name))
        for name in self._flows:
            if name not in self._own:
                self._configure(Scope.CONNECTION, name, before[2], connection)
        self._gone = (self._gone | before[1].keys()) - now[1].keys()
        self._forget_gone()

    def _forget_gone(self) -> None:
        """Forget the peers that are gone and have no connection any more."""
        for name in self._gone.difference(self._peer_of.values()):
            self._gone.discard(name)
            self._limits.forget((Scope.PEER, name, False))
            self._peers.pop(name).leave(self._clock.seconds())

    def _configure(self, scope: Scope, name: str, before: GivenLimit, limit: GivenLimit) -> None:
        if limit != before:
            self._set(scope, name, limit)
        elif isinstance(limit, RateTimetable):
            self._limits.set_lasting((scope, name, False), limit)
            self._apply(scope, name)

    def attach(self, peer: str, connection: str, *, configured: bool = True) -> Flow:
        """Return the flow of a new connection of ``peer``; raises `Conflict` if the name ``connection`` is taken.

        Unless ``configured``, what the configuration says of new connections is not for this one.
        """
        if connection in self._flows:
            raise Conflict(f"there is a connection {connection} already")
        setting = (Scope.CONNECTION, connection, False)
        if configured:
            self._limits.set(setting, self._configured[2])
        else:
            self._own.add(connection)
        bucket = Bucket(self._limits.rate(setting), parent=self._peer(peer))
        flow = self._flows[connection] = self._scheduler.flow(bucket, partial(self._left, connection))
        self._peer_of[connection] = peer
        if self._sampling is None:
            self._sampling = self._clock.callLater(SAMPLE_INTERVAL_S, self._sample)
        return flow

    def rate(self, scope: Scope, name: str = "") -> float | None:
        """The limit of one node in bytes per second; raises `NotFound` if there is no such peer or connection."""
        return self._find(scope, name).rate

    def set_rate(
        self,
        scope: Scope,
        name: str,
        rate: float | None,
        seconds: float | None = None,
        *,
        by_itself: bool = False,
        after_temporary: bool = False,
    ) -> float | None:
        """Set a limit, for ``seconds`` or permanently, and return the one that was in force.

        After a temporary limit, the last permanent one holds again; with ``after_temporary`` a permanent one waits for
        the end of a temporary one.
        What a connection sets ``by_itself`` binds only while it is lower than what others have set for it.
        Raises `NotFound` if there is no such peer or connection, `UsageError` if the values are not valid.
        """
        check_rate_by_time(rate)
        check_time(seconds)
        name = "" if scope is Scope.SERVICE else name
        former = self._find(scope, name).rate
        if scope is Scope.CONNECTION and not by_itself:
            self._own.add(name)
        if after_temporary and seconds is None:
            self._limits.set_lasting((scope, name, by_itself), rate)
            self._apply(scope, name)
        else:
            self._set(scope, name, rate, seconds, by_itself=by_itself)
        return former

    def snapshot(self, only: str | None = None, *, with_connections: bool = True) -> tuple[Limit, ...]:
        """All nodes as they are now: the service, then each peer, or ``only`` one, followed by its connections."""
        self._scheduler.collect()
        peers = {name: bucket for name, bucket in self._peers.items() if only is None or name == only}
        connections: dict[str, list[str]] = {name: [] for name in peers}
        for name, peer in self._peer_of.items() if with_connections else ():
            if peer in connections:
                connections[peer].append(name)
        found = [self._limit(Scope.SERVICE, "", "", self._service)]
        for peer, bucket in sorted(peers.items()):
            found.append(self._limit(Scope.PEER, peer, peer, bucket))
            found.extend(
                self._limit(Scope.CONNECTION, name, peer, self._flows[name].bucket)
                for name in sorted(connections[peer])
            )
        return tuple(found)

    def close(self) -> None:
        """Cancel all timers: connections still attached leave, and temporary limits become permanent."""
        for flow in tuple(self._flows.values()):
            flow.leave()
        self._limits.close()

    def _limit(self, scope: Scope, name: str, peer: str, bucket: Bucket) -> Limit:
        now = self._clock.seconds()
        both = ((scope, name, False), (scope, name, True))
        asked = self._limits.rate(both[1])
        return Limit(
            scope=scope,
            name=name,
            peer=peer,
            limit=bucket.rate,
            rate=bucket.current_rate(now),
            sent=bucket.sent(),
            waited=bucket.waited(now),
            lasts=self._limits.lasts(both[asked is not None and asked == bucket.rate]),
            timetable=self._limits.timetable(both[0]),
            change=self._limits.next_change(*both),
        )

    def _sample(self) -> None:
        activity = Activity.NONE
        try:
            activity = self._scheduler.take_activity()
            self._sampled(activity is not Activity.NONE)
        finally:
            self._sampling = self._clock.callLater(
                SAMPLE_INTERVAL_S if activity is Activity.MUCH else QUIET_SAMPLE_INTERVAL_S, self._sample
            )

    def _peer(self, name: str) -> Bucket:
        if name not in self._peers:
            setting = (Scope.PEER, name, False)
            self._limits.set(setting, self._configured[1].get(name))
            self._peers[name] = Bucket(self._limits.rate(setting), parent=self._service)
        return self._peers[name]

    def _find(self, scope: Scope, name: str) -> Bucket:
        if scope is Scope.SERVICE:
            return self._service
        if scope is Scope.PEER:
            if name not in self._peers:
                raise NotFound(f"no peer {name!r} has been connected or has a limit")
            return self._peers[name]
        if name not in self._flows:
            raise NotFound(f"there is no connection {name!r}")
        return self._flows[name].bucket

    def _set(
        self, scope: Scope, name: str, limit: GivenLimit, seconds: float | None = None, *, by_itself: bool = False
    ) -> None:
        self._limits.set((scope, name, by_itself), limit, seconds)
        self._apply(scope, name)

    def _apply(self, scope: Scope, name: str) -> Bucket:
        """Hold a node to the lower one of its limits."""
        bucket = self._find(scope, name)
        binding = lowest(*(self._limits.rate((scope, name, by_itself)) for by_itself in (False, True)))
        if binding != bucket.rate:
            self._scheduler.set_rate(bucket, binding)
        return bucket

    def _by_itself(self, setting: Setting, _former: float | None, _rate: float | None, cause: Cause) -> None:
        scope, name, _ = setting
        former = self._find(scope, name).rate
        rate = self._apply(scope, name).rate
        if rate != former or cause is Cause.TIME:
            self._changed(scope, name, former, rate, cause)

    def _left(self, connection: str) -> None:
        del self._flows[connection]
        del self._peer_of[connection]
        if not self._flows and self._sampling is not None:
            self._sampling.cancel()
            self._sampling = None
        self._own.discard(connection)
        for by_itself in (False, True):
            self._limits.forget((Scope.CONNECTION, connection, by_itself))
