"""Identity tokens: salted hashes by which two stores can tell whether they mean the same file, and nothing else.

A file or directory has the same token in every store of a machine that was opened with the same salt, even across
containers: the kernel's boot id stands for the machine.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import Final

from blake3 import blake3

from realize.fs.descriptors import release
from realize.fs.tree import Inode, identity_of

IDENTITY_BYTES: Final = 16
"""Length of an identity token."""

_INODE: Final = struct.Struct(">QQ")


@functools.cache
def _boot_id() -> bytes:
    with open("/proc/sys/kernel/random/boot_id", "rb") as source:
        return source.read().strip()


def identity_token(salt: bytes, identity: Inode) -> bytes:
    """Return the identity token of a file or directory of this machine."""
    return blake3(salt + _boot_id() + _INODE.pack(*identity)).digest(IDENTITY_BYTES)


def identity_tokens_upwards(salt: bytes, fd: int) -> tuple[bytes, ...]:
    """Return the identity tokens of an open directory and of all above it, up to ``/``; raises `OSError`."""
    identities = [identity_of(os.fstat(fd))]
    current = os.dup(fd)
    try:
        while True:
            above = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=current)
            below, current = current, above
            release(below)
            identity = identity_of(os.fstat(current))
            if identity == identities[-1]:
                return tuple(identity_token(salt, each) for each in identities)
            identities.append(identity)
    finally:
        release(current)
