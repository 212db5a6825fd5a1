"""What is asked of the system at its lowest: how this process was started, and what there is."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import sys

import pytest
from twisted.internet.defer import CancelledError, Deferred

from realize import process
from realize.concurrency import thread_pool
from realize.concurrency.shielded import shielded_opening
from realize.fs import descriptors, syscalls
from tests.processes import printed


@pytest.mark.parametrize(
    ("release", "version"),
    [("5.10.0-21-amd64", (5, 10)), ("6.1-rc3", (6, 13)), ("5.8+", (5, 8)), ("4.x", (4, 0))],
)
def test_the_version_of_the_kernel(monkeypatch, release, version):
    """However it is written; it tells whether syncfs(2) is to be relied upon."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", release, "#1", "x86_64")))

    assert version == syscalls._kernel()


def test_a_function_of_the_library_answers_a_number():
    """And takes the arguments that were declared, no others."""
    getpgid = syscalls._declare("getpgid", ctypes.c_int)

    assert os.getpgid(0) == getpgid(0)
    with pytest.raises(ctypes.ArgumentError):
        getpgid(b"0")


@pytest.mark.parametrize("told", [True, False])
def test_the_umask_is_asked_for_and_not_changed(monkeypatch, told):
    """Also where /proc does not tell it."""
    before = os.umask(0o027)
    try:
        if not told:
            monkeypatch.setattr("builtins.open", lambda *_args: os.stat("/proc/nowhere"))
        found = syscalls.read_umask()
    finally:
        monkeypatch.undo()
        after = os.umask(before)

    assert (0o027, 0o027) == (found, after)


def test_standard_streams_that_were_closed_lead_nowhere(monkeypatch):
    """Reading gives nothing, writing is lost, and the number belongs to nobody else as long as the process lives."""
    names = ("stdin", "stdout", "stderr")
    for name in names:
        monkeypatch.setattr(sys, f"__{name}__", None)
        monkeypatch.setattr(sys, name, None)
    process.hold_standard_streams()
    held = [getattr(sys, name) for name in names]
    originals = [getattr(sys, f"__{name}__") for name in names]
    monkeypatch.undo()
    numbers = [stream.fileno() for stream in held]
    what = [os.readlink(f"/proc/self/fd/{number}") for number in numbers]

    assert held == originals
    assert "" == held[0].read()
    for stream in held[1:]:
        stream.write("lost")
    for stream in held:
        stream.close()
    for number in numbers:
        os.close(number)
    assert [os.devnull] * 3 == what


def test_standard_streams_that_are_there_stay(monkeypatch):
    """Nothing is opened in their place."""
    before = sys.stdin, sys.stdout, sys.stderr
    monkeypatch.setattr(os, "open", lambda *_args: pytest.fail("opened"))
    process.hold_standard_streams()

    assert before == (sys.stdin, sys.stdout, sys.stderr)


def test_as_many_files_may_be_open_as_the_system_allows(monkeypatch):
    """The soft limit is for programs that would not look."""
    made = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 4096 + what))
    monkeypatch.setattr(resource, "setrlimit", lambda *limits: made.append(limits))
    process.allow_many_files()

    assert [(resource.RLIMIT_NOFILE, (4096 + resource.RLIMIT_NOFILE,) * 2)] == made


def test_memory_that_was_freed_is_kept_for_the_next_batch():
    """Content of the size of a batch comes and goes without a page fault for each page of it."""
    code = (
        "import resource\n"
        "from realize.process import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for size in (2 << 20, 10 << 10):\n"
        "        content = [b'x' * size for _ in range((16 << 20) // size)]\n"
        "        del content\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "given_back = [faults() for _ in range(3)][-1]\n"
        "keep_freed_memory()\n"
        "kept = [faults() for _ in range(3)][-1]\n"
        "print(given_back, kept)\n"
    )
    given_back, kept = map(int, printed(code))

    assert given_back > 1000
    assert kept < given_back / 10


def test_an_error_of_closing_keeps_no_other_open():
    """All are closed, also behind one that was closed already."""
    first, second = os.pipe()
    os.close(first)
    descriptors.release(first, second)

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second)


