"""What reads much goes a slice at a time, and stops when nobody waits for it any more."""

from __future__ import annotations

import os

import pytest
from twisted.internet.defer import Deferred, maybeDeferred

from realize.errors import RealizeError, StorageError
from realize.fs.descriptors import release
from realize.store.local import reader, writer
from realize.store.local import store as local
from realize.store.local.store import LocalStore
from realize.values import BLOCK_BYTES, Directory, Expected, OnConflict, Removal, Vacant, Version
from tests.store_helpers import block_digests, digest, random_bytes, small_file

BLOCKS = 5
CONTENT = random_bytes(BLOCKS * BLOCK_BYTES - 7)


class Threads:
    """Does its work when the test says so, one piece after the other."""

    def __init__(self):
        self.waiting = []
        self.done = 0

    def run(self, work, *args, **options):
        result = Deferred()
        self.waiting.append((result, work, args, options))
        return result

    def step(self):
        """Do the next piece."""
        result, work, args, options = self.waiting.pop(0)
        self.done += 1
        maybeDeferred(work, *args, **options).chainDeferred(result)

    def steps(self, deferred):
        """Do all that is needed for a result, or for an error."""
        results = []
        deferred.addBoth(results.append)
        while not results:
            self.step()
        return getattr(results[0], "value", results[0])


@pytest.fixture
def threads(monkeypatch):
    """With slices of one block."""
    for module in (local, reader, writer):
        monkeypatch.setattr(module, "SLICE_BYTES", BLOCK_BYTES)
    return Threads()


@pytest.fixture
def store(tmp_path, threads):
    """One large file, for which somebody has begun a new version that is a partial by now, and some of a block each."""
    (tmp_path / "f").write_bytes(CONTENT)
    for number in range(BLOCKS):
        (tmp_path / f"s{number}").write_bytes(CONTENT[:BLOCK_BYTES])
    store = LocalStore(bytes(tmp_path), run_in_thread=threads.run)
    threads.steps(store.open(b"salt"))
    begun = threads.steps(store.open_writer(b"p", len(CONTENT), OnConflict.REPLACE))
    threads.steps(begun.write([CONTENT[:-1]]))
    threads.steps(begun.abandon(keep=True))
    threads.done = 0
    yield store
    threads.steps(store.close())
    while threads.waiting:
        threads.step()


def settle(store, _threads):
    """Whole files."""
    asked = [Expected(b"s%d" % number, BLOCK_BYTES, digest(CONTENT[:BLOCK_BYTES])) for number in range(BLOCKS)]
    return store.settle(asked), [True] * BLOCKS


def match_final(store, _threads):
    """The blocks of a final file."""
    return store.match_final(b"f", len(CONTENT), 0, block_digests(CONTENT)), len(CONTENT)


def match_partial(store, threads):
    """The blocks of a partial."""
    writer = threads.steps(store.open_writer(b"p", len(CONTENT), OnConflict.REPLACE))
    threads.done = 0
    return writer.match(block_digests(CONTENT[:-1]), len(CONTENT) - 1), len(CONTENT) - 1


def digests(store, threads):
    """The digests of a source."""
    reader = threads.steps(store.open_reader(b"f"))
    threads.done = 0
    return reader.block_digests(len(CONTENT)), block_digests(CONTENT)


def skip(store, threads):
    """What counts into the digest of a source without being sent."""
    reader = threads.steps(store.open_reader(b"f"))
    threads.done = 0
    return reader.skip(len(CONTENT)), None


LONG = [settle, match_final, match_partial, digests, skip]


@pytest.mark.parametrize("long", LONG)
def test_what_reads_much_makes_way_after_each_slice(store, threads, long):
    """It answers what it would in one go."""
    asked, expected = long(store, threads)

    assert expected == threads.steps(asked)
    assert BLOCKS == threads.done


@pytest.mark.parametrize("long", LONG)
def test_what_reads_much_stops_when_the_directory_is_closed(store, threads, long):
    """As it is when a connection has been lost, or the daemon stops: only the slice that is being read is finished."""
    asked, _ = long(store, threads)
    threads.step()
    closing = store.close()
    error = threads.steps(asked)
    threads.steps(closing)

    assert isinstance(error, RealizeError)
    assert threads.done <= 3
    assert all(work is release for _, work, *_ in threads.waiting)


