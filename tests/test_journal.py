"""What is answered as durable on a file system with a journal, whatever others sync meanwhile, and whenever it dies.

The journal is a model of those of XFS and ext4: all changes in order, of which an fsync writes what comes before the
last change of its own inode. Real ones write more, unless somebody else has synced in between.
When it cannot be written any more, somebody else is told, once: an fsync has nothing left to wait for then, and
succeeds. Names are refused from then on; a change of attributes is dropped without a word the first time.
"""

from __future__ import annotations

import errno
import os
import stat

import pytest

from realize.errors import RealizeError
from realize.extras import Extras, Owner
from realize.fs import durable, syscalls
from realize.store.hooks import CommitHooks
from realize.store.local import group_commit, links
from realize.store.local import small_files as small
from realize.store.local.headroom import Headroom
from realize.values import Directory, Expected, HardLink, OnConflict, Symlink
from tests.local_stores import REPLACE, SALT, DirectoryBehind, at_once, behind, opened, root
from tests.store_helpers import digest, small_file

__all__ = ["behind", "root"]


class Journal:
    """Notes the changes that the code makes, and which of them a power cut would leave."""

    def __init__(self, dies_after=None):
        self.dies_after = dies_after
        """How many changes are made before it cannot be written any more."""
        self.noticed = False
        """Whether the file system knows that it is dead."""
        self.log = []
        self.written = 0
        self.last = {}

    @property
    def dead(self):
        """Whether nothing is written any more."""
        return self.dies_after is not None and len(self.log) >= self.dies_after

    def change(self, what, *inodes, silently=False):
        """Note a change of these inodes; one of ``what`` None need not last."""
        if self.dead:
            if not silently or self.noticed:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            self.noticed = True
            return
        self.log.append(what)
        self.last |= dict.fromkeys(inodes, len(self.log))

    def sync(self, inode=None):
        """Write what comes before the last change of an inode, or everything."""
        if self.noticed:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if not self.dead:
            self.written = max(self.written, len(self.log) if inode is None else self.last.get(inode, 0))

    def missing(self):
        """What a power cut would take."""
        return [what for what in self.log[self.written :] if what is not None]


def install(journal, monkeypatch):
    """Let all changes that the code makes be noted."""

    def inode(fd):
        return os.fstat(fd).st_ino

    def named(name, directory):
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino

    def naming(module, call, directory_of):
        original = getattr(module, call)

        def changing(*arguments, **named_arguments):
            result = original(*arguments, **named_arguments) if not journal.dead else None
            directory = directory_of(arguments, named_arguments)
            journal.change((call, *map(str, arguments)), inode(directory))
            return result

        monkeypatch.setattr(module, call, changing)

    naming(os, "symlink", lambda _, given: given["dir_fd"])
    naming(os, "mkdir", lambda _, given: given["dir_fd"])
    naming(os, "link", lambda _, given: given["dst_dir_fd"])
    naming(os, "rename", lambda _, given: given["dst_dir_fd"])
    naming(group_commit, "rename_noreplace", lambda given, _: given[0])
    naming(links, "rename_exchange", lambda given, _: given[0])
    utime, chown, fchmod, fchown, fsync = os.utime, os.chown, os.fchmod, os.fchown, os.fsync

    def change_time(name, **given):
        if "dir_fd" in given:
            journal.change(("utime", str(name)), named(name, given["dir_fd"]), silently=True)
        elif isinstance(name, int) and stat.S_ISDIR(os.fstat(name).st_mode):
            journal.change(("utime", os.readlink(f"/proc/self/fd/{name}")), inode(name), silently=True)
        utime(name, **given)

    def change_owner(path, uid, gid):
        journal.change(("chown", path), os.stat(path).st_ino, silently=True)
        chown(path, uid, gid)

    def change_mode(fd, mode):
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        # That of a partial is synced with it, or is without its mark.
        what = ("fchmod", os.readlink(f"/proc/self/fd/{fd}")) if is_directory else None
        journal.change(what, inode(fd), silently=True)
        fchmod(fd, mode)

    def change_nothing(fd, uid, gid):
        journal.change(None, inode(fd), silently=True)
        fchown(fd, uid, gid)

    def sync(fd):
        journal.sync(inode(fd))
        fsync(fd)

    monkeypatch.setattr(os, "utime", change_time)
    monkeypatch.setattr(os, "chown", change_owner)
    monkeypatch.setattr(os, "fchmod", change_mode)
    monkeypatch.setattr(os, "fchown", change_nothing)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(group_commit, "syncfs", lambda _fd: journal.sync())


OWNER = Extras(Owner(os.geteuid(), 12345 if os.geteuid() == 0 else os.getegid()), numeric=True)


async def put_symlinks(store):
    """Symlinks with a time and an owner, in two directories."""
    return await store.put_links([Symlink(path, b"x", 10**9, OWNER) for path in (b"l", b"d/m")], OnConflict.FAIL)


async def replace_symlink(store):
    """One in the place of another one, and one that is there."""
    return await store.put_links([Symlink(path, b"x", 10**9, OWNER) for path in (b"old", b"there")], REPLACE)


async def put_many_symlinks(store):
    """More than are synced by their directory."""
    return await store.put_links([Symlink(b"l%d" % number, b"x", 10**9, OWNER) for number in range(20)], REPLACE)


