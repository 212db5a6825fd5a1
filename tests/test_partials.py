"""Partials are known by more than their name, and what only has such a name is nobody's partial."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

import pytest

from realize.errors import Busy, Conflict, NotRegular
from realize.fs import names
from realize.fs.names import partial_name, partial_names
from realize.fs.stamps import Present
from realize.store.local import existing as finals
from realize.store.local import group_commit, partials
from realize.store.local import partial_marks as marks
from realize.store.local.expiry import expire_partials
from realize.store.local.store import LocalStore
from realize.values import Attributes, Committed, Existing, Expected, Kind, OnConflict
from tests.leftovers import leave_partial, partial_at
from tests.local_stores import PARTIAL, REPLACE, SALT, as_nobody, at_once, open_root, opened, root
from tests.store_helpers import digest, failure, how, listed, small_file

__all__ = ["open_root", "root"]

SECRET = Attributes(1_234_567_890_123_456_789, 0o600)


async def put(store, path, content, attributes=None):
    """What becomes of one small file."""
    [outcome] = await store.put_small([small_file(path, content, attributes)], REPLACE)
    return outcome


async def send(store, path, content, attributes=None):
    """The same for a file that is sent as if it were large."""
    writer = await store.open_writer(path, len(content), REPLACE)
    await writer.write([content])
    return await writer.commit(digest(content), attributes)


WAYS = pytest.mark.parametrize("way", [put, send])


def mode_of(root, name):
    """Permission bits and the mark."""
    return stat.S_IMODE(os.lstat(os.path.join(root, name)).st_mode)


def plant_file(path):
    """A file of the same user without the mark."""
    path.write_bytes(b"foreign")


def plant_directory(path):
    """A directory that is not empty."""
    path.mkdir()
    (path / "inside").write_bytes(b"foreign")


def plant_symlink(path):
    """A symlink to a file that is worth something."""
    path.parent.joinpath("target").write_bytes(b"foreign")
    path.symlink_to("target")


def plant_fifo(path):
    """A FIFO that nobody reads."""
    os.mkfifo(path)


def plant_of_another(path):
    """A file with the form, the mode and the mark, which belongs to somebody else."""
    path.write_bytes(b"foreign")
    os.chown(path, 65534, 65534)
    path.chmod(marks.RECEIVING)


def plant_hard_link(path):
    """Another name of a file of the same user."""
    path.parent.joinpath("target").write_bytes(b"foreign")
    os.link(path.parent / "target", path)


FOREIGN = pytest.mark.parametrize(
    "plant", [plant_file, plant_directory, plant_symlink, plant_fifo, plant_of_another, plant_hard_link]
)


def looks(path):
    """What there is to see of something, below it too."""
    status = path.lstat()
    seen = [(status.st_mode, status.st_ino, status.st_nlink, status.st_uid, status.st_mtime_ns)]
    if path.is_file():
        seen.append(path.read_bytes())
    return seen + [(each.name, each.read_bytes()) for each in path.iterdir()] if path.is_dir() else seen


@WAYS
@FOREIGN
async def test_what_is_not_ours_is_left_alone_and_in_nobodys_way(root, way, plant):
    """Whatever somebody has under the name of a partial stays as it is, and the file arrives all the same."""
    path = partial_at(root, "f")
    plant(path)
    before = looks(path)
    store = await opened(root)

    assert how(await way(store, b"f", b"content")) is Committed.CREATED
    assert [step.removed for step in expire_partials(root, 0, Present(1 << 62)) if step.removed] == []
    assert looks(path) == before
    assert set(os.listdir(root)) - {b"f", b"target"} == {PARTIAL}
    with open(os.path.join(root, b"f"), "rb") as file:
        assert file.read() == b"content"


@WAYS
async def test_it_arrives_if_every_foreseeable_name_is_taken(root, way):
    """Who takes all names that can be known beforehand keeps nothing from arriving."""
    *foreseeable, _ = partial_names(b"f")
    for name in foreseeable:
        os.mkdir(os.path.join(root, name))
    store = await opened(root)

    assert how(await way(store, b"f", b"content")) is Committed.CREATED
    assert sorted(os.listdir(root)) == sorted([*foreseeable, b"f"])


async def test_names_have_an_end(root, monkeypatch):
    """If there is something under every name, that is said."""
    monkeypatch.setattr(names, "partial_names", lambda _name, _origin: iter([PARTIAL]))
    os.mkdir(os.path.join(root, PARTIAL))
    store = await opened(root)

    assert isinstance(await put(store, b"f", b"x"), Busy)


async def test_a_transfer_goes_on_behind_a_foreign_file(root):
    """What was received under the second name is found there, told of, and expires like any other."""
    os.mkdir(os.path.join(root, PARTIAL))
    store = await opened(root)
    writer = await store.open_writer(b"f", 3, REPLACE)
    await writer.write([b"12"])
    await writer.abandon(keep=True)

    assert await store.describe([b"f"]) == [Existing(partial_size=2)]
    writer = await store.open_writer(b"f", 3, REPLACE)
    assert writer.have == 2
    await writer.abandon(keep=True)
    [(_, size)] = [each for step in expire_partials(root, 0, Present(1 << 62)) for each in step.removed]
    assert size == 2


@WAYS
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400, 0o000, 0o777])
async def test_the_mark_is_there_until_the_file_has_its_name(root, way, mode, monkeypatch):
    """From its creation a partial is marked, and nobody else may open it; the final file has no mark."""
    seen = []
    rename = group_commit.rename_noreplace

    def renaming(fd, old, new):
        seen.append(mode_of(root, old))
        rename(fd, old, new)

    created = []
    create = marks.create

    def creating(opening):
        fd = create(opening)
        created.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return fd

    monkeypatch.setattr(group_commit, "rename_noreplace", renaming)
    monkeypatch.setattr(partials, "create", creating)
    store = await opened(root)

    assert how(await way(store, b"f", b"x", Attributes(1, mode))) is Committed.CREATED
    assert (created, seen, mode_of(root, b"f")) == ([0o1600], [mode | marks.MARK], mode)


class Crash(BaseException):
    """Everything ends here."""


@WAYS
async def test_a_crash_leaves_only_marked_partials(root, way, monkeypatch):
    """What died just before it got its name is taken for a partial, whatever mode it had been given."""

    def crash(*_):
        raise Crash

    monkeypatch.setattr(group_commit, "rename_noreplace", crash)
    monkeypatch.setattr(group_commit, "_discard", lambda *_: None)
    store = await opened(root)
    with pytest.raises(Crash):
        await way(store, b"f", b"x", SECRET)

    again = LocalStore(root, run_in_thread=at_once)
    await again.open(SALT)
    assert [Kind.LEFT] == [entry.kind for entry in await listed(again.walk())]
    assert [Kind.PARTIAL] == [entry.kind for entry in await listed(again.walk(partials=True))]


@WAYS
async def test_a_mark_that_was_left_on_a_final_file_is_harmless(root, way, monkeypatch):
    """It is a file like any other; who finds it identical takes the mark off."""
    monkeypatch.setattr(group_commit, "_take_mark_off", lambda _file: None)
    store = await opened(root)
    await way(store, b"f", b"x", SECRET)
    marked = mode_of(root, b"f")
    entries = await listed(store.walk(partials=True))
    expired = [step.removed for step in expire_partials(root, 0, Present(1 << 62)) if step.removed]
    settled = await store.settle([Expected(b"f", 1, digest(b"x"))])

    assert (marked, mode_of(root, b"f")) == (0o1600, 0o600)
    assert [(b"f", Kind.FILE)] == [(entry.path, entry.kind) for entry in entries]
    assert [] == expired
    assert settled == [True]


@WAYS
async def test_a_final_file_with_such_a_name_is_never_marked(root, way, monkeypatch):
    """A power cut must not make a partial of it: its mark is off before it is made durable, and gets its name."""
    done = []
    fsync, rename = os.fsync, group_commit.rename_noreplace

    def renaming(fd, old, new):
        done.append(stat.S_IMODE(os.stat(old, dir_fd=fd).st_mode))
        rename(fd, old, new)

    monkeypatch.setattr(os, "fsync", lambda fd: done.append(stat.S_IMODE(os.fstat(fd).st_mode)) or fsync(fd))
    monkeypatch.setattr(group_commit, "rename_noreplace", renaming)
    store = await opened(root)

    assert how(await way(store, PARTIAL, b"x", SECRET)) is Committed.CREATED
    assert [0o600, 0o600] == done[:2]
    assert 0o600 == mode_of(root, PARTIAL)
    assert [(PARTIAL, Kind.FILE)] == [(entry.path, entry.kind) for entry in await listed(store.walk())]


async def test_who_finds_a_marked_file_identical_ends_its_commit(root, monkeypatch):
    """Its other name goes, and that is durable before the mark is off: no second power cut leaves a lost partial."""
    place = leave_partial(root, "f", b"x")
    os.link(place, os.path.join(root, b"f"))
    done = []
    fchmod, sync = os.fchmod, finals.fsync_directory
    monkeypatch.setattr(os, "fchmod", lambda fd, mode: done.append("mode") or fchmod(fd, mode))
    monkeypatch.setattr(finals, "fsync_directory", lambda fd: done.append(os.listdir(fd)) or sync(fd))
    store = await opened(root)

    assert [True] == await store.settle([Expected(b"f", 1, digest(b"x"))])
    assert [["f"], "mode"] == done[:2]
    assert not mode_of(root, b"f") & stat.S_ISVTX
    assert [b"f"] == os.listdir(root)


async def test_a_partial_that_cannot_become_final_is_private_again(root):
    """Its final mode is taken back, so that who may read that file cannot read what is received next."""
    store = await opened(root)
    writer = await store.open_writer(b"f", 1, OnConflict.FAIL)
    await writer.write([b"x"])
    with open(os.path.join(root, b"f"), "wb"):
        pass

    assert isinstance(await failure(writer.commit(digest(b"x"), Attributes(1, 0o644))), Conflict)
    status = os.stat(partial_at(root, "f"))
    assert stat.S_IMODE(status.st_mode) == marks.RECEIVING
    assert status.st_mtime_ns > 1


async def test_a_partial_that_others_may_have_open_is_not_gone_on_with(root):
    """A crash within a commit leaves the final mode: who opened that for reading would read what comes next."""
    place = leave_partial(root, "f", b"12")
    place.chmod(0o1644)
    store = await opened(root)
    with place.open("rb") as kept:
        writer = await store.open_writer(b"f", 3, REPLACE)
        await writer.write([b"abc"])
        assert how(await writer.commit(digest(b"abc"), SECRET)) is Committed.CREATED

        assert (writer.have, kept.read()) == (0, b"12")


async def test_a_partial_that_was_about_to_be_committed_keeps_its_age(root):
    """What is taken up with a final mode gets that of a partial, and as its time that of its last change."""
    place = leave_partial(root, "f", b"12")
    place.chmod(0o1400)
    os.utime(place, ns=(1, 1))
    changed = os.stat(place).st_ctime_ns
    store = await opened(root)

    writer = await store.open_writer(b"f", 3, REPLACE)

    status = os.stat(place)
    assert (writer.have, stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (2, marks.RECEIVING, changed)
    await writer.abandon(keep=True)


async def test_a_partial_is_no_location(root):
    """A partial is no source of a move by its own name."""
    leave_partial(root, "f", b"12")
    store = LocalStore(root, PARTIAL, run_in_thread=at_once)

    assert isinstance(await failure(store.open(SALT)), NotRegular)


@pytest.mark.parametrize("unknown", ["owner", "mark"])
async def test_where_the_file_system_shows_no_owner_or_mark(root, unknown, monkeypatch):
    """There a new partial shows how ours look, and an older one that looks like that is gone on with."""
    monkeypatch.setattr(marks, "_looks", {})
    if unknown == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    else:
        monkeypatch.setattr(marks, "RECEIVING", 0o600)
    store = await opened(root)
    writer = await store.open_writer(b"f", 3, REPLACE)
    await writer.write([b"12"])
    await writer.abandon(keep=True)

    marks._looks.clear()
    writer = await store.open_writer(b"f", 3, REPLACE)
    assert writer.have == 2
    assert isinstance(await failure(store.open_writer(b"f", 3, REPLACE)), Busy)
    assert await writer.match([digest(b"12")], 2) == 2
    await writer.write([b"3"])
    assert how(await writer.commit(digest(b"123"), SECRET)) is Committed.CREATED
    assert (os.listdir(root), mode_of(root, b"f")) == ([b"f"], 0o600)


@pytest.mark.parametrize(
    ("keeps_modes", "looks", "mode", "euid", "ours"),
    [
        (True, None, 0o1600, 0, True),
        (True, None, 0o1600, 12_345, False),
        (True, None, 0o600, 0, False),
        (False, None, 0o600, 0, True),
        (False, None, 0o600, 12_345, False),
        (True, 0o1600, 0o1600, 12_345, True),
        (True, 0o1600, 0o600, 12_345, False),
        (True, 0o600, 0o600, 0, True),
        (True, 0o600, 0o600, 12_345, True),
    ],
)
def test_what_tells_ours_on_which_file_system(root, monkeypatch, keeps_modes, looks, mode, euid, ours):
    """Name, owner and mark; without the mark where there are no modes; or looks, where new ones of ours look so."""
    monkeypatch.setattr(marks, "keeps_modes", lambda _fd: keeps_modes)
    monkeypatch.setattr(marks, "_looks", {})
    place = leave_partial(root, "f", b"")
    monkeypatch.setattr(os, "geteuid", lambda: euid + os.getuid())
    if looks is not None:
        place.chmod(looks)
        marks.learn(place.stat())
    place.chmod(mode)

    assert marks.is_ours(0, PARTIAL, place.stat()) is ours
    assert not marks.is_ours(0, b".f.part", place.stat())


def test_a_file_of_another_user_does_not_look_like_ours(root, monkeypatch):
    """Where the mark is dropped, the owner still tells; what has been learned is forgotten when it is true no more."""
    monkeypatch.setattr(marks, "_looks", {})
    place = leave_partial(root, "f", b"")
    place.chmod(0o600)
    marks.learn(place.stat())
    os.chown(place, 65534, 65534)
    others = marks.is_ours(0, PARTIAL, place.stat())
    os.chown(place, os.geteuid(), -1)
    ours = marks.is_ours(0, PARTIAL, place.stat())
    marks.learn(leave_partial(root, "g", b"").stat())

    assert (others, ours, marks.is_ours(0, PARTIAL, place.stat())) == (False, True, False)


async def test_what_drops_the_mark_lists_and_expires_partials_all_the_same(root, monkeypatch):
    """Once this process has made a partial there, it knows how they look, and a version made is told anew."""
    monkeypatch.setattr(marks, "_looks", {})
    monkeypatch.setattr(marks, "RECEIVING", 0o600)
    asked = []
    look = group_commit.fresh_fstat
    monkeypatch.setattr(group_commit, "fresh_fstat", lambda fd: asked.append(fd) or look(fd))
    store = await opened(root)
    writer = await store.open_writer(b"f", 3, REPLACE)
    await writer.write([b"12"])
    await writer.abandon(keep=True)
    await put(store, b"g", b"x")

    assert [Kind.PARTIAL, Kind.FILE] == [entry.kind for entry in await listed(store.walk(partials=True))]
    assert [(PARTIAL, 2)] == [each for step in expire_partials(root, 0, Present(1 << 62)) for each in step.removed]
    assert 1 == len(asked)


async def test_a_server_that_refuses_the_mark(root, monkeypatch):
    """Where a sticky file cannot be made at all, partials are made without the mark."""
    monkeypatch.setattr(marks, "_looks", {})
    original = os.open

    def opening(path, flags, mode=0o777, **options):
        if flags & os.O_CREAT and mode & marks.MARK:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return original(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", opening)
    store = await opened(root)

    assert how(await put(store, b"f", b"x")) is Committed.CREATED
    assert how(await send(store, b"g", b"x")) is Committed.CREATED
    assert await store.try_write() > 0


@WAYS
@pytest.mark.parametrize("directory_mode", [0o1777, 0o777])
async def test_a_local_user_neither_reads_nor_changes_what_arrives(open_root, way, directory_mode):
    """Who may write into the directory, and was there first, gets nothing of a file that is not for him."""
    os.chmod(open_root, directory_mode)
    kept = []

    def prepare():
        *foreseeable, _ = partial_names(b"f")
        for name in foreseeable:
            path = os.path.join(open_root, name)
            kept.append(os.open(path, os.O_CREAT | os.O_RDWR, 0o666))
            os.chmod(path, 0o1666)

    def meddle():
        found = [os.pread(fd, 100, 0) for fd in kept]
        for name in (b"f", *os.listdir(open_root)):
            for flags in (os.O_RDONLY, os.O_WRONLY):
                with suppress(PermissionError):
                    kept.append(os.open(os.path.join(open_root, name), flags))
        for fd in kept:
            with suppress(OSError):
                os.pwrite(fd, b"FORGED", 0)
        return found

    await as_nobody(prepare)
    store = await opened(open_root)
    assert how(await way(store, b"f", b"SECRET", SECRET)) is Committed.CREATED
    found = await as_nobody(meddle)

    status = os.stat(os.path.join(open_root, b"f"))
    with open(os.path.join(open_root, b"f"), "rb") as file:
        assert file.read() == b"SECRET"
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o600)
    assert {b""} == set(found)
    for fd in kept:
        os.close(fd)


async def test_a_local_user_reads_nothing_while_it_arrives(open_root):
    """A partial is nobody else's to open, from its first byte on."""
    os.chmod(open_root, 0o777)
    store = await opened(open_root)
    writer = await store.open_writer(b"f", 6, REPLACE)
    await writer.write([b"SEC"])

    def peep():
        with pytest.raises(PermissionError):
            os.open(os.path.join(open_root, partial_name(b"f")), os.O_RDONLY)

    await as_nobody(peep)
    await writer.abandon(keep=False)


