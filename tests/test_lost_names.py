"""Files with several names at a destination: who replaces one name leaves the others replaceable."""

import os

import pytest
from attrs import evolve

from realize.errors import Busy
from realize.store.local import lost_names
from realize.store.local.lost_names import LostNames
from realize.values import Committed, OnConflict
from tests.local_stores import behind, opened, root
from tests.store_helpers import digest, how, small_file

__all__ = ["behind", "root"]

NAMES = (b"a", b"b", b"d/c")


def plant(behind):
    """One file with three names."""
    behind.plant(b"a", b"old")
    for name in NAMES[1:]:
        os.link(behind.at(b"a"), behind.at(name))


async def replace(store, path, seen, content=b"new"):
    """What becomes of a small file that may replace that version."""
    [answer] = await store.put_small([evolve(small_file(path, content), replaces=seen)], OnConflict.REPLACE)
    return answer


@pytest.mark.parametrize("kept", [b"", b".backups"])
async def test_all_names_of_a_file_can_be_replaced(root, behind, kept):
    """Whether they were looked at before or after the first one was, by small and large files, with backups or not."""
    plant(behind)
    store = await opened(root, backup_dir=kept)
    seen = [each.seen for each in await store.describe(NAMES)]

    first = await replace(store, b"a", seen[0])
    again = [each.seen for each in await store.describe(NAMES[1:])]
    second = await replace(store, b"b", seen[1])
    writer = await store.open_writer(b"d/c", 3, OnConflict.REPLACE, replaces=again[1])
    await writer.write([b"new"])
    third = await writer.commit(digest(b"new"), None)

    assert seen[1:] == again
    assert [Committed.REPLACED] * 3 == [how(each) for each in (first, second, third)]
    assert [b"new"] * 3 == [behind.content(name) for name in NAMES]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.chmod(path, 0o600),
        lambda path: path and os.truncate(path, 1),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: os.link(path, path + b"-too"),
    ],
    ids=["mode", "content", "time", "name"],
)
async def test_what_somebody_else_did_is_noticed(root, behind, change):
    """Only what a replacement has done by itself is forgiven."""
    plant(behind)
    store = await opened(root)
    seen = [each.seen for each in await store.describe(NAMES)]
    await replace(store, b"a", seen[0])
    change(behind.at(b"b"))

    assert isinstance(await replace(store, b"b", seen[1]), Busy)
    assert seen[1] != (await store.describe([b"b"]))[0].seen


async def test_a_change_in_the_instant_of_the_replacement_is_noticed(tmp_path):
    """It shows in more than the change time."""
    (tmp_path / "a").write_bytes(b"old")
    os.link(tmp_path / "a", tmp_path / "b")
    before = os.stat(tmp_path / "a")
    os.unlink(tmp_path / "b")
    (tmp_path / "a").write_bytes(b"newer")
    after = os.stat(tmp_path / "a")
    lost = LostNames()

    lost.note(before, after)

    assert after.st_ctime_ns == lost.changed_ns(after)


async def test_so_many_files_are_remembered_and_no_more(tmp_path, monkeypatch):
    """The oldest is dropped."""
    monkeypatch.setattr(lost_names, "MAX_LOST_NAMES", 2)
    lost, known = LostNames(), []
    for name in "abc":
        path = tmp_path / name
        path.write_bytes(b"old")
        before = os.stat(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.link(path, tmp_path / f"{name}-too")
        known.append((before, os.stat(path)))
        lost.note(*known[-1])

    assert [False, True, True] == [lost.changed_ns(after) == before.st_ctime_ns for before, after in known]
