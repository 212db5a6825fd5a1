"""Where a local location is found to be, and what it is later: `realize.store.location`."""

from __future__ import annotations

import os

import pytest

from realize.errors import Conflict, NotFound, StorageError
from realize.store.location import locate
from realize.store.places import place
from realize.store.tree import identity_of
from realize.store.walker import Walker
from realize.values import Kind, WhereKind
from tests.test_local_store import SALT, open_files, root

__all__ = ["root"]


@pytest.fixture
def file(root):
    """A file in it, and another one."""
    for name in (b"f", b"other"):
        with open(os.path.join(root, name), "wb") as target:
            target.write(name)
    return os.path.join(root, b"f")


def become_a_symlink(file):
    """Something else has its name."""
    os.unlink(file)
    os.symlink(b"other", file)


@pytest.mark.parametrize(
    ("below", "words"), [(b"f/x", "Not a directory"), (b"f/x/y", "Not a directory"), (b"n" * 300, "File name too long")]
)
def test_a_path_that_cannot_be_is_refused(root, file, below, words):
    """It is not taken for one that is to be made on demand."""
    with pytest.raises(StorageError, match=words) as caught:
        locate(os.path.join(root, below), b"", None)

    assert str(caught.value).startswith(os.fsdecode(os.path.join(root, below)))
    with pytest.raises(Conflict, match="f: is not a directory"):
        locate(file, b"x", None)


def test_a_root_that_becomes_a_fifo_hangs_nobody(root):
    """It is no directory, whoever writes to it."""
    location = locate(root, b"", None)
    os.rmdir(root)
    os.mkfifo(root)
    held = os.open(root, os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(StorageError, match="Not a directory"):
            location.tree()
    finally:
        os.close(held)


def test_a_single_file_is_where_it_is_now(root, file):
    """Whatever has its name since: a symlink is not followed, and what is gone is missing."""
    location = locate(file, b"", None)
    where = location.where(SALT, 77)
    assert (WhereKind.FILE, 77, None) == (where.kind, where.now_ns, where.mode)
    assert place(SALT, identity_of(os.stat(file))) == where.chain[0]
    assert place(SALT, identity_of(os.stat(root))) == where.chain[1]

    become_a_symlink(file)
    assert place(SALT, identity_of(os.lstat(file))) == location.where(SALT, 77).chain[0]
    os.unlink(file)
    with pytest.raises(NotFound, match="f: No such file or directory"):
        location.where(SALT, 77)
    assert [] == open_files(root)


@pytest.mark.parametrize("becomes", ["nothing else", "a symlink", "nothing"])
def test_a_single_file_is_all_that_is_listed(root, file, becomes):
    """As what it is at that moment; a listing of what is gone fails."""
    walking = Walker(locate(file, b"", None), salt=SALT, partials=False, avoid=b"")
    if becomes == "a symlink":
        become_a_symlink(file)
    elif becomes == "nothing":
        os.unlink(file)

    if becomes == "nothing":
        for _ in range(2):
            with pytest.raises(NotFound, match="f: No such file or directory"):
                walking.page()
    else:
        [entry] = walking.page()
        assert (b"f", becomes == "nothing else") == (entry.path, entry.kind is Kind.FILE)
        assert [] == walking.page()
    assert [] == open_files(root)
