"""Packs: lists of values as one AMP value."""

import contextlib
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realize.errors import BadName, InternalError, NoSpace, ProtocolError, RealizeError, every_error
from realize.extras import Extras, Owner
from realize.numbered import MAX_NAME_NUMBER
from realize.values import (
    Attributes,
    Backup,
    Committed,
    Entry,
    Existing,
    Expected,
    Kind,
    Preserve,
    Removal,
    Seen,
    SmallFile,
    Stored,
    Version,
)
from realize.wire import packing
from realize.wire.packing import FetchedHead, SmallHead

SIZES = st.integers(0, 2**63 - 1)
TIMES = st.integers(-(2**63), 2**63 - 1)
UNSIGNED = st.integers(0, 2**64 - 1)
PATHS = st.binary(max_size=300)
DIGESTS = st.binary(min_size=32, max_size=32)
TEXTS = st.text(max_size=100).map(packing.harmless)  # what is shown to people arrives escaped
VERSIONS = st.builds(Version, UNSIGNED, UNSIGNED, SIZES, TIMES, TIMES)
SEEN = st.builds(Seen, st.binary(max_size=64), TIMES)
ATTRIBUTES = st.builds(Attributes, TIMES, st.integers(0, 0o777))
ERRORS = st.builds(
    lambda kind, text: kind(text),
    st.sampled_from([error for error in every_error() if error is not RealizeError]),
    TEXTS,
)
ITEMS = {
    "ENTRIES": st.builds(Entry, PATHS, st.sampled_from(Kind), SIZES, TIMES, TEXTS),
    "PATHS": PATHS,
    "SMALL_HEADS": st.builds(
        SmallHead, PATHS, st.integers(0, 65_535), DIGESTS, st.none() | ATTRIBUTES, st.none() | SEEN, st.integers(0, 9)
    ),
    "EXPECTED_FILES": st.builds(Expected, PATHS, SIZES, DIGESTS),
    "REMOVALS": st.builds(Removal, PATHS, VERSIONS),
    "DIGESTS": DIGESTS,
    "CHUNKS": st.tuples(st.integers(1, 65_535), st.binary(min_size=16, max_size=16)),
    "TEXTS": TEXTS,
    "CHAIN": st.binary(max_size=64),
    "FOUND": st.builds(
        Existing,
        st.none() | SIZES,
        TIMES,
        TIMES,
        st.binary(max_size=64),
        st.none() | SIZES,
        st.text("abc", max_size=20),
        st.booleans(),
    ),
    "FETCHED": st.builds(FetchedHead, st.integers(0, 65_535), DIGESTS, st.none() | ATTRIBUTES, VERSIONS),
    "OUTCOMES": st.builds(
        Stored, st.sampled_from(sorted(set(Committed) - {Committed.RENAMED}, key=str)), st.binary(max_size=64), TIMES
    )
    | st.builds(Stored, st.just(Committed.RENAMED), st.binary(max_size=64), TIMES, st.integers(1, MAX_NAME_NUMBER))
    | st.builds(
        Stored, st.just(Committed.REPLACED), st.just(b""), TIMES, backup=st.builds(Backup, st.binary(min_size=1))
    ),
    "SETTLED": st.booleans(),
    "REMOVED": st.none(),
}
WITH_ERRORS = {"FOUND", "FETCHED", "OUTCOMES", "SETTLED", "REMOVED"}
CODECS = [*ITEMS, "VERSIONS", "ATTRIBUTES", "PRESENT_ATTRIBUTES"]


def comparable(items):
    """Errors compare by class and text."""
    return [(type(item), str(item)) if isinstance(item, RealizeError) else item for item in items]


@given(name=st.sampled_from(sorted(ITEMS)), data=st.data())
def test_packs_survive_the_trip(name, data):
    """What was packed comes out."""
    items = ITEMS[name] | ERRORS if name in WITH_ERRORS else ITEMS[name]
    listed = data.draw(st.lists(items, max_size=20))
    codec = getattr(packing, name)

    assert comparable(listed) == comparable(codec.unpack(codec.pack(listed)))


KINDS = st.frozensets(st.sampled_from(Preserve))
OWNERS = st.builds(Owner, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=3))
FORMS = st.none() | st.binary(max_size=3)
EXTRAS = st.none() | st.builds(Extras, st.none() | OWNERS, FORMS, FORMS, FORMS, st.booleans(), KINDS, KINDS)


@given(some=st.lists(EXTRAS, min_size=1, max_size=4), data=st.data())
def test_extras_that_many_files_have_are_packed_like_any(some, data):
    """Whoever packs one object many times only saves time, and whoever unpacks it gets one object."""
    one_by_one = packing.Codec("attributes", packing.EACH_EXTRAS.encode, packing.EACH_EXTRAS.decode)
    listed = data.draw(st.lists(st.sampled_from(some), max_size=20))
    packed = one_by_one.pack(listed)

    assert packed == packing.EACH_EXTRAS.pack(listed)
    assert listed == one_by_one.unpack(packed) == packing.EACH_EXTRAS.unpack(packed)


