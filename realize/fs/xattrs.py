"""Which extended attributes are carried over, and the form in which they travel.

Those of the namespace ``user`` are, but for those with which programs tell themselves something about files of this
machine, ours among them: who may set these from elsewhere could lie to such a program.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from realize.errors import ProtocolError
from realize.units import display_name

MAX_XATTRS_BYTES: Final = 48 << 10
"""Names and values of one file at most; ext4, as it usually is, keeps less than 4 KiB, and XFS any number of 64 KiB."""

_CARRIED: Final = b"user."
_PRIVATE: Final = (
    b"user.realize.",
    b"user.overlay.",
    b"user.fuseoverlayfs.",
    b"user.containers.",
    b"user.rootlesscontainers",
    b"user.DOSATTRIB",
    b"user.SAMBA_PAI",
)
"""What overlayfs, containers and Samba note for themselves, and we."""

_OF_THE_MACHINE: Final = (
    *(each for each in _PRIVATE if not each.startswith((b"user.DOSATTRIB", b"user.SAMBA"))),
    b"trusted.overlay.",
    b"security.selinux",
    b"security.apparmor",
    b"security.SMACK64",
    b"security.ima",
    b"security.evm",
    b"system.",
)
"""What means nothing on another machine, or is carried over otherwise, so it is no loss."""

_NAME_LENGTH: Final = struct.Struct(">B")
_VALUE_LENGTH: Final = struct.Struct(">H")
NO_XATTR_ERRORS: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
"""Errors of calls for an extended attribute that is not there, or cannot be."""


def is_carried(name: bytes) -> bool:
    """Return whether an extended attribute of that name is carried over."""
    return name.startswith(_CARRIED) and not name.startswith(_PRIVATE) and len(name) > len(_CARRIED)


def is_lost(name: bytes) -> bool:
    """Return whether something is lost with an extended attribute of that name, which is not carried over."""
    return not is_carried(name) and not name.startswith(_OF_THE_MACHINE)


def listed(fd: int) -> list[bytes]:
    """Return the names of the extended attributes of an open file, sorted; none where there are none."""
    try:
        return sorted(map(os.fsencode, os.listxattr(fd)))
    except OSError as error:
        if error.errno not in NO_XATTR_ERRORS:
            raise
        return []


def value_of(fd: int, name: bytes | str) -> bytes | None:
    """Return the value of an extended attribute of an open file, None if it has none of that name."""
    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno not in NO_XATTR_ERRORS:
            raise
        return None


def supported(fd: int) -> bool:
    """Return whether files of users can have extended attributes where this one is."""
    try:
        os.getxattr(fd, "user.realize.none")
    except OSError as error:
        return error.errno != errno.EOPNOTSUPP
    return True


def read(fd: int, names: Iterable[bytes]) -> bytes:
    """Return what is carried over of the extended attributes of an open file that have these ``names``.

    Raises `ValueError` if that is too much.
    """
    found: list[bytes] = []
    size = 0
    for name in filter(is_carried, names):
        value = value_of(fd, name)
        if value is not None:
            size += _NAME_LENGTH.size + len(name) + _VALUE_LENGTH.size + len(value)
            if size > MAX_XATTRS_BYTES:
                raise ValueError(f"has extended attributes of more than {MAX_XATTRS_BYTES} bytes")
            found += (_NAME_LENGTH.pack(len(name)), name, _VALUE_LENGTH.pack(len(value)), value)
    return b"".join(found)


def lost(names: Iterable[bytes]) -> bytes | None:
    """Return the name of an extended attribute that would be lost; None if there is none among these."""
    return next(filter(is_lost, names), None)


def replace(fd: int, form: bytes) -> None:
    """Give an open file exactly these extended attributes, apart from those that are not carried over.

    Raises `OSError`, and `ProtocolError` before anything is changed for any that must not be set.
    """
    wanted, there = dict(_parsed(form)), listed(fd)
    for name in there:
        if is_carried(name) and name not in wanted:
            os.removexattr(fd, name)
    for name, value in wanted.items():
        if name not in there or value_of(fd, name) != value:
            os.setxattr(fd, name, value)
            if value_of(fd, name) != value:
                raise OSError(errno.EOPNOTSUPP, "the file system keeps no extended attributes")


def _parsed(form: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position < len(form):
        try:
            name, position = _piece(form, position, _NAME_LENGTH)
            value, position = _piece(form, position, _VALUE_LENGTH)
        except struct.error:
            raise ProtocolError("extended attributes of an unknown form") from None
        if not is_carried(name) or b"\0" in name:
            raise ProtocolError(f"an extended attribute that is not carried over: {display_name(name)}")
        yield name, value


def _piece(form: bytes, position: int, length: struct.Struct) -> tuple[bytes, int]:
    start = position + length.size
    end = start + length.unpack_from(form, position)[0]
    if end > len(form):
        raise struct.error("truncated")
    return form[start:end], end
