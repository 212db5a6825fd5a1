"""Opening the partial of a file so that nobody else writes to it.

The name of a file's partial is usually the same, so that a later transfer finds what an earlier one left; each origin
that may not read has a partial of its own.
While it is written, a partial is under an exclusive flock(2), which keeps others from writing, renaming or expiring it.
The lock belongs to the open file, so a process that dies leaves the partial unlocked.

A new partial is made with O_EXCL, so that nobody else has it open, or can open it.
Where somebody else's file, of whatever kind, has the name, the next name is tried.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import Final

from realize.by_value import ByValue
from realize.errors import Busy
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.oserrors import Deed, storage_error
from realize.fs.tree import Tree
from realize.store.local.partial_marks import RECEIVING, create, is_given, is_marked, is_ours, learn, look_alike
from realize.store.local.versions import READ_FLAGS
from realize.units import display_name
from realize.values import frozen

_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NEW: Final = _FLAGS | os.O_CREAT | os.O_EXCL
_SWAPPED: Final = frozenset({errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO})
"""Errors of open(2) which show that the name no longer refers to the regular file seen before."""

_CLAIM_TRIES: Final = 10


def open_partial(
    tree: Tree, directory: tuple[bytes, ...], name: bytes, path: bytes, origin: bytes | None
) -> tuple[int, os.stat_result, bytes]:
    """Open and lock the partial of ``name``; return its descriptor, status and own name.

    A missing directory is made.
    An ``origin`` that may not read shares its partial with nobody.
    ``path`` is what errors call the file.
    Raises `Busy` while somebody else holds the lock.
    """
    taken: list[tuple[_PartialName, os.stat_result | None]] = []
    for partial in names.partial_names(name, origin):
        candidate = _PartialName(tree, directory, partial, path)
        try:
            fd, status = _claim(candidate)
        except _Taken as other:
            taken.append((candidate, other.status))
            continue
        if not taken:
            return fd, status, partial
        try:
            older = next((each for each, seen in taken if seen is not None and _is_alike(seen, status)), None)
            if older is None:
                return fd, status, partial
            os.unlink(partial, dir_fd=candidate.directory_fd)
        except BaseException:
            release(fd)
            raise
        # This file system does not keep what marks a partial as ours, and our new one looks just like the older file:
        # take that for our partial.
        release(fd)
        try:
            return *_claim(older, status), older.partial
        except _Taken:
            taken = [each for each in taken if each[0] is not older]
    raise Busy(f"{display_name(path)}: other files have taken all names that its partial could have")


class _Taken(Exception):
    """The name belongs to somebody else's file, or, without ``status``, to a file that we cannot open."""

    def __init__(self, status: os.stat_result | None) -> None:
        super().__init__(status)
        self.status = status


