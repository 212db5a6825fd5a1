"""What permissions forbid, as it is foretold: `realize.store.local.permissions`."""

from __future__ import annotations

import errno
import os

import pytest

from realize.errors import BadName, Busy, StorageError
from realize.store.local.permissions import forbidden_batch, lacking_of
from realize.values import Use
from tests.local_stores import DirectoryBehind, as_nobody, open_root, opened

__all__ = ["open_root"]

NOBODY = 65534
STICKY = "cannot be removed: Operation not permitted"


@pytest.fixture
def behind(open_root):
    """The way behind the store, in a directory that everybody may use."""
    os.chmod(open_root, 0o777)
    return DirectoryBehind(open_root)


async def foretold(behind, use, *paths):
    """What nobody is told of these files."""
    store = await opened(behind.root, run_in_thread=as_nobody)
    return [answer if answer is None else str(answer) for answer in await store.forbidden(paths, use)]


async def test_in_a_sticky_directory_the_owner_of_a_file_counts(behind):
    """Who owns it may remove it, who does not may not, and a name that is free may be taken by anybody."""
    for name in (b"own", b"other"):
        behind.plant(name, b"x")
    os.chown(behind.at(b"own"), NOBODY, -1)
    assert [None, None] == await foretold(behind, Use.MOVE, b"own", b"other")
    os.chmod(behind.root, 0o1777)

    assert [None, f"other: {STICKY}"] == await foretold(behind, Use.MOVE, b"own", b"other")
    assert [None, None] == await foretold(behind, Use.PUT, b"own", b"free")


async def test_in_a_sticky_directory_a_symlink_is_not_what_it_leads_to(behind):
    """Its own owner counts, as it does for unlink(2): what is at the other end is not touched."""
    behind.plant(b"own", b"x")
    behind.plant(b"other", b"x")
    os.symlink(b"other", behind.at(b"own link"))
    os.symlink(b"own", behind.at(b"other link"))
    for name in (b"own", b"own link"):
        os.chown(behind.at(name), NOBODY, -1, follow_symlinks=False)
    os.chmod(behind.root, 0o1777)

    assert [None, f"other link: {STICKY}"] == await foretold(behind, Use.MOVE, b"own link", b"other link")


async def test_the_owner_of_a_sticky_directory_may_do_all_in_it(behind):
    """Whoever the files belong to."""
    behind.plant(b"f", b"x")
    os.chown(behind.root, NOBODY, -1)
    os.chmod(behind.root, 0o1777)

    assert [None] == await foretold(behind, Use.MOVE, b"f")


async def test_root_may_do_all_in_a_sticky_directory(behind):
    """Also where neither the directory nor the file is root's."""
    behind.plant(b"f", b"x")
    for path in (behind.at(b"f"), behind.root):
        os.chown(path, NOBODY, -1)
    os.chmod(behind.root, 0o1777)

    assert [None] == await (await opened(behind.root)).forbidden([b"f"], Use.MOVE)


async def test_what_a_symlink_leads_to_is_not_looked_at(behind):
    """It may lead out of the directory: neither what is there nor who may read it is anybody's business."""
    behind.plant(b"closed", b"x")
    os.chmod(behind.at(b"closed"), 0)
    for target in (b"closed", b"nothing"):
        os.symlink(target, behind.at(b"to " + target))

    assert [None, None] == await foretold(behind, Use.READ, b"to closed", b"to nothing")


async def test_what_is_missing_is_made_from_above(behind):
    """The first directory that is not there is the one that could not be created, in the one that is."""
    for name in (b"closed", b"closed/in", b"open"):
        os.makedirs(behind.at(name), exist_ok=True)
    os.chmod(behind.at(b"open"), 0o777)

    assert [
        "closed/f: cannot be created: Permission denied",
        "closed/in/new: cannot be created: Permission denied",
        "closed/in/new: cannot be created: Permission denied",
        None,
        None,
        None,
    ] == await foretold(
        behind, Use.PUT, b"closed/f", b"closed/in/new/f", b"closed/in/new/er/f", b"new/f", b"open/f", b"open/new/er/f"
    )


async def test_what_is_gone_is_not_forbidden(behind):
    """Whichever way it is to be used, and whether its directory is there or not; what is behind it is answered, too."""
    behind.plant(b"closed", b"x")
    os.chmod(behind.at(b"closed"), 0)

    for use in (Use.READ, Use.COMPARE, Use.MOVE):
        told = await foretold(behind, use, b"gone", b"no/file", b"closed")
        assert [None, None, "closed: cannot be read: Permission denied"] == told


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(errno.EIO, "broken"), StorageError, "b: broken"),
        (MemoryError(), Busy, "b: Cannot allocate memory"),
    ],
)
async def test_each_question_has_its_own_answer(behind, monkeypatch, error, kind, text):
    """What the disk fails with for one file, or what is no name, is no answer for the others."""
    for name in (b"a", b"b", b"c"):
        behind.plant(name, b"x")
    store = await opened(behind.root)
    access = os.access

    def failing(name, *arguments, **options):
        if name == b"b":
            raise error
        return access(name, *arguments, **options)

    monkeypatch.setattr(os, "access", failing)

    first, second, third, fourth = forbidden_batch(store._location, [b"a", b"b", b"../up", b"c"], Use.READ)

    assert (None, None) == (first, fourth)
    assert (kind, text) == (type(second), str(second))
    assert isinstance(third, BadName)


@pytest.mark.parametrize(
    ("mode", "lacking"),
    [(0o777, set()), (0o755, {os.W_OK}), (0o733, {os.R_OK}), (0o766, {os.R_OK, os.W_OK}), (0o700, {os.R_OK, os.W_OK})],
)
async def test_what_is_lacking_of_a_directory(open_root, mode, lacking):
    """To list it, or to change it, one has to be able to enter it, too; the rights are those of who asks."""
    os.chmod(open_root, mode)

    assert lacking == await as_nobody(lacking_of, os.fsdecode(open_root))
