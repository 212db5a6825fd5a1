"""Boxes as bytes."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.protocols.amp import COMMAND, AmpBox, parseString

from realize.errors import ProtocolError
from realize.wire.boxes import (
    MAX_BOX_BYTES,
    MAX_BOX_KEYS,
    BoxParser,
    CreditBox,
    DataBox,
    ZerosBox,
    credit,
    data_head,
    data_tail,
    encode,
    parse_number,
    zeros,
)

KEYS = st.binary(min_size=1, max_size=255) | st.sampled_from([b"_command", b"_ask", b"content", b"stream", b"zzz"])
VALUES = st.binary(max_size=100) | st.sampled_from([b"Data", b"Dat", b"7", b"12"])
BOXES = st.dictionaries(KEYS, VALUES, min_size=1, max_size=6).filter(
    lambda box: box.get(COMMAND) not in {b"Data", b"Zeros", b"Credit"}
)
DATAS = st.builds(DataBox, st.integers(0, 2**32 - 1), st.binary(min_size=1, max_size=70_000))
CREDITS = st.builds(CreditBox, st.integers(0, 2**32 - 1), st.integers(1, 2**30))
HOLES = st.builds(ZerosBox, st.integers(0, 2**32 - 1), st.integers(0, 2**62))
STREAMS_OF_BOXES = st.lists(BOXES | DATAS | HOLES | CREDITS, max_size=6)


def serialised(box):
    """The bytes of a box, a Data, a Zeros or a Credit."""
    if isinstance(box, CreditBox):
        return credit(box.stream, box.amount)
    if isinstance(box, ZerosBox):
        return zeros(box.stream, box.length)
    if isinstance(box, DataBox):
        return data_head(len(box.content)) + box.content + data_tail(box.stream)
    return encode(box)


def pieces_of(data, cuts):
    """``data`` cut at the positions given."""
    positions = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(positions)]


def parse(pieces, **options):
    """What a parser makes of the pieces: the boxes, and the error if there was one."""
    parser = BoxParser(**options)
    boxes = []
    try:
        for piece in pieces:
            boxes.extend(iter(parser.feed(piece)))
    except ProtocolError as error:
        return boxes, str(error)
    return boxes, None


def collected(pieces):
    """Like `parse`, box by box, so that boxes before an error count."""
    parser = BoxParser()
    boxes = []
    try:
        for piece in pieces:
            for box in parser.feed(piece):
                boxes.append(box)  # noqa: PERF402 -- boxes before the error must be kept
    except ProtocolError:
        return boxes, True
    return boxes, False


@given(STREAMS_OF_BOXES, st.lists(st.integers(0), max_size=8))
def test_boxes_survive_any_split(boxes, cuts):
    """What was encoded comes out, wherever the bytes are cut."""
    pieces = pieces_of(b"".join(map(serialised, boxes)), cuts)

    assert (boxes, None) == parse(pieces)


@given(st.lists(BOXES, max_size=3))
def test_boxes_come_out_byte_by_byte(boxes):
    """A box is yielded with its last byte, not later."""
    data = b"".join(map(serialised, boxes))
    parser = BoxParser()
    ends = []
    for position in range(len(data)):
        ends += [position + 1 for _ in parser.feed(data[position : position + 1])]

    expected = []
    for box in boxes:
        expected.append(len(serialised(box)) + (expected[-1] if expected else 0))
    assert expected == ends


@pytest.mark.parametrize("keys", [[b"_command"], [b"_command", b"content"], [b"_command", b"content", b"s"]])
def test_a_short_box_that_begins_like_data_is_not_held_back(keys):
    """A box that turns out not to be Data is judged with its last byte."""
    box = dict.fromkeys(keys, b"Data")
    parser = BoxParser()

    with pytest.raises(ProtocolError, match="malformed Data"):
        for byte in encode(box):
            list(parser.feed(bytes([byte])))


@given(st.lists(BOXES, max_size=4))
def test_boxes_are_amps(boxes):
    """Encoder and parser agree with Twisted's."""
    data = b"".join(encode(box) for box in boxes)

    assert b"".join(AmpBox(box).serialize() for box in boxes) == data
    assert parseString(data) == parse([data])[0]


