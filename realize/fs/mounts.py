"""Which file systems are mounted where, as /proc/self/mountinfo tells."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Final

from attrs import frozen

from realize.by_value import ByValue

_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


@frozen(eq=False, repr=False)
class Mount(ByValue):
    """One mount: the directory ``root`` of the file system on ``device``, seen at ``point``.  See proc(5)."""

    number: bytes
    parent: bytes
    """The number of the mount that ``point`` is on."""
    device: bytes
    root: bytes
    point: bytes


def mounts_in(mountinfo: bytes) -> Iterator[Mount]:
    """Yield the mounts that a mountinfo file lists."""
    for line in mountinfo.splitlines():
        fields = line.split(b" ", 5)
        if len(fields) == 6:  # number, parent, device, root, mount point, and the rest
            number, parent, device, root, point, _ = fields
            yield Mount(number, parent, device, _unescaped(root), _unescaped(point))


def mounts_below(path: bytes, mountinfo: bytes) -> frozenset[tuple[bytes, bytes]]:
    """Return the mounts at an absolute real path or below it, each as its number and its mount point."""
    return frozenset((each.number, each.point) for each in mounts_in(mountinfo) if is_at_or_below(each.point, path))


def aliases(path: bytes, mountinfo: bytes) -> frozenset[bytes]:
    """Return the other absolute paths of an absolute real path, by other mounts of the file system that it is on."""
    mounts = list(mounts_in(mountinfo))
    above = [each for each in mounts if is_at_or_below(path, each.point)]
    if not above:
        return frozenset()
    mount = max(above, key=lambda each: len(each.point))
    inside = posixpath.normpath(posixpath.join(mount.root, posixpath.relpath(path, mount.point)))
    found = (
        posixpath.normpath(posixpath.join(each.point, posixpath.relpath(inside, each.root)))
        for each in mounts
        if each.device == mount.device and is_at_or_below(inside, each.root)
    )
    return frozenset(found) - {path}


def mount_point_of(fd: int) -> bytes | None:
    """Return where the file system of an open file is mounted, by the very mount that it was opened through.

    None where /proc does not tell.  Raises nothing.
    """
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            number = next((line.split()[1] for line in file if line.startswith(b"mnt_id:")), None)
    except OSError:
        return None
    return None if number is None else genuine_mount_point(number, read_mountinfo())


def genuine_mount_point(number: bytes, mountinfo: bytes) -> bytes | None:
    """Return the mount point of that mount, or, if it shows a directory in its own place, of the one below it.

    Service managers mount directories over themselves, for other flags, such as systemd for ``ReadWritePaths=``: that
    makes the empty mount point of a disk a mount point, too.
    """
    mounts = {each.number: each for each in mounts_in(mountinfo)}
    mount = mounts.get(number)
    while mount is not None and mount.parent != mount.number:
        parent = mounts.get(mount.parent)
        if parent is None or not _shows_itself(mount, parent):
            break
        mount = parent
    return None if mount is None else mount.point


def _shows_itself(mount: Mount, parent: Mount) -> bool:
    """Whether a mount shows just what would be there without it."""
    if mount.device != parent.device or not is_at_or_below(mount.point, parent.point):
        return False
    beneath = posixpath.join(parent.root, posixpath.relpath(mount.point, parent.point))
    return posixpath.normpath(beneath) == posixpath.normpath(mount.root)


def is_at_or_below(path: bytes, above: bytes) -> bool:
    """Return whether an absolute real path is another one, or leads on from it."""
    return (path + b"/").startswith(above.rstrip(b"/") + b"/")


def read_mountinfo() -> bytes:
    """Return what this process sees mounted; empty where there is no /proc."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _unescaped(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)
