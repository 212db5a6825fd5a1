"""The control socket: the protocol without TLS on a Unix socket, for those whom the kernel says to be let in.

`realize.wire.control_client` has the other end.
The kernel tells the user at the other end (``SO_PEERCRED``), so no key is needed, and nobody else is answered anything.
What is bounded for peers is bounded here: connections, the time until Hello, silence, boxes and memory.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import DeferredList
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from realize.by_value import ByValue
from realize.concurrency.memory import Share
from realize.errors import AccessDenied, Busy, ConnectionFailed, ProtocolError, RealizeError
from realize.logger import Logger
from realize.wire.commands import Reason
from realize.wire.connection import Greeting, PeerProtocol, Role
from realize.wire.control_client import MAX_CONTROL_CONNECTIONS
from realize.wire.responding import Served, Watch
from realize.wire.server import HANDSHAKE_TIMEOUT_S

_CREDENTIALS: Final = struct.Struct("iII")
"""``struct ucred``: process, user and group."""


@frozen(eq=False, repr=False)
class LocalUser(ByValue):
    """Who is at the other end of a Unix socket, as the kernel says."""

    pid: int
    uid: int

    @property
    def name(self) -> str:
        """For logs, and where peers have names; no peer can have this one."""
        return f"uid {self.uid}"


def local_user(transport: Any) -> LocalUser:
    """Return who has connected the Unix socket of ``transport``."""
    raw = transport.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return LocalUser(pid, uid)


class ControlProtocol(PeerProtocol):
    """The accepting side of a connection to the control socket."""

    factory: ControlFactory
    user = LocalUser(0, -1)
    """Who is at the other end, once that is known."""
    _timeout: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Let the user in, or close at once."""
        super().connectionMade()
        self.user = local_user(self.transport)
        self.log = self.log.bind(peer=self.user.name, pid=self.user.pid)
        self._timeout = self.clock.callLater(HANDSHAKE_TIMEOUT_S, self._timed_out)
        self.factory.arrived(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave room for another one."""
        self.admitted()
        try:
            super().connectionLost(reason)
        finally:
            self.factory.left(self)

    def admitted(self) -> None:
        """Stop waiting for Hello."""
        timeout, self._timeout = self._timeout, None
        if timeout is not None and timeout.active():
            timeout.cancel()

    def turn_away(self, reason: str, error: RealizeError) -> None:
        """Log why, and close at once."""
        self.log.warning("control_refused", reason=reason, error=str(error))
        self.abort(error)

    def _timed_out(self) -> None:
        self._timeout = None
        self.turn_away("timeout", ConnectionFailed(f"no Hello within {HANDSHAKE_TIMEOUT_S:.0f} seconds"))


class ControlFactory(Factory):
    """Builds the connections of a control socket, for users that ``is_let_in`` accepts.

    ``serve`` returns what answers a user that has said Hello, and ``memory_of`` what that may make us hold.
    """

    noisy = False

    def __init__(
        self,
        *,
        clock: IReactorTime,
        log: Logger,
        greeting: Greeting,
        is_let_in: Callable[[int], bool],
        serve: Callable[[LocalUser], Served],
        memory_of: Callable[[LocalUser], Share],
        watch: Watch | None = None,
    ) -> None:
        self._clock = clock
        self._log = log
        self._greeting = greeting
        self._is_let_in = is_let_in
        self._serve = serve
        self._memory_of = memory_of
        self._watch = watch
        self._closing = False
        self._connections: dict[ControlProtocol, None] = {}
        """Those that are open, the oldest first."""

    def buildProtocol(self, _: IAddress | None) -> ControlProtocol:  # type: ignore[override]
        """Return a protocol for a connection; who is at its other end is known when it is made."""
        protocol = ControlProtocol(
            clock=self._clock,
            log=self._log,
            greeting=self._greeting,
            role=Role.ACCEPTING,
            label="a user of this machine",
            welcome=self._admit,
        )
        protocol.factory = self
        if self._watch is not None:
            protocol.watch = self._watch
        return protocol

    # Called by the connections.

    def arrived(self, protocol: ControlProtocol) -> None:
        """Take in a new connection, or turn it away; if there are too many, one goes that has not said Hello."""
        if self._closing:
            protocol.abort(ConnectionFailed("the service is shutting down"))
        elif not self._is_let_in(protocol.user.uid):
            protocol.turn_away("user", AccessDenied("only the user of the daemon and root may use its control socket"))
        else:
            self._connections[protocol] = None
            if len(self._connections) > MAX_CONTROL_CONNECTIONS:
                leaving = self._most_needless()
                del self._connections[leaving]
                leaving.turn_away("limit", Busy(f"there are {MAX_CONTROL_CONNECTIONS} connections already"))

    def _most_needless(self) -> ControlProtocol:
        """The connection that goes: no process keeps another one out.

        One of the process that has more than half of all, if there is one, else of the one that has most without Hello;
        the oldest without Hello before the oldest.
        """
        pid, most = Counter(each.user.pid for each in self._connections).most_common(1)[0]
        if most > MAX_CONTROL_CONNECTIONS // 2:
            theirs = [each for each in self._connections if each.user.pid == pid]
            return next((each for each in theirs if each.theirs is None), theirs[0])
        silent = [each for each in self._connections if each.theirs is None]
        held = Counter(each.user.pid for each in silent)
        return next(each for each in silent if held[each.user.pid] == max(held.values()))

    def left(self, protocol: ControlProtocol) -> None:
        """Forget a connection that has ended."""
        self._connections.pop(protocol, None)

    def _admit(self, protocol: PeerProtocol, greeting: Greeting) -> str:
        if not isinstance(protocol, ControlProtocol):
            raise ProtocolError("not one of our connections")
        protocol.use_memory(self._memory_of(protocol.user))
        protocol.serve(self._serve(protocol.user))
        protocol.admitted()
        protocol.log.debug("control_accepted", software=greeting.software)
        return protocol.user.name

    async def stop(self) -> None:
        """Close all connections, and those that still come; returns when they are closed, within five seconds."""
        self._closing = True
        lost = [connection.when_lost() for connection in self._connections]
        for connection in list(self._connections):
            if connection.theirs is None:
                connection.abort(ConnectionFailed("the service is shutting down"))
            else:
                connection.close(Reason.DRAINING)
        await DeferredList(lost)
