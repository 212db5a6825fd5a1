"""Measure what a hostile peer can do to the daemon, and to another peer, with each command of the protocol.

    python -m benchmarks.hostile_peer [--peers 2] [--connections 64] [--seconds 10] [--rest 60] [--only Walk,Settle]

For each command, with a new daemon, a peer that may read, write and remove (or two of them) does its worst for
``--seconds`` on all its connections, and then disconnects without notice.
Meanwhile and afterwards another peer repeatedly connects and puts one small file into the same directory.
An attempt that fails counts as infinite.

``peak`` is the daemon's peak resident memory, ``after`` its resident memory ``--rest`` seconds after the peer has left,
and ``idle`` that before the peer came; ``other`` is the longest time that the other peer needed, and ``then`` the
longest after the first has left.
``CPU`` is the daemon's CPU time from 3 to 8 seconds after that.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import zstandard
from blake3 import blake3

from benchmarks.hostile_client import Client, Flood, context_of
from benchmarks.machine import print_machine
from benchmarks.probe import KEY, ProbedSite
from benchmarks.procfs import cpu_seconds, peak_memory, resident_memory
from benchmarks.tables import mebibytes, table
from realize.extras import Extras, Owner
from realize.keys import generate_identity, load_identity, write_identity
from realize.values import (
    BLOCK_BYTES,
    EXTRAS,
    MAX_SMALL_BYTES,
    MAX_VALUE_BYTES,
    Directory,
    Expected,
    HardLink,
    Removal,
    SmallFile,
    Vacant,
    Version,
)
from realize.wire import commands, packing
from realize.wire.boxes import compressed, data_head, data_tail, encode

LARGE: Final = 512 << 20
STREAMS: Final = 128
RUNS: Final = 3
"""Listings over which the names of the directories are distributed."""

Attack = Callable[[Client], Iterator[bytes]]
"""What to send on one connection that has opened the directory."""


SECOND: Final = "second.key"


class HostileSite(ProbedSite):
    """A site where the other peer may write, with a second hostile peer."""

    def write_daemon_config(self, extra: str = "") -> None:
        """Let the probe's key write, too."""
        second = self.folder / SECOND
        if not second.exists():
            write_identity(str(second), generate_identity())
        key = load_identity(str(second)).public_key.base64
        rights = ", ".join(f'"{right}"' for right in self.rights)
        super().write_daemon_config(f'{extra}[peers.second]\nkey = "{key}"\ndirs = {{ inbox = [{rights}] }}\n')
        file = self.folder / "realized.toml"
        text = file.read_text().replace('inbox = ["read"]', 'inbox = ["read", "write"]')
        file.write_text(text.replace("[dirs.inbox]", '[dirs.inbox]\naccept = ["owner", "acl", "xattr"]'))


def data(stream: int, content: bytes) -> bytes:
    """Content in boxes."""
    pieces = [content[first : first + MAX_VALUE_BYTES] for first in range(0, len(content), MAX_VALUE_BYTES)]
    return b"".join(data_head(len(piece)) + piece + data_tail(stream) for piece in pieces)


def credit(stream: int, amount: int) -> bytes:
    """Some credit."""
    return encode({b"_command": b"Credit", b"stream": b"%d" % stream, b"amount": b"%d" % amount})


def repeated(command: str, **arguments: object) -> Attack:
    """The same command repeatedly."""

    def attack(client: Client) -> Iterator[bytes]:
        while True:
            yield client.box(command, **arguments)

    return attack


def on_streams(*boxes: Callable[[Client, int], bytes], again: bool = False) -> Attack:
    """Some boxes for each of as many streams as are allowed, the last of them for ever if wanted."""

    def attack(client: Client) -> Iterator[bytes]:
        for stream in range(1, 2 * STREAMS, 2):
            yield b"".join(box(client, stream) for box in boxes)
        while again:
            for stream in range(1, 2 * STREAMS, 2):
                yield boxes[-1](client, stream)

    return attack


def asking(command: str, **arguments: object) -> Callable[[Client, int], bytes]:
    """A command about a stream."""
    return lambda client, stream: client.box(command, stream=stream, **arguments)


def open_read(client: Client, stream: int) -> bytes:
    """Open the large file."""
    return client.box("OpenRead", handle=1, stream=stream, path=b"large")


def open_write(size: int = 64 << 20, path: bytes = b"new-%d-%d") -> Callable[[Client, int], bytes]:
    """Open a file to write, of a name of its own."""
    return lambda client, stream: client.box(
        "OpenWrite",
        handle=1,
        stream=stream,
        path=path % (id(client), stream) if b"%" in path else path,
        size=size,
        policy="replace",
    )


