"""The connections of one command: one for each peer, and the limits they keep to.

What this machine sends is bound here; what reaches it is bound by asking each peer.
Peers are told of both, so that both can be seen and changed there while the command runs; and again, when a timetable
has another rate.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.python.failure import Failure

from realize import __version__
from realize.concurrency.reactor import IReactor
from realize.concurrency.shielded import RunInThread
from realize.errors import ConnectionFailed, RealizeError
from realize.keys import Identity, PublicKey
from realize.logger import Logger, LoggerOf
from realize.runs.limit_tree import LimitTree
from realize.runs.options import Rates
from realize.runs.peers import Peer, ThisMachine, naming
from realize.runs.reports import lowest, parse_limits
from realize.schedule.timetable import RateByTime, RateTimetable, rate_now
from realize.throttle.timed_limits import Cause
from realize.throttle.timetables import Timetables
from realize.throttle.tree import Scope, ThrottleTree
from realize.units import format_rate
from realize.values import Compress
from realize.wire.client import Ahead, ConnectingProtocol, connect, connecting_protocol
from realize.wire.commands import Direction, GetThrottle, Reason, SetThrottle
from realize.wire.compression import capabilities
from realize.wire.connection import CLOSE_TIMEOUT_S, Greeting, PeerProtocol
from realize.wire.control_client import connect_control
from realize.wire.throttling import OwnLimit, limit_by, pacing

SILENT_CLOSE_TIMEOUT_S: Final = 0.5
"""Seconds to wait for the orderly end of a connection whose peer no longer answers."""


class Connections:
    """Connects to each peer once; ``run`` stays the same when a run comes back after it lost its connections.

    ``within`` has limits that the connections keep to with others of this process.
    ``in_thread`` is where content is compressed and expanded.
    """

    def __init__(
        self,
        reactor: IReactor,
        rates: Rates,
        run: str,
        logger_of: LoggerOf,
        *,
        within: LimitTree | None = None,
        in_thread: RunInThread = maybeDeferred,
        compress: Compress = Compress.AUTO,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._rates = rates
        self._logger_of = logger_of
        self._log = logger_of("cli").bind(run=run)
        self._within = within
        self._in_thread = in_thread
        self._compress = compress
        self._tree = ThrottleTree(reactor) if within is None else within.tree
        self._timetables = Timetables[tuple[Peer, Direction]](reactor, self._changed, wall_clock)
        self._wall_clock = wall_clock
        self._run = run
        self._made: dict[Peer, ConnectingProtocol] = {}
        self._here: dict[ThisMachine, PeerProtocol] = {}
        self._own: dict[Peer, OwnLimit] = {}
        self._limit_logs: dict[Peer, Logger] = {}
        self.attempt: ConnectingProtocol | None = None
        """The most recent attempt to connect; how far it got shows why it failed."""

    async def to(self, peer: Peer, identities: Sequence[Identity], ahead: Ahead | None = None) -> ConnectingProtocol:
        """The connection to a peer, with its limits in force; ``ahead`` is called if it is made for this."""
        made = self._made.get(peer)
        if made is None:
            with naming(peer):
                made = self._made[peer] = await self._connect(peer, identities, ahead)
                await self._limit(peer, made)
                if self._rates.up is not None:
                    self._own[peer].known()
        return made

    async def _limit(self, peer: Peer, connection: PeerProtocol) -> None:
        """Have a peer keep to the limits by now, in both directions in one round trip."""
        # The directions are those of the peer.
        limits = ((Direction.SEND, self._rates.down), (Direction.RECEIVE, self._rates.up))
        rates = [(direction, self._begin(peer, direction, limit)) for direction, limit in limits]
        asked = [_tell(connection, direction, rate) for direction, rate in rates if rate is not None]
        for obeys, answer in await DeferredList(asked, consumeErrors=True):
            if not obeys:
                cast("Failure", answer).raiseException()

    def _begin(self, peer: Peer, direction: Direction, limit: RateByTime) -> int | None:
        """The rate of a limit with a peer by now; what follows by the time of day is told to the peer at its time."""
        if isinstance(limit, RateTimetable):
            return self._timetables.follow((peer, direction), limit)
        return limit

    def _changed(self, limit: tuple[Peer, Direction], former: int | None, rate: int | None) -> None:
        """Keep to what a timetable says now, and tell the peer."""
        peer, direction = limit
        connection, own = self._made[peer], self._own[peer]
        if connection.lost:
            return
        log = self._limit_logs[peer]
        log.info(
            "throttle_changed",
            scope=Scope.CONNECTION.value,
            direction=direction.value,
            old=former,
            new=rate,
            cause=Cause.TIMETABLE.value,
        )
        if direction is Direction.RECEIVE:
            own.change(rate)

        def not_obeyed(failure: Failure) -> None:
            if not connection.lost:
                log.warning("throttle_not_obeyed", direction=direction.value, error=failure.getErrorMessage())

        _tell(connection, direction, rate).addCallback(lambda _: own.known()).addErrback(not_obeyed)

    async def to_this_machine(self, here: ThisMachine) -> PeerProtocol:
        """The connection to the daemon of this machine, without limits; raises `ConnectionFailed` if there is none."""
        if here not in self._here:
            for path in here.paths:
                log = self._logger_of("wire").bind(run=self._run, peer=path)
                greeting = Greeting(f"realize {__version__}", run=self._run)
                make = connecting_protocol(clock=self._reactor, log=log, greeting=greeting)
                connection = await connect_control(self._reactor, path, make())
                if connection is not None:
                    self._here[here] = connection
                    break
            else:
                raise ConnectionFailed(here.nobody)
        return self._here[here]

    async def _connect(self, peer: Peer, identities: Sequence[Identity], ahead: Ahead | None) -> ConnectingProtocol:
        # A daemon that is reached in two ways must not take one connection for the other come back.
        run = f"{self._run}-{zlib.crc32(peer.address.encode()):08x}"
        greeting = Greeting(f"realize {__version__}", capabilities(self._compress), run)
        name = f"{len(self._made) + 1}"

        def logger(component: str) -> Logger:
            return self._logger_of(component).bind(run=self._run, peer=peer.address, conn=int(name))

        make = connecting_protocol(clock=self._reactor, log=logger("wire"), greeting=greeting)

        def attempt() -> ConnectingProtocol:
            self.attempt = make()
            self.attempt.in_thread = self._in_thread
            return self.attempt

        connection = await connect(
            self._reactor,
            peer.host,
            peer.port,
            identities,
            peer.pins,
            make_protocol=attempt,
            wrap=pacing(self._reactor),
            ahead=ahead,
        )
        node = name
        if self._within is None:
            limit_by(self._tree, connection, peer.address, node)
        else:
            node = self._within.new_name()
            limit_by(self._tree, connection, self._within.peer_of(peer.pins[-1]), node, configured=False)
        self._limit_logs[peer] = log = logger("throttle")
        self._own[peer] = own = OwnLimit(self._tree, node, log, rate_now(self._rates.up, self._wall_clock()))
        connection.serve(own)
        theirs = connection.theirs
        self._log.info(
            "connected",
            peer=peer.address,
            conn=int(name),
            software="" if theirs is None else theirs.software,
            fingerprint=_fingerprint(connection.their_key),
            shown=_fingerprint(connection.own_key),
            link=run,
        )
        return connection

    @property
    def uncompressed(self) -> list[str]:
        """The peers with which content should always be compressed, and never is."""
        wanted = self._compress is Compress.ALWAYS
        return [peer.address for peer, made in self._made.items() if wanted and made.compression is None]

    @property
    def compression_saved_bytes(self) -> int:
        """How many bytes of content did not travel, in either direction, since they were compressed."""
        return sum(
            traffic.saved_sent + traffic.saved_received for traffic in (each.traffic() for each in self._made.values())
        )

    async def limits(self) -> list[str]:
        """A sentence for each peer about the limits in force at both ends."""
        sentences = []
        for peer, own in self._own.items():
            with naming(peer):
                rows = parse_limits((await self._made[peer].call(GetThrottle))["report"])
            sentences.append(
                f"limits with {peer.address}: send {format_rate(own.rate)}, receive {format_rate(lowest(rows, 'send'))}"
            )
        return sentences

    async def close(self, reason: str, *, silent: bool, alone: bool = False) -> None:
        """Say goodbye to all, for the `Reason` of that name, and wait until they are closed.

        ``silent`` says that one of them did not answer any more: then nobody waits for long.
        With ``alone``, nobody waits until the peers have closed them too.
        """
        lost: list[Deferred[RealizeError]] = []
        for connection in (*self._made.values(), *self._here.values()):
            connection.close(Reason[reason], SILENT_CLOSE_TIMEOUT_S if silent else CLOSE_TIMEOUT_S, alone=alone)
            lost.append(connection.when_lost())
        for each in lost:
            await each
        self._timetables.close()
        if self._within is None:
            self._tree.close()


def _fingerprint(key: PublicKey | None) -> str:
    return "" if key is None else key.fingerprint


def _tell(connection: PeerProtocol, direction: Direction, rate: int | None) -> Deferred[dict[str, Any]]:
    """Ask a peer to keep to a limit of this connection."""
    given: dict[str, Any] = {} if rate is None else {"rate": rate}
    return connection.call(SetThrottle, scope=Scope.CONNECTION, name="", direction=direction, **given)
