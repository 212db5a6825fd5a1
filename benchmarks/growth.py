"""Check that memory and answer times stay constant when files and the number of commands grow.

    python -m benchmarks.growth [--quick] [--only sparse,commands] [--folder /dev/shm] [--disk FOLDER]

How many files there are is for `benchmarks.many_files`, how many peers for `benchmarks.peers`.

sparse: one file of 20 GiB that is one hole, moved to ``--disk``, which must have enough space for all of it.

commands: 1, 4, 16 and 64 commands into one daemon, a large file each, while a client asks for ``status`` every 50 ms
over a connection of its own (`benchmarks.probe`).  The daemon is stopped until all commands have connected; otherwise
the order of their start would decide their shares.  ``MB/s`` is all bytes from then until the last command has ended.
``together`` is the total rate while all of the files arrive, sampled ten times a second, without the start and the end
of the commands' processes; the shares of the single commands are those of that time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Final

from attrs import frozen

from benchmarks.machine import print_machine
from benchmarks.probe import Probe, ProbedSite
from benchmarks.procfs import peak_memory, run_watched
from benchmarks.tables import mebibytes, table, verdict
from realize.fs.names import partial_name
from tests.processes import ENVIRONMENT, Site

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SPARSE: Final = 20 * GIB
TIMEOUT: Final = 25.0
"""Seconds to wait for all commands to connect; they give up after 30."""

ANSWER: Final = 0.25
"""Seconds within which 99 of 100 answers to ``status`` should come."""

FAIR: Final = 0.2
"""How far a share may deviate from the mean, as a fraction of it."""


@contextlib.contextmanager
def running_site(where: str, kind: type[Site] = Site) -> Iterator[Site]:
    """A site with a daemon, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=where))
    site = kind(folder)
    try:
        site.start()
        yield site
    finally:
        site.stop()
        shutil.rmtree(folder)


# One file that is larger than memory


def sparse_file(disk: str, size: int) -> list[str]:
    """Move it; a line of the table."""
    free = shutil.disk_usage(disk).free
    if free < size + GIB:
        return ["", f"left out: {disk} has {mebibytes(free)} MiB free", "", "", "", ""]
    with running_site(disk) as site:
        source = site.folder / "source"
        source.mkdir()
        with (source / "sparse").open("wb") as file:
            file.truncate(size)
        environment = {**ENVIRONMENT, "REALIZE_CONFIG": str(site.folder / "realize.toml")}
        ran = run_watched(site.command("--quiet", str(source), "hostb::inbox"), environment)
        assert site.daemon is not None
        daemon = peak_memory(site.daemon.pid)
        arrived = site.inbox / "sparse"
        if ran.code or arrived.stat().st_size != size:
            raise SystemExit(ran.errors or "not everything arrived")
        blocks = arrived.stat().st_blocks * 512
    return [
        f"{size >> 30} GiB, a hole",
        f"{ran.seconds:.1f}",
        f"{size / ran.seconds / 1e6:.0f}",
        mebibytes(ran.peak),
        mebibytes(daemon),
        f"{mebibytes(blocks)} MiB allocated at the destination",
    ]


# Many commands


def established(port: int) -> int:
    """Connections to a port of this machine that the kernel has made, accepted or not."""
    text = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(fields[2].endswith(text) and fields[3] == "01" for fields in map(str.split, lines))


def arrived_sizes(site: Site, count: int) -> list[int]:
    """How many bytes of each file are there."""
    sizes = []
    for number in range(count):
        size = 0
        name = f"f{number:02}"
        for each in (os.fsdecode(partial_name(name.encode())), name):
            with contextlib.suppress(FileNotFoundError):
                size = (site.inbox / each).stat().st_size
        sizes.append(size)
    return sizes


@frozen
class Look:
    """A sample of how much of each file has arrived."""

    at: float
    sizes: list[int]


def competition(looks: Sequence[Look], size: int) -> tuple[Look, Look] | None:
    """The first and the last sample at which all files of ``size`` bytes are in flight; None if there are not two."""
    under_way = [look for look in looks if all(0 < each < size for each in look.sizes)]
    return (under_way[0], under_way[-1]) if len(under_way) > 1 else None


