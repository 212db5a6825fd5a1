"""Directories below a root: what is opened, made, kept open, and refused."""

from __future__ import annotations

import copy
import errno
import fcntl
import os
import stat
import tracemalloc

import pytest

from realize.errors import BadName, Busy, Conflict, NotFound, StorageError
from realize.fs.tree import identity_of
from realize.store.local.location import Root
from realize.store.local.store import root_identity
from tests.local_stores import open_files, root

__all__ = ["root"]

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


@pytest.fixture
def above(root):
    """The root as a place for trees."""
    return Root(root, root_identity(root))


def mode_of(root, path):
    return stat.S_IMODE(os.stat(os.path.join(root, path)).st_mode)


def test_few_directories_are_kept_open(root, above):
    """A batch may go through thousands of directories, and be as deep as a name can be; all are closed in the end."""
    deep = (b"d",) * 500
    with above.tree() as tree:
        for number in range(500):
            tree.directory((b"%d" % number,), create=True)
            tree.directory((b"%d" % number, b"below"), create=True)
        tree.directory(deep, create=True)

        assert 100 < len(open_files(root)) < 150
        assert os.path.samestat(os.fstat(tree.directory(())), os.stat(root))
        assert os.path.samestat(os.fstat(tree.directory((b"7", b"below"))), os.stat(os.path.join(root, b"7/below")))
        tree.forget()
        assert [] == open_files(root)
        assert tree.identity((b"7",)) == root_identity(os.path.join(root, b"7"))
    assert [] == open_files(root)


def test_what_was_made_takes_little_memory_however_deep(root, above):
    """A file that is being written remembers it until it is whole."""
    deep = (b"d",) * 128
    with above.tree() as tree:
        tree.directory(deep, create=True)
        tracemalloc.start()
        kept = copy.deepcopy(tree.made)
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        tree.unmake(kept)

        assert taken < 24 << 10
        assert [] == os.listdir(root)


def test_what_somebody_else_made_meanwhile_stays(root, above, monkeypatch):
    """Only what is below it was made on demand."""
    mkdir = os.mkdir

    def other_is_faster(name, *arguments, **how):
        mkdir(name, *arguments, **how)
        if name == b"b":
            raise FileExistsError

    monkeypatch.setattr(os, "mkdir", other_is_faster)
    with above.tree() as tree:
        tree.directory((b"a", b"b", b"c"), create=True)
        tree.unmake(tree.made)

    assert [b"b"] == os.listdir(os.path.join(root, b"a"))
    assert [] == os.listdir(os.path.join(root, b"a/b"))


def test_a_directory_that_is_known_is_not_opened_again(root, above, monkeypatch):
    """Its files cost no walk each."""
    os.makedirs(os.path.join(root, b"a/b/c"))
    opening, names = os.open, []
    monkeypatch.setattr(os, "open", lambda path, *args, **how: names.append(path) or opening(path, *args, **how))
    with above.tree() as tree:
        for path in [(b"a", b"b"), (b"a",), (b"a", b"b", b"c"), (b"a", b"b"), ()]:
            tree.directory(path)

    assert [root, b"a", b"b", b"c"] == names


def test_the_nearest_that_is_there(root, above):
    """What is missing is looked for further up, to the root."""
    os.makedirs(os.path.join(root, b"a/b"))
    with above.tree() as tree:
        found = [tree.nearest(path) for path in [(b"a", b"b", b"c"), (b"x", b"y"), (b"a", b"b")]]
        there = [os.path.join(root, path) for path in (b"a/b", b"", b"a/b")]

        assert [root_identity(path) for path in there] == [identity_of(os.fstat(fd)) for fd, _ in found]
        assert [(b"a", b"b"), (), (b"a", b"b")] == [which for _, which in found]
        for look in (tree.directory, tree.identity):
            with pytest.raises(NotFound, match="x: No such"):
                look((b"x", b"y"))
        assert [b"a"] == os.listdir(root)


@pytest.mark.parametrize(("below", "modes"), [(None, (0o755, 0o755)), (0, (0o700, 0o700)), (1, (0o755, 0o700))])
def test_what_is_made_on_demand_may_be_private(root, above, below, modes):
    """From a depth on, directories are for their owner alone; those that were there stay as they were."""
    os.mkdir(os.path.join(root, b"old"), 0o755)
    umask = os.umask(0o022)
    try:
        with above.tree(below) as tree:
            tree.directory((b"a", b"b"), create=True)
            tree.directory((b"old",), create=True)
    finally:
        os.umask(umask)

    assert (*modes, 0o755) == tuple(mode_of(root, path) for path in (b"a", b"a/b", b"old"))


