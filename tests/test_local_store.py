"""The local store: the contract, and what can happen on a real file system."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from attrs import define, evolve
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.threads import deferToThread

from realize.errors import (
    BadName,
    Busy,
    Conflict,
    InternalError,
    NoSpace,
    NotFound,
    NotRegular,
    ProtocolError,
    SourceChanged,
    StorageError,
    VerifyFailed,
)
from realize.fs import ancestors, syscalls
from realize.fs.descriptors import release
from realize.fs.handle import Handle
from realize.fs.names import is_partial, partial_name
from realize.store import deltas
from realize.store.hooks import CommitHooks
from realize.store.local import commit, old_version
from realize.store.local import existing as finals
from realize.store.local import hard_links as unlinked
from realize.store.local import small_files as small
from realize.store.local.commit import Anchor, Committer
from realize.store.local.headroom import Headroom
from realize.store.local.store import LocalStore, root_identity
from realize.store.local.versions import Clock, attributes_of
from realize.store.local.walker import Walker
from realize.store.local.writer import MAX_WAITING_RUNS
from realize.testing import (
    LARGE_CONTENT,
    Behind,
    StoreContract,
    block_digests,
    digest,
    failure,
    how,
    listed,
    listed_files,
    random_bytes,
    read_all,
    read_to_end,
    small_file,
)
from realize.values import (
    BLOCK_BYTES,
    MAX_SMALL_BYTES,
    SPAN_BYTES,
    Attributes,
    Committed,
    Directory,
    Entry,
    Existing,
    Expected,
    Fetched,
    Kind,
    OnConflict,
    Removal,
    Stored,
    Use,
    Vacant,
    Version,
    WhereKind,
)
from tests.leftovers import leave_partial

REPLACE = OnConflict.REPLACE
SALT = b"salt"
PARTIAL = partial_name(b"f")


@define
class DirectoryBehind(Behind):
    """The way behind a store of a directory."""

    root: bytes

    def at(self, path):
        """Where that is, with its directory made."""
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        return full

    def plant(self, path, content):
        """Put a final file there."""
        full = self.at(path)
        with open(full + b"~", "wb") as target:
            target.write(content)
        os.rename(full + b"~", full)

    def plant_partial(self, path, content):
        """Put a partial there."""
        leave_partial(*os.path.split(self.at(path)), content)

    def plant_directory(self, path, attributes):
        """Make a directory, or change it."""
        full = self.at(path)
        os.makedirs(full, exist_ok=True)
        os.chmod(full, attributes.mode)
        os.utime(full, ns=(attributes.mtime_ns, attributes.mtime_ns))

    def attributes(self, path):
        """Those of a final file or a directory."""
        try:
            return attributes_of(os.stat(os.path.join(self.root, path), follow_symlinks=False))
        except FileNotFoundError:
            return None

    @contextmanager
    def writing(self, path):
        """Open it."""
        with open(self.at(path), "r+b"):
            yield

    def content(self, path):
        """The content of the final file."""
        try:
            with open(os.path.join(self.root, path), "rb") as source:
                return source.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def partial(self, path):
        """The content of the partial."""
        directory, name = os.path.split(path)
        return self.content(os.path.join(directory, partial_name(name)))

    def everything(self):
        """All paths below the root."""
        return sorted(
            os.path.relpath(os.path.join(where, name), self.root)
            for where, directories, files in os.walk(self.root)
            for name in directories + files
        )


def at_once(job, *arguments):
    """A pool without threads: the work is done before the call returns."""
    return maybeDeferred(job, *arguments)


class TestContractInThreads(StoreContract):
    """`LocalStore` keeps the contract with real threads."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.path = os.fsencode(tmp_path / "root")
        os.mkdir(self.path)

    async def make_store(self):
        """A store of an empty directory."""
        return LocalStore(self.path, run_in_thread=deferToThread), DirectoryBehind(self.path)


class TestContractBelowAServedDirectory(TestContractInThreads):
    """`LocalStore` keeps the contract for a location below a root that is watched, and is made on demand."""

    async def make_store(self):
        """A store of a location that is not there yet."""
        store = LocalStore(self.path, b"a/b", run_in_thread=at_once, root_identity=root_identity(self.path))
        return store, DirectoryBehind(os.path.join(self.path, b"a/b"))

    async def test_says_where_it_is(self):
        """A location that is not there yet is absent, and its place is that of its nearest ancestor."""
        store, behind = await self.make_store()
        root = LocalStore(self.path, run_in_thread=at_once)

        before = await store.open(SALT)
        behind.plant(b"f", b"")
        after = await store.open(SALT)

        assert (WhereKind.ABSENT, WhereKind.DIRECTORY) == (before.kind, after.kind)
        assert (await root.open(SALT)).chain == before.chain
        assert after.chain[2:] == before.chain

    async def test_lists_nothing_after_close(self):
        """A listing of a location that is missing fails: nothing is not the same as not there."""
        store, _ = await self.opened()

        assert isinstance(await failure(store.walk().next_page()), NotFound)

    async def test_opens_no_reader_for_what_is_missing(self):
        """A missing file of a missing location is `NotFound`."""
        store, _ = await self.opened()

        assert isinstance(await failure(store.open_reader(b"f")), NotFound)


@pytest.fixture
def root(tmp_path):
    """An empty directory."""
    path = os.fsencode(tmp_path / "root")
    os.mkdir(path)
    return path


@pytest.fixture
def behind(root):
    """The way behind the store."""
    return DirectoryBehind(root)


async def opened(root, base=b"", **options):
    """A store without threads, opened."""
    store = LocalStore(root, base, **{"run_in_thread": at_once, **options})
    await store.open(SALT)
    return store


async def fetched(store, path):
    """One small file."""
    [answer] = await store.read_small([path])
    assert isinstance(answer, Fetched), answer
    return answer


async def put(store, path, content, policy=REPLACE):
    """Put one small file."""
    [answer] = await store.put_small([small_file(path, content)], policy)
    return answer


# Nobody gets out


async def every_method(store, path):
    """What each method of a store answers for a path."""
    return [
        *await store.describe([path]),
        *await store.read_small([path]),
        *await store.put_small([small_file(path, b"evil")], REPLACE),
        *await store.settle([Expected(path, 6, digest(b"secret"))]),
        *await store.remove([Removal(path, Version(0, 0, 0, 0, 0))]),
        await failure(store.match_final(path, 6, 0, [digest(b"secret")])),
        await failure(store.open_reader(path)),
        await failure(store.open_writer(path, 4, REPLACE)),
    ]


@pytest.mark.parametrize("path", [b"link/secret", b"a/link/secret", b"a/link/deeper/secret", b"a/b/link/secret"])
@pytest.mark.parametrize("target", ["absolute", "relative"])
async def test_no_symlink_leads_out(root, behind, tmp_path, path, target):
    """A symlink among the directories of a name is refused by every method, and what it points to is untouched."""
    outside = os.fsencode(tmp_path / "outside")
    os.makedirs(os.path.join(outside, b"deeper"))
    for secret in (os.path.join(outside, b"secret"), os.path.join(outside, b"deeper/secret")):
        with open(secret, "wb") as file:
            file.write(b"secret")
    link = behind.at(path[: path.index(b"link") + 4])
    os.symlink(outside if target == "absolute" else os.path.relpath(outside, os.path.dirname(link)), link)
    store = await opened(root)

    answers = await every_method(store, path)

    assert [BadName] * 8 == [type(answer) for answer in answers]
    assert [b"deeper", b"deeper/secret", b"secret"] == DirectoryBehind(outside).everything()


async def test_a_symlink_as_last_component_is_not_followed(root, behind, tmp_path):
    """A symlink is never read, written through, replaced or removed as if it were what it points to."""
    outside = tmp_path / "secret"
    outside.write_bytes(b"secret")
    os.symlink(outside, behind.at(b"link"))
    store = await opened(root)

    described, read, written, settled, removed, matched, reader, writing = await every_method(store, b"link")

    assert Existing(obstacle="symlink") == described
    assert [NotRegular, NotRegular] == [type(read), type(reader)]
    assert [Conflict, Conflict] == [type(written), type(writing)]
    assert settled is False
    assert isinstance(removed, SourceChanged)
    assert isinstance(matched, NotRegular)
    assert os.path.islink(behind.at(b"link"))
    assert outside.read_bytes() == b"secret"
    assert [b"link"] == behind.everything()


async def test_a_symlink_in_the_base_is_refused(root, behind, tmp_path):
    """The base of a location comes from the wire: a symlink in it, also as its end, is not followed."""
    os.mkdir(tmp_path / "outside")
    os.symlink(tmp_path / "outside", behind.at(b"link"))
    for base in (b"link", b"link/x"):
        store = LocalStore(root, base, run_in_thread=at_once)
        assert isinstance(await failure(store.open(SALT)), (BadName, NotRegular))


async def test_a_bad_base_is_refused(root):
    """The base of a location is judged like any name."""
    for base in (b"../x", b"/etc", b"a//b"):
        assert isinstance(await failure(LocalStore(root, base, run_in_thread=at_once).open(SALT)), BadName)


async def test_a_symlink_in_the_root_is_the_operators_choice(root, behind, tmp_path):
    """The path of the root may lead through symlinks."""
    os.symlink(root, tmp_path / "link")
    store = await opened(tmp_path.joinpath("link").as_posix())

    assert how(await put(store, b"f", b"content")) is Committed.CREATED
    assert behind.content(b"f") == b"content"


