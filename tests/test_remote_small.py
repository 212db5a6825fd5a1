"""Batches of small files between two ends of a connection in memory."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from realize.config import Right
from realize.errors import AccessDenied, ConnectionFailed, ProtocolError, Unanswered
from realize.store.client.small_files import FIRST_BATCH_BYTES, SLOW_LINK_BATCH_BYTES
from realize.store.server.small_files import ServedBatches
from realize.values import MAX_SMALL_BYTES, Committed, OnConflict
from realize.wire.windows import RoundTrip
from tests.store_helpers import digest, how, small_file
from tests.test_remote_store import Served

FULL = b"x" * MAX_SMALL_BYTES


@pytest.fixture
def served():
    """A connection that was introduced."""
    pair = Served(Clock()).introduced()
    yield pair
    pair.client_wire.cut()
    pair.flush()
    assert 0 == pair.responders.open_count
    assert 0 == len(pair.client.streams) == len(pair.server.streams)
    assert [] == pair.log.errors()
    assert [] == pair.clock.getDelayedCalls()


def put(store, name, content=FULL):
    """Start to send one file."""
    return store.put_small([small_file(name, content)], OnConflict.FAIL)


def test_batches_arrive_one_after_the_other(served):
    """The first is committed before the second is there, so that a slow link delivers something early."""
    store = served.opened()
    seen = []
    for name in (b"first", b"second"):
        put(store, name).addCallback(lambda outcomes: seen.append((list(map(how, outcomes)), set(served.memory.files))))
    served.flush()

    assert [([Committed.CREATED], {b"first"}), ([Committed.CREATED], {b"first", b"second"})] == seen


def test_a_large_file_may_overtake_a_batch_that_waits(served):
    """Streams reach the peer in the order of their numbers, also if one is opened while a batch waits for its turn."""
    store = served.opened()
    batches = [put(store, b"first"), put(store, b"second")]
    writer = served.result(store.open_writer(b"large", 1, OnConflict.FAIL))
    served.result(writer.abandon(keep=False))

    assert [[Committed.CREATED]] * 2 == [list(map(how, served.result(batch))) for batch in batches]


def test_other_commands_find_their_place_between_the_content(served):
    """A question that is asked behind a batch is answered before all of it has arrived."""
    store = served.opened()
    order = []
    put(store, b"f").addCallback(lambda _: order.append("batch"))
    store.describe([b"f"]).addCallback(lambda _: order.append("question"))
    served.flush()

    assert ["question", "batch"] == order


def test_a_batch_that_is_refused_is_not_sent_to_its_end():
    """The answer ends the sending, and the connection goes on."""
    pair = Served(Clock(), {"inbox": frozenset({Right.READ})}).introduced()
    store = pair.opened()
    error = pair.result(put(store, b"f"))
    again = pair.result(put(store, b"g", b"1"))
    sent = pair.client.bytes_sent
    pair.client_wire.cut()
    pair.flush()

    assert isinstance(error, AccessDenied)
    assert isinstance(again, AccessDenied)
    assert sent < MAX_SMALL_BYTES


def test_a_lost_connection_ends_all_batches(served):
    """Also those that wait for their turn."""
    store = served.opened()
    batches = [put(store, b"%d" % number) for number in range(3)]
    served.client_wire.cut()

    assert {ConnectionFailed} == {type(served.result(batch)) for batch in batches}


def test_a_batch_that_waits_for_its_turn_is_not_sent_once_it_is_cancelled(served):
    """Nothing of it was done; the one that is on its way goes on, and is answered."""
    store = served.opened()
    batches = [put(store, b"first"), put(store, b"second")]
    for batch in batches:
        batch.cancel()

    assert [Committed.CREATED] == list(map(how, served.result(batches[0])))
    assert isinstance(served.result(batches[1]), CancelledError)
    assert {b"first"} == set(served.memory.files)


def test_a_batch_that_is_given_up_halfway_never_arrives(served):
    """The peer takes nothing of it, so that is known; no other one is sent behind it."""
    store = served.opened()
    waiting = []
    served.client.sending.writable = lambda: waiting.append(Deferred()) or waiting[-1]
    batch = put(store, b"f")
    batch.cancel()
    batch.cancel()
    del served.client.sending.writable
    waiting[0].callback(None)

    assert isinstance(served.result(batch), CancelledError)
    assert isinstance(served.result(put(store, b"g")), ConnectionFailed)
    assert {} == served.memory.files


@pytest.mark.parametrize("end", ["given up", "lost"])
def test_a_batch_that_was_sent_and_not_answered_may_be_there(served, end):
    """Nobody here knows."""
    store = served.opened()
    batch = put(store, b"f", b"1")
    if end == "lost":
        served.client_wire.cut()
    else:
        batch.cancel()
        batch.cancel()

    assert isinstance(served.result(batch), Unanswered)


def test_a_batch_of_which_a_part_was_sent_when_the_connection_was_lost_is_not_there(served):
    """The peer takes nothing of it before all of it is there."""
    store = served.opened()
    waiting = Deferred()
    served.client.sending.writable = lambda: waiting
    batch = put(store, b"f")
    del served.client.sending.writable
    served.client_wire.cut()
    waiting.errback(ConnectionFailed("lost"))

    assert ConnectionFailed is type(served.result(batch))


def test_batches_are_small_where_we_are_limited(served):
    """What is sent at a low limit takes long, so it had better be little."""
    store = served.opened()
    before = store.takes_at_once()
    served.client_wire.suggested_chunk = 512

    assert (FIRST_BATCH_BYTES, SLOW_LINK_BATCH_BYTES) == (before, store.takes_at_once())


def test_batches_are_as_large_as_what_is_sent_promptly(served):
    """Nothing stays of a batch that is interrupted, so the next one is to take seconds, as the last one went."""
    store = served.opened()
    sizes = [store.takes_at_once()]
    for content, seconds in ((b"1", 40), (FULL, 0), (b"1", 40), (FULL, 40), (FULL[:70_000], 40), (FULL[:70_000], 1)):
        sending = put(store, b"f", content)
        served.clock.advance(seconds)
        served.result(sending)
        sizes.append(store.takes_at_once())

    assert [
        FIRST_BATCH_BYTES,
        FIRST_BATCH_BYTES,
        MAX_SMALL_BYTES,
        MAX_SMALL_BYTES,
        MAX_SMALL_BYTES // 8,
        SLOW_LINK_BATCH_BYTES,
        350_000,
    ] == sizes


@pytest.mark.parametrize(("seconds", "fits"), [(0, MAX_SMALL_BYTES), (10, FIRST_BATCH_BYTES)])
def test_a_large_file_may_show_that_the_link_is_fast(served, seconds, fits):
    """It does not show that it is slow, for more than the link may have been slow."""
    store = served.opened()
    writer = served.result(store.open_writer(b"f", len(FULL), OnConflict.REPLACE))
    served.result(writer.write([FULL]))
    committing = writer.commit(digest(FULL), None)
    served.clock.advance(seconds)
    served.result(committing)

    assert fits == store.takes_at_once()


def test_little_of_a_large_file_does_not_show_how_fast_the_link_is(served):
    """Most of it may have been there: what was sent then took hardly any time on any link."""
    store = served.opened()
    little = FULL[:16_000]
    writer = served.result(store.open_writer(b"f", len(little), OnConflict.REPLACE))
    served.result(writer.write([little]))
    served.result(writer.commit(digest(little), None))

    assert FIRST_BATCH_BYTES == store.takes_at_once()


def test_batches_are_small_when_a_connection_was_lost(served):
    """On a link that breaks again and again little is to be lost each time, until it is known to be fast."""
    store = served.opened(after_reconnect=True)
    before = store.takes_at_once()
    served.result(put(store, b"f", FULL))

    assert (SLOW_LINK_BATCH_BYTES, MAX_SMALL_BYTES) == (before, store.takes_at_once())


def test_how_long_the_way_is_is_known_when_the_first_files_go(served):
    """It is asked for as soon as the directory is open, and tells how many batches are worth having under way."""
    asked = []
    served.client.round_trip = RoundTrip(served.clock, lambda: asked.append(Deferred()) or asked[-1])
    store = served.opened()
    questions, before = len(asked), store.round_trip()
    served.clock.advance(0.2)
    asked[0].callback(None)

    assert (1, 0.0) == (questions, before)
    assert 0.2 == pytest.approx(store.round_trip())


def test_batches_are_as_large_as_what_arrives_promptly(served):
    """How fast the peer may send is not known before it has sent something, and may change."""
    store = served.opened()
    served.memory.plant(b"large", FULL)
    served.memory.plant(b"small", b"1")
    sizes = [store.reads_at_once()]
    for path, seconds in ((b"small", 0), (b"large", 0), (b"small", 40), (b"large", 40)):
        reading = store.read_small([path])
        served.clock.advance(seconds)
        served.result(reading)
        sizes.append(store.reads_at_once())

    assert [
        SLOW_LINK_BATCH_BYTES,
        SLOW_LINK_BATCH_BYTES,
        MAX_SMALL_BYTES,
        MAX_SMALL_BYTES,
        MAX_SMALL_BYTES // 8,
    ] == sizes


@pytest.mark.parametrize("content", [b"", b"12", b"1234"])
def test_content_that_does_not_add_up_is_not_taken(served, monkeypatch, content):
    """A peer whose content has another size than its heads say has broken its word."""
    store = served.opened()
    served.memory.plant(b"f", b"123")
    send = ServedBatches.send
    monkeypatch.setattr(ServedBatches, "send", lambda self, number, _: send(self, number, [content]))

    assert isinstance(served.result(store.read_small([b"f"])), ProtocolError)
