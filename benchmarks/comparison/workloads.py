"""What is moved: trees that are made once, always with the same bytes, and copied for each run."""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from attrs import frozen

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BLOCK: Final = 4 * KIB
BIG: Final = "big.bin"
"""The name of the file in workloads of one file."""

MTIME: Final = 1_700_000_000
"""When all files were changed last; the old version of one that changed is a day older."""

LEAST: Final = 8 * MIB
"""The size of a large file when everything is scaled down: smaller ones travel in batches."""


def half_of(size: int) -> int:
    """How much of a file of this size is there already, where half of it is."""
    return size // 2


@frozen
class Workload:
    """Something to move, of which ``scale`` 1 is the usual size."""

    name: str
    title: str
    short: str
    """Below the name, where there is little room."""
    make: Callable[[Path, random.Random, float], None]
    """Makes the tree in a folder that is there; the files to move are below ``new``."""
    shares: str = ""
    """The workload that has the same tree, if one has."""
    half: bool = False
    """Whether half of the file is there before."""


def write_random(path: Path, size: int, rng: random.Random) -> None:
    """A file of random bytes, which do not compress."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            file.write(rng.randbytes(min(MIB, size - start)))
    os.utime(path, (MTIME, MTIME))


def write_changed(old: Path, new: Path, rng: random.Random) -> None:
    """Another version of a file of whole MiB: 1 % of its blocks of 4 KiB differ, and 1 MiB and 123 bytes are inserted.

    They are inserted in the first MiB, so all that comes after them is at another distance.
    """
    size = old.stat().st_size
    changed = set(rng.sample(range(size // BLOCK), size // BLOCK // 100))
    with old.open("rb") as source, new.open("wb") as target:
        for start in range(0, size, MIB):
            content = bytearray(source.read(MIB))
            for offset in range(0, MIB, BLOCK):
                if (start + offset) // BLOCK in changed:
                    content[offset : offset + BLOCK] = rng.randbytes(BLOCK)
            if not start:
                content[1_000_003:1_000_003] = rng.randbytes(MIB + 123)
            target.write(content)


def scaled(size: int, scale: float) -> int:
    """A size of a large file in whole MiB."""
    return max(LEAST, round(size * scale / MIB) * MIB)


def _large(folder: Path, rng: random.Random, scale: float) -> None:
    write_random(folder / "new" / BIG, scaled(2 * GIB, scale), rng)


def _small(folder: Path, rng: random.Random, scale: float) -> None:
    for number in range(max(10, round(10_000 * scale))):
        write_random(folder / "new" / f"d{number // 100:02}" / f"f{number % 100:02}", 10 * KIB, rng)


def _mixture(folder: Path, rng: random.Random, scale: float) -> None:
    least, most = math.log(KIB), math.log(8 * MIB)
    for number in range(max(10, round(1_000 * scale))):
        size = round(math.exp(rng.uniform(least, most)))
        below = [f"d{rng.randrange(4)}" for _ in range(rng.randrange(4))]
        write_random(Path(folder, "new", *below, f"f{number:04}"), size, rng)


def _changed(folder: Path, rng: random.Random, scale: float) -> None:
    old, new = folder / "old" / BIG, folder / "new" / BIG
    write_random(old, scaled(GIB, scale), rng)
    new.parent.mkdir()
    write_changed(old, new, rng)
    os.utime(old, (MTIME - 86_400, MTIME - 86_400))
    os.utime(new, (MTIME, MTIME))


WORKLOADS: Final = {
    workload.name: workload
    for workload in (
        Workload("large", "one file of 2 GiB", "one file, 2 GiB", _large),
        Workload("small", "10,000 files of 10 KiB in 100 directories", "10,000 of 10 KiB", _small),
        Workload(
            "mixture",
            "1,000 files of 1 KiB to 8 MiB, as many of each order of size",
            "1,000 of 1 KiB to 8 MiB",
            _mixture,
        ),
        Workload(
            "changed",
            "1 GiB of which 1 % changed since it was sent last, shifted by an insertion",
            "1 GiB, 1 % changed",
            _changed,
        ),
        Workload(
            "half-there",
            "one file of 2 GiB of which half is there already",
            "2 GiB, half there",
            _large,
            shares="large",
            half=True,
        ),
    )
}


@frozen
class Master:
    """A workload's tree as it is to arrive."""

    workload: Workload
    folder: Path

    @property
    def new(self) -> Path:
        """What is moved."""
        return self.folder / "new"

    @property
    def old(self) -> Path | None:
        """What is at the destination before, if anything is."""
        old = self.folder / "old"
        return old if old.exists() else None

    def sizes(self) -> list[int]:
        """The size of each file."""
        return [path.stat().st_size for path in self.new.rglob("*") if path.is_file()]

    def stage(self, source: Path, destination: Path, half: Path) -> None:
        """Make ``source`` and ``destination`` anew; ``half`` is where the tool looks for half a file."""
        destination.mkdir(parents=True)
        copy(self.new, source)
        if self.old:
            copy(self.old, destination)
        if self.workload.half:
            half.parent.mkdir(exist_ok=True, parents=True)
            with (self.new / BIG).open("rb") as whole, half.open("wb") as part:
                left = half_of((self.new / BIG).stat().st_size)
                while left:
                    left -= os.sendfile(part.fileno(), whole.fileno(), None, left)


def copy(source: Path, target: Path) -> None:
    """Copy a tree with its times, into blocks of its own."""
    target.mkdir(exist_ok=True, parents=True)
    subprocess.run(["cp", "-a", "--reflink=never", f"{source}/.", str(target)], check=True)


def master(name: str, folder: Path, scale: float) -> Master:
    """The tree of a workload below ``folder``; it is made if it is not there from a former time."""
    workload = WORKLOADS[name]
    tree = workload.shares or name
    place = folder / f"{tree}-{scale:g}"
    if not place.exists():
        unfinished = folder / f"{place.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        workload.make(unfinished, random.Random(tree), scale)
        unfinished.rename(place)
    return Master(workload, place)
