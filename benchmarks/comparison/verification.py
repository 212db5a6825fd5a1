"""Whether a move did what it was to do: all of it is there, byte by byte, nothing else, and the source is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PIECE: Final = 1 << 20
SHOWN: Final = 3
"""How many files a fault names."""


def faults(expected: Path, destination: Path, source: Path) -> list[str]:
    """What is wrong after a move, in short; nothing if all is right."""
    wanted, there = set(files(expected)), set(files(destination))
    wrong = [name for name in sorted(wanted & there) if not same(expected / name, destination / name)]
    found = {
        "missing": sorted(wanted - there),
        "wrong content": wrong,
        "not wanted there": sorted(there - wanted),
        "left at the source": sorted(files(source)),
    }
    return [f"{len(names)} {what}: {', '.join(names[:SHOWN])}" for what, names in found.items() if names]


def files(folder: Path) -> Iterator[str]:
    """The paths of all that is no directory below a folder, which need not exist."""
    for where, directories, names in os.walk(folder):
        links = [name for name in directories if Path(where, name).is_symlink()]
        yield from (os.path.relpath(Path(where, name), folder) for name in (*names, *links))


def same(one: Path, other: Path) -> bool:
    """Whether both are regular files with the same bytes."""
    if one.is_symlink() or other.is_symlink() or not (one.is_file() and other.is_file()):
        return False
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb", buffering=0) as first, other.open("rb", buffering=0) as second:
        while content := first.read(PIECE):
            if content != second.read(PIECE):
                return False
    return True
