"""How small files are put into batches; pure."""

from hypothesis import given
from hypothesis import strategies as st

from realize.mover.small import FILE_HEADER_BYTES, MAX_BATCH_FILES, MAX_HEADERS_BYTES, Candidate, batches, grouped
from realize.values import (
    MAX_SMALL_BYTES,
    NOTHING,
    Attributes,
    Entry,
    Expected,
    Kind,
    Removal,
    Seen,
    SmallFile,
    Version,
)
from realize.wire import packing


def candidates(sizes, path=b"f"):
    """A file of each size."""
    return [Candidate(Entry(path + b"%d" % number, Kind.FILE, size), NOTHING) for number, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 100), max_size=600), st.integers(50, 1000))
def test_batches_hold_what_fits_and_keep_the_order(sizes, at_once):
    """Nothing is lost or reordered; no batch has too many files or, unless it is one file, too much content."""
    files = candidates(sizes)
    made = list(batches(files, lambda: at_once))

    assert files == [candidate for batch in made for candidate in batch]
    assert all(len(batch) <= MAX_BATCH_FILES for batch in made)
    assert all(len(batch) == 1 or sum(each.entry.size for each in batch) <= at_once for batch in made)


def test_long_names_make_short_batches():
    """What says which files they are must fit a command too."""
    made = list(batches(candidates([1] * 100, b"x" * 3000), lambda: 1 << 20))

    assert all(sum(len(each.entry.path) for each in batch) < MAX_HEADERS_BYTES for batch in made)
    assert 5 <= len(made) <= 6


def test_batches_grow_as_they_are_taken():
    """How much goes into one is asked anew for each, for a link may turn out to be fast."""
    limits = [10]
    made = batches(candidates([10] * 8), lambda: limits[0])
    first = next(made)
    limits[0] = 100

    assert 1 == len(first)
    assert 7 == len(next(made))


def test_a_batch_may_be_just_full():
    """Of content, of names and of files: the first as well as those after it."""
    long = MAX_HEADERS_BYTES // 15 - FILE_HEADER_BYTES
    contents = list(batches(candidates([50] * 6), lambda: 100))
    named = [Candidate(Entry(b"%0*d" % (long, number), Kind.FILE, 1), NOTHING) for number in range(45)]
    names = list(batches(named, lambda: 1 << 20))
    files = list(batches(candidates([0] * (2 * MAX_BATCH_FILES)), lambda: 1))

    assert [2, 2, 2] == list(map(len, contents))
    assert [MAX_BATCH_FILES, MAX_BATCH_FILES] == list(map(len, files))
    assert MAX_HEADERS_BYTES == 15 * (FILE_HEADER_BYTES + long)
    assert [15, 15, 15] == list(map(len, names))


def test_a_batch_fits_one_command():
    """However long its names are and whatever is said of its files: a store at the other end never splits one."""
    times = Version(1, 2, 3, 4, 5)
    for length in (1, 100, 4000):
        files = [Candidate(Entry(b"%0*d" % (length, number), Kind.FILE, 9), NOTHING) for number in range(600)]
        for batch in batches(files, lambda: MAX_SMALL_BYTES):
            paths = [each.entry.path for each in batch]
            small = [SmallFile(path, b"", bytes(32), Attributes(1, 0o640), Seen(bytes(16), 1)) for path in paths]

            assert [paths] == list(packing.fit(paths, packing.measure_path))
            for items in (
                small,
                [Expected(path, 9, bytes(32), Attributes(1, 0o640)) for path in paths],
                [Removal(path, times) for path in paths],
            ):
                assert [items] == list(packing.fit(items, packing.measure_named, weigh=lambda _: 0))
            assert len(packing.SMALL_HEADS.pack(small)) <= MAX_HEADERS_BYTES


def test_what_fits_no_batch_comes_behind_the_batches_until_it_fits_one():
    """Those that are left are looked at again whenever a batch may be larger."""
    fits = [10]
    found, small, large, larger = grouped(candidates([20, 5, 50, 40]), lambda: fits[0]), 5, 20, [50, 40]
    groups = [next(found), next(found)]
    fits[0] = 90
    groups += found

    assert [[small], large, larger] == [
        group.entry.size if isinstance(group, Candidate) else [each.entry.size for each in group] for group in groups
    ]


def test_a_file_that_just_fits_is_a_batch():
    """However little fits."""
    assert [[1]] == [[each.entry.size for each in group] for group in grouped(candidates([1]), lambda: 1)]