def plant_directory(path):
    os.mkdir(path)


def plant_file(path):
    with open(path, "xb"):
        pass


def plant_symlink(path):
    os.symlink("/", path)


@pytest.mark.parametrize(
    ("plant", "kind", "words"),
    [
        (plant_directory, None, ""),
        (plant_file, Conflict, "d/e: is not a directory"),
        (plant_symlink, BadName, "d/e: is a symlink, and symlinks are not followed"),
    ],
)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_somebody_else_makes_something_of_that_name(root, above, monkeypatch, plant, kind, words, when):
    """A directory is as good as ours, whoever made it; anything else is said to be what it is, and not entered."""
    os.mkdir(os.path.join(root, b"d"))
    making = os.mkdir

    def meanwhile(name, mode, dir_fd):
        monkeypatch.setattr(os, "mkdir", making)
        plant(os.path.join(root, b"d/e"))
        os.mkdir(name, mode, dir_fd=dir_fd)

    if when == "before":
        plant(os.path.join(root, b"d/e"))
    else:
        monkeypatch.setattr(os, "mkdir", meanwhile)
    with above.tree() as tree:
        if kind is None:
            assert identity_of(os.fstat(tree.directory((b"d", b"e"), create=True))) == root_identity(root + b"/d/e")
        else:
            with pytest.raises(kind) as caught:
                tree.directory((b"d", b"e"), create=True)
            assert words == str(caught.value)
    if kind is Conflict:
        with above.tree() as tree, pytest.raises(Conflict):
            tree.directory((b"d", b"e", b"f"))


def test_what_vanishes_while_it_is_looked_at_is_no_directory(root, above, monkeypatch):
    """What was no directory, and is gone when it is asked what it was, is no symlink at any rate."""
    plant_file(os.path.join(root, b"f"))

    def gone(*_args, **_how):
        raise FileNotFoundError(errno.ENOENT, "gone")

    with above.tree() as tree:
        monkeypatch.setattr(os, "stat", gone)
        with pytest.raises(Conflict, match="f: is not a directory"):
            tree.directory((b"f",))


@pytest.mark.parametrize("call", ["open", "mkdir", "fstat"])
def test_what_the_disk_says_is_told_with_the_name(root, above, monkeypatch, call):
    """An error on the way names the directory, counted from the root, and leaves nothing open."""
    os.mkdir(os.path.join(root, b"d"))

    def broken(*_args, **_how):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with above.tree() as tree:
        tree.directory((b"d",))
        with monkeypatch.context() as patch:
            patch.setattr(os, call, broken)
            with pytest.raises(StorageError) as caught:
                tree.directory((b"d", b"e"), create=True)
            before = open_files(root)

        assert "d/e: Input/output error" == str(caught.value)
        assert [os.fsdecode(root + b"/d")] == before


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_directory_that_goes_before_its_file_is_made(root, above, monkeypatch, times):
    """It is made once more; what fails then is told; nothing stays open."""
    opening, asked = os.open, []

    def vanishing(path, flags, *args, **how):
        if flags & os.O_CREAT:
            asked.append(path)
            if len(asked) <= times:
                os.rmdir(os.path.join(root, b"d/e"))
        return opening(path, flags, *args, **how)

    monkeypatch.setattr(os, "open", vanishing)
    with above.tree() as tree:
        if times == 2:
            with pytest.raises(FileNotFoundError):
                tree.create_file((b"d", b"e"), b"f", NEW, 0o600)
        else:
            os.close(tree.create_file((b"d", b"e"), b"f", NEW, 0o600))
            assert 0o600 == mode_of(root, b"d/e/f")

    assert [b"f"] * min(2, times + 1) == asked


