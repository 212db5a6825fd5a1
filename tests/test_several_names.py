"""Replacing a file at a destination that has several names (hard links)."""

import contextlib
import fcntl
import os
import threading

import pytest
from attrs import evolve

from realize.errors import Busy
from realize.store.local import several_names
from realize.store.local.existing import settle_batch
from realize.store.local.several_names import OldFile
from realize.values import Committed, Expected, OnConflict
from tests.local_stores import behind, opened, root
from tests.store_helpers import digest, how, small_file

__all__ = ["behind", "root"]

NAMES = (b"a", b"b", b"d/c")
OLD = b"old"


@pytest.fixture
def planted(behind):
    """One file with three names."""
    behind.plant(NAMES[0], OLD)
    for name in NAMES[1:]:
        os.link(behind.at(NAMES[0]), behind.at(name))
    return behind


async def replaced(store, seen, names=NAMES):
    """What becomes of a batch that may replace these versions."""
    files = [evolve(small_file(name, b"new " + name), replaces=each) for name, each in zip(names, seen, strict=True)]
    return await store.put_small(files, OnConflict.REPLACE)


async def seen_by(store, names=NAMES):
    """What a run has seen there."""
    return [each.seen for each in await store.describe(names)]


def meanwhile(monkeypatch, do, *, at=2):
    """Have that done just before name number ``at`` is replaced, and after the last look; returns what came of it."""
    rename, count, came = os.rename, [0], []

    def renaming(*args, **kwargs):
        count[0] += 1
        if count[0] == at:
            came.append(do())
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "rename", renaming)
    return came


@pytest.mark.parametrize("kept", [b"", b".backups"])
async def test_all_names_are_replaced_in_one_step(root, planted, kept):
    """Those of one batch, in all directories, with backups or not."""
    store = await opened(root, backup_dir=kept)

    answers = await replaced(store, await seen_by(store))

    assert [Committed.REPLACED] * 3 == [how(each) for each in answers]
    assert [b"new " + name for name in NAMES] == [planted.content(name) for name in NAMES]
    assert [OLD] * (3 if kept else 0) == [planted.content(os.path.join(kept, name)) for name in NAMES if kept]


async def test_files_that_replace_others_go_on_beside_them(root, planted):
    """A batch with other files too."""
    planted.plant(b"e", OLD)
    store = await opened(root)
    names = (b"a", b"e", b"d/c", b"new")

    answers = await replaced(store, await seen_by(store, names), names)

    expected = [Committed.REPLACED] * 3 + [Committed.CREATED]
    assert expected == [how(each) for each in answers]
    assert [b"new " + name for name in names] == [planted.content(name) for name in names]
    assert OLD == planted.content(b"b")


