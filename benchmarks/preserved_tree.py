"""Measure how long a tree takes with all that can be preserved, and how long it takes rsync in the same rounds.

    python -m benchmarks.preserved_tree [--folder /dev/shm] [--entries 10000 | --tree FOLDER] [--rounds 3] [--local]
        [--plain] [--before CHECKOUT]

The tree has small files of many sizes, directories, symlinks and hard links; one file of 20 has an access control list,
one an extended attribute, and two belong to other users, who are there on every system. ``--tree`` takes a copy of
another one.
Realize moves it with ``--preserve=all --links``, rsync with ``-aHAX --remove-source-files`` and without fsync; with
``--plain`` Realize moves it with ``--links``, and rsync with ``-rlpt``. To a daemon rsync goes over plain TCP; with
``--local`` neither has one.
With ``--before``, the code of another checkout has its turn, too. Run it as root, or nothing gets another owner.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

from attrs import frozen

from benchmarks.attributes import ACCEPTED, ACL, USERS
from benchmarks.machine import ROOT, print_machine
from benchmarks.tables import mebibytes, table
from benchmarks.tree_moves import Run, move_by_realize, move_by_rsync
from tests.processes import ENVIRONMENT

DIRECTORIES: Final = 7
"""Of a hundred entries; what is neither of these is a hard link, four names of each file."""
FILES: Final = 80
SYMLINKS: Final = 5

MOST_BYTES: Final = 200_000
SEED: Final = 7


def stage(folder: Path, entries: int) -> None:
    """Make a tree, the same each time."""
    chance = random.Random(SEED)
    directories: list[Path] = []
    for number in range(max(1, entries * DIRECTORIES // 100)):
        above = chance.choice(directories) if directories and chance.random() < 0.6 else folder
        directories.append(above / f"d{number:05}")
        directories[-1].mkdir(parents=True)
    for number in range(entries * FILES // 100):
        path = chance.choice(directories) / f"f{number:06}.txt"
        path.write_bytes(chance.randbytes(min(int(chance.lognormvariate(7.5, 1.2)), MOST_BYTES)))
        path.chmod(0o755 if number % 7 == 0 else 0o644)
        if number % 20 == 1:
            os.setxattr(path, "user.checksum", b"%032d" % number)
        if number % 20 == 2:
            os.setxattr(path, "system.posix_acl_access", ACL)
        if number % 10 == 3 and os.geteuid() == 0:
            user = USERS[number % len(USERS)]
            os.chown(path, user, user)
    for number in range(entries * SYMLINKS // 100):
        (chance.choice(directories) / f"s{number:06}").symlink_to(f"target-{number}")
    for number in range(entries * (100 - DIRECTORIES - FILES - SYMLINKS) // 400):
        path = chance.choice(directories) / f"h{number:06}"
        path.write_bytes(chance.randbytes(1500))
        for other in range(3):
            os.link(path, chance.choice(directories) / f"{path.name}-{other}")


@frozen
class Tool:
    """What moves the tree; ``checkout`` has the code of Realize, None stands for rsync."""

    name: str
    checkout: Path | None
    options: tuple[str, ...]

    def move(self, folder: Path, *, local: bool) -> Run:
        """Move ``source`` of a folder."""
        if self.checkout is None:
            return move_by_rsync(folder, self.options, local=local)
        with _code_of(self.checkout):
            return move_by_realize(folder, self.options, local=local, accept=ACCEPTED)


@contextlib.contextmanager
def _code_of(checkout: Path) -> Iterator[None]:
    """Processes that are started meanwhile run the code of that checkout."""
    before = ENVIRONMENT["PYTHONPATH"]
    ENVIRONMENT["PYTHONPATH"] = str(checkout)
    try:
        with contextlib.chdir(checkout):
            yield
    finally:
        ENVIRONMENT["PYTHONPATH"] = before


def measure(tools: list[Tool], tree: Path, where: str, rounds: int, *, local: bool) -> dict[str, list[Run]]:
    """All runs, by tool."""
    runs: dict[str, list[Run]] = {each.name: [] for each in tools}
    for number in range(rounds):
        turn = number % len(tools)
        for tool in [*tools[turn:], *tools[:turn]]:
            folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=where))
            try:
                subprocess.run(["cp", "-a", tree, folder / "source"], check=True)
                run = tool.move(folder, local=local)
                left = sum(len(files) for _, _, files in os.walk(folder / "source"))
                if run.ran.code or left:
                    raise SystemExit(f"{tool.name}: {left} files are left: {run.ran.errors}")
            finally:
                shutil.rmtree(folder)
            runs[tool.name].append(run)
    return runs


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--tree", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--before", type=Path)
    asked = parser.parse_args()
    print_machine()
    options = ("--links",) if asked.plain else ("--links", "--preserve=all")
    tools = [Tool("realize", ROOT, options), Tool("rsync", None, ("-rlpt",) if asked.plain else ("-aHAX",))]
    if asked.before is not None:
        tools.append(Tool("before", asked.before.resolve(), options))
    with tempfile.TemporaryDirectory(prefix="realize-bench-", dir=asked.folder) as folder:
        tree = Path(folder) / "tree"
        if asked.tree is None:
            stage(tree, asked.entries)
        else:
            subprocess.run(["cp", "-a", asked.tree, tree], check=True)
        runs = measure(tools, tree, asked.folder, asked.rounds, local=asked.local)
    lines = [
        [
            name,
            f"{median(each.ran.seconds for each in of):.2f}",
            f"{median(each.ran.cpu for each in of):.2f}",
            f"{median(each.daemon_cpu for each in of):.2f}",
            mebibytes(median(each.ran.peak for each in of)),
            f"{median(one.ran.seconds / each.ran.seconds for one, each in zip(runs['realize'], of, strict=True)):.2f}",
        ]
        for name, of in runs.items()
    ]
    print(table(["", "seconds", "CPU s command", "daemon", "MiB command", "realize/it"], lines))


if __name__ == "__main__":
    main()
