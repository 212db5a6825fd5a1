"""The control socket: the protocol without TLS on a Unix socket, for those whom the kernel says to be let in.

The kernel tells the user at the other end (``SO_PEERCRED``), so no key is needed, and nobody else is answered anything.
What is bounded for peers is bounded here: connections, the time until Hello, silence, boxes and memory.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from realize.concurrency.memory import Share
from realize.errors import AccessDenied, Busy, ConnectionFailed, ProtocolError, RealizeError
from realize.logger import Logger
from realize.shown import Shown
from realize.units import display_text
from realize.wire.client import ConnectingProtocol
from realize.wire.commands import Reason
from realize.wire.connecting import CONNECT_TIMEOUT_S, in_time
from realize.wire.connection import Greeting, PeerProtocol, Role
from realize.wire.responding import Served, Watch
from realize.wire.server import HANDSHAKE_TIMEOUT_S

MAX_CONTROL_CONNECTIONS: Final = 16
"""Connections that the control socket has at once."""

BACKLOG_RETRY_S: Final = 0.02
"""How long to wait before another attempt when as many wait to be accepted as may."""

_CREDENTIALS: Final = struct.Struct("iII")
"""``struct ucred``: process, user and group."""

_NOBODY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED})
"""What connect(2) fails with where no daemon listens."""


@frozen(repr=False)
class LocalUser(Shown):
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


class _OneConnection(Factory):
    noisy = False

    def __init__(self, protocol: PeerProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, _: IAddress | None) -> PeerProtocol:
        return self._protocol


def connect_control(
    reactor: Any, path: str, protocol: ConnectingProtocol, timeout: float = CONNECT_TIMEOUT_S
) -> Deferred[PeerProtocol | None]:
    """Connect to the control socket at ``path`` and say Hello; fires with None if no daemon listens there.

    ``reactor`` keeps time, and adopts sockets, `twisted.internet.interfaces.IReactorSocket`.
    ``timeout`` is in seconds.
    Fails with `AccessDenied` for a socket that is not for us, and with `ConnectionFailed` for everything else.
    Cancelling it closes what was opened.
    """
    protocol.label = display_text(path)
    return in_time(Deferred.fromCoroutine(_connect(reactor, path, protocol)), protocol.label, timeout, reactor)


async def _connect(reactor: Any, path: str, protocol: ConnectingProtocol) -> PeerProtocol | None:
    label = protocol.label
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connecting:
            # Not Twisted's endpoint, which takes a full backlog for a connection that is on its way, and then fails.
            while (failed := connecting.connect_ex(os.fsencode(path))) == errno.EAGAIN:
                await deferLater(reactor, BACKLOG_RETRY_S)
            if failed in _NOBODY:
                return None
            if failed in {errno.EACCES, errno.EPERM}:
                raise AccessDenied(f"{label} is for the user of its daemon and root alone")
            if failed:
                raise ConnectionFailed(f"{label} cannot be reached: {os.strerror(failed)}")
            reactor.adoptStreamConnection(connecting.fileno(), socket.AF_UNIX, _OneConnection(protocol))
        await protocol.hello()
    except RealizeError as error:
        protocol.abort(error)
        unanswered = protocol.reached and protocol.theirs is None and protocol.goodbye is None
        if unanswered and isinstance(error, ConnectionFailed):
            raise ConnectionFailed(
                f"the daemon at {label} closed the connection before it answered: it lets in its own user and root "
                f"alone, and {MAX_CONTROL_CONNECTIONS} connections at once"
            ) from error
        raise
    except CancelledError:
        protocol.abort(ConnectionFailed(f"connecting to {label} was given up"))
        raise
    except OSError as error:
        raise ConnectionFailed(f"{label} cannot be reached: {error}") from error
    return protocol