async def test_a_directory_swapped_for_a_symlink_while_files_are_written(root, behind, tmp_path, monkeypatch):
    """A directory that becomes a symlink before the commit takes no file outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    store = await opened(root)
    behind.plant(b"d/x", b"")

    def swap(batch):
        os.rename(behind.at(b"d"), behind.at(b"moved"))
        os.symlink(outside, behind.at(b"d"))
        return original(batch)

    original = small.Batch.prepared
    monkeypatch.setattr(small.Batch, "prepared", swap)

    answer = await put(store, b"d/f", b"content")

    assert isinstance(answer, BadName)
    assert os.listdir(outside) == []
    assert behind.content(b"moved/f") is None


# The root is what it was


async def test_another_directory_in_place_of_the_root_is_refused(root, behind):
    """When the root is not the directory that it was at first, nothing is read from it or written to it."""
    store = await opened(root)
    behind.plant(b"f", b"content")
    os.rename(root, root + b"-away")
    os.mkdir(root)

    for waiting in (
        store.describe([b"f"]),
        store.read_small([b"f"]),
        store.put_small([small_file(b"f", b"x")], REPLACE),
        store.settle([Expected(b"f", 1, digest(b"x"))]),
        store.remove([Removal(b"f", Version(0, 0, 0, 0, 0))]),
        store.match_final(b"f", 1, 0, [digest(b"x")]),
        store.open_reader(b"f"),
        store.open_writer(b"f", 1, REPLACE),
        store.walk().next_page(),
    ):
        error = await failure(waiting)
        assert type(error) is StorageError
        assert "mounted" in str(error)
    assert os.listdir(root) == []


async def test_a_served_root_must_be_what_it_was_when_the_daemon_started(root):
    """A store refuses to open below another directory than the one it was given the identity of, or below none."""
    identity = root_identity(root)
    os.rename(root, root + b"-away")
    missing = LocalStore(root, run_in_thread=at_once, root_identity=identity)
    assert type(await failure(missing.open(SALT))) is StorageError
    os.mkdir(root)
    replaced = LocalStore(root, run_in_thread=at_once, root_identity=identity)
    assert type(await failure(replaced.open(SALT))) is StorageError


async def test_a_root_that_vanishes_before_the_commit_takes_no_file(root, behind):
    """The root is looked at again by the group commit."""
    store = await opened(root)
    writing = await store.open_writer(b"f", 1, REPLACE)
    await writing.write([b"x"])
    os.rename(root, root + b"-away")
    os.mkdir(root)

    assert isinstance(await failure(writing.commit(digest(b"x"), None)), StorageError)
    assert os.listdir(root) == []


async def test_a_store_keeps_nothing_open(root, behind):
    """Between two calls no descriptor is left, so the file system can be unmounted."""
    store = await opened(root)
    before = os.listdir("/proc/self/fd")
    for number in range(300):
        behind.plant(b"d%d/e/f" % number, b"")

    await store.put_small([small_file(b"x%d/y/z" % number, b"") for number in range(300)], REPLACE)
    await store.put_small([small_file(b"d0", b"")] * 20, REPLACE)
    await store.describe([b"d%d/e/f" % number for number in range(300)])
    files = [await fetched(store, b"d%d/e/f" % number) for number in range(9)]
    await store.remove([Removal(each.file.path, each.version) for each in files])
    await store.settle([Expected(b"d%d/e/f" % number, 0, digest(b"")) for number in range(300)])
    await listed(store.walk())
    await put(store, b"..", b"")
    await failure(store.open_reader(b"d20"))
    await failure(store.open_writer(b"d20", 1, REPLACE))

    assert before == os.listdir("/proc/self/fd")


async def test_a_store_must_be_opened(root):
    """Before `open` nothing else works."""
    store = LocalStore(root, run_in_thread=at_once)

    assert isinstance(await failure(store.describe([b"f"])), InternalError)


# Where it is


async def test_a_root_that_is_missing_is_made_on_demand(root, behind):
    """A new directory is absent at first, cannot be read, and is made by the first file."""
    store = LocalStore(os.path.join(root, b"new/deeper"), run_in_thread=at_once)

    assert (await store.open(SALT)).kind is WhereKind.ABSENT
    assert isinstance(await failure(store.walk().next_page()), NotFound)
    assert await store.describe([b"f"]) == [Existing()]
    assert os.listdir(root) == []
    assert how(await put(store, b"f", b"x")) is Committed.CREATED
    assert behind.content(b"new/deeper/f") == b"x"
    assert (await store.open(SALT)).kind is WhereKind.DIRECTORY


async def test_a_file_is_a_store_of_that_file_alone(root, behind):
    """A location that is a file lists it under its name, and knows no other name."""
    behind.plant(b"d/f", b"content")
    behind.plant(b"d/g", b"content")
    behind.plant_partial(b"d/f", b"x")
    for store in (
        LocalStore(behind.at(b"d/f"), run_in_thread=at_once),
        LocalStore(root, b"d/f", run_in_thread=at_once),
    ):
        where = await store.open(SALT)
        directory = await LocalStore(behind.at(b"d"), run_in_thread=at_once).open(SALT)

        assert where.kind is WhereKind.FILE
        assert directory.chain == where.chain[1:]
        [existing] = await store.describe([b"f"])
        assert (where.chain[0], None) == (existing.place, existing.partial_size)
        assert [(b"f", Kind.FILE, 7)] == [(each.path, each.kind, each.size) for each in await listed(store.walk())]
        assert (await fetched(store, b"f")).file.content == b"content"
        assert isinstance(await put(store, b"g", b""), NotFound)


async def test_removing_the_file_of_a_location_keeps_its_directory(root, behind):
    """The directory of a location that is a file is never pruned."""
    behind.plant(b"d/f", b"content")
    store = await opened(root, b"d/f")

    assert await store.remove([Removal(b"f", (await fetched(store, b"f")).version)]) == [None]
    assert await store.prune([Vacant(b"d", None)]) == [False]
    [made] = await store.make_directories([Directory(b"beside", 0o755)])
    assert isinstance(made, NotFound)
    assert await store.make_directories([Directory(b"", 0o755)]) == [None]
    assert await store.set_directories([Directory(b"d", 0o755, 1)]) == [False]
    assert behind.everything() == [b"d"]


async def test_a_file_that_comes_first_keeps_its_directory(root, behind):
    """Only rmdir(2) removes directories: it fails if a program was quicker, and what that wrote stays."""
    behind.plant_directory(b"d", Attributes(1_000_000_000, 0o755))
    store = await opened(root)
    behind.plant(b"d/f", b"new")
    os.utime(behind.at(b"d"), ns=(1_000_000_000, 1_000_000_000))

    assert await store.prune([Vacant(b"d", 1_000_000_000)]) == [False]
    assert behind.content(b"d/f") == b"new"


async def test_prunes_nothing_behind_a_symlink(root, behind):
    """A symlink stays, and so does what it leads to."""
    behind.plant_directory(b"real", Attributes(1_000_000_000, 0o755))
    os.symlink(b"real", behind.at(b"link"))
    behind.plant_directory(b"real/below", Attributes(1_000_000_000, 0o755))
    store = await opened(root)

    link, below = await store.prune([Vacant(b"link", None), Vacant(b"link/below", None)])

    assert link is False
    assert isinstance(below, BadName)
    assert [b"link", b"real", b"real/below"] == behind.everything()


async def test_a_write_in_the_instant_in_which_a_file_gets_its_time_is_seen(root, behind, monkeypatch):
    """It would not show in the time, so the content is looked at once more."""
    behind.plant(b"f", b"content")
    store = await opened(root)
    original = os.utime

    def utime(fd, **times):
        with open(behind.at(b"f"), "r+b") as file:
            file.write(b"CONTENT")
        return original(fd, **times)

    monkeypatch.setattr(os, "utime", utime)

    assert await store.settle([Expected(b"f", 7, digest(b"content"), Attributes(1, 0o600))]) == [False]


async def test_what_belongs_to_others_keeps_its_attributes(open_root):
    """Identical content whose mode we may not change counts as other content."""
    behind = DirectoryBehind(open_root)
    behind.plant(b"f", b"content")
    store = await opened(open_root, run_in_thread=as_nobody)
    given = Attributes(1, 0o604)
    own = behind.attributes(b"f")

    assert await store.settle([Expected(b"f", 7, digest(b"content"), given)]) == [False]
    assert await store.match_final(b"f", 7, 0, [digest(b"content")], given) == 0
    assert own == behind.attributes(b"f")


async def test_a_read_only_directory_takes_the_files_of_the_next_run(open_root):
    """Who is not root could not put anything into a copy of it; and what somebody else made so stays so."""
    behind = DirectoryBehind(open_root)
    os.chmod(open_root, 0o777)
    store = await opened(open_root, run_in_thread=as_nobody)
    final = [Directory(b"closed", 0o555, 1), Directory(b"hidden", 0o300, 1)]
    await store.make_directories(final)
    await store.set_directories(final)
    behind.plant_directory(b"other", Attributes(1, 0o555))

    await store.make_directories([*final, Directory(b"other", 0o555)])

    files = [small_file(path + b"/f", b"x", Attributes(1, 0o600)) for path in (b"closed", b"hidden", b"other")]
    answers = await store.put_small(files, REPLACE)
    assert [Committed.CREATED] * 2 == [how(each) for each in answers[:2]]
    assert isinstance(answers[2], StorageError)
    assert Attributes(1, 0o555) == behind.attributes(b"other")


async def test_a_device_or_fifo_is_no_location(root, behind):
    """A location is a directory or a regular file."""
    os.mkfifo(behind.at(b"fifo"))

    assert isinstance(await failure(LocalStore(root, b"fifo", run_in_thread=at_once).open(SALT)), NotRegular)


async def test_places_tell_overlap(root, behind):
    """The place of a directory is in the chain of every directory below it, whichever path leads there."""
    behind.plant(b"a/b/f", b"")
    os.symlink(behind.at(b"a"), behind.at(b"way"))
    outer = await LocalStore(behind.at(b"way"), run_in_thread=at_once).open(SALT)
    inner = await LocalStore(root, b"a/b", run_in_thread=at_once).open(SALT)
    other = await LocalStore(root, b"c", run_in_thread=at_once).open(SALT)

    assert outer.chain[0] == inner.chain[1]
    assert outer.chain[0] not in other.chain
    assert inner.chain[-1] == other.chain[-1]


async def test_hard_links_have_one_place(root, behind):
    """Two names of one inode have the same place in two stores with the same salt."""
    behind.plant(b"one/f", b"content")
    os.makedirs(behind.at(b"two"))
    os.link(behind.at(b"one/f"), os.path.join(root, b"two/g"))
    one, two = await opened(root, b"one"), await opened(root, b"two")

    [f], [g] = await one.describe([b"f"]), await two.describe([b"g"])

    assert f.place == g.place


# Special files never hang, and are never taken for files


@pytest.mark.parametrize("kind", ["FIFO", "socket", "directory", "character device"])
async def test_special_files_are_never_opened_for_long(root, behind, kind):
    """A FIFO, socket, device or directory is refused at once by readers, and is an obstacle for writers."""
    path = behind.at(b"special")
    listening = socket.socket(socket.AF_UNIX)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        listening.bind(path)
    elif kind == "directory":
        os.mkdir(path)
    else:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    listening.close()
    store = await opened(root)

    described, read, written, settled, _, matched, reader, writing = await every_method(store, b"special")

    assert Existing(obstacle=kind) == described
    assert [NotRegular] * 3 == [type(read), type(reader), type(matched)]
    assert [Conflict] * 2 == [type(written), type(writing)]
    assert settled is False
    assert [b"special"] == behind.everything()


# Versions


async def test_waits_until_a_later_write_would_show(root, behind):
    """A file stamped in the present tick of the clock is read only when the next write would get another stamp."""
    behind.plant(b"f", b"content")
    stamped = os.stat(behind.at(b"f")).st_ctime_ns
    now = [stamped + 5_000_000]
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += round(seconds * 1e9)

    store = await opened(root, clock=Clock(now_ns=lambda: now[0], sleep=sleep))

    await fetched(store, b"f")
    (await store.open_reader(b"f")).close()
    assert slept == [pytest.approx(0.015)]


async def test_coarse_stamps_are_waited_for_longer(root, behind):
    """A file system that keeps whole seconds, two at worst, needs more time until a later write would show."""
    behind.plant(b"f", b"content")
    path, second = behind.at(b"f"), 1_000_000_000
    original = os.fstat
    now, slept = [second * 1000 + 500_000_000], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += round(seconds * 1e9)

    class Coarse:
        def __init__(self, status):
            self._status = status
            self.st_ctime_ns = self.st_mtime_ns = second * 1000

        def __getattr__(self, name):
            return getattr(self._status, name)

    patched = pytest.MonkeyPatch()
    patched.setattr(os, "fstat", lambda fd: Coarse(original(fd)))
    patched.setattr(syscalls, "_statx", None)
    try:
        store = await opened(root, clock=Clock(now_ns=lambda: now[0], sleep=sleep))
        await fetched(store, b"f")
    finally:
        patched.undo()

    assert os.path.exists(path)
    assert slept == [pytest.approx(1.52)]


async def test_a_clock_that_comes_to_a_stamp_again_is_waited_for(root, behind):
    """One that was set back by a moment would stamp the next write with the tick that the file has already."""
    behind.plant(b"f", b"content")
    now, slept = [os.stat(behind.at(b"f")).st_ctime_ns - 5_000_000], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += round(seconds * 1e9)

    await fetched(await opened(root, clock=Clock(now_ns=lambda: now[0], sleep=sleep)), b"f")

    assert slept == [pytest.approx(0.025)]


async def test_a_file_from_the_far_future_is_not_waited_for(root, behind):
    """A clock that was set back does not make anybody wait for long."""
    behind.plant(b"f", b"content")
    clock = Clock(now_ns=lambda: 0, sleep=lambda _: pytest.fail("slept"))

    await fetched(await opened(root, clock=clock), b"f")


async def test_a_file_that_is_written_all_the_time_has_changed(root, behind):
    """A source that gets a new stamp whenever it is looked at is left for later."""
    behind.plant(b"f", b"content")

    def write_again(_seconds):
        with open(behind.at(b"f"), "ab") as file:
            file.write(b"more")

    store = await opened(root, clock=Clock(sleep=write_again))

    [answer] = await store.read_small([b"f"])
    assert isinstance(answer, SourceChanged)


async def test_a_small_file_that_grows_while_it_is_read(root, behind, monkeypatch):
    """A file that is written to during the read is not taken for whole."""
    behind.plant(b"f", b"content")
    store = await opened(root)
    original = os.pread

    def read(*arguments):
        with open(behind.at(b"f"), "ab") as file:
            file.write(b"!")
        return original(*arguments)

    monkeypatch.setattr(os, "pread", read)
    [answer] = await store.read_small([b"f"])

    assert isinstance(answer, SourceChanged)


@pytest.mark.parametrize("content", [b"content", LARGE_CONTENT])
async def test_a_final_file_is_compared_when_a_write_would_show(root, behind, content):
    """What was changed in the present tick of the kernel's clock can change again without looking so."""
    behind.plant(b"f", content)
    now, slept = [os.stat(behind.at(b"f")).st_ctime_ns + 1_000_000], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += int(seconds * 1e9)

    store = await opened(root, clock=Clock(now_ns=lambda: now[0], sleep=sleep))

    if content is LARGE_CONTENT:
        await store.match_final(b"f", len(LARGE_CONTENT), 0, block_digests(LARGE_CONTENT)[:1])
    else:
        await store.settle([Expected(b"f", len(content), digest(content))])

    assert 0.018 < sum(slept) < 0.03


