"""Taking up what an earlier transfer left: what was there before does not show, and nobody else's file is touched."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

import pytest

from realize.errors import Busy, RealizeError, StorageError
from realize.fs import names
from realize.store.local import partial_marks as marks
from realize.values import Committed
from tests.leftovers import leave_partial, partial_at
from tests.local_stores import PARTIAL, REPLACE, as_nobody, behind, open_files, open_root, opened, root
from tests.store_helpers import digest, failure, how
from tests.test_partials import SECRET, WAYS, mode_of, put, send

__all__ = ["behind", "open_root", "root"]


async def send_anew(store, path, content, attributes=None):
    """A large file, of which what is there already is compared first."""
    writer = await store.open_writer(path, len(content), REPLACE)
    length = min(writer.have, len(content))
    matched = await writer.match([digest(content[:length])] if length else [], length)
    await writer.write([content[matched:]])
    return await writer.commit(digest(content), attributes)


def broken(number):
    """A system call that fails like that."""

    def fail(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    return fail


def once(monkeypatch, call, before):
    """Let ``before`` happen once, just before that call of the system is made, if it says that it is the right one."""
    module, name = call
    original = getattr(module, name)

    def calling(*arguments, **options):
        if before(*arguments):
            monkeypatch.setattr(module, name, original)
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, calling)


@pytest.mark.parametrize("way", [put, send, send_anew])
@pytest.mark.parametrize("left", [b"", b"?", b"new content", b"other content", b"much more than the new content" * 99])
@pytest.mark.parametrize("content", [b"new content", b""])
async def test_what_was_there_before_does_not_show(root, behind, way, left, content):
    """Whatever a partial holds, a file arrives as it was sent, in each way, and nothing of the rest is behind it."""
    leave_partial(root, "f", left)
    store = await opened(root)

    assert how(await way(store, b"f", content)) is Committed.CREATED
    assert content == behind.content(b"f")
    assert [b"f"] == behind.everything()


@WAYS
async def test_one_that_was_committed_and_begun_anew_while_it_was_opened(root, behind, monkeypatch, way):
    """Another has ended, and a third begun: the final file stays whole, and what goes on is the new partial."""
    leave_partial(root, "f", b"final content")
    store = await opened(root)

    def meanwhile(*_):
        os.rename(partial_at(root, "f"), behind.at(b"g"))
        leave_partial(root, "f", b"begun")
        return True

    once(monkeypatch, (fcntl, "flock"), meanwhile)

    assert how(await way(store, b"f", b"new")) is Committed.CREATED
    assert (b"final content", b"new") == (behind.content(b"g"), behind.content(b"f"))
    assert [b"f", b"g"] == behind.everything()


@WAYS
@pytest.mark.parametrize("what", ["foreign", "symlink", "directory", "fifo", "nothing"])
async def test_one_that_is_swapped_while_it_is_opened(root, behind, monkeypatch, way, what):
    """What takes its place between the look and the opening is not written to unless it is ours."""
    place = leave_partial(root, "f", b"12")
    store = await opened(root)

    def swap(path, flags, *_):
        if path != PARTIAL or flags & os.O_CREAT:
            return False
        os.unlink(place)
        if what == "foreign":
            place.write_bytes(b"foreign")
        elif what == "symlink":
            os.symlink(behind.at(b"g"), place)
        elif what == "directory":
            place.mkdir()
        elif what == "fifo":
            os.mkfifo(place)
        return True

    behind.plant(b"g", b"foreign")
    once(monkeypatch, (os, "open"), swap)

    assert how(await way(store, b"f", b"new")) is Committed.CREATED
    assert (b"new", b"foreign") == (behind.content(b"f"), behind.content(b"g"))
    if what == "foreign":
        assert b"foreign" == place.read_bytes()
    elif what == "nothing":
        assert not place.exists()


@WAYS
async def test_one_that_is_gone_before_it_is_looked_at(root, monkeypatch, way):
    """Who had it when ours was to be made has ended since: it is made now."""
    place = leave_partial(root, "f", b"12")
    store = await opened(root)
    once(monkeypatch, (os, "stat"), lambda path, *_: path == PARTIAL and place.unlink() is None)

    assert how(await way(store, b"f", b"new")) is Committed.CREATED
    assert [b"f"] == os.listdir(root)


@WAYS
@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize(
    ("module", "call"), [(os, "open"), (os, "fstat"), (os, "stat"), (fcntl, "flock")], ids=lambda each: str(each)[:12]
)
async def test_an_error_of_the_disk_is_that_of_the_file(root, monkeypatch, way, found, module, call):
    """Whatever cannot be done with a partial: the file has an error of ours, and no descriptor is left."""
    if found:
        leave_partial(root, "f", b"12")
    store = await opened(root)
    original = getattr(module, call)

    def failing(first, *arguments, **options):
        is_partial = first == PARTIAL if isinstance(first, bytes) else PARTIAL in os.fsencode(target(first))
        finding = found and call == "open" and arguments[0] & os.O_CREAT
        return broken(errno.EIO)() if is_partial and not finding else original(first, *arguments, **options)

    def target(fd):
        return os.readlink(f"/proc/self/fd/{fd}")

    with monkeypatch.context() as patch:
        patch.setattr(module, call, failing)
        try:
            answer = await way(store, b"f", b"new")
        except RealizeError as error:
            answer = error

    if call == "stat" and isinstance(answer, StorageError):
        assert "f: Input/output error" == str(answer)
    elif call != "stat":
        assert (StorageError, "f: Input/output error") == (type(answer), str(answer))
    assert [] == open_files(root)
    assert how(await way(store, b"f", b"new")) in {Committed.CREATED, Committed.REPLACED}


# Partials with a final mode, which a commit that was cut short has given them


@pytest.fixture
def nobodys(open_root):
    """A directory of somebody who is not root."""
    os.chmod(open_root, 0o777)
    return open_root


def leave_nobodys(nobodys, content, mode):
    """A partial of his, with that final mode and the mark."""
    place = leave_partial(nobodys, "f", content)
    if not os.getuid():
        os.chown(place, 65534, 65534)
    place.chmod(marks.MARK | mode)
    return place


@WAYS
@pytest.mark.parametrize("mode", [0o000, 0o200, 0o400])
async def test_one_with_whatever_final_mode_keeps_no_file_from_arriving(nobodys, way, mode):
    """One that not even its owner may read cannot be taken up, so another name is taken."""
    place = leave_nobodys(nobodys, b"12", mode)
    store = await opened(nobodys, run_in_thread=as_nobody)

    assert how(await way(store, b"f", b"new")) is Committed.CREATED
    assert {b"f"} == set(os.listdir(nobodys)) - {PARTIAL}
    assert (mode == 0o400) == (not place.exists())


async def test_one_without_write_permission_is_taken_up_by_its_own_name(nobodys, monkeypatch):
    """No other name is needed for that."""
    leave_nobodys(nobodys, b"12", 0o400)
    monkeypatch.setattr(names, "partial_names", lambda *_: iter([PARTIAL]))
    store = await opened(nobodys, run_in_thread=as_nobody)

    writer = await store.open_writer(b"f", 3, REPLACE)
    assert 2 == writer.have
    assert marks.RECEIVING == mode_of(nobodys, PARTIAL)
    await writer.abandon(keep=True)


async def test_one_that_is_just_being_committed_keeps_its_mode(nobodys):
    """Its writer has given it the final mode, and has it locked: it is not for others to change."""
    place = leave_nobodys(nobodys, b"12", 0o400)
    store = await opened(nobodys, run_in_thread=as_nobody)
    with place.open("rb") as committing:
        fcntl.flock(committing, fcntl.LOCK_EX)

        assert isinstance(await failure(store.open_writer(b"f", 3, REPLACE)), Busy)
        assert marks.MARK | 0o400 == mode_of(nobodys, PARTIAL)


@pytest.mark.parametrize("what", ["foreign", "another partial"])
async def test_one_that_is_swapped_before_its_mode_is_set_back(nobodys, monkeypatch, what):
    """The mode of a file that came into its place, or has its final name by now, stays."""
    place = leave_nobodys(nobodys, b"12", 0o400)
    final = os.path.join(nobodys, b"g")
    store = await opened(nobodys, run_in_thread=as_nobody)

    def meanwhile(*_):
        os.rename(place, final)
        if what == "foreign":
            place.write_bytes(b"foreign")
        return True

    once(monkeypatch, (fcntl, "flock"), meanwhile)
    writer = await store.open_writer(b"f", 3, REPLACE)

    assert 0 == writer.have
    assert marks.MARK | 0o400 == mode_of(nobodys, b"g")
    await writer.abandon(keep=False)


async def test_one_whose_mode_cannot_be_set_back_is_left_alone(nobodys, monkeypatch):
    """The file arrives under another name."""
    place = leave_nobodys(nobodys, b"12", 0o400)
    store = await opened(nobodys, run_in_thread=as_nobody)
    fchmod = os.fchmod
    monkeypatch.setattr(
        os, "fchmod", lambda fd, mode: (broken(errno.EPERM) if mode == marks.RECEIVING else fchmod)(fd, mode)
    )

    assert how(await put(store, b"f", b"new", SECRET)) is Committed.CREATED
    assert b"12" == place.read_bytes()


async def test_one_that_vanishes_before_its_mode_is_set_back(nobodys, monkeypatch):
    """Then there is nothing to be taken up, and one is made."""
    place = leave_nobodys(nobodys, b"12", 0o400)
    monkeypatch.setattr(names, "partial_names", lambda *_: iter([PARTIAL]))
    store = await opened(nobodys, run_in_thread=as_nobody)
    once(
        monkeypatch,
        (os, "open"),
        lambda path, flags, *_: path == PARTIAL and not flags & os.O_RDWR and place.unlink() is None,
    )

    writer = await store.open_writer(b"f", 3, REPLACE)
    assert 0 == writer.have
    await writer.abandon(keep=False)


# Where the file system does not show what is ours


@pytest.fixture
def unmarked(root, monkeypatch):
    """A root on a file system that drops the mark, of which nothing is known yet, with a partial."""
    monkeypatch.setattr(marks, "_looks", {})
    monkeypatch.setattr(marks, "RECEIVING", 0o600)
    leave_partial(root, "f", b"12").chmod(0o600)
    return root


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "broken"), MemoryError()])
async def test_what_was_made_to_see_how_ours_look_is_let_go(unmarked, monkeypatch, fault):
    """Also if it cannot be removed."""
    store = await opened(unmarked)

    def stays(*_arguments, **_options):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", stays)
        refused = await failure(store.open_writer(b"f", 3, REPLACE))

    assert isinstance(refused, RealizeError)
    assert [] == open_files(unmarked)


@WAYS
async def test_what_looks_like_ours_is_found_among_others(unmarked, way):
    """What somebody else has under the names before it is passed over, and of what was made to see nothing is left."""
    first, second, third, *_ = names.partial_names(b"f")
    os.rename(os.path.join(unmarked, first), os.path.join(unmarked, second))
    os.mkdir(os.path.join(unmarked, first))
    store = await opened(unmarked)
    writer = await store.open_writer(b"f", 3, REPLACE)

    assert (2, {first, second}) == (writer.have, set(os.listdir(unmarked)))
    await writer.abandon(keep=True)
    assert how(await way(store, b"f", b"new")) is Committed.CREATED
    assert {first, b"f"} == set(os.listdir(unmarked))
    assert third not in os.listdir(unmarked)


async def test_an_older_one_that_is_no_file_by_now(unmarked, monkeypatch):
    """What looked like ours, and is something else when it is taken up, stays, and the file arrives."""
    store = await opened(unmarked)
    unlink, place = os.unlink, partial_at(unmarked, "f")

    def meanwhile(*arguments, **options):
        monkeypatch.setattr(os, "unlink", unlink)
        unlink(*arguments, **options)
        place.unlink()
        place.mkdir()

    monkeypatch.setattr(os, "unlink", meanwhile)

    assert how(await send(store, b"f", b"new")) is Committed.CREATED
    assert {b"f", PARTIAL} == set(os.listdir(unmarked))
    assert stat.S_ISDIR(place.stat().st_mode)


async def test_an_older_one_that_cannot_be_opened(unmarked, monkeypatch):
    """Neither is one that looks like ours, and that nobody may open."""
    opening, place = os.open, partial_at(unmarked, "f")

    def refuse(path, flags, *arguments, **options):
        if path == PARTIAL and not flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opening(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    store = await opened(unmarked)

    assert how(await send(store, b"f", b"new")) is Committed.CREATED
    assert b"12" == place.read_bytes()
    assert {b"f", PARTIAL} == set(os.listdir(unmarked))


@WAYS
async def test_a_symlink_to_a_partial_of_ours_is_not_ours(root, behind, way):
    """Whatever it leads to: it stays as it is, and the file arrives beside it."""
    other = leave_partial(root, "g", b"12")
    os.symlink(other, partial_at(root, "f"))
    store = await opened(root)

    assert how(await way(store, b"f", b"new")) is Committed.CREATED
    assert b"12" == other.read_bytes()
    assert partial_at(root, "f").is_symlink()


async def test_to_take_one_up_makes_it_no_younger(root):
    """What has gained nothing expires in time, however often somebody tries."""
    place = leave_partial(root, "f", b"12")
    os.utime(place, ns=(1, 1))
    store = await opened(root)

    writer = await store.open_writer(b"f", 3, REPLACE)

    assert (2, 1) == (writer.have, place.stat().st_mtime_ns)
    await writer.abandon(keep=True)
