"""What pacing at 100 MiB/s costs the sender: steps of a timer, the kernel (``SO_MAX_PACING_RATE``), and both together.

    python -m benchmarks.kernel_pacing [ROUNDS]    # 5 rounds, a minute and a half

Plain blocking sockets over loopback, nothing of ours: the least that any implementation pays.
The kernel paces a TCP socket by itself, with or without the ``fq`` qdisc, since Linux 4.13.
Medians of the rounds: CPU of the sending process per GiB, the rate, and the worst 100 ms over its share.
"""

from __future__ import annotations

import multiprocessing
import socket
import statistics
import sys
import time
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.machine import print_machine
from benchmarks.tables import table
from benchmarks.throttle_accuracy import MIB, PIECE, Events, windows

RATE_BPS: Final = 100 * MIB
ROUND_S: Final = 2.0
SETTLING_S: Final = 0.2
SPAWN: Final = multiprocessing.get_context("spawn")
SO_MAX_PACING_RATE: Final = 47
"""A number of setsockopt(2) on Linux, which Python does not name."""

CASES: Final[dict[str, tuple[float, float]]] = {
    "unlimited": (0, 0),
    "steps of 3 ms": (0.003, 0),
    "steps of 6 ms": (0.006, 0),
    "steps of 8 ms": (0.008, 0),
    "steps of 20 ms": (0.02, 0),
    "the kernel alone": (0, 1.0),
    "steps of 20 ms, the kernel at 1.03": (0.02, 1.03),
    "steps of 40 ms, the kernel at 1.03": (0.04, 1.03),
}
"""By name: the length of a step in seconds, and the rate of the kernel over the limit; 0 is neither."""


def receive(pipe: Connection) -> None:
    """Take connections, one after the other; after each, send the worst 100 ms over their share."""
    listening = socket.create_server(("127.0.0.1", 0))
    pipe.send(listening.getsockname()[1])
    while True:
        connection, _ = listening.accept()
        events: Events = []
        while data := connection.recv(1 << 18):
            events.append((time.monotonic(), len(data), 0))
        _, most = windows(events, 0.1, events[0][0] + SETTLING_S, events[-1][0])
        pipe.send(most / (0.1 * RATE_BPS))


def send(port: int, step: float, kernel: float) -> tuple[float, float]:
    """Send for a while: seconds of CPU per GiB, and MiB per second."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if kernel:
            connection.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, int(RATE_BPS * kernel))
        sent, begun, used = 0, time.monotonic(), time.process_time()
        while (now := time.monotonic() - begun) < ROUND_S:
            due = int(now * RATE_BPS) - sent if step else len(PIECE)
            sent += due
            while due > 0:
                connection.sendall(PIECE[:due])
                due -= len(PIECE)
            if step:
                time.sleep(step - (time.monotonic() - begun) % step)
        return (time.process_time() - used) / sent * 1024 * MIB, sent / (time.monotonic() - begun) / MIB


def main() -> None:
    """Measure all cases in turns, and print a table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print_machine()
    here, there = SPAWN.Pipe()
    SPAWN.Process(target=receive, args=(there,), daemon=True).start()
    port = here.recv()
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, case in CASES.items():
            found[name].append((*send(port, *case), here.recv()))
    rows = []
    for name, results in found.items():
        cost, rate, worst = (statistics.median(column) for column in zip(*results, strict=True))
        rows.append([name, f"{cost:.3f}", f"{rate:.1f}", f"{worst:.3f}"])
    print(table(["100 MiB/s", "s of CPU per GiB", "MiB/s", "worst 100 ms"], rows))


if __name__ == "__main__":
    main()
