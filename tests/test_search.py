"""Where chunks are looked for, in which order, and how much is read for that; no files, no Twisted."""

from __future__ import annotations

import pytest

from realize.store import deltas
from realize.store.deltas import MIN_CHUNK_BYTES, Search, cut
from tests.test_deltas import MIB, Old, chunk, noise

SIZE = 8000
"""Of a chunk."""


def chunks_of(content, size=SIZE):
    """Some content as chunks of one length."""
    return [chunk(content[start : start + size]) for start in range(0, len(content), size)]


UNKNOWN = chunks_of(noise(10 * SIZE, 99))


@pytest.fixture
def old():
    """Some 4 MiB, of which nothing repeats itself."""
    return Old(noise(4 * MIB + 5))


@pytest.fixture
def segments(old, monkeypatch):
    """Those that have been read, one for each time that the trail is lost, which it is after two chunks."""
    monkeypatch.setattr(deltas, "_SEGMENTS_AT_ONCE", 1)
    monkeypatch.setattr(deltas, "_LOST_AFTER_BYTES", 2 * SIZE)
    return lambda: [place // MIB for place, length in old.reads if length == MIB]


def test_what_is_read_ahead_is_looked_at_without_reading(old):
    """In order, as long as it reaches; then reading goes on where the next chunk begins."""
    search = Search(len(old.content), old.read)
    ahead = deltas._LOOK_AHEAD_BYTES

    assert list(range(0, 40 * SIZE, SIZE)) == search.find(chunks_of(old.content[: 40 * SIZE]))
    assert [(0, ahead), (ahead // SIZE * SIZE, ahead)] == old.reads


def test_what_is_read_ahead_is_used_to_its_last_byte(old):
    """And one more is not there."""
    ahead = deltas._LOOK_AHEAD_BYTES
    for rest, reads in (
        (MIN_CHUNK_BYTES, [(0, ahead)]),
        (MIN_CHUNK_BYTES + 1, [(0, ahead), (ahead - MIN_CHUNK_BYTES, ahead)]),
    ):
        old.reads.clear()
        chunks = [chunk(old.content[: ahead - MIN_CHUNK_BYTES]), chunk(old.content[ahead - MIN_CHUNK_BYTES :][:rest])]

        assert [0, ahead - MIN_CHUNK_BYTES] == Search(len(old.content), old.read).find(chunks)
        assert reads == old.reads


def test_the_position_is_where_the_first_chunk_begins(old):
    """What comes before it was compared another way."""
    search = Search(len(old.content), old.read, position=MIB)

    assert [MIB, MIB + SIZE] == search.find(chunks_of(old.content[MIB : MIB + 2 * SIZE]))
    assert [(MIB, deltas._LOOK_AHEAD_BYTES)] == old.reads


def test_the_last_chunk_is_found_and_nothing_behind_it(old):
    """Where the old version ends too early for a chunk it is not even read."""
    last = old.content[-SIZE:]
    search = Search(len(old.content), old.read, position=len(old.content) - SIZE)

    assert [len(old.content) - SIZE] == search.find([chunk(last)])
    old.reads.clear()
    assert [None] == Search(len(old.content), old.read, position=len(old.content) - SIZE + 1).find([chunk(last)])
    assert [] == old.reads


def know(search, old, place):
    """Let it have taken a chunk into its index, as when it has looked around for others; that chunk."""
    known = chunk(old.content[place : place + SIZE])
    search._index.add(known[1], place)
    return known


def trails(search, old, *distances):
    """Let it find a chunk at each of these distances, the last one last; what is next in the new version."""
    for distance in distances:
        place = search._position + distance
        assert [place] == search.find([know(search, old, place)])
    return search._position


def test_a_former_trail_is_taken_up_again(old):
    """A piece that was put in between ends, and what follows is where it was; the latest trail is tried first."""
    search = Search(len(old.content), old.read)
    position = trails(search, old, MIB, 2 * MIB, 3 * MIB)
    old.reads.clear()
    chunks = chunks_of(old.content[position + MIB :][: 2 * SIZE])

    assert [position + MIB, position + MIB + SIZE] == search.find(chunks)
    assert [position + MIB] == [place for place, length in old.reads if length == SIZE][-1:]
    assert (position + MIB + SIZE, deltas._LOOK_AHEAD_BYTES) == old.reads[-1]
    assert [position + distance for distance in (3 * MIB, 2 * MIB, MIB, MIB + SIZE)] == [
        place for place, _ in old.reads
    ]


def test_few_trails_are_remembered(old):
    """To try each costs a look."""
    search = Search(len(old.content), old.read)
    position = trails(search, old, *(number * MIB // 4 for number in range(1, 10)))
    old.reads.clear()

    assert [None] == search.find(UNKNOWN[:1])
    assert [position + number * MIB // 4 for number in (9, 8, 7, 6)] == [place for place, _ in old.reads]


def test_a_trail_that_is_taken_up_is_the_first_and_no_second_one(old):
    """The others keep their order."""
    search = Search(len(old.content), old.read)
    position = trails(search, old, MIB, 2 * MIB, 3 * MIB, 2 * MIB)
    old.reads.clear()
    search.find(UNKNOWN[:1])

    assert [position + distance for distance in (2 * MIB, 3 * MIB, MIB, 0)] == [place for place, _ in old.reads]


def test_the_trail_leads_back(old):
    """Up to what was found, or is not the same, and with a look at each chunk alone."""
    search = Search(len(old.content), old.read)
    moved = old.content[2 * MIB :][: 4 * SIZE]
    know(search, old, 2 * MIB + 3 * SIZE)
    chunks = [*chunks_of(old.content[:SIZE]), UNKNOWN[0], *chunks_of(moved)]

    assert [0, None, *range(2 * MIB, 2 * MIB + 4 * SIZE, SIZE)] == search.find(chunks)
    back = [(2 * MIB + number * SIZE, SIZE) for number in (3, 2, 1, 0, -1)]
    assert back == old.reads[-5:]


def test_what_is_read_ahead_serves_wherever_a_trail_leads(old):
    """From its first byte on."""
    search = Search(len(old.content), old.read)
    first = know(search, old, 0)

    assert [0, 0] == search.find([first, first])
    assert [(0, deltas._LOOK_AHEAD_BYTES)] == old.reads


def test_the_trail_leads_back_to_the_first_chunk(old):
    """And ends there: the last one, for which nothing was looked yet, is not behind it."""
    search = Search(len(old.content), old.read)
    moved = old.content[2 * MIB :][: 3 * SIZE]
    know(search, old, 2 * MIB + 2 * SIZE)

    found = search.find([*chunks_of(moved), UNKNOWN[0]])
    assert [2 * MIB, 2 * MIB + SIZE, 2 * MIB + 2 * SIZE, None] == found
    assert (2 * MIB, SIZE) in old.reads
    assert (2 * MIB - SIZE, SIZE) not in old.reads


@pytest.mark.parametrize(("length", "found"), [(MIN_CHUNK_BYTES - 1, None), (MIN_CHUNK_BYTES, 2 * MIB)])
def test_a_short_chunk_is_not_found_on_the_way_back_either(old, length, found):
    """It would save less than it costs to ask for it."""
    search = Search(len(old.content), old.read)
    moved = old.content[2 * MIB :][: length + SIZE]
    know(search, old, 2 * MIB + length)

    assert [found, 2 * MIB + length] == search.find([chunk(moved[:length]), chunk(moved[length:])])


def test_a_trail_is_lost_when_so_much_was_not_found(old, segments):
    """Less is taken for new, and costs nothing; what is missed adds up from one call to the next."""
    search = Search(len(old.content), old.read)
    assert [None] == search.find(UNKNOWN[:1])
    assert [] == segments()
    search.find(UNKNOWN[1:2])

    assert [0] == segments()


def test_what_is_found_ends_what_is_missed(old, segments):
    """It counts anew behind that."""
    search = Search(len(old.content), old.read)
    for number in range(4):
        search.find(UNKNOWN[number : number + 1])
        start = (2 * number + 1) * SIZE
        assert [start] == search.find(chunks_of(old.content[start : start + SIZE]))

    assert [] == segments()


def test_what_has_all_been_found_is_not_looked_for_again(old, segments):
    """However much was missed before it, in the same call."""
    search = Search(len(old.content), old.read)
    found = chunks_of(old.content[3 * SIZE :][:SIZE])

    assert [None, None, None, 3 * SIZE] == search.find([*UNKNOWN[:3], *found])
    assert [] == segments()


def test_where_a_trail_was_lost_is_looked_first(old, segments):
    """Then around it: behind it, and from the beginning; at last there is nothing more to look at."""
    search = Search(len(old.content), old.read, position=2 * MIB)
    for start in range(0, 10, 2):
        search.find(UNKNOWN[start : start + 2])
    search.find(UNKNOWN)

    assert [2, 3, 4, 0, 1] == segments()


def test_the_place_is_that_on_the_trail(old, segments):
    """Not that in the new version, which may be another one."""
    search = Search(len(old.content), old.read, position=MIB)
    trails(search, old, 2 * MIB)
    search.find(UNKNOWN[:2])

    assert [3] == segments()


@pytest.mark.parametrize(("position", "distance", "segment"), [(9 * MIB, 0, 4), (2 * MIB, -2 * MIB, 0)])
def test_a_trail_may_lead_out_of_the_old_version(old, segments, position, distance, segment):
    """The nearest part of it is looked at first."""
    search = Search(len(old.content), old.read, position=position)
    if distance:
        trails(search, old, distance)
        search._position -= MIB
    search.find(UNKNOWN[:2])

    assert [segment] == segments()


def test_the_latest_places_at_which_trails_were_lost_come_first(monkeypatch, segments, old):
    """Those before the last few are forgotten."""
    search = Search(len(old.content), old.read)
    monkeypatch.setattr(deltas, "_MAX_ANCHORS", 4)
    places = [0, MIB, 2 * MIB, 3 * MIB, 4 * MIB, 3 * MIB]
    for place in places:
        search._position = place
        search.find(UNKNOWN[:1])
        search._missed = 0
    search._missed = SIZE
    for _ in range(5):
        search.find(UNKNOWN[1:3])

    assert [3, 4, 2, 0, 1] == segments()


def test_the_lost_part_is_looked_for_once_more(old, segments, monkeypatch):
    """With what was learned meanwhile; what was found before it stays found, and the position is behind it all."""
    monkeypatch.setattr(deltas, "_SEGMENTS_AT_ONCE", 3)
    search = Search(len(old.content), old.read)
    moved = cut(old.content[:MIB])[20:40]
    place = sum(length for length, _ in cut(old.content[:MIB])[:20])
    first = chunks_of(old.content[:SIZE])
    places = search.find([*first, *moved])

    assert [0, place] == places[:2]
    assert None not in places
    assert [0] == segments()
    old.reads.clear()
    length = SIZE + sum(length for length, _ in moved)
    assert [length] == search.find(chunks_of(old.content[length : length + SIZE]))
    assert [] == segments()


def test_a_call_that_finds_nothing_at_first_ends_at_its_end(old, segments, monkeypatch):
    """Also when all of it was looked for twice: what follows in place is found without looking around."""
    monkeypatch.setattr(deltas, "_SEGMENTS_AT_ONCE", 3)
    search = Search(len(old.content), old.read)
    moved = cut(old.content[:MIB])[20:40]
    assert None not in search.find(moved)
    old.reads.clear()
    position = sum(length for length, _ in moved)

    assert [position] == search.find(chunks_of(old.content[position : position + SIZE]))
    assert [] == segments()
    assert [position] == [place for place, _ in old.reads][-1:]


def test_an_empty_old_version_has_nothing():
    """And nothing of it is read."""
    old = Old(b"")

    assert [None] * 10 == Search(0, old.read).find(UNKNOWN)
    assert [] == old.reads