async def test_a_name_that_comes_later_stays(root, planted):
    """What has changed the file since cannot be told any more."""
    store = await opened(root)
    seen = await seen_by(store)

    await replaced(store, seen[:1], NAMES[:1])
    late = await replaced(store, seen[1:], NAMES[1:])

    assert [Busy] * 2 == [type(each) for each in late]
    assert "a: " not in str(late[0])
    assert str(late[0]).startswith("b: the file there has changed since it was looked at, or is another one")
    assert [OLD] * 2 == [planted.content(name) for name in NAMES[1:]]


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("kept", [b"", b".backups"])
async def test_who_relies_on_the_file_is_never_deceived(root, planted, monkeypatch, kept, at):
    """A peer that finds its own content under a name that is replaced does not hear that it is there.

    It renews the change time without a lock, at any moment, and waits with its last look until the names are replaced.
    """
    store, other = await opened(root, backup_dir=kept), await opened(root)
    seen = await seen_by(store)
    renewed, answers, fsync = threading.Event(), [], os.fsync

    def fsyncing(fd):
        fsync(fd)
        if threading.current_thread() is peer:
            renewed.set()

    def rely():
        expected = Expected(b"d/c", len(OLD), digest(OLD))
        location, vouching = other._location, other._vouching
        answers.extend(settle_batch(location, [expected], vouching, None))

    peer = threading.Thread(target=rely)

    def in_between():
        peer.start()
        assert renewed.wait(10)

    monkeypatch.setattr(os, "fsync", fsyncing)
    meanwhile(monkeypatch, in_between, at=at)

    outcomes = await replaced(store, seen)
    peer.join()

    assert Committed.REPLACED is how(outcomes[0])
    relied_on = planted.content(b"d/c") == OLD
    assert [relied_on] == answers
    assert relied_on == isinstance(outcomes[2], Busy)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.chmod(path, 0o600),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: os.link(path, path + b"-too"),
        lambda path: os.rename(path, path + b"-too") or os.link(path + b"-too", path),
    ],
    ids=["mode", "time", "name", "renamed"],
)
async def test_what_others_do_between_two_names_is_noticed(root, planted, monkeypatch, change):
    """The first one is replaced by then; the others stay."""
    store = await opened(root)
    seen = await seen_by(store)
    real = several_names.OldFile.is_still
    done = []

    def looking(self, existing):
        if not done:
            done.append(change(planted.at(b"b")))
            existing = os.stat(planted.at(b"b"))
        return real(self, existing)

    monkeypatch.setattr(several_names.OldFile, "is_still", looking)

    answers = await replaced(store, seen)

    assert Committed.REPLACED is how(answers[0])
    assert [Busy] * 2 == [type(each) for each in answers[1:]]
    assert [OLD] * 2 == [planted.content(name) for name in NAMES[1:]]


async def test_nobody_can_write_to_the_file_meanwhile(root, planted, monkeypatch):
    """A program that opens it to write waits; one that does not wait is told so, and the other names stay for it."""
    store = await opened(root)

    def write():
        with pytest.raises(BlockingIOError):
            os.open(planted.at(b"b"), os.O_WRONLY | os.O_NONBLOCK)

    came = meanwhile(monkeypatch, write)
    answers = await replaced(store, await seen_by(store))

    assert [None] == came
    assert [Committed.REPLACED] * 2 == [how(each) for each in answers[:2]]
    assert isinstance(answers[2], Busy)
    assert OLD == planted.content(b"d/c")
    os.close(os.open(planted.at(b"d/c"), os.O_WRONLY | os.O_NONBLOCK))


@pytest.mark.parametrize("why", ["written", "no lease", "other machines"])
async def test_without_a_lease_only_one_name_is_replaced(root, planted, monkeypatch, why):
    """Where a program could write unnoticed, the other names wait for the next run."""
    store = await opened(root)
    seen = await seen_by(store)
    fd = os.open(planted.at(b"a"), os.O_WRONLY) if why == "written" else -1
    if why == "no lease":
        call = fcntl.fcntl

        def refused(fd, command, *arguments):
            if command == fcntl.F_SETLEASE:
                raise PermissionError
            return call(fd, command, *arguments)

        monkeypatch.setattr(fcntl, "fcntl", refused)
    elif why == "other machines":
        monkeypatch.setattr("realize.fs.tree.always_fresh", lambda _fd: False)

    answers = await replaced(store, seen)
    if fd >= 0:
        os.close(fd)

    assert Committed.REPLACED is how(answers[0])
    assert [Busy] * 2 == [type(each) for each in answers[1:]]
    assert [OLD] * 2 == [planted.content(name) for name in NAMES[1:]]


async def test_what_changes_with_the_first_replacement_is_noticed(tmp_path):
    """In the instant in between, too: it shows in more than change time and names."""
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(OLD)
    os.link(path, other)
    before = os.stat(path)
    path.unlink()
    os.chmod(other, 0o600)
    fd = os.open(other, os.O_RDONLY)
    with OldFile() as old, contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        old.hold(fd, before, stack)

        assert not old.held
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
