"""Looking at named files: the same as a listing says, and whether they have settled."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from realize.fs import changed_elsewhere
from realize.fs.mounts import mounts_below
from realize.fs.names import MAX_PATH_COMPONENTS, partial_name
from realize.fs.stamps import Stamps
from realize.store.local import looks
from realize.store.local.location import locate
from realize.store.local.looks import Looking
from realize.store.local.walker import Walker
from realize.values import Kind
from tests.leftovers import leave_partial


@pytest.fixture
def root(tmp_path):
    """An empty directory."""
    return os.path.realpath(os.fsencode(tmp_path))


def plant(root, path, content=b"content"):
    """Make a file, and its directories."""
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as file:
        file.write(content)
    return full


def look(root, *paths, **options):
    """Look at these."""
    return Looking(locate(root, b"", None), **options).at(paths)


def let_opening_fail(monkeypatch, number):
    """Let open(2) of the name "file" fail with an error number."""
    opening = os.open

    def fails(path, flags, *args, **options):
        if path == b"file":
            raise OSError(number, os.strerror(number))
        return opening(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", fails)


def test_looks_say_what_a_listing_says(root):
    """Of files and of directories, and of what can never be moved nothing at all."""
    plant(root, b"file")
    plant(root, b"a/b/file")
    os.symlink(b"file", root + b"/symlink")
    os.mkfifo(root + b"/fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(root + b"/socket")
    leave_partial(root, b"x", b"partial")
    listed = {entry.path: entry for entry in Walker(locate(root, b"", None)).page()}

    for found in look(root, *listed):
        listing = listed[found.path]
        assert (None if listing.kind is Kind.LEFT else listing) == found.entry


def test_directories_above_are_as_in_a_listing(root):
    """The outermost first."""
    plant(root, b"a/b/file")
    listed = [entry for entry in Walker(locate(root, b"", None)).page() if entry.kind is Kind.DIRECTORY]
    [found] = look(root, b"a/b/file")

    assert tuple(listed) == found.above


def test_what_is_not_there(root):
    """Also if something else is in its way: a file, or a symlink to a directory, which is not followed."""
    plant(root, b"a/file")
    os.symlink(root + b"/a", root + b"/link")

    assert [None] * 4 == [found.entry for found in look(root, b"x", b"x/y", b"a/file/x", b"link/file")]


def test_names_that_cannot_be_moved_are_unreadable(root):
    """As in a listing."""
    deep = b"/".join([b"a"] * (MAX_PATH_COMPONENTS + 1))
    [found] = look(root, deep)

    assert found.entry is not None
    assert Kind.UNREADABLE is found.entry.kind
    assert f"the name has more than {MAX_PATH_COMPONENTS} components" == found.entry.note


def test_a_file_of_ours_with_the_name_of_a_partial_is_left_alone(root):
    """A file of somebody else with such a name is a file."""
    leave_partial(root, b"x", b"partial")
    name = partial_name(b"y")
    plant(root, name)
    ours, other = look(root, partial_name(b"x"), name)

    assert ours.entry is None
    assert other.entry is not None
    assert Kind.FILE is other.entry.kind


def test_versions(root):
    """Any change makes another one, and nothing else does."""
    path = plant(root, b"file")
    [first] = look(root, b"file")
    [same] = look(root, b"file")
    with open(path, "ab") as file:
        file.write(b"more")
    [other] = look(root, b"file")

    assert first.version == same.version != other.version


def test_files_that_are_open_for_writing(root):
    """The kernel tells, by refusing a lease; open for reading does not matter."""
    path = plant(root, b"file")
    with open(path, "ab"):
        [written] = look(root, b"file")
    with open(path, "rb"):
        [read] = look(root, b"file")

    assert (True, False) == (written.written, read.written)


def test_files_that_others_keep_to_themselves_are_written_to(root, monkeypatch):
    """Such as with a lease for writing, which open(2) would wait for."""
    plant(root, b"file")
    let_opening_fail(monkeypatch, errno.EAGAIN)
    [found] = look(root, b"file")

    assert found.written


def test_files_that_cannot_be_opened_are_files_all_the_same(root, monkeypatch):
    """Who moves them will be told why it cannot be done."""
    plant(root, b"file")
    let_opening_fail(monkeypatch, errno.EACCES)
    [found] = look(root, b"file")

    assert found.entry is not None
    assert Kind.FILE is found.entry.kind
    assert not found.written


def clocks(*readings):
    """Clocks that are read at these times, the last one for ever; in seconds."""
    waiting = list(readings)

    def read():
        monotonic, stamps = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return int(monotonic * 1e9), int(stamps * 1e9)

    return Stamps(read)


def test_an_old_file_proves_its_age(root):
    """By its change time, if the clock was not set."""
    path = plant(root, b"file")
    stamp = os.stat(path).st_ctime
    [found] = look(root, b"file", stamps=clocks((1000.0, stamp), (1100.0, stamp + 100.0)))

    assert 100.0 == pytest.approx(found.unchanged_s, abs=1e-3)


def test_a_clock_that_was_set_makes_no_file_old(root):
    """Neither forwards, while we watch, nor backwards."""
    path = plant(root, b"file")
    stamp = os.stat(path).st_ctime
    [forwards] = look(root, b"file", stamps=clocks((1000.0, stamp - 0.5), (1001.0, stamp + 3600.0)))
    [backwards] = look(root, b"file", stamps=clocks((1000.0, stamp), (1100.0, stamp - 3600.0)))

    assert 0.5 == pytest.approx(forwards.unchanged_s, abs=1e-3)
    assert 0.0 == backwards.unchanged_s


def test_stamps_of_other_machines_prove_nothing(root, monkeypatch):
    """On a file system that others can change."""
    path = plant(root, b"file")
    os.utime(path, (0, 0))
    monkeypatch.setattr(looks, "may_change_elsewhere", lambda _: True)
    [found] = look(root, b"file", stamps=clocks((1000.0, 2e9), (1100.0, 2e9)))

    assert 0.0 == found.unchanged_s


@pytest.mark.parametrize(("number", "elsewhere"), [(0x6969, True), (0x65735546, True), (0xEF53, False)])
def test_file_systems_that_others_can_change(number, elsewhere, monkeypatch):
    """NFS and FUSE, but not ext4."""
    monkeypatch.setattr(changed_elsewhere, "file_system", lambda _: number)

    assert elsewhere == changed_elsewhere.may_change_elsewhere(0)


def test_mounts_below_a_directory():
    """By number and place, unescaped; what merely begins with the same letters is elsewhere."""
    mountinfo = b"""\
22 27 0:21 / /proc rw - proc proc rw
30 27 0:30 / /store rw,relatime shared:1 - ext4 /dev/sdb rw
31 30 0:31 / /store/with\\040blank rw - nfs4 server:/x rw
32 27 0:32 / /storehouse rw - ext4 /dev/sdc rw
broken
"""

    assert {(b"30", b"/store"), (b"31", b"/store/with blank")} == mounts_below(b"/store", mountinfo)
    assert 4 == len(mounts_below(b"/", mountinfo))
