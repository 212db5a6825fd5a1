"""Leftovers of abandoned writes: partials, and the directories made for them; for a thread."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Generator, Iterable, Iterator

from realize.errors import NotFound, RealizeError
from realize.fs import awaiting
from realize.fs.descriptors import release
from realize.fs.tree import identity_of
from realize.store.local.location import RootedLocation
from realize.store.local.partial_marks import RECEIVING
from realize.store.local.versions import LINK_FLAGS, READ_FLAGS
from realize.store.local.walker import PAGE_ENTRIES, WalkEntry, Walker


def gained_ns(status: os.stat_result) -> int:
    """Return when a partial last grew, in ns since the epoch; for a symlink, when it was made, or put aside.

    While a partial is received, its writer makes sure that its mtime tells this.
    Once the commit has set mode and mtime to those of the source, its change time has to do.
    """
    return status.st_mtime_ns if stat.S_IMODE(status.st_mode) == RECEIVING else status.st_ctime_ns


def find_leftovers(
    location: RootedLocation, *, deep: bool = True
) -> Generator[tuple[list[WalkEntry], list[WalkEntry]], None, None]:
    """Yield the partials and the directories below a location, page by page; close the generator to stop early.

    Without ``deep``, its directories are not entered.
    """
    walker = Walker(location, deep=deep)
    try:
        while found := walker.found(PAGE_ENTRIES):
            yield [each for each in found if each.partial], [each for each in found if each.is_directory]
    finally:
        walker.close()


def find_partials(location: RootedLocation) -> Generator[list[WalkEntry], None, None]:
    """Yield the partials on each page of files below a location, often none; close the generator to stop early."""
    with contextlib.closing(find_leftovers(location)) as finding:
        for partials, _ in finding:
            yield partials


def unlocked(location: RootedLocation, partials: Iterable[WalkEntry]) -> list[WalkEntry]:
    """Return those of these partials that nobody is writing at this moment."""
    found: list[WalkEntry] = []
    with location.tree() as tree:
        for each in partials:
            with contextlib.suppress(OSError, RealizeError), _locked(tree.directory(each.directory), each):
                found.append(each)
    return found


def remove_unlocked(location: RootedLocation, partials: Iterable[WalkEntry]) -> list[WalkEntry]:
    """Remove those of these partials that are neither locked nor changed since they were found; return the removed."""
    removed: list[WalkEntry] = []
    with location.tree() as tree:
        for each in partials:
            with contextlib.suppress(OSError, RealizeError):
                directory_fd = tree.directory(each.directory)
                with _locked(directory_fd, each):
                    os.unlink(each.name, dir_fd=directory_fd)
                    removed.append(each)
    return removed


def remove_awaiting(location: RootedLocation, directories: Iterable[tuple[bytes, ...]]) -> None:
    """Remove those of these directories, and of those above them, that are empty and still await their first file."""
    with location.tree() as tree:
        for directory in directories:
            with contextlib.suppress(OSError, RealizeError):
                while len(directory) > len(location.base) and awaiting.is_marked(
                    tree.directory(directory), directory[-1]
                ):
                    tree.forget()
                    os.rmdir(directory[-1], dir_fd=tree.directory(directory[:-1]))
                    directory = directory[:-1]  # noqa: PLW2901 -- the one above


@contextlib.contextmanager
def _locked(directory_fd: int, found: WalkEntry) -> Iterator[None]:
    """A context that locks the partial; raises an error if it is locked by others, or is not the one that was found.

    A symlink has no lock: it has its temporary name for microseconds, unless it was abandoned.
    """
    is_link = found.status is not None and stat.S_ISLNK(found.status.st_mode)
    fd = os.open(found.name, LINK_FLAGS if is_link else READ_FLAGS, dir_fd=directory_fd)
    try:
        if not is_link:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(fd)
        named = os.stat(found.name, dir_fd=directory_fd, follow_symlinks=False)
        if (
            found.status is None
            or identity_of(named) != identity_of(status)
            or (status.st_ino, status.st_ctime_ns) != (found.status.st_ino, found.status.st_ctime_ns)
        ):
            raise NotFound("it is another one by now")
        yield
    finally:
        release(fd)


def _takes(status: os.stat_result) -> int:
    """Return the bytes that removing a file frees, as far as its status tells; those of holes are none."""
    return min(status.st_size, status.st_blocks * 512) or status.st_size


def in_the_way(partials: Iterable[WalkEntry], missing: int) -> list[WalkEntry]:
    """Return which partials to remove to free ``missing`` bytes; none if all of them would not be enough; pure.

    Those that have not grown for longest go first, and no more than needed.
    """
    sizes = [
        (gained_ns(each.status), _takes(each.status), each)
        for each in partials
        if each.status is not None and each.status.st_size
    ]
    chosen: list[tuple[int, WalkEntry]] = []
    total = 0
    for _, size, each in sorted(sizes, key=lambda item: item[0]):
        if total >= missing:
            break
        chosen.append((size, each))
        total += size
    if total < missing:
        return []
    needed: list[WalkEntry] = []
    for size, each in reversed(chosen):
        if total - size >= missing:
            total -= size
        else:
            needed.append(each)
    return needed[::-1]
