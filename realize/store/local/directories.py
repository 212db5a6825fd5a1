"""Making the directories of a destination, and giving them the permissions and times of the source's.

A directory is at no time more open to others than that of the source: it is made for its owner alone, and then gets its
permissions by fchmod(2).
Until the end its owner may read, write and enter it, since nothing could be put into a read-only copy.
Its owner may read and enter it even afterwards, or a later run could not look into it; that is not needed for a process
that may read and enter all directories.
What it has in the end is made durable before anybody is told: the source may remove its own directory then.

For a thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from realize.errors import BadName, Conflict, NotFound, NotKept, RealizeError
from realize.fs import awaiting
from realize.fs.descriptors import release
from realize.fs.durable import refuse_dead
from realize.fs.oserrors import Deed, storage_error, storage_errors
from realize.fs.syscalls import is_read_only, read_umask
from realize.fs.tree import Tree
from realize.store.hooks import CommitHooks, Sync
from realize.store.local.footprint import Footprint, Trace, trace_of
from realize.store.local.group_commit import Anchor, sync_directories
from realize.store.local.location import RootedLocation
from realize.store.local.small_files import open_anchor
from realize.values import (
    OWNERS,
    Directory,
    Preserve,
)

if TYPE_CHECKING:
    from realize.extras import Extras

_OWNERS_LOOK: Final = 0o500
_LOOK_ANYWHERE: Final = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_PERMISSIONS: Final = 0o777
_PLAIN_PERMISSIONS: Final = 0o777 & ~read_umask()


def make_directories(
    location: RootedLocation,
    directories: Sequence[Directory],
    footprint: Footprint,
    bounded: bool,  # noqa: FBT001 -- in a thread
) -> list[RealizeError | None]:
    """Make missing directories, in this order, and set the permissions of existing ones, before files arrive.

    If ``bounded``, only existing directories of the footprint are changed.
    Returns an error or None for each.

    A run that is killed after it moved all files of a directory never returns to that directory, so it must have its
    permissions by then; it becomes durable with its first file.
    """
    answers: list[RealizeError | None] = []
    with location.tree(private=True) as tree:
        for each in directories:
            try:
                if each.path or location.only is None:
                    adapts = footprint if bounded else None
                    made = _make(tree, _components(location, each), each, adapts)
                    if made is not None:
                        footprint.made(made)
            except RealizeError as error:
                answers.append(error)
            except (OSError, MemoryError) as error:
                answers.append(storage_error(error, each.path or location.shown, Deed.CREATE))
            else:
                answers.append(None)
    return answers


def set_directories(
    location: RootedLocation,
    directories: Sequence[Directory],
    footprint: Footprint,
    bounded: bool,  # noqa: FBT001 -- in a thread
    watch: CommitHooks,
) -> list[bool | RealizeError]:
    """Set the final permissions and times of existing directories, in this order; return whether each has them.

    If ``bounded``, directories outside the footprint are not changed, and those of a read-only mount never are.
    What is returned is durable; raises `RealizeError` if that fails, or a file system takes no more changes.
    """
    answers: list[bool | RealizeError] = []
    ours: list[tuple[bytes, ...]] = []
    with location.tree() as tree:
        anchor = open_anchor(tree)
        try:
            for each in directories:
                try:
                    above, name = location.split(each.path)
                    directory = (*above, name)
                    fd = tree.directory(directory)
                    may_change = not is_read_only(fd) and (
                        not bounded or footprint.may_change(trace_of(tree.identity(directory), fd))
                    )
                    if may_change:
                        _set(fd, each)
                        ours.append(directory)
                except (BadName, NotKept) as error:
                    answers.append(error)
                except OSError:
                    with storage_errors(each.path):
                        refuse_dead(fd)
                    answers.append(False)  # not ours
                except (RealizeError, MemoryError):
                    answers.append(False)  # missing
                else:
                    answers.append(may_change)
            if ours:
                with watch.syncing(Sync.DIRECTORIES):
                    _make_durable(tree, ours, anchor)
        finally:
            if anchor is not None:
                anchor.close()
    return answers


def _make_durable(tree: Tree, directories: Sequence[tuple[bytes, ...]], anchor: Anchor | None) -> None:
    """Make what was set durable, also if it was set before.

    Raises `RealizeError`, but of none that is gone by now, or has something else in its place.
    """
    for directory, error in sync_directories(tree, directories, anchor).items():
        tree.forget()
        try:
            tree.directory(directory)
        except (NotFound, Conflict, BadName):
            continue
        raise error


def _components(location: RootedLocation, directory: Directory) -> tuple[bytes, ...]:
    """Return the components below the root; an empty path means the location itself."""
    if not directory.path:
        return location.base
    above, name = location.split(directory.path)
    return (*above, name)


def _make(tree: Tree, components: tuple[bytes, ...], directory: Directory, adapts: Footprint | None) -> Trace | None:
    """Make a directory, and return its trace, or None if it was there already.

    An existing one gets its permissions if ``adapts`` is None or contains it; the location itself, which has no path,
    never does.
    """
    if not components:
        return None  # the root, which exists
    parent_fd = tree.directory(components[:-1], create=True)
    try:
        os.mkdir(components[-1], OWNERS, dir_fd=parent_fd)
    except FileExistsError:
        if directory.path and (adapts is None or adapts.may_change(_trace(tree, components))):
            most = _PERMISSIONS
            if directory.extras is not None:
                most = _try_to_give(tree.directory(components), directory, directory.extras)
            _adapt(tree.directory(components[:-1]), components[-1], _mode_of(directory) & most)
        return None
    fd = tree.directory(components)
    awaiting.mark(fd, components[-1])
    most = _PERMISSIONS
    if directory.extras is not None:
        most = _try_to_give(fd, directory, directory.extras)
    _set_mode(fd, os.fstat(fd), _mode_of(directory) & most | OWNERS)
    return _trace(tree, components)


def _trace(tree: Tree, components: tuple[bytes, ...]) -> Trace:
    return trace_of(tree.identity(components), tree.directory(components))


def _adapt(parent_fd: int, name: bytes, mode: int) -> None:
    """Give an existing directory the permissions of the source, and its owner all, while files arrive.

    One that its owner may not write to is not changed, unless it has just the permissions that we would give it.
    """
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        status = os.fstat(fd)
        permissions = status.st_mode & _PERMISSIONS
        ours = status.st_uid == os.geteuid() and permissions in (mode, _lasting(mode))
        if permissions != mode | OWNERS and (ours or permissions & OWNERS == OWNERS):
            # Through /proc: a directory that we may not read can only be opened with O_PATH, which fchmod(2) refuses.
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(status.st_mode) & ~_PERMISSIONS | mode | OWNERS)
    except PermissionError:
        pass  # not ours
    finally:
        release(fd)


def _mode_of(directory: Directory) -> int:
    """Return the permissions that the source has, or those of any new directory if they are not carried over."""
    extras = directory.extras
    return _PLAIN_PERMISSIONS if extras is not None and Preserve.MODE in extras.leaves else directory.mode


def _give(fd: int, directory: Directory, extras: Extras) -> int:
    """Give a directory all but its permissions and its time; our caller sets the permissions afterwards.

    Returns which of them it may have at most.
    """
    from realize.store.local.extras import give_to_final

    return give_to_final(fd, extras, directory.path)


def _try_to_give(fd: int, directory: Directory, extras: Extras) -> int:
    """The same before files arrive; what cannot be kept is told when all are there."""
    try:
        return _give(fd, directory, extras)
    except NotKept:
        from realize.fs.acls import most_without

        return most_without(extras.acl or b"")


def _set(fd: int, directory: Directory) -> None:
    extras = directory.extras
    leaves: frozenset[Preserve] = frozenset() if extras is None else extras.leaves
    before = status = os.fstat(fd)
    mode = _lasting(directory.mode)
    if extras is not None:
        most = _give(fd, directory, extras)
        status = os.fstat(fd)
        mode = (stat.S_IMODE(before.st_mode) if Preserve.MODE in leaves else mode) & most
    if directory.mtime_ns is None:
        _set_mode(fd, status, mode & before.st_mode)
        return
    _set_mode(fd, status, mode)
    if status.st_mtime_ns != directory.mtime_ns and Preserve.TIMES not in leaves:
        os.utime(fd, ns=(directory.mtime_ns, directory.mtime_ns))


def _lasting(mode: int) -> int:
    """Return the final permissions of the copy of a directory with that mode."""
    return mode if mode & _OWNERS_LOOK == _OWNERS_LOOK or _may_look_anywhere() else mode | _OWNERS_LOOK


def _may_look_anywhere() -> bool:
    """Return whether this thread may read and enter all directories; root may, unless it has lost that capability."""
    with contextlib.suppress(OSError, ValueError), open("/proc/thread-self/status", "rb") as status:
        for line in status:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) & _LOOK_ANYWHERE)
    return os.geteuid() == 0


def _set_mode(fd: int, status: os.stat_result, mode: int) -> None:
    """Set the permissions, keeping set-uid, set-gid and sticky bits as they are."""
    wanted = stat.S_IMODE(status.st_mode) & ~_PERMISSIONS | mode & _PERMISSIONS
    if wanted != stat.S_IMODE(status.st_mode):
        os.fchmod(fd, wanted)