def test_who_has_no_memory_waits_a_little(monkeypatch):
    """To ask again at once would keep others from letting go of some."""
    slept, tried = [], []
    monkeypatch.setattr(thread_pool.time, "sleep", slept.append)

    def act(what):
        tried.append(what)
        if len(tried) < 3:
            raise MemoryError

    thread_pool._insist(act, "x")

    assert (["x"] * 3, [thread_pool.ANNOUNCE_RETRY_S] * 2) == (tried, slept)


def test_what_was_opened_for_somebody_is_his():
    """And for who has given it up meanwhile it is released."""
    released, coming = [], []

    @shielded_opening(released.append)
    async def open_later():
        coming.append(Deferred())
        return await coming[-1]

    results = []
    wanted, unwanted = (open_later().addBoth(results.append) for _ in range(2))
    unwanted.cancel()
    for number, each in enumerate(coming):
        each.callback(number)

    assert wanted.called
    assert [1] == released
    assert results[0].check(CancelledError)
    assert 0 == results[1]


FUSE, NFS, CIFS, EXT4, FAT = 0x65735546, 0x6969, 0xFF534D42, 0xEF53, 0x4D44


@pytest.mark.parametrize(
    ("kind", "whole", "fresh", "modes", "old", "renames"),
    [
        (EXT4, True, True, True, False, False),
        (FUSE, False, False, True, True, True),
        (NFS, False, False, True, False, True),
        (CIFS, False, False, False, False, True),
        (FAT, False, False, False, False, False),
    ],
)
def test_what_kinds_of_file_systems_do(monkeypatch, kind, whole, fresh, modes, old, renames):
    """By the number that statfs(2) gives them."""
    monkeypatch.setattr(syscalls, "HAVE_SYNCFS", True)
    monkeypatch.setattr(syscalls, "file_system", lambda fd: {7: kind}[fd])

    assert whole is syscalls.syncs_as_a_whole(7)
    assert fresh is syscalls.always_fresh(7)
    assert modes is syscalls.keeps_modes(7)
    assert old is syscalls.may_keep_old_content(7)
    assert renames is syscalls.renames_what_is_open(7)


@pytest.mark.parametrize("call", [syscalls.syncfs, syscalls.file_system])
def test_a_call_of_the_library_that_fails_is_an_error(call):
    """As it is with those of Python."""
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        call(-1)

    assert errno.EBADF == caught.value.errno


def test_the_number_of_a_file_system_has_no_sign(monkeypatch):
    """Where the system says it as a number that may be negative."""

    def fstatfs(fd, answer):
        answer[0], answer[1] = syscalls.BTRFS - (1 << 32), 4096
        return 0

    monkeypatch.setattr(syscalls, "_fstatfs", fstatfs)

    assert syscalls.BTRFS == syscalls.file_system(7)


def test_the_umask_is_never_wide_open(monkeypatch):
    """Where it can only be found out by changing it, what another thread makes in that instant is private."""
    made = []

    def umask(mask):
        made.append(mask)
        return 0o022

    monkeypatch.setattr("builtins.open", refusing(errno.ENOENT))
    monkeypatch.setattr(os, "umask", umask)
    found = syscalls.read_umask()
    monkeypatch.undo()

    assert (0o022, [0o077, 0o022]) == (found, made)


def failing(number):
    """A function of the library that fails so."""

    def fail(*_args):
        ctypes.set_errno(number)
        return -1

    return fail


def refusing(number):
    """A function of Python that fails so."""

    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture
def directory(tmp_path):
    """A directory with a file and names that are taken: by another file, and by a symlink that leads nowhere."""
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "taken").write_bytes(b"taken")
    (tmp_path / "link").symlink_to("nowhere")
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


WAYS = {
    "the kernel's": {},
    "links": {"_renameat2": None},
    "links, for the file system has nothing better": {"_renameat2": failing(errno.EINVAL)},
    "a look": {"_renameat2": None, "link": refusing(errno.EPERM)},
}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """How a file is renamed to a name that is free."""
    for name, call in WAYS[request.param].items():
        monkeypatch.setattr(os if name == "link" else syscalls, name, call)
    return request.param


def test_a_file_is_renamed_to_a_name_that_is_free(directory, way):
    """Whichever way: then it has no other name any more."""
    syscalls.rename_noreplace(directory, b"old", b"new")

    assert {"new", "taken", "link"} == set(os.listdir(directory))
    assert 1 == os.stat("new", dir_fd=directory).st_nlink


