"""Compare standing moves with other programs that move, or copy, what lands in a directory; all over loopback.

    python -m benchmarks.standing [--quick] [--tools realize,lsyncd,syncthing,rclone] [--folder /dev/shm]

``latency`` is from the close of a file of 10 KiB, one a second, until it is there and gone from the source (of a
program that removes nothing: until it is there).
``landing`` is 100,000 files of 10 KiB that land in 10 minutes (``--quick``: 10,000 in one), in 100 directories: the CPU
time of both ends with all their child processes, as seconds and as a share of a core until all had arrived, the most
memory that they held together, and how long after the last file all had arrived.
``idle`` is the CPU time of both ends while nothing happens, with 10,000 directories at the source after that.
Only what people run of a program is counted, not what makes the files and looks for them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from attrs import frozen

from benchmarks.machine import print_machine
from benchmarks.procfs import cpu_seconds_of_tree, resident_memory, tree
from benchmarks.standing_tools import TOOLS, Arrivals, StandingTool
from benchmarks.tables import mebibytes, table

SIZE_BYTES: Final = 10 << 10
LATENCY_FILES: Final = 120
IDLE_S: Final = 60.0
IDLE_DIRECTORIES: Final = 10_000
LANDING_DIRECTORIES: Final = 100
LANDING_S: Final = 600.0
LANDING_FILES: Final = 100_000
PATIENCE_S: Final = 240.0


@frozen
class Used:
    """What the processes of a tool used so far: CPU seconds, and the most memory of both ends together, in bytes."""

    cpu_s: float
    peak: int


class Meter:
    """Counts what a tool uses, from its making to `stop`."""

    def __init__(self, tool: StandingTool) -> None:
        self._tool = tool
        self._began = self._cpu()
        self._peak = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> Used:
        """What was used."""
        self._stopping.set()
        self._thread.join()
        return Used(self._cpu() - self._began, self._peak)

    def _cpu(self) -> float:
        return sum(cpu_seconds_of_tree(process.pid) for process in self._tool.processes)

    def _sample(self) -> None:
        while True:
            pids = [pid for process in self._tool.processes for pid in tree(process.pid)]
            self._peak = max(self._peak, sum(map(resident_memory, pids)))
            if self._stopping.wait(0.5):
                return


def latency(tool: StandingTool) -> list[float]:
    """Seconds from the close of each file, sorted."""
    arrivals = Arrivals(tool)
    content = os.urandom(SIZE_BYTES)
    for number in range(LATENCY_FILES):
        name = f"latency{number}"
        (tool.source / name).write_bytes(content)
        arrivals.closed(name, SIZE_BYTES)
        time.sleep(0.5 + (number * 0.618) % 1)  # no rhythm that a program could have, too
    missing = arrivals.wait(PATIENCE_S)
    if missing:
        raise SystemExit(f"{tool.name}: {missing} files did not arrive")
    return sorted(arrivals.latencies)


def idle(tool: StandingTool) -> float:
    """The share of a core, of both ends, while nothing happens."""
    for number in range(IDLE_DIRECTORIES):
        (tool.source / f"many{number // 100}" / f"d{number}").mkdir(parents=True)
    time.sleep(30)  # until all of them are watched
    meter = Meter(tool)
    time.sleep(IDLE_S)
    return meter.stop().cpu_s / IDLE_S


def landing(tool: StandingTool, files: int, seconds: float) -> tuple[Used, float, int]:
    """What was used, how long after the last file all had arrived, and how many had not."""
    for number in range(LANDING_DIRECTORIES):
        (tool.source / f"landing{number}").mkdir()
    content = os.urandom(SIZE_BYTES)
    meter = Meter(tool)
    began = time.monotonic()
    for number in range(files):
        (tool.source / f"landing{number % LANDING_DIRECTORIES}" / f"f{number}").write_bytes(content)
        ahead = began + number * seconds / files - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
    ended = time.monotonic()
    missing = files
    while missing and time.monotonic() < ended + PATIENCE_S:
        time.sleep(0.2)
        missing = files - sum(len(os.listdir(each)) for each in tool.destination.glob("landing*"))
        if not missing and tool.removes:
            missing = sum(len(os.listdir(each)) for each in tool.source.glob("landing*"))
    return meter.stop(), time.monotonic() - ended, missing


def rows(tools: list[type[StandingTool]], folder: str, files: int, seconds: float) -> Iterator[list[str]]:
    """A line for each tool."""
    for kind in tools:
        here = Path(tempfile.mkdtemp(prefix="standing-", dir=folder))
        tool = kind(here)
        try:
            tool.start()
            latencies = latency(tool)
            used, later, missing = landing(tool, files, seconds)
            share = idle(tool)
        finally:
            tool.stop()
            shutil.rmtree(here)
        row = [
            tool.name,
            f"{median(latencies):.2f}",
            f"{quantiles(latencies, n=100)[98]:.2f}",
            f"{share * 100:.2f} %",
            f"{used.cpu_s:.1f}",
            f"{used.cpu_s / (seconds + later) * 100:.0f} %",
            mebibytes(used.peak),
            f"{later:.1f}",
            f"{tool.how}{f'; {missing} files MISSING' if missing else ''}",
        ]
        print(*row, file=sys.stderr)
        yield row


def load() -> str:
    """What else keeps this machine busy."""
    return Path("/proc/loadavg").read_text().split()[0]


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = {kind.__name__.lower(): kind for kind in TOOLS}
    parser.add_argument("--quick", action="store_true", help="10,000 files in a minute land, not ten times as many")
    parser.add_argument("--tools", default=",".join(names), help=f"some of {','.join(names)}")
    parser.add_argument("--folder", default="/dev/shm")
    arguments = parser.parse_args()
    print_machine()
    part = 0.1 if arguments.quick else 1.0
    files, seconds = int(LANDING_FILES * part), LANDING_S * part
    kinds = [names[name] for name in arguments.tools.split(",")]
    before = load()
    head = ["", "latency s", "99 %", "idle", "landing CPU s", "of a core", "MiB", "all after s", ""]
    print(table(head, rows(kinds, arguments.folder, files, seconds)))
    print(f"load before and after, of {os.cpu_count()} cores: {before}, {load()}")


if __name__ == "__main__":
    main()