@given(data=st.binary(max_size=8).map(lambda some: some * 30) | st.binary(max_size=84))
def test_bytes_that_look_like_repeated_extras_mean_what_they_mean_one_by_one(data):
    """Or are refused like that."""
    one_by_one = packing.Codec("attributes", packing.EACH_EXTRAS.encode, packing.EACH_EXTRAS.decode)

    def read(codec):
        try:
            return codec.unpack(data)
        except ProtocolError as error:
            return str(error)

    assert read(one_by_one) == read(packing.EACH_EXTRAS)


def test_extras_that_many_files_have_are_made_once():
    """A batch of files of one owner has one of them."""
    one = Extras(Owner(1, 2, b"kim", b"staff"), b"", None, b"")
    first, *others = packing.EACH_EXTRAS.unpack(packing.EACH_EXTRAS.pack([one] * 3))

    assert all(each is first for each in others)


CREATED = st.builds(Stored, st.just(Committed.CREATED), st.binary(min_size=16, max_size=16), TIMES)


@given(listed=st.lists(CREATED | ITEMS["OUTCOMES"] | ERRORS, max_size=20))
def test_files_that_were_created_are_packed_like_any_outcome(listed):
    """Packing them by the column is only faster: it makes the same bytes."""
    one_by_one = packing.Results("outcomes", packing.OUTCOMES.encode, packing.OUTCOMES.decode)
    created = [each for each in listed if isinstance(each, Stored) and each.how is Committed.CREATED]

    for some in (listed, created):
        packed = one_by_one.pack(some)
        assert packed == packing.OUTCOMES.pack(some)
        assert comparable(one_by_one.unpack(packed)) == comparable(packing.OUTCOMES.unpack(packed))


@given(data=st.binary(max_size=4).map(lambda some: some * 56) | st.binary(max_size=84))
def test_bytes_that_look_like_created_files_mean_what_they_mean_one_by_one(data):
    """What is unpacked by the column is what would be unpacked one after the other, or is refused like that."""
    one_by_one = packing.Results("outcomes", packing.OUTCOMES.encode, packing.OUTCOMES.decode)

    def outcome(codec):
        try:
            return comparable(codec.unpack(data))
        except ProtocolError as error:
            return str(error)

    assert outcome(one_by_one) == outcome(packing.OUTCOMES)


def test_no_more_created_files_are_unpacked_than_a_pack_may_have():
    """As with all lists."""
    one = packing.OUTCOMES.pack([Stored(Committed.CREATED, bytes(16), 1)])

    assert 256 == len(packing.OUTCOMES.unpack(256 * one))
    with pytest.raises(ProtocolError):
        packing.OUTCOMES.unpack(257 * one)


def test_texts_of_a_peer_cannot_forge_a_line():
    """What could break a line or move the cursor arrives escaped; what is escaped already stays as it is."""
    packed = packing.TEXTS.pack(["a\nlevel=error\x1b[31m", "a\\nb"])

    assert ["a\\nlevel=error\\x1b[31m", "a\\nb"] == packing.TEXTS.unpack(packed)
    assert "x\\r\\u202e" == str(packing.error_of(b"STORAGE", "x\r\u202e"))


@given(name=st.sampled_from(CODECS), data=st.binary(max_size=300))
def test_arbitrary_bytes_unpack_or_raise(name, data):
    """Any bytes either unpack or raise ProtocolError."""
    with contextlib.suppress(ProtocolError):
        getattr(packing, name).unpack(data)


@given(name=st.sampled_from(sorted(ITEMS.keys() - {"OUTCOMES", "SETTLED", "REMOVED"})), data=st.data())
def test_a_truncated_pack_raises(name, data):
    """A pack that ends within an item is refused."""
    codec = getattr(packing, name)
    packed = codec.pack([data.draw(ITEMS[name])])

    with pytest.raises(ProtocolError):
        codec.unpack(packed[:-1] if name != "TEXTS" else packed + b"\0")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("OUTCOMES", b"\0\x09"),
        ("OUTCOMES", b"\2\1"),
        ("SETTLED", b"\0\2"),
        ("ENTRIES", b"\x09" + bytes(20)),
        ("ENTRIES", b"\1" + b"\xff" * 8 + bytes(12)),
        ("ATTRIBUTES", b"\2"),
        ("ATTRIBUTES", b"\1" + bytes(8) + b"\xff\xff"),
        ("ATTRIBUTES", b"\0\0"),
        ("PRESENT_ATTRIBUTES", b"\0"),
        ("TEXTS", b"\0\1\xff"),
        ("FOUND", b"\0\x10" + bytes(36)),
        ("FOUND", b"\0\x08" + bytes(36)),
        ("FOUND", b"\0\x01" + bytes(36)),
        ("PATHS", b"\0\0" * 257),
        ("REMOVED", b"\0" * 257),
    ],
)
def test_what_is_out_of_range_raises(name, data):
    """Unknown enum values and flags, negative sizes, too many items are refused."""
    with pytest.raises(ProtocolError):
        getattr(packing, name).unpack(data)