async def test_a_large_file_that_shrinks(root, behind):
    """A file that ends before its size fails, instead of being padded or cut."""
    behind.plant(b"f", LARGE_CONTENT * 3)
    store = await opened(root)
    reader = await store.open_reader(b"f")
    await reader.read()
    os.truncate(behind.at(b"f"), 10)

    assert isinstance(await failure(read_all(reader)), SourceChanged)
    assert isinstance(await failure(reader.block_digests(7)), SourceChanged)
    reader.close()


async def test_a_large_file_that_is_written_in_place(root, behind):
    """Content that changes behind the reader is noticed at the end."""
    behind.plant(b"f", LARGE_CONTENT * 3)
    store = await opened(root)
    reader = await store.open_reader(b"f")
    await reader.read()
    with open(behind.at(b"f"), "r+b") as file:
        file.write(b"changed")

    assert isinstance(await failure(read_to_end(reader)), SourceChanged)
    reader.close()


async def test_a_large_file_that_is_removed_or_renamed(root, behind):
    """A name that is gone, also with its directory, does not belong to what was read."""
    behind.plant(b"d/f", b"content")
    store = await opened(root)
    reader = await store.open_reader(b"d/f")
    shutil.rmtree(behind.at(b"d"))

    assert isinstance(await failure(read_to_end(reader)), SourceChanged)
    reader.close()


async def test_what_is_wrong_with_closing_a_file_that_was_read_is_nobodys_error(root, behind, monkeypatch):
    """A file system may have something to say then, and all has been read and verified."""
    behind.plant(b"f", LARGE_CONTENT)
    store = await opened(root)
    reader = await store.open_reader(b"f")
    close = os.close

    def failing(fd):
        ours = os.path.realpath(b"/proc/self/fd/%d" % fd) == os.path.realpath(behind.at(b"f"))
        close(fd)
        if ours:
            raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "close", failing)

    assert digest(LARGE_CONTENT) == await read_to_end(reader)
    reader.close()


async def test_a_file_that_was_read_to_its_end_is_let_go(root, behind):
    """It was verified with its last piece, is closed behind that, and needs no way into a thread to be finished."""
    behind.plant(b"f", LARGE_CONTENT)
    asked = []

    def run(work, *arguments):
        asked.append(work.__name__)
        return succeed(work(*arguments))

    store = LocalStore(os.fsencode(root), run_in_thread=run)
    await store.open(SALT)
    reader = await store.open_reader(b"f")
    await read_all(reader)
    held = {os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()}
    finished = await reader.finish()
    reader.close()

    assert digest(LARGE_CONTENT) == finished
    assert os.path.realpath(behind.at(b"f")) not in held
    assert ["locate", "where", "open", "piece", "piece", "release"] == asked


@pytest.mark.parametrize("seconds", [9_223_372_036_854_775_000, -99_999_999_999])
async def test_times_beyond_reason_are_brought_into_range(full, seconds):
    """A file of the year 300,000 moves like any other: what is said of its time fits what can be sent."""
    behind = DirectoryBehind(full)
    store = await opened(full)
    behind.plant(b"f", b"x")
    subprocess.run(["touch", "-d", f"@{seconds}", behind.at(b"f")], check=True)

    [entry] = await listed(store.walk())
    [existing] = await store.describe([b"f"])
    read = await fetched(store, b"f")

    for time_ns in (entry.mtime_ns, existing.mtime_ns, read.version.mtime_ns, read.file.attributes.mtime_ns):
        struct.pack("!q", time_ns)
    assert await store.remove([Removal(b"f", read.version)]) == [None]


async def linked(root, behind, *paths, content=b"x"):
    """A store in which these are names of one file, and what was read under each."""
    behind.plant(paths[0], content)
    for path in paths[1:]:
        os.link(behind.at(paths[0]), behind.at(path))
    store = await opened(root)
    return store, [Removal(path, (await fetched(store, path)).version) for path in paths]


