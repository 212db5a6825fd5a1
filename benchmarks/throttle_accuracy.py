"""Measure how exactly rate limits are kept, through a counting TCP proxy, over real loopback sockets and TLS 1.3.

    python benchmarks/throttle_accuracy.py            # some 8 minutes
    python benchmarks/throttle_accuracy.py --quick    # under two minutes
    python benchmarks/throttle_accuracy.py --only change

The sender runs in this process, the receiver and the proxy in one process each.
The proxy records when how many bytes of TCP payload pass, so the figures include TLS and its handshake.
Each line of the result has a target, the figure, and the command that reproduces this figure.
The figures, those of CPU cost above all, need an otherwise idle machine with two processors.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import datetime as dt
import gc
import itertools
import multiprocessing
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from multiprocessing.connection import Connection
from typing import Any, ClassVar, Final

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.protocols import amp
from zope.interface import implementer

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from benchmarks.machine import print_machine
from realize.throttle.factory import ThrottledFactory
from realize.throttle.rates import QUANTUM_S
from realize.throttle.tree import Scope, ThrottleTree
from realize.wire.tls import tune
from realize.wire.tls_bulk import BulkTLSFactory

KIB: Final = 1 << 10
MIB: Final = 1 << 20
PIECE: Final = b"\xa5" * (1 << 16)
SPAWN: Final = multiprocessing.get_context("spawn")

Events = list[tuple[float, int, int]]
"""When how many bytes passed, and on which connection."""


# The proxy and the receiver, in processes of their own


def proxy(pipe: Connection, target: int, *, bulk_up: bool) -> None:
    """Forward connections to port ``target``, and record what passes in the direction of the bulk data."""
    gc.disable()
    listening = socket.create_server(("127.0.0.1", 0))
    events: Events = []

    def pump(source: socket.socket, sink: socket.socket, number: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                if number is not None:
                    events.append((time.monotonic(), len(data), number))
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        for number in itertools.count():
            near, _ = listening.accept()
            far = socket.create_connection(("127.0.0.1", target))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=pump, args=(near, far, number if bulk_up else None), daemon=True).start()
            threading.Thread(target=pump, args=(far, near, None if bulk_up else number), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    pipe.send(listening.getsockname()[1])
    while pipe.recv() == "events":
        pipe.send(list(events))


class Sink(Protocol):
    """Accepts everything that arrives."""


class Ping(amp.Command):
    """A control command, to measure how long its answer takes."""


class Data(amp.Command):
    """A piece of a transfer."""

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"content", amp.String())]
    requiresAnswer = False


class Asking(amp.AMP):
    """Sends a command regularly, and writes to ``pipe`` how many seconds each answer took."""

    pipe: Connection

    def connectionMade(self) -> None:
        """Start asking."""
        from twisted.internet import reactor

        super().connectionMade()
        reactor.callLater(1, self.ask)

    @Data.responder
    def data(self, content: bytes) -> dict[str, Any]:
        """Take it."""
        del content
        return {}

    def ask(self) -> None:
        """Send one command, and the next one a little later."""
        from twisted.internet import reactor

        asked = time.monotonic()

        def answered(_: object) -> None:
            self.pipe.send(time.monotonic() - asked)
            reactor.callLater(0.23, self.ask)

        self.callRemote(Ping).addCallback(answered)


def receiver(pipe: Connection, port: int, count: int, kind: str) -> None:
    """Listen, if ``port`` is 0, or connect ``count`` times to ``port``; receive until killed."""
    from twisted.internet import reactor

    protocol: type[Protocol] = Sink
    if kind == "asking":
        protocol = Asking
        Asking.pipe = pipe
    factory = Factory.forProtocol(protocol)
    if port:
        wrapped = BulkTLSFactory(CertificateOptions(), isClient=True, wrappedFactory=factory, clock=reactor)
        for _ in range(count):
            reactor.connectTCP("127.0.0.1", port, _Plain(wrapped))
        pipe.send(0)
    else:
        wrapped = BulkTLSFactory(certificate(), isClient=False, wrappedFactory=factory, clock=reactor)
        listening = reactor.listenTCP(0, wrapped, interface="127.0.0.1")
        pipe.send(listening.getHost().port)
    reactor.run(installSignalHandlers=False)


class _Plain(Factory):
    """Lets ``connectTCP`` use any factory."""

    noisy = False

    def __init__(self, inner: Any) -> None:
        self.buildProtocol = inner.buildProtocol
        self.startedConnecting = self.clientConnectionFailed = self.clientConnectionLost = lambda *_: None


def certificate() -> CertificateOptions:
    """A key and a self-signed certificate, made in memory."""
    key = ed25519.Ed25519PrivateKey.generate()
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    name = x509.Name([])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day).sign(key, None)
    return CertificateOptions(privateKey=key, certificate=made)


# The sender, in this process


@implementer(IPushProducer)
class Source(Protocol):
    """Writes as much as it may from `start` to `stop`; ``sent`` counts the bytes written."""

    made: Callable[[Source], None]

    def __init__(self) -> None:
        self.sent = 0
        self.running = False

    def connectionMade(self) -> None:
        """Wait for TLS."""

    def handshakeCompleted(self) -> None:
        """Report for duty."""
        self.made()

    def start(self) -> None:
        """Write from now on."""
        self.transport.registerProducer(self, streaming=True)
        self.resumeProducing()

    def stop(self) -> None:
        """Write no more."""
        self.running = False
        self.transport.unregisterProducer()

    def resumeProducing(self) -> None:
        """Write until paused."""
        self.running = True
        while self.running:
            self.sent += len(PIECE)
            self.transport.write(PIECE)

    def pauseProducing(self) -> None:
        """Stop for the moment."""
        self.running = False

    def stopProducing(self) -> None:
        """The connection is lost."""
        self.running = False


class Ticking(Source):
    """Writes 100 MiB/s from a plain timer, in the steps of our layer: what pacing costs any implementation."""

    def start(self) -> None:
        """Write from now on."""
        self.running = True
        self.begun = time.monotonic()
        self.before = self.sent
        self.tick()

    def stop(self) -> None:
        """Write no more."""
        self.running = False

    def tick(self) -> None:
        """Write what is due, and schedule the next write."""
        from twisted.internet import reactor

        if not self.running:
            return
        due = int((time.monotonic() - self.begun) * 100 * MIB) - (self.sent - self.before)
        self.sent += due
        while due > 0:
            self.transport.write(PIECE[:due])
            due -= len(PIECE)
        now = time.monotonic() - self.begun
        reactor.callLater(QUANTUM_S - now % QUANTUM_S, self.tick)


class Answering(amp.AMP):
    """Sends data in pieces of the size that the layer suggests, and answers commands."""

    made: Callable[[Answering], None]
    running = False

    def handshakeCompleted(self) -> None:
        """Report for duty."""
        self.made()

    @Ping.responder
    def ping(self) -> dict[str, Any]:
        """Answer."""
        return {}

    def start(self) -> None:
        """Send from now on."""
        self.transport.registerProducer(self, streaming=True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """Send until paused."""
        self.running = True
        while self.running:
            self.callRemote(Data, content=PIECE[: self.transport.suggested_chunk - 64])

    def pauseProducing(self) -> None:
        """Stop for the moment."""
        self.running = False

    def stopProducing(self) -> None:
        """The connection is lost."""
        self.running = False


class Sending:
    """A number of connections from here to the receiver, and the means to measure them."""

    def __init__(self, tree: ThrottleTree) -> None:
        self.tree = tree
        self.sources: list[Any] = []
        self.proxy: Connection | None = None
        self.receiver: Connection | None = None

    def events(self) -> Events:
        """The records of the proxy."""
        assert self.proxy is not None
        self.proxy.send("events")
        found: Events = self.proxy.recv()
        return found


def sleep(seconds: float) -> Deferred[None]:
    """Let the reactor run for a while."""
    from twisted.internet import reactor

    waited: Deferred[None] = Deferred()
    reactor.callLater(seconds, waited.callback, None)
    return waited


@contextlib.asynccontextmanager
async def sending(
    *,
    rate: float | None = None,
    count: int = 1,
    up: bool = True,
    layer: bool = True,
    counted: bool = True,
    kind: str = "sink",
) -> AsyncIterator[Sending]:
    """``count`` connections through a proxy under one peer with the limit ``rate``; ``up``: this side connects."""
    from twisted.internet import reactor

    tree = ThrottleTree(reactor, peers={} if rate is None else {"peer": rate})
    state = Sending(tree)
    ready: Deferred[None] = Deferred()

    def made(source: Any) -> None:
        tune(source.transport)
        if layer:
            source.transport.use(tree.attach("peer", str(len(state.sources))))
        state.sources.append(source)
        if len(state.sources) == count:
            ready.callback(None)

    base = {"asking": Answering, "ticking": Ticking}.get(kind, Source)
    protocol = implementer(IHandshakeListener)(type("Made", (base,), {"made": made}))
    inner: Any = Factory.forProtocol(protocol)
    if layer:
        inner = ThrottledFactory(inner, reactor)
    processes = []

    def spawn(function: Any, *args: Any, **options: Any) -> Connection:
        here, there = SPAWN.Pipe()
        process = SPAWN.Process(target=function, args=(there, *args), kwargs=options, daemon=True)
        process.start()
        processes.append(process)
        return here

    listening = None
    try:
        if up:
            state.receiver = spawn(receiver, 0, count, kind)
            port = state.receiver.recv()
            if counted:
                state.proxy = spawn(proxy, port, bulk_up=True)
                port = state.proxy.recv()
            wrapped = BulkTLSFactory(CertificateOptions(), isClient=True, wrappedFactory=inner, clock=reactor)
            for _ in range(count):
                reactor.connectTCP("127.0.0.1", port, _Plain(wrapped))
        else:
            wrapped = BulkTLSFactory(certificate(), isClient=False, wrappedFactory=inner, clock=reactor)
            listening = reactor.listenTCP(0, wrapped, interface="127.0.0.1")
            state.proxy = spawn(proxy, listening.getHost().port, bulk_up=False)
            state.receiver = spawn(receiver, state.proxy.recv(), count, kind)
        await ready
        await sleep(0.3)
        yield state
    finally:
        for source in state.sources:
            source.transport.abortConnection()
        await sleep(0.05)
        tree.close()
        if listening is not None:
            await listening.stopListening()
        for process in processes:
            process.kill()
            process.join()


# Figures


def windows(events: Events, width: float, start: float, end: float) -> tuple[int, int]:
    """The fewest and the most bytes in any window of ``width`` seconds between ``start`` and ``end``."""
    times = [moment for moment, _, _ in events]
    sums = [0, *itertools.accumulate(amount for _, amount, _ in events)]
    fewest, most = sums[-1], 0
    for index, moment in enumerate(times):
        if moment >= start and moment + width <= end:
            most = max(most, sums[bisect.bisect_right(times, moment + width)] - sums[index])
            fewest = min(fewest, sums[bisect.bisect_left(times, moment + width)] - sums[index + 1])
    return fewest, most


def carried(events: Events, start: float, end: float) -> int:
    """How many bytes passed between two moments."""
    return sum(amount for moment, amount, _ in events if start <= moment < end)


@frozen
class Line:
    """One figure."""

    target: str
    figure: str
    good: bool


Measurement = Callable[..., Coroutine[Any, Any, list[Line]]]


def name_of(rate: float) -> str:
    """A rate as the command line takes it."""
    return f"{rate // MIB:.0f}M" if rate >= MIB else f"{rate // KIB:.0f}K"


async def accuracy(*, quick: bool) -> list[Line]:
    """Mean over any 5 s, worst 100 ms, in each direction."""
    lines = []
    for up in (True, False):
        for rate in (64 * KIB, MIB, 10 * MIB, 100 * MIB):
            if quick and (not up and rate in {64 * KIB, 10 * MIB}):
                continue
            async with sending(rate=rate, up=up) as state:
                begun = time.monotonic()
                state.sources[0].start()
                await sleep(6 if quick else 15)
                ended = time.monotonic()
                events = state.events()
            way = f"{name_of(rate)} {'client to server' if up else 'server to client'}"
            fewest, most = (amount / (5 * rate) for amount in windows(events, 5, begun, ended))
            lines.append(
                Line(
                    f"{way}: mean over any 5 s 0.99..1.01", f"{fewest:.4f}..{most:.4f}", 0.99 <= fewest <= most <= 1.01
                )
            )
            if rate >= MIB:
                _, most = windows(events, 0.1, begun, ended)
                peak = most / (0.1 * rate)
                lines.append(Line(f"{way}: worst 100 ms <= 1.10 x its share", f"{peak:.3f}", peak <= 1.1))
                _, most = windows(events, 0.1, begun, begun + 0.5)
                peak = most / (0.1 * rate)
                lines.append(Line(f"{way}: worst 100 ms at the start <= 1.10", f"{peak:.3f}", peak <= 1.1))
    return lines


async def idle(*, quick: bool) -> list[Line]:
    """Measure the burst after an idle minute."""
    lines = []
    pause = 5 if quick else 60
    for rate in (MIB,) if quick else (MIB, 10 * MIB):
        async with sending(rate=rate) as state:
            state.sources[0].start()
            await sleep(1)
            state.sources[0].stop()
            await sleep(pause)
            begun = time.monotonic()
            state.sources[0].start()
            await sleep(1)
            _, most = windows(state.events(), 0.1, begun, begun + 0.6)
        peak = most / (0.1 * rate)
        lines.append(Line(f"{name_of(rate)}: worst 100 ms after {pause} s idle <= 1.10", f"{peak:.3f}", peak <= 1.1))
    return lines


def obeyed(events: Events, changed: float, rate: float | None, former: float) -> float:
    """Milliseconds after ``changed`` from which on every window of 50 ms carries what it should."""
    step, width = 0.002, 0.05
    obeying: float | None = None
    for index in range(int(0.8 / step)):
        begin = changed + index * step
        amount = carried(events, begin, begin + width) / width
        fine = amount >= 10 * former if rate is None else 0.85 * rate <= amount <= 1.15 * rate
        if rate is None and fine:
            return (begin - changed) * 1000
        if not fine:
            obeying = None
        elif obeying is None:
            obeying = (begin - changed) * 1000
    return float("inf") if obeying is None else obeying


async def change(*, quick: bool) -> list[Line]:
    """Measure how long it takes for a changed limit to have effect during a transfer."""
    lines = []
    cases: tuple[tuple[float, float | None], ...] = (
        (4 * MIB, MIB),
        (MIB, 4 * MIB),
        (KIB, 10 * MIB),
        (100 * MIB, MIB),
        (MIB, None),
    )
    for former, rate in cases:
        if quick and former == 100 * MIB:
            continue
        async with sending(rate=former) as state:
            state.sources[0].start()
            await sleep(2)
            changed = time.monotonic()
            state.tree.set_rate(Scope.PEER, "peer", rate)
            await sleep(1)
            took = obeyed(state.events(), changed, rate, former)
        to = "unlimited" if rate is None else name_of(rate)
        lines.append(Line(f"{name_of(former)} to {to} obeyed within 100 ms", f"{took:.0f} ms", took <= 100))
    return lines


async def fairness(*, quick: bool) -> list[Line]:
    """Ten connections of one peer."""
    rate, seconds = 10 * MIB, 5 if quick else 10
    async with sending(rate=rate, count=10) as state:
        for source in state.sources:
            source.start()
        await sleep(0.2)
        begun = time.monotonic()
        await sleep(seconds)
        ended = time.monotonic()
        events = state.events()
    shares = [
        sum(amount for moment, amount, which in events if which == number and begun <= moment < ended)
        / ((ended - begun) * rate / 10)
        for number in range(10)
    ]
    total = sum(shares) / 10
    low, high = min(shares), max(shares)
    return [
        Line(
            f"10 connections at 10M, {seconds} s: each 0.95..1.05",
            f"{low:.4f}..{high:.4f}",
            0.95 <= low <= high <= 1.05,
        ),
        Line("10 connections at 10M: all together 0.99..1.01", f"{total:.4f}", 0.99 <= total <= 1.01),
    ]


async def _stretch(source: Source, seconds: float) -> tuple[float, float]:
    """Let one connection run for a while: bytes per second, and seconds of CPU of the sender per GiB."""
    source.start()
    await sleep(0.02)
    sent, begun, used = source.sent, time.monotonic(), time.process_time()
    await sleep(seconds)
    amount, took, used = source.sent - sent, time.monotonic() - begun, time.process_time() - used
    source.stop()
    await sleep(0.02)
    return amount / took, used / amount * (1 << 30)


async def _compare(rounds: int, seconds: float, first: Source, second: Source) -> tuple[list[float], list[float]]:
    """The ratios of speed and of CPU, second to first, in short turns so that other load affects both equally."""
    speeds, costs = [], []
    for number in range(rounds):
        if number % 2:
            one, other = await _stretch(first, seconds), await _stretch(second, seconds)
        else:
            other, one = await _stretch(second, seconds), await _stretch(first, seconds)
        speeds.append(other[0] / one[0])
        costs.append(other[1] / one[1])
    return speeds, costs


def _median(values: list[float]) -> tuple[float, float]:
    """The median, and its standard error without the outliers."""
    middle = statistics.median(values)
    deviation = statistics.median(abs(value - middle) for value in values)
    return middle, 1.4826 * 1.2533 * deviation / len(values) ** 0.5


async def overhead(*, quick: bool) -> list[Line]:
    """Measure what the layer costs without a limit."""
    rounds, seconds = (30, 0.1) if quick else (200, 0.2)
    async with sending(layer=False, counted=False) as bare, sending(counted=False) as layered:
        speeds, costs = await _compare(rounds, seconds, bare.sources[0], layered.sources[0])
    speed, speed_error = _median(speeds)
    cost, cost_error = _median(costs)
    return [
        Line("unlimited: throughput lost < 1 %", f"{1 - speed:+.2%} +-{speed_error:.2%}", 1 - speed < 0.01),
        Line("unlimited: CPU per byte added < 1 %", f"{cost - 1:+.2%} +-{cost_error:.2%}", cost - 1 < 0.01),
    ]


async def cpu(*, quick: bool) -> list[Line]:
    """Measure what pacing costs at 100 MiB/s."""
    rounds, seconds = (6, 0.5) if quick else (40, 1)
    async with (
        sending(counted=False) as free,
        sending(rate=100 * MIB, counted=False) as paced,
        sending(counted=False, kind="ticking") as ticking,
    ):
        _, costs = await _compare(rounds, seconds, free.sources[0], paced.sources[0])
        _, bare = await _compare(rounds, seconds, free.sources[0], ticking.sources[0])
        _, ours = await _compare(rounds, seconds, ticking.sources[0], paced.sources[0])
    (cost, error), (floor, spread), (more, doubt) = _median(costs), _median(bare), _median(ours)
    return [
        Line("100M: CPU per byte < 10 % above unlimited", f"{cost - 1:+.1%} +-{error:.1%}", cost - 1 < 0.1),
        Line(
            "100M: of that, a bare timer that writes as much each 3 ms", f"{floor - 1:+.1%} +-{spread:.1%}", good=True
        ),
        Line("100M: CPU per byte < 10 % above such a timer", f"{more - 1:+.1%} +-{doubt:.1%}", more - 1 < 0.1),
    ]


async def status(*, quick: bool) -> list[Line]:
    """Measure the answer time of a control command during a slow transfer."""
    async with sending(rate=64 * KIB, kind="asking") as state:
        state.sources[0].start()
        await sleep(4 if quick else 15)
        assert state.receiver is not None
        took = []
        while state.receiver.poll():
            took.append(state.receiver.recv())
    worst = max(took)
    figure = f"{worst * 1000:.0f} ms (median {statistics.median(took) * 1000:.0f} ms of {len(took)})"
    return [Line("64K: an AMP answer beside a transfer <= 250 ms", figure, worst <= 0.25)]


MEASUREMENTS: Final[dict[str, Measurement]] = {
    "accuracy": accuracy,
    "idle": idle,
    "change": change,
    "fairness": fairness,
    "status": status,
    "overhead": overhead,
    "cpu": cpu,
}


async def run(names: list[str], *, quick: bool) -> bool:
    """Measure and print; returns whether all targets were met."""
    good = True
    for name in names:
        command = f"python benchmarks/throttle_accuracy.py --only {name}" + (" --quick" if quick else "")
        for line in await MEASUREMENTS[name](quick=quick):
            good = good and line.good
            print(f"{'ok  ' if line.good else 'MISS'}  {line.target:<64}  {line.figure:<34}  {command}", flush=True)
    return good


def main() -> None:
    """Parse the command line, run the reactor, exit with 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer of them")
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, help="measure this; may be repeated")
    options = parser.parse_args()
    print_machine()

    from twisted.internet.task import react

    async def measured(reactor: object) -> None:
        del reactor
        if not await run(options.only or list(MEASUREMENTS), quick=options.quick):
            raise SystemExit(1)

    react(lambda reactor: Deferred.fromCoroutine(measured(reactor)))


if __name__ == "__main__":
    main()
