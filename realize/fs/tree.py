"""Directories below a root, opened component by component.

No symlink is followed on the way, so no name leads outside the root, whatever somebody does to the tree meanwhile.
A `Tree` lives for one batch of work in one thread: it keeps the descriptors of the directories of that batch and closes
them at its end, so that nothing of ours keeps a file system from being unmounted.
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
from realize.fs.syscalls import FileStatus, may_keep_old_content, renames_what_is_open
from realize.units import display_name

DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_MAX_OPEN_DIRECTORIES: Final = 128
"""At most about this many directories are kept open at a time."""

Identity = tuple[int, int]
"""Device and inode."""


def identity_of(status: FileStatus) -> Identity:
    """What tells one file or directory from all others on this machine, as long as it exists."""
    return status.st_dev, status.st_ino


Made = tuple[tuple[bytes, ...], list[Identity]]
"""A directory that was made, and what it was, behind those above it that were made with it, the highest first."""


class Tree:
    """The directories of one batch; owns ``root_fd`` and closes it in the end.

    ``ancestors`` are the directories above the root.
    Directories that are made on demand at a depth of more than ``private_below`` are for their owner alone.
    Directories are named by their components below the root; the root itself is ``()``.
    A descriptor that was handed out is valid until the next call.
    """

    def __init__(
        self, root_fd: int, root_identity: Identity, ancestors: Ancestors, private_below: int | None = None
    ) -> None:
        self.root_fd = root_fd
        self._private_below = private_below
        self.ancestors = ancestors
        self._open: dict[tuple[bytes, ...], tuple[int, Identity]] = {(): (root_fd, root_identity)}
        self._keeps_old_content: dict[int, bool] = {}
        self._renames_what_is_open: dict[int, bool] = {}
        self.made: list[Made] = []
        """What was made on demand, in that order."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for fd, _ in self._open.values():
            release(fd)

    def forget(self) -> None:
        """Close all directories but the root: what is asked for next is looked up again."""
        former, self._open = self._open, {(): self._open[()]}
        for components, (fd, _) in former.items():
            if components:
                release(fd)

    def directory(self, components: tuple[bytes, ...], *, create: bool = False) -> int:
        """A descriptor of that directory; ``create`` makes what is missing of it.

        Fails with `NotFound` if it is missing, `Conflict` if a component is not a directory, `BadName` if one is a
        symlink.
        """
        return self._opened(components, create=create)[0]

    def unmake(self, made: Sequence[Made]) -> None:
        """Remove those of these directories that are empty, and still what they were when they were made on demand."""
        self.forget()
        for deepest, identities in reversed(made):
            for above, identity in enumerate(reversed(identities)):
                with contextlib.suppress(OSError, RealizeError):
                    *parents, name = deepest[: len(deepest) - above]
                    parent = self.directory(tuple(parents))
                    if identity_of(os.stat(name, dir_fd=parent, follow_symlinks=False)) == identity:
                        os.rmdir(name, dir_fd=parent)

    def nearest(self, components: tuple[bytes, ...]) -> tuple[int, tuple[bytes, ...]]:
        """A descriptor of that directory, or of the nearest above it that exists; and which one that is."""
        while True:
            try:
                return self.directory(components), components
            except NotFound:
                components = components[:-1]

    def identity(self, components: tuple[bytes, ...]) -> Identity:
        """Device and inode of that directory."""
        return self._opened(components, create=False)[1]

    def create_file(self, directory: tuple[bytes, ...], name: bytes, flags: int, mode: int) -> int:
        """Open a file, of that mode if it is new, in a directory that is made if it is missing.

        Somebody may remove the directory, being empty, between the two: it is made once more.
        """
        try:
            return os.open(name, flags, mode, dir_fd=self.directory(directory, create=True))
        except (FileNotFoundError, NotFound):
            self.forget()
        return os.open(name, flags, mode, dir_fd=self.directory(directory, create=True))

    def drop_old_content(self, fd: int, status: FileStatus) -> None:
        """Let an open file, of that status, be read anew where the file system may have kept older content of it."""
        keeps = self._keeps_old_content.get(status.st_dev)
        if keeps is None:
            keeps = self._keeps_old_content[status.st_dev] = may_keep_old_content(fd)
        if keeps:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def lock(self, directory: tuple[bytes, ...], fd: int, path: bytes, *, shared: bool = False) -> Lock:
        """The lock of an open file in that directory, see `realize.fs.file_locks`; ``path`` names it in errors."""
        device = self.identity(directory)[0]
        of_process = self._renames_what_is_open.get(device)
        if of_process is None:
            of_process = self._renames_what_is_open[device] = renames_what_is_open(fd)
        return Lock(LOCKS, fd, path, device=device, of_process=of_process, shared=shared)

    def _opened(self, components: tuple[bytes, ...], *, create: bool) -> tuple[int, Identity]:
        known = self._open.get(components)
        if known is not None:
            return known
        depth = len(components) - 1
        while components[:depth] not in self._open:
            depth -= 1
        fd, _ = self._open[components[:depth]]
        made: list[Identity] = []
        end = depth
        try:
            while end < len(components):
                path = components[: end + 1]
                private = self._private_below is not None and end >= self._private_below
                fd, new = _enter(fd, path, create=create, mode=0o700 if private else 0o777)
                try:
                    if new:
                        awaiting.mark(fd, path[-1])
                    self._remember(path, fd)
                    if new:
                        made.append(self._open[path][1])
                    else:
                        made.clear()  # what is above one that was there is not empty
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


def _enter(parent: int, path: tuple[bytes, ...], *, create: bool, mode: int) -> tuple[int, bool]:
    """A descriptor, and whether the directory was made for it."""
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
        pass  # somebody else made it first, or it is something else: opening it will tell
    except OSError as error:
        raise storage_error(error, names.join(path), Deed.CREATE) from error
    try:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent), made
    except OSError as error:
        _refuse(error, parent, path)


def _refuse(error: OSError, parent: int, path: tuple[bytes, ...]) -> NoReturn:
    """Say why a directory cannot be entered: the kernel reports a symlink as no directory."""
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
