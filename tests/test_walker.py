"""Listings: order, flat memory, and whatever cannot be looked at."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tracemalloc

import pytest

from realize.errors import Busy, InternalError, NotFound, StorageError
from realize.fs.identities import identity_token
from realize.fs.names import MAX_PATH_BYTES, MAX_PATH_COMPONENTS, partial_name
from realize.fs.tree import identity_of
from realize.store.local import walker
from realize.store.local.location import locate
from realize.store.local.walker import MAX_SORTED_NAMES, WalkEntry, Walker
from realize.values import Entry, Kind
from tests.leftovers import leave_partial
from tests.local_stores import full

__all__ = ["full"]


@pytest.fixture
def root(tmp_path):
    """An empty directory."""
    path = os.fsencode(tmp_path)
    return os.path.realpath(path)


def plant(root, *paths):
    """Make empty files, and their directories."""
    for path in paths:
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        open(full, "wb").close()


def walk(root, **options):
    """A walker over everything below."""
    return Walker(locate(root, b"", None), **{"salt": b"", "partials": False, "avoid": b"", **options})


def pages(walking, limit=500):
    """All pages, until the end."""
    while page := walking.page(limit):
        yield page


def everything(root, limit=500, **options):
    """All entries."""
    return [entry for page in pages(walk(root, **options), limit) for entry in page]


def files(root, limit=500, **options):
    """All entries but directories."""
    return [entry for entry in everything(root, limit, **options) if entry.kind is not Kind.DIRECTORY]


def paths(root, limit=500, **options):
    """The paths of these."""
    return [entry.path for entry in files(root, limit, **options)]


@pytest.mark.parametrize("limit", [1, 2, 500])
def test_order_is_that_of_whole_paths(root, limit):
    """Entries come in the order of their paths as bytes, whatever the size of the page."""
    expected = sorted([b"a", b"b.c", b"b/c", b"b/d/e", b"b/d.e", b"b-", b"c/x", b"\xff", b"new\nline", b"e/\xfe/f"])
    plant(root, *reversed(expected))

    assert expected == paths(root, limit)


def test_every_kind(root):
    """Regular files are files; symlinks, devices, sockets and FIFOs are left, with their kind as the note."""
    plant(root, b"file", b"directory/inner")
    os.symlink(b"directory", os.path.join(root, b"link"))
    os.symlink(b"nowhere", os.path.join(root, b"loose"))
    os.mkfifo(os.path.join(root, b"fifo"))
    os.mknod(os.path.join(root, b"device"), 0o600 | 0o020000, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.join(root, b"socket"))

    assert [
        (b"device", Kind.LEFT, "character device"),
        (b"directory", Kind.DIRECTORY, ""),
        (b"directory/inner", Kind.FILE, ""),
        (b"fifo", Kind.LEFT, "FIFO"),
        (b"file", Kind.FILE, ""),
        (b"link", Kind.LEFT, "symlink"),
        (b"loose", Kind.LEFT, "symlink"),
        (b"socket", Kind.LEFT, "socket"),
    ] == [(entry.path, entry.kind, entry.note) for entry in everything(root)]


def test_partials(root):
    """Partials are left, or come under their final names; what only has the name of one is a file, or a directory."""
    directory, foreign = partial_name(b"d"), b"d/" + partial_name(b"e")
    plant(root, directory + b"/f", foreign, b"d/h", b"d/.h.part")
    ours = b"d/" + os.fsencode(leave_partial(os.path.join(root, b"d"), b"f", b"").name)
    others = [b".d.realize-", b"d/.e.realize-", b"d/.h.part", b"d/h"]

    assert [Entry(ours, Kind.LEFT, note="partial file of Realize")] == [
        each for each in files(root) if each.kind is not Kind.FILE
    ]
    found = everything(root, partials=True)
    assert [b"d/f"] == [each.path for each in found if each.kind is Kind.PARTIAL]
    names = sorted(each.path for each in found if each.kind is Kind.FILE)
    assert [path.startswith(start) for path, start in zip(names, others, strict=True)] == [True] * 4


def test_another_file_system_may_be_left_alone(full):
    """The directory that it is mounted on is listed, as left, and neither entered nor taken for an empty one."""
    root = os.path.dirname(full)
    plant(root, b"a/f", b"tiny/g", b"tiny/d/h", b"z")
    entries = [(entry.path, entry.kind, entry.note) for entry in everything(root, one_file_system=True)]

    mounted = (b"tiny", Kind.LEFT, "directory on another file system")
    assert [(b"a", Kind.DIRECTORY, ""), (b"a/f", Kind.FILE, ""), mounted, (b"z", Kind.FILE, "")] == entries
    assert [b"a/f", b"tiny/d/h", b"tiny/g", b"z"] == paths(root)
    assert [b"d/h", b"g"] == paths(full, one_file_system=True)
    inside = Walker(locate(root, b"tiny", None), one_file_system=True)
    assert [b"d", b"d/h", b"g"] == [entry.path for page in pages(inside) for entry in page]


def test_names_that_are_too_long(root):
    """A path that could not be asked for is reported instead of being promised."""
    deep = os.open(root, os.O_RDONLY)
    component = b"x" * 200
    for _ in range(MAX_PATH_BYTES // 201 + 1):
        os.mkdir(component, dir_fd=deep)
        inner = os.open(component, os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(deep)

    [entry] = files(root)

    assert entry.kind is Kind.UNREADABLE
    assert str(MAX_PATH_BYTES) in entry.note
    shutil.rmtree(root)


def test_a_deep_tree(root):
    """Depth costs neither recursion nor descriptors, and what is deeper than a name may be is not entered."""
    depth = 1900
    deep = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(b"d", dir_fd=deep)
        inner = os.open(b"d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(os.open(b"f", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
    os.close(deep)
    opened = len(os.listdir("/proc/self/fd"))
    walking = walk(root)

    expected = [b"/".join([b"d"] * (above + 1)) for above in range(MAX_PATH_COMPONENTS + 1)]
    entries = [entry for page in pages(walking) for entry in page]
    assert expected == [entry.path for entry in entries]
    assert (Kind.UNREADABLE, "the name has more than 128 components") == (entries[-1].kind, entries[-1].note)
    assert opened == len(os.listdir("/proc/self/fd"))
    here = os.getcwd()
    try:  # too deep for shutil.rmtree in this Python
        os.chdir(root)
        for _ in range(depth):
            os.chdir("d")
        os.unlink("f")
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("d")
    finally:
        os.chdir(here)


def test_avoids_the_destination(root):
    """The directory that is the destination is reported and not entered."""
    plant(root, b"a", b"inbox/f", b"z")
    avoid = identity_token(b"salt", identity_of(os.stat(os.path.join(root, b"inbox"))))

    assert [
        (b"a", Kind.FILE, ""),
        (b"inbox", Kind.UNREADABLE, "is the destination"),
        (b"z", Kind.FILE, ""),
    ] == [(each.path, each.kind, each.note) for each in everything(root, salt=b"salt", avoid=avoid)]


def test_a_missing_location_fails(root):
    """What is not there is not an empty directory; and it stays so however often it is asked."""
    walking = Walker(locate(root, b"missing", None), salt=b"", partials=False, avoid=b"")

    for _ in range(2):
        with pytest.raises(NotFound):
            walking.page()


def failing_on(name, original):
    """A system call that fails for one directory."""

    def call(path, *arguments, **options):
        if isinstance(path, int) and os.readlink(f"/proc/self/fd/{path}").endswith(name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path, *arguments, **options)

    return call


def test_an_error_of_the_disk_in_a_directory(root, monkeypatch):
    """A directory that cannot be read is reported with the system's reason, and the rest is listed."""
    plant(root, b"a/f", b"bad/f", b"c")
    monkeypatch.setattr(os, "scandir", failing_on("/bad", os.scandir))

    assert [b"a/f", b"bad", b"c"] == paths(root)
    assert Entry(b"bad", Kind.UNREADABLE, note="Input/output error") == files(root)[1]
    assert [b"a"] == [entry.path for entry in everything(root) if entry.kind is Kind.DIRECTORY]


