"""Names with a number, under which files are kept whose own name is taken: ``app.log`` becomes ``app.1.log``.

Both ends of a connection make them here, and tell each other only the number; so a peer cannot make up a name.
Pure.
"""

from __future__ import annotations

import re
from typing import Final

from realize.values import MAX_COMPONENT_BYTES

MAX_NAME_NUMBER: Final = (1 << 32) - 1
"""The largest number of a name."""

_EXTENSION: Final = re.compile(rb"\.(?=[^.]*[A-Za-z])[A-Za-z0-9_+~-]{1,16}")
"""What programs know a kind of file by: short, and not a number alone, as in ``libz.so.1`` or ``app.log.2026``."""

_WRAPPINGS: Final = frozenset(
    {b".gz", b".bz2", b".xz", b".zst", b".lz", b".lz4", b".lzma", b".lzo", b".br", b".z", b".gpg", b".asc", b".sig"}
    | {b".pgp", b".age", b".enc"}
)
"""Extensions of what is packed, encrypted or signed: the one before says what is in it, and stays with it."""


def numbered(path: bytes, number: int) -> bytes:
    """Return the path with ``number`` in its last component, before the extension; with 0, the path itself.

    ``archive.tar.gz`` becomes ``archive.1.tar.gz``, so that it is still known as a packed archive; what begins with a
    dot, and has no other one, gets the number at its end.
    A name that would be too long loses the end of what is before the number, and no part of a character of UTF-8.
    """
    if not number:
        return path
    above, slash, name = path.rpartition(b"/")
    stem, extension = _parted(name)
    added = b".%d" % number
    room = MAX_COMPONENT_BYTES - len(added) - len(extension)
    return above + slash + _shortened(stem, room) + added + extension


def _parted(name: bytes) -> tuple[bytes, bytes]:
    """Return what is before the extension, and the extension, perhaps of two parts; it is empty if there is none."""
    stem, extension = _split(name)
    if extension.lower() in _WRAPPINGS:
        inner, inside = _split(stem)
        return inner, inside + extension
    return stem, extension


def _split(name: bytes) -> tuple[bytes, bytes]:
    before, dot, after = name.rpartition(b".")
    if not before.strip(b".") or not _EXTENSION.fullmatch(dot + after):
        return name, b""
    return before, dot + after


def _shortened(stem: bytes, room: int) -> bytes:
    """Return at most ``room`` bytes of the beginning, not ending within a character if it is UTF-8."""
    if len(stem) <= room:
        return stem
    kept = stem[:room]
    try:
        stem.decode()
    except UnicodeDecodeError:
        return kept
    return kept.decode(errors="ignore").encode()
