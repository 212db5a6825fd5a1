"""How fast the real command moves files into a real daemon over loopback TLS, both ends on this machine.

    python -m benchmarks.moving [--folder /dev/shm] [--runs 3] [--metrics] [large] [small]

`large` is one file of 2 GiB, `small` 10,000 files of 10 KiB.
Each run is timed as a whole process, start-up included, everything verified and durable.
With `--metrics` the daemon counts for its metrics.
CPU seconds are those of the command and of the daemon, memory is the peak of each.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.processes import Site

CHUNK = 1 << 20


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


def peak(pid: int) -> int:
    """Peak memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


def cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    name: str, folder: Path, *, daemon: Sequence[str] = (), command: Sequence[str] = ()
) -> tuple[float, float, float, int]:
    """Seconds, CPU seconds of both ends, and the daemon's peak memory, of one run with these further options."""
    stage, _ = WORKLOADS[name]
    site = Site(folder)
    source = folder / "source"
    stage(source)
    site.start(*daemon)
    assert site.daemon is not None
    try:
        before_daemon, before_children = cpu(site.daemon.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        done = site.realize("--quiet", *command, str(source), "hostb::inbox", timeout=600)
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(done.stderr)
        seconds_of_command = after.ru_utime + after.ru_stime - before_children.ru_utime - before_children.ru_stime
        return seconds, seconds_of_command, cpu(site.daemon.pid) - before_daemon, peak(site.daemon.pid)
    finally:
        site.stop()
        shutil.rmtree(folder)


def main() -> None:
    """Print a line for each workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", choices=[[], *WORKLOADS])
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--metrics", action="store_true")
    arguments = parser.parse_args()
    options = ["--metrics-addr", "0"] if arguments.metrics else []
    print(f"{'workload':10} {'seconds':>8} {'rate':>16} {'cpu command':>12} {'cpu daemon':>11} {'daemon peak':>12}")
    for name in arguments.workloads or WORKLOADS:
        rows = []
        for _ in range(arguments.runs):
            folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=arguments.folder))
            rows.append(measure(name, folder, daemon=options))
        seconds, command, daemon, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        count = WORKLOADS[name][1]
        rate = f"{2 * 1024**3 / seconds / 1e6:.0f} MB/s" if count == 1 else f"{count / seconds:.0f} files/s"
        print(f"{name:10} {seconds:8.2f} {rate:>16} {command:12.2f} {daemon:11.2f} {memory:8} MiB")


if __name__ == "__main__":
    main()
