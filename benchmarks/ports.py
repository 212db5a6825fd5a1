"""Whether what a benchmark has started listens."""

from __future__ import annotations

import socket

from tests.processes import wait_for


def listens(port: int) -> bool:
    """Whether something accepts connections at a port."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def wait_until_listening(port: int) -> None:
    """Wait until something accepts connections at a port."""
    wait_for(lambda: listens(port))
