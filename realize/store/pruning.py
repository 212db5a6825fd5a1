"""Removing directories that have been empty for long; for a thread, a slice at a time.

A program that writes into a directory does not expect it to vanish as soon as it is empty.
So nothing is removed but what has not changed for a while, and whether that is so is judged before anything is removed:
to remove a directory renews the times of the one above.
Anything but a directory keeps all directories above it, partials included.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Final

from attrs import define

from realize.errors import NotFound
from realize.store.descriptors import release
from realize.store.location import Location
from realize.store.oserrors import storage_errors
from realize.store.tree import DIRECTORY_FLAGS, identity_of

STEP: Final = 1000
"""Names that are looked at in one step."""


@define(eq=False)
class _Frame:
    """An open directory that is being gone through; ``status`` is what it was when it was entered.

    ``kept`` says that it holds something that stays, ``emptied`` that a directory in it was removed.
    """

    name: bytes
    fd: int
    status: os.stat_result
    scan: os._ScandirIterator[str]
    kept: bool = False
    emptied: bool = False

    @classmethod
    def enter(cls, name: bytes, parent_fd: int) -> _Frame:
        """Open it; raises `OSError`."""
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent_fd)
        try:
            return cls(name, fd, os.fstat(fd), os.scandir(fd))
        except BaseException:
            release(fd)
            raise

    def next_entry(self) -> os.DirEntry[str] | None:
        """The next name; None at the end, or where no more can be read, which keeps the directory."""
        try:
            return next(self.scan, None)
        except OSError:
            self.kept = True
            return None

    def close(self) -> None:
        """Let go of it."""
        self.scan.close()
        release(self.fd)


def prune_directories(location: Location, older_than_ns: int, now_ns: int) -> Generator[int, None, None]:
    """Remove the directories below the location that are empty, or hold only such, and all have an old mtime.

    Each step looks at `STEP` names and yields how many directories it removed; close the generator to stop early.
    What cannot be read or removed stays.
    """
    if location.only is not None:
        return
    try:
        with location.tree() as tree, storage_errors(b"."):
            stack = [_Frame.enter(b".", tree.directory(location.base))]
    except NotFound:
        return
    removed = looked_at = 0
    try:
        while stack:
            looked_at += 1
            if looked_at % STEP == 0:
                yield removed
                removed = 0
            removed += _step(stack, now_ns - older_than_ns)
        yield removed
    finally:
        for frame in stack:
            frame.close()


def _step(stack: list[_Frame], before_ns: int) -> int:
    """Look at one more name; how many directories were removed."""
    frame = stack[-1]
    entry = frame.next_entry()
    if entry is not None:
        try:
            if entry.is_dir(follow_symlinks=False):
                _descend(stack, os.fsencode(entry.name))
            else:
                frame.kept = True
        except OSError:
            frame.kept = True
        return 0
    stack.pop().close()
    if not stack:
        return 0
    above = stack[-1]
    if not frame.kept and frame.status.st_mtime_ns <= before_ns and _remove(above.fd, frame):
        above.emptied = True
        return 1
    above.kept = True
    return 0


def _descend(stack: list[_Frame], name: bytes) -> None:
    """Enter a directory of the last one; raises `OSError`."""
    frame = _Frame.enter(name, stack[-1].fd)
    try:
        stack.append(frame)
    except BaseException:
        frame.close()
        raise


def _remove(parent_fd: int, frame: _Frame) -> bool:
    """Remove a directory unless it is another one by now, or was written to meanwhile."""
    try:
        named = os.stat(frame.name, dir_fd=parent_fd, follow_symlinks=False)
        if identity_of(named) != identity_of(frame.status):
            return False
        if not frame.emptied and named.st_mtime_ns != frame.status.st_mtime_ns:
            return False
        os.rmdir(frame.name, dir_fd=parent_fd)
    except OSError:
        return False  # not empty, in use, not ours
    return True
