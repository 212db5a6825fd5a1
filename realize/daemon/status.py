"""What the daemon says of itself to ``realize status``."""

from __future__ import annotations

from typing import Any, Protocol

from realize import __version__
from realize.wire.serving import PeerServerFactory


class Started(Protocol):
    """Something that knows for how many seconds it has been running."""

    @property
    def uptime(self) -> float:
        """Seconds, which no change of the wall clock makes more or less."""


def report(service: Started, factory: PeerServerFactory, name: str, *, is_admin: bool) -> dict[str, Any]:
    """A JSON object; who is no admin learns only of its own connections and transfers."""
    shown = [connection for connection in factory if is_admin or connection.name == name]
    transfers: list[dict[str, Any]] = []
    for connection in shown:
        transfers.extend({"peer": connection.name, **transfer} for transfer in connection.transfers())
    return {
        "version": __version__,
        "uptime": round(service.uptime, 1),
        "connections": [
            {
                "id": connection.number,
                "peer": connection.name,
                "address": connection.address,
                "received": connection.bytes_received,
                "sent": connection.bytes_sent,
            }
            for connection in shown
        ],
        "transfers": transfers,
    }
