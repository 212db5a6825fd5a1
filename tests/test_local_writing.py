"""Writing to a local store: partials, comparing, what is kept."""

from __future__ import annotations

import fcntl
import os
import threading

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from realize.errors import Busy, ProtocolError, StorageError
from realize.fs import syscalls
from realize.values import MAX_SMALL_BYTES, Committed
from tests.local_stores import PARTIAL, REPLACE, at_once, behind, calls, opened, put, root
from tests.store_helpers import digest, failure, how

__all__ = ["behind", "calls", "root"]


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