@given(st.binary(max_size=400), st.lists(st.integers(0), max_size=6))
@example(b"\0\0", [])
@example(b"\1\0", [1])
@example(b"\0\x08_command\0\4Data\0\x07content\0\0\0\x06stream\0\0\0\0", [])
@example(b"\0\x08_command\0\4Data\0\x07content\0\1a\0\x06stream\0\x17" + b"1" * 23 + b"\0\0", [40])
def test_arbitrary_bytes_parse_or_raise(data, cuts):
    """Any bytes either parse or raise ProtocolError, and cuts do not change which."""
    assert collected([data]) == collected(pieces_of(data, cuts))


@given(DATAS, st.permutations([COMMAND, b"content", b"stream"]), st.lists(st.integers(0), max_size=4))
def test_data_with_its_keys_in_any_order_is_data(data, order, cuts):
    """The short cut is about speed only."""
    values = {COMMAND: b"Data", b"content": data.content, b"stream": b"%d" % data.stream}
    raw = b"".join(encode({key: values[key]})[:-2] for key in order) + b"\0\0"

    assert ([data], None) == parse(pieces_of(raw, cuts))


@pytest.mark.parametrize(
    "data",
    [
        encode({b"a": b"1"})[:-2] + encode({b"a": b"2"}),
        b"".join(encode({b"%d" % number: b""})[:-2] for number in range(MAX_BOX_KEYS + 1)) + b"\0\0",
        b"\1\0" + b"k" * 256,
        b"\0\0",
        b"".join(encode({b"%d" % number: bytes(65_535)})[:-2] for number in range(5)) + b"\0\0",
        encode({COMMAND: b"Data", b"content": b"x", b"stream": b"-1"}),
        encode({COMMAND: b"Data", b"content": b"x", b"stream": b"01"}),
        encode({COMMAND: b"Data", b"content": b"x", b"stream": b"1" * 30}),
        encode({COMMAND: b"Data", b"content": b"x", b"stream": b"1", b"_ask": b"1"}),
        encode({COMMAND: b"Data", b"content": b"x"}),
    ],
    ids=["twice", "keys", "long key", "empty", "big", "minus", "zero", "digits", "ask", "no stream"],
)
def test_what_is_not_allowed_raises(data):
    """Bounds and the shape of Data are checked."""
    assert parse([data])[1]


def test_an_oversized_box_is_refused_before_it_has_arrived():
    """A length that breaks the bound is enough."""
    _, error = parse([b"\0\1k" + b"\xff\xff"], limit=1000)

    assert error == "a box of more than 1000 bytes"


def test_an_oversized_data_box_is_refused_before_it_has_arrived():
    """The short cut keeps the same bound."""
    _, error = parse([data_head(65_535)], limit=8192)

    assert error == "a box of more than 8192 bytes"


def test_what_is_held_is_bounded():
    """However many pieces come, an unfinished box holds no more than the limit."""
    parser = BoxParser()
    held = 0
    with pytest.raises(ProtocolError):
        for _ in range(100_000):
            list(parser.feed(b"\0\1k\xff\xff" + bytes(1000)))
            held = max(held, parser._held)

    assert held <= MAX_BOX_BYTES


@pytest.mark.parametrize("digits", [b"", b"-1", b"+1", b" 1", b"1_0", b"01", b"1" * 21, b"\xd9\xa1", b"0x1"])
def test_numbers_are_strict(digits):
    """Only plain decimal digits, not too many, are a number."""
    with pytest.raises(ProtocolError):
        parse_number(digits)


def test_the_encoder_refuses_what_amp_cannot_say():
    """A value of 64 KiB, or an empty key, is an error and not a broken box."""
    for box in ({b"k": bytes(65_536)}, {b"": b""}, {b"k" * 256: b""}):
        with pytest.raises(ProtocolError):
            encode(box)


def test_credit_and_holes_are_written_as_amp_writes_them():
    """The short cut makes the same bytes as the encoder."""
    assert encode({b"_command": b"Zeros", b"stream": b"7", b"length": b"1048576"}) == zeros(7, 1 << 20)
    assert encode({b"_command": b"Credit", b"stream": b"7", b"amount": b"1048576"}) == credit(7, 1 << 20)


