"""A descriptor that several threads use, one of which closes it."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from realize.errors import StorageError
from realize.fs import handle as handle_module
from realize.fs.handle import Handle


class Contended:
    """A lock for which another thread waits already: what that does comes first."""

    def __init__(self):
        self.first = None

    def __enter__(self):
        first, self.first = self.first, None
        if first is not None:
            first()

    def __exit__(self, *_error):
        pass


@pytest.fixture
def lock(monkeypatch):
    """The lock of all handles."""
    lock = Contended()
    monkeypatch.setattr(handle_module, "threading", SimpleNamespace(Lock=lambda: lock))
    return lock


@pytest.fixture
def fd():
    """A descriptor."""
    return os.open(os.devnull, os.O_RDONLY)


def test_who_comes_while_it_is_closed_does_not_get_it(lock, fd):
    """The number may be that of another file by then."""
    handle = Handle(fd)
    lock.first = handle.close
    with pytest.raises(StorageError), handle:
        pytest.fail("entered")


def test_what_is_closed_while_somebody_comes_is_closed_behind_him(lock, fd):
    """He has it as long as he needs it."""
    handle, closed = Handle(fd), []
    lock.first = handle.__enter__
    handle.close(closed.append)

    assert [] == closed
    os.fstat(fd)
    handle.__exit__(None, None, None)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_what_is_closed_while_the_last_user_leaves_is_closed_by_him(lock, fd):
    """Once: he is the last one, and whoever closes it sees that he is not gone yet."""
    handle, closed = Handle(fd), []
    handle.__enter__()
    lock.first = lambda: handle.close(closed.append)
    handle.__exit__(None, None, None)

    assert [] == closed
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
