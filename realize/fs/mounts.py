"""Which file systems are mounted where, as /proc/self/mountinfo tells."""

from __future__ import annotations

import re
from typing import Final

_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


def mounts_below(path: bytes, mountinfo: bytes) -> frozenset[tuple[bytes, bytes]]:
    """Return the mounts at an absolute real path or below it, each as its number and its mount point; see proc(5)."""
    inside = path.rstrip(b"/") + b"/"
    found = set()
    for line in mountinfo.splitlines():
        fields = line.split(b" ", 5)
        if len(fields) == 6:  # number, parent, device, root, mount point, and the rest
            point = _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), fields[4])
            if (point + b"/").startswith(inside):
                found.add((fields[0], point))
    return frozenset(found)


def read_mountinfo() -> bytes:
    """Return what this process sees mounted; empty where there is no /proc."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return file.read()
    except OSError:
        return b""