async def test_hard_links_do_not_make_each_other_look_changed(root, behind):
    """To remove one name of a file changes its other names, but not what was read under them."""
    store, removals = await linked(root, behind, b"a", b"b", b"c", b"d", b"e")
    reader = await store.open_reader(b"e")
    await read_all(reader)

    assert await store.remove(removals[:2]) == [None, None]
    assert await store.remove(removals[2:4]) == [None, None]
    assert await reader.finish() == digest(b"x")
    reader.close()
    assert await store.remove(removals[4:]) == [None]
    assert behind.everything() == []


async def test_a_hard_link_that_somebody_else_has_changed_is_kept(root, behind):
    """Only what our own removals have changed is forgiven."""
    store, removals = await linked(root, behind, b"a", b"b", b"c")
    await store.remove(removals[:1])
    with open(behind.at(b"b"), "r+b") as file:
        file.write(b"y")

    assert [type(answer) for answer in await store.remove(removals[1:])] == [SourceChanged] * 2
    assert behind.everything() == [b"b", b"c"]


async def test_a_write_in_the_middle_of_a_removal_is_not_forgiven(root, behind, monkeypatch):
    """A program that writes to another name while one is removed has changed the file."""
    store, removals = await linked(root, behind, b"a", b"b", content=b"old")
    original = os.unlink

    def unlink(name, **options):
        with open(behind.at(b"b"), "r+b") as file:
            file.write(b"new")
        original(name, **options)

    monkeypatch.setattr(os, "unlink", unlink)

    first, second = await store.remove(removals)
    assert first is None
    assert isinstance(second, SourceChanged)
    assert behind.content(b"b") == b"new"


async def test_few_hard_links_are_remembered(root, behind, monkeypatch):
    """What was forgotten has changed, and is read again; memory does not grow with the number of files."""
    monkeypatch.setattr(unlinked, "MAX_LINKED_FILES", 1)
    monkeypatch.setattr(unlinked, "MAX_NAMES_PER_FILE", 2)
    store, one = await linked(root, behind, b"1a", b"1b", b"1c", b"1d")
    _, two = await linked(root, behind, b"2a", b"2b")

    assert await store.remove(one[:2]) == [None, None]
    assert [type(answer) for answer in await store.remove(one[2:3])] == [SourceChanged]
    fresh = Removal(b"1c", (await fetched(store, b"1c")).version)
    assert await store.remove([fresh, two[0]]) == [None, None]
    assert [type(answer) for answer in await store.remove([one[3]])] == [SourceChanged]
    assert await store.remove(two[1:]) == [None]


async def test_a_read_error_names_the_file(root, behind, monkeypatch):
    """An error of the disk in the middle of a file is reported with its name and the system's reason."""
    behind.plant(b"f", LARGE_CONTENT)
    store = await opened(root)
    reader = await store.open_reader(b"f")
    original = os.pread

    def pread(fd, length, offset):
        if offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(fd, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    error = await failure(read_all(reader))

    assert type(error) is StorageError
    assert str(error) == "f: Input/output error"
    reader.close()


async def test_content_is_read_once_when_all_of_it_is_skipped(root, behind, monkeypatch):
    """What `block_digests` has read counts for `skip`, unless less is skipped."""
    behind.plant(b"f", LARGE_CONTENT)
    store = await opened(root)
    reader = await store.open_reader(b"f")
    read = []
    original = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: read.append(offset) or original(fd, length, offset))

    await reader.block_digests(2 * BLOCK_BYTES)
    await reader.skip(2 * BLOCK_BYTES)
    assert read == [0, BLOCK_BYTES]
    await reader.block_digests(7)
    await reader.skip(3)
    assert [2 * BLOCK_BYTES] * 2 == read[2:]
    assert await read_all(reader) == LARGE_CONTENT[-4:]
    assert digest(LARGE_CONTENT) == await reader.finish()
    reader.close()


async def test_one_piece_is_read_ahead(root, behind):
    """While the caller holds one piece the next is read, and not more."""
    behind.plant(b"f", LARGE_CONTENT)
    jobs = []

    def run(job, *arguments):
        jobs.append(job.__name__)
        return at_once(job, *arguments)

    store = await opened(root, run_in_thread=run)
    reader = await store.open_reader(b"f")
    jobs.clear()

    await reader.read()
    assert jobs == ["piece", "piece"]
    reader.close()


# Writing


async def test_a_partial_is_beside_the_final(root, behind):
    """A large file is received in a hidden file of the same directory, readable by nobody else."""
    store = await opened(root)
    writing = await store.open_writer(b"d/f", 3, REPLACE)
    await writing.write([b"12"])

    assert [b"d", b"d/" + PARTIAL] == behind.everything()
    assert os.stat(behind.at(b"d/" + PARTIAL)).st_mode & 0o777 == 0o600
    await writing.abandon(keep=False)


async def test_long_names_have_partials_too(root, behind):
    """Names of 255 bytes are received and listed like any other, small and large."""
    store = await opened(root)
    name = b"\xff" * 255
    writing = await store.open_writer(name, 3, REPLACE)
    await writing.write([b"123"])

    assert how(await writing.commit(digest(b"123"), None)) is Committed.CREATED
    assert how(await put(store, name, b"4")) is Committed.REPLACED
    assert [name] == behind.everything()


