"""Batches of small files on a real directory: each has its own answer, and what fails leaves nothing."""

from __future__ import annotations

import errno
import gc
import os
import stat
import weakref

import pytest
from attrs import evolve

from realize.errors import BadName, Busy, NoSpace, NotFound, ProtocolError, SourceChanged, StorageError, VerifyFailed
from realize.fs.names import is_partial
from realize.fs.tree import Tree
from realize.store.hooks import CommitHooks, Sync
from realize.store.local import small_files as small
from realize.store.local.group_commit import Committer
from realize.store.local.headroom import Headroom
from realize.store.local.partial_marks import MARK
from realize.units import Reserve
from realize.values import MAX_SMALL_BYTES, Attributes, Committed, Fetched, SmallFile, Stored
from tests.local_stores import PARTIAL, REPLACE, at_once, behind, open_files, opened, put, root
from tests.store_helpers import digest, how, small_file
from tests.test_removal import broken

__all__ = ["behind", "root"]

FAULTS = [(OSError(errno.EIO, os.strerror(errno.EIO)), StorageError), (MemoryError(), Busy)]


def kinds(answers):
    return [type(answer) for answer in answers]


# Reading


async def test_a_batch_is_read_up_to_its_limit(root, behind):
    """What does not fit beside what was read before it is `SourceChanged`, and what fits behind that is read."""
    behind.plant(b"most", b"x" * (MAX_SMALL_BYTES - 2))
    for name, content in ((b"two", b"ab"), (b"one", b"c"), (b"none", b"")):
        behind.plant(name, content)
    store = await opened(root)

    answers = await store.read_small([b"most", b"two", b"one", b"none"])
    exactly = await store.read_small([b"most", b"one", b"two", b"one", b"one"])

    assert [Fetched, Fetched, SourceChanged, Fetched] == kinds(answers)
    assert [Fetched, Fetched, SourceChanged, Fetched, SourceChanged] == kinds(exactly)
    assert "one: is too large for a batch now: 1 bytes" == str(answers[2])


@pytest.mark.parametrize(("fault", "kind"), FAULTS)
async def test_each_file_that_is_read_has_its_own_answer(root, behind, monkeypatch, fault, kind):
    """Whatever one cannot be read for, its answer is at its place, names it, and nothing stays open."""
    for name in (b"a", b"b", b"c"):
        behind.plant(name, name)
    store = await opened(root)
    monkeypatch.setattr(os, "open", broken(os.open, b"b", fault))

    answers = await store.read_small([b"a", b"b", b"no", b"../up", b"no/no", b"c"])

    assert [Fetched, kind, NotFound, BadName, NotFound, Fetched] == kinds(answers)
    assert str(answers[1]).startswith("b: ")
    assert b"c" == answers[5].file.content
    assert [] == open_files(root)


@pytest.mark.parametrize("change", [b"again", b"", b"more than there was"])
async def test_what_is_written_while_it_is_read_is_not_read(root, behind, monkeypatch, change):
    """Also if it has the same size and the same time of modification afterwards."""
    behind.plant(b"f", b"first")
    store = await opened(root)
    status, pread = os.stat(behind.at(b"f")), os.pread

    def reading(*arguments):
        content = pread(*arguments)
        with open(behind.at(b"f"), "r+b") as file:
            file.truncate(len(change))
            file.write(change)
        os.utime(behind.at(b"f"), ns=(status.st_atime_ns, status.st_mtime_ns))
        return content

    monkeypatch.setattr(os, "pread", reading)
    [answer] = await store.read_small([b"f"])

    assert isinstance(answer, SourceChanged)


@pytest.fixture
def _no_search_for_garbage():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_search_for_garbage")
async def test_a_failure_does_not_keep_the_content_of_the_batch(root, behind):
    """Of each batch that a search for garbage finds only later, 2 MiB would stay until then."""
    behind.plant(b"there", b"x")
    store = await opened(root)

    answers = await store.read_small([b"there", b"missing", b"../up"])
    read = weakref.ref(answers[0])
    errors = answers[1:]
    del answers

    assert [NotFound, BadName] == kinds(errors)
    assert read() is None


# Writing


class Watched(CommitHooks):
    """Remembers what was made durable, and how often."""

    def __init__(self):
        self.seen = []

    def synced(self, what, seconds):
        self.seen.append((what, len(seconds)))
        assert all(0 <= each < 60 for each in seconds)