@frozen(eq=False, repr=False)
class _PartialName(ByValue):
    """A name that a partial may have; ``path`` is what errors call the file."""

    tree: Tree
    directory: tuple[bytes, ...]
    partial: bytes
    path: bytes

    @property
    def directory_fd(self) -> int:
        return self.tree.directory(self.directory)

    def create(self) -> int:
        """A new file, which nobody else has open."""
        return create(lambda mode: self.tree.create_file(self.directory, self.partial, _NEW, mode))

    def find(self, alike: os.stat_result | None) -> int | None:
        """Open the existing partial; return None if it is gone or was replaced meanwhile.

        Raises `_Taken` if it is not ours, or, given ``alike``, does not look like that file of ours.
        """
        try:
            status = os.stat(self.partial, dir_fd=self.directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not self._may_be_ours(status, alike):
            raise _Taken(status)
        try:
            fd = os.open(self.partial, _FLAGS, dir_fd=self.directory_fd)
        except PermissionError:
            if self._recovered():
                return None
            raise _Taken(None) from None
        except OSError as error:
            if error.errno in _SWAPPED:
                return None
            raise
        try:
            # A file that replaced it since the look may even have its inode number.
            if self._may_be_ours(os.fstat(fd), alike):
                return fd
        except BaseException:
            release(fd)
            raise
        release(fd)
        return None

    def _may_be_ours(self, status: os.stat_result, alike: os.stat_result | None) -> bool:
        return is_ours(self.directory_fd, self.partial, status) if alike is None else _is_alike(status, alike)

    def _recovered(self) -> bool:
        """Make a partial writable again that was abandoned with its final mode; return whether to try again.

        A locked one is being committed right now: raises `Busy`.
        """
        try:
            fd = os.open(self.partial, READ_FLAGS, dir_fd=self.directory_fd)
        except OSError as error:
            return error.errno in _SWAPPED
        try:
            self.lock(fd)
            status = os.fstat(fd)
            if is_ours(self.directory_fd, self.partial, status) and self.has(status):
                # The permissions of others are kept for `_is_fit`: they tell whether others could have it open.
                _set_mode(fd, status, stat.S_IMODE(status.st_mode) | RECEIVING)
        except OSError:
            return False
        finally:
            release(fd)
        return True

    def lock(self, fd: int) -> None:
        """Take the lock; raises `Busy` if somebody else holds it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"{display_name(self.path)}: somebody else is writing it") from error

    def has(self, status: os.stat_result) -> bool:
        """Return whether the name still refers to the locked file.

        Between open and flock the previous writer may have committed it: writing would then destroy a final file.
        """
        try:
            named = os.stat(self.partial, dir_fd=self.tree.directory(self.directory), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return named.st_ino == status.st_ino and named.st_dev == status.st_dev


def _claim(candidate: _PartialName, alike: os.stat_result | None = None) -> tuple[int, os.stat_result]:
    """Create or find the partial of that name, lock it, and return its descriptor and status.

    With ``alike``, only an existing file that looks like that is accepted.
    Raises `_Taken` if the file of that name is not ours.
    """
    for _ in range(_CLAIM_TRIES):
        try:
            fd, found = _opened(candidate, alike)
        except OSError as error:
            raise storage_error(error, candidate.path, Deed.CREATE) from error
        if fd is None:
            continue
        try:
            candidate.lock(fd)
            # Only now that the lock is held: an earlier status may be outdated.
            status = os.fstat(fd)
            if candidate.has(status):
                if not found:
                    learn(status)
                if _is_fit(status, found=found):
                    fit = _as_new(fd, status, candidate) if found else status
                    if fit is not None:
                        return fd, fit
                os.unlink(candidate.partial, dir_fd=candidate.directory_fd)
        except BaseException:
            release(fd)
            raise
        release(fd)
    raise Busy(f"{display_name(candidate.path)}: somebody else keeps replacing its partial")


def _opened(candidate: _PartialName, alike: os.stat_result | None) -> tuple[int | None, bool]:
    """Return a descriptor of the partial, None to try again, and whether it was there already."""
    if alike is None:
        try:
            return candidate.create(), False
        except FileExistsError:
            pass
    return candidate.find(alike), True


def _is_alike(status: os.stat_result, ours: os.stat_result) -> bool:
    """Return whether that may be an older partial of ours, given that a new one looks like ``ours``."""
    return stat.S_ISREG(status.st_mode) and look_alike(status, ours)


def _is_fit(status: os.stat_result, *, found: bool) -> bool:
    """Return whether a locked partial may be written to; if not, it is unlinked.

    A second name comes from an interrupted commit, where renaming takes a link(2), or from an attack.
    A partial that got its final mode before a commit was interrupted may be open in processes that this mode let read
    it, and what is received now may not be meant for them.
    """
    return status.st_nlink == 1 and not (found and is_marked(status) and status.st_mode & 0o077)


def _as_new(fd: int, status: os.stat_result, candidate: _PartialName) -> os.stat_result | None:
    """Undo what an interrupted commit did to a partial; return its status then, None if it keeps what it was given.

    That is so if it belongs to somebody else.
    """
    given = is_given(fd)
    if given:
        if status.st_uid == os.geteuid():
            from realize.store.local.extras import take_back

            take_back(fd, candidate.directory_fd)
        if is_given(fd):
            return None
    received = _set_mode(fd, status, RECEIVING)
    # What it has lost is given to it again only if that shows.
    return os.fstat(fd) if given else received


def _set_mode(fd: int, status: os.stat_result, mode: int) -> os.stat_result:
    """Undo the attributes that an interrupted commit gave a partial; its mtime becomes the time of its last change."""
    if not is_marked(status) or stat.S_IMODE(status.st_mode) == mode:
        return status
    os.fchmod(fd, mode)
    os.utime(fd, ns=(status.st_ctime_ns, status.st_ctime_ns))
    return os.fstat(fd)
