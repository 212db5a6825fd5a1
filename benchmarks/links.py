"""Measure how fast symlinks move to a daemon on this machine, and how fast rsync moves the same ones to its own.

    python -m benchmarks.links [--folder /dev/shm] [--links 100000] [--directories 100] [--hard N]
        [--rounds 5] [--local]

Both tools have their turn in each round, the other one first each time; each run has a tree, and a daemon, of its own.
Realize is timed as ``realize --links`` over TLS, verified by its answers and durable; rsync as
``rsync -rlt --remove-source-files`` over plain TCP, without fsync, which it has for contents only.
With ``--local`` neither has a daemon.
With ``--hard`` they are hard links instead, N names of each file of 1 KiB, all in other directories: these are
moved with ``--preserve mode,times,hardlinks``, and with ``rsync -rltH``.
CPU seconds are those of the command and, for Realize, of its daemon.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from attrs import frozen

from benchmarks.machine import print_machine
from benchmarks.tables import mebibytes, table
from benchmarks.tree_moves import Run, move_by_realize, move_by_rsync


@frozen
class Tree:
    """How many symlinks there are, and in how many directories; or names of files, if a file has ``hard`` of them."""

    links: int
    directories: int
    hard: int = 0

    @property
    def options(self) -> tuple[str, ...]:
        """What Realize is told."""
        return ("--preserve", "mode,times,hardlinks") if self.hard else ("--links",)

    @property
    def files(self) -> int:
        """How many inodes of files there are."""
        return -(-self.links // self.hard) if self.hard else 0

    def stage(self, folder: Path) -> None:
        """Make them; each leads to a file beside its directory, which need not be there."""
        for number in range(self.directories):
            (folder / f"d{number:04}").mkdir(parents=True)
        for number in range(self.links):
            path = folder / f"d{number % self.directories:04}" / f"l{number:07}"
            if not self.hard:
                os.symlink(f"../releases/{number:07}/current", path)
            elif number < self.files:
                path.write_bytes(number.to_bytes(4, "big") * 256)
            else:
                first = number % self.files
                os.link(folder / f"d{first % self.directories:04}" / f"l{first:07}", path)


def by_realize(folder: Path, tree: Tree, *, local: bool) -> Run:
    """Move a tree with Realize."""
    tree.stage(folder / "source")
    return move_by_realize(folder, tree.options, local=local)


def by_rsync(folder: Path, tree: Tree, *, local: bool) -> Run:
    """Move a tree with rsync."""
    tree.stage(folder / "source")
    return move_by_rsync(folder, ["-rltH" if tree.hard else "-rlt"], local=local)


TOOLS: dict[str, Callable[..., Run]] = {"realize": by_realize, "rsync": by_rsync}


def measure(where: str, tree: Tree, rounds: int, *, local: bool) -> dict[str, list[Run]]:
    """All runs, by tool."""
    runs: dict[str, list[Run]] = {name: [] for name in TOOLS}
    for number in range(rounds):
        order = list(TOOLS.items())
        for name, move in order if number % 2 == 0 else reversed(order):
            folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=where))
            try:
                run = move(folder, tree, local=local)
                if run.ran.code:
                    raise SystemExit(f"{name}: {run.ran.errors}")
                if tree.hard and tree.files != _inodes(folder / ("target" if local or name == "rsync" else "inbox")):
                    raise SystemExit(f"{name} has not kept the hard links")
                left = sum(len(files) + len(directories) for _, directories, files in os.walk(folder / "source"))
                if left != tree.directories:
                    raise SystemExit(f"{name} has left symlinks at the source")
            finally:
                shutil.rmtree(folder)
            runs[name].append(run)
    return runs


def _inodes(folder: Path) -> int:
    """How many files there are, whatever their names."""
    return len({path.stat().st_ino for path in folder.rglob("*") if path.is_file()})


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--links", type=int, default=100_000)
    parser.add_argument("--directories", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--hard", type=int, default=0, metavar="N")
    asked = parser.parse_args()
    print_machine()
    tree = Tree(asked.links, asked.directories, asked.hard)
    runs = measure(asked.folder, tree, asked.rounds, local=asked.local)
    lines = [
        [
            name,
            f"{(seconds := median(each.ran.seconds for each in of)):.2f}",
            f"{asked.links / seconds:,.0f}",
            f"{median(each.ran.cpu for each in of):.2f}",
            f"{median(each.daemon_cpu for each in of):.2f}",
            mebibytes(median(each.ran.peak for each in of)),
            "",
        ]
        for name, of in runs.items()
    ]
    print(table(["tool", "seconds", "links/s", "CPU s command", "daemon", "MiB command", ""], lines))
    ours, theirs = runs.values()
    ratios = [one.ran.seconds / other.ran.seconds for one, other in zip(ours, theirs, strict=True)]
    print(f"\nrealize takes {median(ratios):.2f} times as long (median of {len(ratios)} rounds)")


if __name__ == "__main__":
    main()