@pytest.mark.parametrize("count", [small.FSYNC_MAX_FILES, small.FSYNC_MAX_FILES + 1])
async def test_few_are_made_durable_one_by_one_and_many_at_once(root, count):
    """Whoever counts is told which it was."""
    watch = Watched()
    store = await opened(root, committer=Committer(at_once, watch))

    answers = await store.put_small([small_file(b"%d" % number, b"x") for number in range(count)], REPLACE)

    assert [Committed.CREATED] * count == list(map(how, answers))
    few = count <= small.FSYNC_MAX_FILES
    assert [(Sync.FILE, count if few else 0)] == watch.seen[:1]
    assert (not few) == ((Sync.FILE_SYSTEM, 1) in watch.seen)


async def test_a_file_on_another_file_system_gets_its_own_fsync(root, monkeypatch):
    """What is said of the file system of the root says nothing of one that is mounted below it."""
    identity = Tree.identity

    def mounted(tree, components):
        device, inode = identity(tree, components)
        return (device + 1 if components else device), inode

    monkeypatch.setattr(Tree, "identity", mounted)
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    store = await opened(root)

    files = [small_file(b"d/f", b"x"), *(small_file(b"%d" % number, b"x") for number in range(small.FSYNC_MAX_FILES))]
    answers = await store.put_small(files, REPLACE)

    assert [Committed.CREATED] * 9 == list(map(how, answers))
    assert [os.fsdecode(root + b"/d/" + PARTIAL)] == [each for each in synced if each.endswith(".part")]


@pytest.mark.parametrize("call", ["syncs_as_a_whole", "dup", "Anchor"])
@pytest.mark.parametrize(("fault", "kind"), FAULTS)
async def test_a_batch_that_has_no_anchor(root, monkeypatch, call, fault, kind):
    """Where the system refuses one, each file is made durable itself; and nothing stays open, whatever happens."""
    store = await opened(root)
    module = os if call == "dup" else small
    original = getattr(module, call)

    def refuse(*_):
        monkeypatch.setattr(module, call, original)
        raise fault

    monkeypatch.setattr(module, call, refuse)
    files = [small_file(b"%d" % number, b"x") for number in range(small.FSYNC_MAX_FILES + 1)]
    if kind is StorageError and call != "Anchor":
        assert [Committed.CREATED] * len(files) == list(map(how, await store.put_small(files, REPLACE)))
    else:
        with pytest.raises(type(fault)):
            await store.put_small(files, REPLACE)
        assert [] == os.listdir(root)
    assert [] == open_files(root)


def test_nothing_speaks_for_a_file_system_that_cannot_say(root, monkeypatch):
    """Where syncfs(2) is not to be relied upon there is no anchor."""
    monkeypatch.setattr(small, "syncs_as_a_whole", lambda _fd: False)

    class Location:
        root_fd = 0

    assert small.open_anchor(Location()) is None


@pytest.mark.parametrize(("fault", "kind"), FAULTS)
@pytest.mark.parametrize("call", ["write", "fchmod", "fsync"])
async def test_what_cannot_be_written_leaves_nothing(root, behind, monkeypatch, call, fault, kind):
    """Its answer is at its place, the others arrive, and its partial is gone, also one that was there before."""
    behind.plant_partial(b"b", b"old content")
    store = await opened(root)
    original, partials = getattr(os, call), []

    def failing(fd, *arguments):
        path = os.readlink(f"/proc/self/fd/{fd}")
        if "/.b.realize" in path:
            partials.append(path)
            raise fault
        return original(fd, *arguments)

    monkeypatch.setattr(os, call, failing)
    answers = await store.put_small([small_file(name, b"x") for name in (b"a", b"b", b"c")], REPLACE)

    assert [Stored, kind, Stored] == kinds(answers)
    assert str(answers[1]).startswith("b: ")
    assert partials
    assert [b"a", b"c"] == behind.everything()
    assert [] == open_files(root)


async def test_what_cannot_be_removed_either_is_let_go(root, behind, monkeypatch):
    """The error is that of the writing; the partial stays, unlocked."""
    store = await opened(root)

    def refuse(*_arguments, **_options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        patch.setattr(os, "unlink", broken(os.unlink, PARTIAL, OSError(errno.EPERM, "kept")))
        assert "f: Input/output error" == str(await put(store, b"f", b"x"))

    assert [PARTIAL] == behind.everything()
    assert [] == open_files(root)
    assert how(await put(store, b"f", b"y")) is Committed.CREATED


async def test_a_batch_that_ends_in_the_middle_lets_go_of_all(root, behind, monkeypatch):
    """What nobody expected is told as it is, and what was written before it holds no lock."""
    store = await opened(root)
    write = os.write

    class Unexpected(Exception):
        """It is."""

    def failing(fd, content):
        if content == b"c":
            raise Unexpected
        return write(fd, content)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing)
        files = [small_file(b"%d" % number, b"x") for number in range(small.FSYNC_MAX_FILES)]
        with pytest.raises(Unexpected):
            await store.put_small([*files, small_file(b"c", b"c")], REPLACE)

    assert [] == open_files(root)
    assert how(await put(store, b"0", b"y")) is Committed.CREATED