async def test_the_lock_keeps_other_processes_out(root, behind):
    """A partial that another process has locked is busy."""
    behind.plant_partial(b"f", b"12")
    store = await opened(root)
    with open(behind.at(PARTIAL), "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert isinstance(await failure(store.open_writer(b"f", 3, REPLACE)), Busy)
    writing = await store.open_writer(b"f", 3, REPLACE)
    await writing.abandon(keep=True)
    assert behind.partial(b"f") == b"12"


async def test_a_partial_committed_between_open_and_lock_is_not_touched(root, behind, monkeypatch):
    """Whoever opened a partial that became final in that moment starts a new one, and the final stays whole."""
    behind.plant_partial(b"f", b"final content")
    store = await opened(root)
    original = fcntl.flock

    def flock(fd, how):
        monkeypatch.setattr(fcntl, "flock", original)
        os.rename(behind.at(PARTIAL), behind.at(b"f"))
        original(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    writing = await store.open_writer(b"f", 3, REPLACE)
    await writing.write([b"new"])

    assert writing.have == 0
    assert behind.content(b"f") == b"final content"
    assert how(await writing.commit(digest(b"new"), None)) is Committed.REPLACED


async def test_a_partial_that_is_also_another_file_is_not_written(root, behind):
    """A partial with a second name is let go: writing to it would change the other file."""
    behind.plant(b"precious", b"precious")
    os.link(behind.at(b"precious"), behind.at(PARTIAL))
    store = await opened(root)

    writing = await store.open_writer(b"f", 3, REPLACE)
    await writing.write([b"new"])
    await writing.commit(digest(b"new"), None)

    assert (b"precious", b"new") == (behind.content(b"precious"), behind.content(b"f"))


async def test_a_partial_that_is_replaced_all_the_time_is_busy(root, behind, monkeypatch):
    """Trying again has an end."""
    store = await opened(root)
    monkeypatch.setattr(fcntl, "flock", lambda _fd, _how: os.unlink(behind.at(PARTIAL)))

    assert isinstance(await failure(store.open_writer(b"f", 3, REPLACE)), Busy)


async def test_a_partial_replaced_before_the_commit_does_not_become_final(root, behind):
    """Only the file that was verified is renamed."""
    store = await opened(root)
    writing = await store.open_writer(b"f", 3, REPLACE)
    await writing.write([b"123"])
    os.unlink(behind.at(PARTIAL))
    behind.plant_partial(b"f", b"evil")

    assert isinstance(await failure(writing.commit(digest(b"123"), None)), StorageError)
    assert behind.content(b"f") is None


async def test_discarding_spares_a_file_that_is_not_ours(root, behind):
    """A partial that somebody else has put there meanwhile is not removed."""
    store = await opened(root)
    writing = await store.open_writer(b"f", 3, REPLACE)
    os.unlink(behind.at(PARTIAL))
    behind.plant_partial(b"f", b"other")

    await writing.abandon(keep=False)

    assert behind.partial(b"f") == b"other"


async def test_writes_are_done_in_order_though_nobody_waits(root, behind):
    """Several calls may be under way; their bytes do not change places."""
    store = await opened(root, run_in_thread=deferToThread)
    writing = await store.open_writer(b"f", 3000, REPLACE)
    content = b"".join(b"%03d" % number for number in range(1000))

    calls = [writing.write([content[start : start + 3]]) for start in range(0, 3000, 3)]
    over = await failure(writing.write([b"!"]))
    committed = writing.commit(digest(content), None)
    for call in calls:
        await call

    assert isinstance(over, ProtocolError)
    assert how(await committed) is Committed.CREATED
    assert behind.content(b"f") == content


async def test_cancelling_does_not_stop_what_a_thread_does(root, behind):
    """A write that nobody waits for any more goes to its end; the file is not closed under it."""
    go, jobs = threading.Event(), []

    def run(job, *arguments):
        def late():
            go.wait(10)
            return job(*arguments)

        jobs.append(job)
        return deferToThread(late)

    store = await opened(root)
    writing = await store.open_writer(b"f", 3, REPLACE)
    writing._run_in_thread = run
    write = writing.write([b"123"])
    write.addErrback(lambda _: None)
    write.cancel()
    abandoned = writing.abandon(keep=True)
    go.set()
    await abandoned

    assert behind.partial(b"f") == b"123"


async def test_what_was_opened_for_nobody_is_closed(root, behind):
    """A reader or writer whose opening was cancelled is released when the thread comes back with it."""
    behind.plant(b"g", b"content")
    behind.plant_partial(b"f", b"12")
    late = []

    def run(job, *arguments):
        later = Deferred()
        late.append(lambda: at_once(job, *arguments).chainDeferred(later))
        return later

    store = await opened(root)
    before = os.listdir("/proc/self/fd")
    store._run_in_thread = run
    for opening in (store.open_writer(b"f", 3, REPLACE), store.open_reader(b"g")):
        opening.addErrback(lambda _: None)
        opening.cancel()
    while late:
        late.pop()()
    store._run_in_thread = at_once

    assert before == os.listdir("/proc/self/fd")
    writing = await store.open_writer(b"f", 3, REPLACE)
    assert writing.have == 2
    await store.close()


async def test_many_pieces_and_short_writes(root, behind, monkeypatch):
    """A system call that writes less than it was given is repeated."""
    original_write, original_pwrite = os.write, os.pwrite
    monkeypatch.setattr(os, "write", lambda fd, data: original_write(fd, bytes(data)[:3]))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: original_pwrite(fd, bytes(data)[:1000], offset))
    store = await opened(root)
    writing = await store.open_writer(b"large", 5000, REPLACE)
    await writing.write([b"x" * 2500, b"y" * 2500])
    await writing.commit(digest(b"x" * 2500 + b"y" * 2500), None)

    assert how(await put(store, b"small", b"1234567")) is Committed.CREATED
    assert behind.content(b"small") == b"1234567"
    assert behind.content(b"large") == b"x" * 2500 + b"y" * 2500


async def test_too_much_content_is_not_small(root):
    """More than a box holds is refused."""
    store = await opened(root)

    assert isinstance(await put(store, b"f", b"x" * (MAX_SMALL_BYTES + 1)), ProtocolError)


async def test_modes_follow_the_umask_when_attributes_are_not_carried(root, behind):
    """Without attributes a file gets what any new file gets."""
    store = await opened(root)
    umask = syscalls.read_umask()
    await put(store, b"f", b"")

    assert os.stat(behind.at(b"f")).st_mode & 0o7777 == 0o666 & ~umask


async def test_a_directory_removed_meanwhile_is_made_again(root, behind, monkeypatch):
    """Somebody who prunes empty directories does not make a write fail."""
    store = await opened(root)
    behind.plant(b"d/x", b"")
    os.unlink(behind.at(b"d/x"))
    original = os.open
    tries = []

    def open_(path, flags, *arguments, **options):
        if flags & os.O_CREAT and not tries:
            tries.append(path)
            os.rmdir(behind.at(b"d"))
        return original(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", open_)

    assert how(await put(store, b"d/f", b"x")) is Committed.CREATED
    assert tries


# Full file systems


@pytest.fixture
def full(tmp_path):
    """A file system of 256 KiB."""
    path = os.fsencode(tmp_path / "tiny")
    os.mkdir(path)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", path, b"tmpfs", 0, b"size=256k"):
        pytest.fail(f"this test needs the right to mount a tmpfs: {os.strerror(ctypes.get_errno())}")
    yield path
    assert libc.umount2(path, 0) == 0


async def test_a_full_file_system(full, monkeypatch):
    """Files that do not fit fail with `NoSpace` and leave nothing, those that fit arrive.

    Of one that was begun because nobody could know, a partial is kept.
    """
    behind = DirectoryBehind(full)
    store = await opened(full)
    content = b"x" * 60_000

    answers = await store.put_small([small_file(b"%d" % number, content) for number in range(6)], REPLACE)
    assert [Committed.CREATED] * 4 == list(map(how, answers[:4]))
    assert [NoSpace] * 2 == [type(answer) for answer in answers[4:]]
    assert [b"0", b"1", b"2", b"3"] == behind.everything()

    assert isinstance(await failure(store.open_writer(b"large", 1 << 20, REPLACE)), NoSpace)
    assert behind.partial(b"large") is None

    monkeypatch.setattr(Headroom, "free", lambda *_: None)
    writing = await store.open_writer(b"large", 1 << 20, REPLACE)
    assert isinstance(await failure(writing.write([b"y" * (1 << 20)])), NoSpace)
    assert isinstance(await failure(writing.write([b""])), NoSpace)
    assert isinstance(await failure(writing.commit(digest(b""), None)), NoSpace)
    assert behind.partial(b"large")


async def test_an_unmounted_root_is_noticed(full):
    """The mount point below an unmounted file system is not the root: nothing is written to it."""
    store = await opened(full)
    libc = ctypes.CDLL(None)
    libc.umount2(full, 0)
    try:
        error = await failure(store.put_small([small_file(b"f", b"x")], REPLACE))
        assert "mounted" in str(error)
        assert os.listdir(full) == []
    finally:
        libc.mount(b"tmpfs", full, b"tmpfs", 0, b"size=256k")


# The order of the commit


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the system, in order: fsync and syncfs, renames, answers."""
    recorded = []

    def shown(fd):
        return os.readlink(f"/proc/self/fd/{fd}").split("/root", 1)[1]

    # Those above the root are in test_ancestors.py.
    monkeypatch.setattr(ancestors, "fsync_directory", lambda _fd: None)
    fsync, rename = os.fsync, commit.rename_noreplace
    monkeypatch.setattr(os, "fsync", lambda fd: recorded.append(("fsync", shown(fd))) or fsync(fd))
    syncfs = lambda fd: recorded.append(("syncfs", shown(fd))) or syscalls.syncfs(fd)  # noqa: E731
    monkeypatch.setattr(commit, "syncfs", syncfs)
    renaming = lambda fd, old, new: recorded.append(("rename", new.decode())) or rename(fd, old, new)  # noqa: E731
    monkeypatch.setattr(commit, "rename_noreplace", renaming)
    return recorded


async def test_order_for_few_small_files(root, calls):
    """Content is durable before the rename, the directories after it, from the deepest to the root."""
    store = await opened(root)

    await store.put_small([small_file(b"a/b/f", b"x"), small_file(b"g", b"x")], REPLACE)

    kinds = [kind for kind, _ in calls]
    assert kinds == ["fsync", "fsync", "rename", "rename", "fsync", "fsync", "fsync"]
    assert all(".part" in what for _, what in calls[:2])
    assert [("fsync", "/a/b"), ("fsync", "/a"), ("fsync", "")] == calls[4:]


async def test_order_for_many_small_files(root, calls):
    """Many files are made durable together, before the first of them is renamed."""
    store = await opened(root)

    await store.put_small([small_file(b"d/%d" % number, b"x") for number in range(20)], REPLACE)

    assert [("syncfs", "")] == calls[:1]
    assert {"rename"} == {kind for kind, _ in calls[1:21]}
    assert [("fsync", "/d"), ("fsync", "")] == calls[21:]


async def test_order_for_small_files_in_many_directories(root, calls):
    """Many directories are made durable together too, behind the last rename."""
    store = await opened(root)

    await store.put_small([small_file(b"%d/f" % number, b"x") for number in range(20)], REPLACE)

    assert [("syncfs", "")] == calls[:1] == calls[21:]
    assert {"rename"} == {kind for kind, _ in calls[1:21]}


async def test_a_failed_sync_of_many_directories_leaves_all_in_doubt(root, behind, monkeypatch):
    """What has its name, but perhaps not for ever, does not count as committed."""
    tried = []

    def syncfs(fd):
        tried.append(fd)
        if len(tried) == 2:
            failing([])()

    monkeypatch.setattr(commit, "syncfs", syncfs)
    store = await opened(root)

    answers = await store.put_small([small_file(b"%d/f" % number, b"x") for number in range(20)], REPLACE)

    assert [StorageError] * 20 == [type(answer) for answer in answers]


async def test_a_failed_sync_is_not_asked_about_directories(root, calls, monkeypatch):
    """A descriptor tells of a failed write once: what else is in the group gets an fsync for each directory."""

    def syncfs(fd):
        calls.append(("syncfs", ""))
        if calls.count(("syncfs", "")) == 1:
            failing([])()

    monkeypatch.setattr(commit, "syncfs", syncfs)
    store = await opened(root)
    prepared = []
    for names in ([b"%d" % number for number in range(20)], [b"a/b/c/f"]):
        files = [small_file(name, b"x") for name in names]
        batch = small.write_batch(store._location, files, REPLACE, SALT, CommitHooks(), Headroom(at_once), None)
        prepared += batch.prepared()
    calls.clear()

    *failed, kept = commit.commit_group(prepared, CommitHooks())

    assert {StorageError} == {type(outcome) for outcome in failed}
    assert Committed.CREATED is how(kept)
    assert [("syncfs", ""), ("rename", "f"), *(("fsync", each) for each in ("/a/b/c", "/a/b", "/a", ""))] == calls


async def test_order_without_syncfs(root, calls, monkeypatch):
    """Where syncfs cannot be trusted, each file gets an fsync."""
    monkeypatch.setattr(small, "syncs_as_a_whole", lambda _fd: False)
    store = await opened(root)

    await store.put_small([small_file(b"%d" % number, b"x") for number in range(20)], REPLACE)

    assert ["fsync"] * 20 + ["rename"] * 20 + ["fsync"] == [kind for kind, _ in calls]


async def test_order_for_a_large_file(root, calls):
    """The same for a large file."""
    store = await opened(root)
    writing = await store.open_writer(b"d/f", 1, REPLACE)
    await writing.write([b"x"])
    await writing.commit(digest(b"x"), None)

    assert [("fsync", "/d/" + PARTIAL.decode()), ("rename", "f"), ("fsync", "/d"), ("fsync", "")] == calls


async def test_what_is_there_already_is_made_durable(root, behind, calls):
    """A final that somebody else may just have written counts only after it and its directories are durable."""
    behind.plant(b"d/f", b"x")
    store = await opened(root)

    assert await store.settle([Expected(b"d/f", 1, digest(b"x"))]) == [True]
    assert [("fsync", "/d/f"), ("fsync", "/d"), ("fsync", "")] == calls
    calls.clear()
    assert await store.match_final(b"d/f", 1, 0, [digest(b"x")]) == 1
    assert [("fsync", "/d/f"), ("fsync", "/d"), ("fsync", "")] == calls
    calls.clear()
    assert await store.settle([Expected(b"d/f", 1, digest(b"y"))]) == [False]
    assert calls == []


def failing(tried):
    """A system call that fails."""

    def fail(*_arguments):
        tried.append(1)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    return fail


@pytest.mark.parametrize("count", [1, 20])
async def test_a_failed_sync_means_no_rename(root, behind, monkeypatch, count):
    """When content cannot be made durable no file becomes final, no partial stays, and nothing is tried twice."""
    tried = []
    monkeypatch.setattr(os, "fsync", failing(tried))
    monkeypatch.setattr(commit, "syncfs", failing(tried))
    store = await opened(root)

    answers = await store.put_small([small_file(b"%d" % number, b"x") for number in range(count)], REPLACE)

    assert [StorageError] * count == [type(answer) for answer in answers]
    assert behind.everything() == []
    assert len(tried) == 1


async def test_a_failed_sync_of_a_large_file_discards_it(root, behind, monkeypatch):
    """After a failed fsync what the kernel says about the pages proves nothing, so they are not kept."""
    store = await opened(root)
    writing = await store.open_writer(b"f", 1, REPLACE)
    await writing.write([b"x"])
    monkeypatch.setattr(os, "fsync", failing([]))

    assert isinstance(await failure(writing.commit(digest(b"x"), None)), StorageError)
    assert behind.everything() == []


async def test_what_was_found_to_be_there_looks_as_if_it_had_arrived_now(root, behind):
    """Who has read such a file before, to move it away, does not remove it any more: another source may be gone for it.

    Two commands that move in opposite directions would lose the file otherwise.
    """
    behind.plant(b"small", b"x")
    behind.plant(b"large", b"y" * BLOCK_BYTES)
    store = await opened(root)
    versions = [(await fetched(store, b"small")).version]
    reader = await store.open_reader(b"large")
    versions.append(reader.version)
    reader.close()

    assert await store.settle([Expected(b"small", 1, digest(b"x"))]) == [True]
    assert await store.match_final(b"large", BLOCK_BYTES, 0, block_digests(b"y" * BLOCK_BYTES)) == BLOCK_BYTES

    answers = await store.remove([Removal(b"small", versions[0]), Removal(b"large", versions[1])])
    assert [type(answer) for answer in answers] == [SourceChanged, SourceChanged]
    assert (behind.content(b"small"), behind.content(b"large")) == (b"x", b"y" * BLOCK_BYTES)


async def test_what_may_not_be_touched_is_not_vouched_for(root, behind, monkeypatch):
    """A file of somebody else that cannot be made to look new is sent again instead of being relied upon."""
    behind.plant(b"f", b"x")

    def fchmod(_fd, _mode):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", fchmod)
    store = await opened(root)

    assert await store.settle([Expected(b"f", 1, digest(b"x"))]) == [False]
    assert await store.match_final(b"f", 1, 0, [digest(b"x")]) == 0


@pytest.mark.parametrize("way", ["settle", "match_final"])
async def test_what_is_about_to_be_replaced_is_not_said_to_be_there(root, behind, monkeypatch, way):
    """Who finds his file there while it was looked at for the last time before its replacement is told the truth."""
    behind.plant(b"f", b"x")
    store = await opened(root)
    other = await opened(root, committer=store._committer)
    look, answers = commit.refuse_obstacle, []

    def rely():
        asked = (
            other.settle([Expected(b"f", 1, digest(b"x"))])
            if way == "settle"
            else other.match_final(b"f", 1, 0, [digest(b"x")])
        )
        asked.addBoth(answers.append)

    relying, looks = threading.Thread(target=rely), []

    def look_and_wait(*arguments):
        status = look(*arguments)
        looks.append(status)
        if len(looks) == 2:
            relying.start()
            relying.join(0.2)
        return status

    monkeypatch.setattr(commit, "refuse_obstacle", look_and_wait)

    assert how(await put(store, b"f", b"new")) is Committed.REPLACED
    relying.join()
    assert answers in ([[False]], [0])


def test_a_stamp_of_the_present_tick_is_renewed_a_tick_later(root, behind, monkeypatch):
    """What gets the same change time again gets another one when that is sure to differ."""
    behind.plant(b"f", b"x")
    slept, changes = [], []
    change = os.fchmod
    monkeypatch.setattr(os, "fchmod", lambda fd, mode: changes.append(change(fd, mode) if slept else None))
    with open(behind.at(b"f"), "rb") as file:
        before = os.fstat(file.fileno())
        clock = Clock(now_ns=lambda: before.st_ctime_ns + 5_000_000, sleep=slept.append)

        finals._renew(file.fileno(), before, 0o600, clock)

    assert (slept, len(changes)) == ([pytest.approx(0.015)], 2)


async def test_a_partial_that_could_not_be_made_durable_is_not_kept(root, behind, monkeypatch):
    """After a failed fsync a second one may succeed though the data is gone: nobody may go on with this partial."""
    store = await opened(root)
    writing = await store.open_writer(b"f", 2, REPLACE)
    await writing.write([b"x"])
    monkeypatch.setattr(os, "fsync", failing([]))

    assert isinstance(await failure(writing.abandon(keep=True)), StorageError)
    assert behind.everything() == []


async def test_without_an_anchor_each_file_is_synced(root, behind, monkeypatch):
    """Where no descriptor is left to speak for a batch, its files are made durable one by one."""
    store = await opened(root)

    def no_more(_fd):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(small, "syncs_as_a_whole", no_more)
    monkeypatch.setattr(commit, "syncfs", failing([]))

    answers = await store.put_small([small_file(b"%d" % number, b"x") for number in range(20)], REPLACE)

    assert list(map(how, answers)) == [Committed.CREATED] * 20


async def test_a_failed_sync_of_the_directory_is_no_success(root, behind, monkeypatch):
    """A file that got its name, but not durably, is not reported as committed."""
    store = await opened(root)
    original = os.fsync

    def fsync(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(fd)

    monkeypatch.setattr(os, "fsync", fsync)

    assert isinstance(await put(store, b"f", b"x"), StorageError)
    assert behind.content(b"f") == b"x"
    assert isinstance((await store.settle([Expected(b"f", 1, digest(b"x"))]))[0], StorageError)
    assert isinstance(await failure(store.match_final(b"f", 1, 0, [digest(b"x")])), StorageError)


async def test_a_file_system_that_cannot_sync_directories(root, monkeypatch):
    """Where fsync of a directory is not supported, files are committed all the same."""
    store = await opened(root)
    original = os.fsync

    def fsync(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        original(fd)

    monkeypatch.setattr(os, "fsync", fsync)

    assert how(await put(store, b"f", b"x")) is Committed.CREATED


async def test_a_directory_renamed_during_the_commit(root, behind):
    """A file whose directory was exchanged for another is not committed into either."""
    waiting = []

    def run(job, *arguments):
        if job is not commit.commit_group:
            return at_once(job, *arguments)
        later = Deferred()
        waiting.append(lambda: at_once(job, *arguments).chainDeferred(later))
        return later

    store = await opened(root, run_in_thread=run)
    answer = store.put_small([small_file(b"d/f", b"x"), small_file(b"e/f", b"x")], REPLACE)
    os.rename(behind.at(b"d"), behind.at(b"away"))
    os.mkdir(behind.at(b"d"))
    waiting.pop()()
    first, second = await answer

    assert isinstance(first, StorageError)
    assert how(second) is Committed.CREATED
    assert behind.content(b"d/f") is None
    assert behind.content(b"away/f") is None


async def test_one_group_at_a_time(root):
    """What comes while a group is being committed makes the next group, together."""
    groups = []

    def run(job, *arguments):
        if job is not commit.commit_group:
            return at_once(job, *arguments)
        later = Deferred()
        groups.append((len(arguments[0]), lambda: at_once(job, *arguments).chainDeferred(later)))
        return later

    committer = Committer(run)
    stores = [await opened(root, run_in_thread=run, committer=committer) for _ in range(2)]
    answers = [
        store.put_small([small_file(b"%d-%d" % (batch, number), b"x") for number in range(9)], REPLACE)
        for batch, store in enumerate(stores * 3)
    ]
    assert [count for count, _ in groups] == [9]
    groups[0][1]()
    assert [count for count, _ in groups] == [9, 45]
    groups[1][1]()
    for answer in answers:
        assert [Committed.CREATED] * 9 == list(map(how, await answer))


def test_the_oldest_anchor_speaks_for_a_group(root, monkeypatch):
    """One syncfs for each device, on the descriptor that was opened before all the files were written."""
    synced = []
    monkeypatch.setattr(commit, "syncfs", synced.append)
    anchors = [Anchor(100, 1), Anchor(101, 1), Anchor(102, 2)]

    assert commit._sync_devices(reversed(anchors), CommitHooks()) == {}
    assert synced == [100, 102]


async def test_a_group_that_fails_as_a_whole_tells_everybody(root):
    """Nobody waits for ever when the commit itself breaks."""

    def run(job, *arguments):
        if job is commit.commit_group:
            return maybeDeferred(lambda: 1 / 0)
        return at_once(job, *arguments)

    store = await opened(root, run_in_thread=run)
    with pytest.raises(ZeroDivisionError):
        await put(store, b"f", b"x")


# System calls


def test_rename_noreplace(root, behind):
    """A name that is taken, by whatever it is, is not replaced."""
    behind.plant(b"a", b"a")
    os.symlink(b"nowhere", behind.at(b"link"))
    fd = os.open(root, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            syscalls.rename_noreplace(fd, b"a", b"link")
        with pytest.raises(FileNotFoundError):
            syscalls.rename_noreplace(fd, b"missing", b"b")
        syscalls.rename_noreplace(fd, b"a", b"b")
    finally:
        os.close(fd)
    assert behind.content(b"b") == b"a"


@pytest.mark.parametrize("links", [True, False])
def test_rename_noreplace_without_support(root, behind, monkeypatch, links):
    """A file system without the flag, or even without hard links, keeps the promise as well as it can."""
    monkeypatch.setattr(syscalls, "_renameat2", None)
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    behind.plant(b"a", b"a")
    behind.plant(b"taken", b"t")
    fd = os.open(root, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            syscalls.rename_noreplace(fd, b"a", b"taken")
        syscalls.rename_noreplace(fd, b"a", b"b")
    finally:
        os.close(fd)
    assert [b"b", b"taken"] == behind.everything()


def _no_links(*_arguments, **_options):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_syncfs_refuses_a_closed_descriptor():
    """Errors of libc come as `OSError`."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        syscalls.syncfs(-1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        syscalls.syncs_as_a_whole(-1)


def test_a_handle_is_closed_by_its_last_user(root):
    """The descriptor stays open while somebody uses it, and nobody gets it afterwards."""
    fd = os.open(root, os.O_RDONLY)
    handle = Handle(fd)
    with handle as used:
        handle.close()
        handle.close()
        assert fd == used
        os.fstat(fd)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    with pytest.raises(StorageError), handle:
        pass


async def opened_without_closing(root):
    """A store in whose threads no descriptor is ever closed, and the arguments of those that are to be."""
    asked = []

    def later(job, *arguments):
        if job is release:
            asked.append(arguments)
            return Deferred()
        return at_once(job, *arguments)

    return await opened(root, run_in_thread=later), asked


async def test_a_large_file_that_was_removed_is_let_go_of_in_a_thread(root):
    """The last close frees all blocks of the file, which may take seconds: the reactor does not wait for it."""
    DirectoryBehind(root).plant(b"f", b"x")
    store, asked = await opened_without_closing(root)
    (await store.open_reader(b"f")).close()
    [(fd,)] = asked

    os.fstat(fd)
    os.close(fd)


@pytest.mark.parametrize("how", ["another digest", "not kept"])
async def test_a_partial_that_was_discarded_is_let_go_of_in_a_thread(root, how):
    """Its blocks are freed by the last close, too; its name is free at once."""
    store, asked = await opened_without_closing(root)
    writer = await store.open_writer(b"f", 3, OnConflict.REPLACE)
    await writer.write([b"abc"])
    if how == "not kept":
        await writer.abandon(keep=False)
    else:
        with pytest.raises(VerifyFailed):
            await writer.commit(bytes(32), None)
    [(fd,)] = asked
    again = await store.open_writer(b"f", 3, OnConflict.REPLACE)

    assert 0 == os.fstat(fd).st_nlink == again.have
    os.close(fd)
    await again.write([b"abc"])
    await again.abandon(keep=True)
    assert 1 == len(asked)


async def test_what_no_thread_can_close_is_closed_all_the_same(root):
    """A machine that has no thread left does not make us keep descriptors."""
    DirectoryBehind(root).plant(b"f", b"x")

    def refuses(job, *arguments):
        if job is release:
            raise RuntimeError("can't start new thread")
        return at_once(job, *arguments)

    store = await opened(root, run_in_thread=refuses)
    before = len(os.listdir("/proc/self/fd"))
    reader = await store.open_reader(b"f")
    reader.close()

    assert before == len(os.listdir("/proc/self/fd"))


# Rights: dropped for a moment in a thread of their own, because root may do everything


def as_nobody(job, *arguments):
    """Run in a thread that has the rights of nobody: setresuid(2) of one thread alone, past libc."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getuid():
        return at_once(job, *arguments)
    setresuid = {"x86_64": 117, "aarch64": 147}[os.uname().machine]
    result = []

    def run():
        assert libc.syscall(setresuid, -1, 65534, -1) == 0
        at_once(job, *arguments).addBoth(result.append)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return maybeDeferred(result.pop)


@pytest.fixture
def open_root():
    """An empty directory that nobody may enter and read, as every one above it, which pytest's own are not."""
    path = os.fsencode(tempfile.mkdtemp(prefix="realize-open-"))
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


async def test_files_that_may_not_be_read(open_root):
    """A file without permission fails by itself, with the system's reason."""
    behind = DirectoryBehind(open_root)
    behind.plant(b"closed", b"x")
    behind.plant(b"open", b"x")
    os.chmod(behind.at(b"closed"), 0)
    store = await opened(open_root, run_in_thread=as_nobody)

    closed, readable = await store.read_small([b"closed", b"open"])

    assert type(closed) is StorageError
    assert str(closed) == "closed: cannot be read: Permission denied"
    assert isinstance(readable, Fetched)


async def test_a_directory_that_may_not_be_written(open_root):
    """A directory without permission refuses files, with the system's reason."""
    store = await opened(open_root, run_in_thread=as_nobody)

    answer = await put(store, b"f", b"x")

    assert type(answer) is StorageError
    assert str(answer) == "f: cannot be created: Permission denied"


async def test_what_may_not_be_done_is_named(open_root):
    """To make a directory, to begin a large file, to compare, to list and to try: each says what it was."""
    behind = DirectoryBehind(open_root)
    behind.plant(b"f", b"x")
    behind.plant(b"closed/f", b"x")
    store = await opened(open_root, run_in_thread=as_nobody)
    os.chmod(behind.at(b"closed"), 0)
    os.chmod(behind.at(b"f"), 0)

    [made] = await store.make_directories([Directory(b"new", 0o755)])
    [settled] = await store.settle([Expected(b"f", 1, b"\0" * 32)])
    errors = [made, settled]
    for work in (
        store.open_writer(b"large", 1, OnConflict.FAIL),
        store.match_final(b"f", 1, 0, [b"\0" * 32]),
        store.open_reader(b"closed/f"),
        store.try_write(),
    ):
        with pytest.raises(StorageError) as caught:
            await work
        errors.append(caught.value)

    assert [
        "new: cannot be created: Permission denied",
        "f: cannot be read: Permission denied",
        "large: cannot be created: Permission denied",
        "f: cannot be read: Permission denied",
        "closed: cannot be opened: Permission denied",
        f"{os.fsdecode(open_root)}: cannot be written to: Permission denied",
    ] == list(map(str, errors))


async def test_a_file_that_may_not_be_removed_says_so(open_root):
    """That is a matter of the directory it is in."""
    behind = DirectoryBehind(open_root)
    behind.plant(b"f", b"x")
    store = await opened(open_root, run_in_thread=as_nobody)
    [fetched] = await store.read_small([b"f"])

    [removed] = await store.remove([Removal(b"f", fetched.version)])

    assert "f: cannot be removed: Permission denied" == str(removed)


FORETOLD = {
    "closed": (0o755, Use.READ, "f: cannot be read: Permission denied"),
    "closed to be moved": (0o777, Use.MOVE, "f: cannot be read: Permission denied"),
    "f": (0o755, Use.MOVE, "f: cannot be removed: Permission denied"),
    "sticky": (0o1777, Use.MOVE, "f: cannot be removed: Operation not permitted"),
    "new": (0o755, Use.PUT, "g: cannot be created: Permission denied"),
    "new below": (0o755, Use.PUT, "d: cannot be created: Permission denied"),
    "replaced": (0o1777, Use.PUT, "f: cannot be put in its place: Operation not permitted"),
    "fine": (0o777, Use.PUT, None),
    "closed to be compared": (0o777, Use.COMPARE, "f: cannot be read: Permission denied"),
}


@pytest.mark.parametrize("what", FORETOLD)
async def test_what_is_foretold_is_what_a_try_fails_with(open_root, what):
    """In the same words; and nothing is touched by asking."""
    mode, use, expected = FORETOLD[what]
    behind = DirectoryBehind(open_root)
    behind.plant(b"f", b"x")
    if what.startswith("closed"):
        os.chmod(behind.at(b"f"), 0)
    os.chmod(open_root, mode)
    path = {"new": b"g", "new below": b"d/g"}.get(what, b"f")
    store = await opened(open_root, run_in_thread=as_nobody)

    before = os.stat(open_root).st_ctime_ns, sorted(os.listdir(open_root))
    [foretold] = await store.forbidden([path], use)
    after = os.stat(open_root).st_ctime_ns, sorted(os.listdir(open_root))
    if use is Use.PUT:
        outcome = await put(store, path, b"y")
    elif use is Use.COMPARE:
        [outcome] = await store.settle([Expected(path, 1, digest(b"x"), None)])
    else:
        [outcome] = await store.read_small([path])
        if use is Use.MOVE and isinstance(outcome, Fetched):
            [outcome] = await store.remove([Removal(path, outcome.version)])

    assert before == after
    assert expected == (None if foretold is None else str(foretold))
    assert expected in {None, str(outcome)}
    assert (expected is None) == (not isinstance(outcome, StorageError))


async def test_a_file_system_that_is_mounted_read_only_forbids_by_that_name(open_root, monkeypatch):
    """Its permissions may look fine."""
    store = await opened(open_root, run_in_thread=at_once)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))

    [foretold] = await store.forbidden([b"f"], Use.PUT)

    assert "f: cannot be created: Read-only file system" == str(foretold)


