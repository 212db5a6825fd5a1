"""Measure how fast the real command moves files into a real daemon over loopback TLS, both on this machine.

    python -m benchmarks.moving [--folder /dev/shm] [--runs 3] [--metrics] [--rights write] [--pull] [large] [small]

`large` is one file of 2 GiB, `small` 10,000 files of 10 KiB.
This measures Realize alone; `benchmarks.compare` compares it with other tools.
Each run is timed as a whole process, start-up included, everything verified and durable.
With `--metrics` the daemon counts for its metrics; with `--pull` it is the source.
CPU seconds are those of the command and of the daemon, memory is the peak of each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.machine import print_machine
from benchmarks.procfs import Ran, cpu_seconds, peak_memory, run_watched
from benchmarks.tables import mebibytes, table
from tests.processes import ENVIRONMENT, Site

CHUNK = 1 << 20
RIGHTS = ("read", "write", "remove")


def stage_large(folder: Path) -> int:
    """One file of 2 GiB that does not compress."""
    folder.mkdir()
    blocks = [os.urandom(CHUNK) for _ in range(16)]
    with (folder / "large").open("wb") as file:
        for number in range(2048):
            file.write(blocks[number % 16])
    return 2048 * CHUNK


def stage_small(folder: Path) -> int:
    """10,000 files of 10 KiB in 100 directories."""
    content = os.urandom(10 * 1024 + 10_000)
    for number in range(100):
        (folder / f"d{number:02}").mkdir(parents=True)
    for number in range(10_000):
        (folder / f"d{number % 100:02}" / f"f{number:05}").write_bytes(content[number : number + 10 * 1024])
    return 10_000 * 10 * 1024


WORKLOADS = {"large": (stage_large, 1), "small": (stage_small, 10_000)}


def measure(
    name: str,
    folder: Path,
    *,
    daemon: Sequence[str] = (),
    command: Sequence[str] = (),
    rights: Sequence[str] = RIGHTS,
    pull: bool = False,
) -> tuple[Ran, float, int]:
    """The command, and the CPU seconds and peak memory of the daemon, of one run with these further options."""
    stage, _ = WORKLOADS[name]
    site = Site(folder, rights)
    source = site.inbox / "source" if pull else folder / "source"
    stage(source)
    site.start(*daemon)
    assert site.daemon is not None
    try:
        before = cpu_seconds(site.daemon.pid)
        environment = {**ENVIRONMENT, "REALIZE_CONFIG": str(folder / "realize.toml")}
        ends = ("hostb::inbox", str(folder / "target")) if pull else (str(source), "hostb::inbox")
        ran = run_watched(site.command("--quiet", *command, *ends), environment)
        if ran.code:
            raise SystemExit(ran.errors)
        return ran, cpu_seconds(site.daemon.pid) - before, peak_memory(site.daemon.pid)
    finally:
        site.stop()
        shutil.rmtree(folder)


def report(
    names: list[str],
    where: str,
    runs: int,
    *,
    daemon: Sequence[str] = (),
    rights: Sequence[str] = RIGHTS,
    pull: bool = False,
) -> None:
    """Print a line for each workload."""
    lines = []
    for name in names:
        folders = [Path(tempfile.mkdtemp(prefix="realize-bench-", dir=where)) for _ in range(runs)]
        measured = [measure(name, folder, daemon=daemon, rights=rights, pull=pull) for folder in folders]
        seconds = median(ran.seconds for ran, _, _ in measured)
        count = WORKLOADS[name][1]
        lines.append(
            [
                name,
                f"{seconds:.2f}",
                f"{2 * 1024**3 / seconds / 1e6:.0f} MB/s" if count == 1 else f"{count / seconds:.0f} files/s",
                f"{median(ran.cpu for ran, _, _ in measured):.2f}",
                f"{median(cpu for _, cpu, _ in measured):.2f}",
                mebibytes(median(ran.peak for ran, _, _ in measured)),
                mebibytes(median(peak for _, _, peak in measured)),
                "",
            ]
        )
    print(table(["workload", "seconds", "rate", "CPU s command", "daemon", "MiB command", "daemon", ""], lines))


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", choices=[[], *WORKLOADS])
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--rights", default=",".join(RIGHTS))
    parser.add_argument("--pull", action="store_true")
    arguments = parser.parse_args()
    print_machine()
    daemon = ["--metrics-addr", "0"] if arguments.metrics else []
    workloads, rights = arguments.workloads or list(WORKLOADS), arguments.rights.split(",")
    report(workloads, arguments.folder, arguments.runs, daemon=daemon, rights=rights, pull=arguments.pull)


if __name__ == "__main__":
    main()
