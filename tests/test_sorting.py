"""Sorting more than memory should hold."""

from __future__ import annotations

import os
import tempfile
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realize.errors import StorageError
from realize.fs import sorting
from realize.fs.sorting import Sorter


def in_pieces(records, most):
    """All records, read so many at a time."""
    found, position = [], 0
    while True:
        page, position = records.read(position, most)
        if not page:
            return found
        found += page


@given(given=st.lists(st.binary(max_size=20)), most=st.integers(1, 5))
def test_records_come_in_order_and_once(given, most):
    """Whatever bytes are in them, and however they are read, also twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "SORTED_IN_MEMORY_BYTES", 200)
        patch.setattr(sorting, "MAX_SORTED_RUNS", 3)
        sorter = Sorter()
        for record in given:
            sorter.add(record)
        records = sorter.sorted()

    assert [sorted(set(given))] * 2 == [in_pieces(records, most), in_pieces(records, most)]
    records.close()


def test_memory_stays_small_and_no_file_is_left(monkeypatch, tmp_path):
    """However much is sorted; the temporary files are where TMPDIR says, and have no name."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(sorting, "SORTED_IN_MEMORY_BYTES", 100_000)
    monkeypatch.setattr(sorting, "MAX_SORTED_RUNS", 8)
    sorter = Sorter()
    tracemalloc.start()
    for number in range(40_000):
        sorter.add(b"%06d" % (number * 7919 % 40_000) + bytes(20))
    records = sorter.sorted()
    [first], _ = records.read(0, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert b"000000" == first[:6]
    assert 1_500_000 > peak
    assert [] == os.listdir(tmp_path)
    records.close()
    sorter.close()


@pytest.mark.parametrize("when", ["made", "written"])
def test_a_full_disk_is_told(monkeypatch, when):
    """With the way to use another one."""

    def refused(*_, **__):
        if when == "written":
            return open("/dev/full", "wb", buffering=1 << 10)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(sorting, "SORTED_IN_MEMORY_BYTES", 10)
    sorter = Sorter()

    with pytest.raises(StorageError, match="No space left on device; TMPDIR names its directory"):
        sorter.add(b"record")
    sorter.close()
