"""What people read of an error of the system: `realize.fs.oserrors`."""

from __future__ import annotations

import errno
import os

import pytest

from realize.errors import BadName, Busy, Conflict, NoSpace, NotFound, NotRegular, StorageError
from realize.fs.oserrors import Deed, reason, storage_error, storage_errors


def of_number(number):
    """An error that has a number and no text."""
    error = OSError()
    error.errno = number
    return error


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError(errno.EIO, "broken"), StorageError, "broken"),
        (OSError(errno.EIO, "broken", "/name"), StorageError, "broken"),
        (of_number(errno.EIO), StorageError, os.strerror(errno.EIO)),
        (OSError("only words"), StorageError, "only words"),
        (OSError(errno.ENOSPC, "full"), NoSpace, "full"),
        (OSError(errno.ENOENT, "gone"), NotFound, "gone"),
        (OSError(errno.EISDIR, "a directory"), Conflict, "a directory"),
        (OSError(errno.ENAMETOOLONG, "too long"), BadName, "too long"),
        (OSError(errno.ENXIO, "a socket"), NotRegular, "a socket"),
        (OSError(errno.ELOOP, "levels"), NotRegular, "is a symlink, and symlinks are not followed"),
        (OSError(errno.EAGAIN, "again"), Busy, "another program has a lease on it"),
        (OSError(errno.EMFILE, "too many"), Busy, "too many"),
        (MemoryError("what"), Busy, os.strerror(errno.ENOMEM)),
        (OSError(errno.EPERM, "forbidden"), StorageError, "forbidden"),
    ],
)
def test_each_error_has_its_kind_and_the_words_of_the_system(error, kind, said):
    """Without the names that Python puts into it, and with the one that it is about."""
    told = storage_error(error, b"a\nb")

    assert (kind, f"a\\nb: {said}") == (type(told), str(told))
    assert said == reason(error)


def test_what_we_may_not_do_is_said():
    """For other errors it makes no difference what was tried."""
    for number in (errno.EACCES, errno.EPERM, errno.EROFS):
        assert "cannot be removed: no" == reason(OSError(number, "no"), Deed.REMOVE)
    assert "no" == reason(OSError(errno.EIO, "no"), Deed.REMOVE)
    assert os.strerror(errno.ENOMEM) == reason(MemoryError(), Deed.REMOVE)


def test_only_errors_of_the_system_become_ours():
    """Others are faults of the program, or ours already, and go through."""
    for error in (OSError(errno.ENOSPC, "full"), MemoryError()):
        with pytest.raises((NoSpace, Busy), match="f: ") as caught, storage_errors(b"f", Deed.WRITE):
            raise error
        assert error is caught.value.__cause__
    for other in (NotFound("g"), ValueError("h")):
        with pytest.raises(type(other)) as caught, storage_errors(b"f"):
            raise other
        assert other is caught.value
