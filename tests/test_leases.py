"""Whether a program has a file open for writing is asked of the kernel, and nobody is harmed by the question."""

import errno
import fcntl
import mmap
import os
import signal
import subprocess
import sys

import pytest

from realize.errors import Busy, SourceChanged
from realize.fs import syscalls
from realize.store.local import existing
from realize.store.local.store import LocalStore
from realize.values import BLOCK_BYTES, Expected, Fetched, OnConflict, Removal
from tests.local_stores import SALT, at_once, opened
from tests.store_helpers import block_digests, digest, failure, random_bytes, read_to_end

LARGE = random_bytes(BLOCK_BYTES + 7)


@pytest.fixture
def root(tmp_path):
    """A directory with a file ``f``."""
    path = os.fsencode(tmp_path / "root")
    os.mkdir(path)
    with open(os.path.join(path, b"f"), "wb") as file:
        file.write(LARGE)
    return path


@pytest.fixture
def file(root):
    """The file, open to be read."""
    with open(os.path.join(root, b"f"), "rb") as file:
        yield file


def test_nobody_writes(file):
    """Readers do not count, and the lease is given back: whoever opens the file for writing need not wait."""
    with open(file.name, "rb"):
        assert not syscalls.is_open_for_writing(file.fileno())
    assert fcntl.F_UNLCK == fcntl.fcntl(file.fileno(), fcntl.F_GETLEASE)
    os.close(os.open(file.name, os.O_WRONLY | os.O_NONBLOCK))


def test_a_lease_ends_with_the_descriptor(file):
    """Who closes the file in a moment need not give it back first; whoever opens it for writing waits that long."""
    fd = os.open(file.name, os.O_RDONLY)
    assert not syscalls.is_open_for_writing(fd, closing=True)
    assert fcntl.F_RDLCK == fcntl.fcntl(fd, fcntl.F_GETLEASE)
    with pytest.raises(BlockingIOError):
        os.open(file.name, os.O_WRONLY | os.O_NONBLOCK)
    os.close(fd)
    os.close(os.open(file.name, os.O_WRONLY | os.O_NONBLOCK))


def test_who_opens_the_file_meanwhile_ends_nobody(file, monkeypatch):
    """The signal that the holder of a lease gets then is one that is ignored; the one it would be kills."""
    f_getsig, call, signals = 11, fcntl.fcntl, []  # fcntl(2); Python has no name for it

    def asking(fd, command, *arguments):
        if command == fcntl.F_SETLEASE:
            signals.append(call(fd, f_getsig))
        return call(fd, command, *arguments)

    monkeypatch.setattr(fcntl, "fcntl", asking)
    assert not syscalls.is_open_for_writing(file.fileno())

    assert [signal.SIGURG] * 2 == signals


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_somebody_writes(file, flags):
    """Until it is closed."""
    fd = os.open(file.name, flags)
    assert syscalls.is_open_for_writing(file.fileno())
    os.close(fd)
    assert not syscalls.is_open_for_writing(file.fileno())


def test_somebody_has_it_mapped(file):
    """A shared mapping counts, also when the file was closed."""
    with open(file.name, "r+b") as writer:
        mapped = mmap.mmap(writer.fileno(), 0)
    assert syscalls.is_open_for_writing(file.fileno())
    mapped.close()
    assert not syscalls.is_open_for_writing(file.fileno())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EPERM])
def test_where_no_lease_is_to_be_had(file, monkeypatch, number):
    """For files of others, and on file systems without leases, nobody is known to write."""
    refuse(monkeypatch, number)

    with open(file.name, "r+b"):
        assert not syscalls.is_open_for_writing(file.fileno())


