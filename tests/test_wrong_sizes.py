"""Files that have more, or less, content than their size says: what was read of them is never taken for the whole."""

import os
import stat

import pytest
from twisted.internet.task import Clock

from realize.errors import RealizeError, SourceChanged, WrongSize
from realize.fs import syscalls
from realize.store.local.store import LocalStore
from realize.values import BLOCK_BYTES, Expected, Fetched
from tests.local_stores import SALT, at_once, opened
from tests.store_helpers import block_digests, digest, failure, random_bytes, read_all
from tests.test_remote_store import Served

CONTENT = random_bytes(3 * BLOCK_BYTES + 1000)


@pytest.fixture
def root(tmp_path):
    """A directory with a file ``f``."""
    path = os.fsencode(tmp_path / "root")
    os.mkdir(path)
    with open(os.path.join(path, b"f"), "wb") as file:
        file.write(CONTENT)
    return path


@pytest.fixture
def claim(monkeypatch):
    """Make the status of every regular file say that it has so many bytes, as a mount may do."""

    def claim(size):
        def claiming(call):
            def status(*arguments, **options):
                found = call(*arguments, **options)
                if not stat.S_ISREG(found.st_mode):
                    return found
                if isinstance(found, syscalls.RawStatus):
                    return found._replace(st_size=size)
                return os.stat_result((*found[:6], size, *found[7:]), times(found))

            return status

        def times(found):
            return {name: getattr(found, name) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_blocks")}

        for name in ("stat", "fstat"):
            monkeypatch.setattr(os, name, claiming(getattr(os, name)))
        monkeypatch.setattr(syscalls, "_look", claiming(syscalls._look))

    return claim


async def read(store):
    """As a large file is read: from start to end."""
    reader = await store.open_reader(b"f")
    try:
        await read_all(reader)
        return await reader.finish()
    finally:
        reader.close()


async def skip(store):
    """As a file that is there already is read: compared and skipped, to its end."""
    reader = await store.open_reader(b"f")
    try:
        await reader.block_digests(reader.version.size)
        await reader.skip(reader.version.size)
        return await reader.finish()
    finally:
        reader.close()


async def skip_and_read(store):
    """As a file that was interrupted is read: its beginning is skipped."""
    reader = await store.open_reader(b"f")
    try:
        await reader.skip(min(BLOCK_BYTES, reader.version.size))
        await read_all(reader)
        return await reader.finish()
    finally:
        reader.close()


async def pick(store):
    """As a file that replaces an older version is read: cut, and half of it picked."""
    reader = await store.open_reader(b"f")
    try:
        while chunks := await reader.cut():
            await reader.pick([bool(number % 2) for number in range(len(chunks))])
        return await reader.finish()
    finally:
        reader.close()


async def small(store):
    """As a small file is read."""
    [answer] = await store.read_small([b"f"])
    if isinstance(answer, RealizeError):
        raise answer
    return answer.file.digest


READINGS = pytest.mark.parametrize("reading", [read, skip, skip_and_read, pick, small])


@READINGS
@pytest.mark.parametrize("size", [0, 1, 1000, BLOCK_BYTES, 2 * BLOCK_BYTES - 1])
async def test_more_content_than_the_size_says(root, claim, reading, size):
    """However it is read, there is no digest of a file that goes on behind its size: it could not be whole."""
    claim(size)

    error = await failure(reading(await opened(root)))

    assert isinstance(error, WrongSize)
    assert error.permanent
    assert str(error) == (
        f"f: has more content than its size of {size} bytes says (is it on a network or cloud mount?), "
        "so it was left alone"
    )


@READINGS
async def test_less_content_than_the_size_says(root, claim, reading):
    """Nor of one that ends before it."""
    os.truncate(os.path.join(root, b"f"), 2 * BLOCK_BYTES - 5000)
    claim(2 * BLOCK_BYTES)

    error = await failure(reading(await opened(root)))

    assert isinstance(error, WrongSize)
    assert "less content than its size of" in str(error)


@READINGS
async def test_a_file_that_has_just_grown_has_changed(root, monkeypatch, reading):
    """It is read again later, with its new size."""
    store = await opened(root)
    os.truncate(os.path.join(root, b"f"), BLOCK_BYTES)
    pread, preadv = os.pread, os.preadv

    def grow(*_):
        with open(os.path.join(root, b"f"), "ab") as file:
            file.write(b"more")

    monkeypatch.setattr(os, "pread", lambda *arguments: (grow(), pread(*arguments))[1])
    monkeypatch.setattr(os, "preadv", lambda *arguments: (grow(), preadv(*arguments))[1])

    assert isinstance(await failure(reading(store)), SourceChanged)


async def test_a_short_read_is_not_the_end(root, monkeypatch):
    """A file system may give less at a time than it is asked for."""
    os.truncate(os.path.join(root, b"f"), 10_000)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 700), offset))

    [answer] = await (await opened(root)).read_small([b"f"])

    assert isinstance(answer, Fetched)
    assert answer.file.content == CONTENT[:10_000]


@READINGS
async def test_what_the_kernel_makes_up_has_no_size(reading):
    """Files of /proc say 0."""
    store = LocalStore("/proc/sys/kernel", run_in_thread=at_once)
    await store.open(SALT)
    original = store.open_reader, store.read_small
    store.open_reader = lambda _: original[0](b"ostype")
    store.read_small = lambda _: original[1]([b"ostype"])

    assert isinstance(await failure(reading(store)), WrongSize)


@pytest.mark.parametrize("size", [0, 1000, BLOCK_BYTES])
async def test_a_final_file_with_more_behind_its_size_is_another_one(root, claim, size):
    """A source whose content is only the beginning of it is not there already."""
    claim(size)
    store = await opened(root)

    settled = await store.settle([Expected(b"f", size, digest(CONTENT[:size]))])
    matching = store.match_final(b"f", size, 0, block_digests(CONTENT[:size]))

    assert [False] == settled
    assert (await matching if size else type(await failure(matching)).__name__) in (0, "NotFound")


@pytest.mark.parametrize("size", [0, 1000, BLOCK_BYTES])
@READINGS
def test_a_daemon_that_serves_such_files_says_so(root, claim, size, reading):
    """What is fetched from it ends with that error instead of a digest."""
    claim(size)
    served = Served(Clock()).introduced()
    served.memory = LocalStore(root, run_in_thread=at_once)

    assert isinstance(served.result(reading(served.opened())), WrongSize)
    served.client_wire.cut()