async def test_what_peers_are_told_does_not_say_where_a_directory_is(open_root):
    """The name under which it is served stands for it."""
    store = LocalStore(
        open_root, root_identity=root_identity(open_root), shown=b"inbox", run_in_thread=as_nobody, clock=Clock()
    )
    os.chmod(open_root, 0)

    with pytest.raises(StorageError) as closed:
        await store.open(b"salt")
    os.rmdir(open_root)
    with pytest.raises(StorageError) as gone:
        await store.open(b"salt")
    os.mkdir(open_root)

    assert "inbox: cannot be opened: Permission denied" == str(closed.value)
    assert "inbox: No such file or directory" == str(gone.value)


async def test_directories_that_may_not_be_read_are_listed_so(open_root):
    """A directory without permission is an entry that says why, and the listing goes on."""
    behind = DirectoryBehind(open_root)
    behind.plant(b"a/f", b"")
    behind.plant(b"b/f", b"")
    os.chmod(behind.at(b"a"), 0)
    store = await opened(open_root, run_in_thread=as_nobody)

    a, b = await listed_files(store.walk())

    assert Entry(b"a", Kind.UNREADABLE, note="cannot be listed: Permission denied") == a
    assert (b"b/f", Kind.FILE) == (b.path, b.kind)


# Leftovers