@given(st.lists(st.binary(max_size=5000), max_size=300), st.integers(10, 65_535))
def test_lists_are_split_in_order_into_packs_that_fit(paths, limit):
    """Nothing is lost or reordered, and no pack is over a limit unless one item alone is."""
    packs = list(packing.fit(paths, packing.measure_path, limit=limit))

    assert paths == [path for pack in packs for path in pack]
    assert all(len(pack) <= packing.MAX_PACK_ITEMS for pack in packs)
    assert all(len(packing.PATHS.pack(pack)) <= limit or len(pack) == 1 for pack in packs)


@pytest.mark.parametrize(
    ("codec", "item"),
    [
        (packing.SMALL_HEADS, SmallFile(b"a/b", b"content", bytes(32), Attributes(-1, 0o777))),
        (packing.EXPECTED_FILES, Expected(b"a/b", 7, bytes(32))),
        (packing.REMOVALS, Removal(b"a/b", Version(1, 2, 3, 4, 5))),
    ],
)
def test_no_item_takes_more_than_it_is_measured_for(codec, item):
    """What is not packed to see how much it takes must be counted for enough, or a pack would not fit its value."""
    assert len(codec.pack([item])) <= packing.measure_named(item)


@given(st.lists(st.integers(0, 65_535), max_size=50))
def test_contents_weigh_too(sizes):
    """The contents of a pack of small files fit one value as well."""
    packs = list(packing.fit(sizes, lambda _: 1, weigh=lambda size: size))

    assert sizes == [size for pack in packs for size in pack]
    assert all(sum(pack) <= 65_535 for pack in packs)


def test_many_long_errors_fit_with_shorter_texts():
    """A full pack of errors is shortened, not refused."""
    errors = [NoSpace("ä" * 900)] * packing.MAX_PACK_ITEMS

    unpacked = packing.REMOVED.unpack(packing.REMOVED.pack(errors))

    assert [NoSpace] * packing.MAX_PACK_ITEMS == [type(error) for error in unpacked]
    assert "ä" * 100 == str(unpacked[0])


def test_a_code_of_a_later_version_is_an_error_too():
    """A code that is not known does not break the pack."""
    error = packing.error_of(b"NOVEL", "something new")

    assert InternalError is type(error)
    assert "something new" in str(error)


def test_a_name_that_no_pack_can_hold_is_a_bad_name():
    """The limit of the protocol is reported as what it is."""
    with pytest.raises(BadName):
        packing.PATHS.pack([bytes(65_535)])


@pytest.mark.parametrize(("sizes", "pieces"), [([1, 2], [b"12"]), ([1], [b"1", b"2"]), ([], [b"1"]), ([1], [])])
def test_contents_must_account_for_every_byte(sizes, pieces):
    """Sizes that do not add up are refused."""
    with pytest.raises(ProtocolError):
        packing.split_contents(sizes, pieces)


@given(contents=st.lists(st.binary(max_size=9)), cuts=st.lists(st.integers(0, 60)))
def test_contents_are_cut_out_wherever_pieces_end(contents, cuts):
    """One that comes in one piece is not copied."""
    whole = b"".join(contents)
    ends = sorted({min(cut, len(whole)) for cut in cuts} - {0} | {len(whole)})
    pieces = [whole[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    cut = packing.split_contents([len(content) for content in contents], pieces)

    assert contents == cut
    owners = [content.obj for content in cut if isinstance(content, memoryview)]
    assert all(any(owner is piece for piece in pieces) for owner in owners)
    across = sum(1 for end in ends[:-1] if not any(end == at for at in accumulate(map(len, contents))))
    assert len([content for content in contents if content]) - len(owners) <= across


@given(bits=st.lists(st.booleans(), max_size=100))
def test_bits_survive_the_trip(bits):
    """One bit for each, in whole bytes."""
    data = packing.pack_bits(bits)

    assert -(-len(bits) // 8) == len(data)
    assert bits == packing.unpack_bits(data, len(bits))


@pytest.mark.parametrize(("data", "count"), [(b"", 1), (b"\0\0", 8), (b"\x80\x40", 9), (b"\1", 0)])
def test_bits_that_do_not_fit_are_refused(data, count):
    """Neither missing bytes, nor more of them, nor bits that stand for nothing."""
    with pytest.raises(ProtocolError):
        packing.unpack_bits(data, count)


def test_chunks_are_never_empty():
    """Who offers nothing offers no chunk."""
    with pytest.raises(ProtocolError):
        packing.CHUNKS.unpack(bytes(18))
