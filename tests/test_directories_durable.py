"""A file counts when its directory, and each above it, is on stable storage; what is in doubt is told so."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil

import pytest

from realize.errors import Busy, Conflict, NotFound, StorageError
from realize.fs import ancestors
from realize.store.local import directories, group_commit
from realize.store.local.group_commit import Anchor, sync_directories
from realize.store.local.location import Root
from realize.store.local.store import root_identity
from realize.values import Committed, Directory, Expected, OnConflict, Stored
from tests.local_stores import REPLACE, behind, opened, root
from tests.store_helpers import digest, how, small_file

__all__ = ["behind", "root"]

TREE = [(b"a",), (b"a", b"b"), (b"c",), ()]


@pytest.fixture
def tree(root, monkeypatch):
    """Some directories; those above are durable."""
    monkeypatch.setattr(ancestors, "_sync_upwards", lambda _fd: None)
    for path in (b"a/b", b"c"):
        os.makedirs(os.path.join(root, path))
    with Root(root, root_identity(root)).tree() as tree:
        yield tree


def failing(root, path):
    """What makes a directory durable, but for that one."""

    def sync(fd):
        if os.path.samestat(os.fstat(fd), os.stat(os.path.join(root, path))):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return sync


@pytest.mark.parametrize(
    ("path", "doubtful", "name"),
    [
        (b"", [(), (b"a",), (b"a", b"b"), (b"c",)], "."),
        (b"a", [(b"a",), (b"a", b"b")], "a"),
        (b"a/b", [(b"a", b"b")], "a/b"),
        (b"c", [(b"c",)], "c"),
    ],
)
def test_what_is_below_a_directory_in_doubt_is_in_doubt(root, tree, monkeypatch, path, doubtful, name):
    """Nothing else is; the error names the directory that failed."""
    monkeypatch.setattr(group_commit, "fsync_directory", failing(root, path))

    failed = sync_directories(tree, TREE)

    assert doubtful == sorted(failed)
    assert {f"{name}: Input/output error"} == {str(each) for each in failed.values()}
    assert {StorageError} == {type(each) for each in failed.values()}


def test_each_is_synced_once_and_after_those_below_it(root, tree, monkeypatch):
    """A directory must not be durable before what is in it, or a power cut would leave names of nothing."""
    synced = []
    monkeypatch.setattr(group_commit, "fsync_directory", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))

    assert {} == sync_directories(tree, [(b"a", b"b"), (b"a", b"b"), (b"c",)])
    above = os.fsdecode(root)
    assert synced.index(f"{above}/a/b") < synced.index(f"{above}/a") < synced.index(above)
    assert above == synced[-1]
    assert [above, f"{above}/a", f"{above}/a/b", f"{above}/c"] == sorted(synced)
    assert {} == sync_directories(tree, [])
    assert 4 == len(synced)


@pytest.mark.parametrize("what", ["removed", "file", "symlink"])
def test_a_directory_that_is_none_any_more(root, tree, what):
    """What was committed into it is gone with it, or somewhere else."""
    shutil.rmtree(os.path.join(root, b"a/b"))
    if what == "file":
        with open(os.path.join(root, b"a/b"), "xb"):
            pass
    elif what == "symlink":
        os.symlink("../c", os.path.join(root, b"a/b"))

    failed = sync_directories(tree, TREE)

    assert [(b"a", b"b")] == list(failed)
    [error] = failed.values()
    assert "a/b: was removed meanwhile" == str(error) if what == "removed" else not isinstance(error, NotFound)


@pytest.mark.parametrize("device", ["same", "other", "mounted below", "gone"])
@pytest.mark.parametrize("count", [group_commit.FSYNC_MAX_DIRECTORIES, group_commit.FSYNC_MAX_DIRECTORIES + 1])
def test_many_are_synced_at_once_where_all_are_on_one_file_system(root, tree, monkeypatch, device, count):
    """And one by one elsewhere, or if there are few; each of many is in doubt if that fails."""
    own = tree.identity(())[0]
    asked, single = [], []
    monkeypatch.setattr(group_commit, "fsync_directory", single.append)
    monkeypatch.setattr(group_commit, "syncfs", asked.append)
    wanted = [(b"a",), (b"c",)][: count - 1]
    identity = tree.identity
    if device == "mounted below":
        monkeypatch.setattr(type(tree), "identity", lambda _self, path: (own + (path == (b"a",)), identity(path)[1]))
    elif device == "gone":
        os.rmdir(os.path.join(root, b"a/b"))
        os.rmdir(os.path.join(root, b"a"))
    anchor = Anchor(99, own + (device == "other"))

    failed = sync_directories(tree, wanted, anchor)

    at_once = device == "same" and count > group_commit.FSYNC_MAX_DIRECTORIES
    assert [99] * at_once == asked
    assert (not at_once) == bool(single)
    assert (device == "gone") == bool(failed)


def test_what_is_above_and_cannot_be_made_durable_leaves_all_in_doubt(tree, monkeypatch):
    """Nothing is asked of those below then."""

    def fails(_fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(ancestors, "_sync_upwards", fails)
    monkeypatch.setattr(group_commit, "fsync_directory", lambda _fd: pytest.fail("asked"))

    failed = sync_directories(tree, TREE)

    assert sorted(TREE) == sorted(failed)
    assert {StorageError} == {type(each) for each in failed.values()}


async def test_in_one_group_only_what_was_changed_is_in_doubt(root, behind, monkeypatch):
    """A file that was skipped, and one that was refused, have the answers that they had."""
    for path in (b"bad/old", b"good/old"):
        behind.plant(path, b"old")
    store = await opened(root)
    monkeypatch.setattr(group_commit, "fsync_directory", failing(root, b"bad"))
    names = [b"bad/new", b"bad/old", b"good/new", b"good/old"]

    skipping = await store.put_small([small_file(name, b"x") for name in names], OnConflict.SKIP)
    refusing = await store.put_small([small_file(name, b"x") for name in names[1::2]], OnConflict.FAIL)

    assert "bad: Input/output error" == str(skipping[0])
    assert [Committed.SKIPPED, Committed.CREATED, Committed.SKIPPED] == list(map(how, skipping[1:]))
    assert [Conflict, Conflict] == [type(each) for each in refusing]
    assert {b"bad", b"bad/new", b"bad/old", b"good", b"good/new", b"good/old"} == set(behind.everything())


async def test_where_only_skipped_files_are_nothing_is_synced(root, behind, monkeypatch):
    """Nothing has changed there."""
    behind.plant(b"d/f", b"old")
    store = await opened(root)
    monkeypatch.setattr(group_commit, "fsync_directory", lambda _fd: pytest.fail("asked"))

    assert [Committed.SKIPPED] == [
        how(each) for each in await store.put_small([small_file(b"d/f", b"x")], OnConflict.SKIP)
    ]
    assert [b"d", b"d/f"] == behind.everything()


@pytest.mark.parametrize("call", ["rename_noreplace", "refuse_obstacle"])
@pytest.mark.parametrize(
    ("fault", "kind"), [(OSError(errno.EIO, os.strerror(errno.EIO)), StorageError), (MemoryError(), Busy)]
)
async def test_what_cannot_be_renamed_is_told_and_the_others_are_committed(
    root, behind, monkeypatch, call, fault, kind
):
    """In the middle of a directory: each has its own answer, and no partial stays."""
    for name in (b"a", b"b", b"c"):
        behind.plant(name, b"old")
    store = await opened(root)
    original = getattr(group_commit, call)

    def fails(fd, *names):
        if b"b" in names:
            raise fault
        return original(fd, *names)

    monkeypatch.setattr(group_commit, call, fails)
    answers = await store.put_small([small_file(name, b"new") for name in (b"a", b"b", b"c")], REPLACE)

    assert [Stored, kind, Stored] == [type(each) for each in answers]
    assert [b"new", b"old", b"new"] == [behind.content(name) for name in (b"a", b"b", b"c")]
    assert [b"a", b"b", b"c"] == behind.everything()


async def test_what_is_found_there_counts_only_with_its_directory(root, behind, monkeypatch):
    """The same for what is relied upon instead of being sent."""
    for path in (b"bad/f", b"good/f"):
        behind.plant(path, b"x")
    store = await opened(root)
    monkeypatch.setattr(group_commit, "fsync_directory", failing(root, b"bad"))

    bad, good, other = await store.settle(
        [Expected(b"bad/f", 1, digest(b"x")), Expected(b"good/f", 1, digest(b"x")), Expected(b"bad/f", 1, digest(b"y"))]
    )

    assert ("bad: Input/output error", True, False) == (str(bad), good, other)


def test_directories_that_cannot_be_made_durable_at_once_are_named(tree, monkeypatch):
    """Each by its own name, and the location as that."""

    def fails(_fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(group_commit, "syncfs", fails)
    failed = sync_directories(tree, [(), (b"a",), (b"c",)], Anchor(99, tree.identity(())[0]))

    assert [".: ", "a: ", "c: "] == [str(error)[:3] for error in failed.values()]


async def test_final_attributes_that_cannot_be_made_durable_fail_as_a_whole(root, behind, monkeypatch):
    """The source must not rely on what a power cut would take."""
    for path in (b"bad/f", b"good/f"):
        behind.plant(path, b"x")
    store = await opened(root)
    monkeypatch.setattr(directories, "open_anchor", lambda _tree: None)
    monkeypatch.setattr(group_commit, "fsync_directory", failing(root, b"bad"))

    with pytest.raises(StorageError, match="bad: Input/output error"):
        await store.set_directories([Directory(path, 0o755, 1) for path in (b"good", b"bad")])
    assert [True] == await store.set_directories([Directory(b"good", 0o755, 1)])


MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096


@pytest.fixture
def mount(behind):
    """Mounts a directory on itself, or a file system of its own there; what is mounted last can be made read-only."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounted = []

    def ask(source, path, kind, flags):
        if libc.mount(source, path, kind, flags, None):
            pytest.fail(f"this test needs the right to mount: {os.strerror(ctypes.get_errno())}")

    def mount(path, *, own=False):
        os.makedirs(behind.at(path), exist_ok=True)
        where = behind.at(path).rstrip(b"/")
        ask(*((b"tmpfs", where, b"tmpfs", 0) if own else (where, where, None, MS_BIND)))
        mounted.append(where)
        return lambda: ask(None, where, None, MS_REMOUNT | MS_BIND | MS_RDONLY)

    yield mount
    for where in reversed(mounted):
        assert not libc.umount2(where, 0)