@pytest.mark.parametrize(
    "box",
    [
        {b"_command": b"Credit", b"stream": b"1"},
        {b"_command": b"Credit", b"amount": b"1"},
        {b"_command": b"Credit", b"stream": b"1", b"amount": b"x"},
        {b"_command": b"Credit", b"stream": b"1", b"amount": b"1", b"_ask": b"1"},
        {b"_command": b"Zeros", b"stream": b"1"},
        {b"_command": b"Zeros", b"length": b"1"},
        {b"_command": b"Zeros", b"stream": b"1", b"length": b"-1"},
        {b"_command": b"Zeros", b"stream": b"1", b"length": b"1", b"_ask": b"1"},
    ],
)
def test_credit_and_holes_must_be_whole(box):
    """Credit without a stream or an amount, or with a question, is no credit; holes likewise."""
    with pytest.raises(ProtocolError):
        list(BoxParser().feed(encode(box)))


SEQUENCE = [
    {b"_command": b"Status", b"_ask": b"1"},
    DataBox(7, b"12345"),
    DataBox(0, b""),
    CreditBox(7, 1 << 20),
    ZerosBox(7, 1 << 26),
    {b"_command": b"Dat"},
    {b"_answer": b"1", b"x": b"", b"zzz": b"y" * 80},
    DataBox(99_999, b"x" * 100),
]
RAW = b"".join(map(serialised, SEQUENCE))


def test_boxes_survive_every_split_in_three():
    """Wherever the bytes are cut, and however short the pieces are."""
    for first in range(len(RAW) + 1):
        for second in range(first, len(RAW) + 1, 7):
            assert (SEQUENCE, None) == parse([RAW[:first], RAW[first:second], RAW[second:]])
    for length in range(1, 40):
        assert (SEQUENCE, None) == parse([RAW[start : start + length] for start in range(0, len(RAW), length)])


@pytest.mark.parametrize("length", [1, 2, 3, 30])
def test_what_has_arrived_of_a_box_is_known(length):
    """Whoever waits for the rest of it knows that something comes."""
    ends = [0]
    for box in SEQUENCE:
        ends.append(ends[-1] + len(serialised(box)))
    parser = BoxParser()
    assert 0 == parser.unfinished
    complete = 0
    for start in range(0, len(RAW), length):
        complete += len(list(parser.feed(RAW[start : start + length])))
        assert min(start + length, len(RAW)) - ends[complete] == parser.unfinished


@pytest.mark.parametrize(
    "box",
    [
        {b"k" * 255: b"x"},
        {b"%d" % number: b"x" for number in range(MAX_BOX_KEYS)},
        {b"k": bytes(65_535), b"l": bytes(65_535)},
        {b"_command": b"Credit", b"stream": b"9" * 20, b"amount": b"0"},
    ],
    ids=["key", "keys", "values", "digits"],
)
def test_as_much_as_is_allowed_is_taken(box):
    """To the last byte, wherever it is split."""
    raw = encode(box)
    expected = [CreditBox(int(b"9" * 20), 0)] if b"_command" in box else [box]
    for cut in {1, 2, 3, len(raw) // 2, len(raw) - 3, len(raw) - 1}:
        assert (expected, None) == parse([raw[:cut], raw[cut:]], limit=len(raw))
    assert ([DataBox(int(b"9" * 20), b"x")], None) == parse([serialised(DataBox(int(b"9" * 20), b"x"))])
    boxes, error = parse([raw], limit=len(raw) - 1)
    assert ([], f"a box of more than {len(raw) - 1} bytes") == (boxes, error)


def test_each_box_has_the_whole_limit():
    """What came before it does not count."""
    raw = encode({b"k": bytes(50)})
    data = serialised(DataBox(1, bytes(50)))

    assert ([{b"k": bytes(50)}] * 3, None) == parse([raw * 3], limit=len(raw))
    assert ([DataBox(1, bytes(50))] * 3, None) == parse([data * 3], limit=len(data))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (data_head(1) + b"x" + data_tail(1)[:-5] + b"\0\x15" + b"1" * 21 + b"\0\0", "a number of 21 digits"),
        (data_head(1) + b"x" + data_tail(1)[:-3] + b"x\0\0", "not a number"),
        (b"\1\0" + b"k" * 256, "a key of 256 bytes"),
        (encode({COMMAND: b"Data", b"content": b"x", b"stream": b"1", b"_ask": b"1"}), "a malformed Data box"),
        (encode({COMMAND: b"Data", b"stream": b"1"}), "a malformed Data box"),
        (encode({COMMAND: b"Credit", b"stream": b"1"}), "a malformed Credit box"),
        (encode({COMMAND: b"Data", b"content": b"x"}), "a malformed Data box"),
        (b"\0\0", "an empty box"),
    ],
    ids=["digits", "no digits", "long key", "ask", "no content", "no amount", "no stream", "empty"],
)
def test_what_is_wrong_is_said_wherever_it_is_split(raw, message):
    """Boxes before it come out, and nothing behind it."""
    before = {b"k": b"v"}
    for whole in (encode(before) + raw + encode(before), encode(before) + raw):
        for cut in range(len(whole)):
            boxes, error = parse([whole[:cut], whole[cut:]])
            assert message in error
            assert boxes in ([before], [])