def test_a_difference_ends_a_comparison(store, threads):
    """What comes behind it is not read."""
    wrong = block_digests(CONTENT)
    wrong[1] = b"?" * 32

    assert BLOCK_BYTES == threads.steps(store.match_final(b"f", len(CONTENT), 0, wrong))
    assert 2 == threads.done


def test_without_digests_a_file_is_looked_at_once(store, threads):
    """Whether it may be compared at all."""
    assert 0 == threads.steps(store.match_final(b"f", len(CONTENT), 0, []))
    assert 1 == threads.done


BRIEF = {
    "describe": lambda store: store.describe([b"new"]),
    "make_directories": lambda store: store.make_directories([Directory(b"new", 0o755)]),
    "prune": lambda store: store.prune([Vacant(b"empty", None)]),
    "put_small": lambda store: store.put_small([small_file(b"new", b"x")], OnConflict.REPLACE),
    "read_small": lambda store: store.read_small([b"s0"]),
    "remove": lambda store: store.remove([Removal(b"s0", Version(1, 2, 3, 4, 5))]),
    "set_directories": lambda store: store.set_directories([Directory(b"empty", 0o700)]),
}


@pytest.mark.parametrize("brief", BRIEF)
def test_what_waits_for_a_thread_is_not_begun_once_the_directory_is_closed(store, threads, tmp_path, brief):
    """However much a peer has asked for, the threads are done with it soon after it has gone."""
    (tmp_path / "empty").mkdir(0o755)
    before = os.listdir(tmp_path), (tmp_path / "empty").stat().st_mode
    asked = BRIEF[brief](store)
    threads.steps(store.close())
    error = threads.steps(asked)

    assert isinstance(error, StorageError)
    assert before == (os.listdir(tmp_path), (tmp_path / "empty").stat().st_mode)


@pytest.mark.parametrize("much", ["make_directories", "prune", "put_small", "remove", "set_directories"])
def test_what_is_about_many_deep_names_goes_in_parts(store, threads, much):
    """Others have their turn in between; what is answered is what it would be in one go."""
    names = [b"%d" % number + b"/d" * 99 for number in range(100)]
    asked = {
        "make_directories": lambda: store.make_directories([Directory(name, 0o755) for name in names]),
        "prune": lambda: store.prune([Vacant(name, None) for name in names]),
        "put_small": lambda: store.put_small([small_file(name, b"") for name in names], OnConflict.FAIL),
        "remove": lambda: store.remove([Removal(name, Version(1, 2, 3, 4, 5)) for name in names]),
        "set_directories": lambda: store.set_directories([Directory(name, 0o755) for name in names]),
    }
    answers = threads.steps(asked[much]())

    assert 100 == len(answers)
    assert (10 if much == "put_small" else 5) == threads.done  # each part of files has a commit of its own


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["a"] * 4, [4]),
        (["a"] * 5, [4, 1]),
        (["a"] * 9, [4, 4, 1]),
        (["a/b"] * 3, [2, 1]),
        (["a", "a/b/c", "a"], [2, 1]),
        (["a/b/c/d/e", "a", "a/b/c/d/e/f", "a"], [1, 2, 1]),
        ([], []),
    ],
)
def test_a_part_has_as_many_components_as_that(monkeypatch, names, parts):
    """Or more, with its last name; all are in one, in their order."""
    monkeypatch.setattr(local, "MAX_SHORT_JOB_COMPONENTS", 4)
    vacant = [Vacant(name.encode(), number) for number, name in enumerate(names)]
    found = list(local._parts(vacant))

    assert parts == list(map(len, found))
    assert vacant == [each for part in found for each in part]


@pytest.mark.parametrize(
    ("sizes", "slices"), [([10, 9, 9, 1], [1, 2, 1]), ([9, 1, 5], [2, 1]), ([0] * 20, [20]), ([30], [1]), ([], [])]
)
def test_a_slice_has_as_many_bytes_as_that(monkeypatch, sizes, slices):
    """Or more, with its last file; all are in one, in their order."""
    monkeypatch.setattr(local, "SLICE_BYTES", 10)
    expected = [Expected(b"%d" % number, size, bytes(32)) for number, size in enumerate(sizes)]
    found = list(local._slices(expected))

    assert slices == list(map(len, found))
    assert expected == [each for part in found for each in part]
