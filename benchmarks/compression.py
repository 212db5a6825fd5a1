"""Measure moving content that shrinks, and content that does not, over slow and fast lines, beside ``rsync -z``.

    python -m benchmarks.compression [--folder /tmp] [--mib 16] [--runs 3] [--before CHECKOUT] [WORKLOAD[:LINE] ...]

| workload | what |
|---|---|
| log | one file of lines as a web server writes them |
| logs | the same in files of 10 KiB |
| film | one file of noise, which does not shrink |
| pictures | noise in files of 100 KiB |

| line | what |
|---|---|
| limit | the sender is limited to 1 MiB/s (``--throttle-up``, ``--bwlimit``) |
| line | without a limit, through a relay that carries 1 MiB/s, with a round trip of 50 ms |
| free | without a limit, over loopback; with 16 times as much |

Each is pushed to a daemon with each way of ``--compress``, and by rsync to its own daemon with and without ``-z``
(zstd), in turns.
Each run is timed as a whole process, start-up included; of Realize everything is verified and durable then.
With ``--before`` another checkout pushes the same, to a daemon of its own, so that the default can be compared with it.
CPU seconds are those of the command, and of the daemon (not of rsync's).
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from attrs import evolve

from benchmarks.distant_link import distant
from benchmarks.machine import print_machine
from benchmarks.procfs import Ran, cpu_seconds, run_watched
from benchmarks.tables import table
from benchmarks.tree_moves import rsync_daemon
from tests.processes import ENVIRONMENT, Site

WORKLOADS = ("log", "logs", "film", "pictures")
LINES = ("limit", "line", "free")
RATE_BPS = 1 << 20
ROUND_TRIP_S = 0.05
FREE_TIMES = 16
BLOCK_BYTES = 8 << 20


def log_lines(size: int) -> bytes:
    """So many bytes of a web server's log."""
    rng = random.Random("log")
    users = [f"user{number:05d}" for number in range(3000)]
    paths = ["/api/v1/items", "/static/app.js", "/login", "/health", "/api/v1/orders"]
    lines, length, now = [], 0, 1_700_000_000.0
    while length < size:
        now += rng.random()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        lines.append(
            f"{stamp}.{rng.randrange(1000):03d}Z host{rng.randrange(8)} nginx[{rng.randrange(300, 999)}]: "
            f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)} - {rng.choice(users)} "
            f'"GET {rng.choice(paths)}?id={rng.randrange(10**6)} HTTP/1.1" {rng.choice([200, 200, 200, 304, 404])} '
            f"{rng.randrange(50_000)} rt={rng.random():.3f}\n"
        )
        length += len(lines[-1])
    return "".join(lines).encode()[:size]


def fill(folder: Path, workload: str, size: int) -> None:
    """Make the files of a workload."""
    folder.mkdir()
    block = log_lines(BLOCK_BYTES) if workload.startswith("log") else random.Random("film").randbytes(BLOCK_BYTES)
    each = {"logs": 10 << 10, "pictures": 100 << 10}.get(workload, BLOCK_BYTES)
    pieces = [block[start : start + each] for start in range(0, BLOCK_BYTES, each)]
    for number in range(size // BLOCK_BYTES):
        for place, piece in enumerate(pieces):
            name = f"{number:04d}-{place:04d}" if each < BLOCK_BYTES else "0"
            with (folder / name).open("ab") as file:
                file.write(piece)


def realize(folder: Path, workload: str, line: str, size: int, *options: str, at: Path | None = None) -> Ran:
    """Push by Realize; the CPU seconds of the daemon are added to those of the command."""
    site = Site(folder)
    environment = {**ENVIRONMENT, "REALIZE_CONFIG": str(folder / "realize.toml")}
    if at is not None:
        environment["PYTHONPATH"] = str(at)
    site.start(environ={"PYTHONPATH": environment["PYTHONPATH"]})
    assert site.daemon is not None
    try:
        fill(folder / "here", workload, size)
        with path_to(site.port, line) as port:
            site.port = port
            site.write_command_config()
            limit = ("--throttle-up", str(RATE_BPS)) if line == "limit" else ()
            before = cpu_seconds(site.daemon.pid)
            ran = run_watched(
                site.command("--quiet", *limit, *options, str(folder / "here"), "hostb::inbox"), environment
            )
            return evolve(ran, cpu=ran.cpu + cpu_seconds(site.daemon.pid) - before)
    finally:
        site.stop()


def rsync(folder: Path, workload: str, line: str, size: int, *options: str) -> Ran:
    """Push by rsync to its daemon."""
    fill(folder / "here", workload, size)
    inbox = folder / "inbox"
    inbox.mkdir()
    with rsync_daemon(folder, inbox) as own, path_to(own, line) as port:
        limit = ("--bwlimit=1m",) if line == "limit" else ()
        target = f"rsync://127.0.0.1:{port}/inbox/"
        return run_watched(
            ["rsync", "--archive", "--remove-source-files", *limit, *options, f"{folder / 'here'}/", target]
        )


@contextlib.contextmanager
def path_to(port: int, line: str) -> Iterator[int]:
    """The port to connect to."""
    if line == "line":
        with distant(port, ROUND_TRIP_S, RATE_BPS) as relay:
            yield relay
    else:
        yield port


def main() -> None:
    """Print a line for each workload, line and tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD[:LINE]")
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--mib", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--no-rsync", action="store_true")
    arguments = parser.parse_args()
    if (arguments.mib << 20) % BLOCK_BYTES:
        parser.error(f"--mib is a multiple of {BLOCK_BYTES >> 20}")
    print_machine()
    tools: dict[str, Callable[[Path, str, str, int], Ran]] = {}
    if arguments.before is not None:
        tools["before"] = lambda *run: realize(*run, at=arguments.before)
    for way in ("never", "auto", "always"):
        tools[way] = lambda *run, way=way: realize(*run, "--compress", way)
    if not arguments.no_rsync and shutil.which("rsync"):
        tools["rsync"] = rsync
        tools["rsync -z"] = lambda *run: rsync(*run, "-z", "--compress-choice=zstd")
    lines = []
    for asked in arguments.workloads or WORKLOADS:
        workload, _, only = asked.partition(":")
        for line in (only,) if only else LINES:
            size = (arguments.mib << 20) * (FREE_TIMES if line == "free" else 1)
            runs: dict[str, list[Ran]] = {tool: [] for tool in tools}
            for _ in range(arguments.runs):
                for tool, measure in tools.items():
                    folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=arguments.folder))
                    try:
                        ran = measure(folder, workload, line, size)
                        if ran.code:
                            raise SystemExit(ran.errors)
                        runs[tool].append(ran)
                    finally:
                        shutil.rmtree(folder)
            for tool, measured in runs.items():
                seconds = median(ran.seconds for ran in measured)
                rate = f"{size / seconds / (1 << 20):.1f}"
                cpu = f"{median(ran.cpu for ran in measured):.2f}"
                lines.append([workload, line, tool, f"{seconds:.2f}", rate, cpu])
    print(table(["workload", "line", "tool", "seconds", "MiB/s", "CPU s"], lines, left=3))


if __name__ == "__main__":
    main()
