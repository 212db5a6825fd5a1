"""The process that serves the campaigns' own file systems, controlled through its standard input.

    python -m campaigns.file_server strict FOLDER FOLDER
    python -m campaigns.file_server disk FOLDER BYTES

``strict`` mounts a source and a destination; at each removal of a file from the source, it checks at once whether a
power cut would leave the file at the destination.
``disk`` mounts a disk for a loop device.
Requests and answers are JSON lists, one on each line.
"""

from __future__ import annotations

import base64
import json
import random
import stat
import sys
import threading
from collections.abc import Callable
from typing import Any

from campaigns.disk import DiskTree
from campaigns.fuse import Server, mount
from campaigns.strict import Node, StrictTree


class StrictPair:
    """A source, and a destination that keeps only what was synced."""

    def __init__(self, source: str, destination: str) -> None:
        self._base: tuple[bytes, ...] = ()
        self._removed = 0
        self._lost: list[tuple[str, str]] = []
        self._bare: list[tuple[str, str]] = []
        self.source, self.destination = StrictTree(), StrictTree()
        for tree, folder in ((self.source, source), (self.destination, destination)):
            _start(mount(folder), tree)
        self.source.removing = self._look

    def _look(self, directory: Node, name: bytes, node: Node) -> None:
        """Note, before a file is removed from the source, what a power cut would leave of it at the destination."""
        place = (*self.source.path(directory), name)
        kept = self.destination.find((*self._base, *place))
        self._removed += 1
        shown = b"/".join(place).decode(errors="backslashreplace")
        if kept is None:
            self._lost.append((shown, "has no durable name"))
        elif kept.durable.content != node.content:
            self._lost.append((shown, "has no durable content"))
        elif stat.S_IMODE(kept.durable.mode) & 0o777 != stat.S_IMODE(node.mode) & 0o777:
            self._bare.append((shown, f"mode {kept.durable.mode:o} instead of {node.mode:o}"))
        elif kept.durable.mtime_ns != node.mtime_ns:
            self._bare.append((shown, f"mtime {kept.durable.mtime_ns} instead of {node.mtime_ns}"))

    def begin(self, base: str, *, noreplace: bool) -> None:
        """Declare everything on both sides old and durable; source files belong in ``base`` at the destination."""
        self._base = tuple(part for part in base.encode().split(b"/") if part)
        self.destination.noreplace = noreplace
        for tree in (self.source, self.destination):
            tree.settle()

    def removals(self) -> dict[str, Any]:
        """How many files were removed from the source, and what a cut would have left of some of them at that time."""
        return {"removed": self._removed, "lost": self._lost, "bare": self._bare}

    def durable(self) -> dict[str, str]:
        """What a power cut would leave at the destination: the SHA-256 for each path, in base64."""
        return {
            base64.b64encode(b"/".join(place)).decode(): digest for place, digest in self.destination.durable_files()
        }

    def cut(self) -> None:
        """Cut the power of the destination; removals from the source persist, which is the harder case."""
        self.destination.cut()


class Disk:
    """A disk under a loop device."""

    def __init__(self, folder: str, size: int) -> None:
        self.tree = DiskTree(size)
        _start(mount(folder), self.tree)

    def load(self, path: str) -> None:
        """Write an image onto the disk."""
        self.tree.load(path)

    def fail(self) -> None:
        """Take nothing any more, until it is healed or another image is loaded."""
        self.tree.fails = True

    def heal(self) -> None:
        """Take what is written from now on; what failed is not written."""
        self.tree.fails = False

    def leave(self, path: str, kept: str, seed: int) -> int:
        """Write the image that a power cut would leave; returns how many blocks are lost."""
        return self.tree.leave(path, kept, random.Random(seed))


class _Locked(Server):
    """A server whose tree may be read by another thread between two requests."""

    lock: threading.RLock

    def _reply(self, unique: int, code: int, number: int, body: bytes) -> None:
        with self.lock:
            super()._reply(unique, code, number, body)


_lock = threading.RLock()


def _start(fd: int, tree: StrictTree) -> None:
    server = _Locked(fd, tree)
    server.lock = _lock
    threading.Thread(target=server.run, daemon=True).start()


def main(kind: str, first: str, second: str) -> None:
    """Serve until the standard input ends."""
    served: StrictPair | Disk = StrictPair(first, second) if kind == "strict" else Disk(first, int(second))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name, positional, named = json.loads(line)
        method: Callable[..., Any] = getattr(served, name)
        with _lock:
            answer = method(*positional, **named)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
