"""Replacing one file under several of its names (hard links) in one step.

Whoever replaces one name of a file changes the change time of that file, and so of its other names: from then on the
file looks as if somebody had just put it there, and nothing may replace it any more.
Nobody can tell afterwards what else has changed that time: a peer that relies on the file renews it, too.
So what a group replaces of one file is replaced under one lock of that file.
Whoever relies on the file takes the same lock for the last look, before the first replacement or after the last one,
and sees then that the name is gone.
A lease keeps programs from opening the file for writing meanwhile, and before each further name the file must be
exactly as the last replacement has left it.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self

from attrs import define, field

from realize.fs.syscalls import FileStatus, fresh_fstat, has_lease, is_open_for_writing
from realize.fs.tree import Tree


@define(eq=False, repr=False)
class OldFile:
    """A file that is replaced under several names: a context that holds it from the first replacement to the last."""

    _fd: int = field(default=-1, init=False)
    _left: FileStatus | None = field(default=None, init=False)
    """What our last replacement has made of it; None if it is not held."""
    _held: contextlib.ExitStack = field(factory=contextlib.ExitStack, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._let_go()

    @property
    def held(self) -> bool:
        """Whether one of its names was replaced, and it is locked since."""
        return self._left is not None

    @staticmethod
    def keep_writers_away(tree: Tree, fd: int) -> bool:
        """Keep programs from opening a file for writing until ``fd`` is closed; return False if that cannot be.

        They wait for that; so it must be soon.
        It cannot be if one has it open already, without the right to ask for leases, and where other machines write.
        """
        return tree.is_always_fresh(fd, fresh_fstat(fd)) and not is_open_for_writing(fd, closing=True) and has_lease(fd)

    def hold(self, fd: int, before: FileStatus, lock: contextlib.ExitStack) -> None:
        """Hold a file from which `keep_writers_away` keeps writers, and of which a name was just replaced.

        ``before`` is what the file was when that was decided, ``lock`` what closes and unlocks ``fd``.
        """
        self._fd, self._held = fd, lock.pop_all()
        self.has_lost_name(before)

    def has_lost_name(self, before: FileStatus) -> None:
        """Note that a name of it was replaced; lets go of it if something else has changed since ``before``."""
        after = fresh_fstat(self._fd)
        self._left = after
        if _without_names(before) != _without_names(after):
            self._let_go()

    def is_still(self, existing: FileStatus) -> bool:
        """Return whether this is the file that is held, and exactly what our last replacement has made of it."""
        if not has_lease(self._fd):
            # Somebody waits to write to it.
            self._let_go()
        left = self._left
        return left is not None and _with_names(left) == _with_names(existing)

    def _let_go(self) -> None:
        self._left = None
        self._held.close()


def _without_names(status: FileStatus) -> tuple[int, ...]:
    """All that tells one version of a file from others, but what its names change."""
    return status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns


def _with_names(status: FileStatus) -> tuple[int, ...]:
    """All that tells one version of a file from others."""
    return (*_without_names(status), status.st_nlink, status.st_ctime_ns)
