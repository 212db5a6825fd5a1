"""Whose content a final file has: what makes it safe to compare it for somebody who may not read it.

Who is told whether a file has some content learns what is in it, a byte at a time if he may choose what to ask.
So a file that comes from an *origin*, which may not read here, gets an extended attribute: whose it is, and the
digest of what that one has sent.
Whatever is compared for that origin later is compared only if the content still has this digest, which is computed
anew: then it learns nothing that it has not sent itself.
Times and owners are not trusted, and a copy of the file, or of the attribute, shows no more than the file itself.

The attribute is set before the content is made durable.
Where it cannot be kept nothing is compared, and the file is another one.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from blake3 import blake3

from realize.values import DIGEST_BYTES

ORIGIN_ATTRIBUTE: Final = "user.realize.origin"
"""Name and value fit what an inode of ext4 has to spare, so that they cost no block of their own."""

_CONTEXT: Final = "realize origin of content 2.0"
_LAYOUT: Final = b"\x01"
_SHORT: Final = 16


def origin_of(*parts: bytes) -> bytes:
    """What stands for whoever has that public key, or for those who have such keys and stand one behind the other."""
    hasher = blake3(derive_key_context=_CONTEXT)
    for part in parts:
        hasher.update(len(part).to_bytes(4, "big") + part)
    return hasher.digest()


def note_origin(fd: int, origin: bytes | None, digest: bytes) -> None:
    """Let a file that is still a partial say that this content came from there; None is who may read, and needs it not.

    What hinders that (no such attributes, no room for them, the file is not to be changed) hinders no file.
    """
    if origin is not None:
        with contextlib.suppress(OSError):
            os.setxattr(fd, ORIGIN_ATTRIBUTE, _LAYOUT + origin[:_SHORT] + digest)


def digest_from(fd: int, origin: bytes) -> bytes | None:
    """The digest of what this origin has put into an open file; None if that is not known.

    The content may be another one by now.
    """
    try:
        value = os.getxattr(fd, ORIGIN_ATTRIBUTE)
    except OSError:
        return None
    head = _LAYOUT + origin[:_SHORT]
    return value[len(head) :] if value.startswith(head) and len(value) == len(head) + DIGEST_BYTES else None
