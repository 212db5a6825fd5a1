"""Where the file system of a directory is mounted, also where service managers mount directories over themselves."""

from __future__ import annotations

import os

import pytest

from realize.fs.mounts import aliases, genuine_mount_point, mount_point_of

ROOT = b"20 1 254:0 / / rw - ext4 /dev/vda rw\n"
DISK = b"30 20 8:1 / /mnt/usb rw - ext4 /dev/sda1 rw\n"


@pytest.mark.parametrize(
    ("mounts", "number", "expected"),
    [
        pytest.param(ROOT, b"20", b"/", id="the root"),
        pytest.param(ROOT + DISK, b"30", b"/mnt/usb", id="a disk"),
        pytest.param(ROOT, b"99", None, id="not listed"),
        pytest.param(b"", b"20", None, id="no /proc"),
        # systemd with ReadWritePaths=/mnt/usb, with and without the disk, and when it comes later.
        pytest.param(ROOT + b"40 20 254:0 /mnt/usb /mnt/usb rw - ext4 /dev/vda rw\n", b"40", b"/", id="itself"),
        pytest.param(
            ROOT + DISK + b"40 30 8:1 / /mnt/usb rw - ext4 /dev/sda1 rw\n", b"40", b"/mnt/usb", id="a disk over itself"
        ),
        pytest.param(
            ROOT
            + b"40 20 254:0 /mnt/usb /mnt/usb rw - ext4 /dev/vda rw\n"
            + b"41 40 8:1 / /mnt/usb rw - ext4 /dev/sda1 rw\n",
            b"41",
            b"/mnt/usb",
            id="a disk over its mount point",
        ),
        pytest.param(
            ROOT
            + b"40 20 254:0 /mnt /mnt rw - ext4 /dev/vda rw\n"
            + b"41 40 254:0 /mnt/usb /mnt/usb rw - ext4 /dev/vda rw\n",
            b"41",
            b"/",
            id="itself, and what is above it, too",
        ),
        pytest.param(
            b"20 1 254:0 /containers/1 / rw - ext4 /dev/vda rw\n"
            b"40 20 254:0 /containers/1/mnt/a\\040b /mnt/a\\040b rw - ext4 /dev/vda rw\n",
            b"40",
            b"/",
            id="in a container, with a blank",
        ),
        pytest.param(
            ROOT + b"40 20 254:0 /data/usb /mnt/usb rw - ext4 /dev/vda rw\n",
            b"40",
            b"/mnt/usb",
            id="another directory of the same disk",
        ),
    ],
)
def test_a_directory_mounted_over_itself_is_no_disk(mounts, number, expected):
    """The empty mount point of a disk, to which a unit gives other flags, must not pass for the disk."""
    assert expected == genuine_mount_point(number, mounts)


def test_the_mount_of_an_open_directory(tmp_path):
    """It is one that the system knows, at the directory or above it; a descriptor that is closed has none."""
    fd = os.open(tmp_path, os.O_RDONLY)
    found = mount_point_of(fd)
    os.close(fd)

    assert os.path.ismount(found)
    assert os.fsencode(tmp_path).startswith(found)
    assert mount_point_of(fd) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/etc/realize/key", {b"/srv/box/conf/key", b"/copy/etc/realize/key"}),
        (b"/etc/realize", {b"/srv/box/conf", b"/copy/etc/realize"}),
        (b"/etc/passwd", {b"/copy/etc/passwd"}),
        (b"/srv/box/conf/key", {b"/etc/realize/key", b"/copy/etc/realize/key"}),
        (b"/run/secret", {b"/srv/box/one"}),
        (b"/run/secrets", set()),
    ],
)
def test_where_else_a_file_is_seen(path, expected):
    """Whichever part of its file system is mounted there, if it is in that."""
    mountinfo = (
        b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        b"2 1 8:1 /etc/realize /srv/box/conf rw - ext4 /dev/sda1 rw\n"
        b"3 1 8:1 / /copy rw - ext4 /dev/sda1 rw\n"
        b"4 1 0:5 / /run rw - tmpfs tmpfs rw\n"
        b"5 1 0:5 /secret /srv/box/one rw - tmpfs tmpfs rw\n"
    )
    assert expected == aliases(path, mountinfo)
