"""Measure what logging at info costs when 10,000 small files are moved, compared with logging errors only.

    python -m benchmarks.logging_cost [--folder /dev/shm] [--pairs 7] [--daemon-only]

Runs of `benchmarks.moving` come in pairs, one of each kind, in changing order, so that other load on the machine
affects both.
At info the daemon logs to stderr, which is a file here, and the command to a file of its own unless ``--daemon-only``
is given.
The output has, for each pair, how many more seconds and CPU seconds (of both sides together) the run at info took, and
the medians; on a busy machine, CPU seconds are more reliable.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.machine import print_machine
from benchmarks.moving import measure


def run(level: str, place: str, *, daemon_only: bool) -> tuple[float, float]:
    """Seconds, and CPU seconds of both sides, of one run at that level."""
    folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=place))
    logs = level == "info" and not daemon_only
    command = ["--log-level", level, "--log-file", str(folder / "command.log")] if logs else []
    # The daemon logs at info where it listens, and that line is needed.
    daemon = ["--log-level", f"{level},daemon=info"]
    ran, of_daemon, _ = measure("small", folder, daemon=daemon, command=command)
    return ran.seconds, ran.cpu + of_daemon


def main() -> None:
    """Print a line for each pair, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--daemon-only", action="store_true")
    arguments = parser.parse_args()
    print_machine()
    rows = []
    print(f"{'pair':>6} {'error':>8} {'info':>8} {'more':>7} {'cpu error':>10} {'cpu info':>9} {'more':>7}")
    for pair in range(arguments.pairs):
        levels = ("error", "info") if pair % 2 else ("info", "error")
        found = {level: run(level, arguments.folder, daemon_only=arguments.daemon_only) for level in levels}
        rows.append((*found["error"], *found["info"]))
        show(str(pair + 1), rows[-1])
    show("median", tuple(statistics.median(column) for column in zip(*rows, strict=True)))
    for name, quiet, loud in (("seconds", 0, 2), ("CPU seconds", 1, 3)):
        print(f"median of the pairs, {name}: {statistics.median(row[loud] / row[quiet] for row in rows) - 1:+.2%}")


def show(name: str, row: tuple[float, ...]) -> None:
    """One line."""
    quiet, cpu_quiet, loud, cpu_loud = row
    print(
        f"{name:>6} {quiet:8.2f} {loud:8.2f} {loud / quiet - 1:+7.1%} {cpu_quiet:10.2f} {cpu_loud:9.2f} "
        f"{cpu_loud / cpu_quiet - 1:+7.1%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
