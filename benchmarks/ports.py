"""Ports on loopback for what a benchmark starts."""

from __future__ import annotations

import socket

from tests.processes import wait_for


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


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