@pytest.mark.parametrize("keeps", [True, False])
def test_old_content_is_dropped_where_there_may_be_some(root, above, monkeypatch, keeps):
    """Whether that is so is asked once for a file system, and the whole file is meant."""
    asked, advised = [], []
    monkeypatch.setattr("realize.fs.tree.may_keep_old_content", lambda fd: asked.append(fd) or keeps)
    monkeypatch.setattr(os, "posix_fadvise", lambda *advice: advised.append(advice))
    plant_file(os.path.join(root, b"f"))
    with above.tree() as tree, open(os.path.join(root, b"f"), "rb") as file:
        for _ in range(3):
            tree.drop_old_content(file.fileno(), os.fstat(file.fileno()))

        assert [(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)] * (3 if keeps else 0) == advised
        assert [file.fileno()] == asked


@pytest.mark.parametrize("renames", [True, False])
def test_locks_are_those_of_the_file_system(root, above, monkeypatch, renames):
    """Whether files of it may be renamed while they are open is asked once, wherever they are."""
    asked = []
    monkeypatch.setattr("realize.fs.tree.renames_what_is_open", lambda fd: asked.append(fd) or renames)
    plant_directory(os.path.join(root, b"d"))
    plant_file(os.path.join(root, b"f"))
    with above.tree() as tree, open(os.path.join(root, b"f"), "rb") as file:
        locks = [tree.lock(directory, file.fileno(), b"f") for directory in [(), (b"d",)]]

        assert [renames] * 2 == [lock.of_process for lock in locks]
        assert [file.fileno()] == asked


@pytest.mark.parametrize("fresh", [True, False])
def test_a_cache_of_attributes_is_bypassed_where_there_may_be_one(root, above, monkeypatch, fresh):
    """Whether that is so is asked once for a file system."""
    asked, bypassed = [], []
    monkeypatch.setattr("realize.fs.tree.always_fresh", lambda fd: asked.append(fd) or fresh)
    monkeypatch.setattr("realize.fs.tree.fresh_fstat", lambda fd: bypassed.append(fd) or os.fstat(fd))
    plant_file(os.path.join(root, b"f"))
    with above.tree() as tree, open(os.path.join(root, b"f"), "rb") as file:
        status = os.fstat(file.fileno())

        assert [status] * 2 == [tree.fresh_fstat(file.fileno()) for _ in range(2)]
        assert [file.fileno()] * (0 if fresh else 2) == bypassed
        assert [file.fileno()] == asked


def test_a_local_file_says_nothing_of_the_others(root, above, monkeypatch):
    """It may be mounted over one in a directory of a network file system, where the attributes of others are cached."""
    bypassed = []
    plant_file(os.path.join(root, b"f"))
    with above.tree() as tree, open("/proc/self/status", "rb") as mounted, open(os.path.join(root, b"f"), "rb") as file:
        monkeypatch.setattr("realize.fs.tree.always_fresh", lambda fd: fd == mounted.fileno())
        monkeypatch.setattr("realize.fs.tree.fresh_fstat", lambda fd: bypassed.append(fd) or os.fstat(fd))

        for each in (mounted, file, mounted):
            tree.fresh_fstat(each.fileno())

        assert [file.fileno()] == bypassed


@pytest.mark.parametrize("shared", [True, False])
def test_a_lock_may_be_shared(root, above, monkeypatch, shared):
    """By those who ask for that, all of them."""
    monkeypatch.setattr("realize.fs.tree.renames_what_is_open", lambda _: False)
    path = os.path.join(root, b"f")
    plant_file(path)
    with above.tree() as tree, open(path, "rb") as ours, open(path, "rb") as theirs:
        with tree.lock((), ours.fileno(), b"f", shared=shared):
            if shared:
                fcntl.flock(theirs, fcntl.LOCK_SH | fcntl.LOCK_NB)
            else:
                with pytest.raises(BlockingIOError):
                    fcntl.flock(theirs, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("there", [True, False])
def test_what_could_not_be_opened_is_not_made(root, above, monkeypatch, there):
    """A lack of descriptors says nothing of whether it is there, and nobody has asked for it to be made."""
    if there:
        os.mkdir(os.path.join(root, b"d"))
    opening = os.open

    def once(path, *args, **how):
        if path == b"d":
            monkeypatch.setattr(os, "open", opening)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opening(path, *args, **how)

    with above.tree() as tree:
        monkeypatch.setattr(os, "open", once)
        with pytest.raises(Busy, match="d: Too many open files"):
            tree.directory((b"d",))

    assert ([b"d"] if there else []) == os.listdir(root)