@pytest.mark.parametrize(("kind", "known"), [(0x6969, False), (0xFF534D42, False), (0xFE534D42, False), (0xEF53, True)])
def test_network_file_systems_answer_about_their_server(file, monkeypatch, kind, known):
    """NFS and SMB say EAGAIN when the server has not granted anything, which proves nothing."""
    refuse(monkeypatch, errno.EAGAIN)
    monkeypatch.setattr(syscalls, "file_system", lambda _: kind)

    assert known is syscalls.is_open_for_writing(file.fileno())


def refuse(monkeypatch, number):
    """No lease is given."""

    def refused(_fd, command, _argument=0):
        if command == fcntl.F_SETLEASE:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "fcntl", refused)


ASKING = """
import sys, os
from realize.fs.syscalls import is_open_for_writing
fd = os.open(sys.argv[1], os.O_RDONLY)
print("asking", flush=True)
while os.path.exists(sys.argv[1]):
    is_open_for_writing(fd)
print("done", flush=True)
"""


def test_a_break_of_the_lease_ends_nobody(file):
    """While a process with the default disposition of all signals asks, another one opens the file again and again."""
    asking = subprocess.Popen([sys.executable, "-c", ASKING, file.name], stdout=subprocess.PIPE, text=True)
    assert "asking\n" == asking.stdout.readline()
    for _ in range(20_000):
        os.close(os.open(file.name, os.O_WRONLY))
    os.unlink(file.name)

    assert ("done\n", 0) == (asking.stdout.read(), asking.wait())
    asking.stdout.close()


HOLDING = """
import fcntl, os, signal, sys
broken = []
signal.signal(signal.SIGIO, lambda *_: broken.append(1))
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
while not broken:
    signal.pause()
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
os.close(fd)
print("let go", flush=True)
"""


async def test_the_lease_of_another_program(root):
    """It is asked to let go, which is not waited for: the file is busy, and is read the next time."""
    store = await opened(root)
    path = os.path.join(root, b"f")
    holding = subprocess.Popen([sys.executable, "-c", HOLDING, path], stdout=subprocess.PIPE, text=True)
    assert "held\n" == holding.stdout.readline()

    [answer] = await store.read_small([b"f"], removing=True)

    assert isinstance(answer, Busy)
    assert str(answer) == "f: another program has a lease on it"
    assert ("let go\n", 0) == (holding.stdout.read(), holding.wait())
    holding.stdout.close()
    [answer] = await store.read_small([b"f"], removing=True)
    assert isinstance(answer, Fetched)