@pytest.mark.parametrize("own", [False, True])
async def test_directories_of_a_read_only_mount_are_not_ours(root, behind, mount, own):
    """Whatever they have already: the others get theirs, and the run goes on."""
    behind.plant(b"rw/f", b"x")
    protect = mount(b"ro", own=own)
    for name in (b"as it was", b"other"):
        os.mkdir(behind.at(b"ro/" + name))
        os.chmod(behind.at(b"ro/" + name), 0o750)
        os.utime(behind.at(b"ro/" + name), ns=(1, 1))
    protect()
    store = await opened(root)
    asked = [Directory(b"ro/as it was", 0o750, 1), Directory(b"ro/other", 0o700, 2), Directory(b"rw", 0o755, 1)]

    assert [False, False, True] == await store.set_directories(asked)
    assert 0o750 == behind.attributes(b"ro/other").mode


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("read_only", [b"", b"ro"])
@pytest.mark.parametrize("count", [1, 2, 20])
async def test_below_a_read_only_mount_another_takes_files(root, behind, mount, own, read_only, count):
    """As with ReadWritePaths of systemd: only where the files are must changes still be possible."""
    protect = mount(read_only, own=own and read_only)
    for number in range(count):
        os.makedirs(behind.at(b"ro/in/%d" % number))
    mount(b"ro/in", own=own)
    protect()
    store = await opened(root)
    names = [b"ro/in/%d/f" % number for number in range(count)]

    put = await store.put_small([small_file(name, b"x") for name in names], REPLACE)

    assert [Committed.CREATED] * count == list(map(how, put))
    assert [True] * count == await store.settle([Expected(name, 1, digest(b"x")) for name in names])
    assert [True] * count == await store.set_directories([Directory(os.path.dirname(name), 0o700, 1) for name in names])


