"""Idle connections that pings do not wake: the kernel keeps a ping until ours is due, and both are done in one go.

A process with a thousand idle connections would be woken by 67 pings a second, each when the processor has long
forgotten what it needs for that: a ping then takes three to four times as long as in a row with others.

So a connection on which nothing but pings comes *dozes*: its socket is readable from one byte more than a ping takes
(``SO_RCVLOWAT``, see socket(7)).
Whatever else comes is longer, and wakes us as ever; so do the end of the connection and its errors.
`Doze.look` reads the ping, and says when it came, so a peer that is gone is noticed as soon as without dozing.

What is shorter than a ping must not come while a connection dozes: an answer to a question of ours, the rest of a box,
or of a TLS record.
So `realize.wire.connection` lets it doze only at rest, upon a ping that came alone, and wakes it whenever anything but
a ping goes either way.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final, Protocol

from twisted.internet.tcp import Connection

from realize.throttle.tls_records import TLS_RECORD_OVERHEAD_BYTES
from realize.wire.boxes import PING

PING_RECORD_BYTES: Final = len(PING) + TLS_RECORD_OVERHEAD_BYTES
"""What a ping takes on the wire."""

_TCP_INFO_BYTES: Final = 56
_LAST_RECEIVED_AT_BYTES: Final = 52
_milliseconds: Final = struct.Struct("I")


class Dozer(Protocol):
    """What lies above the socket, and wants to know."""

    def dozes(self) -> None:
        """The connection begins to doze."""

    def looked(self) -> None:
        """What had waited was read: send what was written upon it."""


class Doze:
    """Whether one connection dozes."""

    __slots__ = ("_connection", "_dozer", "_latest", "_looking", "_socket", "on")

    def __init__(self, connection: Connection, dozer: Dozer) -> None:
        self.on = False
        self._connection = connection
        self._socket = connection.socket
        self._dozer = dozer
        self._latest = 0
        """How many bytes came last from the socket."""
        self._looking = False

    def arrived(self, size: int) -> None:
        """Note that the socket has brought ``size`` bytes: unless that is the one ping we looked for, we are awake."""
        self._latest = size
        if self.on and not (self._looking and size == PING_RECORD_BYTES):
            self.end()

    def begin(self) -> None:
        """Doze, if the last that came was one ping and nothing else."""
        if not self.on and self._latest == PING_RECORD_BYTES:
            self.on = self._wait_for(PING_RECORD_BYTES + 1)
            self._dozer.dozes()

    def end(self) -> None:
        """Be woken by whatever comes."""
        self.on = False
        self._wait_for(1)

    def look(self) -> float | None:
        """Read what the kernel has kept; how many seconds ago the last of it came, None if there is nothing."""
        connection = self._connection
        if not self.on or not connection.connected:
            return None
        self._looking, self._latest = True, 0
        try:
            lost = connection.doRead()
            if self._latest:
                self._dozer.looked()
        except BaseException:
            # As when the reactor reads: what was read and not handled must not be missing from the rest; and nobody
            # watches the connection any more.
            connection.abortConnection()
            raise
        finally:
            self._looking = False
        if lost is not None:
            self.end()  # the reactor finds the same, and ends the connection
        return self._age() if self._latest else None

    def _age(self) -> float | None:
        """How many seconds ago the last bytes came, by the kernel's own clock; None if the connection is gone."""
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:
            return None
        [milliseconds] = _milliseconds.unpack_from(info, _LAST_RECEIVED_AT_BYTES)
        return float(milliseconds / 1000)

    def _wait_for(self, size: int) -> bool:
        """Let the socket be readable from ``size`` bytes; False if it cannot."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            return True
        return False


def doze_of(connection: object, dozer: Dozer) -> Doze | None:
    """What lets a ``connection`` doze; None unless it is one of TCP, and the kernel tells when bytes came."""
    if isinstance(connection, Connection) and hasattr(socket, "TCP_INFO"):
        return Doze(connection, dozer)
    return None