async def test_no_small_partial_is_left(root, behind):
    """Whatever happens to the files of a batch, no partial of theirs stays."""
    behind.plant(b"d/f", b"")
    behind.plant(b"e", b"old")
    store = await opened(root)
    files = [small_file(b"d", b"x"), small_file(b"new", b"x"), evolve(small_file(b"v", b"x"), digest=b"?" * 32)]

    answers = await store.put_small([*files, small_file(b"e", b"x")], OnConflict.FAIL)

    assert [Conflict, Stored, VerifyFailed, Conflict] == [type(answer) for answer in answers]
    assert not [path for path in behind.everything() if is_partial(os.path.basename(path))]


async def test_errors_are_ours(root):
    """Every failure that a store reports is a `RealizeError`."""
    store = await opened(root)

    assert [BadName] * 8 == [type(answer) for answer in await every_method(store, b"a" * 256)]


async def test_comparing_needs_as_many_digests_as_blocks(root, behind):
    """The digests of a comparison must cover its length."""
    behind.plant_partial(b"f", LARGE_CONTENT)
    store = await opened(root)
    writing = await store.open_writer(b"f", len(LARGE_CONTENT), REPLACE)

    assert isinstance(await failure(writing.match(block_digests(LARGE_CONTENT)[:2], len(LARGE_CONTENT))), ProtocolError)
    assert await writing.match(block_digests(LARGE_CONTENT), len(LARGE_CONTENT)) == len(LARGE_CONTENT)
    await writing.abandon(keep=True)


