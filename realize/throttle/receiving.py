"""Whether the transport below reads, and whether what it reads still reaches the application.

Without TLS below, reading stops with ``loseConnection``, as Twisted's sockets do it: what is queued goes out even if
the other end has closed its sending half, and a peer that goes on sending is held by TCP.
With TLS below, reading goes on, because TLS needs it to finish, and what comes is dropped.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer


class Receiving:
    """The reading of one transport, which is to be paused and resumed through this object only."""

    __slots__ = ("_transport", "delivers")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.delivers = True
        """Whether what is read now is for the application."""

    def pause(self) -> None:
        """Read nothing until the application wants it again, unless nothing is for the application any more."""
        if self.delivers:
            self._transport.pauseProducing()

    def resume(self) -> None:
        """Read on for the application, unless nothing is for it any more."""
        if self.delivers:
            self._transport.resumeProducing()

    def stop(self) -> None:
        """Read nothing more, if the transport can be told."""
        self.delivers = False
        if IPushProducer.providedBy(self._transport):
            self._transport.pauseProducing()
