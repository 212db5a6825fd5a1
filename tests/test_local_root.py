"""A local store whose directory is replaced, or hidden, and what it says that it is."""

from __future__ import annotations

import os

from realize.errors import BadName, InternalError, NotFound, NotRegular, StorageError, Unavailable
from realize.store.local.store import LocalStore, root_identity
from realize.values import (
    Attributes,
    Committed,
    Directory,
    Existing,
    Expected,
    Kind,
    Removal,
    Vacant,
    Version,
    WhereKind,
)
from tests.local_stores import (
    REPLACE,
    SALT,
    DirectoryBehind,
    as_nobody,
    at_once,
    behind,
    fetched,
    open_root,
    opened,
    put,
    root,
)
from tests.store_helpers import digest, failure, how, listed, small_file

__all__ = ["behind", "open_root", "root"]


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
    assert type(await failure(missing.open(SALT))) is Unavailable
    os.mkdir(root)
    replaced = LocalStore(root, run_in_thread=at_once, root_identity=identity)
    assert type(await failure(replaced.open(SALT))) is Unavailable


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
        assert directory.identities == where.identities[1:]
        [existing] = await store.describe([b"f"])
        assert (where.identities[0], None) == (existing.identity, existing.partial_size)
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

    assert outer.identities[0] == inner.identities[1]
    assert outer.identities[0] not in other.identities
    assert inner.identities[-1] == other.identities[-1]


async def test_hard_links_have_one_place(root, behind):
    """Two names of one inode have the same place in two stores with the same salt."""
    behind.plant(b"one/f", b"content")
    os.makedirs(behind.at(b"two"))
    os.link(behind.at(b"one/f"), os.path.join(root, b"two/g"))
    one, two = await opened(root, b"one"), await opened(root, b"two")

    [f], [g] = await one.describe([b"f"]), await two.describe([b"g"])

    assert f.identity == g.identity
