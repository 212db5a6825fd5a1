"""Where a Unix socket may be made, what is in its place, and what becomes of it: `realize.fs.socket_files`."""

import errno
import fcntl
import os
import shutil
import socket
import stat
import tempfile

import pytest

from realize.errors import UsageError
from realize.fs import socket_files
from realize.fs.socket_files import MAX_SOCKET_PATH_BYTES, SocketFile


@pytest.fixture
def bind():
    """Makes sockets, and closes them at the end; as a program that dies, without removing them."""
    made = []

    def make(path, *, listens=True):
        made.append(socket.socket(socket.AF_UNIX))
        made[-1].bind(str(path))
        if listens:
            made[-1].listen()
        return made[-1]

    yield make
    for each in made:
        each.close()


def make(path, bind):
    """Make a socket in the way of the daemon."""
    file = SocketFile(str(path))
    with file.making():
        bind(path)
    return file


def refused(path):
    """Why there can be no socket."""
    with pytest.raises(UsageError) as raised, SocketFile(str(path)).making():
        pytest.fail("it could be made")
    return str(raised.value)


def test_a_missing_directory_is_made_for_ourselves_alone(tmp_path, bind):
    """The one that the socket is in, and no other one."""
    make(tmp_path / "realize" / "c", bind)

    assert 0o700 == stat.S_IMODE((tmp_path / "realize").stat().st_mode)
    assert "No such file" in refused(tmp_path / "a" / "b" / "c")
    assert not (tmp_path / "a").exists()


def test_the_socket_of_a_program_that_has_died_is_replaced(tmp_path, bind):
    """Nobody listens there any more."""
    bind(tmp_path / "c").close()
    file = make(tmp_path / "c", bind)

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(file.path)


@pytest.mark.parametrize("backlog", ["room", "full"])
def test_the_socket_of_a_program_that_lives_stays(tmp_path, bind, backlog):
    """Also if so many want to be let in that nobody else can connect."""
    living = bind(tmp_path / "c")
    before = os.lstat(tmp_path / "c")
    waiting = []
    if backlog == "full":
        living.listen(0)
        for _ in range(3):
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(str(tmp_path / "c"))

    assert "another daemon uses the socket" in refused(tmp_path / "c")
    assert before == os.lstat(tmp_path / "c")
    for each in waiting:
        each.close()


@pytest.mark.parametrize("what", ["file", "link", "dangling link", "directory"])
def test_what_is_no_socket_stays(tmp_path, what):
    """A link is not followed, wherever it leads."""
    target = tmp_path / "target"
    if what != "dangling link":
        target.write_text("precious")
    if what == "file":
        (tmp_path / "c").write_text("precious")
    elif what == "directory":
        (tmp_path / "c").mkdir()
    else:
        (tmp_path / "c").symlink_to(target)
    before = os.lstat(tmp_path / "c")

    assert "is not a socket" in refused(tmp_path / "c")
    assert before == os.lstat(tmp_path / "c")
    assert target.exists() == (what != "dangling link")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path, mode):
    """Sticky or not: they could have a socket there before we do, or after."""
    tmp_path.chmod(mode)

    assert f"(its mode is {mode:04o}): chmod go-w {tmp_path}" in refused(tmp_path / "c")
    tmp_path.chmod(0o700)


def test_a_directory_of_somebody_else_is_refused(tmp_path, monkeypatch):
    """Whoever it belongs to can put another socket there."""
    status = os.stat_result((0o40755, 1, 1, 2, 12345, 0, 0, 0, 0, 0))
    monkeypatch.setattr(socket_files.os, "fstat", lambda _: status)

    assert "belongs to user 12345" in refused(tmp_path / "c")


def test_a_directory_of_root_will_do(tmp_path, monkeypatch, bind):
    """For a daemon of another user; only that one and root can have put something there."""
    status = os.stat_result((0o40755, 1, 1, 2, 0, 0, 0, 0, 0, 0))
    monkeypatch.setattr(socket_files.os, "fstat", lambda _: status)
    monkeypatch.setattr(socket_files.os, "geteuid", lambda: 12345)

    make(tmp_path / "c", bind)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    """In the words of the system."""
    (tmp_path / "file").touch()

    assert f"{tmp_path}/file: Not a directory" == refused(tmp_path / "file" / "c")


def test_a_socket_that_cannot_be_removed_is_said_to_be_in_the_way(tmp_path, bind, monkeypatch):
    """Such as one in a directory that is mounted read-only."""

    def unlink(_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    bind(tmp_path / "c").close()
    monkeypatch.setattr(socket_files.os, "unlink", unlink)

    assert f"{tmp_path}/c: Operation not permitted" == refused(tmp_path / "c")


@pytest.fixture
def short():
    """A directory with a short path."""
    path = tempfile.mkdtemp()
    yield path
    shutil.rmtree(path)


def test_the_longest_path_that_the_kernel_takes_will_do(short, bind):
    """One byte more is refused, with the number of bytes that it takes."""
    longest = f"{short}/".ljust(MAX_SOCKET_PATH_BYTES, "x")
    make(longest, bind)

    assert f"at most {MAX_SOCKET_PATH_BYTES} bytes" in refused(f"{longest}x")


def test_a_file_system_without_locks_has_sockets_all_the_same(tmp_path, bind, monkeypatch):
    """Without a wait."""

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(socket_files.fcntl, "flock", flock)

    make(tmp_path / "c", bind)


def test_the_socket_is_removed_at_the_end_and_nothing_else(tmp_path, bind):
    """Not one that somebody has put in its place, and it is no error if it has gone."""
    gone, replaced, last = (make(tmp_path / name, bind) for name in "abc")
    os.unlink(tmp_path / "a")
    os.rename(tmp_path / "b", tmp_path / "d")
    bind(tmp_path / "b")

    for each in (gone, replaced, last, last):
        each.remove()

    assert ["b", "d"] == sorted(os.listdir(tmp_path))


def test_who_makes_a_socket_waits_for_who_makes_one_there(tmp_path, bind, monkeypatch):
    """So that neither takes what the other has just made for dead."""
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            fcntl.flock(directory, fcntl.LOCK_UN)

    monkeypatch.setattr(socket_files.time, "sleep", sleep)
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    make(tmp_path / "c", bind)
    os.close(directory)

    assert 3 == len(waited)


def test_who_locks_the_directory_for_ever_keeps_nobody_from_making_a_socket(tmp_path, bind, monkeypatch):
    """Whoever may read a directory can lock it; the wait has an end."""
    waited = []
    monkeypatch.setattr(socket_files.time, "sleep", waited.append)
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    make(tmp_path / "c", bind)
    os.close(directory)

    assert sum(waited) < 1.1
    assert (tmp_path / "c").exists()