def test_a_symlink_is_renamed_as_such(directory, way):
    """What it leads to has nothing to do with it."""
    syscalls.rename_noreplace(directory, b"link", b"new")

    assert {"new", "taken", "old"} == set(os.listdir(directory))
    assert "nowhere" == os.readlink("new", dir_fd=directory)


@pytest.mark.parametrize("name", [b"taken", b"link"])
def test_no_name_that_is_taken_is_renamed_to(directory, way, name):
    """Whatever has it; a symlink is not what it leads to."""
    before = os.stat(name, dir_fd=directory, follow_symlinks=False)
    with pytest.raises(FileExistsError) as caught:
        syscalls.rename_noreplace(directory, b"old", name)

    assert (errno.EEXIST, "File exists") == (caught.value.errno, caught.value.strerror)
    assert before.st_ino == os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino
    assert {"old", "taken", "link"} == set(os.listdir(directory))


@pytest.mark.parametrize(
    "calls", [{"_renameat2": failing(errno.EIO)}, {"_renameat2": None, "link": refusing(errno.EIO)}]
)
def test_a_rename_that_fails_is_not_tried_another_way(directory, monkeypatch, calls):
    """Only where the file system has no such call: another error may be gone the next time, and is told."""
    for name, call in calls.items():
        monkeypatch.setattr(os if name == "link" else syscalls, name, call)
    with pytest.raises(OSError, match="Input/output error"):
        syscalls.rename_noreplace(directory, b"old", b"new")

    assert {"old", "taken", "link"} == set(os.listdir(directory))


@pytest.mark.parametrize("statx", ["there", "missing", "refused"])
def test_the_status_of_a_symlink_is_its_own(directory, monkeypatch, statx):
    """Whether the kernel is asked for a fresh one or that is not to be had."""
    if statx != "there":
        monkeypatch.setattr(syscalls, "_statx", failing(errno.EPERM) if statx == "refused" else None)
    fresh, known = (
        syscalls.fresh_stat(b"link", directory),
        os.stat("link", dir_fd=directory, follow_symlinks=False),
    )

    for name in syscalls.RawStatus._fields:
        assert getattr(known, name) == getattr(fresh, name), name
    assert os.fstat(directory).st_ino == syscalls.fresh_fstat(directory).st_ino


def test_a_status_that_cannot_be_had_is_an_error(directory, monkeypatch):
    """It is not asked for another way, which would answer from a cache."""
    with pytest.raises(FileNotFoundError):
        syscalls.fresh_stat(b"nothing", directory)
    monkeypatch.setattr(syscalls, "_statx", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        syscalls.fresh_stat(b"old", directory)
    with pytest.raises(OSError, match="Input/output error"):
        syscalls.fresh_fstat(directory)


def test_when_something_was_made(directory, monkeypatch):
    """The first moment that a file system tells of; 0 where it tells of none."""
    asked = []

    def statx(known):
        def call(fd, name, flags, wanted, answer):
            asked.append((fd, name, flags, wanted))
            syscalls._STATX_BIRTH.pack_into(answer, 0, known, 5, 7)
            return 0

        return call

    monkeypatch.setattr(syscalls, "_statx", statx(0x7FF | 0x800))
    assert [5_000_000_007] * 2 == [syscalls.birth_ns(9), syscalls.birth_ns(9, b"name")]
    assert [(9, b"", 0x1000, 0x800), (9, b"name", 0x100, 0x800)] == asked
    for call in (statx(0x7FF), None, failing(errno.ENOSYS)):
        monkeypatch.setattr(syscalls, "_statx", call)
        assert 0 == syscalls.birth_ns(directory)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_directory_need_not_be_durable_where_it_cannot_be(monkeypatch, number):
    """Any other error says that it is not."""
    monkeypatch.setattr(os, "fsync", refusing(number))
    if number == errno.EINVAL:
        syscalls.fsync_directory(0)
    else:
        with pytest.raises(OSError, match="Input/output error"):
            syscalls.fsync_directory(0)


def test_writing_back_is_begun_for_a_range_and_not_waited_for(monkeypatch):
    """That it fails, where a file system has no such thing, is of no matter."""
    asked = []
    monkeypatch.setattr(syscalls, "_sync_file_range", lambda *arguments: asked.append(arguments) or -1)
    syscalls.start_writeback(7, 4096, 8192)

    sync_file_range_write = 2
    assert [(7, 4096, 8192, sync_file_range_write)] == asked
