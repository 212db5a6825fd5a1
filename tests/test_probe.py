"""Whether a directory is fit to be written to: `realize.store.local.probe`, here and at a peer."""

from __future__ import annotations

import errno
import os
from fractions import Fraction
from types import SimpleNamespace

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from realize.config import Right
from realize.errors import AccessDenied, NoSpace
from realize.fs.names import is_partial
from realize.fs.stamps import Present
from realize.store.local import probe
from realize.store.local.expiry import expire_partials
from realize.store.local.location import locate
from realize.store.local.store import LocalStore
from realize.units import Reserve
from realize.values import Kind, Space
from tests.store_helpers import failure, listed
from tests.test_remote_store import Served


async def opened(root, base=b""):
    """A local store that works without threads."""
    store = LocalStore(root, base, run_in_thread=maybeDeferred)
    await store.open(b"salt")
    return store


async def test_space_is_that_of_the_file_system(tmp_path):
    """What statvfs says for an ordinary user, also for a location that is still to be made."""
    status = os.statvfs(tmp_path)

    here, below = await (await opened(tmp_path)).space(), await (await opened(tmp_path, b"not/made/yet")).space()

    assert status.f_blocks * status.f_frsize == here.size == below.size
    assert status.f_files == 0 or here.free_files > 0


@pytest.mark.parametrize(
    ("files", "reserve", "space"),
    [
        (50, Reserve(size=15), Space(25, 400, 7)),
        (50, Reserve(part=Fraction(1, 20)), Space(20, 400, 7)),
        (0, Reserve(size=40), Space(0, 400, None)),
        (0, Reserve(size=50), Space(0, 400, None)),
    ],
)
def test_what_is_free_is_what_an_ordinary_user_may_have_but_for_the_reserve(
    tmp_path, monkeypatch, files, reserve, space
):
    """In bytes, however large a block is; some file systems have no count of files."""
    status = SimpleNamespace(f_bavail=10, f_bfree=20, f_frsize=4, f_bsize=64, f_blocks=100, f_files=files, f_favail=7)
    monkeypatch.setattr(os, "fstatvfs", lambda _: status)

    assert space == probe.measure_space(locate(os.fsencode(tmp_path), b"", None), reserve)


async def test_where_the_room_cannot_be_known_the_reason_is_told(tmp_path, monkeypatch):
    """The location is named, as it is in other errors."""

    def broken(_):
        raise OSError(errno.EIO, "broken")

    store = await opened(tmp_path)
    monkeypatch.setattr(os, "fstatvfs", broken)

    assert f"{tmp_path}: broken" == str(await failure(store.space()))


async def test_a_trial_is_timed_until_it_was_durable(tmp_path, monkeypatch):
    """Without the removal, which no commit has."""
    store, times = await opened(tmp_path), iter([100, 130])
    monkeypatch.setattr(probe.time, "monotonic_ns", times.__next__)
    took = await store.try_write()
    monkeypatch.undo()

    assert 30 == took


async def test_a_trial_is_made_as_a_commit_is(tmp_path, monkeypatch):
    """Content, then the rename, then the directory; all under names that are never listed as files."""
    done = []

    def noting(name, function):
        def noted(*arguments, **options):
            done.append((name, sorted(map(is_partial, os.listdir(os.fsencode(tmp_path))))))
            return function(*arguments, **options)

        return noted

    monkeypatch.setattr(probe.os, "fsync", noting("fsync", os.fsync))
    monkeypatch.setattr(probe, "rename_noreplace", noting("rename", probe.rename_noreplace))
    monkeypatch.setattr(probe, "fsync_directory", noting("fsync directory", probe.fsync_directory))
    store = await opened(tmp_path, b"not/made/yet")

    await store.try_write()

    # The last of them makes the removal durable; making a directory durable is an fsync as well.
    order = [name for name, _ in done if name != "fsync"]
    assert ("fsync", "rename") == (done[0][0], done[1][0])
    assert ["rename", "fsync directory", "fsync directory"] == order
    assert {(True,), ()} == {tuple(partials) for _, partials in done}
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("step", ["rename_noreplace", "fsync_directory", "write_all"])
async def test_a_trial_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, step):
    """Whatever step is refused, the reason is told and the file is gone."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(probe, step, full)
    store = await opened(tmp_path)

    assert isinstance(await failure(store.try_write()), NoSpace)
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("step", ["rename_noreplace", "fsync_directory", "write_all"])
async def test_a_trial_that_there_is_no_memory_for_has_not_succeeded(tmp_path, monkeypatch, step):
    """Whatever it fails with is told, and the file is gone."""
    calls, call = [], getattr(probe, step)

    def fail(*arguments):
        calls.append(step)
        if step != "fsync_directory" or len(calls) == 2:
            raise MemoryError
        call(*arguments)

    monkeypatch.setattr(probe, step, fail)
    store = await opened(tmp_path)

    with pytest.raises(MemoryError):
        await store.try_write()
    assert [] == os.listdir(tmp_path)


async def test_what_a_crash_leaves_of_a_trial_expires(tmp_path, monkeypatch):
    """It is a partial to everybody: not a file of a listing, and removed when nobody came back for it."""

    class Crash(BaseException):
        pass

    def crash(*_):
        raise Crash

    monkeypatch.setattr(probe, "fsync_directory", crash)
    store = await opened(tmp_path)
    with pytest.raises(Crash):
        await store.try_write()

    left = os.listdir(tmp_path)

    assert 1 == len(left)
    assert [Kind.LEFT] == [entry.kind for entry in await listed(store.walk())]
    assert [Kind.PARTIAL] == [entry.kind for entry in await listed(store.walk(partials=True))]
    assert [1] == [len(step.removed) for step in expire_partials(tmp_path, 0, Present(1 << 62))]
    assert [] == os.listdir(tmp_path)


def test_a_peer_tells_its_space_to_who_has_any_right_there():
    """A file system without a count of files has none on the wire either."""
    for right in Right:
        served = Served(Clock(), {"inbox": frozenset({right})}).introduced()
        store = served.opened()

        assert served.memory.room == served.result(store.space())
        served.memory.room = Space(5, 10, 7)
        assert Space(5, 10, 7) == served.result(store.space())
        served.client_wire.cut()


def test_a_peer_tries_to_write_only_for_who_may_write():
    """Reading and removing do not allow it."""
    served = Served(Clock(), {"inbox": frozenset({Right.READ, Right.REMOVE})}).introduced()
    store = served.opened()

    assert isinstance(served.result(store.try_write()), AccessDenied)
    served.client_wire.cut()


def test_a_peer_that_cannot_write_says_why():
    """The reason of the machine that owns the directory arrives."""
    served = Served(Clock()).introduced()
    served.memory.fail_next["try_write", b""] = NoSpace(".: No space left on device")
    store = served.opened()

    refused = served.result(store.try_write())

    assert (NoSpace, ".: No space left on device") == (type(refused), str(refused))
    assert 0 == served.result(store.try_write())
    served.client_wire.cut()