async def test_a_file_system_that_takes_no_more_changes_fails_what_was_to_be_set(root, behind, monkeypatch):
    """Such directories are not somebody else's."""
    behind.plant(b"d/f", b"x")
    store = await opened(root)

    def dead(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", dead)
    assert [False] == await store.set_directories([Directory(b"d", 0o755, 1)])
    monkeypatch.setattr(os, "fchown", dead)
    with pytest.raises(StorageError, match="d: Read-only file system"):
        await store.set_directories([Directory(b"d", 0o755, 1)])


@pytest.mark.parametrize("what", ["missing", "file", "symlink"])
async def test_directories_that_are_gone_before_they_are_durable_fail_nothing(root, behind, monkeypatch, what):
    """A program that has taken all files may remove them at any time, and put something else there."""
    behind.plant(b"d/f", b"x")
    store = await opened(root)
    sync = directories.sync_directories

    def removing(*arguments):
        shutil.rmtree(behind.at(b"d"))
        if what == "file":
            behind.plant(b"d", b"x")
        elif what == "symlink":
            os.symlink(".", behind.at(b"d"))
        return {**sync(*arguments), (b"d",): StorageError("d: was removed meanwhile")}

    monkeypatch.setattr(directories, "sync_directories", removing)

    assert [True] == await store.set_directories([Directory(b"d", 0o755, 1)])


async def test_directories_that_are_not_ours_cost_no_sync(root, behind, monkeypatch):
    """Nothing was set."""
    store = await opened(root)
    monkeypatch.setattr(directories, "sync_directories", lambda *_: pytest.fail("asked"))

    assert [False] == await store.set_directories([Directory(b"missing", 0o755, 1)])
