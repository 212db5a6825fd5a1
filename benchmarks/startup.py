"""Measure how fast the command starts, and what an idle daemon costs.

    python -m benchmarks.startup [--quick] [--folder /dev/shm]

`realize --help` and the move of one file from one local folder to another are whole processes, the median of 15.
The daemon is measured after two idle seconds: its resident memory, and for 30 seconds how often per second any of its
threads wakes up (voluntary context switches), without a client and with one that is connected and idle.
On a connection, each side sends a keepalive every 15 seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.machine import print_machine
from benchmarks.probe import ProbedSite, present
from benchmarks.procfs import Ran, resident_memory, run_watched, wake_ups
from benchmarks.tables import spread, table, verdict
from tests.processes import ENVIRONMENT

QUIET: Final = 2.0
"""Seconds that a daemon is left idle before it is measured."""

COMMAND: Final = [sys.executable, "-m", "realize.cli.main"]


def helped() -> Ran:
    """Ask for help."""
    return run_watched([*COMMAND, "--help"], ENVIRONMENT)


def moved(folder: Path) -> Ran:
    """Move one file, source and destination local."""
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source" / "file").write_bytes(b"x" * 10_000)
    ran = run_watched([*COMMAND, "--quiet", str(folder / "source"), str(folder / "destination")], ENVIRONMENT)
    if not (folder / "destination" / "file").exists() or (folder / "source" / "file").exists():
        raise SystemExit(f"the file was not moved: {ran.errors}")
    return ran


def rate_of_wake_ups(pid: int, seconds: float) -> float:
    """How often per second an idle process wakes up."""
    time.sleep(QUIET)
    before = wake_ups(pid)
    time.sleep(seconds)
    return (wake_ups(pid) - before) / seconds


def timed(what: str, runs: list[Ran], most: float) -> list[str]:
    """A line about processes that ran to their end."""
    for ran in runs:
        if ran.code:
            raise SystemExit(ran.errors)
    seconds = [ran.seconds for ran in runs]
    middle = median(seconds)
    return [what, f"{middle:.3f} s", spread(seconds), f"{most} s", verdict(middle, most)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 runs, 10 seconds")
    parser.add_argument("--folder", default="/dev/shm")
    arguments = parser.parse_args()
    print_machine()
    count, seconds = (5, 10.0) if arguments.quick else (15, 30.0)
    folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=arguments.folder))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        lines = [
            timed("realize --help", [helped() for _ in range(count)], 0.25),
            timed("move of one file, local", [moved(folder) for _ in range(count)], 0.5),
        ]
        site = ProbedSite(folder)
        site.start()
        stack.callback(site.stop)
        assert site.daemon is not None
        pid = site.daemon.pid
        for clients in ("no client", "one idle client"):
            with present(site) if clients == "one idle client" else contextlib.nullcontext():
                rate = rate_of_wake_ups(pid, seconds)
                memory = resident_memory(pid) / (1 << 20)
            lines.append([f"idle daemon, {clients}", f"{memory:.1f} MiB", "", "60 MiB", verdict(memory, 60)])
            lines.append(["", f"{rate:.2f} wake-ups/s", "", "2", verdict(rate, 2)])
    print(table(["", "measured", "min to max", "at most", ""], lines))


if __name__ == "__main__":
    main()
