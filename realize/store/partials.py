"""Opening the partial of a file, so that nobody else writes to it.

The partial of a name is always the same, so that a later transfer finds what an earlier one left, and is under an
exclusive flock(2) while it is written.
The lock belongs to the open file: whoever dies leaves the partial unlocked, and as long as it is held nobody else
writes, renames or expires the partial.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import Final

from realize.errors import Busy, Conflict, RealizeError
from realize.store import names
from realize.store.descriptors import release
from realize.store.files import READ_FLAGS
from realize.store.oserrors import storage_error
from realize.store.syscalls import kind_of
from realize.store.tree import Tree, identity_of
from realize.units import display_name

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_TRIES: Final = 10


def open_partial(
    tree: Tree, directory: tuple[bytes, ...], name: bytes, path: bytes
) -> tuple[int, os.stat_result, bytes]:
    """The partial of ``name``, locked, what it is, and its own name; the directory is made if it is missing.

    ``path`` is what errors call the file.
    Fails with `Busy` while somebody else holds the lock.
    """
    partial = names.partial_name(name)
    for _ in range(_TRIES):
        try:
            fd = tree.create_file(directory, partial, _FLAGS)
        except OSError as error:
            if isinstance(error, PermissionError) and _recovered(tree, directory, partial, path):
                continue
            raise _unusable(tree, directory, partial, path, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Not before the lock is held: what was found then may be of the past.
            status = os.fstat(fd)
            _refuse_irregular(status, path)
            if _is_ours_alone(tree.directory(directory), partial, status):
                return fd, status, partial
        except BlockingIOError as error:
            release(fd)
            raise Busy(f"{display_name(path)}: somebody else is writing it") from error
        except BaseException:
            release(fd)
            raise
        release(fd)
    raise Busy(f"{display_name(path)}: its partial is replaced again and again by somebody else")


def _recovered(tree: Tree, directory: tuple[bytes, ...], partial: bytes, path: bytes) -> bool:
    """Whether a partial that was abandoned with its final mode already, one without write permission, is ours again.

    One that is locked is just being committed: `Busy`.
    """
    try:
        fd = os.open(partial, READ_FLAGS, dir_fd=tree.directory(directory))
    except (OSError, RealizeError):
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(fd)
        if _is_ours_alone(tree.directory(directory), partial, status):
            os.fchmod(fd, 0o600)
    except BlockingIOError as error:
        raise Busy(f"{display_name(path)}: somebody else is writing it") from error
    except OSError:
        return False
    finally:
        release(fd)
    return True


def _refuse_irregular(status: os.stat_result, path: bytes) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Conflict(f"{display_name(path)}: its partial is a {kind_of(status.st_mode)}")


def _is_ours_alone(directory_fd: int, partial: bytes, status: os.stat_result) -> bool:
    """Whether the locked file still has the name of the partial, and no other.

    Between open and flock the last writer may have committed it: then it is a final file, and writing to it would
    destroy that.
    A second name is a commit that was cut short where a rename takes a link, or somebody's trick; it is let go.
    """
    try:
        named = os.stat(partial, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if identity_of(named) != identity_of(status):
        return False
    if status.st_nlink > 1:
        os.unlink(partial, dir_fd=directory_fd)
        return False
    return True


def _unusable(tree: Tree, directory: tuple[bytes, ...], partial: bytes, path: bytes, error: OSError) -> RealizeError:
    with contextlib.suppress(OSError, RealizeError):
        try:
            _refuse_irregular(os.stat(partial, dir_fd=tree.directory(directory), follow_symlinks=False), path)
        except Conflict as conflict:
            return conflict
    return storage_error(error, path)
