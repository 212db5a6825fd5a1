"""Local stores for tests, and a look behind them."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
import threading
from contextlib import contextmanager

import pytest
from attrs import define
from twisted.internet.defer import maybeDeferred

from realize.fs import ancestors, syscalls
from realize.fs.names import partial_name
from realize.store.local import group_commit
from realize.store.local.store import LocalStore
from realize.store.local.versions import attributes_of
from realize.values import BLOCK_BYTES, Expected, Fetched, OnConflict, Removal, Version
from tests.leftovers import leave_partial
from tests.store_contract import Behind
from tests.store_helpers import digest, failure, small_file

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

    def plant_sparse(self, path, content):
        """Put a final file there that has holes."""
        full = self.at(path)
        with open(full + b"~", "wb") as target:
            for start in range(0, len(content), BLOCK_BYTES):
                block = content[start : start + BLOCK_BYTES]
                target.write(block) if block.strip(b"\0") else target.seek(len(block), os.SEEK_CUR)
            target.truncate(len(content))
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

    def plant_link(self, path, target):
        """Put a symlink there."""
        os.symlink(target, self.at(path))

    def target(self, path):
        """The target of a symlink."""
        try:
            return os.readlink(os.path.join(self.root, path))
        except OSError:
            return None

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


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the system, in order: fsync and syncfs, renames, answers."""
    recorded = []

    def shown(fd):
        return os.readlink(f"/proc/self/fd/{fd}").split("/root", 1)[1]

    # Those above the root are in test_ancestors.py.
    monkeypatch.setattr(ancestors, "fsync_directory", lambda _fd: None)
    fsync, rename = os.fsync, group_commit.rename_noreplace
    monkeypatch.setattr(os, "fsync", lambda fd: recorded.append(("fsync", shown(fd))) or fsync(fd))
    syncfs = lambda fd: recorded.append(("syncfs", shown(fd))) or syscalls.syncfs(fd)  # noqa: E731
    monkeypatch.setattr(group_commit, "syncfs", syncfs)
    renaming = lambda fd, old, new: recorded.append(("rename", new.decode())) or rename(fd, old, new)  # noqa: E731
    monkeypatch.setattr(group_commit, "rename_noreplace", renaming)
    return recorded


def failing(tried):
    """A system call that fails."""

    def fail(*_arguments):
        tried.append(1)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    return fail


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


def open_files(folder):
    """The files below a folder that this process has open."""
    names = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return [name for name in names if name.startswith(f"{os.fsdecode(folder)}/")]
