"""POSIX access control lists: the form in which Linux keeps them, and one with names that other machines understand.

Linux keeps a list as an extended attribute of 32-bit numbers of users and groups (linux/posix_acl_xattr.h).
The portable form has for each entry its tag, its permissions, the number, and the name, in network byte order.
Pure, but for the functions that know names.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from realize.errors import ProtocolError
from realize.fs.principals import MAX_NAME_BYTES

ACCESS: Final = "system.posix_acl_access"
DEFAULT: Final = "system.posix_acl_default"
NFS4: Final = "system.nfs4_acl"
"""Another kind of list, which is not carried over."""

MAX_ENTRIES: Final = 256
"""Entries of a list that is carried over at most."""

_SECOND_VERSION: Final = struct.pack("<I", 2)
"""What every list begins with."""
_KEPT_ENTRY: Final = struct.Struct("<HHI")
_PORTABLE_ENTRY: Final = struct.Struct(">BBIB")
_USER_TAG: Final = 0x02
_GROUP_TAG: Final = 0x08
_OWNING_GROUP_TAG: Final = 0x04
_MASK_TAG: Final = 0x10
_TAGS: Final = (0x01, _USER_TAG, _OWNING_GROUP_TAG, _GROUP_TAG, _MASK_TAG, 0x20)
"""In the order that the kernel expects: owner, users, group, groups, mask, others."""
_NO_ID: Final = 0xFFFFFFFF

PLAIN_BYTES: Final = 4 + 3 * 8
"""Length of a list, as Linux keeps it, that says no more than permission bits do; instead of it these are set."""

NameOf = Callable[[int], bytes]
NumberOf = Callable[[int, bytes], int]


def portable(kept: bytes, user: NameOf, group: NameOf) -> bytes:
    """Return the portable form of what Linux keeps; raises `ValueError` if that is no such list, or too long a one."""
    head, rest = kept[: len(_SECOND_VERSION)], kept[len(_SECOND_VERSION) :]
    if head != _SECOND_VERSION or len(rest) % _KEPT_ENTRY.size:
        raise ValueError("has an access control list of an unknown form")
    entries = list(_KEPT_ENTRY.iter_unpack(rest))
    if len(entries) > MAX_ENTRIES:
        raise ValueError(
            f"has an access control list of {len(entries)} entries; at most {MAX_ENTRIES} are carried over"
        )
    return b"".join(
        _entry(
            tag, permissions, number, user(number) if tag == _USER_TAG else group(number) if tag == _GROUP_TAG else b""
        )
        for tag, permissions, number in entries
    )


def _entry(tag: int, permissions: int, number: int, name: bytes) -> bytes:
    return _PORTABLE_ENTRY.pack(tag, permissions, number, len(name)) + name


def kept(form: bytes, user: NumberOf, group: NumberOf) -> bytes:
    """Return what Linux keeps for a portable form; raises `ProtocolError` if that is none."""
    entries = sorted(
        (
            _TAGS.index(tag),
            user(number, name) if tag == _USER_TAG else group(number, name) if tag == _GROUP_TAG else _NO_ID,
            permissions,
        )
        for tag, permissions, number, name in _entries(form)
    )
    return _SECOND_VERSION + b"".join(
        _KEPT_ENTRY.pack(_TAGS[place], permissions, number) for place, number, permissions in entries
    )


def most_without(form: bytes) -> int:
    """Return the permission bits that a file may have at most without its list, so that nobody gains by that.

    The bits of the group are the mask of a list, not what it lets its group do, and whom it names is one of the group
    or of the others without it; raises `ProtocolError` if that is no portable form.
    """
    entries = [(tag, permissions) for tag, permissions, _, _ in _entries(form)]
    mask = next((permissions for tag, permissions in entries if tag == _MASK_TAG), 7)
    group = others = 7
    for tag, permissions in entries:
        if tag in {_USER_TAG, _GROUP_TAG}:
            group &= permissions & mask
            others &= permissions & mask
        elif tag == _OWNING_GROUP_TAG:
            group &= permissions & mask
    return 0o700 | group << 3 | others


def _entries(form: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    position = count = 0
    while position < len(form):
        count += 1
        if position + _PORTABLE_ENTRY.size > len(form) or count > MAX_ENTRIES:
            raise ProtocolError("an access control list that is truncated, or too long")
        tag, permissions, number, length = _PORTABLE_ENTRY.unpack_from(form, position)
        position += _PORTABLE_ENTRY.size + length
        if tag not in _TAGS or permissions > 7 or length > MAX_NAME_BYTES or position > len(form):
            raise ProtocolError("an access control list of an unknown form")
        yield tag, permissions, number, form[position - length : position]
