"""Measure how fast the command starts, and what an idle daemon costs.

    python -m benchmarks.startup [--quick] [--folder /dev/shm] [--before CHECKOUT]

`realize --help`, `--version`, what a shell asks for completion, `realize status`, and the move of one file, to another
local folder and to a daemon that runs, are whole processes: the median of 15, and of the CPU time.
With `--before`, another checkout that has its own `.venv` runs each in turns, and the median of the ratios is shown.
The daemon is measured when it has loaded ahead what a move may need: its resident memory, and for 30 seconds how often
per second any of its threads wakes up (voluntary context switches), without a client and with one that is connected and
idle.
It looks at its directories every 5 seconds, in a thread, and on an idle connection each side pings every 40 seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Final

from attrs import frozen

from benchmarks.machine import ROOT, print_machine
from benchmarks.probe import ProbedSite, present
from benchmarks.procfs import Ran, resident_memory, run_watched, wake_ups
from benchmarks.tables import spread, table, verdict
from realize.concurrency.loading_ahead import LOAD_AFTER_S
from tests.processes import ENVIRONMENT

QUIET: Final = LOAD_AFTER_S + 2.0
"""Seconds that a daemon is left idle before it is measured."""

MOST_MEMORY: Final = 70
"""MiB that an idle daemon may take: it has 61 when it has started, and 64 when it has loaded everything."""

RATIOS: Final = ("ratio", "of CPU")
"""What is compared with another checkout."""

START: Final = "from realize.cli.start import main; main()"
"""What the installed command does."""


@frozen
class Checkout:
    """A checkout of Realize whose command is started."""

    root: Path
    python: str

    def run(self, *arguments: str, **environ: str) -> Ran:
        """Run the command to its end."""
        environment = {**ENVIRONMENT, "PYTHONPATH": str(self.root), **environ}
        # Without -P, the folder in which the benchmark was started would come first: the same code twice.
        ran = run_watched([self.python, "-P", "-c", START, *arguments], environment)
        if ran.code:
            raise SystemExit(ran.errors)
        return ran


def moved(checkout: Checkout, folder: Path, destination: str, arrives: Path, **environ: str) -> Ran:
    """Move one file."""
    file = folder / "source" / "file"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x" * 10_000)
    arrives.unlink(missing_ok=True)
    ran = checkout.run("--quiet", str(file.parent), destination, **environ)
    if not arrives.exists() or file.exists():
        raise SystemExit(f"the file was not moved: {ran.errors}")
    return ran


def rate_of_wake_ups(pid: int, seconds: float) -> float:
    """How often per second an idle process wakes up."""
    time.sleep(QUIET)
    before = wake_ups(pid)
    time.sleep(seconds)
    return (wake_ups(pid) - before) / seconds


def timed(
    what: str, run: Callable[[Checkout], Ran], checkouts: Sequence[Checkout], count: int, most: float
) -> list[str]:
    """A line about a command of the first checkout; beside another one, they take turns."""
    for checkout in checkouts:
        run(checkout)  # compiles what is not compiled yet
    rounds = [[run(checkout) for checkout in checkouts] for _ in range(count)]
    seconds = [now.seconds for now, *_ in rounds]
    middle = median(seconds)
    compared = (attrgetter("seconds"), attrgetter("cpu")) if len(checkouts) > 1 else ()
    ratios = [f"{median(part(now) / part(before) for now, before in rounds):.2f}" for part in compared]
    cpu = f"{median(now.cpu for now, *_ in rounds):.3f} s"
    return [what, f"{middle:.3f} s", spread(seconds), f"{most} s", verdict(middle, most), cpu, *ratios]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 runs, 10 seconds")
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument("--only", choices=["start", "idle"], help="the start of the command, or the idle daemon")
    arguments = parser.parse_args()
    print_machine()
    count, seconds = (5, 10.0) if arguments.quick else (15, 30.0)
    folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=arguments.folder))
    checkouts = [Checkout(ROOT, sys.executable)]
    if arguments.before is not None:
        checkouts.append(Checkout(arguments.before, str(arguments.before / ".venv" / "bin" / "python")))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        site = ProbedSite(folder)
        site.start()
        stack.callback(site.stop)
        assert site.daemon is not None
        if arguments.only != "idle":
            ratios = RATIOS if len(checkouts) > 1 else ()
            lines = starts(site, checkouts, count)
            print(table(["", "seconds", "min to max", "at most", "", "CPU", *ratios], lines))
        if arguments.only != "start":
            print(table(["", "measured", "at most", ""], idle(site, site.daemon.pid, seconds)))


def starts(site: ProbedSite, checkouts: Sequence[Checkout], count: int) -> list[list[str]]:
    """Lines about the start of the command."""
    folder = site.folder
    config = {"REALIZE_CONFIG": str(folder / "realize.toml")}

    def local(checkout: Checkout) -> Ran:
        return moved(checkout, folder, str(folder / "destination"), folder / "destination" / "file")

    def pushed(checkout: Checkout) -> Ran:
        return moved(checkout, folder, "hostb::inbox", site.inbox / "file", **config)

    commands: list[tuple[str, Callable[[Checkout], Ran], float]] = [
        ("realize --help", lambda each: each.run("--help"), 0.08),
        ("realize --version", lambda each: each.run("--version"), 0.08),
        ("completion", lambda each: each.run("location", "", "hos", "move", _REALIZE_COMPLETE="1", **config), 0.08),
        ("realize status", lambda each: each.run("status", "hostb", **config), 0.2),
        ("move of one file, local", local, 0.2),
        ("move of one file to a daemon", pushed, 0.2),
    ]
    return [timed(what, run, checkouts, count, most) for what, run, most in commands]


def idle(site: ProbedSite, pid: int, seconds: float) -> list[list[str]]:
    """Lines about the daemon while nothing happens."""
    lines = []
    for clients in ("no client", "one idle client"):
        with present(site) if clients == "one idle client" else contextlib.nullcontext():
            rate = rate_of_wake_ups(pid, seconds)
            memory = resident_memory(pid) / (1 << 20)
        most = f"{MOST_MEMORY} MiB"
        lines.append([f"idle daemon, {clients}", f"{memory:.1f} MiB", most, verdict(memory, MOST_MEMORY)])
        lines.append(["", f"{rate:.2f} wake-ups/s", "2", verdict(rate, 2)])
    return lines


if __name__ == "__main__":
    main()
