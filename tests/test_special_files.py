"""Special files never hang a local store, and are never taken for files."""

from __future__ import annotations

import os
import socket

import pytest

from realize.errors import Conflict, NotRegular
from realize.values import Existing
from tests.local_stores import behind, every_method, opened, root

__all__ = ["behind", "root"]


@pytest.mark.parametrize("kind", ["FIFO", "socket", "directory", "character device"])
async def test_special_files_are_never_opened_for_long(root, behind, kind):
    """A FIFO, socket, device or directory is refused at once by readers, and is an obstacle for writers."""
    path = behind.at(b"special")
    listening = socket.socket(socket.AF_UNIX)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        listening.bind(path)
    elif kind == "directory":
        os.mkdir(path)
    else:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    listening.close()
    store = await opened(root)

    described, read, written, settled, _, matched, reader, writing = await every_method(store, b"special")

    assert Existing(obstacle=kind) == described
    assert [NotRegular] * 3 == [type(read), type(reader), type(matched)]
    assert [Conflict] * 2 == [type(written), type(writing)]
    assert settled is False
    assert [b"special"] == behind.everything()
