"""A TCP proxy that delays what passes through it, in a process of its own.

    python -m benchmarks.distant_link PORT SECONDS

Prints its own port, then forwards every connection to PORT on this machine until its stdin ends.
Everything arrives SECONDS after it was sent, at whatever rate: a link with a long delay and a high bandwidth.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

from tests.processes import ENVIRONMENT, ROOT

PIECE: Final = 1 << 18


class Way:
    """One direction of one connection: a thread that reads, and one that waits and writes."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay: float) -> None:
        self._source, self._sink, self._delay = source, sink, delay
        self._pieces: collections.deque[tuple[float, bytes]] = collections.deque()
        self._filled = threading.Semaphore(0)
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    def _read(self) -> None:
        data = b"-"
        while data:
            try:
                data = self._source.recv(PIECE)
            except OSError:
                data = b""
            self._pieces.append((time.monotonic() + self._delay, data))
            self._filled.release()

    def _write(self) -> None:
        while True:
            self._filled.acquire()
            due, data = self._pieces.popleft()
            if (early := due - time.monotonic()) > 0:
                time.sleep(early)
            try:
                if not data:
                    self._sink.shutdown(socket.SHUT_WR)
                    return
                self._sink.sendall(data)
            except OSError:
                # The reader goes on until its own side is closed as well, and drops what it reads.
                with contextlib.suppress(OSError):
                    self._source.shutdown(socket.SHUT_RDWR)
                return


def carry(target: int, delay: float) -> int:
    """Forward connections to ``target`` from now on; returns the port to connect to."""
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        for _ in itertools.count():
            near, _ = listening.accept()
            far = socket.create_connection(("127.0.0.1", target))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Way(near, far, delay)
            Way(far, near, delay)

    threading.Thread(target=accept, daemon=True).start()
    return int(listening.getsockname()[1])


@contextlib.contextmanager
def distant(port: int, round_trip: float) -> Iterator[int]:
    """A port that leads to ``port`` over a link with this round-trip time in seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.distant_link", str(port), str(round_trip / 2)],
        env=ENVIRONMENT,
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.communicate()


if __name__ == "__main__":
    print(carry(int(sys.argv[1]), float(sys.argv[2])), flush=True)
    sys.stdin.read()
