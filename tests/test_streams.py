"""Streams: credit on the receiving side, pushback on the sending side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from realize.concurrency.memory import UNBOUNDED, Memory
from realize.errors import Busy, ConnectionFailed, NoSpace, ProtocolError
from realize.values import MAX_HOLE_BYTES, MAX_VALUE_BYTES, MIN_HOLE_BYTES, Hole
from realize.wire.boxes import BoxParser, DataBox, ZerosBox
from realize.wire.commands import HOLE_CREDIT_BYTES, MAX_STREAMS
from realize.wire.inbound_stream import MAX_NARROW_BYTES, TAKE_BYTES, InboundStream
from realize.wire.outbound_stream import WRITE_BATCH_BYTES, OutboundStream
from realize.wire.streams import StreamTable
from realize.wire.traffic import Traffic
from realize.wire.windows import RoundTrip


class FakeLink:
    """Collects what is sent; is full when told so."""

    memory = UNBOUNDED.of("")

    def __init__(self):
        self.sending = self
        self.writes = []
        self.granted = []
        self.full = False
        self.waiting = []
        self.batch = WRITE_BATCH_BYTES
        self.expecting = []
        self.bytes_sent = 0
        self.waits = 0
        self.takes_holes = True
        self.compression = None
        self.begun = {}
        self.clock = Clock()
        self.now = self.clock.seconds
        self.asked = []
        self.round_trip = RoundTrip(self.clock, self._echo)

    def _echo(self):
        """Keep what is to be answered."""
        self.asked.append(Deferred())
        return self.asked[-1]

    def write(self, data):
        """Keep."""
        self.writes.append(data)
        self.bytes_sent += len(data)

    def unsent(self):
        """How much of that has not gone."""
        return self.waits

    def writable(self):
        """None unless full."""
        if not self.full:
            return None
        waiter = Deferred()
        self.waiting.append(waiter)
        return waiter

    def chunk(self):
        """How much to write at once."""
        return self.batch

    def arriving(self, stream):
        """How much of a box that is not complete may be for that stream."""
        return self.begun.get(stream, 0)

    def expect(self, what):
        """Keep what is waited for."""
        self.expecting.append(what)
        return len(self.expecting)

    def expected(self, _ticket):
        """It came."""
        self.expecting.pop()

    def resume(self):
        """Not full any more."""
        self.full = False
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def grant(self, stream, amount):
        """Keep."""
        self.granted.append(amount)

    def stream_closed(self):
        """Nothing."""

    def boxes(self):
        """The content of each box that was written."""
        return [bytes(box.content) for box in BoxParser().feed(b"".join(self.writes))]

    def content(self):
        """The content of all boxes that were written."""
        return b"".join(self.boxes())


def outcome(waiting):
    """What a Deferred or coroutine has come to, or None."""
    if not isinstance(waiting, Deferred):
        waiting = Deferred.fromCoroutine(waiting)
    results = []
    waiting.addCallbacks(
        lambda result: results.append((True, result)), lambda error: results.append((False, error.value))
    )
    return results


@given(
    st.lists(st.binary(max_size=200_000), max_size=4),
    st.lists(st.integers(1, 300_000), max_size=8),
    st.integers(512, WRITE_BATCH_BYTES),
)
def test_what_is_sent_is_what_was_given(pieces, amounts, batch):
    """Content keeps its order however credit comes, and never exceeds it."""
    link = FakeLink()
    link.batch = batch
    stream = OutboundStream(1, link)
    total = sum(map(len, pieces))
    done = outcome(stream.send(pieces))
    given_so_far = 0
    for amount in amounts:
        stream.give(amount)
        given_so_far += amount
        assert len(link.content()) == min(given_so_far, total)
    stream.give(total or 1)

    assert [(True, None)] == done
    assert b"".join(pieces) == link.content()


def test_small_pieces_are_written_together():
    """Several boxes go out in one write, about a batch at a time."""
    link = FakeLink()
    stream = OutboundStream(1, link)
    stream.give(8 << 20)
    outcome(stream.send([bytes(1 << 20)]))

    assert (1 << 20) // WRITE_BATCH_BYTES == len(link.writes)


def test_small_pieces_share_boxes():
    """The contents of a batch of small files cost few boxes, of which each takes both ends some work."""
    link = FakeLink()
    stream = OutboundStream(1, link)
    stream.give(2 << 20)
    outcome(stream.send([bytes(10_240)] * 100))

    assert -(-100 * 10_240 // MAX_VALUE_BYTES) == len(link.boxes())


def test_what_waits_on_this_machine_has_not_travelled():
    """Of what was written, in turns with other streams, only what has left counts."""
    link = FakeLink()
    one, other = OutboundStream(1, link), OutboundStream(3, link)
    for stream in (one, other, one):
        stream.give(100_000)
        outcome(stream.send([bytes(100_000)]))
    seen = []
    for part in (6, 5, 4, 3, 2, 1, 0):
        link.waits = link.bytes_sent * part // 6
        seen.append((one.travelled() // 1000, other.travelled() // 1000))

    assert [(0, 0), (50, 0), (100, 0), (100, 50), (100, 100), (150, 100), (200, 100)] == seen


def test_how_far_a_stream_is_can_be_told_however_many_writes_wait():
    """What is noted of them is bounded, and what has left does not get less."""
    link = FakeLink()
    link.batch = 512
    stream = OutboundStream(1, link)
    stream.give(512 * 1000)
    outcome(stream.send([bytes(512 * 1000)]))
    seen = []
    for part in range(101):
        link.waits = link.bytes_sent - link.bytes_sent * part // 100
        seen.append(stream.travelled())

    assert seen == sorted(seen)
    assert (0, 512 * 1000) == (seen[0], stream.travelled())
    assert all(abs(travelled - 512 * 10 * number) <= 512 for number, travelled in enumerate(seen))


def test_when_a_stream_has_failed_no_more_of_it_travels():
    """What the transport held then is gone, and nobody has it."""
    link = FakeLink()
    stream = OutboundStream(1, link)
    stream.give(1000)
    outcome(stream.send([bytes(1000)]))
    link.waits = link.bytes_sent // 2
    before = stream.travelled()
    stream.fail(ConnectionFailed("lost"))
    link.waits = 0

    assert 0 < before < 1000
    assert before == stream.travelled()


def test_content_of_a_box_that_is_not_complete_has_travelled():
    """On a slow line a box may take seconds; never more than there is."""
    link = FakeLink()
    stream = InboundStream(1, 100, link)
    stream.start()
    stream.receive(bytes(40))
    stream.delivered()
    seen = []
    for link.begun[1] in (0, 20, 90):
        seen.append(stream.travelled())

    assert [40, 60, 100] == seen


def test_what_is_not_complete_is_probably_for_who_got_the_last():
    """Or, where nothing came yet, for the first who waits."""
    table = StreamTable(FakeLink(), connecting=False)
    for number in (1, 3, 5):
        table.accept(number)
        table.inbound(number, 2 << 20).start()
    first = table.latest
    table.receive(3, b"content")
    later = table.latest
    table.close(3)
    oldest = table.latest
    for number in (1, 5):
        table.close(number)
    table.accept(7)
    table.inbound(7, 100)

    assert (1, 3, 1, 7) == (first, later, oldest, table.latest)


def test_a_slow_pace_makes_small_writes():
    """What the transport suggests is not exceeded, so that answers need not wait behind it."""
    link = FakeLink()
    link.batch = 512
    stream = OutboundStream(1, link)
    stream.give(8 << 20)
    outcome(stream.send([bytes(5000)]))

    assert max(map(len, link.writes)) < 600


def test_a_full_transport_holds_the_sender():
    """Nothing is written while the transport is full."""
    link = FakeLink()
    stream = OutboundStream(1, link)
    stream.give(1000)
    link.full = True
    done = outcome(stream.send([b"x"]))
    before = list(link.writes)
    link.resume()

    assert ([], [(True, None)]) == (before, done)
    assert b"x" == link.content()


@pytest.mark.parametrize("wait", ["credit", "transport"])
def test_a_failure_wakes_the_sender(wait):
    """Whatever the sender waits for, it learns why the stream ended."""
    link = FakeLink()
    stream = OutboundStream(1, link)
    if wait == "transport":
        stream.give(100)
        link.full = True
    done = outcome(stream.send([b"x"]))
    stream.fail(NoSpace("full"))
    link.resume()

    assert NoSpace is type(done[0][1])
    assert [] == link.writes


def inbound(limit=100 * MAX_NARROW_BYTES):
    """A started stream and its link."""
    link = FakeLink()
    stream = InboundStream(1, limit, link)
    stream.start()
    return stream, link


def test_credit_is_bounded_by_the_window():
    """However slowly the consumer takes, no more than a window is ever promised beyond what it took."""
    stream, link = inbound()
    for _ in range(MAX_NARROW_BYTES // TAKE_BYTES):
        stream.receive(bytes(TAKE_BYTES))
        stream.delivered()
    granted = []
    for _ in range(3):
        [(_, pieces)] = outcome(stream.read())
        granted.append((len(b"".join(pieces)), sum(link.granted)))

    assert [(TAKE_BYTES, MAX_NARROW_BYTES + number * TAKE_BYTES) for number in (1, 2, 3)] == granted


def test_credit_ends_with_the_content():
    """No more is promised than is announced."""
    stream, link = inbound(limit=10)

    assert [10] == link.granted
    stream.receive(bytes(10))
    outcome(stream.read())
    assert [(True, [])] == outcome(stream.read())
    assert [10] == link.granted


def test_a_waiting_reader_gets_what_arrives():
    """A read waits for content, and the end is an empty list."""
    stream, _ = inbound(limit=2)
    first = outcome(stream.read())
    stream.receive(b"1")
    stream.delivered()
    second = outcome(stream.read())
    stream.receive(b"2")
    stream.delivered()

    assert ([(True, [b"1"])], [(True, [b"2"])], [(True, [])]) == (first, second, outcome(stream.read()))


def test_what_arrived_together_is_read_together():
    """A reader that waits gets all content of one delivery, in one piece of its own."""
    stream, _ = inbound()
    done = outcome(stream.read())
    delivery = bytearray(b"onetwothree")
    for part in (slice(0, 3), slice(3, 6), slice(6, 11)):
        stream.receive(memoryview(delivery)[part])
    before = list(done)
    stream.delivered()
    delivery[:] = bytes(len(delivery))

    assert ([], [(True, [b"onetwothree"])]) == (before, done)


def test_large_views_are_handed_on_without_a_copy():
    """What is most of its delivery is kept as it is."""
    stream, _ = inbound()
    delivery = memoryview(bytes(200_000))
    parts = [delivery[100:65_000], delivery[65_100:130_000], delivery[130_100:]]
    for part in parts:
        stream.receive(part)
    stream.delivered()
    [(_, pieces)] = outcome(stream.read())

    assert parts == pieces
    assert all(piece.obj is delivery.obj for piece in pieces)


def test_views_keep_little_of_what_is_not_theirs():
    """A delivery of which half is for nobody is copied from: a peer may fill it with what costs no credit."""
    stream, _ = inbound()
    delivery = memoryview(bytes(262_144))
    stream.receive(delivery[:65_535])
    stream.receive(delivery[65_600:131_135])
    stream.delivered()
    [(_, pieces)] = outcome(stream.read())

    assert [bytes] == [type(piece) for piece in pieces]
    assert 2 * 65_535 == len(pieces[0])


@pytest.mark.parametrize(
    "sizes", [[20_000], [1_000] * 190, [15_000, 15_000, 90_000]], ids=["little", "many", "one of many"]
)
def test_views_do_not_keep_more_than_themselves(sizes):
    """A small part of a delivery, or many small ones, are copied, lest they keep all of it or become many objects."""
    stream, _ = inbound()
    delivery = memoryview(bytes(250_000))
    position = 0
    for size in sizes:
        stream.receive(delivery[position : position + size])
        position += size
    stream.delivered()
    [(_, pieces)] = outcome(stream.read())

    assert 1 == len(pieces)
    assert isinstance(pieces[0], bytes)
    assert sum(sizes) == len(pieces[0])


def test_an_empty_file_ends_at_once():
    """Nothing needs to arrive."""
    stream, link = inbound(limit=0)

    assert [(True, [])] == outcome(stream.read())
    assert [] == link.granted


def test_what_matched_need_not_arrive():
    """A stream that was matched to its end wakes its reader."""
    stream, _ = inbound(limit=10)
    done = outcome(stream.read())
    stream.matched(10)

    assert [(True, [])] == done


@pytest.mark.parametrize(
    "contents",
    [[bytes(MAX_NARROW_BYTES + 1)], [b""], [bytes(MAX_NARROW_BYTES // 2)] * 3],
    ids=["at once", "empty", "in parts"],
)
def test_content_beyond_credit_is_a_violation(contents):
    """More than was promised, or nothing at all, ends the connection."""
    stream, _ = inbound()
    with pytest.raises(ProtocolError):
        for content in contents:
            stream.receive(content)


def test_content_beyond_the_size_is_a_violation():
    """More than was announced ends the connection."""
    stream, _ = inbound(limit=3)
    with pytest.raises(ProtocolError):
        stream.receive(b"1234")


def test_matching_what_has_arrived_is_a_violation():
    """What has been sent needed to be sent."""
    stream, _ = inbound(limit=1)
    stream.receive(b"1")
    with pytest.raises(ProtocolError):
        stream.matched(1)


def test_tiny_boxes_cost_little_memory():
    """A window of one-byte boxes is a few pieces."""
    stream, _ = inbound()
    for _ in range(50_000):
        stream.receive(b"x")
        stream.delivered()
    pieces = outcome(stream.read())[0][1]

    assert (1, 50_000) == (len(pieces), len(pieces[0]))


def test_a_failed_stream_fails_its_reader_and_drops_the_rest():
    """After an end nothing is kept, and nothing more is promised."""
    stream, link = inbound()
    done = outcome(stream.read())
    stream.fail(NoSpace("full"))
    stream.receive(b"late")

    assert NoSpace is type(done[0][1])
    assert NoSpace is type(outcome(stream.read())[0][1])
    assert 1 == len(link.granted)


def test_a_reader_that_could_not_be_told_goes_on_waiting(monkeypatch):
    """For want of memory the connection ends then, and the reader learns that; it holds a partial open till then."""
    stream, _link = inbound()
    waiting = stream.read()

    def hand(*_):
        raise MemoryError

    monkeypatch.setattr(InboundStream, "_hand", hand)
    stream.receive(b"content")
    with pytest.raises(MemoryError):
        stream.delivered()
    stream.fail(ConnectionFailed("gone"))

    assert [(False, ConnectionFailed)] == [(went_well, type(error)) for went_well, error in outcome(waiting)]


def test_what_has_arrived_is_read_before_the_end():
    """Nothing more is promised or taken meanwhile, and no memory is claimed but for what is still here."""
    memory = Memory(1 << 30, 1 << 30)
    link = FakeLink()
    link.memory = memory.of("peer")
    stream = InboundStream(1, 2 * MAX_NARROW_BYTES, link)
    stream.start()
    stream.receive(bytes(TAKE_BYTES))
    stream.receive(b"rest")
    stream.end(NoSpace("over"))
    stream.receive(b"late")
    held = memory.held
    taken = [outcome(stream.read())[0] for _ in range(2)]

    assert (TAKE_BYTES + 4, 1) == (held, len(link.granted))
    assert [TAKE_BYTES, 4] == [sum(map(len, pieces)) for _, pieces in taken]
    assert [NoSpace] * 2 == [type(outcome(stream.read())[0][1]) for _ in range(2)]
    assert (False, 0) == (stream.unread, memory.held)


def test_no_more_comes_than_is_wanted():
    """Up to what it takes to be told of a hole, holes not counted."""
    link = FakeLink()
    stream = InboundStream(1, 100 * MAX_NARROW_BYTES, link)
    stream.cap(3 * MIN_HOLE_BYTES)
    stream.start()
    stream.receive_hole(MAX_HOLE_BYTES)
    stream.receive(bytes(3 * MIN_HOLE_BYTES))
    stream.delivered()
    while stream.unread:
        outcome(stream.read())

    assert 3 * MIN_HOLE_BYTES + 2 * HOLE_CREDIT_BYTES == sum(link.granted)


def table(*, connecting=True):
    """The streams of one side."""
    return StreamTable(FakeLink(), connecting=connecting)


def test_each_side_has_its_own_numbers():
    """The connecting side opens odd numbers, the accepting side even ones."""
    ours, theirs = table(), table(connecting=False)

    assert [1, 3] == [ours.choose(), ours.choose()]
    assert [2, 4] == [theirs.choose(), theirs.choose()]
    theirs.accept(5)
    for number in (5, 3, 6, 0):
        with pytest.raises(ProtocolError):
            theirs.accept(number)


def test_streams_are_limited():
    """Too many at once are refused, by either side."""
    ours, theirs = table(), table(connecting=False)
    for _ in range(MAX_STREAMS):
        theirs.accept(ours.choose())

    with pytest.raises(Busy):
        ours.choose()
    with pytest.raises(Busy):
        theirs.accept(2 * MAX_STREAMS + 1)


def test_late_content_of_a_closed_stream_is_ignored():
    """What was under way when a stream was closed does no harm; a stream that never was does."""
    streams = table(connecting=False)
    streams.accept(7)
    streams.inbound(7, 10)
    streams.close(7)
    streams.receive(7, b"late")
    streams.credited(7, 5)
    streams.stopped(7, NoSpace("late"))

    for number in (9, 2):
        with pytest.raises(ProtocolError):
            streams.receive(number, b"x")
        with pytest.raises(ProtocolError):
            streams.credited(number, 1)


def test_content_and_credit_need_the_right_direction():
    """Content for a stream that we send on, and credit for one that we receive on, are violations."""
    streams = table()
    sending, receiving, opening = (streams.choose() for _ in range(3))
    streams.outbound(sending)
    streams.inbound(receiving, 10)

    for number in (sending, opening):
        with pytest.raises(ProtocolError):
            streams.receive(number, b"x")
    for number in (receiving, opening):
        with pytest.raises(ProtocolError):
            streams.credited(number, 1)


def test_credit_has_an_end():
    """A peer cannot promise without bound."""
    stream = OutboundStream(1, FakeLink())
    with pytest.raises(ProtocolError):
        for _ in range(10):
            stream.give(1 << 30)


def test_a_lost_connection_fails_every_stream():
    """All who wait are told, and new streams fail at once."""
    streams = table()
    error = ConnectionFailed("gone")
    number = streams.choose()
    reading = outcome(streams.inbound(number, 10).read())
    writing = outcome(streams.outbound(streams.choose()).send([b"x"]))
    streams.lost(error)

    assert [error, error] == [reading[0][1], writing[0][1]]
    assert 0 == len(streams)
    assert [(False, error)] == outcome(streams.inbound(number, 10).read())
    with pytest.raises(ConnectionFailed):
        streams.choose()


def test_what_a_lost_connection_has_brought_can_be_read():
    """Until its stream is closed."""
    streams = table()
    numbers = [streams.choose() for _ in range(2)]
    some, more = (streams.inbound(number, 1 << 20) for number in numbers)
    for stream, number in ((some, numbers[0]), (more, numbers[1])):
        stream.start()
        streams.receive(number, b"content")
    streams.lost(ConnectionFailed("gone"))
    streams.close(numbers[1])

    assert [(True, [b"content"])] == outcome(some.read())
    assert [ConnectionFailed] * 2 == [type(outcome(stream.read())[0][1]) for stream in (some, more)]
    counted = Traffic()
    streams.count(counted)
    assert (1, 14) == (len(streams), counted.content_received)


def boxes_of(link):
    """The boxes that were written."""
    return list(BoxParser().feed(b"".join(link.writes)))


def test_a_hole_is_told_in_order_and_uses_up_little_credit():
    """Whatever its length; without enough credit it waits, and what comes before it goes."""
    link = FakeLink()
    stream = OutboundStream(1, link)
    done = outcome(stream.send([b"before", Hole(MAX_HOLE_BYTES), b"after"]))
    stream.give(HOLE_CREDIT_BYTES)
    assert [DataBox(1, b"before")] == boxes_of(link)
    stream.give(6)
    stream.give(5)

    assert [DataBox(1, b"before"), ZerosBox(1, MAX_HOLE_BYTES), DataBox(1, b"after")] == boxes_of(link)
    assert [(True, None)] == done
    assert (11, MAX_HOLE_BYTES, 0, 11) == (stream.content, stream.holes, stream.credit, stream.travelled())


@pytest.mark.parametrize(
    ("takes_holes", "length"), [(False, MIN_HOLE_BYTES), (False, 3 << 20), (True, 5), (True, MAX_HOLE_BYTES + 1)]
)
def test_zeros_are_sent_where_a_hole_is_not_told(takes_holes, length):
    """To an other end that does not know holes, and for those of a length that may not be told."""
    link = FakeLink()
    link.takes_holes = takes_holes
    stream = OutboundStream(1, link)
    stream.give(length + 2)
    done = outcome(stream.send([b"<", Hole(length), b">"]))

    assert [(True, None)] == done
    assert (b"<" + bytes(length) + b">") == link.content()
    assert (length + 2, 0) == (stream.content, stream.holes)


def test_a_hole_is_received_in_order():
    """It counts as content, but not as content that has travelled; and makes room for credit when it is taken."""
    link = FakeLink()
    size = 3 * MAX_HOLE_BYTES + 6
    stream = InboundStream(2, size, link)
    stream.start()
    stream.receive(b"abc")
    for _ in range(3):
        stream.receive_hole(MAX_HOLE_BYTES)
    stream.receive(b"def")
    stream.delivered()
    taken = []
    while (some := outcome(stream.read())) != [(True, [])]:
        taken.append(some[0][1])

    assert [[b"abc", Hole(MAX_HOLE_BYTES)], [Hole(MAX_HOLE_BYTES)], [Hole(MAX_HOLE_BYTES)], [b"def"]] == taken
    assert (size, 6, 6) == (stream.arrived, stream.content, stream.travelled())


def test_a_sender_of_holes_waits_for_their_receiver():
    """As many wait as there is credit for, however long they are; more come as they are taken."""
    link = FakeLink()
    stream = InboundStream(2, 1 << 62, link)
    stream.start()
    for _ in range(MAX_NARROW_BYTES // HOLE_CREDIT_BYTES):
        stream.receive_hole(MAX_HOLE_BYTES)
    stream.delivered()
    assert [MAX_NARROW_BYTES] == link.granted
    for _ in range(20):
        outcome(stream.read())
    stream.receive_hole(MAX_HOLE_BYTES)

    assert MAX_NARROW_BYTES + 16 * HOLE_CREDIT_BYTES <= sum(link.granted) <= MAX_NARROW_BYTES + 21 * HOLE_CREDIT_BYTES
    with pytest.raises(ProtocolError, match="more content than credit"):
        for _ in range(21):
            stream.receive_hole(MAX_HOLE_BYTES)


@pytest.mark.parametrize(
    ("length", "limit"),
    [
        (0, 1 << 30),
        (MIN_HOLE_BYTES - 1, 1 << 30),
        (MAX_HOLE_BYTES + 1, 1 << 30),
        (1 << 60, 1 << 62),
        (1 << 20, 1 << 19),
    ],
)
def test_holes_that_may_not_be(length, limit):
    """Too short, too long, or beyond the end."""
    stream = InboundStream(2, limit, FakeLink())
    stream.start()

    with pytest.raises(ProtocolError):
        stream.receive_hole(length)


def test_a_batch_has_no_holes():
    """Its content is small."""
    stream = InboundStream(2, 1 << 20, FakeLink())
    stream.promised()

    with pytest.raises(ProtocolError):
        stream.receive_hole(MIN_HOLE_BYTES)


def test_a_hole_needs_a_stream():
    """One that is open, or was; and that content comes on."""
    link = FakeLink()
    table = StreamTable(link, connecting=False)
    table.accept(1)
    table.inbound(1, 1 << 20).start()
    table.close(1)
    table.receive_hole(1, MIN_HOLE_BYTES)
    table.outbound(table.choose())

    for number in (2, 3):
        with pytest.raises(ProtocolError):
            table.receive_hole(number, MIN_HOLE_BYTES)


def test_holes_claim_no_memory_beyond_their_credit():
    """What a hole leaves nothing of to come is given back, and all of it in the end."""
    memory = Memory(100 << 20, 50 << 20)
    link = FakeLink()
    link.memory = memory.of("peer")
    stream = InboundStream(2, MAX_HOLE_BYTES + (1 << 20), link)
    stream.start()
    assert MAX_NARROW_BYTES == link.memory.held
    stream.receive_hole(MAX_HOLE_BYTES)
    stream.delivered()
    assert HOLE_CREDIT_BYTES + (1 << 20) == link.memory.held
    outcome(stream.read())
    outcome(stream.read())
    assert 1 << 20 == link.memory.held
    stream.fail(ConnectionFailed("gone"))

    assert 0 == link.memory.held