def gains(first: Look, last: Look) -> list[int]:
    """How much each file got between the two samples."""
    return [after - before for before, after in zip(first.sizes, last.sizes, strict=True)]


def shares(first: Look, last: Look) -> list[float]:
    """The same as fractions of the mean."""
    gained = gains(first, last)
    return [each / mean(gained) for each in gained] if any(gained) else []


def rate(first: Look, last: Look) -> float:
    """The total rate, in bytes per second."""
    return sum(gains(first, last)) / (last.at - first.at)


def many_commands(where: str, count: int, total: int) -> list[str]:
    """Run them; a line of the table."""
    size = total // count // MIB * MIB
    with running_site(where, ProbedSite) as site:
        assert isinstance(site, ProbedSite)
        assert site.daemon is not None
        piece = os.urandom(MIB)
        for number in range(count):
            (site.folder / f"source{number:02}").mkdir()
            with (site.folder / f"source{number:02}" / f"f{number:02}").open("wb") as file:
                for block in range(size // MIB):
                    file.write(block.to_bytes(8) + piece[8:])
        probe = Probe(site, 0.05)
        before = established(site.port)
        os.kill(site.daemon.pid, signal.SIGSTOP)
        commands: list[subprocess.Popen[bytes]] = []
        try:
            commands = [
                site.spawn("--quiet", str(site.folder / f"source{number:02}"), "hostb::inbox")
                for number in range(count)
            ]
            deadline = time.monotonic() + TIMEOUT
            while (connected := established(site.port) - before) < count and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            os.kill(site.daemon.pid, signal.SIGCONT)
        started = time.perf_counter()
        looks = []
        while any(command.poll() is None for command in commands):
            looks.append(Look(time.perf_counter(), arrived_sizes(site, count)))
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        waits = sorted(probe.finish())
        daemon = peak_memory(site.daemon.pid)
        codes = {command.returncode for command in commands} - {0}
        if codes:
            raise SystemExit(f"commands ended with {sorted(codes)}")
    compared = competition(looks, size)
    found = shares(*compared) if compared is not None else []
    # The request that came while the daemon was stopped has waited for us, not for the daemon.
    waits = waits[:-1]
    p99 = waits[min(len(waits) - 1, int(len(waits) * 0.99))]
    fair = f"{min(found):.2f} to {max(found):.2f}" if found else "never all at once"
    missed = [] if connected == count else [f"only {connected} had connected when it began"]
    if found and not (min(found) >= 1 - FAIR and max(found) <= 1 + FAIR):
        missed.append("shares MISSED")
    return [
        f"{count} x {size >> 20} MiB",
        f"{seconds:.2f}",
        f"{count * size / seconds / 1e6:.0f}",
        f"{rate(*compared) / 1e6:.0f}" if compared is not None else "",
        f"{p99 * 1000:.0f}",
        f"{waits[-1] * 1000:.0f}",
        f"{len(waits)}",
        verdict(p99, ANSWER),
        fair,
        mebibytes(daemon),
        "; ".join(missed),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 GiB, and 16 commands with 1 GiB")
    parser.add_argument("--only", default="sparse,commands", help="parts  [default: all]")
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument(
        "--disk", default=tempfile.gettempdir(), help="where the sparse file goes  [default: %(default)s]"
    )
    arguments = parser.parse_args()
    print_machine()
    parts = arguments.only.split(",")
    if "sparse" in parts:
        line = sparse_file(arguments.disk, GIB if arguments.quick else SPARSE)
        print(table(["", "seconds", "MB/s", "MiB command", "MiB daemon", ""], [line]), flush=True)
    if "commands" in parts:
        total = GIB if arguments.quick else 4 * GIB
        lines = [
            many_commands(arguments.folder, count, total)
            for count in ([1, 4, 16] if arguments.quick else [1, 4, 16, 64])
        ]
        head = ["", "seconds", "MB/s", "together", "p99 ms", "worst", "of", "", "shares", "MiB daemon", ""]
        print(table(head, lines))


if __name__ == "__main__":
    main()
