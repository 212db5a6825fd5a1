"""Which files go first."""

from __future__ import annotations

import pytest
from twisted.internet.defer import succeed

from realize.fs import sorting as external
from realize.mover import ordered
from realize.mover.events import Finished, Left, Planned, Started
from realize.mover.filters import selection
from realize.mover.ordered import OrderedListing
from realize.mover.small import Candidate, grouped_in_order
from realize.runs.arranging import Arranging
from realize.values import Attributes, Entry, Existing, Kind, Order
from tests.memory_store import MemoryStore
from tests.test_move import contents, moved

LARGE = b"x" * (3 << 20)


def arranging():
    """What sorts, without threads."""
    return Arranging(lambda work, *args: succeed(work(*args)))


def ages(*names):
    """A source whose files are the older the later they come here."""
    source = MemoryStore()
    for number, name in enumerate(names):
        source.plant(name, name, Attributes(-number * 10**9, 0o644))
    return source


def pages(listing):
    """The pages of a listing."""
    found = []
    while not found or found[-1]:
        listing.next_page().addCallback(found.append)
    return found[:-1]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (Order.NEWEST, [b"bb", b"d/ccc", b"a", b"aa"]),
        (Order.OLDEST, [b"aa", b"a", b"d/ccc", b"bb"]),
        (Order.LARGEST, [b"d/ccc", b"aa", b"bb", b"a"]),
        (Order.SMALLEST, [b"a", b"aa", b"bb", b"d/ccc"]),
    ],
)
def test_files_go_in_that_order(order, expected, monkeypatch):
    """Equal ones in path order, also if the records do not fit in memory; a dry run says the same."""
    monkeypatch.setattr(external, "SORTED_IN_MEMORY_BYTES", 200)
    for options, kind in (({}, Finished), ({"dry_run": True}, Planned)):
        source, destination = ages(b"bb", b"d/ccc", b"a", b"aa"), MemoryStore()
        trial = moved(source, destination, order=order, sorting=arranging, **options)

        assert expected == [each.path for each in trial.of(kind)]
    assert {} == contents(source) or options


def test_what_is_no_file_is_reported_all_the_same():
    """And what filters leave out goes nowhere."""
    source = ages(b"a", b"b.tmp", b"c")
    source.obstacles[b"link"] = "symlink"
    trial = moved(
        source, MemoryStore(), order=Order.OLDEST, sorting=arranging, selection=selection([("exclude", "*.tmp")])
    )

    assert {b"b.tmp"} == set(source.files)
    assert [b"link"] == [each.path for each in trial.of(Left)]


def test_directories_get_what_they_had_before_anything_was_moved(monkeypatch):
    """Though their files come on different pages, and one by one makes them younger."""
    monkeypatch.setattr(ordered, "ORDERED_PAGE_FILES", 1)
    source, destination = ages(b"a/b/1", b"c/2", b"a/b/3", b"a/4"), MemoryStore()
    for number, path in enumerate((b"a", b"a/b", b"c"), 1):
        source.plant_directory(path, Attributes(number, 0o750))
    expected = dict(source.directories)
    moved(source, destination, order=Order.NEWEST, sorting=arranging)

    assert expected == destination.directories


def test_directories_come_before_their_files():
    """On the page of each file, with their attributes."""
    source = ages(b"a/b/1", b"c")
    source.plant_directory(b"a", Attributes(5, 0o700))
    source.plant_directory(b"a/b", Attributes(6, 0o711))
    listing = OrderedListing(source.walk(), Order.NEWEST, selection([]), arranging())
    above = [Entry(b"a", Kind.DIRECTORY, mtime_ns=5, mode=0o700), Entry(b"a/b", Kind.DIRECTORY, mtime_ns=6, mode=0o711)]

    *others, last = pages(listing)
    assert above == [entry for page in others for entry in page]
    assert [*above, Entry(b"a/b/1", Kind.FILE, 5, 0), Entry(b"c", Kind.FILE, 1, -(10**9))] == last


def test_large_and_small_files_begin_in_one_order():
    """Small ones do not overtake a large one on the same page."""
    source, destination = MemoryStore(), MemoryStore()
    for number, (name, content) in enumerate(((b"1", b"s"), (b"2", LARGE), (b"3", b"s"), (b"4", b"s"))):
        source.plant(name, content, Attributes(number * 10**9, 0o644))
    begun = []
    read_small, open_reader = source.read_small, source.open_reader
    source.read_small = lambda paths, **how: begun.extend(paths) or read_small(paths, **how)
    source.open_reader = lambda path, **how: begun.append(path) or open_reader(path, **how)
    trial = moved(source, destination, order=Order.NEWEST, sorting=arranging)

    assert [b"4", b"3", b"2", b"1"] == begun
    assert [b"2"] == [each.path for each in trial.of(Started)]


def test_groups_keep_the_order():
    """Batches are cut where a file is too large for them."""
    candidates = [Candidate(Entry(b"%d" % size, Kind.FILE, size), Existing()) for size in (1, 2, 9, 3, 8, 8, 1)]
    groups = [
        group.entry.size if isinstance(group, Candidate) else [each.entry.size for each in group]
        for group in grouped_in_order(candidates, lambda: 5)
    ]

    assert [[1, 2], 9, [3], 8, 8, [1]] == groups


def test_a_run_that_ends_early_frees_the_space():
    """Whatever is under way then."""
    closed = []
    sorting = arranging()
    close = sorting.close
    sorting.close = lambda: closed.append(1) or close()
    listing = OrderedListing(ages(b"a").walk(), Order.NEWEST, selection([]), sorting)
    listing.close()

    assert [] == listing.next_page().result
    assert closed
