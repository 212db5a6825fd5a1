"""Removing sources that were moved, and empty directories; for a thread."""

from __future__ import annotations

import os
from collections.abc import Sequence

from realize.errors import NotFound, RealizeError, SourceChanged
from realize.fs.descriptors import release
from realize.fs.oserrors import Deed, storage_error
from realize.fs.syscalls import FileStatus, fresh_stat
from realize.fs.tree import Inode, Tree, identity_of
from realize.store.local.footprint import Footprint, trace_of
from realize.store.local.hard_links import HardLinks
from realize.store.local.location import RootedLocation
from realize.store.local.partial_marks import refuse_ours
from realize.store.local.versions import LINK_FLAGS, is_version, open_if_readable, refuse_written, representable
from realize.units import display_name
from realize.values import Removal, Vacant


def remove_batch(
    location: RootedLocation, removals: Sequence[Removal], links: HardLinks, footprint: Footprint
) -> list[RealizeError | None]:
    """Remove each file that is still the given version; return an error or None for each, `NotFound` if it is gone.

    Linux has no "unlink if it is this inode": a file that gets the name in the microseconds between our last look and
    the unlink is removed instead.
    The content that was moved is safe all the same.
    """
    answers: list[RealizeError | None] = []
    emptied: set[Inode] = set()
    with location.tree() as tree:
        for removal in removals:
            try:
                directory = _remove(location, tree, removal, links)
                if directory not in emptied:
                    emptied.add(directory)
                    footprint.removed_from(trace_of(directory, tree.directory(location.split(removal.path)[0])))
            except RealizeError as error:
                answers.append(error)
            except (OSError, MemoryError) as error:
                answers.append(storage_error(error, removal.path, Deed.REMOVE))
            else:
                answers.append(None)
    return answers


def _remove(location: RootedLocation, tree: Tree, removal: Removal, links: HardLinks) -> Inode:
    """Remove one file; return the identity of its directory."""
    directory, name = location.split(removal.path)
    directory_fd, identity = tree.directory(directory), tree.identity(directory)
    fd = open_if_readable(name, directory_fd)
    if fd is None:
        _unlink(directory_fd, name, fresh_stat(name, directory_fd), removal, links)
        return identity
    opened = True
    try:
        with tree.lock(directory, fd, removal.path, shared=True, closing=True) as lock:
            # In this order: everything written before nobody had it open any more shows in its status.
            refuse_written(fd, removal.path, closing=True)
            status = tree.fresh_fstat(fd)
            if lock.of_process:
                opened = False
                release(fd)
            _unlink(directory_fd, name, status, removal, links, fd if opened else None)
    finally:
        if opened:
            release(fd)
    return identity


def _unlink(
    directory_fd: int, name: bytes, status: FileStatus, removal: Removal, links: HardLinks, fd: int | None = None
) -> None:
    """Remove the file if ``status`` says that it is still the version that was read; else raise `SourceChanged`.

    ``fd`` is the file, if it is open: when it loses the name to another file, its version changes.
    """
    refuse_ours(directory_fd, name, status, removal.path)
    if status.st_nlink == 1 and is_version(status, removal.version):
        os.unlink(name, dir_fd=directory_fd)
    elif not _remove_link(directory_fd, name, removal, links, fd):
        raise SourceChanged(f"{display_name(removal.path)}: changed after it was read, so it was kept")


def _remove_link(directory_fd: int, name: bytes, removal: Removal, links: HardLinks, fd: int | None) -> bool:
    """Remove one name of a file that has, or had, several; return whether it was still the version that was read."""
    if fd is not None:
        return links.unlink(fd, name, directory_fd, removal.version)
    fd = os.open(name, LINK_FLAGS, dir_fd=directory_fd)
    try:
        return links.unlink(fd, name, directory_fd, removal.version)
    finally:
        release(fd)


def prune_batch(
    location: RootedLocation,
    vacant: Sequence[Vacant],
    footprint: Footprint,
    bounded: bool,  # noqa: FBT001 -- in a thread
) -> list[bool | RealizeError]:
    """Remove those of these directories that are empty and unchanged, in this order; return which were removed.

    If ``bounded``, directories outside the footprint are kept.
    """
    answers: list[bool | RealizeError] = []
    with location.tree() as tree:
        for each in vacant:
            try:
                directory, name = location.split(each.path)
                fd = tree.directory(directory)
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                trace = trace_of(identity_of(status), fd, name)
                unchanged = each.mtime_ns in {None, representable(status.st_mtime_ns)}
                if vanishes := unchanged and (not bounded or footprint.may_remove(trace)):
                    os.rmdir(name, dir_fd=fd)
                    footprint.gone(trace)
                    footprint.removed_from(trace_of(tree.identity(directory), fd))
                answers.append(vanishes)
            except (OSError, MemoryError):
                answers.append(False)  # not empty, in use, gone, not ours: it stays
            except NotFound:
                answers.append(False)
            except RealizeError as error:
                answers.append(error)
    return answers
