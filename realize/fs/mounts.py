"""Which file systems are mounted where, as /proc/self/mountinfo tells."""

from __future__ import annotations

import re
from typing import Final

_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


def mounts_below(path: bytes, mountinfo: bytes) -> frozenset[tuple[bytes, bytes]]:
    """Return the mounts at an absolute real path or below it, each as its number and its mount point; see proc(5)."""
    found = set()
    for line in mountinfo.splitlines():
        fields = line.split(b" ", 5)
        if len(fields) == 6:  # number, parent, device, root, mount point, and the rest
            point = _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), fields[4])
            if is_at_or_below(point, path):
                found.add((fields[0], point))
    return frozenset(found)


def read_mountinfo() -> bytes:
    """Return what this process sees mounted; empty where there is no /proc."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return file.read()
    except OSError:
        return b""


def mount_point_of(fd: int) -> bytes | None:
    """Return where the file system of an open file is mounted, by the very mount that it was opened through.

    None where /proc does not tell. Raises nothing.
    """
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            number = next((line.split()[1] for line in file if line.startswith(b"mnt_id:")), None)
    except OSError:
        return None
    return None if number is None else dict(mounts_below(b"/", read_mountinfo())).get(number)


def is_at_or_below(path: bytes, above: bytes) -> bool:
    """Return whether an absolute real path is another one, or leads on from it."""
    return (path + b"/").startswith(above.rstrip(b"/") + b"/")
