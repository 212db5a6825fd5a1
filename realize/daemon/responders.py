"""Answers the commands of a peer: those about directories, and those that show and steer the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from realize.by_value import ByValue
from realize.daemon.steering import SteeringResponders
from realize.store.server.responders import DirectoryResponders
from realize.wire.responding import Responder


@frozen(eq=False, repr=False)
class DaemonResponders(ByValue):
    """Answers one peer on one connection; see `realize.wire.responding.Served`."""

    directories: DirectoryResponders
    steering: SteeringResponders

    def locateResponder(self, name: bytes) -> Responder | None:
        """See `realize.wire.responding.Served`."""
        found: Responder | None = self.steering.locateResponder(name)
        return found or self.directories.locateResponder(name)

    def transfers(self) -> list[dict[str, Any]]:
        """See `realize.wire.responding.Served`."""
        return self.directories.transfers()

    def failed(self, box: Mapping[bytes, bytes]) -> None:
        """See `realize.wire.responding.Served`."""
        self.directories.failed(box)