@pytest.mark.parametrize("mode", [0o1400, 0o1500])
async def test_an_abandoned_partial_that_may_not_be_written_is_taken_up(open_root, mode):
    """A commit that was cut short has given the partial its final mode; the next run goes on with it all the same."""
    behind = DirectoryBehind(open_root)
    behind.plant_partial(b"f", b"xy")
    partial = behind.at(PARTIAL)
    os.chmod(partial, mode)
    os.chmod(open_root, 0o777)
    if not os.getuid():
        os.chown(partial, 65534, 65534)
    store = await opened(open_root, run_in_thread=as_nobody)

    writing = await store.open_writer(b"f", 3, REPLACE)

    assert writing.have == 2
    assert isinstance(await failure(store.open_writer(b"f", 3, REPLACE)), Busy)
    assert await writing.match([digest(b"xy")], 2) == 2
    await writing.write([b"z"])
    os.chmod(partial, mode)
    assert isinstance(await failure(store.open_writer(b"f", 3, REPLACE)), Busy)
    assert how(await writing.commit(digest(b"xyz"), None)) is Committed.CREATED


async def test_a_partial_of_somebody_else_is_not_discarded_with_ours(root, behind):
    """What took the place of our partial is left alone when ours cannot be renamed."""
    store = await opened(root, run_in_thread=at_once)
    original = store._committer.commit

    def swap(files, *owner):
        behind.plant_partial(b"f~", b"")
        os.rename(behind.at(partial_name(b"f~")), behind.at(PARTIAL))
        return original(files, *owner)

    store._committer.commit = swap

    assert isinstance(await put(store, b"f", b"x"), StorageError)
    assert behind.everything() == [PARTIAL]


OLD = random_bytes(3 * BLOCK_BYTES)
NEW = OLD[:BLOCK_BYTES] + b"inserted" + OLD[BLOCK_BYTES:]


async def half_done(store, behind):
    """A writer that knows what is wanted of a new version, and was not given it yet; and what that is."""
    behind.plant(b"f", OLD)
    await store.describe([b"f"])
    writer = await store.open_writer(b"f", len(NEW), REPLACE)
    chunks = deltas.cut(NEW)
    wanted = await writer.offer(chunks)
    content, position = b"", 0
    for (length, _), want in zip(chunks, wanted, strict=True):
        content += NEW[position : position + length] if want else b""
        position += length
    assert 0 < len(content) < 100_000
    return writer, content


@pytest.mark.parametrize("how", ["changes", "shrinks"])
async def test_an_old_version_that_is_not_left_alone(root, behind, how):
    """What is copied from a file that somebody writes to meanwhile is not committed."""
    store = await opened(root)
    writer, content = await half_done(store, behind)

    with (Path(os.fsdecode(root)) / "f").open("r+b") as file:
        if how == "changes":
            file.seek(2 * BLOCK_BYTES)
            file.write(b"changed")
        else:
            file.truncate(2 * BLOCK_BYTES)
    error = await failure(write_and_commit(writer, content))
    await writer.abandon(keep=True)

    assert isinstance(error, VerifyFailed)
    assert NEW != behind.content(b"f")
    assert [] == open_files(root)
    await store.close()


async def test_an_old_version_that_is_only_unlinked_is_of_use_to_the_end(root, behind):
    """What was open stays readable: the new version comes together, and replaces nothing."""
    store = await opened(root)
    writer, content = await half_done(store, behind)

    os.unlink(os.path.join(root, b"f"))

    assert Committed.CREATED is how(await write_and_commit(writer, content))
    assert NEW == behind.content(b"f")
    await store.close()


async def write_and_commit(writer, content):
    """Give the writer the rest, and have it committed."""
    await writer.write([content])
    return await writer.commit(digest(NEW), None)


def open_files(folder):
    """The files below a folder that this process has open."""
    names = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return [name for name in names if name.startswith(f"{os.fsdecode(folder)}/")]


async def test_a_writer_that_looks_for_chunks_lets_go_of_everything(root, behind):
    """The old version is closed with the writer, however that ends."""
    store = await opened(root)
    writer, content = await half_done(store, behind)

    before = open_files(root)
    await writer.write([content[:10]])
    await writer.abandon(keep=True)

    assert 2 == len(before)
    assert [] == open_files(root)
    await store.close()


async def test_what_is_offered_does_not_run_far_ahead_of_the_content(root, behind, monkeypatch):
    """Who offers more and more of a file without end, and sends nothing, is refused before our memory is full."""
    monkeypatch.setattr(Headroom, "free", lambda *_: None)
    store = await opened(root)
    behind.plant(b"f", OLD)
    await store.describe([b"f"])
    writer = await store.open_writer(b"f", 1 << 50, REPLACE)
    known = min(deltas.cut(OLD))
    missing = (1, bytes(16))
    for _ in range(2):
        await writer.offer([(60_000, bytes(16)), known])
    offer = [missing, known] * (SPAN_BYTES // (known[0] + 1))

    with pytest.raises(ProtocolError, match="too much is offered"):
        for _ in range(MAX_WAITING_RUNS // len(offer) + 1):
            await writer.offer(offer)

    await writer.abandon(keep=False)
    await store.close()


async def test_an_old_version_that_cannot_be_read_is_replaced_all_the_same(root, behind, monkeypatch):
    """Whatever reading it fails with: then everything is wanted."""
    store = await opened(root)
    behind.plant(b"f", OLD)
    await store.describe([b"f"])
    writer = await store.open_writer(b"f", len(NEW), REPLACE)

    def broken(fd, view, offset):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(old_version, "read_into", broken)
    wanted = await writer.offer(deltas.cut(NEW))

    assert all(wanted)
    await writer.write([NEW])
    assert Committed.REPLACED is how(await writer.commit(digest(NEW), None))
    assert NEW == behind.content(b"f")
    await store.close()


async def test_a_listing_that_was_given_up_reads_nothing_more(root, behind):
    """Neither what is asked for later, nor what still waits for its thread: nobody would get it."""
    behind.plant(b"f", b"1")
    waiting = []

    def later(work, *arguments):
        if not opening:
            return maybeDeferred(work, *arguments)
        result = Deferred()
        waiting.append((result, work, arguments))
        return result

    opening = []
    store = await opened(root, run_briefly=later)
    opening.append("is over")
    listing = store.walk()
    page = listing.next_page()
    listing.close()
    [(result, work, arguments)] = waiting
    read = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Walker, "page", lambda _: read.append(1))
        result.callback(work(*arguments))

    assert ([], []) == (await page, read)


@pytest.mark.parametrize("whose", ["listing", "store", "listing while a page is read"])
async def test_a_listing_that_is_given_up_leaves_nothing_open(root, behind, monkeypatch, whose):
    """A directory of which more is to come has a descriptor."""
    monkeypatch.setattr("realize.store.local.walker.MAX_SORTED_NAMES", 2)
    for number in range(5):
        behind.plant(b"d/%d" % number, b"1")
    closing = []

    def later(work, *arguments):
        page = maybeDeferred(work, *arguments)
        for close in closing:
            close()
        return page

    store = await opened(root, run_briefly=later)
    listing = store.walk()
    assert 0 < len(await listing.next_page()) < 6
    assert [] != open_files(root)
    if whose == "store":
        await store.close()
    elif whose == "listing":
        listing.close()
    else:
        closing.append(listing.close)
        assert [] != await listing.next_page()

    assert [] == open_files(root)
