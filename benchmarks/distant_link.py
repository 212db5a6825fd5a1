"""A TCP proxy that makes what passes through it late, and no faster than a line of some rate, in a process of its own.

    python -m benchmarks.distant_link PORT SECONDS [BYTES_PER_SECOND]

Prints its own port, then forwards every connection to PORT on this machine until its stdin ends.
Everything arrives SECONDS after it was sent, and all connections share a line of BYTES_PER_SECOND in either direction.

What is under way waits in pipes, without being copied (splice(2)), so that the proxy takes little of the processors.
The kernel of a sender takes all of that for confirmed.
So neither TCP's slow start nor the limits of the kernel's buffers show here.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import itertools
import os
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from tests.processes import ENVIRONMENT, ROOT

PIPE_BYTES: Final = 1 << 20
"""What is put into one pipe at most; more pipes are opened as long as more is under way."""

MIN_SPLICED_BYTES: Final = 1 << 14
"""What is shorter is copied, since each pipe takes two descriptors."""

ROUTER_BYTES: Final = 1 << 20
"""What the proxy's sockets hold of what the line has not taken yet, as the buffer of a router does."""

SLICE_S: Final = 0.002
"""Seconds of the line's time that one connection takes at once, and that may be taken in advance."""


Pipe: TypeAlias = tuple[int, int]
Pipes: TypeAlias = "collections.deque[Pipe]"


class Piece(NamedTuple):
    """Some bytes under way, in a pipe or by themselves."""

    size: int
    content: bytes | Pipe


class Line:
    """One direction of the link, which all connections share."""

    def __init__(self, delay: float, rate: float | None) -> None:
        self._delay, self._rate = delay, rate
        self._free = 0.0
        self._lock = threading.Lock()
        self._slice = PIPE_BYTES if rate is None else min(PIPE_BYTES, max(1 << 14, int(rate * SLICE_S)))

    def take(self, source: socket.socket, pipes: Pipes) -> tuple[float, Piece]:
        """Take what is there from ``source`` when the line is free; returns when it arrives at the other end.

        The piece is empty at the end of the connection.
        """
        poll = select.poll()
        poll.register(source, select.POLLIN)
        while True:
            poll.poll()
            with self._lock:
                now = time.monotonic()
                if (wait := self._free - now - SLICE_S) <= 0:
                    piece = self._piece(source, pipes)
                    if self._rate is None:
                        return now + self._delay, piece
                    self._free = max(self._free, now) + piece.size / self._rate
                    return self._free + self._delay, piece
            time.sleep(wait)

    def _piece(self, source: socket.socket, pipes: Pipes) -> Piece:
        [there] = struct.unpack("i", fcntl.ioctl(source, termios.FIONREAD, bytes(4)))
        if there < MIN_SPLICED_BYTES:
            data = source.recv(MIN_SPLICED_BYTES)
            return Piece(len(data), data)
        pipe = pipes.popleft() if pipes else _new_pipe()
        return Piece(os.splice(source.fileno(), pipe[1], self._slice), pipe)


def _new_pipe() -> Pipe:
    pipe = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return pipe


class Way:
    """One direction of one connection: a thread that reads, and one that waits and writes."""

    def __init__(self, source: socket.socket, sink: socket.socket, line: Line) -> None:
        self._source, self._sink, self._line = source, sink, line
        self._pieces: collections.deque[tuple[float, Piece]] = collections.deque()
        self._pipes: Pipes = collections.deque()
        """Empty ones."""
        self._filled = threading.Semaphore(0)
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    def _read(self) -> None:
        size = 1
        while size:
            try:
                due, piece = self._line.take(self._source, self._pipes)
            except OSError:
                due, piece = time.monotonic(), Piece(0, b"")
            size = piece.size
            self._pieces.append((due, piece))
            self._filled.release()

    def _write(self) -> None:
        size = 1
        while size:
            self._filled.acquire()
            due, (size, content) = self._pieces.popleft()
            if (early := due - time.monotonic()) > 0:
                time.sleep(early)
            try:
                if isinstance(content, bytes):
                    self._sink.sendall(content)
                else:
                    self._pour(size, content)
            except OSError:
                # The reader goes on until its own side is closed as well.
                with contextlib.suppress(OSError):
                    self._source.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        while self._pipes:
            _close(self._pipes.popleft())

    def _pour(self, size: int, pipe: Pipe) -> None:
        try:
            while size:
                size -= os.splice(pipe[0], self._sink.fileno(), size)
        except OSError:
            _close(pipe)
            raise
        self._pipes.append(pipe)


def _close(pipe: Pipe) -> None:
    for end in pipe:
        os.close(end)


def _routed(end: socket.socket) -> socket.socket:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROUTER_BYTES // 2)  # the kernel doubles it
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return end


def carry(target: int, delay: float, rate: float | None = None) -> int:
    """Forward connections to ``target`` from now on; returns the port to connect to."""
    listening = _routed(socket.socket())
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    there, back = Line(delay, rate), Line(delay, rate)

    def accept() -> None:
        for _ in itertools.count():
            near, _ = listening.accept()
            far = _routed(socket.socket())
            far.connect(("127.0.0.1", target))
            Way(_routed(near), far, there)
            Way(far, near, back)

    threading.Thread(target=accept, daemon=True).start()
    return int(listening.getsockname()[1])


@contextlib.contextmanager
def distant(port: int, round_trip: float, rate: float | None = None) -> Iterator[int]:
    """A port that leads to ``port`` over a link with this round trip in seconds, of ``rate`` bytes per second."""
    limit = () if rate is None else (str(rate),)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.distant_link", str(port), str(round_trip / 2), *limit],
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
    print(carry(int(sys.argv[1]), *map(float, sys.argv[2:])), flush=True)
    sys.stdin.read()