@pytest.mark.parametrize("digits", [b"0", b"7", b"10", b"9" * 20])
def test_numbers_of_up_to_twenty_digits_are_taken(digits):
    """Zero among them."""
    assert int(digits) == parse_number(digits)


def test_as_much_as_amp_can_say_is_encoded():
    """A key of 255 bytes, and a value of 64 KiB less one."""
    box = {b"k" * 255: bytes(65_535)}

    assert [box] == parseString(encode(box))


def test_content_is_not_copied():
    """It is a view of what arrived, if it arrived in one piece."""
    content = bytes(10_000)
    raw = data_head(len(content)) + content + data_tail(1)
    ((_, view),) = BoxParser().feed(raw)

    assert view.obj is raw


def test_only_what_two_deliveries_share_is_joined():
    """What follows it is looked at where it is."""
    first, second = (serialised(DataBox(1, bytes(10_000))) for _ in range(2))
    parser = BoxParser()
    assert [] == list(parser.feed(first[:5_000]))
    rest = first[5_000:] + second
    shared, whole = parser.feed(rest)

    assert (True, False) == (whole.content.obj is rest, shared.content.obj is rest)
    assert len(shared.content.obj) < len(first) + 200


@pytest.mark.parametrize("more", [b"other", b"stream2", b"zzz"])
@pytest.mark.parametrize("last", [True, False], ids=["behind", "between"])
def test_data_with_more_keys_is_data(more, last):
    """The peer may be newer; wherever it is split, and whatever follows."""
    parts = [encode({key: value})[:-2] for key, value in ((b"stream", b"7"), (more, b"x" * 30))]
    head = data_head(3) + b"abc"
    raw = head + b"".join(parts if last else reversed(parts)) + b"\0\0"
    whole = raw + encode({b"k": b"v"})

    for cut in range(len(whole)):
        assert ([DataBox(7, b"abc"), {b"k": b"v"}], None) == parse([whole[:cut], whole[cut:]])


def test_how_much_content_has_arrived_of_an_incomplete_box_can_be_told():
    """Of Data alone: other boxes have none."""
    raw = data_head(1000) + bytes(1000) + data_tail(1)
    parser, seen = BoxParser(), []
    for piece in (raw[:5], raw[5:40], raw[40:500], raw[500:]):
        list(parser.feed(piece))
        seen.append(parser.unfinished_content)
    list(parser.feed(encode({b"k": b"v" * 100})[:50]))

    head = len(data_head(1000))
    assert [0, 40 - head, 500 - head, 0] == seen
    assert (True, 0) == (parser.unfinished > 0, parser.unfinished_content)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_value_that_comes_in_tiny_pieces_takes_little_memory(size):
    """Each piece is an object of its own until they are joined."""
    value = bytes(range(256)) * 255
    whole = encode({b"_command": b"Ping", b"value": value})
    parser = BoxParser()
    pieces = [whole[first : first + size] for first in range(0, len(whole), size)]
    del pieces[-9:]
    tracemalloc.start()
    for piece in pieces:
        assert [] == list(parser.feed(bytes(bytearray(piece))))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    [box] = parser.feed(whole[sum(map(len, pieces)) :])

    assert taken < len(value) + (48 << 10)
    assert value == box[b"value"]
