"""Measure how fast content goes from one process to another: streams over AMP over TLS 1.3 on loopback, no disk.

    python -m benchmarks.wire_throughput [--size 2GiB] [--piece 1MiB]

Prints MB/s (of 10^6 bytes), the CPU time of both processes, and how long a control command took meanwhile.
To see where it goes: ``py-spy record --subprocesses -- python -m benchmarks.wire_throughput``.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import structlog

from benchmarks.machine import print_machine
from realize.keys import PublicKey, generate_identity, load_identity, write_identity
from realize.units import parse_size
from realize.wire.connection import Greeting

SERVER = "--serve"


def cpu_time() -> float:
    """Seconds of CPU that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def serve(folder: str, size: int) -> None:
    """The receiving process."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    from realize.wire.server import PeerServerFactory

    pin = PublicKey(bytes.fromhex(sys.stdin.readline().strip()))
    running: Any = reactor

    async def drain(connection: Any) -> None:
        connection.streams.accept(1)
        stream = connection.streams.inbound(1, size)
        spent = cpu_time()
        stream.start()
        while await stream.read():
            pass
        spent = cpu_time() - spent
        print(f"{spent:.2f}", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)
        connection.close()
        await connection.when_lost()
        running.stop()

    def welcome(connection: Any, _name: object, _greeting: object) -> None:
        running.callLater(0, lambda: Deferred.fromCoroutine(drain(connection)))

    factory = PeerServerFactory(
        clock=running,
        log=structlog.get_logger(),
        identities=[load_identity(f"{folder}/server")],
        greeting=Greeting("bench"),
        known=lambda: {pin: "bench"},
        welcome=welcome,
    )
    port = running.listenTCP(0, factory.secured(), interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    running.run()


def send(folder: str, size: int, piece: int, port: int, pin: PublicKey) -> None:
    """The sending process."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    from realize.wire.client import connect, connecting_protocol

    running: Any = reactor
    waits: list[float] = []

    async def main() -> None:
        protocol = await connect(
            running,
            "127.0.0.1",
            port,
            [load_identity(f"{folder}/client")],
            [pin],
            make_protocol=connecting_protocol(clock=running, log=structlog.get_logger(), greeting=Greeting("bench")),
        )
        stream = protocol.streams.outbound(protocol.streams.choose())
        content = os.urandom(piece)
        measure(protocol)
        began, spent = time.monotonic(), cpu_time()
        for _ in range(size // piece):
            await stream.send([content])
        await protocol.when_lost()
        took = time.monotonic() - began
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{size / took / 1e6:.0f} MB/s in {took:.2f} s; sender: {cpu_time() - spent:.2f} s of CPU, {memory} MiB")
        print(f"control command during the transfer: worst {max(waits, default=0) * 1000:.0f} ms of {len(waits)}")
        running.stop()

    def measure(protocol: Any) -> None:
        from realize.wire.commands import Status

        if protocol.lost:
            return
        asked = time.monotonic()

        def answered(_: object) -> None:
            waits.append(time.monotonic() - asked)
            running.callLater(0.05, measure, protocol)

        protocol.call(Status).addErrback(answered_error, answered)

    def answered_error(failure: Any, answered: Any) -> None:
        # The benchmark does not serve Status; the error that says so takes the same time.
        if "does not know" in failure.getErrorMessage():
            answered(None)

    def ended(failure: Any) -> None:
        failure.printTraceback()
        running.stop()

    running.callWhenRunning(lambda: Deferred.fromCoroutine(main()).addErrback(ended))
    running.run()


def main() -> None:
    """Start the receiver, then send."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=parse_size, default=2 << 30)
    parser.add_argument("--piece", type=parse_size, default=1 << 20)
    parser.add_argument(SERVER, dest="serve")
    options = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if options.serve:
        serve(options.serve, options.size)
        return
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        keys = {}
        for name in ("server", "client"):
            identity = generate_identity()
            write_identity(f"{folder}/{name}", identity)
            keys[name] = identity.public_key
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.wire_throughput", SERVER, folder, "--size", str(options.size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(keys["client"].spki.hex() + "\n")
        server.stdin.flush()
        port = int(server.stdout.readline())
        send(folder, options.size, options.piece, port, keys["server"])
        cpu, memory = server.stdout.read().split()
        print(f"receiver: {cpu} s of CPU, {memory} MiB")
        server.wait()


if __name__ == "__main__":
    main()
