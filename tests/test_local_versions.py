"""Which version of a file a local store has read, and what it removes."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from twisted.internet.defer import succeed

from realize.errors import SourceChanged, StorageError
from realize.fs import syscalls
from realize.store.local import hard_links as unlinked
from realize.store.local import removal, versions
from realize.store.local.store import LocalStore
from realize.store.local.versions import Clock
from realize.values import BLOCK_BYTES, Expected, Removal
from tests.local_stores import SALT, DirectoryBehind, at_once, behind, fetched, full, opened, root
from tests.store_helpers import LARGE_CONTENT, block_digests, digest, failure, listed, read_all, read_to_end

__all__ = ["behind", "full", "root"]


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
    assert ["locate", "is_within_backups", "where", "open", "piece", "piece", "release"] == asked


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


async def test_another_file_that_takes_the_name_of_a_hard_link_is_kept(root, behind, monkeypatch):
    """The file that is open has lost a name by that, so it is not what was read any more."""
    store, removals = await linked(root, behind, b"a", b"b")
    behind.plant(b"new", b"another")
    asked = removal.refuse_written

    def refuse_written(fd, path, **options):
        asked(fd, path, **options)
        os.rename(behind.at(b"new"), behind.at(b"a"))

    monkeypatch.setattr(removal, "refuse_written", refuse_written)

    assert [SourceChanged] == [type(answer) for answer in await store.remove(removals[:1])]
    assert behind.content(b"a") == b"another"


async def test_a_write_in_the_middle_of_a_removal_is_not_forgiven(root, behind, monkeypatch):
    """A program that writes to another name while one is removed has changed the file.

    Where a lease is to be had, as here, it would wait until the name is removed; the kernel lets it do so for 45 s.
    """
    monkeypatch.setattr(versions, "is_open_for_writing", lambda fd, **_: False)
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

    assert await store.remove([*one[:3], two[0]]) == [None] * 4
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