def test_an_error_of_the_disk_in_the_location(root, monkeypatch):
    """A location that cannot be read fails the listing."""
    plant(root, b"f")
    monkeypatch.setattr(os, "scandir", failing_on(os.path.basename(os.fsdecode(root)), os.scandir))

    with pytest.raises(StorageError, match="Input/output error"):
        everything(root)


def test_an_error_while_a_directory_is_read(root, monkeypatch):
    """What could be read of a directory before the error is listed all the same."""
    plant(root, b"bad/f", b"bad/g", b"z")
    original = os.scandir

    def scandir(fd):
        found = original(fd)
        if not os.readlink(f"/proc/self/fd/{fd}").endswith("/bad"):
            return found

        def broken():
            yield next(found)
            found.close()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        return broken()

    monkeypatch.setattr(os, "scandir", scandir)
    kinds = [entry.kind for entry in files(root)]

    assert sorted(kinds, key=lambda kind: kind.value) == [Kind.FILE, Kind.FILE, Kind.UNREADABLE]


def test_a_file_that_cannot_be_looked_at(root, monkeypatch):
    """An error of the disk for one name is an entry."""
    plant(root, b"a", b"bad")
    original = os.stat

    def stat(path, *arguments, **options):
        if path == b"bad":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", stat)

    assert Entry(b"bad", Kind.UNREADABLE, note="Input/output error") == everything(root)[1]