async def test_small_is_what_is_not_large(root, behind):
    """A file of just that size may come like this, and none that is larger."""
    store = await opened(root)
    largest, larger = (
        SmallFile(b"%d" % size, bytes(size), digest(bytes(size)), None)
        for size in (MAX_SMALL_BYTES, MAX_SMALL_BYTES + 1)
    )

    [stored] = await store.put_small([largest], REPLACE)
    [refused] = await store.put_small([larger], REPLACE)

    assert how(stored) is Committed.CREATED
    assert isinstance(refused, ProtocolError)
    assert [b"%d" % MAX_SMALL_BYTES] == behind.everything()


async def test_a_batch_leaves_the_reserve_alone(root, behind, monkeypatch):
    """The files take what is free, one after the other, to the last byte; what is too large leaves it to the next."""
    headroom = Headroom(at_once, reserve=Reserve(1))
    monkeypatch.setattr(Headroom, "free", lambda _self, _fd: 10)
    store = await opened(root, headroom=headroom)
    sizes = {b"a": 4, b"b": 7, b"c": 6, b"d": 1, b"e": 0}

    answers = await store.put_small([small_file(name, b"x" * size) for name, size in sizes.items()], REPLACE)

    assert [Stored, NoSpace, Stored, NoSpace, Stored] == kinds(answers)
    assert "b: No space left on device: the free space belongs to the reserve" == str(answers[1])


async def test_without_a_reserve_nobody_asks_what_is_free(root, behind, monkeypatch):
    """Writing will tell; some file systems do not know."""
    monkeypatch.setattr(Headroom, "free", lambda _self, _fd: 0)
    store = await opened(root)

    assert how(await put(store, b"f", b"x")) is Committed.CREATED


@pytest.mark.parametrize("number", sorted(small._IMMUTABLE))
@pytest.mark.parametrize("call", ["fchmod", "utime"])
async def test_where_there_are_no_attributes_the_file_arrives_all_the_same(root, behind, monkeypatch, number, call):
    """A mount of a file system that has no modes or times refuses to set them."""
    store = await opened(root)

    def refuse(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    [answer] = await store.put_small([small_file(b"f", b"x", Attributes(7, 0o640))], REPLACE)

    assert how(answer) is Committed.CREATED
    assert b"x" == behind.content(b"f")
    # What it does take is set.
    assert (call == "fchmod") == (os.stat(behind.at(b"f")).st_mtime_ns == 7)


@pytest.mark.parametrize("attributes", [None, Attributes(7, 0o7750)])
async def test_a_final_file_has_what_it_is_to_have(root, behind, attributes):
    """Only permissions and the time travel: whatever is asked for, no file runs as somebody else."""
    umask = os.umask(0)
    os.umask(umask)
    store = await opened(root)
    name = b"f"
    assert not is_partial(name)

    await store.put_small([small_file(name, b"x", attributes)], REPLACE)

    mode = stat.S_IMODE(os.stat(behind.at(name)).st_mode)
    assert (0o750 if attributes else 0o666 & ~umask) == mode
    assert not mode & MARK
    if attributes:
        assert 7 == os.stat(behind.at(name)).st_mtime_ns


async def test_a_batch_of_which_nothing_is_written_leaves_nothing_open(root, behind):
    """Also what was to speak for all of its files."""
    store = await opened(root)
    files = [evolve(small_file(b"%d" % number, b"x"), digest=b"?" * 32) for number in range(small.FSYNC_MAX_FILES + 1)]

    assert {VerifyFailed} == set(kinds(await store.put_small(files, REPLACE)))
    assert [] == behind.everything()


async def test_what_cannot_be_written_leaves_no_directory(root, behind, monkeypatch):
    """Those that were made for it go as far as nothing else is in them."""
    store = await opened(root)
    write = small.write_all

    def full(fd, content):
        if content == b"no":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(fd, content)

    monkeypatch.setattr(small, "write_all", full)
    answers = await store.put_small([small_file(b"a/b/no", b"no"), small_file(b"a/yes", b"yes")], REPLACE)

    assert [NoSpace, Stored] == kinds(answers)
    assert [b"a", b"a/yes"] == behind.everything()


@pytest.mark.usefixtures("_no_search_for_garbage")
async def test_a_failure_does_not_keep_the_content_that_came(root):
    """Nor at the destination."""
    store = await opened(root)

    files = [small_file(b"good", b"x"), evolve(small_file(b"bad", b"y"), digest=bytes(32))]
    came = weakref.ref(files[0])
    answers = await store.put_small(files, REPLACE)
    del files

    assert [Stored, VerifyFailed] == kinds(answers)
    assert came() is None