def put_small(client: Client) -> Iterator[bytes]:
    """Batches, of which every second one lacks its last byte."""
    for stream in count(1, 2):
        head = packing.SMALL_HEADS.pack([SmallFile(b"s%d" % stream, b"", bytes(32), None)])
        whole = MAX_SMALL_BYTES.to_bytes(4, "big") + head[4:]
        yield client.box("PutSmall", handle=1, stream=stream, policy="replace", heads=whole)
        yield data(stream, bytes(MAX_SMALL_BYTES - stream % 4 // 2))


def read_small(client: Client) -> Iterator[bytes]:
    """Batches whose answers are never read."""
    paths = packing.PATHS.pack([b"medium"])
    for stream in count(1, 2):
        yield client.box("ReadSmall", handle=1, stream=stream, paths=paths)


def write_all(client: Client) -> Iterator[bytes]:
    """As much content as there is credit for, on all streams."""
    open_one = open_write()
    for stream in range(1, 2 * STREAMS, 2):
        yield open_one(client, stream)
    piece = bytes(MAX_VALUE_BYTES)
    while not client.closed:
        rich = [stream for stream, amount in list(client.credit.items()) if amount >= MAX_VALUE_BYTES]
        for stream in rich:
            client.credit[stream] -= MAX_VALUE_BYTES
            yield data(stream, piece)
        if not rich:
            time.sleep(0.01)


def expand_all(client: Client) -> Iterator[bytes]:
    """As many frames as there is credit for, of some 20 bytes each, that stand for 64 KiB."""
    frame = zstandard.ZstdCompressor().compress(bytes(MAX_VALUE_BYTES))
    open_one = open_write()
    for stream in range(1, 2 * STREAMS, 2):
        yield open_one(client, stream)
    while not client.closed:
        rich = [stream for stream, amount in list(client.credit.items()) if amount >= MAX_VALUE_BYTES]
        for stream in rich:
            client.credit[stream] -= MAX_VALUE_BYTES
            yield b"".join(compressed(stream, MAX_VALUE_BYTES, frame))
        if not rich:
            time.sleep(0.01)


def link_files(client: Client) -> Iterator[bytes]:
    """Names for a file that was put, as many in each command as fit, and for others."""
    yield client.box("LinkFiles", handle=1, links=packing.FILE_LINKS.pack([]))
    for batch in count():
        links = [HardLink(b"name-%d-%d-%d" % (id(client), batch, n), b"medium", bytes(32)) for n in range(256)]
        yield client.box("LinkFiles", handle=1, links=packing.FILE_LINKS.pack(links))


def walk(client: Client) -> Iterator[bytes]:
    """All listings, page after page."""
    while True:
        for listing in range(8):
            yield client.box("Walk", handle=1, listing=listing, partials=False, avoid=b"")


def handles(client: Client) -> Iterator[bytes]:
    """As many directories as are allowed, repeatedly."""
    for handle in count(2):
        yield client.box("OpenDirectory", handle=handle, directory="inbox", base=b"", salt=b"salt")


def fat(client: Client) -> Iterator[bytes]:
    """The largest boxes that are allowed, of a command that takes long."""
    more = {f"more{number}": bytes(60_000) for number in range(3)}
    expected = packing.EXPECTED_FILES.pack([Expected(b"medium", MAX_SMALL_BYTES, bytes(32))] * 256)
    while True:
        yield client.box("Settle", handle=1, expected=expected, **more)


def unfinished(_client: Client) -> Iterator[bytes]:
    """A box that is never complete."""
    yield encode({b"_command": b"Describe", **{b"k%d" % number: bytes(60_000) for number in range(4)}})[:-100]


ALL_EXTRAS: Final = {"wanted": packing.bits_of(EXTRAS), "lenient": 0, "numeric": False}
DIGESTS: Final = bytes(32 * 2047)
CHUNKS: Final = packing.CHUNKS.pack([(8192, bytes(16))] * 500)
MANY: Final = packing.PATHS.pack([b"deep/" * 40 + b"%d" % number for number in range(256)])
DEEP: Final = packing.DIRECTORIES.pack([Directory(b"deep/" * 40 + b"d", 0o755)] * 256)
VERSION: Final = Version(1, 1, 1, 1, 1)
_VALUE: Final = b"\6user.a" + (40_000).to_bytes(2, "big") + bytes(40_000)
LARGE_EXTRAS: Final = packing.EACH_EXTRAS.pack([Extras(xattrs=_VALUE, numeric=True)])
STRANGERS: Final = packing.EACH_EXTRAS.pack([Extras(Owner(n, n, b"user%d" % n, b"group%d" % n)) for n in range(256)])

# What is sent for each, and whether answers are read.
ATTACKS: Final[dict[str, tuple[Attack, bool]]] = {
    "Ping": (repeated("Ping"), False),
    "Status": (repeated("Status"), False),
    "GetThrottle": (repeated("GetThrottle"), False),
    "SetThrottle": (repeated("SetThrottle", scope="connection", name="", direction="both", rate=1 << 30), False),
    "OpenDirectory": (handles, True),
    "MeasureSpace": (repeated("MeasureSpace", handle=1), True),
    "TryWrite": (repeated("TryWrite", handle=1), True),
    "Walk": (walk, True),
    "Walk unread": (walk, False),
    "Describe": (repeated("Describe", handle=1, paths=MANY), True),
    "Describe unread": (repeated("Describe", handle=1, paths=MANY), False),
    "ReadSmall": (read_small, False),
    "PutSmall": (put_small, True),
    "Settle": (
        repeated(
            "Settle",
            handle=1,
            expected=packing.EXPECTED_FILES.pack([Expected(b"medium", MAX_SMALL_BYTES, bytes(32))] * 256),
        ),
        True,
    ),
    "fat boxes": (fat, True),
    "unfinished box": (unfinished, True),
    "MatchFinal": (
        repeated(
            "MatchFinal",
            handle=1,
            path=b"large",
            size=LARGE,
            offset=0,
            digests=blake3(bytes(BLOCK_BYTES)).digest() * 512,
        ),
        True,
    ),
    "ReadExtras": (repeated("ReadExtras", handle=1, paths=packing.PATHS.pack([b"medium"] * 256), **ALL_EXTRAS), True),
    "Foresee": (repeated("Foresee", handle=1, paths=packing.PATHS.pack([b"f"]), extras=LARGE_EXTRAS), True),
    "Foresee names": (
        repeated("Foresee", handle=1, paths=packing.PATHS.pack([b"f"] * 256), extras=STRANGERS),
        True,
    ),
    "LinkFiles": (link_files, True),
    "Compressed": (expand_all, True),
    "Remove": (repeated("Remove", handle=1, removals=packing.REMOVALS.pack([Removal(b"none", VERSION)] * 256)), True),
    "MakeDirectories": (repeated("MakeDirectories", handle=1, directories=DEEP), True),
    "SetDirectories": (repeated("SetDirectories", handle=1, directories=DEEP), True),
    "Prune": (repeated("Prune", handle=1, vacant=packing.VACANT.pack([Vacant(b"deep", None)] * 256)), True),
    "OpenWrite": (write_all, True),
    "MatchPartial": (
        on_streams(
            open_write(LARGE, b"partial-%d-%d"), asking("MatchPartial", digests=DIGESTS[:32], length=100), again=True
        ),
        True,
    ),
    "OfferChunks": (
        on_streams(open_write(LARGE), asking("OfferChunks", chunks=CHUNKS), again=True),
        True,
    ),
    "CommitStream": (
        on_streams(open_write(), asking("CommitStream", digest=bytes(32), attributes=b"\0")),
        True,
    ),
    "StartRead": (on_streams(open_read, asking("StartRead"), asking("EndRead")), True),
    "StartRead unread": (
        on_streams(open_read, asking("StartRead"), lambda _, stream: credit(stream, 1 << 30)),
        False,
    ),
    "BlockDigests": (on_streams(open_read, asking("BlockDigests", length=LARGE), again=True), True),
    "SkipBlocks": (on_streams(open_read, asking("SkipBlocks", length=LARGE)), True),
    "CutSpan": (on_streams(open_read, asking("CutSpan"), again=True), True),
    "PickChunks": (
        on_streams(open_read, asking("CutSpan"), asking("PickChunks", wanted=b"\xff" * 64)),
        False,
    ),
}


def stage(inbox: Path) -> None:
    """One file of each kind, and directories with many names."""
    with (inbox / "large").open("wb") as large:
        for _ in range(LARGE // BLOCK_BYTES):
            large.write(bytes(BLOCK_BYTES))
    (inbox / "medium").write_bytes(os.urandom(MAX_SMALL_BYTES))
    folder = inbox
    for _ in range(RUNS):
        folder /= "a"
        folder.mkdir()
        for number in range(17_000):
            (folder / f"{number:06}{'n' * 90}").touch()


class Other:
    """The other peer: puts a small file each time it has connected, and remembers how long that took.

    In a process of its own, which does not wait for the threads of the first peer.
    """

    def __init__(self, port: int, key: Path) -> None:
        self._took: list[tuple[float, float]] = []
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_put_again_and_again, args=(port, key, there), daemon=True)
        self._process.start()
        there.close()
        self._here.recv()

    def stop(self) -> None:
        """Stop."""
        self._here.send(None)
        with contextlib.suppress(EOFError):
            self._took = self._here.recv()
        self._process.join(30.0)

    def worst(self, since: float, until: float) -> float:
        """The longest attempt that started in that time."""
        return max((took for began, took in self._took if since <= began < until), default=float("nan"))


def _put_again_and_again(port: int, key: Path, lead: Connection) -> None:
    took = []
    context = context_of(key)
    lead.send(None)
    for number in count():
        began = time.monotonic()
        try:
            _put(port, context, b"other-%d" % number)
        except OSError:
            took.append((began, float("inf")))
        else:
            took.append((began, time.monotonic() - began))
        if lead.poll(0.5):
            break
    lead.send(took)


def _put(port: int, context: ssl.SSLContext, name: bytes) -> None:
    content = b"some content"
    with Client(port, context) as client:
        client.open_directory()
        client.call("Describe", handle=1, paths=packing.PATHS.pack([name]))
        heads = packing.SMALL_HEADS.pack([SmallFile(name, content, blake3(content).digest(), None)])
        client.send(client.box("PutSmall", handle=1, stream=1, policy="replace", heads=heads) + data(1, content))
        while True:
            box = client.next_box()
            if isinstance(box, dict) and b"outcomes" in box:
                return


def measure(name: str, where: str, inbox: Path, peers: int, connections: int, seconds: float, rest: float) -> list[str]:
    """One line of the table."""
    attack, reads = ATTACKS[name]
    folder = Path(tempfile.mkdtemp(prefix="realize-hostile-", dir=where))
    site = HostileSite(folder, inbox=inbox)
    site.start()
    try:
        assert site.daemon is not None
        pid, port = site.daemon.pid, site.port
        idle = resident_memory(pid)
        keys = [folder / "command.key", folder / SECOND][:peers]
        contexts = [context_of(key) for key in keys]
        other = Other(port, folder / KEY)
        knows: tuple[str, ...] = (commands.DELTAS, commands.EXTRA_ATTRIBUTES, commands.HARD_LINKS)
        if name == "Compressed":
            knows = (*knows, commands.ZSTD)
        clients = [
            Client(port, context, f"{id(context)}-{n}", capabilities=knows)
            for n in range(connections)
            for context in contexts
        ]
        for client in clients:
            client.open_directory()
        began = time.monotonic()
        floods = [Flood(client, attack(client), reads=reads) for client in clients]
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        for flood in floods:
            flood.stop()
        left = time.monotonic()
        time.sleep(3.0)
        before = cpu_seconds(pid)
        time.sleep(5.0)
        used = cpu_seconds(pid) - before
        other.stop()
        time.sleep(max(0.0, left + rest - time.monotonic()))
        peak, after = peak_memory(pid), resident_memory(pid)
        waits = other.worst(began, left), other.worst(left, float("inf"))
        ended = time.monotonic()
        site.stop()
        took = time.monotonic() - ended
    finally:
        site.stop()
        shutil.rmtree(folder)
    sent = sum(flood.sent for flood in floods)
    return [
        name,
        mebibytes(sent),
        mebibytes(idle),
        mebibytes(peak),
        mebibytes(after),
        f"{waits[0]:.2f}",
        f"{waits[1]:.2f}",
        f"{used:.2f}",
        f"{took:.1f}",
    ]


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--peers", type=int, choices=(1, 2), default=1)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rest", type=float, default=60.0)
    parser.add_argument("--only", default=",".join(ATTACKS))
    arguments = parser.parse_args()
    print_machine()
    inbox = Path(tempfile.mkdtemp(prefix="realize-hostile-inbox-", dir=arguments.folder))
    heads = ["command", "sent MiB", "idle MiB", "peak MiB", "after MiB", "other s", "then s", "CPU s", "stop s"]
    lines = []
    try:
        stage(inbox)
        for name in arguments.only.split(","):
            line = measure(
                name,
                arguments.folder,
                inbox,
                arguments.peers,
                arguments.connections,
                arguments.seconds,
                arguments.rest,
            )
            lines.append(line)
            print("  ".join(line), flush=True)
    finally:
        shutil.rmtree(inbox)
    print(table(heads, lines))


if __name__ == "__main__":
    main()
