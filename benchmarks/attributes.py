"""Measure what owners, access control lists and extended attributes cost, and what they cost rsync in the same rounds.

    python -m benchmarks.attributes [--folder /dev/shm] [--files 20000] [--rounds 5] [--local]

Each file has 4 KiB, a list that names a user, and an extended attribute; as root it also belongs to one of five users.
Realize moves such a tree with ``--preserve=mode,times,owner,acl,xattr`` and without, over TLS, verified by its answers
and durable; rsync as ``rsync -aAX --remove-source-files`` over plain TCP, without fsync.
With ``--local`` neither has a daemon.
All have their turn in each round, in another order each time; each run has a tree, and a daemon, of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.machine import print_machine
from benchmarks.tables import mebibytes, table
from benchmarks.tree_moves import Run, move_by_realize, move_by_rsync

FILE_BYTES = 4096
FILES_PER_DIRECTORY = 100
USERS = (1, 2, 3, 4, 5)
"""Numbers of users, and of groups, that every system has."""

_NOBODY = 0xFFFFFFFF
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, number)
    for tag, permissions, number in (
        (1, 6, _NOBODY),
        (2, 4, 2),
        (4, 4, _NOBODY),
        (0x10, 4, _NOBODY),
        (0x20, 0, _NOBODY),
    )
)
"""One that lets user 2 read, as Linux keeps it."""

PRESERVE = "--preserve=mode,times,owner,acl,xattr"


def stage(folder: Path, files: int) -> None:
    """Make a tree."""
    for number in range(files):
        directory = folder / f"d{number // FILES_PER_DIRECTORY:04}"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"f{number:07}"
        path.write_bytes(number.to_bytes(8, "big") * (FILE_BYTES // 8))
        os.setxattr(path, "user.checksum", b"%032d" % number)
        os.setxattr(path, "system.posix_acl_access", ACL)
        if os.geteuid() == 0:
            user = USERS[number % len(USERS)]
            os.chown(path, user, user)


ACCEPTED: Final = ("owner", "acl", "xattr")
TOOLS: dict[str, Callable[..., Run]] = {
    "realize": partial(move_by_realize, options=(), accept=ACCEPTED),
    f"realize {PRESERVE}": partial(move_by_realize, options=(PRESERVE,), accept=ACCEPTED),
    "rsync -aAX": partial(move_by_rsync, options=("-aAX",)),
}


def check(folder: Path, name: str) -> None:
    """End unless a file that was moved has all that it should have."""
    path = next(each for each in folder.rglob("f0000001") if each.is_file())
    kept = (os.getxattr(path, "system.posix_acl_access"), os.getxattr(path, "user.checksum"))
    owner = USERS[1] if os.geteuid() == 0 else os.geteuid()
    if kept != (ACL, b"%032d" % 1) or path.stat().st_uid != owner:
        raise SystemExit(f"{name} has not kept what it should")


def measure(where: str, files: int, rounds: int, *, local: bool) -> dict[str, list[Run]]:
    """All runs, by tool."""
    runs: dict[str, list[Run]] = {name: [] for name in TOOLS}
    for number in range(rounds):
        tools = list(TOOLS.items())
        turn = number % len(tools)
        for name, move in [*tools[turn:], *tools[:turn]]:
            folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=where))
            try:
                stage(folder / "source", files)
                run = move(folder, local=local)
                if run.ran.code:
                    raise SystemExit(f"{name}: {run.ran.errors}")
                if name != "realize":
                    check(folder, name)
            finally:
                shutil.rmtree(folder)
            runs[name].append(run)
    return runs


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--local", action="store_true")
    asked = parser.parse_args()
    print_machine()
    runs = measure(asked.folder, asked.files, asked.rounds, local=asked.local)
    lines = [
        [
            name,
            f"{(seconds := median(each.ran.seconds for each in of)):.2f}",
            f"{asked.files / seconds:,.0f}",
            f"{median(each.ran.cpu for each in of):.2f}",
            f"{median(each.daemon_cpu for each in of):.2f}",
            mebibytes(median(each.ran.peak for each in of)),
        ]
        for name, of in runs.items()
    ]
    print(table(["tool", "seconds", "files/s", "CPU s command", "daemon", "MiB command"], lines))
    plain, kept, rsync = runs.values()
    for name, other in (("realize without", plain), ("rsync -aAX", rsync)):
        ratios = [one.ran.seconds / each.ran.seconds for one, each in zip(kept, other, strict=True)]
        print(
            f"\nrealize {PRESERVE} takes {median(ratios):.2f} times as long as {name} (median of {len(ratios)} rounds)"
        )


if __name__ == "__main__":
    main()
