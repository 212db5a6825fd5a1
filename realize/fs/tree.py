"""Directories below a root, opened component by component.

No symlink is followed on the way, so no name leads outside the root, whatever happens to the tree meanwhile.
A `Tree` lives for one batch of work in one thread: it keeps the directories of that batch open and closes them at the
end, so that we do not keep a file system from being unmounted.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from itertools import islice
from types import TracebackType
from typing import Final, NoReturn, Self

from realize.errors import BadName, Conflict, NotFound, RealizeError
from realize.fs import awaiting, names
from realize.fs.ancestors import Ancestors
from realize.fs.descriptors import release
from realize.fs.file_locks import LOCKS, Lock
from realize.fs.oserrors import Deed, storage_error, storage_errors
from realize.fs.syscalls import (
    FileStatus,
    always_fresh,
    fresh_fstat,
    lists_acls,
    may_keep_old_content,
    renames_what_is_open,
)
from realize.units import display_name

DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_MAX_OPEN_DIRECTORIES: Final = 128
"""About how many directories are kept open at a time."""

Inode = tuple[int, int]
"""Device and inode."""


def identity_of(status: FileStatus) -> Inode:
    """Return what identifies a file or directory on this machine as long as it exists."""
    return status.st_dev, status.st_ino


Made = tuple[tuple[bytes, ...], list[Inode]]
"""The path of a directory that was made, and the identities of all directories made with it, topmost first."""


class Tree:
    """The directories of one batch; owns ``root_fd`` and closes it in the end.

    ``ancestors`` are the directories above the root.
    Directories made on demand more than ``private_below`` levels below the root are accessible to their owner alone.
    Only with ``backups``, directories below the root may be entered that hold backups.
    Directories are named by their components below the root; the root itself is ``()``.
    A descriptor that was returned is valid until the next call.
    """

    def __init__(
        self,
        root_fd: int,
        root_identity: Inode,
        ancestors: Ancestors,
        private_below: int | None = None,
        *,
        backups: bool = False,
    ) -> None:
        self.root_fd = root_fd
        self._private_below = private_below
        self._backups = backups
        self.ancestors = ancestors
        self._open: dict[tuple[bytes, ...], tuple[int, Inode]] = {(): (root_fd, root_identity)}
        self._keeps_old_content: dict[int, bool] = {}
        self._renames_what_is_open: dict[int, bool] = {}
        self._always_fresh: dict[int, bool] = {}
        self._lists_acls: dict[int, bool] = {}
        self.made: list[Made] = []
        """The directories made on demand, in the order of their making."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for fd, _ in self._open.values():
            release(fd)

    def forget(self) -> None:
        """Close all directories but the root, so that they are looked up again when they are needed."""
        former, self._open = self._open, {(): self._open[()]}
        for components, (fd, _) in former.items():
            if components:
                release(fd)

    def directory(self, components: tuple[bytes, ...], *, create: bool = False) -> int:
        """Return a descriptor of that directory; with ``create``, missing directories are made.

        Raises `NotFound` if it is missing, `Conflict` if a component is not a directory, `BadName` if one is a symlink.
        """
        known = self._open.get(components)
        return (self._make_open(components, create=create) if known is None else known)[0]

    def unmake(self, made: Sequence[Made]) -> None:
        """Remove those of these directories that are empty and still the ones that were made on demand."""
        self.forget()
        for deepest, identities in reversed(made):
            for above, identity in enumerate(reversed(identities)):
                with contextlib.suppress(OSError, RealizeError):
                    *parents, name = deepest[: len(deepest) - above]
                    parent = self.directory(tuple(parents))
                    if identity_of(os.stat(name, dir_fd=parent, follow_symlinks=False)) == identity:
                        os.rmdir(name, dir_fd=parent)

    def nearest(self, components: tuple[bytes, ...]) -> tuple[int, tuple[bytes, ...]]:
        """Return a descriptor of that directory, or of the nearest one above it that exists, and its components."""
        while True:
            try:
                return self.directory(components), components
            except NotFound:
                components = components[:-1]

    def identity(self, components: tuple[bytes, ...]) -> Inode:
        """Return device and inode of that directory."""
        known = self._open.get(components)
        return (self._make_open(components, create=False) if known is None else known)[1]

    def create_file(self, directory: tuple[bytes, ...], name: bytes, flags: int, mode: int) -> int:
        """Open or create a file, with that mode if it is new; a missing directory is made.

        If somebody removes the still empty directory in between, it is made once more.
        """
        try:
            return os.open(name, flags, mode, dir_fd=self.directory(directory, create=True))
        except (FileNotFoundError, NotFound):
            self.forget()
        return os.open(name, flags, mode, dir_fd=self.directory(directory, create=True))

    def drop_old_content(self, fd: int, status: FileStatus) -> None:
        """Drop the cached content of an open file, which has that status, where it may be outdated."""
        keeps = self._keeps_old_content.get(status.st_dev)
        if keeps is None:
            keeps = self._keeps_old_content[status.st_dev] = may_keep_old_content(fd)
        if keeps:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def fresh_fstat(self, fd: int) -> FileStatus:
        """Return what `realize.fs.syscalls.fresh_fstat` does.

        Where fstat(2) says the same, its answer is enough, in a third of the time.
        The file itself counts, not its directory: a file from elsewhere may be mounted there.
        """
        status = os.fstat(fd)
        return status if self.is_always_fresh(fd, status) else fresh_fstat(fd)

    def is_always_fresh(self, fd: int, status: FileStatus) -> bool:
        """Return whether `realize.fs.syscalls.always_fresh` holds for an open file, which has that status."""
        fresh = self._always_fresh.get(status.st_dev)
        if fresh is None:
            fresh = self._always_fresh[status.st_dev] = always_fresh(fd)
        return fresh

    def lists_acls(self, fd: int, status: FileStatus) -> bool:
        """Return whether `realize.fs.syscalls.lists_acls` holds for an open file, which has that status."""
        lists = self._lists_acls.get(status.st_dev)
        if lists is None:
            lists = self._lists_acls[status.st_dev] = lists_acls(fd)
        return lists

    def lock(
        self, directory: tuple[bytes, ...], fd: int, path: bytes, *, shared: bool = False, closing: bool = False
    ) -> Lock:
        """Return the lock of an open file in that directory, see `realize.fs.file_locks.Lock`."""
        device = self.identity(directory)[0]
        of_process = self._renames_what_is_open.get(device)
        if of_process is None:
            of_process = self._renames_what_is_open[device] = renames_what_is_open(fd)
        return Lock(LOCKS, fd, path, device=device, of_process=of_process, shared=shared, closing=closing)

    def _make_open(self, components: tuple[bytes, ...], *, create: bool) -> tuple[int, Inode]:
        """Open a directory that is not open."""
        depth = len(components) - 1
        while components[:depth] not in self._open:
            depth -= 1
        fd, _ = self._open[components[:depth]]
        made: list[Inode] = []
        end = depth
        try:
            while end < len(components):
                path = components[: end + 1]
                private = self._private_below is not None and end >= self._private_below
                fd, new = _enter(fd, path, create=create, mode=0o700 if private else 0o777)
                try:
                    if new:
                        awaiting.mark(fd, path[-1])
                    if not new and not self._backups:
                        _refuse_backups(fd, path)
                    self._remember(path, fd)
                    if new:
                        made.append(self._open[path][1])
                    else:
                        made.clear()  # those above an existing directory are not empty
                except BaseException:
                    release(fd)
                    raise
                end += 1
        finally:
            if made:
                self.made.append((components[:end], made))
        return self._open[components]

    def _remember(self, components: tuple[bytes, ...], fd: int) -> None:
        with storage_errors(names.join(components)):
            identity = identity_of(os.fstat(fd))
        if len(self._open) > _MAX_OPEN_DIRECTORIES:
            oldest = next(islice(self._open, 1, None))  # the first is the root
            release(self._open.pop(oldest)[0])
        self._open[components] = fd, identity


