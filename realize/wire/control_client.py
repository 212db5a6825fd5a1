"""Connecting to the control socket of a daemon of this machine; see `realize.wire.control`."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from realize.errors import AccessDenied, ConnectionFailed, RealizeError
from realize.units import display_text
from realize.wire.client import ConnectingProtocol
from realize.wire.connecting import CONNECT_TIMEOUT_S, in_time
from realize.wire.connection import PeerProtocol

MAX_CONTROL_CONNECTIONS: Final = 16
"""Connections that the control socket has at once."""

BACKLOG_RETRY_S: Final = 0.02
"""How long to wait before another attempt when as many wait to be accepted as may."""

_NOBODY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED})
"""What connect(2) fails with where no daemon listens."""


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
                raise AccessDenied(f"{label} accepts only the user of its daemon and root")
            if failed:
                raise ConnectionFailed(f"{label} cannot be reached: {os.strerror(failed)}")
            reactor.adoptStreamConnection(connecting.fileno(), socket.AF_UNIX, _OneConnection(protocol))
        await protocol.hello()
    except RealizeError as error:
        protocol.abort(error)
        unanswered = protocol.reached and protocol.theirs is None and protocol.goodbye is None
        if unanswered and isinstance(error, ConnectionFailed):
            raise ConnectionFailed(
                f"the daemon at {label} closed the connection before it answered: it accepts only its own user "
                f"and root, and at most {MAX_CONTROL_CONNECTIONS} connections at a time"
            ) from error
        raise
    except CancelledError:
        protocol.abort(ConnectionFailed(f"connecting to {label} was given up"))
        raise
    except OSError as error:
        raise ConnectionFailed(f"{label} cannot be reached: {error}") from error
    return protocol
