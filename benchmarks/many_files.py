"""Check that time per file and memory stay constant however many files there are, in a tree and in one directory.

    python -m benchmarks.many_files [--counts 1000,...,1000000] [--layouts tree,directory] [--ways push,pull,local]
                                    [--size 1] [--folder /dev/shm] [--options=--OPTION ...]

Files of ``--size`` bytes, 1,000 in a directory or all in one, are moved into a daemon, out of one, or without one.
``first after`` is when the first name that is not a partial was seen at the destination, checked 50 times a second.
Memory is what was resident when a tenth and three tenths of the time were over, and the peak.

A RAM disk takes 5 KiB for each file, 1 KiB if it is empty, and has as many inodes as ``nr_inodes`` says:

    mount -t tmpfs -o size=1g,nr_inodes=0 many FOLDER
"""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from attrs import Factory, define, frozen

from benchmarks.growth import running_site
from benchmarks.machine import print_machine
from benchmarks.procfs import peak_memory, resident_memory, run_watched
from benchmarks.tables import mebibytes, table
from tests.processes import ENVIRONMENT

FILES_IN_A_DIRECTORY: Final = 1000

SAMPLE_INTERVAL_S: Final = 0.2

SHARES: Final = (0.1, 0.3)
"""Shares of the whole time after which the resident memory is shown."""


@frozen
class Case:
    """What is moved, and how."""

    way: str
    """``push``, ``pull`` or ``local``."""
    layout: str
    """``tree`` or ``directory``."""
    count: int
    size: int = 1
    """Bytes of each file."""
    options: Sequence[str] = ()


@define
class Memory:
    """The resident memory of a process, sampled now and then; in bytes."""

    pid: int
    samples: list[tuple[float, int]] = Factory(list)
    """When, and how much."""
    peak: int = 0

    def look(self, now: float) -> None:
        """Take a sample."""
        self.samples.append((now, resident_memory(self.pid)))
        self.peak = max(self.peak, peak_memory(self.pid))

    def shown(self) -> list[str]:
        """What was resident after each of `SHARES`, and the peak, in MiB."""
        return [*(mebibytes(resident_at(self.samples, share)) for share in SHARES), mebibytes(self.peak)]


def resident_at(samples: Sequence[tuple[float, int]], share: float) -> int:
    """The first sample after that share of the time between the first and the last one; 0 without samples."""
    if not samples:
        return 0
    first, last = samples[0][0], samples[-1][0]
    return next(size for at, size in samples if at >= first + share * (last - first))


def stage_files(folder: Path, case: Case) -> None:
    """That many files, all with the same content."""
    content = b"x" * case.size
    folder.mkdir(parents=True, exist_ok=True)
    in_one = case.count if case.layout == "directory" else FILES_IN_A_DIRECTORY
    for start in range(0, case.count, in_one):
        directory = folder / f"d{start // in_one:05}"
        directory.mkdir()
        fd = os.open(directory, os.O_RDONLY)
        for number in range(start, min(start + in_one, case.count)):
            file = os.open(f"f{number:08}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=fd)
            os.write(file, content)
            os.close(file)
        os.close(fd)


def holds_a_file(folder: Path) -> bool:
    """Whether there is a final file directly below a directory of this folder."""
    with os.scandir(folder) as directories:
        for directory in directories:
            if directory.is_dir():
                with os.scandir(directory) as entries:
                    if any(not entry.name.startswith(".") for entry in entries):
                        return True
    return False


def count_files(folder: Path) -> int:
    """Files below a folder; holds no names, of which there may be millions."""
    with os.scandir(folder) as entries:
        return sum(count_files(Path(each.path)) if each.is_dir(follow_symlinks=False) else 1 for each in entries)


def run_case(where: str, case: Case) -> list[str]:
    """Move them; a line of the table."""
    with running_site(where) as site:
        assert site.daemon is not None
        source = site.inbox if case.way == "pull" else site.folder / "source"
        destination = site.inbox if case.way == "push" else site.folder / "arrived"
        destination.mkdir(exist_ok=True)
        stage_files(source, case)
        first: list[float] = []
        command: list[Memory] = []
        daemon = Memory(site.daemon.pid)
        started = sampled = time.perf_counter()

        def look(pid: int) -> None:
            nonlocal sampled
            now = time.perf_counter()
            if not first and holds_a_file(destination):
                first.append(now - started)
            if now - sampled >= SAMPLE_INTERVAL_S:
                sampled = now
                if not command:
                    command.append(Memory(pid))
                command[0].look(now)
                daemon.look(now)

        named = {"push": (str(source), "hostb::inbox"), "pull": ("hostb::inbox", str(destination))}
        ends = named.get(case.way, (str(source), str(destination)))
        ran = run_watched(
            site.command("--quiet", *case.options, *ends),
            {**ENVIRONMENT, "REALIZE_CONFIG": str(site.folder / "realize.toml")},
            look=look,
        )
        daemon.look(time.perf_counter())
        moves = "--dry-run" not in case.options
        arrived, left = count_files(destination), count_files(source)
        if ran.code or (arrived, left) != ((case.count, 0) if moves else (0, case.count)):
            raise SystemExit(ran.errors or f"{arrived} of {case.count} files arrived, and {left} were left")
    of_command = command[0] if command else Memory(0)
    of_command.peak = max(of_command.peak, ran.peak)
    return [
        f"{case.way}, {case.count:,} in a {case.layout}" + "".join(f" {each}" for each in case.options),
        f"{ran.seconds:.2f}",
        f"{ran.seconds / case.count * 1e6:,.0f}",
        f"{first[0]:.2f}" if first else "",
        *of_command.shown(),
        *daemon.shown(),
        "",
    ]


def _parts(kind: Callable[[str], object]) -> Callable[[str], list[object]]:
    return lambda text: [kind(part) for part in text.split(",")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=_parts(int), default=[1_000, 10_000, 100_000, 1_000_000], help="files")
    parser.add_argument("--layouts", type=_parts(str), default=["tree"], help="tree, directory  [default: tree]")
    parser.add_argument("--ways", type=_parts(str), default=["push"], help="push, pull, local  [default: push]")
    parser.add_argument("--size", type=int, default=1, help="bytes of each file  [default: 1]")
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--options", default="", help="further options of realize")
    arguments = parser.parse_args()
    print_machine()
    shares = [f"{share:.0%}" for share in SHARES]
    head = ["", "seconds", "us a file", "first after"]
    head += [f"MiB {who} {when}" for who in ("command", "daemon") for when in (*shares, "peak")]
    for layout in arguments.layouts:
        for way in arguments.ways:
            options = shlex.split(arguments.options)
            cases = [Case(way, layout, count, arguments.size, options) for count in arguments.counts]
            print(table([*head, ""], [run_case(arguments.folder, case) for case in cases]), flush=True)


if __name__ == "__main__":
    main()
