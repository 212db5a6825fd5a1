"""The short runs of `benchmarks.ageing`: each connects, does something, and leaves, and many do not leave in order.

They use plain sockets (`benchmarks.hostile_client`), so that a hundred thousand take minutes.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from attrs import Factory, frozen
from blake3 import blake3

from benchmarks.hostile_client import Client, context_of, one_way
from benchmarks.hostile_peer import data
from realize.errors import ProtocolError
from realize.keys import generate_identity, write_identity
from realize.values import Directory, SmallFile
from realize.wire import packing

SIZE: Final = 5_000
"""Bytes of a small file."""

LARGE: Final = 300_000

FAILED: Final = (OSError, ssl.SSLError, ProtocolError)
"""How a run may end that is refused or cut."""


@frozen
class Target:
    """A daemon, and who may use it."""

    port: int
    metrics_port: int
    keys: list[Path]
    """Those of the peers, the first of which may only create."""
    folder: Path
    """Where keys that nobody knows are put."""


@frozen
class Visitor:
    """Makes one run after the other; all that varies follows from ``seed``."""

    target: Target
    seed: int
    contexts: dict[Path, ssl.SSLContext] = Factory(dict)
    counts: dict[str, int] = Factory(dict)
    """How many runs of each kind were made, and how many of them were refused as they should be, or failed."""

    def visit(self, runs: int) -> dict[str, int]:
        """Make that many runs; the answer is `counts`."""
        rng = random.Random(self.seed)
        kinds, weights = [kind for kind, _ in KINDS], [weight for _, weight in KINDS]
        for _ in range(runs):
            [kind] = rng.choices(kinds, weights)
            name = kind.__name__
            try:
                kind(self, rng)
            except FAILED as error:
                name = f"{name}: {type(error).__name__}"
            self.counts[name] = self.counts.get(name, 0) + 1
        return self.counts

    def context(self, key: Path) -> ssl.SSLContext:
        """The TLS context of a peer."""
        if key not in self.contexts:
            self.contexts[key] = context_of(key)
        return self.contexts[key]

    def client(self, rng: random.Random, key: Path | None = None) -> Client:
        """A peer that has said Hello, from some address of this machine, with a run of its own."""
        context = self.context(rng.choice(self.target.keys) if key is None else key)
        return Client(self.target.port, context, f"{rng.randbytes(8).hex()}-hub", address=address(rng))


def address(rng: random.Random) -> str:
    """One of the loopback addresses."""
    return f"127.{rng.randrange(1, 255)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


def awaited(client: Client, field: bytes) -> bytes | None:
    """The value of that name in the next answer that has it; None if an error comes."""
    while True:
        box = client.next_box()
        if isinstance(box, dict) and (field in box or b"_error" in box):
            return box.get(field)


def leaves(visitor: Visitor, rng: random.Random) -> None:
    """Says Hello, and leaves."""
    with visitor.client(rng) as client:
        if rng.random() < 0.5:
            client.send(one_way("Goodbye", reason="done"))


def puts(visitor: Visitor, rng: random.Random) -> None:
    """Puts a small file, perhaps one that is there, in one of many directories."""
    with visitor.client(rng) as client:
        client.open_directory(base=rng.choice([b"", b"a", b"b/%d" % rng.randrange(1000)]))
        name, content = b"d%d/f%d" % (rng.randrange(20), rng.randrange(50_000)), rng.randbytes(SIZE)
        client.call("MakeDirectories", handle=1, directories=packing.DIRECTORIES.pack([Directory(name[:-2], 0o755)]))
        client.call("Describe", handle=1, paths=packing.PATHS.pack([name]))
        heads = packing.SMALL_HEADS.pack([SmallFile(name, content, blake3(content).digest(), None)])
        client.send(client.box("PutSmall", handle=1, stream=1, policy="replace", heads=heads) + data(1, content))
        awaited(client, b"outcomes")


def is_cut(visitor: Visitor, rng: random.Random) -> None:
    """Puts a file through a stream, and is cut in the middle."""
    client = visitor.client(rng)
    client.open_directory(base=rng.choice([b"", b"cut"]))
    path = b"large%d" % rng.randrange(500)
    client.call("OpenWrite", handle=1, stream=1, path=path, size=LARGE, policy="replace")
    client.send(data(1, bytes(rng.randrange(0, LARGE, 1000))))
    if rng.random() < 0.3:
        client.send(client.box("CommitStream", stream=1, digest=bytes(32), attributes=b"\0"))
    client.reset()


def lists(visitor: Visitor, rng: random.Random) -> None:
    """Lists, reads and removes; leaves in the middle of that."""
    with visitor.client(rng, visitor.target.keys[-1]) as client:
        client.open_directory()
        client.call("Walk", handle=1, listing=1, partials=rng.random() < 0.5, avoid=b"")
        client.send(client.box("ReadSmall", handle=1, stream=1, paths=packing.PATHS.pack([b"d0/f0", b"none"])))


def steers(visitor: Visitor, rng: random.Random) -> None:
    """Asks for the status, and has its own connection limited, for a time that it does not stay."""
    with visitor.client(rng) as client:
        client.call("Status")
        rate, for_ms = rng.randrange(1 << 20, 1 << 30), rng.randrange(1000, 10_000_000)
        direction = rng.choice(["send", "receive", "both"])
        client.call("SetThrottle", scope="connection", name="", direction=direction, rate=rate, milliseconds=for_ms)
        client.call("GetThrottle")


def is_unknown(visitor: Visitor, rng: random.Random) -> None:
    """Shows a key that nobody knows, another one each time."""
    key = visitor.target.folder / f"unknown{visitor.seed}.key"
    for each in (key, key.with_suffix(".crt")):
        each.unlink(missing_ok=True)
    write_identity(str(key), generate_identity())
    with Client(visitor.target.port, context_of(key), address=address(rng)) as client:
        client.call("Status")
    raise ValueError("a key that nobody knows was let in")


def knocks(visitor: Visitor, rng: random.Random) -> None:
    """Speaks no TLS, or does not come that far."""
    with socket.create_connection(("127.0.0.1", visitor.target.port), 5, (address(rng), 0)) as raw:
        raw.sendall(rng.choice([b"", b"GET / HTTP/1.0\r\n\r\n", rng.randbytes(100)]))
        if rng.random() < 0.5:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def breaks_rules(visitor: Visitor, rng: random.Random) -> None:
    """Says Hello, and then what makes no sense."""
    with visitor.client(rng) as client:
        client.send(rng.choice([rng.randbytes(200), client.box(f"No{rng.randrange(10**6)}"), client.box("Walk")]))
        client.next_box()


def scrapes(visitor: Visitor, rng: random.Random) -> None:
    """Looks at the metrics, or at the page."""
    asking = http.client.HTTPConnection("127.0.0.1", visitor.target.metrics_port, timeout=10)
    with contextlib.closing(asking):
        asking.request("GET", rng.choice(["/metrics", "/still", "/none"]))
        asking.getresponse().read()


Kind = Callable[[Visitor, random.Random], None]

KINDS: Final[tuple[tuple[Kind, float], ...]] = (
    (puts, 0.40),
    (leaves, 0.20),
    (is_cut, 0.10),
    (lists, 0.06),
    (steers, 0.06),
    (is_unknown, 0.05),
    (knocks, 0.08),
    (breaks_rules, 0.04),
    (scrapes, 0.01),
)
"""What a run may be, and how often it is."""


def visit(target: Target, seed: int, runs: int) -> dict[str, int]:
    """Make so many runs in this process; how many there were of each kind, and how they ended."""
    os.nice(5)
    began = time.monotonic()
    counts = Visitor(target, seed).visit(runs)
    counts["milliseconds"] = round((time.monotonic() - began) * 1000)
    return counts
