"""Directories of a destination: making them, and giving them the permissions and times of those of the source.

A directory is at no time more open to others than that of the source: it is made for its owner alone, and gets its
permissions from an fchmod(2) on what was made.
Its owner may read, write and enter it until the end, or nothing could be put into a copy of one that is read-only.
Read and enter it he may for good, unless he may do that anywhere: a later run could not look at what is in it.

For a thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import Final

from realize.errors import BadName, RealizeError
from realize.fs import awaiting
from realize.fs.descriptors import release
from realize.fs.oserrors import Deed, storage_error
from realize.fs.tree import Tree
from realize.store.local.footprint import Footprint, Trace, trace_of
from realize.store.local.location import Location
from realize.values import Directory

_OWNERS: Final = 0o700
_OWNERS_LOOK: Final = 0o500
_LOOK_ANYWHERE: Final = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_PERMISSIONS: Final = 0o777


def make_directories(
    location: Location,
    directories: Sequence[Directory],
    footprint: Footprint,
    bounded: bool,  # noqa: FBT001 -- in a thread
) -> list[RealizeError | None]:
    """Make those that are missing, in this order, and give the others their permissions, before files come.

    If that is ``bounded``, the others are those of the footprint.

    A run that is killed when all files of a directory were moved does not come back to it: by then it has to have what
    it needs, and it is made durable with the first file.
    """
    answers: list[RealizeError | None] = []
    with location.tree(private=True) as tree:
        for each in directories:
            try:
                if each.path or location.only is None:
                    adapts = footprint if bounded else None
                    made = _make(tree, _components(location, each), each.mode, adapts, location=not each.path)
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
    location: Location,
    directories: Sequence[Directory],
    footprint: Footprint,
    bounded: bool,  # noqa: FBT001 -- in a thread
) -> list[bool | RealizeError]:
    """Give those that are there what they are to have in the end, in this order; whether they have it.

    If that is ``bounded``, those that are not of the footprint stay what they are.
    """
    answers: list[bool | RealizeError] = []
    with location.tree() as tree:
        for each in directories:
            try:
                directory, name = location.split(each.path)
                fd = tree.directory((*directory, name))
                ours = not bounded or footprint.may_change(trace_of(tree.identity((*directory, name)), fd))
                if ours:
                    _set(fd, each)
            except BadName as error:
                answers.append(error)
            except (RealizeError, OSError, MemoryError):
                answers.append(False)  # missing, or not ours
            else:
                answers.append(ours)
    return answers


def _components(location: Location, directory: Directory) -> tuple[bytes, ...]:
    """Below the root; a directory without a name is the location itself."""
    if not directory.path:
        return location.base
    above, name = location.split(directory.path)
    return (*above, name)


def _make(
    tree: Tree, components: tuple[bytes, ...], mode: int, adapts: Footprint | None, *, location: bool
) -> Trace | None:
    """What was made, if it was; one that is there is adapted if it is of ``adapts``, or that is None."""
    if not components:
        return None  # the root, which is there
    parent_fd = tree.directory(components[:-1], create=True)
    try:
        os.mkdir(components[-1], _OWNERS, dir_fd=parent_fd)
    except FileExistsError:
        if not location and (adapts is None or adapts.may_change(_trace(tree, components))):
            _adapt(tree.directory(components[:-1]), components[-1], mode)
        return None
    fd = tree.directory(components)
    awaiting.mark(fd, components[-1])
    _set_mode(fd, os.fstat(fd), mode | _OWNERS)
    return _trace(tree, components)


def _trace(tree: Tree, components: tuple[bytes, ...]) -> Trace:
    return trace_of(tree.identity(components), tree.directory(components))


def _adapt(parent_fd: int, name: bytes, mode: int) -> None:
    """Give a directory that is there the permissions of the source, and its owner all, as long as files come.

    One that its owner may not write to stays as it is, unless it got just these permissions from us.
    """
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        status = os.fstat(fd)
        permissions = status.st_mode & _PERMISSIONS
        ours = status.st_uid == os.geteuid() and permissions in (mode, _lasting(mode))
        if permissions != mode | _OWNERS and (ours or permissions & _OWNERS == _OWNERS):
            # By way of /proc: one that may not be read cannot be opened otherwise.
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(status.st_mode) & ~_PERMISSIONS | mode | _OWNERS)
    except PermissionError:
        pass  # not ours
    finally:
        release(fd)


def _set(fd: int, directory: Directory) -> None:
    status, mode = os.fstat(fd), _lasting(directory.mode)
    if directory.mtime_ns is None:
        _set_mode(fd, status, mode & status.st_mode)
        return
    _set_mode(fd, status, mode)
    if status.st_mtime_ns != directory.mtime_ns:
        os.utime(fd, ns=(directory.mtime_ns, directory.mtime_ns))


def _lasting(mode: int) -> int:
    """The permissions that a copy of a directory has for good."""
    return mode if mode & _OWNERS_LOOK == _OWNERS_LOOK or _may_look_anywhere() else mode | _OWNERS_LOOK


def _may_look_anywhere() -> bool:
    """Whether this thread may read and enter all directories, as root may unless that was taken from it."""
    with contextlib.suppress(OSError, ValueError), open("/proc/thread-self/status", "rb") as status:
        for line in status:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) & _LOOK_ANYWHERE)
    return os.geteuid() == 0


def _set_mode(fd: int, status: os.stat_result, mode: int) -> None:
    """Set the permissions; set-uid, set-gid and sticky stay what they are here."""
    wanted = stat.S_IMODE(status.st_mode) & ~_PERMISSIONS | mode & _PERMISSIONS
    if wanted != stat.S_IMODE(status.st_mode):
        os.fchmod(fd, wanted)
