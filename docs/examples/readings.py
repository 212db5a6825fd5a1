"""A service that streams sensor readings to whoever connects, and a client that measures how fast they come.

    python docs/examples/readings.py serve throttle:tcp:8123:interface=127.0.0.1:rate=64k
    python docs/examples/readings.py read throttle:tcp:127.0.0.1:8123:rate=1M

Nothing in here knows of Realize: the endpoint strings do it all.
"""

import random
import sys
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IProtocolFactory, IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IPullProducer)
class Readings(Protocol):
    """Sends readings for as long as somebody listens, as fast as they are taken."""

    transport: Any

    def connectionMade(self) -> None:
        """Offer readings; from now on the transport asks for some whenever it has room."""
        self.number = count()
        self.transport.registerProducer(self, streaming=False)

    def resumeProducing(self) -> None:
        """Send some: few at a time, so that they are fresh when they leave."""
        lines = [f"{next(self.number):09d} {random.gauss(21.5, 0.2):.2f} C\n" for _ in range(50)]
        self.transport.write("".join(lines).encode("ascii"))

    def stopProducing(self) -> None:
        """The reader is gone."""


class Reader(Protocol):
    """Counts what comes."""

    transport: Any

    def __init__(self) -> None:
        self.size = self.lines = 0
        self.ended = Deferred[None]()

    def dataReceived(self, data: bytes) -> None:
        """Count; a real reader would look at the lines."""
        self.size += len(data)
        self.lines += data.count(b"\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say why it ended."""
        self.ended.errback(reason)


async def serve(reactor: Any, endpoint: str, factory: IProtocolFactory) -> None:
    """Serve until the process is ended."""
    port = await serverFromString(reactor, endpoint).listen(factory)
    print(f"listening on port {port.getHost().port}", flush=True)
    await Deferred()


async def read(reactor: Any, endpoint: str, seconds: str = "3") -> None:
    """Read for some seconds and print the rate."""
    try:
        reader: Any = await clientFromString(reactor, endpoint).connect(Factory.forProtocol(Reader))
    except Exception as error:
        raise SystemExit(str(error)) from error
    began = reactor.seconds()
    try:
        await reader.ended.addTimeout(float(seconds), reactor)
    except DeferredTimeout:  # as it should be: the stream has no end
        print(f"{reader.lines} readings, {reader.size / (reactor.seconds() - began) / 1024:.1f} KiB/s")
    except Exception as error:
        raise SystemExit(f"after {reader.lines} readings: {error}") from error


async def main(reactor: Any, mode: str = "", endpoint: str = "", *seconds: str) -> None:
    """Do what the command line says."""
    if mode == "serve" and endpoint:
        await serve(reactor, endpoint, Factory.forProtocol(Readings))
    elif mode == "read" and endpoint:
        await read(reactor, endpoint, *seconds)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    react(main, sys.argv[1:])
