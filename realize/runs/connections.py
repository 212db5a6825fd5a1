"""The connections of one command: one for each peer, and the limits they keep to.

What this machine sends is bound here; what reaches it is bound by asking each peer.
Peers are told of both, so that both can be seen and changed there while the command runs.
"""

from __future__ import annotations

import zlib
from typing import Final

from twisted.internet.defer import Deferred

from realize import __version__
from realize.concurrency.reactor import IReactor
from realize.errors import ConnectionFailed, RealizeError
from realize.keys import Identity
from realize.logger import Logger, LoggerOf
from realize.runs.options import Rates
from realize.runs.peers import Peer, ThisMachine, naming
from realize.runs.reports import lowest, parse_limits
from realize.throttle.tree import Scope, ThrottleTree
from realize.units import format_rate
from realize.wire.client import ConnectingProtocol, connect, connecting_protocol
from realize.wire.commands import Direction, GetThrottle, Reason, SetThrottle
from realize.wire.connection import CLOSE_TIMEOUT_S, Greeting, PeerProtocol
from realize.wire.control import connect_control
from realize.wire.throttling import OwnLimit, limit_by, pacing

SILENT_CLOSE_TIMEOUT_S: Final = 0.5
"""Seconds to wait for the orderly end of a connection whose peer no longer answers."""


class Connections:
    """Connects to each peer once; ``run`` stays the same when a run comes back after it lost its connections."""

    def __init__(self, reactor: IReactor, rates: Rates, run: str, logger_of: LoggerOf) -> None:
        self._reactor = reactor
        self._rates = rates
        self._logger_of = logger_of
        self._log = logger_of("cli").bind(run=run)
        self._tree = ThrottleTree(reactor)
        self._run = run
        self._made: dict[Peer | ThisMachine, PeerProtocol] = {}
        self._own: dict[Peer, OwnLimit] = {}
        self.attempt: ConnectingProtocol | None = None
        """The most recent attempt to connect; how far it got shows why it failed."""

    async def to(self, peer: Peer, identity: Identity) -> PeerProtocol:
        """The connection to a peer, with its limits in force."""
        made = self._made.get(peer)
        if made is None:
            with naming(peer):
                made = self._made[peer] = await self._connect(peer, identity)
                for direction, rate in ((Direction.SEND, self._rates.down), (Direction.RECEIVE, self._rates.up)):
                    if rate is not None:
                        await made.call(SetThrottle, scope=Scope.CONNECTION, name="", direction=direction, rate=rate)
                if self._rates.up is not None:
                    self._own[peer].known()
        return made

    async def to_this_machine(self, here: ThisMachine) -> PeerProtocol:
        """The connection to the daemon of this machine, without limits; raises `ConnectionFailed` if there is none."""
        if here not in self._made:
            for path in here.paths:
                log = self._logger_of("wire").bind(run=self._run, peer=path)
                greeting = Greeting(f"realize {__version__}", run=self._run)
                make = connecting_protocol(clock=self._reactor, log=log, greeting=greeting)
                connection = await connect_control(self._reactor, path, make())
                if connection is not None:
                    self._made[here] = connection
                    break
            else:
                raise ConnectionFailed(here.nobody)
        return self._made[here]

    async def _connect(self, peer: Peer, identity: Identity) -> PeerProtocol:
        # A daemon that is reached in two ways must not take one connection for the other come back.
        run = f"{self._run}-{zlib.crc32(peer.address.encode()):08x}"
        greeting = Greeting(f"realize {__version__}", run=run)
        name = f"{len(self._made) + 1}"

        def logger(component: str) -> Logger:
            return self._logger_of(component).bind(run=self._run, peer=peer.address, conn=int(name))

        make = connecting_protocol(clock=self._reactor, log=logger("wire"), greeting=greeting)

        def attempt() -> ConnectingProtocol:
            self.attempt = make()
            return self.attempt

        connection = await connect(
            self._reactor,
            peer.host,
            peer.port,
            identity,
            peer.pin,
            make_protocol=attempt,
            wrap=pacing(self._reactor),
        )
        limit_by(self._tree, connection, peer.address, name)
        self._own[peer] = own = OwnLimit(self._tree, name, logger("throttle"), self._rates.up)
        connection.serve(own)
        theirs = connection.theirs
        self._log.info(
            "connected",
            peer=peer.address,
            conn=int(name),
            software="" if theirs is None else theirs.software,
            fingerprint=peer.pin.fingerprint,
            link=run,
        )
        return connection

    async def limits(self) -> list[str]:
        """A sentence for each peer about the limits in force at both ends."""
        sentences = []
        for peer, own in self._own.items():
            with naming(peer):
                rows = parse_limits((await self._made[peer].call(GetThrottle))["report"])
            sentences.append(
                f"limits with {peer.address}: it is sent at most {format_rate(own.rate)}, "
                f"and sends at most {format_rate(lowest(rows, 'send'))}"
            )
        return sentences

    async def close(self, reason: str, *, silent: bool) -> None:
        """Say goodbye to all, for the `Reason` of that name, and wait until they are closed.

        ``silent`` says that one of them did not answer any more: then nobody waits for long.
        """
        lost: list[Deferred[RealizeError]] = []
        for connection in self._made.values():
            connection.close(Reason[reason], SILENT_CLOSE_TIMEOUT_S if silent else CLOSE_TIMEOUT_S)
            lost.append(connection.when_lost())
        for each in lost:
            await each
        self._tree.close()
