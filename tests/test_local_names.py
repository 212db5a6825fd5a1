"""What a local store keeps inside: no name leads out of the directory."""

from __future__ import annotations

import os

import pytest

from realize.errors import BadName, Conflict, NotRegular, SourceChanged
from realize.store.local import small_files as small
from realize.store.local.store import LocalStore
from realize.values import Committed, Existing
from tests.local_stores import SALT, DirectoryBehind, at_once, behind, every_method, opened, put, root
from tests.store_helpers import failure, how

__all__ = ["behind", "root"]


@pytest.mark.parametrize("path", [b"link/secret", b"a/link/secret", b"a/link/deeper/secret", b"a/b/link/secret"])
@pytest.mark.parametrize("target", ["absolute", "relative"])
async def test_no_symlink_leads_out(root, behind, tmp_path, path, target):
    """A symlink among the directories of a name is refused by every method, and what it points to is untouched."""
    outside = os.fsencode(tmp_path / "outside")
    os.makedirs(os.path.join(outside, b"deeper"))
    for secret in (os.path.join(outside, b"secret"), os.path.join(outside, b"deeper/secret")):
        with open(secret, "wb") as file:
            file.write(b"secret")
    link = behind.at(path[: path.index(b"link") + 4])
    os.symlink(outside if target == "absolute" else os.path.relpath(outside, os.path.dirname(link)), link)
    store = await opened(root)

    answers = await every_method(store, path)

    assert [BadName] * 8 == [type(answer) for answer in answers]
    assert [b"deeper", b"deeper/secret", b"secret"] == DirectoryBehind(outside).everything()


async def test_a_symlink_as_last_component_is_not_followed(root, behind, tmp_path):
    """A symlink is never read, written through, replaced or removed as if it were what it points to."""
    outside = tmp_path / "secret"
    outside.write_bytes(b"secret")
    os.symlink(outside, behind.at(b"link"))
    store = await opened(root)

    described, read, written, settled, removed, matched, reader, writing = await every_method(store, b"link")

    assert Existing(obstacle="symlink") == described
    assert [NotRegular, NotRegular] == [type(read), type(reader)]
    assert [Conflict, Conflict] == [type(written), type(writing)]
    assert settled is False
    assert isinstance(removed, SourceChanged)
    assert isinstance(matched, NotRegular)
    assert os.path.islink(behind.at(b"link"))
    assert outside.read_bytes() == b"secret"
    assert [b"link"] == behind.everything()


async def test_a_symlink_in_the_base_is_refused(root, behind, tmp_path):
    """The base of a location comes from the wire: a symlink in it, also as its end, is not followed."""
    os.mkdir(tmp_path / "outside")
    os.symlink(tmp_path / "outside", behind.at(b"link"))
    for base in (b"link", b"link/x"):
        store = LocalStore(root, base, run_in_thread=at_once)
        assert isinstance(await failure(store.open(SALT)), (BadName, NotRegular))


async def test_a_bad_base_is_refused(root):
    """The base of a location is judged like any name."""
    for base in (b"../x", b"/etc", b"a//b"):
        assert isinstance(await failure(LocalStore(root, base, run_in_thread=at_once).open(SALT)), BadName)


async def test_a_symlink_in_the_root_is_the_operators_choice(root, behind, tmp_path):
    """The path of the root may lead through symlinks."""
    os.symlink(root, tmp_path / "link")
    store = await opened(tmp_path.joinpath("link").as_posix())

    assert how(await put(store, b"f", b"content")) is Committed.CREATED
    assert behind.content(b"f") == b"content"


async def test_a_directory_swapped_for_a_symlink_while_files_are_written(root, behind, tmp_path, monkeypatch):
    """A directory that becomes a symlink before the commit takes no file outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    store = await opened(root)
    behind.plant(b"d/x", b"")

    def swap(batch):
        os.rename(behind.at(b"d"), behind.at(b"moved"))
        os.symlink(outside, behind.at(b"d"))
        return original(batch)

    original = small.WrittenBatch.prepared
    monkeypatch.setattr(small.WrittenBatch, "prepared", swap)

    answer = await put(store, b"d/f", b"content")

    assert isinstance(answer, BadName)
    assert os.listdir(outside) == []
    assert behind.content(b"moved/f") is None
