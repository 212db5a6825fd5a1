"""Identities of files and directories that can be compared between two stores without telling what they are.

The same file has the same place in every store of a machine that was opened with the same salt, also across containers:
the kernel's boot id stands for the machine.
"""

from __future__ import annotations

import functools
import os
from typing import Final

from blake3 import blake3

from realize.fs.descriptors import release
from realize.fs.tree import Identity, identity_of

IDENTITY_BYTES: Final = 16
"""Length of a place in bytes."""


@functools.cache
def _boot_id() -> bytes:
    with open("/proc/sys/kernel/random/boot_id", "rb") as source:
        return source.read().strip()


def place(salt: bytes, identity: Identity) -> bytes:
    """The salted identity of a file or directory of this machine."""
    device, inode = identity
    return blake3(salt + _boot_id() + device.to_bytes(8, "big") + inode.to_bytes(8, "big")).digest()[:IDENTITY_BYTES]


def places_upwards(salt: bytes, fd: int) -> tuple[bytes, ...]:
    """The places of a directory and of all above it, up to the root of the file system."""
    chain = [identity_of(os.fstat(fd))]
    current = os.dup(fd)
    try:
        while True:
            above = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=current)
            below, current = current, above
            release(below)
            identity = identity_of(os.fstat(current))
            if identity == chain[-1]:
                return tuple(place(salt, each) for each in chain)
            chain.append(identity)
    finally:
        release(current)
