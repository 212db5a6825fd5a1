"""Many peers of one daemon in one process; see `benchmarks.peers`.

It says ``ready``, and does what its stdin says: ``connect`` all peers, ``move FOLDER ...`` one folder by each peer into
the daemon's ``inbox``; it says ``connected`` and ``moved`` when that is done, and exits when its stdin ends.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ReactorNotRunning
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineReceiver

from realize.api import Config, PeerConfig, move
from realize.keys import Identity, PublicKey, load_identity, parse_public_key
from realize.wire.client import ConnectingProtocol, connect, connecting_protocol
from realize.wire.connection import Greeting

AT_ONCE: Final = 8
"""Peers that connect at the same time: a daemon lets 64 wait for their handshake."""

Job = Callable[[], Coroutine[Deferred[Any], Any, object]]


async def at_most(jobs: Iterable[Job], count: int) -> None:
    """Do all jobs, ``count`` of them at a time."""
    left = iter(jobs)

    async def work() -> None:
        for job in left:
            await job()

    await gatherResults([Deferred.fromCoroutine(work()) for _ in range(count)], consumeErrors=True)


class Peers(LineReceiver):
    """All peers of this process."""

    delimiter = b"\n"

    def __init__(self, running: Any, port: int, pin: PublicKey, identities: list[Identity]) -> None:
        self._reactor = running
        self._port = port
        self._pin = pin
        self._identities = identities
        self._connections: list[ConnectingProtocol] = []
        # The output on stdout is for whoever started us.
        log = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr), wrapper_class=structlog.make_filtering_bound_logger("error")
        )
        self._make = connecting_protocol(clock=running, log=log, greeting=Greeting("crowd"))

    def connectionMade(self) -> None:
        """Say that orders can come."""
        self._say("ready")

    def lineReceived(self, line: bytes) -> None:
        """Do what is asked for."""
        word, *folders = line.decode().split() or [""]
        if word == "connect":
            self._do(at_most((self._connecting(each) for each in self._identities), AT_ONCE), "connected")
        elif word == "move":
            moving = (self._moving(*each) for each in zip(self._identities, folders, strict=False))
            self._do(at_most(moving, len(folders)), "moved")

    def connectionLost(self, _: object = None) -> None:
        """Leave without a word."""
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def _say(self, word: str) -> None:
        self.sendLine(word.encode())

    def _do(self, work: Coroutine[Deferred[Any], Any, None], answer: str) -> None:
        done = Deferred.fromCoroutine(work)
        done.addCallbacks(lambda _: self._say(answer), lambda failure: self._say(failure.getTraceback()))

    def _connecting(self, identity: Identity) -> Job:
        async def job() -> None:
            connecting = connect(
                self._reactor, "127.0.0.1", self._port, [identity], [self._pin], make_protocol=self._make
            )
            self._connections.append(await connecting)

        return job

    def _moving(self, identity: Identity, folder: str) -> Job:
        hub = PeerConfig(self._pin, address=f"127.0.0.1:{self._port}")
        config = Config(key=identity, peers={"hub": hub})

        async def job() -> None:
            await move(self._reactor, Path(folder), "hub::inbox", config=config)

        return job


def main(keys: str, pin: str, port: str, first: str, last: str) -> None:
    """Be the peers from ``first`` to before ``last``."""
    names = itertools.islice(sorted(Path(keys).glob("*.key")), int(first), int(last))
    identities = [load_identity(str(each)) for each in names]
    running: Any = reactor
    peers = Peers(running, int(port), parse_public_key(pin), identities)
    running.callWhenRunning(StandardIO, peers, reactor=running)
    running.run()
    # At once: threads of a move that was cut off would be waited for without end.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
