"""Probing whether a directory can be written to: free space, and a trial file; for a thread.

The trial file is a partial like any other, so that it is never taken for a final file, and expires like an abandoned
partial if a crash leaves it behind.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from typing import Final

from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.durable import write_all
from realize.fs.oserrors import Deed, storage_error
from realize.fs.space import space_of
from realize.fs.syscalls import fsync_directory, rename_noreplace
from realize.store.local.location import RootedLocation
from realize.store.local.partial_marks import create
from realize.units import NO_RESERVE, Reserve
from realize.values import Space

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PROBE_CONTENT: Final = b"Written by `realize check`; may be removed.\n" * 100


def measure_space(location: RootedLocation, reserve: Reserve = NO_RESERVE) -> Space:
    """Return the space on the file system of the location, or where it would be made; the reserve is not free."""
    with location.tree() as tree:
        try:
            fd, _ = tree.nearest(location.base)
            found = space_of(os.fstatvfs(fd))
        except OSError as error:
            raise storage_error(error, location.shown) from error
    return Space(max(0, found.free - reserve.of(found.size)), found.size, found.free_files if found.files else None)


def try_write(location: RootedLocation) -> int:
    """Do what a commit does with a trial file, and remove it; return the nanoseconds until it was durable."""
    secret = secrets.token_hex(8).encode("ascii")
    before, after = (names.partial_name(b"realize-check-%s-%d" % (secret, number)) for number in (1, 2))
    with location.tree() as tree:
        fd, _ = tree.nearest(location.base)
        began = time.monotonic_ns()
        try:
            _write(fd, before)
            rename_noreplace(fd, before, after)
            fsync_directory(fd)
            took = time.monotonic_ns() - began
            os.unlink(after, dir_fd=fd)
            fsync_directory(fd)
        except Exception as error:
            for name in (before, after):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=fd)
            if isinstance(error, OSError):
                raise storage_error(error, location.shown, Deed.WRITE) from error
            raise
    return took


def _write(directory_fd: int, name: bytes) -> None:
    fd = create(lambda mode: os.open(name, _FLAGS, mode, dir_fd=directory_fd))
    try:
        write_all(fd, _PROBE_CONTENT)
        os.fsync(fd)
    finally:
        release(fd)