async def test_stores_through_a_mapping(root):
    """A page that is dirty already takes more stores without a new time: nothing of it is read to be moved."""
    with open(os.path.join(root, b"f"), "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    mapped[0:4] = b"1234"
    store = await opened(root)
    [small] = await store.read_small([b"f"], removing=True)
    assert isinstance(small, SourceChanged)

    [copied] = await store.read_small([b"f"])
    mapped[0:4] = b"5678"
    [refused] = await store.remove([Removal(b"f", copied.version)])

    assert isinstance(refused, SourceChanged)
    mapped.close()
    [read] = await store.read_small([b"f"], removing=True)
    assert read.file.content.startswith(b"5678")


def map_to_write(path):
    """What a program does that stores into a file without its time being changed again."""
    with open(path, "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    mapped[0:1] = LARGE[0:1]
    return mapped


async def test_stores_into_a_final_file_between_two_comparisons(root, monkeypatch):
    """What was compared first may be another content by now, though the program is gone and the times are the same.

    As in a file system in memory: elsewhere the first comparison has the page written, and the store gets a new time.
    """
    monkeypatch.setattr(existing, "drop_cache", lambda _fd: None)
    path, times = os.path.join(root, b"f"), []
    # The kernel may write the page to the disk at any time, and the next store gets a new time then.
    while not times or len(set(times[-2:])) > 1:
        with open(path, "wb") as file:
            file.write(LARGE)
        store = await opened(root)
        mapped = map_to_write(path)
        half = await store.match_final(b"f", len(LARGE), 0, block_digests(LARGE)[:1])
        times.append(os.stat(path).st_ctime_ns)
        mapped[0:4] = b"1234"
        mapped.close()
        times.append(os.stat(path).st_ctime_ns)

    error = await failure(store.match_final(b"f", len(LARGE), BLOCK_BYTES, block_digests(LARGE)[1:]))

    assert half == BLOCK_BYTES
    assert isinstance(error, Busy)


@pytest.mark.parametrize("large", [False, True])
async def test_a_final_file_that_is_opened_for_writing_while_it_is_compared(root, monkeypatch, large):
    """Somebody may write to it as soon as it was vouched for."""
    store = await opened(root)
    fsync, writers = os.fsync, []

    def come(fd):
        fsync(fd)
        writers.append(open(os.path.join(root, b"f"), "r+b"))  # noqa: SIM115 -- it stays open

    monkeypatch.setattr(os, "fsync", come)

    if large:
        answer = await failure(store.match_final(b"f", len(LARGE), 0, block_digests(LARGE)))
    else:
        [answer] = await store.settle([Expected(b"f", len(LARGE), digest(LARGE))])

    assert isinstance(answer, Busy)
    for each in writers:
        each.close()


@pytest.mark.parametrize("size", [0, BLOCK_BYTES + 7])
async def test_an_identical_final_file_that_is_written_to(root, size):
    """Somebody may write to it at once, so the source is not to be removed because of it."""
    os.truncate(os.path.join(root, b"f"), size)
    store = await opened(root)
    content = LARGE[:size]

    with open(os.path.join(root, b"f"), "ab"):
        [settled] = await store.settle([Expected(b"f", size, digest(content))])
        matched = await failure(store.match_final(b"f", size, 0, block_digests(content)))

    assert isinstance(settled, Busy)
    assert isinstance(matched, Busy)
    assert str(matched) == "f: has the same content, but is open for writing by another program"
    assert [True] == await store.settle([Expected(b"f", size, digest(content))])


@pytest.mark.parametrize("links", [1, 2])
async def test_a_writer_that_has_not_written_yet(root, links):
    """It opened the file after it was read, under whichever of its names, and may write when it is gone: it stays."""
    path = os.path.join(root, b"f")
    if links == 2:
        os.link(path, path + b"2")
    store = await opened(root)
    reader = await store.open_reader(b"f", removing=True)
    assert digest(LARGE) == await read_to_end(reader)
    reader.close()

    with open(path + b"2" * (links - 1), "r+b"):
        [refused] = await store.remove([Removal(b"f", reader.version)])

    assert isinstance(refused, SourceChanged)
    assert str(refused) == "f: is open for writing by another program"
    assert [None] == await store.remove([Removal(b"f", reader.version)])
    assert not os.path.exists(path)


async def test_what_has_just_arrived_is_not_open_any_more(root):
    """Who commits a file lets go of it before the answer, so that it can move on at once."""
    for store in (await opened(root), LocalStore(root, run_in_thread=at_once)):
        await store.open(SALT)
        writer = await store.open_writer(b"new", len(LARGE), OnConflict.REPLACE)
        await writer.write([LARGE])
        await writer.commit(digest(LARGE), None)

        reader = await store.open_reader(b"new", removing=True)
        reader.close()


@pytest.mark.parametrize("put", [os.symlink, None])
async def test_what_is_put_in_the_place_of_a_source_is_kept(root, put):
    """A symlink or a FIFO under its name, which are not opened, are not what was read."""
    store = await opened(root)
    [read] = await store.read_small([b"f"])
    path = os.path.join(root, b"f")
    os.rename(path, path + b"2")
    if put:
        put(path + b"2", path)
    else:
        os.mkfifo(path)

    [refused] = await store.remove([Removal(b"f", read.version)])

    assert isinstance(refused, SourceChanged)
    assert os.path.lexists(path)
    assert isinstance(await failure(store.open_reader(b"f")), Exception)