def test_what_vanishes_is_skipped(root):
    """Files and directories that are removed while the listing goes on are not in it, and do no harm."""
    plant(root, b"a", b"b/c", b"b/d/e", b"b/d/f", b"b/g", b"h", b"i")
    walking = walk(root)
    assert [entry.path for entry in walking.page(5)] == [b"a", b"b", b"b/c", b"b/d", b"b/d/e"]

    shutil.rmtree(os.path.join(root, b"b"))
    os.unlink(os.path.join(root, b"h"))

    assert [[b"i"]] == [[entry.path for entry in page] for page in pages(walking)]


def test_a_directory_that_becomes_a_symlink_is_not_followed(root, tmp_path_factory):
    """What was a directory when it was read may not lead outside afterwards."""
    outside = os.fsencode(tmp_path_factory.mktemp("outside"))
    plant(outside, b"x", b"y")
    plant(root, b"d/x", b"d/y")
    walking = walk(root)
    walking.page(2)
    os.rename(os.path.join(root, b"d"), os.path.join(outside, b"d"))
    os.symlink(outside, os.path.join(root, b"d"))

    [entry] = walking.page()

    assert entry.kind is Kind.UNREADABLE
    assert walking.page() == []


def test_a_giant_directory_is_read_in_runs(root):
    """50,000 names are listed once each, in sorted runs, with the memory of one run."""
    directory = os.path.join(root, b"giant")
    os.mkdir(directory)
    fd = os.open(directory, os.O_RDONLY)
    for number in range(50_000):
        os.close(os.open(b"%06d" % number, os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    seen: list[bytes] = []
    tracemalloc.start()
    try:
        walking = walk(root)
        count = sum(entry.kind is Kind.FILE for page in pages(walking) for entry in page)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for page in pages(walk(root)):
        seen += [entry.path for entry in page if entry.kind is Kind.FILE]

    assert count == 50_000
    assert len(set(seen)) == 50_000
    for start in range(0, 50_000, MAX_SORTED_NAMES):
        run = seen[start : start + MAX_SORTED_NAMES]
        assert sorted(run) == run
    assert peak < 8 << 20


def test_only_a_giant_directory_is_kept_open(root, monkeypatch):
    """Between pages there is no descriptor, but for a directory with more runs to come; closing gives it back."""
    monkeypatch.setattr(walker, "MAX_SORTED_NAMES", 2)
    plant(root, b"a/1", b"a/2", b"a/3", b"a/4", b"a/5", b"a/6")
    opened = len(os.listdir("/proc/self/fd"))

    walking = walk(root)
    walking.page(1)
    assert opened < len(os.listdir("/proc/self/fd"))
    walking.close()
    assert opened == len(os.listdir("/proc/self/fd"))
    assert walking.page() == []
    assert sorted(paths(root)) == [b"a/%d" % number for number in range(1, 7)]
    assert opened == len(os.listdir("/proc/self/fd"))


def test_a_name_that_is_too_long_only_as_a_whole(root):
    """A file of it cannot be asked for, so that it is said to be there, and why it stays."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(20):
        os.mkdir(b"d" * 195, dir_fd=fd)
        below = os.open(b"d" * 195, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    for name in (b"e" * 80, b"f" * 81):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)

    *_, fits, too_long = everything(root)

    assert (4000, Kind.FILE) == (len(fits.path), fits.kind)
    assert (4001, Kind.UNREADABLE) == (len(too_long.path), too_long.kind)
    assert "the name has 4001 bytes, more than 4000" == too_long.note


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (OSError(5, "Input/output error"), StorageError, "{root}: Input/output error"),
        (MemoryError(), Busy, "{root}: Cannot allocate memory"),
        (NotFound("it is gone"), NotFound, "it is gone"),
        (ZeroDivisionError("division"), InternalError, "the listing was ended by ZeroDivisionError('division')"),
    ],
)
def test_a_listing_that_has_failed_goes_on_to_fail(root, monkeypatch, fault, kind, words):
    """Nobody takes what was listed before for all that there is."""
    plant(root, b"a/b")
    walking = walk(root)
    assert [b"a"] == [entry.path for entry in walking.page(1)]

    def fails(*_):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(walker.Walker, "_step", fails)
        with pytest.raises(kind) as first:
            walking.page(500)
    with pytest.raises(kind) as caught:
        walking.page(500)

    assert words.format(root=os.fsdecode(root)) == str(first.value) == str(caught.value)


def test_between_pages_nothing_is_open(root):
    """Also of a directory that has just been entered."""
    plant(root, b"a/1", b"a/2")
    opened = len(os.listdir("/proc/self/fd"))
    walking = walk(root)

    assert [b"a"] == [entry.path for entry in walking.page(1)]
    assert opened == len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("run", [3, 4])
def test_a_page_ends_when_many_names_were_read_for_it(root, monkeypatch, run):
    """They are remembered: what is still to be listed of them comes with the next pages, each as long."""
    monkeypatch.setattr(walker, "MAX_SORTED_NAMES", run)
    everything = [name for top in b"abcde" for name in (b"%c" % top, b"%c/1" % top, b"%c/2" % top)]
    plant(root, *(name for name in everything if b"/" in name))
    listed = [[entry.path for entry in page] for page in pages(walk(root))]

    assert sorted(everything) == sorted(path for page in listed for path in page)
    first, *rest = listed
    assert 4 == len(first)
    assert all(len(page) <= 6 for page in rest)


def test_what_is_remembered_is_told(root):
    """The names that are still to come, the way to each directory, and what each of these takes besides."""
    plant(root, b"aa/bbb/1", b"aa/bbb/22", b"aa/c", b"d", b"eeee")
    walking = walk(root)
    empty = walk(root).held
    held = []
    for _ in range(3):
        walking.page(1)
        held.append(walking.held - empty)
    for _ in pages(walking):
        pass

    assert [b"aa", b"aa/bbb", b"aa/bbb/1"] == [entry.path for entry in everything(root)[:3]]
    assert held == [
        2 * 1024 + (2 + 1 + 4 + 3 + 1) + 48 * (2 + 2) + 3 + 8,
        3 * 1024 + (2 + 1 + 4 + 3 + 1 + 1 + 2) + 48 * (2 + 1 + 2) + (3 + 7) + 8 * (1 + 2),
        3 * 1024 + (2 + 1 + 4 + 3 + 1 + 1 + 2) + 48 * (2 + 1 + 1) + (3 + 7) + 8 * (1 + 2),
    ]
    assert empty == walking.held


def test_what_is_remembered_of_rules_is_told_too(root):
    """From when they are needed."""
    plant(root, b"a/1", b"b/2")
    plain, ruled = walk(root), walk(root, leave=[b"-c*"])
    for walking in (plain, ruled):
        walking.page(1)

    assert ruled.held > plain.held + 512


def test_what_could_not_be_looked_at_has_no_size():
    """Nor is it a directory; it has its name all the same."""
    found = WalkEntry(b"b", (b"a",), b"b", None, "Input/output error")

    assert (0, False, b"a/b") == (found.size, found.is_directory, found.from_root)


def test_a_listing_that_has_failed_leaves_nothing_open(root, monkeypatch):
    """And says what has failed it."""
    monkeypatch.setattr(walker, "MAX_SORTED_NAMES", 2)
    plant(root, *(b"a/%d" % number for number in range(5)))
    opened, cause = len(os.listdir("/proc/self/fd")), OSError(5, "Input/output error")
    walking = walk(root)
    walking.page(1)

    def fails(*_):
        raise StorageError("a: Input/output error") from cause

    monkeypatch.setattr(walker.Walker, "_step", fails)
    with pytest.raises(StorageError) as caught:
        walking.page()

    assert caught.value.__cause__ is cause
    assert opened == len(os.listdir("/proc/self/fd"))


def test_a_directory_that_cannot_be_entered_any_more_is_listed_once(root):
    """However many names of it were still to come."""
    plant(root, *(b"d/%d" % number for number in range(5)))
    walking = walk(root)
    walking.page(2)
    os.rename(os.path.join(root, b"d"), os.path.join(root, b"e"))
    os.symlink(b"e", os.path.join(root, b"d"))

    assert [Kind.UNREADABLE] == [entry.kind for entry in walking.page()]


@pytest.mark.parametrize("below", [False, True])
def test_a_directory_that_there_is_no_memory_for_is_closed(root, monkeypatch, below):
    """The listing fails, and leaves nothing open."""
    plant(root, b"d/f")
    before = set(os.listdir("/proc/self/fd"))
    frames = []

    def without_memory(*arguments):
        frames.append(arguments)
        if len(frames) > below:
            raise MemoryError
        return frame(*arguments)

    frame = walker._Frame
    monkeypatch.setattr(walker, "_Frame", without_memory)
    walking = walk(root)
    with pytest.raises((MemoryError, Busy)):
        list(pages(walking, 1))
    walking.close()

    assert 1 + below == len(frames)
    assert before == set(os.listdir("/proc/self/fd"))


def test_a_directory_that_cannot_be_read_is_closed(root, monkeypatch):
    """It is reported, and the rest is listed."""
    plant(root, b"d/f", b"e/f")
    before = set(os.listdir("/proc/self/fd"))
    scandir, refused = os.scandir, []

    def refuse(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/d"):
            refused.append(fd)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(fd)

    monkeypatch.setattr(walker.os, "scandir", refuse)
    found = {entry.path: entry.kind for entry in everything(root)}
    monkeypatch.undo()

    assert 1 == len(refused)
    assert (Kind.UNREADABLE, Kind.FILE) == (found[b"d"], found[b"e/f"])
    assert before == set(os.listdir("/proc/self/fd"))


def test_a_directory_that_cannot_be_read_is_not_open_until_the_next_page(root, monkeypatch):
    """Whoever reads a listing may take long between two pages, or never ask for the next one."""
    plant(root, b"d/f", b"e")
    before = set(os.listdir("/proc/self/fd"))
    scandir = os.scandir

    def refuse(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/d"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(fd)

    monkeypatch.setattr(walker.os, "scandir", refuse)
    walking = walk(root)
    found = walking.page(1)
    monkeypatch.undo()
    between = set(os.listdir("/proc/self/fd"))

    assert [(b"d", Kind.UNREADABLE)] == [(entry.path, entry.kind) for entry in found]
    assert before == between
    assert [b"e"] == [entry.path for page in pages(walking) for entry in page]


def test_a_walk_may_start_below(root):
    """At a directory, or at a file; paths are relative to the location all the same, and so are rules."""
    plant(root, b"a/b/c/1", b"a/b/d/2", b"a/other", b"b/3")

    assert [b"a/b", b"a/b/c", b"a/b/c/1", b"a/b/d", b"a/b/d/2"] == [
        entry.path for entry in everything(root, start=(b"a", b"b"))
    ]
    assert [b"a/b", b"a/b/c", b"a/b/d", b"a/b/d/2"] == [
        entry.path for entry in everything(root, start=(b"a", b"b"), leave=[b"-/a/b/c"])
    ]
    assert [Entry(b"a/other", Kind.FILE, 0, os.stat(root + b"/a/other").st_mtime_ns)] == everything(
        root, start=(b"a", b"other")
    )


def test_a_walk_may_start_where_nothing_is(root):
    """Or where a symlink is: there is nothing to be found."""
    plant(root, b"a/1")
    os.symlink(b"a", root + b"/link")

    assert [] == everything(root, start=(b"x", b"y"))
    assert [Kind.LEFT] == [entry.kind for entry in everything(root, start=(b"link",))]
    assert [Kind.UNREADABLE] == [entry.kind for entry in everything(root, start=(b"link", b"1"))]


def test_directories_are_told_of_before_they_are_read(root):
    """With a descriptor of each; so nothing is missed that comes into it afterwards."""
    plant(root, b"a/b/1")
    entered = []

    def entering(path, fd):
        entered.append((path, os.readlink(b"/proc/self/fd/%d" % fd)))
        plant(root, path + b"/new" if path else b"new")

    found = paths(root, entering=entering)

    assert [(b"", root), (b"a", root + b"/a"), (b"a/b", root + b"/a/b")] == entered
    assert [b"a/b/1", b"a/b/new", b"a/new", b"new"] == found
