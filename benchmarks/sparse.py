"""Measure moving a sparse file through a real daemon over loopback TLS, and what rsync does with the same file.

    python -m benchmarks.sparse [--folder /tmp] [--gib 20] [--content 1] [--runs 3] [WORKLOAD ...]

The file has ``--gib`` GiB, of which ``--content`` MiB are content: pieces of 64 KiB, evenly spread; all else is holes.

| workload | what |
|---|---|
| push | the file is moved to the daemon |
| pull | … from the daemon |
| local | … from one directory to another, without a daemon |
| there | it is pushed again, though the destination has it: only compared |
| resumed | it is pushed, where half of it is there as a partial |
| delta | it is pushed where a former version is, of which one piece differs |

rsync copies the file between two directories of this machine, by a pipe, with `--sparse`; with `--checksum` where the
file is there already; the tools take turns.
Each run is timed as a whole process, start-up included; of Realize everything is verified and durable then.
CPU seconds are those of the command, with its children, and of the daemon; room is what the destination allocates.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.machine import print_machine
from benchmarks.procfs import Ran, cpu_seconds, run_watched
from benchmarks.tables import mebibytes, table
from tests.leftovers import leave_partial
from tests.processes import ENVIRONMENT, Site

PIECE = 64 << 10
WORKLOADS = ("push", "pull", "local", "there", "resumed", "delta")
RSYNC = {
    "push": ["--sparse", "--remove-source-files"],
    "there": ["--sparse", "--checksum"],
    "delta": ["--sparse", "--no-whole-file"],
}


def write_sparse(path: Path, size: int, content: int, *, differs: bool = False) -> None:
    """Make the file; ``differs`` makes one of its pieces another one."""
    rng = random.Random("sparse")
    count = content // PIECE
    with path.open("wb") as file:
        for number in range(count):
            piece = rng.randbytes(PIECE)
            file.seek(size // count * number)
            file.write(piece[::-1] if differs and number == count // 2 else piece)
        file.truncate(size)


def prepare(workload: str, source: Path, target: Path, size: int, content: int) -> None:
    """Put there what is there before the run."""
    source.mkdir(exist_ok=True)
    target.mkdir(exist_ok=True)
    write_sparse(source / "disk.img", size, content)
    if workload == "there":
        write_sparse(target / "disk.img", size, content)
    if workload == "delta":
        write_sparse(target / "disk.img", size, content, differs=True)
        os.utime(target / "disk.img", (0, 0))  # else rsync takes it for the same
    if workload == "resumed":
        partial = leave_partial(target, "disk.img", b"")
        write_sparse(partial, size, content)
        os.truncate(partial, size // 2)


def measure_realize(workload: str, folder: Path, size: int, content: int) -> tuple[Ran, float, int]:
    """The command, the CPU seconds of the daemon, and the bytes allocated at the destination."""
    site = Site(folder)
    here = folder / "here"
    source, target = (site.inbox, here) if workload == "pull" else (here, site.inbox)
    if workload == "local":
        target = folder / "there"
    prepare(workload, source, target, size, content)
    site.start()
    assert site.daemon is not None
    try:
        before = cpu_seconds(site.daemon.pid)
        ends = {"pull": ("hostb::inbox", str(here)), "local": (str(here), str(target))}
        environment = {**ENVIRONMENT, "REALIZE_CONFIG": str(folder / "realize.toml")}
        ran = run_watched(site.command("--quiet", *ends.get(workload, (str(here), "hostb::inbox"))), environment)
        if ran.code or (source / "disk.img").exists():
            raise SystemExit(ran.errors or "the file is still at the source")
        return ran, cpu_seconds(site.daemon.pid) - before, allocated(target)
    finally:
        site.stop()


def measure_rsync(workload: str, folder: Path, size: int, content: int) -> tuple[Ran, float, int]:
    """The same of rsync, which needs no daemon here."""
    source, target = folder / "source", folder / "target"
    prepare(workload, source, target, size, content)
    ran = run_watched(["rsync", "--archive", *RSYNC[workload], f"{source}/", f"{target}/"])
    if ran.code:
        raise SystemExit(ran.errors)
    return ran, 0.0, allocated(target)


def allocated(target: Path) -> int:
    """What the file takes."""
    return (target / "disk.img").stat().st_blocks * 512


def main() -> None:
    """Print a line for each workload and tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", choices=[[], *WORKLOADS], metavar="WORKLOAD")
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--gib", type=int, default=20)
    parser.add_argument("--content", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-rsync", action="store_true")
    arguments = parser.parse_args()
    print_machine()
    size, content = arguments.gib << 30, arguments.content << 20
    lines = []
    for workload in arguments.workloads or WORKLOADS:
        tools = {"realize": measure_realize}
        if workload in RSYNC and not arguments.no_rsync:
            tools["rsync"] = measure_rsync
        runs: dict[str, list[tuple[Ran, float, int]]] = {tool: [] for tool in tools}
        for _ in range(arguments.runs):
            for tool, measure in tools.items():
                folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=arguments.folder))
                try:
                    runs[tool].append(measure(workload, folder, size, content))
                finally:
                    shutil.rmtree(folder)
        for tool, measured in runs.items():
            seconds, command = median(ran.seconds for ran, _, _ in measured), median(ran.cpu for ran, _, _ in measured)
            daemon, room = median(cpu for _, cpu, _ in measured), median(room for _, _, room in measured)
            peak = median(ran.peak for ran, _, _ in measured)
            figures = [f"{each:.2f}" for each in (seconds, command, daemon)]
            lines.append([workload, tool, *figures, mebibytes(peak), mebibytes(room), ""])
    head = ["workload", "tool", "seconds", "CPU s command", "daemon", "MiB command", "MiB room", ""]
    print(table(head, lines, left=2))


if __name__ == "__main__":
    main()
