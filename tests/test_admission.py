"""Which command may begin, and which waits for memory: `realize.wire.admission`."""

import pytest
from twisted.internet.task import Clock

from realize.concurrency.memory import Memory
from realize.wire import costs
from realize.wire.admission import MEMORY_TIMEOUT_S, UNQUEUED_COMMAND_BYTES, WAITER_CHECK_S, Admission

MIB = 1 << 20
BATCH = {b"_command": b"PutSmall", b"_ask": b"1"}
SMALL = {b"_command": b"CloseStream", b"_ask": b"2"}


class Reading:
    """Keeps what it is told; ``share`` is what the peer may hold, of which others hold as much as is left."""

    def __init__(self):
        self.open = True
        self.gone = False
        self.given_up = 0
        self.boxes = []
        self.clock = Clock()
        self.share = Memory(16 * MIB, 16 * MIB).of("peer")
        self.held = self.share.claim()
        self.held.force(16 * MIB)
        self.admission = Admission(self.clock, self)
        self.admission.use(self.share)

    def peer_has_gone(self):
        """As the test says."""
        return self.gone

    def give_up(self):
        """Count."""
        self.given_up += 1

    def go_on(self, box):
        """Keep it, and whether it has its memory."""
        self.boxes.append((box, self.admission.begun(box)))

    def ask(self, box, *, may_wait=True):
        """Whether the command may begin."""
        return self.admission.may_begin(box, may_wait=may_wait)


@pytest.fixture
def reading():
    """One for which there is no memory; in the end it holds none, and no timer is left."""
    made = Reading()
    yield made
    made.admission.stop()
    made.held.release()
    for box, begun in made.boxes:
        if begun:
            made.admission.ended(box)
    assert 0 == made.share.held + made.share.waiting
    assert [] == made.clock.getDelayedCalls()


def test_a_small_command_begins_whatever_is_held(reading):
    """Until those in progress are no longer small together."""
    count = 0
    while reading.ask(dict(SMALL), may_wait=False):
        count += 1
    for _ in range(count):
        reading.admission.ended(SMALL)

    assert UNQUEUED_COMMAND_BYTES // costs.of(SMALL) == count


def test_a_command_begins_when_there_is_memory_for_it(reading):
    """Then it has it already, and is not asked about again."""
    began = reading.ask(BATCH)
    waiting = reading.admission.waiting
    reading.held.shrink(8 * MIB)

    assert (False, True, False) == (began, waiting, reading.admission.waiting)
    assert [(BATCH, True)] == reading.boxes
    assert costs.of(BATCH) == reading.admission.claim.size


def test_a_command_that_has_waited_too_long_is_refused(reading):
    """It holds nothing then, and the next one may wait."""
    reading.ask(BATCH)
    reading.clock.pump([WAITER_CHECK_S] * int(MEMORY_TIMEOUT_S / WAITER_CHECK_S))
    reading.clock.advance(WAITER_CHECK_S)

    assert [(BATCH, False)] == reading.boxes
    assert (0, False) == (reading.admission.claim.size, reading.admission.waiting)
    assert not reading.ask(dict(BATCH))


def test_nothing_waits_for_a_peer_that_has_gone(reading):
    """That is noticed within a second, though nothing is read."""
    reading.ask(BATCH)
    reading.clock.advance(0)
    before = reading.given_up
    reading.gone = True
    reading.clock.advance(WAITER_CHECK_S)

    assert (0, 1) == (before, reading.given_up)


def test_what_is_not_read_any_more_gets_no_memory(reading):
    """It goes to others."""
    reading.ask(BATCH)
    reading.open = False
    reading.held.shrink(8 * MIB)

    assert ([], 0) == (reading.boxes, reading.admission.claim.size)


def test_a_command_that_may_not_wait_does_not_begin(reading):
    """And nothing is left of it."""
    assert not reading.ask(BATCH, may_wait=False)
    assert not reading.admission.waiting
    assert [] == reading.clock.getDelayedCalls()
