"""Backups: what is about to be replaced gets a second name in a directory of backups, durably, before it loses its own.

A *backup directory* has a file `MARK_NAME` in it, which we make; whoever walks or opens directories leaves such a one
alone, with all that is in it (`realize.fs.tree`, `realize.store.local.walker`).
So backups are never listed, moved, written to, replaced or removed as data, by whichever program of ours.
A directory that has something else in it does not become one.

The order, for a thread that holds the lock of the old file:

1. the old file gets a name in the backup directory by link(2), which replaces nothing;
2. that name, and all directories above it, are made durable;
3. only then the new file takes the old name, by rename(2).

So the old file has one of both names at every instant, and the old name always has a file.
Where there are no hard links, it is renamed in step 1, and until step 3 nothing has its name.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Final

from realize.by_value import ByValue
from realize.errors import Busy, RealizeError, StorageError
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.oserrors import Deed, storage_errors
from realize.fs.stamps import Present
from realize.fs.syscalls import NO_LINKS, FileStatus, fsync_directory, keeps_change_times, rename_noreplace
from realize.fs.tree import Tree, holds_backups, identity_of
from realize.numbered import numbered
from realize.store.local.location import BackupPlace, Root, RootedLocation
from realize.store.local.siblings import free_number
from realize.store.local.walker import Walker
from realize.units import display_name
from realize.values import Backup, frozen

MARK_NAME: Final = names.BACKUP_MARK

_PAGE_BACKUPS: Final = 256
"""Backups that are looked at in one step."""

_NAMING_TRIES: Final = 100
_MARK_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@frozen(eq=False, repr=False)
class Aside(ByValue):
    """What became of a file that was set aside: where it is now, and whether it has lost its own name by that."""

    backup: Backup
    moved: bool


SyncDirectories = Callable[[Tree, Iterable[tuple[bytes, ...]]], Mapping[tuple[bytes, ...], RealizeError]]


def make_backup_directory(tree: Tree, below: tuple[bytes, ...]) -> None:
    """Make a backup directory, if it is none yet; raises `StorageError` if it is one with other things in it."""
    shown = display_name(names.join(below))
    fd = tree.directory(below, create=True)
    with storage_errors(names.join(below), Deed.CREATE):
        try:
            os.stat(MARK_NAME, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            with os.scandir(fd) as listed:
                if next(listed, None) is not None:
                    raise StorageError(
                        f"{shown}: cannot hold backups, since it contains other files; use an empty directory"
                    ) from None
            with contextlib.suppress(FileExistsError):
                release(os.open(MARK_NAME, _MARK_FLAGS, 0o600, dir_fd=fd))
            fsync_directory(fd)


def is_within_backups(root: Root) -> bool:
    """Return whether a root is a directory of backups, or in one; trees look only below it."""
    path = os.path.realpath(root.path)
    while True:
        if os.path.lexists(os.path.join(path, MARK_NAME)):
            return True
        path, name = os.path.split(path)
        if not name:
            return False


def prepare(location: RootedLocation) -> None:
    """Make the backup directory of a location, if it has one, before anybody else puts something in its place."""
    if location.backups is not None:
        location.root.refuse_own(location.backups.below)
        with location.root.tree(private_below=0, backups=True) as tree:
            make_backup_directory(tree, location.backups.below)


def set_aside(
    root: Root,
    place: BackupPlace,
    directory: tuple[bytes, ...],
    directory_fd: int,
    name: bytes,
    old: FileStatus,
    sync: SyncDirectories,
) -> Aside:
    """Give the old file of that name, which had this status, a durable name among the backups.

    ``sync`` makes directories durable, and all above them.
    Raises `Busy` if it was replaced meanwhile, and `StorageError` if there can be no backup, or `BadName` if its place
    belongs to Realize itself: then nothing may be replaced.
    """
    path = names.join((*directory, name))
    there = place.of(directory)
    root.refuse_own(there)
    with root.tree(private_below=0, backups=True) as tree:
        make_backup_directory(tree, place.below)
        fd = tree.directory(there, create=True)
        with storage_errors(path, Deed.COMMIT):
            kept, moved = _named(directory_fd, name, fd, old, path, root.own_names(there))
        for failure in sync(tree, [there]).values():
            raise failure
    return Aside(place.backup(directory, kept), moved)


def _named(
    directory_fd: int, name: bytes, fd: int, old: FileStatus, path: bytes, spared: frozenset[bytes]
) -> tuple[bytes, bool]:
    """Give the file a free name in the directory ``fd``, unless it has one.

    Returns that name, and whether the file has lost its own by that.
    The ``spared`` names count as taken.
    """
    number = free_number(fd, name, spared=spared) if name in spared else 0
    for _ in range(_NAMING_TRIES):
        kept = numbered(name, number)
        try:
            os.link(name, kept, src_dir_fd=directory_fd, dst_dir_fd=fd, follow_symlinks=False)
        except FileExistsError:
            free = free_number(fd, name, spared=spared)
            for cut_off in {kept, numbered(name, free - 1)}:
                if _is(fd, cut_off, old) and _renewed(fd, cut_off, numbered(name, free)):
                    return numbered(name, free), False
            number = free if free > number else free_number(fd, name, number + 1, spared)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return _moved(directory_fd, name, fd, old, path, number, spared), True
        else:
            if _is(fd, kept, old):
                return kept, False
            os.unlink(kept, dir_fd=fd)
            raise Busy(f"{display_name(path)}: was replaced there meanwhile")
    raise Busy(f"{display_name(path)}: other programs keep taking the names of its backups")


def _renewed(fd: int, kept: bytes, free: bytes) -> bool:
    """Give a backup that a commit which was cut off has made another name; return False if one of the names changed.

    The backup may be so old that somebody is about to remove it, by the name that it had.
    """
    try:
        rename_noreplace(fd, kept, free)
    except (FileExistsError, FileNotFoundError):
        return False
    return True


def _moved(
    directory_fd: int, name: bytes, fd: int, old: FileStatus, path: bytes, number: int, spared: frozenset[bytes]
) -> bytes:
    if not _is(directory_fd, name, old):
        raise Busy(f"{display_name(path)}: was replaced there meanwhile")
    for _ in range(_NAMING_TRIES):
        try:
            rename_noreplace(directory_fd, name, numbered(name, number), fd)
        except FileExistsError:
            number = free_number(fd, name, number + 1, spared)
        else:
            return numbered(name, number)
    raise Busy(f"{display_name(path)}: other programs keep taking the names of its backups")


def _is(fd: int, name: bytes, old: FileStatus) -> bool:
    try:
        return identity_of(os.stat(name, dir_fd=fd, follow_symlinks=False)) == identity_of(old)
    except FileNotFoundError:
        return False


def expire_backups(
    location: RootedLocation, place: BackupPlace, older_than_ns: int, present: Present
) -> Generator[list[tuple[bytes, int]], None, None]:
    """Remove backups that were made longer ago than that, and directories of backups that are empty and as old.

    Each step handles a page, and yields the path and size of what was removed; close the generator to stop early.
    The age is that of the change time: being set aside is the last thing that happens to a file.
    Where change times are not kept, that cannot be known, and nothing is removed.
    Whatever is not below a directory with our mark is left alone.
    """
    with location.root.tree(backups=True) as tree:
        fd, there = tree.nearest(place.below)
        if there != place.below or not holds_backups(fd) or not keeps_change_times(fd):
            return
        identity = tree.identity(place.below)
    root = Root(os.path.join(location.root.path, names.join(place.below)), identity, location.root.shown)
    walker = Walker(RootedLocation(root, ()))
    directories: list[tuple[bytes, ...]] = []
    try:
        while found := walker.found(_PAGE_BACKUPS):
            removed: list[tuple[bytes, int]] = []
            with root.tree() as tree:
                for each in found:
                    status = each.status
                    if status is None:
                        continue
                    if present.age_ns(status.st_ctime_ns) <= older_than_ns:
                        continue
                    if each.is_directory:
                        if len(directories) < _PAGE_BACKUPS:
                            directories.append((*each.directory, each.name))
                    elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                        directory_fd = tree.directory(each.directory)
                        if _is(directory_fd, each.name, status):
                            os.unlink(each.name, dir_fd=directory_fd)
                            removed.append((each.path, status.st_size))
            yield removed
    finally:
        walker.close()
    with root.tree() as tree:
        for *above, name in reversed(directories):
            with contextlib.suppress(OSError):  # it is not empty, or gone
                os.rmdir(name, dir_fd=tree.directory(tuple(above)))
