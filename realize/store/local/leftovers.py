"""What writes that were given up have left: partials, and the directories made for them; for a thread."""

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
from realize.store.local.location import Location
from realize.store.local.partial_names import RECEIVING
from realize.store.local.versions import READ_FLAGS
from realize.store.local.walker import PAGE_ENTRIES, Traversal, WalkEntry


def gained_ns(status: os.stat_result) -> int:
    """When a partial has last gained a byte.

    While it is received, a writer sees to it that its mtime says that.
    Later its commit gives it the mode and the time of the source, and then its last change of any kind must do.
    """
    return status.st_mtime_ns if stat.S_IMODE(status.st_mode) == RECEIVING else status.st_ctime_ns


def find_leftovers(
    location: Location, *, deep: bool = True
) -> Generator[tuple[list[WalkEntry], list[WalkEntry]], None, None]:
    """The partials below a location, and its directories, by the page; close the generator to stop early.

    Those in its directories only if ``deep``.
    """
    traversal = Traversal(location, lambda _path, _identity: "" if deep else "is not looked into")
    try:
        while found := traversal.page(PAGE_ENTRIES):
            yield [each for each in found if each.partial], [each for each in found if each.is_directory]
    finally:
        traversal.close()


def find_partials(location: Location) -> Generator[list[WalkEntry], None, None]:
    """The partials below a location, by the page of files, often none; close the generator to stop early."""
    with contextlib.closing(find_leftovers(location)) as finding:
        for partials, _ in finding:
            yield partials


def unlocked(location: Location, partials: Iterable[WalkEntry]) -> list[WalkEntry]:
    """Those of these partials that nobody is writing at this moment."""
    found: list[WalkEntry] = []
    with location.tree() as tree:
        for each in partials:
            with contextlib.suppress(OSError, RealizeError), _locked(tree.directory(each.directory), each):
                found.append(each)
    return found


def remove_unlocked(location: Location, partials: Iterable[WalkEntry]) -> list[WalkEntry]:
    """Remove partials, but none that is locked, or another one than was found; those that are gone now."""
    removed: list[WalkEntry] = []
    with location.tree() as tree:
        for each in partials:
            with contextlib.suppress(OSError, RealizeError):
                directory_fd = tree.directory(each.directory)
                with _locked(directory_fd, each):
                    os.unlink(each.name, dir_fd=directory_fd)
                    removed.append(each)
    return removed


def remove_awaiting(location: Location, directories: Iterable[tuple[bytes, ...]]) -> None:
    """Remove those of these directories, and of those above them, that are empty and wait for something to arrive."""
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
    """While entered, nobody else may write the partial; fails if somebody does, or if it is not what was found."""
    fd = os.open(found.name, READ_FLAGS, dir_fd=directory_fd)
    try:
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


def in_the_way(partials: Iterable[WalkEntry], missing: int) -> list[WalkEntry]:
    """Which of these to remove to get ``missing`` bytes; none if all of them are not enough; pure.

    Those go first that have gained nothing for longest, and no more than are needed.
    """
    sizes = [
        (gained_ns(each.status), each.status.st_size, each)
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
