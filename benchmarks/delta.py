"""Measure the cost of replacing a file of 1 GiB by another version of it, through a real daemon over loopback TLS.

    python -m benchmarks.delta [--folder /dev/shm] [--runs 3] [--rights read,write,remove] [--pull] [WORKLOAD ...]

| workload | the new version |
|---|---|
| blocks | 1 % of the blocks of 4 KiB differ, and 1 MiB and 123 bytes are inserted near the beginning |
| moved | 1 MiB has moved from the first third to the last |
| same | the same |
| nothing | has nothing in common with the old one |

Each run is timed as a whole process, start-up included, everything verified and durable.
The bytes on the wire are what the loopback device counted, in both directions together.
CPU seconds are those of the command and of the daemon.
With `--pull` the daemon is the source.
The old version is moved in the same way first: without the right `read`, and with `--pull`, the destination compares
only with files that came from the same peer.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.comparison.workloads import write_changed
from benchmarks.machine import print_machine
from benchmarks.procfs import cpu_seconds, loopback_bytes, peak_memory
from tests.processes import Site

MIB = 1 << 20
SIZE = 1024 * MIB


def write_old(path: Path, rng: random.Random) -> None:
    """The old version, at the destination."""
    with path.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(rng.randbytes(MIB))


def blocks(old: Path, new: Path, rng: random.Random) -> None:
    """One in a hundred blocks differs, and everything after the first million bytes is shifted."""
    write_changed(old, new, rng)


def moved(old: Path, new: Path, _: random.Random) -> None:
    """One piece has moved, and the content in between is 1 MiB closer to the beginning."""
    with old.open("rb") as source, new.open("wb") as target:
        for start, end in ((0, 300), (301, 700), (300, 301), (700, 1024)):
            source.seek(start * MIB)
            for _block in range(start, end):
                target.write(source.read(MIB))


def same(old: Path, new: Path, _: random.Random) -> None:
    """Nothing differs."""
    shutil.copyfile(old, new)


def nothing(_: Path, new: Path, rng: random.Random) -> None:
    """Everything differs."""
    write_old(new, rng)
    with new.open("ab") as file:
        file.write(b"and longer")


WORKLOADS: dict[str, Callable[[Path, Path, random.Random], None]] = {
    function.__name__: function for function in (blocks, moved, same, nothing)
}


def measure(name: str, folder: Path, rights: list[str], *, pull: bool) -> tuple[float, float, float, float, float, int]:
    """Seconds, MB of content, MB on the wire, CPU seconds of both sides, and the daemon's peak memory, for one run."""
    site = Site(folder, rights)
    here = folder / "here"
    here.mkdir()
    rng = random.Random("delta")
    old, new = (here, site.inbox) if pull else (site.inbox, here)
    write_old(new / "big.bin", rng)
    site.start()
    assert site.daemon is not None
    ends = ("hostb::inbox", str(here)) if pull else (str(here), "hostb::inbox")
    try:
        site.realize("copy", "--quiet", *ends, timeout=600).check_returncode()
        WORKLOADS[name](old / "big.bin", new / "big.bin", rng)
        shutil.copyfile(new / "big.bin", folder / "expected")
        daemon, children = cpu_seconds(site.daemon.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
        wire, started = loopback_bytes(), time.perf_counter()
        done = site.realize("--json", "--on-conflict", "replace", *ends, timeout=600)
        seconds, wire = time.perf_counter() - started, loopback_bytes() - wire
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode or not filecmp.cmp(old / "big.bin", folder / "expected", shallow=False):
            raise SystemExit(done.stderr or "the file that arrived is another one")
        command = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
        sent = next(line["sent"] for line in map(json.loads, done.stdout.splitlines()) if line["event"] == "finished")
        return (
            seconds,
            sent / 1e6,
            wire / 1e6,
            command,
            cpu_seconds(site.daemon.pid) - daemon,
            peak_memory(site.daemon.pid),
        )
    finally:
        site.stop()
        shutil.rmtree(folder)


def main() -> None:
    """Print a line for each workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", choices=[[], *WORKLOADS], metavar="WORKLOAD")
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rights", default="read,write,remove")
    parser.add_argument("--pull", action="store_true")
    arguments = parser.parse_args()
    print_machine()
    print("workload    seconds   MB sent  MB on wire  cpu command  cpu daemon  daemon peak")
    rights = arguments.rights.split(",")
    for name in arguments.workloads or WORKLOADS:
        rows = []
        for _ in range(arguments.runs):
            folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=arguments.folder))
            rows.append(measure(name, folder, rights, pull=arguments.pull))
        seconds, sent, wire, command, daemon, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        peak_mib = memory / (1 << 20)
        print(f"{name:10} {seconds:8.2f} {sent:9.1f} {wire:11.1f} {command:12.2f} {daemon:11.2f} {peak_mib:8.0f} MiB")


if __name__ == "__main__":
    main()