async def link(store):
    """Further names of a file."""
    return await store.link_files([HardLink(path, b"known", digest(b"known")) for path in (b"e/f", b"g")])


async def put_files(store):
    """A few small files, in two directories."""
    return await store.put_small([small_file(path, b"x") for path in (b"f", b"d/g", b"h")], REPLACE)


async def put_many_files(store):
    """More than are synced one by one, in many directories."""
    return await store.put_small([small_file(b"%d/f" % number, b"x") for number in range(12)], REPLACE)


async def put_by_two(store):
    """Files from two connections in one directory, in one group."""
    other = await opened(store._location.root.path)
    prepared, answers = [], []
    for each, path in ((store, b"d/one"), (other, b"d/two")):
        batch = small.write_batch(
            each._location, [small_file(path, b"x")], REPLACE, SALT, CommitHooks(), Headroom(at_once), None
        )
        prepared += batch.prepared()
        answers += [item for item in batch.items if isinstance(item, RealizeError)]
    return answers + group_commit.commit_group(prepared, CommitHooks())


async def put_large(store):
    """A file that is written piece by piece."""
    writing = await store.open_writer(b"d/large", 1, REPLACE)
    await writing.write([b"x"])
    return [await writing.commit(digest(b"x"), None)]


async def set_directories(store):
    """The final mode and time of a directory; and of more than are synced one by one."""
    return await store.set_directories([Directory(b"full/deep", 0o750, 10**9), Directory(b"full", 0o511, 10**9)])


async def set_one_directory(store):
    """Of one that keeps its mode."""
    return await store.set_directories([Directory(b"full", 0o755, 10**9)])


async def find_there(store):
    """A file that somebody else may just have written."""
    return await store.settle([Expected(b"known", 5, digest(b"known"))])


KINDS = [
    put_symlinks,
    replace_symlink,
    put_many_symlinks,
    link,
    put_files,
    put_many_files,
    put_by_two,
    put_large,
    set_directories,
    set_one_directory,
    find_there,
]


async def tried(kind, root, behind, monkeypatch, journal):
    """The answers on that journal, of a store that has put a file, and knows it."""
    for path in (b"old", b"there"):
        behind.plant_link(path, b"x" if path == b"there" else b"old")
    os.makedirs(behind.at(b"full/deep"))
    store = await opened(root)
    await store.link_files([])
    await store.put_small([small_file(b"known", b"known")], REPLACE)
    if kind is replace_symlink:
        await store.read_links([b"old"])  # waits until it is older than the run
        await store.open(b"salt")
    with monkeypatch.context() as patches:
        install(journal, patches)
        try:
            return await kind(store)
        except RealizeError as error:
            return [error]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_answered_is_durable(root, behind, monkeypatch, kind):
    """With its name, and with what it was given."""
    journal = Journal()

    answers = await tried(kind, root, behind, monkeypatch, journal)

    assert [] == [answer for answer in answers if isinstance(answer, RealizeError) or not answer]
    assert journal.log
    assert [] == journal.missing()


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_answered_as_durable_when_the_journal_has_died(tmp_path, monkeypatch, kind):
    """Whenever that is, and though an fsync says that all is well, since the error was told to another one."""
    dies_after, whole = 0, None
    while whole is None or dies_after < whole:
        place = os.fsencode(tmp_path / str(dies_after))
        os.mkdir(place)
        journal = Journal(dies_after=dies_after)

        answers = await tried(kind, place, DirectoryBehind(place), monkeypatch, journal)

        assert all(isinstance(answer, RealizeError) or not answer for answer in answers) or not journal.missing()
        dies_after += 1
        if not journal.dead:
            whole = dies_after
    assert dies_after > 1


@pytest.fixture
def asked(monkeypatch):
    """The directories that were to be changed; set ``error`` for what the system says."""

    class Asked(list):
        error = None

    asked = Asked()

    def fchown(fd, uid, gid):
        asked.append((fd, uid, gid))
        if asked.error is not None:
            raise OSError(asked.error, os.strerror(asked.error))

    monkeypatch.setattr(os, "fchown", fchown)
    return asked


@pytest.mark.parametrize("magic", [0xEF53, 0x58465342, 0x794C7630, 0x2FC12FC1], ids=["ext4", "XFS", "overlay", "ZFS"])
@pytest.mark.parametrize("error", [None, errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EIO, errno.EROFS])
def test_a_file_system_that_takes_no_changes_is_dead(asked, monkeypatch, magic, error):
    """Whichever it is; one that does not let itself be asked is believed."""
    monkeypatch.setattr(syscalls, "file_system", lambda _fd: magic)
    asked.error = error

    if error in {errno.EIO, errno.EROFS}:
        with pytest.raises(OSError, match=os.strerror(error)):
            durable.refuse_dead(7)
    else:
        durable.refuse_dead(7)
    assert {(7, -1, -1)} == set(asked)


@pytest.mark.parametrize("magic", [0x6969, 0x65735546, 0xFF534D42], ids=["NFS", "FUSE", "CIFS"])
def test_servers_are_not_asked(asked, monkeypatch, magic):
    """It would be a round trip, and they answer for their disks themselves."""
    monkeypatch.setattr(syscalls, "file_system", lambda _fd: magic)

    durable.refuse_dead(7)

    assert [] == asked
