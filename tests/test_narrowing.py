"""Where a local location is found to be, and what it is later: `realize.store.local.location`."""

from __future__ import annotations

import os

import pytest

from realize.errors import Conflict, NotFound, NotRegular, StorageError, Unavailable
from realize.fs.identities import identity_token
from realize.fs.names import partial_name
from realize.fs.tree import identity_of
from realize.store.local import location as location_module
from realize.store.local.location import locate
from realize.store.local.partial_marks import NOTE
from realize.store.local.walker import Walker
from realize.values import Entry, Kind, WhereKind
from tests.leftovers import leave_partial
from tests.local_stores import SALT, open_files, root

__all__ = ["root"]


@pytest.fixture
def file(root):
    """A file in it, and another one."""
    for name in (b"f", b"other"):
        with open(os.path.join(root, name), "wb") as target:
            target.write(name)
    return os.path.join(root, b"f")


def become_a_symlink(file):
    """Something else has its name."""
    os.unlink(file)
    os.symlink(b"other", file)


def test_a_path_that_cannot_be_is_refused(root):
    """It is not taken for one that is to be made on demand."""
    path = os.path.join(root, b"n" * 300)

    with pytest.raises(StorageError, match="File name too long") as caught:
        locate(path, b"", None)

    assert str(caught.value).startswith(os.fsdecode(path))


@pytest.mark.parametrize(("path", "below"), [(b"", b"x"), (b"/x", b""), (b"/x/y", b""), (b"/x", b"y")])
def test_a_path_below_a_file_is_refused(file, path, below):
    """The error says which part of it is no directory."""
    with pytest.raises(Conflict) as conflict:
        locate(file + path, below, None)

    assert f"{os.fsdecode(os.path.realpath(file))}: is not a directory" == str(conflict.value)


@pytest.mark.parametrize("target", [b"f", b"d", b"missing"])
def test_a_symlink_below_a_root_is_no_location(root, file, target):
    """Wherever it leads."""
    os.mkdir(os.path.join(root, b"d"))
    os.symlink(target, os.path.join(root, b"link"))

    with pytest.raises(NotRegular, match="link: is a symlink"):
        locate(root, b"link", identity_of(os.stat(root)))


def test_what_cannot_be_looked_at_below_a_root_is_no_location(root, file, monkeypatch):
    """It is not taken for missing."""
    identity, stat = identity_of(os.stat(root)), os.stat

    def fails(path, **options):
        if path == b"f":
            raise OSError(5, "Input/output error")
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", fails)
    with pytest.raises(StorageError, match=r"^f: Input/output error"):
        locate(root, b"f", identity)
    assert [] == open_files(root)


def test_a_root_that_is_another_directory_is_refused(root):
    """Its file system is not mounted any more, perhaps; nothing is open then."""
    location = locate(root, b"", identity_of(os.stat(root)), b"inbox")
    os.rename(root, root + b" elsewhere")
    os.mkdir(root)

    with pytest.raises(Unavailable, match="directory inbox is not there now: another directory is in its place"):
        location.tree()
    assert [] == open_files(root)


