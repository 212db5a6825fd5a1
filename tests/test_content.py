"""Parts of a file: as many bytes as were asked for, or all there are."""

from __future__ import annotations

import os

import pytest

from realize.fs.reading import blocks, digest_of, matching, read_exactly, read_into
from realize.values import BLOCK_BYTES
from tests.store_helpers import block_digests, digest, random_bytes

CONTENT = random_bytes(2 * BLOCK_BYTES + 1000)


@pytest.fixture
def fd(tmp_path):
    """The file, open."""
    path = tmp_path / "f"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def asked(monkeypatch):
    """What is asked of a kernel that has never more than 1,000 bytes at once."""
    asked = []
    pread, preadv = os.pread, os.preadv

    def reading(fd, length, offset):
        asked.append((offset, length))
        return pread(fd, min(length, 1000), offset)

    def reading_into(fd, views, offset):
        asked.append((offset, len(views[0])))
        return preadv(fd, [views[0][:1000]], offset)

    monkeypatch.setattr(os, "pread", reading)
    monkeypatch.setattr(os, "preadv", reading_into)
    return asked


END = len(CONTENT)
PARTS = pytest.mark.parametrize(
    ("offset", "length", "calls"),
    [
        (7, 1000, [(7, 1000)]),
        (7, 2500, [(7, 2500), (1007, 1500), (2007, 500)]),
        (END - 1500, 2000, [(END - 1500, 2000), (END - 500, 1000), (END, 500)]),
        (END, 10, [(END, 10)]),
    ],
)


@PARTS
def test_a_part_comes_in_as_many_calls_as_it_takes(fd, asked, offset, length, calls):
    """And no more than these: each asks for the rest."""
    assert CONTENT[offset : offset + length] == read_exactly(fd, length, offset)
    assert calls == asked


@PARTS
def test_a_view_is_filled_in_as_many_calls_as_it_takes(fd, asked, offset, length, calls):
    """What there is not is left as it was."""
    view = memoryview(bytearray(b"!" * length))
    count = read_into(fd, view, offset)

    assert calls == asked
    assert CONTENT[offset : offset + length] == view[:count]
    assert {*view[count:]} <= {ord("!")}


def test_blocks_are_a_part_in_order(fd):
    """The last one is shorter; none comes of nothing, or from behind the end."""
    assert [CONTENT[5 : BLOCK_BYTES + 5], CONTENT[BLOCK_BYTES + 5 : BLOCK_BYTES + 10]] == list(
        blocks(fd, BLOCK_BYTES + 5, 5)
    )
    assert [CONTENT[BLOCK_BYTES : 2 * BLOCK_BYTES]] == list(blocks(fd, BLOCK_BYTES, BLOCK_BYTES))
    assert [CONTENT[2 * BLOCK_BYTES :]] == list(blocks(fd, 3 * BLOCK_BYTES, 2 * BLOCK_BYTES))
    assert [[], []] == [list(blocks(fd, 0, 0)), list(blocks(fd, 10, END))]


def test_a_file_that_ends_is_not_read_on(fd, asked, monkeypatch):
    """Whatever its size was."""
    list(blocks(fd, 9 * BLOCK_BYTES, 2 * BLOCK_BYTES))

    assert [(2 * BLOCK_BYTES, BLOCK_BYTES), (END, BLOCK_BYTES - 1000)] == asked


@pytest.mark.parametrize("offset", [0, BLOCK_BYTES])
def test_what_matches_ends_with_the_first_difference(fd, offset):
    """Also if what follows is the same again."""
    digests = block_digests(CONTENT[offset:])
    wrong = [*digests[:1], b"?" * 32, *digests[2:]]

    assert CONTENT[offset:] == b"".join(matching(fd, END - offset, offset, digests))
    assert CONTENT[offset : offset + BLOCK_BYTES] == b"".join(matching(fd, END - offset, offset, wrong))
    assert b"" == b"".join(matching(fd, END - offset, offset, wrong[1:]))


@pytest.mark.parametrize("offset", [0, BLOCK_BYTES, 2 * BLOCK_BYTES])
def test_a_block_that_is_cut_off_does_not_match(fd, offset):
    """Though what there is of it has the digest that is named: what is asked about is longer."""
    digests = block_digests(CONTENT[offset:])
    whole = CONTENT[offset : 2 * BLOCK_BYTES]

    assert whole == b"".join(matching(fd, END - offset + 1, offset, digests))
    assert whole == b"".join(matching(fd, 9 * BLOCK_BYTES, offset, digests))


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, END])
def test_the_digest_of_a_beginning(fd, size):
    """Of so many bytes, neither more nor fewer."""
    assert digest(CONTENT[:size]) == digest_of(fd, size)
