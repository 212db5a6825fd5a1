"""Measure how fast files move over a link with a round trip of 80 ms, compared with no distance.

    python -m benchmarks.distance [--quick] [--folder /dev/shm] [--round-trip 0.08]

The link is a proxy between the command and the daemon that delays both directions by half of the round trip and does
not limit the rate; the first line shows the rate that it reaches by itself.
The target for the large file, start-up included, is 0.9 of one window for each round trip, which is the most that its
stream can do, or of the rate without the distance, if that is less.
10,000 files of 10 KiB may take 1.3 times as long as without the distance, plus 3 seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from benchmarks import moving
from benchmarks.distant_link import distant
from benchmarks.machine import print_machine
from benchmarks.procfs import Ran, run_watched
from benchmarks.tables import table
from realize.wire.streams import WINDOW_BYTES
from tests.processes import ENVIRONMENT, Site

MIB: Final = 1 << 20
SHARE: Final = 0.9
"""The fraction of one window for each round trip that the large file must reach."""


def capacity(round_trip: float, size: int, rate: float | None = None) -> float:
    """The rate of the link in bytes per second, from the first byte to the last, between two plain sockets."""
    listening = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        accepted, _ = listening.accept()
        with accepted:
            for _ in range(size // MIB):
                accepted.sendall(bytes(MIB))

    threading.Thread(target=send, daemon=True).start()
    with (
        distant(listening.getsockname()[1], round_trip, rate) as port,
        socket.create_connection(("127.0.0.1", port)) as end,
    ):
        received = len(end.recv(1))
        started = time.perf_counter()
        while data := end.recv(MIB):
            received += len(data)
        took = time.perf_counter() - started
    listening.close()
    return received / took


def stage_large(folder: Path, size: int) -> None:
    """One file that does not compress."""
    folder.mkdir()
    piece = os.urandom(MIB)
    with (folder / "large").open("wb") as file:
        for number in range(size // MIB):
            file.write(number.to_bytes(8) + piece[8:])


def move(where: str, size: int | None, round_trip: float) -> Ran:
    """Move one file of ``size``, or the many small ones; over a link with this round trip, if it has one."""
    folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=where))
    site = Site(folder)
    source = folder / "source"
    if size is None:
        moving.stage_small(source)
    else:
        stage_large(source, size)
    environment = {**ENVIRONMENT, "REALIZE_CONFIG": str(folder / "realize.toml")}
    argv = site.command("--quiet", str(source), "hostb::inbox")
    try:
        site.start()
        if not round_trip:
            ran = run_watched(argv, environment)
        else:
            with distant(site.port, round_trip) as site.port:
                site.write_command_config()
                ran = run_watched(argv, environment)
        if ran.code:
            raise SystemExit(ran.errors)
        return ran
    finally:
        site.stop()
        shutil.rmtree(folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a large file of 512 MiB instead of 2 GiB")
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--round-trip", type=float, default=0.08, metavar="SECONDS")
    arguments = parser.parse_args()
    print_machine()
    size = 512 * MIB if arguments.quick else 2048 * MIB
    print(f"the link carries {capacity(arguments.round_trip, size) / 1e6:,.0f} MB/s")
    lines = []
    near, far = (move(arguments.folder, size, trip) for trip in (0.0, arguments.round_trip))
    most = min(WINDOW_BYTES / arguments.round_trip, size / near.seconds)
    rate = size / far.seconds
    lines.append(
        [
            f"one file of {size >> 20} MiB",
            f"{near.seconds:.2f}",
            f"{far.seconds:.2f}",
            f"{rate / 1e6:.0f} MB/s, {rate / most:.2f} of {most / 1e6:.0f}",
            f"at least {SHARE}",
            "met" if rate >= SHARE * most else "MISSED",
        ]
    )
    near, far = (move(arguments.folder, None, trip) for trip in (0.0, arguments.round_trip))
    allowed = 1.3 * near.seconds + 3
    lines.append(
        [
            "10,000 files of 10 KiB",
            f"{near.seconds:.2f}",
            f"{far.seconds:.2f}",
            f"{10_000 / far.seconds:,.0f} files/s",
            f"at most {allowed:.2f} s",
            "met" if far.seconds <= allowed else "MISSED",
        ]
    )
    print(table(["", "s near", f"s {arguments.round_trip * 1000:.0f} ms away", "", "", ""], lines))


if __name__ == "__main__":
    main()
