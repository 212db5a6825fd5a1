"""Compare Realize with the tools that people move files with today, on this machine, in one table.

    make bench
    python -m benchmarks.compare [--quick] [--rounds 5] [--only large,small] [--fs shm,disk] [--tools realize,rsync-ssh]
                                 [--round-trip 0.2] [--rate 1G] [--jobs N] [--scale 0.1] [--save FILE [--append]]

Each run is set up anew: source, destination, servers on ports of loopback that are free, keys and certificates.
The time is that from the start of the command to its end.
Then the destination is compared with the original byte by byte, and the source must be gone.
The tools take turns, so that all get the same conditions; each round begins with another one.

``realize/it`` is how long Realize takes as a part of the tool's time: the median of the ratios of all rounds.
``src`` is the command with all processes that come of it, ``dst`` what serves it, with theirs.
Memory is the sum over the processes of a side, looked at ten times a second.
``wire`` is what the loopback device carried; nothing else should use it, and what stunnel hands on counts twice.
``+sync s`` is what it took then to get onto the disk what was not there yet.
Programs that are missing are named with their package, and what needs them is left out.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import random
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from benchmarks.comparison.catalogue import TOOLS, tools_for
from benchmarks.comparison.measuring import Conditions, kind_of_file_system, measure
from benchmarks.comparison.programs import missing, packages, versions
from benchmarks.comparison.report import HEAD, case_title, lines
from benchmarks.comparison.results import Case, Results, Run, Session, write
from benchmarks.comparison.workloads import WORKLOADS, master
from benchmarks.machine import print_machine, this_machine
from benchmarks.tables import mebibytes, table

ON_DISK: Final = ("large", "small")
"""The workloads that are measured on a disk too."""

QUICK: Final = ("large", "small", "mixture")
FAR: Final = ("large", "small")

ROOM: Final = 2.2
"""The room that a run needs, in sizes of what is moved: for both sides."""

UNITS: Final = {"k": 1e3, "M": 1e6, "G": 1e9}


def bits(text: str) -> float:
    """A rate in bits per second, such as 5G."""
    unit = UNITS.get(text[-1:], 1.0)
    return float(text.rstrip("kMG")) * unit


def names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Reads a list of names."""

    def parse(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [each for each in found if each not in known]:
            raise argparse.ArgumentTypeError(f"there is no {unknown[0]}, but {', '.join(known)}")
        return found

    return parse


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds, three workloads, few tools, in memory only")
    parser.add_argument("--rounds", type=int, help="how often each tool has its turn  [default: 5]")
    parser.add_argument("--only", type=names(WORKLOADS), metavar="NAME,...", help=f"workloads: {', '.join(WORKLOADS)}")
    parser.add_argument("--tools", type=names(TOOLS), metavar="NAME,...", help=f"of {', '.join(TOOLS)}")
    parser.add_argument("--fs", type=names(["shm", "disk"]), metavar="shm,disk", help="in memory, on a disk, or both")
    parser.add_argument("--shm", type=Path, default="/dev/shm", metavar="FOLDER", help="[default: %(default)s]")
    parser.add_argument("--disk", type=Path, default="/var/tmp", metavar="FOLDER", help="[default: %(default)s]")
    parser.add_argument("--round-trip", type=float, default=0.0, metavar="SECONDS", help="over a link that is so long")
    parser.add_argument("--rate", type=bits, default=0.0, metavar="BITS", help="and carries so many in a second")
    parser.add_argument("--jobs", type=int, help="so many files at once, where the tool has an option for it")
    parser.add_argument("--scale", type=float, default=1.0, help="the size of the workloads, 1 is the usual one")
    parser.add_argument("--limit", type=float, default=240.0, metavar="SECONDS", help="give up then  [default: 240]")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write each single run there, as a line of JSON")
    parser.add_argument("--append", action="store_true", help="add to that file: more rounds, or other cases")
    return parser.parse_args(argv)


def chosen_cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """What is to be measured."""
    far = bool(arguments.round_trip or arguments.rate)
    workloads = arguments.only or (FAR if far else QUICK if arguments.quick else list(WORKLOADS))
    for fs in arguments.fs or (["shm"] if arguments.quick or far else ["shm", "disk"]):
        for workload in workloads:
            if arguments.only or fs == "shm" or workload in ON_DISK:
                yield Case(workload, fs, arguments.round_trip, arguments.rate, arguments.scale, arguments.jobs)


def usable(wanted: Iterable[str], note: Callable[[str], None]) -> list[str]:
    """The tools whose programs are here; those that are missing are noted."""
    found = []
    for name in wanted:
        if lacking := missing(TOOLS[name].programs):
            note(f"left out, for want of {', '.join(lacking)}: {name} ({packages(lacking)})")
        else:
            found.append(name)
    return found


def in_turns(tools: list[str], rounds: int, first: int) -> Iterator[tuple[int, str]]:
    """The number of the round and the tool of each run; each round begins with the next tool."""
    for number in range(1, rounds + 1):
        start = (first + number - 1) % len(tools) if tools else 0
        yield from ((number, name) for name in tools[start:] + tools[:start])


class Notes:
    """What is to be said once, at once and below the table."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, text: str) -> None:
        """Say something."""
        if text not in self.said:
            self.said.append(text)
            print(text, file=sys.stderr)


def conditions(
    case: Case, arguments: argparse.Namespace, masters: Path, note: Callable[[str], None]
) -> Conditions | None:
    """Where a case is measured and with what; None if that cannot be."""
    where: Path = arguments.shm if case.fs == "shm" else arguments.disk
    if case.fs == "disk" and (kind := kind_of_file_system(where)) in {"tmpfs", "ramfs"}:
        note(f"left out: {where} is in memory ({kind}), name a folder on a disk with --disk")
        return None
    made = master(case.workload, masters, case.scale)
    free, needed = shutil.disk_usage(where).free, ROOM * sum(made.sizes())
    if free < needed:
        note(f"left out: {where} has {mebibytes(free)} MiB free, {case.workload} needs {mebibytes(needed)}")
        return None
    return Conditions(case, made, where / f"realize-benchmarks-{os.getuid()}", arguments.limit)


def compare(arguments: argparse.Namespace, note: Callable[[str], None]) -> Results:
    """Measure all cases."""
    far, masters = bool(arguments.round_trip or arguments.rate), arguments.disk / f"realize-benchmarks-{os.getuid()}"
    masters.mkdir(mode=0o700, exist_ok=True)
    plan = {
        case: arguments.tools or tools_for(case.workload, case.fs, quick=arguments.quick, far=far)
        for case in chosen_cases(arguments)
    }
    plan = {
        case: usable([name for name in tools if case.workload in TOOLS[name].workloads], note)
        for case, tools in plan.items()
    }
    programs = {program for tools in plan.values() for name in tools for program in TOOLS[name].programs}
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    session = Session(secrets.token_hex(4), now, this_machine(), versions(programs))
    if arguments.save:
        write(arguments.save, [session], append=arguments.append)
    runs: list[Run] = []
    for case, tools in plan.items():
        under = conditions(case, arguments, masters, note)
        if under is None:
            continue
        given_up: set[str] = set()
        rounds = arguments.rounds or (3 if arguments.quick else 5)
        for number, name in in_turns(tools, rounds, random.randrange(len(TOOLS))):
            if name in given_up:
                continue
            run = measure(TOOLS[name], under, session.session, number)
            runs.append(run)
            if run.code is None:
                given_up.add(name)
            if arguments.save:
                write(arguments.save, [run], append=True)
            wrong = "" if run.right else f"  WRONG: {'; '.join(run.faults)}"
            print(f"{case_title(case)}, round {number}, {name}: {run.seconds:.2f} s{wrong}", file=sys.stderr)
    return Results([session], runs)


def main() -> None:
    """Measure, print the table."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    print_machine()
    notes = Notes()
    results = compare(arguments, notes)
    print(table(HEAD, list(lines(results)), left=2))
    for workload in dict.fromkeys(case.workload for case in results.cases()):
        print(f"{workload}: {WORKLOADS[workload].title}")
    print(*notes.said, sep="\n")
    if any(run.code is not None and not run.right for run in results.runs):
        sys.exit(1)


if __name__ == "__main__":
    main()
