"""What no tool can be faster than: the content through plain TCP, and nothing else.

python -m benchmarks.comparison.bounds receive FOLDER PORT
python -m benchmarks.comparison.bounds send FILE PORT
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from benchmarks.comparison.tool import Guarantees, Place, Start, Tool
from benchmarks.comparison.workloads import BIG
from tests.processes import free_port

PIECE: Final = 1 << 20


@frozen
class PlainTcp(Tool):
    """One file from one process to another."""

    @property
    def programs(self) -> frozenset[str]:
        """See `Tool`."""
        return frozenset()

    def serve(self, place: Place, start: Start) -> int:
        """See `Tool`."""
        port = free_port()
        start([sys.executable, "-m", __name__, "receive", place.destination, port], port)
        return port

    def command(self, place: Place, port: int) -> Sequence[object]:
        """See `Tool`."""
        return [sys.executable, "-m", __name__, "send", place.source / BIG, port]


TOOLS: Final[Sequence[Tool]] = (
    PlainTcp(
        "plain-tcp",
        "plain TCP, one file",
        "two sockets",
        Guarantees("**no**", "**no**", "**no**"),
        ("large",),
        bound="bytes only",
    ),
)


def receive(folder: Path, port: int) -> None:
    """Write what each connection brings to the one file, and confirm it."""
    content = memoryview(bytearray(PIECE))
    with socket.create_server(("127.0.0.1", port)) as listening:
        while True:
            connection, _ = listening.accept()
            # Whoever only looks whether this listens does not wait for an answer.
            with connection, (folder / BIG).open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while size := connection.recv_into(content):
                    file.write(content[:size])
                connection.send(b"1")


def send(path: Path, port: int) -> None:
    """Send a file, wait for the confirmation, remove it."""
    with socket.create_connection(("127.0.0.1", port)) as connection, path.open("rb") as file:
        connection.sendfile(file)
        connection.shutdown(socket.SHUT_WR)
        if not connection.recv(1):
            raise SystemExit("the other end did not confirm")
    os.unlink(path)


if __name__ == "__main__":
    {"receive": receive, "send": send}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
