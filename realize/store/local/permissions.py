"""Finding out what permissions forbid, without touching anything; for a thread.

The result is the most likely error of an attempt; none is no promise that the attempt succeeds: attributes such as
``immutable``, and what a file server decides, show only then.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from realize.errors import NotFound, RealizeError
from realize.fs import names
from realize.fs.oserrors import Deed, storage_error
from realize.fs.syscalls import is_read_only
from realize.fs.tree import Tree
from realize.store.local.location import RootedLocation
from realize.values import Use


def forbidden_batch(location: RootedLocation, paths: Sequence[bytes], use: Use) -> list[RealizeError | None]:
    """Return why each of these files cannot be used like that; None for one that can, or that is gone."""
    answers: list[RealizeError | None] = []
    with location.tree() as tree:
        for path in paths:
            try:
                directory, name = location.split(path)
                if use is Use.PUT:
                    check_put(tree, directory, name, path)
                else:
                    _check_read(tree, directory, name, path)
                if use is Use.MOVE:
                    _check_change(tree.directory(directory), name, path, Deed.REMOVE)
            except NotFound:
                answers.append(None)
            except RealizeError as error:
                answers.append(error)
            except (OSError, MemoryError) as error:
                answers.append(storage_error(error, path))
            else:
                answers.append(None)
    return answers


def lacking_of(path: str) -> set[int]:
    """Return which of `os.R_OK` (list it) and `os.W_OK` (change it) we lack on a directory."""
    return {mode for mode in (os.R_OK, os.W_OK) if not os.access(path, mode | os.X_OK, effective_ids=True)}


def _check_read(tree: Tree, directory: tuple[bytes, ...], name: bytes, path: bytes) -> None:
    fd = tree.directory(directory)
    if not _may(name, os.R_OK, fd) and _may(name, os.F_OK, fd):
        raise _denied(path, Deed.READ)


def check_put(tree: Tree, directory: tuple[bytes, ...], name: bytes, path: bytes) -> None:
    """Raise an error unless the file can be made, or the topmost missing directory above it."""
    fd, there = tree.nearest(directory)
    if there == directory:
        _check_change(fd, name, path, Deed.CREATE)
    else:
        missing = directory[: len(there) + 1]
        _check_change(fd, missing[-1], names.join(missing), Deed.CREATE)


def _check_change(fd: int, name: bytes, path: bytes, deed: Deed) -> None:
    """Raise an error unless a name in a directory may be made, replaced or removed; for sticky bits see unlink(2)."""
    status = os.fstat(fd)
    if not _may(b".", os.W_OK | os.X_OK, fd):
        raise _denied(path, deed, errno.EROFS if is_read_only(fd) else errno.EACCES)
    if status.st_mode & stat.S_ISVTX and os.geteuid() not in {0, status.st_uid, _owner(fd, name)}:
        raise _denied(path, Deed.COMMIT if deed is Deed.CREATE else deed, errno.EPERM)


def _owner(fd: int, name: bytes) -> int:
    """Return the owner of the file; ourselves if there is none yet."""
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_uid
    except FileNotFoundError:
        return os.geteuid()


def _may(name: bytes, mode: int, fd: int) -> bool:
    return os.access(name, mode, dir_fd=fd, effective_ids=True, follow_symlinks=False)


def _denied(path: bytes, deed: Deed, number: int = errno.EACCES) -> RealizeError:
    return storage_error(OSError(number, os.strerror(number)), path, deed)
