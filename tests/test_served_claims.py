"""What a peer has open counts as memory that it holds, as long as it is open."""

from __future__ import annotations

import pytest

from realize.concurrency.memory import Memory
from realize.errors import ProtocolError
from realize.values import MAX_SMALL_BYTES, Entry, Kind, OnConflict
from realize.wire import commands, costs
from tests.store_helpers import small_file
from tests.test_served import Serving
from tests.test_served_streams import kinds

FAIL = OnConflict.FAIL
MOST = 64 << 20


class Holding(Serving):
    """A peer whose memory is looked at."""

    def __init__(self):
        super().__init__()
        self.all = Memory(MOST, MOST)
        self.server.use_memory(self.all.of("peer"))
        self.open()

    @property
    def beside(self):
        """What it holds beside the directory."""
        return self.all.held - costs.DIRECTORY_BYTES


@pytest.fixture
def holding():
    """A peer with one directory open; in the end it holds nothing."""
    made = Holding()
    assert 0 == made.beside
    yield made
    made.client_wire.cut()
    made.flush()
    assert 0 == made.all.held


def test_a_listing_holds_what_it_remembers(holding):
    """As much as it is after each page, and nothing once it has ended."""
    held = []
    for remembered in (70_000, 90_000, 10):
        holding.walk()
        (listing,) = holding.memory.walked
        listing.held = remembered
        holding.answer([Entry(b"f", Kind.FILE, 3)], of=listing)
        held.append(holding.beside)
    holding.ask(commands.EndWalk, listing=1)

    assert [70_000, 90_000, 10] == held
    assert 0 == holding.beside


def test_a_file_that_is_written_holds_a_stream(holding):
    """Until it is committed, or abandoned."""
    writers = [holding.writing(size=0) for _ in range(2)]
    held = [holding.beside]
    for writer in writers:
        holding.ask(commands.AbandonStream, stream=writer.number, keep=True)
        holding.answer(None, of=writer)
        held.append(holding.beside)

    assert [2 * costs.STREAM_BYTES, costs.STREAM_BYTES, 0] == held


def test_a_file_that_is_read_holds_a_stream(holding):
    """Until it is closed."""
    readers = [holding.reading() for _ in range(2)]
    both = holding.beside
    holding.ask(commands.CloseStream, stream=readers[0].number)

    assert (2 * costs.STREAM_BYTES, costs.STREAM_BYTES) == (both, holding.beside)


def test_a_file_that_is_cut_holds_what_that_takes(holding):
    """Once, however many spans are cut, and until its content is sent."""
    reader = holding.reading(size=10)
    for _ in range(2):
        holding.ask(commands.CutSpan, stream=reader.number)
        holding.answer([(4, bytes(16))], of=reader)
    cutting = holding.beside
    holding.ask(commands.StartRead, stream=reader.number)

    assert (costs.STREAM_BYTES + costs.CUTTING_BYTES, costs.STREAM_BYTES) == (cutting, holding.beside)


def test_a_batch_holds_no_more_than_a_batch_may(holding):
    """What is announced beyond that is refused before it is waited for."""
    answers = []
    for sizes in ([MAX_SMALL_BYTES, 1], [MAX_SMALL_BYTES + 1], [MAX_SMALL_BYTES - 1, 1]):
        number = holding.client.streams.choose()
        holding.client.streams.outbound(number)
        heads = [small_file(b"f", b"x" * size) for size in sizes]
        answers.append(kinds(holding.ask(commands.PutSmall, handle=1, stream=number, policy=FAIL, heads=heads)))
        holding.client.streams.close(number)

    assert [[ProtocolError], [ProtocolError], []] == answers
