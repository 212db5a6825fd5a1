"""A client of a daemon that asks for its status regularly, or is only connected, in a process of its own.

It measures the time from a request to its answer over an existing connection: without process start and handshake, but
including what the probe itself has to wait for on a busy machine.

It prints a line once it is connected; when its stdin ends, it prints the seconds that each answer took, and exits.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from realize.keys import generate_identity, load_identity, parse_public_key, write_identity
from tests.processes import ENVIRONMENT, ROOT, Site

KEY: Final = "prober.key"


class ProbedSite(Site):
    """A site whose daemon knows the probe as a peer of its own, since connections are limited for each peer."""

    def write_daemon_config(self, extra: str = "") -> None:
        """Add the probe."""
        file = self.folder / KEY
        if not file.exists():
            write_identity(str(file), generate_identity())
        key = load_identity(str(file)).public_key.base64
        super().write_daemon_config(f'{extra}[peers.prober]\nkey = "{key}"\ndirs = {{ inbox = ["read"] }}\n')


class Probe:
    """A running probe, from the outside."""

    def __init__(self, site: ProbedSite, every: float | None = None) -> None:
        """Connect, and ask ``every`` so often, in seconds; never if that is None."""
        own, pin = str(site.folder / KEY), site.keys["daemon"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.probe", own, pin, str(site.port), str(every or 0)],
            env=ENVIRONMENT,
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise SystemExit("the probe could not connect")

    def finish(self) -> list[float]:
        """Seconds that each answer took."""
        waits: list[float] = json.loads(self._process.communicate()[0])
        return waits


@contextlib.contextmanager
def present(site: ProbedSite) -> Iterator[None]:
    """A client that is connected and sends no commands."""
    probe = Probe(site)
    try:
        yield
    finally:
        probe.finish()


def main(key: str, pin: str, port: int, every: float) -> None:
    """Be the probe."""
    import structlog
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import Protocol
    from twisted.internet.stdio import StandardIO

    from realize.wire.client import connect, connecting_protocol
    from realize.wire.commands import Status
    from realize.wire.connection import Greeting

    running: Any = reactor
    waits: list[float] = []
    # The output on stdout is the result.
    log = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr), wrapper_class=structlog.make_filtering_bound_logger("warning")
    )
    make = connecting_protocol(clock=running, log=log, greeting=Greeting("probe"))

    class UntilTheEnd(Protocol):
        def connectionLost(self, _: object) -> None:  # type: ignore[override]
            print(json.dumps(waits))
            if running.running:
                running.stop()

    async def ask() -> None:
        connection = await connect(
            running, "127.0.0.1", port, [load_identity(key)], [parse_public_key(pin)], make_protocol=make
        )
        print("connected", flush=True)
        StandardIO(UntilTheEnd(), reactor=running)
        if every:
            while not connection.lost:
                asked = time.perf_counter()
                await connection.call(Status)
                waits.append(time.perf_counter() - asked)
                pause: Deferred[None] = Deferred()
                running.callLater(every, pause.callback, None)
                await pause

    def failed(failure: Any) -> None:
        if running.running:
            failure.printTraceback()
            running.stop()

    running.callWhenRunning(lambda: Deferred.fromCoroutine(ask()).addErrback(failed))
    running.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