async def test_partials_of_another_user_are_files(open_root):
    """A daemon that runs as another user from now on takes what the former one has left for files like any other."""
    os.chmod(open_root, 0o777)
    leave_partial(open_root, "f", b"12")
    store = await opened(open_root, run_in_thread=as_nobody)

    [entry] = await listed(store.walk(partials=True))
    writer = await store.open_writer(b"f", 3, REPLACE)

    assert (entry.path, entry.kind, writer.have) == (PARTIAL, Kind.FILE, 0)
    await writer.abandon(keep=False)


async def test_a_commit_that_was_cut_short_between_link_and_unlink(root):
    """Where a rename takes a link, a crash leaves one file under both names: the final one stays, the other goes."""
    place = leave_partial(root, "f", b"committed")
    os.link(place, os.path.join(root, b"f"))
    store = await opened(root)

    entries = await listed(store.walk())
    writer = await store.open_writer(b"f", 3, REPLACE)
    await writer.write([b"new"])
    with open(os.path.join(root, b"f"), "rb") as final:
        assert (final.read(), writer.have) == (b"committed", 0)
    await writer.abandon(keep=False)

    assert {PARTIAL: Kind.LEFT, b"f": Kind.FILE} == {entry.path: entry.kind for entry in entries}
    assert os.listdir(root) == [b"f"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EEXIST, errno.EACCES])
def test_only_where_the_mark_is_refused_is_a_partial_made_without(number):
    """What is wrong with anything else is told at once."""
    modes = []

    def opening(mode):
        modes.append(mode)
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=os.strerror(number)):
        marks.create(opening)

    assert [marks.RECEIVING] == modes
