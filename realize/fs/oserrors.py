"""Turning an `OSError`, or a lack of memory, into one of our errors.

The text names the file, escaped, and ends with the operating system's reason; if permission was denied, it also says
what for.
A lack of memory becomes `Busy`, since it may be over in a moment.
"""

from __future__ import annotations

import enum
import errno
import os
from types import TracebackType
from typing import Final

from realize.errors import BadName, Busy, Conflict, NoSpace, NotFound, NotRegular, RealizeError, StorageError
from realize.units import display_name

_CLASSES: Final[dict[int | None, type[RealizeError]]] = {
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.ENOENT: NotFound,
    errno.ENAMETOOLONG: BadName,
    errno.ELOOP: NotRegular,
    errno.ENXIO: NotRegular,
    errno.ENODEV: NotRegular,
    errno.ENOTDIR: Conflict,
    errno.EISDIR: Conflict,
    errno.EEXIST: Conflict,
    errno.EMFILE: Busy,
    errno.ENFILE: Busy,
    errno.ENOMEM: Busy,
    errno.EAGAIN: Busy,
}

_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class Deed(enum.Enum):
    """What was attempted with a file or directory; the value completes "cannot be ..."."""

    READ = "read"
    LIST = "listed"
    LOOK = "looked at"
    OPEN = "opened"
    CREATE = "created"
    WRITE = "written to"
    COMMIT = "put in its place"
    REMOVE = "removed"


def reason(error: OSError | MemoryError, deed: Deed | None = None) -> str:
    """Return the operating system's reason, without the name that Python adds; if it forbids ``deed``, say so."""
    said = _reason(error)
    if deed is None or isinstance(error, MemoryError) or error.errno not in _FORBIDDEN:
        return said
    return f"cannot be {deed.value}: {said}"


def _reason(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return os.strerror(errno.ENOMEM)
    if error.errno == errno.ELOOP:  # from O_NOFOLLOW: the system's own words would mislead
        return "is a symlink, and symlinks are not followed"
    if error.errno == errno.EAGAIN:  # from O_NONBLOCK: the system would have waited, which it does for leases only
        return "another program has a lease on it"
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))


def storage_error(error: OSError | MemoryError, what: bytes, deed: Deed | None = None) -> RealizeError:
    """Return the error to report when ``deed`` failed on the file named ``what``."""
    cls = Busy if isinstance(error, MemoryError) else _CLASSES.get(error.errno, StorageError)
    return cls(f"{display_name(what)}: {reason(error, deed)}")


class storage_errors:  # noqa: N801 -- used like contextlib.suppress
    """A context that converts an `OSError` about the file ``what``, or a lack of memory, with `storage_error`."""

    def __init__(self, what: bytes, deed: Deed | None = None) -> None:
        self.what = what
        self.deed = deed

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError | MemoryError):
            raise storage_error(error, self.what, self.deed) from error
