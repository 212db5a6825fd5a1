"""Making directories, and what those that are there become: `realize.store.local.directories`."""

from __future__ import annotations

import io
import os
import stat

import pytest
from twisted.internet.defer import maybeDeferred

from realize.errors import Conflict
from realize.store.local import directories
from realize.store.local.store import LocalStore
from realize.values import Directory
from tests.local_stores import as_nobody, open_root

__all__ = ["open_root"]


async def made(path, *wanted, run=maybeDeferred):
    """What is answered when these directories are to be made, and what permissions are there in the end."""
    store = LocalStore(os.fsencode(path), run_in_thread=run)
    await store.open(b"salt")
    answers = await store.make_directories(wanted)
    return [answer if answer is None else type(answer) for answer in answers]


async def test_what_is_no_directory_gets_no_permissions(tmp_path):
    """A file, a FIFO, or what a symlink leads to: neither is it changed, nor does anybody wait for it."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for each in (root, outside):
        each.mkdir()
    outside.chmod(0o700)
    (root / "file").touch(0o600)
    os.mkfifo(root / "fifo", 0o600)
    (root / "link").symlink_to(outside)
    names = ("file", "fifo", "link")
    fd = os.open(root / "fifo", os.O_RDWR)  # whoever opens it need not wait, and be stopped by hand

    assert [Conflict] * 3 == await made(root, *(Directory(name.encode(), 0o755) for name in names))
    assert [0o600, 0o600, 0o700] == [stat.S_IMODE((root / name).stat().st_mode) for name in names]
    os.close(fd)


@pytest.mark.parametrize(
    ("there", "wanted", "becomes"), [(0o700, 0o755, 0o755), (0o750, 0o750, 0o750), (0o755, 0o500, 0o700)]
)
async def test_a_directory_that_is_there_is_opened_as_far_as_the_source_is(
    tmp_path, monkeypatch, there, wanted, becomes
):
    """And to its owner, as long as files come; one that has these permissions is not touched."""
    path = tmp_path / "up/d"
    path.mkdir(parents=True)
    path.chmod(there)
    changed, chmod = [], os.chmod
    monkeypatch.setattr(os, "chmod", lambda path, mode: changed.append(mode) or chmod(path, mode))

    assert [None] == await made(tmp_path, Directory(b"up/d", wanted))
    assert becomes == stat.S_IMODE(path.stat().st_mode)
    assert ([] if there == becomes else [becomes]) == changed


async def test_a_directory_of_somebody_else_keeps_its_permissions(open_root):
    """Files may be put into it all the same, so that is no error."""
    os.mkdir(os.path.join(open_root, b"d"))
    os.chmod(os.path.join(open_root, b"d"), 0o777)

    assert [None] == await made(os.fsdecode(open_root), Directory(b"d", 0o755), run=as_nobody)
    assert 0o777 == stat.S_IMODE(os.stat(os.path.join(open_root, b"d")).st_mode)


async def test_a_directory_of_ours_that_may_not_be_read_is_opened(open_root):
    """It is as a killed run has left it."""
    path = os.path.join(open_root, b"d")
    os.mkdir(path)
    os.chown(path, 65534, 65534)
    os.chmod(path, 0o311)

    assert [None] == await made(os.fsdecode(open_root), Directory(b"d", 0o311), run=as_nobody)
    assert 0o711 == stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize(
    ("told", "euid", "may"),
    [
        (b"Name:\tx\nCapEff:\t0000000000000002\nCapBnd:\t0\n", 1000, True),
        (b"Name:\tx\nCapEff:\t0000000000000004\nCapBnd:\t0\n", 1000, True),
        (b"Name:\tx\nCapInh:\tff\nCapEff:\t0000000000000020\nCapBnd:\tff\n", 0, False),
        (b"Name:\tx\n", 0, True),
        (b"Name:\tx\n", 1, False),
        (b"CapEff:\tnot a number\n", 0, True),
        (None, 0, True),
        (None, 1, False),
    ],
)
def test_who_may_look_into_all_directories(monkeypatch, told, euid, may):
    """Root, unless that was taken from it: the kernel says so of each thread; where it does not, the user counts."""

    def opening(path, mode):
        assert ("/proc/thread-self/status", "rb") == (path, mode)
        if told is None:
            raise FileNotFoundError
        return io.BytesIO(told)

    monkeypatch.setattr("builtins.open", opening)
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    found = directories._may_look_anywhere()
    monkeypatch.undo()

    assert may is found
