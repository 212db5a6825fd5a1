"""Writing content completely, and making names durable; for a thread."""

from __future__ import annotations

import os

from realize.fs.syscalls import fsync_directory


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Write all of ``content`` at the descriptor's position, in as many calls as it takes; raises `OSError`."""
    written = os.write(fd, content) if content else 0
    while written < len(content):
        written += os.write(fd, memoryview(content)[written:])


def sync_directory(path: str) -> None:
    """Make the names in a directory durable, where its file system supports that; raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync_directory(fd)
    finally:
        os.close(fd)
