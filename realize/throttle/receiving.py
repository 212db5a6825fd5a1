"""Whether the transport below reads, and whether what it reads still reaches the application.

Without TLS below, reading stops with ``loseConnection``, as Twisted's sockets do it: what is queued goes out even if
the other end has closed its sending half, and a peer that goes on sending is held by TCP.
With TLS below, reading goes on, because TLS needs it to finish, and what comes is dropped.

While ``startTLS`` waits for the bytes before it, nothing is read: what comes then is for TLS, and whoever has written
it in plain must not have it taken for what came encrypted.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer


class Receiving:
    """The reading of one transport, which is to be paused and resumed through this object only."""

    __slots__ = ("_held", "_transport", "_wanted", "delivers")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._held = False
        self._wanted = True
        """Whether the application last resumed, rather than paused."""
        self.delivers = True
        """Whether what is read now is for the application."""

    def pause(self) -> None:
        """Read nothing until the application wants it again, unless nothing is for the application any more."""
        self._wanted = False
        if self.delivers:
            self._transport.pauseProducing()

    def resume(self) -> None:
        """Read on for the application, unless nothing is for it any more."""
        self._wanted = True
        if self.delivers and not self._held:
            self._transport.resumeProducing()

    def hold(self) -> None:
        """Read nothing until `release`, whatever the application wants."""
        self._held = True
        self._transport.pauseProducing()

    def release(self) -> None:
        """Read on, if the application wants that, or is gone and TLS has to finish."""
        if self._held:
            self._held = False
            if self._wanted or not self.delivers:
                self._transport.resumeProducing()

    def stop(self) -> None:
        """Read nothing more, if the transport can be told."""
        self.delivers = False
        if IPushProducer.providedBy(self._transport):
            self._transport.pauseProducing()