def test_a_root_that_becomes_a_fifo_hangs_nobody(root):
    """It is no directory, whoever writes to it."""
    location = locate(root, b"", None)
    os.rmdir(root)
    os.mkfifo(root)
    held = os.open(root, os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(StorageError, match="Not a directory"):
            location.tree()
    finally:
        os.close(held)


@pytest.mark.parametrize(
    ("fault", "kind"), [(OSError(5, "Input/output error"), Unavailable), (MemoryError(), MemoryError)]
)
@pytest.mark.parametrize("call", ["fstat", "Tree"])
def test_a_root_that_cannot_be_looked_at_is_closed(root, monkeypatch, call, fault, kind):
    """The error is one of the root, by the name that it has for others."""
    location = locate(root, b"", identity_of(os.stat(root)), b"inbox")

    def fails(*_, **__):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fstat" else location_module, call, fails)
        with pytest.raises(kind) as caught:
            location.tree()

    assert kind is MemoryError or "directory inbox is not there now: Input/output error" == str(caught.value)
    assert [] == open_files(root)


@pytest.mark.parametrize(
    ("base", "kind", "mode"),
    [(b"", WhereKind.DIRECTORY, 0o700), (b"d", WhereKind.DIRECTORY, 0o750), (b"d/new", WhereKind.ABSENT, None)],
)
def test_a_directory_is_where_it_is_now(root, monkeypatch, base, kind, mode):
    """With its permissions if it is there; what is wrong with it is said by its name."""
    os.chmod(root, 0o700)
    os.mkdir(os.path.join(root, b"d"))
    os.chmod(os.path.join(root, b"d"), 0o750)
    location = locate(root, base, identity_of(os.stat(root)), b"inbox")
    where = location.where(SALT, 77)

    assert (kind, mode, 77) == (where.kind, where.mode, where.now_ns)
    assert identity_token(SALT, identity_of(os.stat(os.path.join(root, b"d" if base else b"")))) == where.identities[0]

    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(location_module, "identity_tokens_upwards", fails)
    with pytest.raises(StorageError, match=f"{'d' if base else 'inbox'}: Input/output error"):
        location.where(SALT, 77)
    assert [] == open_files(root)


def test_names_are_below_the_location(root, file):
    """Of a single file there is only its own."""
    os.mkdir(os.path.join(root, b"d"))
    whole, below, single = (locate(root, base, None) for base in (b"", b"d", b"f"))

    assert ((b"a",), b"b") == whole.split(b"a/b")
    assert ((b"d", b"a"), b"b") == below.split(b"a/b")
    assert ((b"d",), b"f") == below.split(b"f")
    assert ((), b"f") == single.split(b"f")
    for other in (b"other", b"f/f", b"d/f"):
        with pytest.raises(NotFound, match="the location is the single file f"):
            single.split(other)
    assert [os.path.realpath(root), b"d"] == [whole.shown, below.shown]


@pytest.mark.parametrize("private", [True, False])
def test_what_is_made_for_a_location_may_be_private(root, private):
    """Below it, not above."""
    location = locate(root, b"a/b", None)
    with location.tree(private=private) as tree:
        tree.directory((b"a", b"b", b"c"), create=True)
    modes = [os.stat(os.path.join(root, path)).st_mode & 0o077 for path in (b"a", b"a/b", b"a/b/c")]

    assert [True, True, not private] == [bool(mode) for mode in modes]


def test_a_single_file_is_where_it_is_now(root, file):
    """Whatever has its name since: a symlink is not followed, and what is gone is missing."""
    location = locate(file, b"", None)
    where = location.where(SALT, 77)
    assert (WhereKind.FILE, 77, None) == (where.kind, where.now_ns, where.mode)
    assert identity_token(SALT, identity_of(os.stat(file))) == where.identities[0]
    assert identity_token(SALT, identity_of(os.stat(root))) == where.identities[1]

    become_a_symlink(file)
    assert identity_token(SALT, identity_of(os.lstat(file))) == location.where(SALT, 77).identities[0]
    os.unlink(file)
    with pytest.raises(NotFound, match="f: No such file or directory"):
        location.where(SALT, 77)
    assert [] == open_files(root)


@pytest.mark.parametrize("becomes", ["nothing else", "a symlink", "nothing"])
def test_a_single_file_is_all_that_is_listed(root, file, becomes):
    """As what it is at that moment; a listing of what is gone fails."""
    walking = Walker(locate(file, b"", None), salt=SALT, partials=False, avoid=b"")
    if becomes == "a symlink":
        become_a_symlink(file)
    elif becomes == "nothing":
        os.unlink(file)

    if becomes == "nothing":
        for _ in range(2):
            with pytest.raises(NotFound, match="f: No such file or directory"):
                walking.page()
    else:
        [entry] = walking.page()
        assert (b"f", becomes == "nothing else") == (entry.path, entry.kind is Kind.FILE)
        assert [] == walking.page()
    assert [] == open_files(root)


def test_a_single_file_that_has_become_a_partial_is_left(root):
    """What has only the name of one may be a location; what has been written there since, by us, may not be moved."""
    name = partial_name(b"f")
    with open(os.path.join(root, name), "wb"):
        pass
    location = locate(os.path.join(root, name), b"", None)
    leave_partial(os.fsdecode(root), "f", b"12")

    [entry] = Walker(location, salt=SALT, partials=False, avoid=b"").page()
    assert Entry(name, Kind.LEFT, note=NOTE) == entry
