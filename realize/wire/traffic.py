"""Bytes carried by a connection, or by all connections of a peer; pure."""

from __future__ import annotations

from attrs import define

from realize.by_value import ByValue


@define(eq=False, repr=False)
class Traffic(ByValue):
    """Bytes of boxes, above TLS; those of file content are part of ``sent`` and ``received``, and counted again.

    What compression saved did not travel, and is part of none of them.
    """

    sent: int = 0
    received: int = 0
    content_sent: int = 0
    content_received: int = 0
    saved_sent: int = 0
    saved_received: int = 0

    def add(self, other: Traffic) -> None:
        """Add the counts of ``other``."""
        self.sent += other.sent
        self.received += other.received
        self.content_sent += other.content_sent
        self.content_received += other.content_received
        self.saved_sent += other.saved_sent
        self.saved_received += other.saved_received
