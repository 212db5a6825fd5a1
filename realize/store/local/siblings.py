"""The numbered names beside a name (`realize.numbered`): which are free, and which have files of a certain size.

For a thread.
Names are looked at one by one, never a whole directory, so that the work does not depend on what else is in it.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

from realize.errors import Busy, NotFound, RealizeError
from realize.fs.oserrors import storage_error
from realize.fs.syscalls import rename_noreplace
from realize.fs.tree import Tree
from realize.numbered import MAX_NAME_NUMBER, numbered
from realize.store.local.location import RootedLocation, refused_as_own
from realize.store.local.partial_marks import is_ours
from realize.units import display_name
from realize.values import MAX_ALIKE_FILES, Siblings, Sized

FIRST_NUMBERS: Final = 16
"""Numbers that are tried one by one; beyond them a free one is found by doubling and halving, so that a name with a
million of them costs forty looks."""

MAX_COMPARED_NAMES: Final = 64
"""Numbers before the free one whose files are looked at, and after it; and before the end of those that follow it."""

MAX_GAP_NAMES: Final = 16
"""Free numbers in a row behind which no file is looked for."""

_TAKING_TRIES: Final = 100
"""Numbers that others may take before us, one after the other, before it is given up."""


def siblings_batch(location: RootedLocation, files: Sequence[Sized]) -> list[Siblings | RealizeError]:
    """Return for each file a free number, and those whose files have its size: of these the latest, latest first."""
    answers: list[Siblings | RealizeError] = []
    with location.tree() as tree:
        for each in files:
            try:
                answers.append(_siblings(location, tree, each))
            except NotFound:
                answers.append(Siblings(1))
            except RealizeError as error:
                answers.append(error)
            except (OSError, MemoryError) as error:
                answers.append(storage_error(error, each.path))
    return answers


def _siblings(location: RootedLocation, tree: Tree, file: Sized) -> Siblings:
    directory, name = location.split(file.path)
    fd = tree.directory(directory)
    spared = location.root.own_names(directory)
    free = free_number(fd, name, spared=spared)
    alike: list[tuple[int, int]] = []
    gap = 0
    numbers = deque(range(max(1, free - MAX_COMPARED_NAMES), free + MAX_COMPARED_NAMES))
    last = numbers[-1]
    while numbers:
        number = numbers.popleft()
        sibling = numbered(name, number)
        status = _status(fd, sibling)
        if status is None:
            gap += 1
            if number > free and gap > MAX_GAP_NAMES:
                break
            continue
        gap = 0
        if number == last:
            # Whoever removes the oldest ones leaves the latest far behind the first free number.
            end = free_number(fd, name, number + 1, spared)
            numbers.extend(range(max(number + 1, end - MAX_COMPARED_NAMES), end))
        if sibling in spared:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size == file.size and not is_ours(fd, sibling, status):
            alike.append((status.st_ctime_ns, number))
    return Siblings(free, tuple(number for _, number in sorted(alike, reverse=True)[:MAX_ALIKE_FILES]))


def free_number(fd: int, name: bytes, least: int = 1, spared: Collection[bytes] = ()) -> int:
    """Return a number whose name is free in a directory: ``least`` if it can be, else a higher one, near it.

    The ``spared`` names count as taken.
    """

    def is_free(number: int) -> bool:
        candidate = numbered(name, number)
        return candidate not in spared and _status(fd, candidate) is None

    for number in range(least, least + FIRST_NUMBERS):
        if is_free(number):
            return number
    taken, step = least + FIRST_NUMBERS - 1, FIRST_NUMBERS
    while not is_free(taken + step):
        taken += step
        step *= 2
        if taken + step > MAX_NAME_NUMBER:
            raise Busy(f"{display_name(name)}: too many numbered names are taken")
    free = taken + step
    while free - taken > 1:
        middle = (taken + free) // 2
        if is_free(middle):
            free = middle
        else:
            taken = middle
    return free


def take_number(fd: int, old: bytes, name: bytes, path: bytes, only: int = 0, spared: Collection[bytes] = ()) -> int:
    """Rename a file within its directory to a numbered name that is free; return the number.

    With ``only``, it gets that number or none.
    Nothing that has such a name is ever replaced, and none of the ``spared`` names is given.
    Raises `Busy` if others are faster.
    """
    number = only or free_number(fd, name, spared=spared)
    if only and numbered(name, only) in spared:
        raise refused_as_own(numbered(path, only))
    for _ in range(_TAKING_TRIES):
        try:
            rename_noreplace(fd, old, numbered(name, number))
        except FileExistsError:
            if only:
                break
            number = free_number(fd, name, number + 1, spared)
        else:
            return number
    raise Busy(f"{display_name(path)}: other programs keep taking its numbered names")


def _status(fd: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
