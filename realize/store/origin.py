"""The origin of a final file's content, which makes it safe to compare the file for a peer that may not read it.

A peer that is told whether a file has certain content can read the file byte by byte, if it chooses what to ask.
So a file that comes from an *origin*, a sender that may not read here, gets an extended attribute that names the
origin and holds the digest of what it sent.
A later comparison for that origin answers only if the content still has this digest, which is computed anew; so the
origin learns nothing that it has not sent itself.
Times and owners are not trusted, and a copy of the file, or of the attribute, reveals no more than the file itself.

The attribute is set before the content is made durable.
Where it cannot be stored, nothing is compared, and the file counts as different.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from blake3 import blake3

from realize.values import DIGEST_BYTES

ORIGIN_ATTRIBUTE: Final = "user.realize.origin"
"""Name and value fit the spare space of an ext4 inode, so they need no block of their own."""

_CONTEXT: Final = "realize origin of content 2.0"
_LAYOUT: Final = b"\x01"
_SHORT_ORIGIN_BYTES: Final = 16


def origin_of(*parts: bytes) -> bytes:
    """Return the hash that identifies an origin: the holder of a public key, or a chain of senders, a part for each."""
    hasher = blake3(derive_key_context=_CONTEXT)
    for part in parts:
        hasher.update(len(part).to_bytes(4, "big") + part)
    return hasher.digest()


def note_origin(fd: int, origin: bytes | None, digest: bytes) -> None:
    """Record on an open partial which origin its content came from; does nothing if that is None: it may read.

    A failure (no extended attributes, no space for them, an immutable file) is ignored: it keeps no file from arriving.
    """
    if origin is not None:
        with contextlib.suppress(OSError):
            os.setxattr(fd, ORIGIN_ATTRIBUTE, _LAYOUT + origin[:_SHORT_ORIGIN_BYTES] + digest)


def digest_from(fd: int, origin: bytes) -> bytes | None:
    """Return the digest of what this origin wrote to an open file, or None if that is not known.

    The content may have changed since.
    """
    try:
        value = os.getxattr(fd, ORIGIN_ATTRIBUTE)
    except OSError:
        return None
    head = _LAYOUT + origin[:_SHORT_ORIGIN_BYTES]
    return value[len(head) :] if value.startswith(head) and len(value) == len(head) + DIGEST_BYTES else None
