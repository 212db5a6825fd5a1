"""Cutting, finding, and putting together again; no files, no Twisted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from realize.errors import VerifyFailed
from realize.store import deltas
from realize.store.deltas import MIN_CHUNK_BYTES, Assembly, Index, Search, cut, merged
from realize.values import MAX_CHUNK_BYTES, MAX_OFFERED_CHUNKS, SPAN_BYTES, extent

MIB = 1 << 20


def noise(length, seed=0):
    """Content that has chunks."""
    return random.Random(seed).randbytes(length)


def chunk(content):
    """Some content as one chunk."""
    return len(content), xxh3_128_digest(content)


class Old:
    """An old version that counts what is read of it."""

    def __init__(self, content):
        self.content = content
        self.count = 0
        self.reads = []

    def read(self, place, view):
        """What is there."""
        assert 0 <= place
        assert 0 < len(view)
        piece = self.content[place : place + len(view)]
        view[: len(piece)] = piece
        self.count += len(piece)
        self.reads.append((place, len(view)))
        return len(piece)


def rebuilt(old, new, *, span=SPAN_BYTES):
    """The new version as the destination puts it together, and how many bytes of it were sent for that."""
    search = Search(len(old.content), old.read)
    assembly = Assembly()
    result, sent = bytearray(), 0
    for start in range(0, len(new), span):
        content = new[start : start + span]
        chunks = cut(content)
        places = search.find(chunks)
        assembly.add(merged(chunks, places))
        wanted, position = bytearray(), 0
        for (length, _), place in zip(chunks, places, strict=True):
            wanted += content[position : position + length] if place is None else b""
            position += length
        # It arrives in two parts, of which the second is empty if it does not matter.
        for part in (wanted[:5000], wanted[5000:]):
            for piece in assembly.written(bytes(part), old.read):
                result += piece
        sent += len(wanted)
    assert 0 == len(assembly)
    return bytes(result), sent


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "move", "repeat"]),
        st.floats(0, 1),
        st.floats(0, 1),
        st.integers(0, 60_000),
    ),
    max_size=6,
)


def edited(content, edits):
    """Another version of some content."""
    new = bytearray(content)
    for number, (how, first, second, length) in enumerate(edits):
        here, there = int(first * len(new)), int(second * len(new))
        piece = bytes(new[here : here + length])
        match how:
            case "insert":
                new[here:here] = noise(length, number)
            case "delete":
                del new[here : here + length]
            case "replace":
                new[here : here + length] = noise(len(piece), number)
            case "move":
                del new[here : here + length]
                new[there:there] = piece
            case "repeat":
                new[there:there] = piece
    return bytes(new)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(0, 400_000),
    edits=EDITS,
    span=st.sampled_from([30_000, 200_000]),
    seed=st.integers(0, 3),
)
def test_whatever_was_changed_the_new_version_comes_together(size, edits, span, seed):
    """Runs of the old version and what was sent are, in order, the new one; also where the content repeats itself."""
    content = noise(size, seed) if seed else (noise(50_000) * 10)[:size]
    old, new = Old(content), edited(content, edits)

    result, sent = rebuilt(old, new, span=span)

    assert new == result
    assert sent <= len(new)


@given(content=st.binary(max_size=100_000) | st.integers(0, 200_000).map(bytes))
@settings(deadline=None, max_examples=50)
def test_chunks_are_all_of_the_content(content):
    """Chunks follow each other without a gap, fit the protocol, and only the only one may be a short one."""
    chunks = cut(content)

    assert len(content) == extent(chunks)
    position = 0
    for length, digest in chunks:
        assert xxh3_128_digest(content[position : position + length]) == digest
        assert length <= MAX_CHUNK_BYTES
        assert length >= MIN_CHUNK_BYTES or len(chunks) == 1
        position += length


def test_chunks_are_of_much_the_same_length():
    """A change of one byte costs one of them; also where the content gives no reason to cut none is long."""
    lengths = [length for length, _ in cut(noise(MIB))]

    assert 0.9 * len(lengths) < len([length for length in lengths if 6000 < length < 12_000])
    assert {16 << 10, 4 << 10} == {length for length, _ in cut(bytes((4 * 16 + 4) << 10))}
    assert [(20 << 10) - 1] == [length for length, _ in cut(bytes((20 << 10) - 1))]


def test_a_span_has_no_more_chunks_than_may_be_offered():
    """However the content is, a span of the least chunks fits one command."""
    assert SPAN_BYTES // MIN_CHUNK_BYTES <= MAX_OFFERED_CHUNKS


def test_an_identical_file_needs_nothing():
    """All is where it was, which is found with one look at each byte and without an index."""
    old = Old(noise(8 * MIB))

    result, sent = rebuilt(old, old.content)

    assert old.content == result
    assert 0 == sent
    assert old.count < 2.2 * 8 * MIB  # once to look, once to write; the ends of what is read ahead are read again


def test_a_replaced_block_costs_the_chunks_it_touches():
    """Blocks of 4 KiB that are replaced in place cost some 14 KiB each, with an insertion before all of them, too."""
    content = noise(8 * MIB)
    new = bytearray(content)
    blocks = random.Random(5).sample(range(len(new) // 4096), 20)
    for block in blocks:
        new[block * 4096 : (block + 1) * 4096] = noise(4096, block)
    new[1000:1000] = b"x" * 123

    result, sent = rebuilt(Old(content), bytes(new))

    assert bytes(new) == result
    assert sent < len(blocks) * 18_000 + 30_000


@pytest.mark.parametrize(("start", "end"), [(1, 6), (6, 1)], ids=["back", "forth"])
def test_what_moved_is_found_again(start, end):
    """A piece that has moved within the file costs hardly more than itself, and what lies between costs nothing."""
    content = noise(8 * MIB)
    piece = content[start * MIB : (start + 1) * MIB]
    rest = content[: start * MIB] + content[(start + 1) * MIB :]
    new = rest[: end * MIB] + piece + rest[end * MIB :]

    result, sent = rebuilt(Old(content), new)

    assert new == result
    assert sent < 1.1 * MIB


def test_what_is_far_away_is_found_in_time(monkeypatch):
    """The index grows by a bounded part for each span, until the trail is found; nothing is taken in twice."""
    monkeypatch.setattr(deltas, "_SEGMENTS_AT_ONCE", 4)
    old = Old(noise(16 * MIB))
    search = Search(len(old.content), old.read)
    new = old.content[10 * MIB + 77 :]
    counts, places = [], []
    for start in range(0, 4 * MIB, MIB):
        before = old.count
        places += search.find(cut(new[start : start + MIB]))
        counts.append(old.count - before)

    assert max(counts) < 4 * MIB + 3 * MIB
    assert places[0] is None
    assert places[-1] is not None
    assert sum(counts) < 16 * MIB + 4 * 2 * MIB


def test_the_index_is_bounded_and_still_of_use():
    """When it is full it keeps one in two, one in four...; those that it keeps are found."""
    index = Index(100)
    digests = [xxh3_128_digest(b"%d" % number) for number in range(1000)]
    for place, digest in enumerate(digests):
        index.add(digest, place)

    found = [place for place, digest in enumerate(digests) if index.get(digest) == place]

    assert 20 < len(found) <= 100
    assert len(found) == len(index)


def test_an_index_that_is_just_full_forgets_nothing():
    """One more is too many."""
    index = Index(100)
    digests = [xxh3_128_digest(b"%d" % number) for number in range(101)]
    for digest in digests[:100]:
        index.add(digest, 1)

    assert 100 == len(index)
    index.add(digests[100], 1)
    assert 70 > len(index)


def test_nothing_is_found_where_an_old_version_became_shorter():
    """Also not by who asks for what is left there, be it nothing."""
    content = noise(100)
    search = Search(100_000, Old(content).read)

    assert [None, None] == search.find([(5000, xxh3_128_digest(content)), (5000, xxh3_128_digest(b""))])


def test_short_chunks_are_never_found():
    """They would save less than it costs to ask for them."""
    content = noise(100_000)

    [place] = Search(len(content), Old(content).read).find([chunk(content[: MIN_CHUNK_BYTES - 1])])

    assert place is None


@pytest.mark.parametrize(
    ("length", "found"), [(MIN_CHUNK_BYTES - 1, None), (MIN_CHUNK_BYTES, 0), (MIN_CHUNK_BYTES + 1, 0)]
)
def test_the_shortest_chunk_that_is_looked_for(length, found):
    """Which the cutter makes, too."""
    old = Old(noise(100_000))

    assert [found] == Search(len(old.content), old.read).find([chunk(old.content[:length])])


def test_an_old_version_that_shrinks_is_noticed():
    """What was found and is gone when it is to be copied makes the transfer fail, not wait or come out shorter."""
    old = Old(noise(100_000))
    chunks = cut(old.content)
    assembly = Assembly()
    assembly.add(merged(chunks, Search(100_000, old.read).find(chunks)))
    old.content = old.content[:50_000]

    with pytest.raises(VerifyFailed):
        list(assembly.written(b"", old.read))


def test_neighbours_are_copied_together():
    """Runs are as long as they can be, in the new version and in the old one."""
    chunks = [(10, b"")] * 5

    assert [(20, 100), (20, None), (10, 120)] == merged(chunks, [100, 110, None, None, 120])
    assert [(10, 110), (10, 100), (30, None)] == merged(chunks, [110, 100, None, None, None])
