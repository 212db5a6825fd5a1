"""The daemon's control socket: a Unix socket for its own user and for root, made and removed with care."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

from realize.concurrency.reactor import IReactor
from realize.config.problems import config_error
from realize.errors import UsageError
from realize.fs.socket_files import SocketFile
from realize.wire.control import ControlFactory


class _ControlPort(unix.Port):
    """Removes the socket only if it is its own: by then another daemon may have put one in its place."""

    def __init__(self, file: SocketFile, factory: ControlFactory, reactor: Any) -> None:
        super().__init__(os.fsencode(file.path), factory, mode=0o600, reactor=reactor)
        self._file = file

    def connectionLost(self, reason: Failure) -> None:
        """Not the method of `unix.Port`, which removes whatever has the name."""
        self._file.remove()
        tcp.Port.connectionLost(self, reason)


class ControlSocket:
    """Lets those steer the daemon who may."""

    def __init__(self, reactor: IReactor, factory: ControlFactory) -> None:
        self._reactor = reactor
        self._factory = factory
        self._port: _ControlPort | None = None

    def open(self, path: str) -> None:
        """Listen at an absolute path; raises `realize.errors.ConfigError` if that is not possible."""
        file = SocketFile(path)
        port = _ControlPort(file, self._factory, self._reactor)
        try:
            with file.making():
                port.startListening()
        except (UsageError, CannotListenError, OSError) as error:
            raise config_error((("control",), str(error))) from error
        self._port = port

    async def close(self) -> None:
        """Stop listening, remove the socket, and close all connections."""
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        await self._factory.stop()


def may_steer(uid: int) -> bool:
    """Whether a user may use the socket: the one that this process is, and root."""
    return uid in {0, os.geteuid()}
