"""What statvfs(2) says, in bytes and files."""

import os
from types import SimpleNamespace

from realize.fs.space import FileSystemSpace, space_of


def test_sizes_are_those_of_an_ordinary_user_in_bytes():
    """By the unit that blocks are counted in, which is not the block size that is best for reading."""
    status = SimpleNamespace(
        f_bavail=10, f_bfree=20, f_frsize=4, f_bsize=64, f_blocks=100, f_files=50, f_ffree=9, f_favail=7
    )

    assert FileSystemSpace(size=400, free=40, files=50, free_files=7) == space_of(status)


def test_a_real_file_system_has_room(tmp_path):
    """No more of it is free than there is."""
    found = space_of(os.statvfs(tmp_path))

    assert 0 < found.free <= found.size
