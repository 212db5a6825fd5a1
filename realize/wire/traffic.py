"""How many bytes a connection, or all that a peer had, have carried; pure."""

from __future__ import annotations

from attrs import define


@define
class Traffic:
    """Bytes of boxes above TLS; content, that of files alone, is included in ``sent`` and ``received``."""

    sent: int = 0
    received: int = 0
    content_sent: int = 0
    content_received: int = 0

    def add(self, other: Traffic) -> None:
        """Count those of another as well."""
        self.sent += other.sent
        self.received += other.received
        self.content_sent += other.content_sent
        self.content_received += other.content_received
