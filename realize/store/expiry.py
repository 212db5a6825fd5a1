"""Removing partials that nobody came back for; for a thread, a slice at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from attrs import define, field

from realize.errors import RealizeError
from realize.store.descriptors import release
from realize.store.files import READ_FLAGS
from realize.store.location import locate
from realize.store.tree import identity_of
from realize.store.walker import PAGE, Found, Traversal

Expired = tuple[bytes, int]
"""Path of a partial that was removed, relative to the root, and its size."""


@define(eq=False)
class Step:
    """What one page of files held."""

    removed: list[Expired] = field(factory=list)
    partials: int = 0
    """Partials that are still there."""
    size: int = 0
    """Their bytes."""


def expire_partials(root: bytes | str, older_than_ns: int, now_ns: int) -> Iterator[Step]:
    """Remove the partials below ``root`` that were not changed for longer than ``older_than_ns``.

    Each step looks at a page of files and yields what it found, often nothing; close the generator to stop early.
    A partial that somebody holds the lock of is let be.
    Its age counts from its last change of any kind (ctime), because a commit gives it the source's old mtime.
    """
    location = locate(os.fsencode(root), b"", None)
    traversal = Traversal(location, lambda _path, _identity: "")
    try:
        while found := traversal.page(PAGE):
            partials = [(each, each.status) for each in found if each.partial and each.status is not None]
            old = [each for each, status in partials if now_ns - status.st_ctime_ns > older_than_ns]
            step = Step(partials=len(partials), size=sum(status.st_size for _, status in partials))
            if old:
                with location.tree() as tree:
                    for each in old:
                        with contextlib.suppress(OSError, RealizeError):
                            if _remove_unlocked(tree.directory(each.directory), each):
                                step.removed.append((each.path, each.status.st_size if each.status else 0))
            step.partials -= len(step.removed)
            step.size -= sum(size for _, size in step.removed)
            yield step
    finally:
        traversal.close()


def _remove_unlocked(directory_fd: int, found: Found) -> bool:
    """Remove a partial unless it is locked, or another one than was found."""
    fd = os.open(found.name, READ_FLAGS, dir_fd=directory_fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(fd)
        named = os.stat(found.name, dir_fd=directory_fd, follow_symlinks=False)
        if found.status is None or identity_of(named) != identity_of(status):
            return False
        if (status.st_ino, status.st_ctime_ns) != (found.status.st_ino, found.status.st_ctime_ns):
            return False
        os.unlink(found.name, dir_fd=directory_fd)
    finally:
        release(fd)
    return True
