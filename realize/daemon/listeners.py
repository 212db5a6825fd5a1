"""The ports of a service: opened in order, with a sentence for what fails, and closed together."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

from realize.concurrency.reactor import IReactor
from realize.config.addresses import with_backlog
from realize.config.problems import config_error
from realize.logger import Logger
from realize.wire.every_address import server_endpoint_of

OnListening = Callable[[str, str, int | None], object]
"""Called with the endpoint string, the address, and the number of the port, None for what has none."""


@define(eq=False, repr=False)
class Listeners:
    """What listens, and what is about to."""

    _reactor: IReactor
    _log: Logger
    _ports: list[IListeningPort] = field(factory=list, init=False)
    _opening: list[Deferred[None]] = field(factory=list, init=False)
    """What takes its time; some of it may be done."""
    _closed: bool = field(default=False, init=False)

    def open(self, key: str, description: str, factory: IProtocolFactory, opened: OnListening) -> None:
        """Listen at an endpoint string.

        Raises `ConfigError` about that ``key`` of the configuration if it cannot.
        An endpoint that takes its time, and fails later, is logged.
        """
        refused: list[Exception] = []
        at_once = True

        def arrived(port: IListeningPort) -> None:
            self._ports.append(port)
            address = port.getHost()
            opened(description, getattr(address, "host", str(address)), getattr(address, "port", None))

        def failed(failure: Failure) -> None:
            error = cast("Exception", failure.value)
            if failure.check(ValueError, TypeError, CannotListenError, OSError):
                error = config_error(((key,), f"{description}: {failure.getErrorMessage()}"))
            if at_once:
                refused.append(error)
            elif not self._closed:
                self._log.error("cannot_listen", error=str(error))

        listening = maybeDeferred(lambda: server_endpoint_of(self._reactor, with_backlog(description)).listen(factory))
        opening = listening.addCallbacks(arrived, failed)
        at_once = False
        if refused:
            raise refused[0]
        if not opening.called:
            self._opening.append(opening)

    @property
    def addresses(self) -> list[IAddress]:
        """Where it listens now."""
        return [port.getHost() for port in self._ports]

    async def close(self) -> None:
        """Close all ports, and give up those that are being opened."""
        self._closed = True
        for opening in self._opening:
            opening.cancel()
        for port in self._ports:
            await maybeDeferred(port.stopListening)