def _refuse_backups(fd: int, path: tuple[bytes, ...]) -> None:
    if holds_backups(fd):
        raise refused_as_backups(names.join(path))


def refused_as_backups(path: bytes) -> BadName:
    """The error for what would be put into, or taken from, a directory of backups."""
    return BadName(f"{display_name(path)}: is a directory for backups: no files are put there, or taken from there")


def holds_backups(fd: int, *below: bytes) -> bool:
    """Return whether an open directory, or the one of that name in it, is one of backups."""
    try:
        os.stat(names.join((*below, names.BACKUP_MARK)), dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _enter(parent: int, path: tuple[bytes, ...], *, create: bool, mode: int) -> tuple[int, bool]:
    """Return a descriptor of the directory, and whether it was made."""
    name = path[-1]
    try:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent), False
    except FileNotFoundError as error:
        if not create:
            raise storage_error(error, names.join(path)) from error
    except OSError as error:
        _refuse(error, parent, path)
    made = False
    try:
        os.mkdir(name, mode, dir_fd=parent)
        made = True
    except FileExistsError:
        pass  # somebody else made it first, or it is no directory: opening it will tell
    except OSError as error:
        raise storage_error(error, names.join(path), Deed.CREATE) from error
    try:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent), made
    except OSError as error:
        _refuse(error, parent, path)


def _refuse(error: OSError, parent: int, path: tuple[bytes, ...]) -> NoReturn:
    """Raise the reason why a directory cannot be opened; the kernel reports a symlink as "not a directory"."""
    shown = display_name(names.join(path))
    if isinstance(error, NotADirectoryError):
        try:
            mode = os.stat(path[-1], dir_fd=parent, follow_symlinks=False).st_mode
        except OSError:
            mode = 0
        if stat.S_ISLNK(mode):
            raise BadName(f"{shown}: is a symlink, and symlinks are not followed") from error
        raise Conflict(f"{shown}: is not a directory") from error
    raise storage_error(error, names.join(path), Deed.OPEN) from error
