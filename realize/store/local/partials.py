"""Opening the partial of a file, so that nobody else writes to it.

The partial of a name is mostly the same, so that a later transfer finds what an earlier one left, and is under an
exclusive flock(2) while it is written; whoever may not read has one of his own.
The lock belongs to the open file: whoever dies leaves the partial unlocked, and as long as it is held nobody else
writes, renames or expires the partial.

A new one is made with O_EXCL, so that nobody else has it open, or can open it.
Where somebody else's file has the name, whatever it is, the next one is taken.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import Final

from attrs import frozen

from realize.errors import Busy
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.oserrors import Deed, storage_error
from realize.fs.tree import Tree, identity_of
from realize.store.local.partial_names import RECEIVING, create, is_marked, is_ours, learn, look_alike
from realize.store.local.versions import READ_FLAGS
from realize.units import display_name

_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NEW: Final = _FLAGS | os.O_CREAT | os.O_EXCL
_SWAPPED: Final = frozenset({errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO})
_TRIES: Final = 10


def open_partial(
    tree: Tree, directory: tuple[bytes, ...], name: bytes, path: bytes, origin: bytes | None
) -> tuple[int, os.stat_result, bytes]:
    """The partial of ``name``, locked, what it is, and its own name; the directory is made if it is missing.

    That of an ``origin`` that may not read is nobody else's.

    ``path`` is what errors call the file.
    Fails with `Busy` while somebody else holds the lock.
    """
    taken: list[tuple[_Place, os.stat_result | None]] = []
    for partial in names.partial_names(name, origin):
        place = _Place(tree, directory, partial, path)
        try:
            fd, status = _claim(place)
        except _Taken as other:
            taken.append((place, other.status))
            continue
        if not taken:
            return fd, status, partial
        try:
            older = next((each for each, seen in taken if seen is not None and _is_alike(seen, status)), None)
            if older is None:
                return fd, status, partial
            os.unlink(partial, dir_fd=place.directory_fd)
        except BaseException:
            release(fd)
            raise
        # The file system does not keep what tells ours from others: here, ours look like that.
        release(fd)
        try:
            return *_claim(older, status), older.partial
        except _Taken:
            taken = [each for each in taken if each[0] is not older]
    raise Busy(f"{display_name(path)}: other files have the names that its partial could have")


class _Taken(Exception):
    """The name belongs to a file of somebody else; or (no ``status``) to one of ours that is of no use."""

    def __init__(self, status: os.stat_result | None) -> None:
        super().__init__(status)
        self.status = status


@frozen
class _Place:
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
        """The partial that is there, open; None if it is gone, or another one, by now.

        Fails with `_Taken` if it is not ours, or (``alike``) does not look like that file of ours.
        """
        try:
            status = self._named()
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
            # What has taken its place since the look may even have got its inode number.
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
        """Whether a partial that was abandoned with its final mode already, one without write permission, is usable.

        One that is locked is just being committed: `Busy`.
        """
        try:
            fd = os.open(self.partial, READ_FLAGS, dir_fd=self.directory_fd)
        except OSError as error:
            return error.errno in _SWAPPED
        try:
            self.lock(fd)
            status = os.fstat(fd)
            if is_ours(self.directory_fd, self.partial, status) and self.has(status):
                # What others may do with it is still to be seen: it tells whether they could have it open.
                _set_mode(fd, status, stat.S_IMODE(status.st_mode) | RECEIVING)
        except OSError:
            return False
        finally:
            release(fd)
        return True

    def lock(self, fd: int) -> None:
        """Keep everybody else out."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"{display_name(self.path)}: somebody else is writing it") from error

    def has(self, status: os.stat_result) -> bool:
        """Whether the name is still that of the locked file.

        Between open and flock the last writer may have committed it: then it is a final file, and writing to it would
        destroy that.
        """
        try:
            return identity_of(self._named()) == identity_of(status)
        except FileNotFoundError:
            return False

    def _named(self) -> os.stat_result:
        return os.stat(self.partial, dir_fd=self.directory_fd, follow_symlinks=False)


def _claim(place: _Place, alike: os.stat_result | None = None) -> tuple[int, os.stat_result]:
    """The partial of that name, new or found, locked, and what it is; fails with `_Taken` if it is not ours.

    With ``alike``, only one that is there already and looks like that.
    """
    for _ in range(_TRIES):
        try:
            fd, found = _opened(place, alike)
        except OSError as error:
            raise storage_error(error, place.path, Deed.CREATE) from error
        if fd is None:
            continue
        try:
            place.lock(fd)
            # Not before the lock is held: what was found then may be of the past.
            status = os.fstat(fd)
            if place.has(status):
                if not found:
                    learn(status)
                if _is_fit(status, found=found):
                    return fd, _set_mode(fd, status, RECEIVING) if found else status
                os.unlink(place.partial, dir_fd=place.directory_fd)
        except BaseException:
            release(fd)
            raise
        release(fd)
    raise Busy(f"{display_name(place.path)}: its partial is replaced again and again by somebody else")


def _opened(place: _Place, alike: os.stat_result | None) -> tuple[int | None, bool]:
    """A descriptor of the partial, if it can be had now, and whether it was there already."""
    if alike is None:
        with contextlib.suppress(FileExistsError):
            return place.create(), False
    return place.find(alike), True


def _is_alike(status: os.stat_result, ours: os.stat_result) -> bool:
    """Whether that may be an older partial, where new ones of ours look like this."""
    return stat.S_ISREG(status.st_mode) and look_alike(status, ours)


def _is_fit(status: os.stat_result, *, found: bool) -> bool:
    """Whether a locked partial may be written to; else its name is given up.

    A second name is a commit that was cut short where a rename takes a link, or somebody's trick.
    One that was about to be committed when everything ended may still be open for reading, by whom its mode allowed it:
    what is received now is perhaps not for them.
    """
    return status.st_nlink == 1 and not (found and is_marked(status) and status.st_mode & 0o077)


def _set_mode(fd: int, status: os.stat_result, mode: int) -> os.stat_result:
    """Take back what a commit that was cut short has given the partial; its time is then that of its last change."""
    if not is_marked(status) or stat.S_IMODE(status.st_mode) == mode:
        return status
    os.fchmod(fd, mode)
    os.utime(fd, ns=(status.st_ctime_ns, status.st_ctime_ns))
    return os.fstat(fd)
