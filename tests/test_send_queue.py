"""`SendQueue`: who may write next, without a transport and without a connection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from realize.concurrency.memory import Memory
from realize.errors import ConnectionFailed
from realize.wire.send_queue import MAX_UNCLAIMED_BYTES, MAX_UNSENT_BYTES, SEND_TURN_BYTES, SendQueue

LOST = ConnectionFailed("the link broke")


class Turns(Clock):
    """A clock that tells one turn of the reactor from the next."""

    def turn(self):
        """Do what is due now, and not what that schedules."""
        due, self.calls = self.calls, []
        for call in due:
            call.called = 1
            call.func()


class Sending:
    """A queue, what it told of, and senders that write once when it is their turn."""

    def __init__(self, most=1 << 30):
        self.clock = Turns()
        self.share = Memory(most, most).of("peer")
        self.held_up = []
        self.queue = SendQueue(
            self.clock, self.share, self.share.claim(), held_up=lambda *, on: self.held_up.append(on)
        )
        self.written = []

    def write(self, size):
        """Count as a connection does."""
        self.queue.left -= size
        if self.queue.full:
            self.queue.backlog += size
            self.queue.claim.force(size)

    def send(self, name, size=1):
        """Let a sender write so many bytes when it may; answers what it waits for, if it does."""
        waiting = self.queue.writable()
        if waiting is None:
            self._wrote(name, size)
        else:
            waiting.addCallbacks(lambda _: self._wrote(name, size), lambda failure: self.written.append(failure.value))
        return waiting

    def turns(self, count):
        """Let the reactor have so many turns."""
        for _ in range(count):
            self.clock.turn()

    def _wrote(self, name, size):
        self.write(size)
        self.written.append(name)


@pytest.fixture
def sending():
    """A queue with plenty of memory behind it."""
    return Sending()


def test_it_is_a_producer_for_its_transport(sending):
    """A transport may pause it, resume it, and be gone."""
    assert verifyObject(IPushProducer, sending.queue)
    assert sending.queue.stopProducing() is None


def test_who_asks_first_of_an_idle_transport_writes_at_once(sending):
    """Nobody waits where there is nothing to wait for."""
    assert [None, None] == [sending.send("a"), sending.send("b")]
    assert [] == sending.clock.getDelayedCalls()


def test_senders_wait_while_the_transport_is_full_and_go_on_in_order(sending):
    """What waits is let go as soon as the transport takes more, in the order of asking."""
    sending.queue.pauseProducing()
    for name in "abc":
        sending.send(name)
    before = list(sending.written)
    sending.queue.resumeProducing()

    assert ([], ["a", "b", "c"]) == (before, sending.written)
    assert [] == sending.clock.getDelayedCalls()


def test_senders_are_let_go_only_until_the_transport_is_full_again(sending):
    """One fills it; the others wait for the next time, and no timer lets them go."""
    sending.queue.pauseProducing()
    sending.queue.writable().addCallback(lambda _: (sending.send("a"), sending.queue.pauseProducing()))
    sending.send("b")
    sending.queue.resumeProducing()
    sending.turns(3)
    before = list(sending.written)
    sending.queue.resumeProducing()

    assert (["a"], ["a", "b"]) == (before, sending.written)


@pytest.mark.parametrize("wait", [False, True])
def test_a_turn_ends_after_so_many_bytes(sending, wait):
    """Whether senders had to wait for the transport or not: about 2 MiB, then the rest of the reactor has its turn."""
    if wait:
        sending.queue.pauseProducing()
    for name in range(6):
        sending.send(name, SEND_TURN_BYTES // 2)
    if wait:
        sending.queue.resumeProducing()
    seen = [len(sending.written)]
    for _ in range(3):
        sending.clock.turn()
        seen.append(len(sending.written))

    assert [2, 4, 6, 6] == seen
    assert list(range(6)) == sending.written


def test_nobody_overtakes_those_who_wait(sending):
    """A sender that comes while others wait for their turn is the last, although the transport takes more."""
    for name in "abc":
        sending.send(name, SEND_TURN_BYTES)
    sending.queue.left = SEND_TURN_BYTES
    sending.send("late", SEND_TURN_BYTES)
    sending.turns(3)

    assert ["a", "b", "c", "late"] == sending.written


def test_who_was_let_go_may_ask_again_in_its_turn(sending):
    """A sender asks again when it is called back: it is first then, although others still wait."""
    sending.queue.pauseProducing()
    sending.queue.writable().addCallback(lambda _: sending.send("a"))
    sending.send("b")
    sending.queue.resumeProducing()

    assert ["a", "b"] == sending.written


def test_a_transport_that_resumes_twice_gives_one_turn(sending):
    """While the next turn is due already, being told again that the transport takes more changes nothing."""
    sending.queue.pauseProducing()
    for name in range(3):
        sending.send(name, SEND_TURN_BYTES)
    sending.queue.resumeProducing()
    sending.queue.resumeProducing()

    assert [0] == sending.written
    assert 1 == len(sending.clock.getDelayedCalls())


def test_a_sender_that_resumes_the_transport_begins_no_turn_within_its_own(sending):
    """A transport may say that it takes more while one of the senders writes to it."""
    sending.queue.pauseProducing()
    sending.queue.writable().addCallback(
        lambda _: (sending.send("a", SEND_TURN_BYTES), sending.queue.resumeProducing())
    )
    sending.send("b")
    sending.queue.resumeProducing()
    before = list(sending.written)
    sending.clock.turn()

    assert (["a"], ["a", "b"]) == (before, sending.written)


def test_a_cancelled_sender_is_skipped(sending):
    """Nobody waits for who has given up."""
    sending.queue.pauseProducing()
    waiting = sending.send("a")
    sending.send("b")
    waiting.cancel()
    sending.queue.resumeProducing()

    assert [CancelledError, str] == [type(each) for each in sending.written]


def test_it_is_told_only_when_that_changes(sending):
    """However often a transport repeats itself."""
    for _ in range(2):
        sending.queue.pauseProducing()
    for _ in range(2):
        sending.queue.resumeProducing()

    assert [True, False] == sending.held_up


def test_what_is_written_while_full_is_held_until_the_transport_takes_more(sending):
    """Before and afterwards nothing is."""
    sending.write(5)
    sending.queue.pauseProducing()
    sending.write(7)
    sending.queue.pauseProducing()
    sending.write(11)
    while_full = sending.queue.backlog, sending.share.held
    sending.queue.resumeProducing()

    assert ((18, 18), (0, 0)) == (while_full, (sending.queue.backlog, sending.share.held))


@pytest.mark.parametrize(("most", "limit"), [(1 << 30, MAX_UNSENT_BYTES), (1, MAX_UNCLAIMED_BYTES)])
def test_a_backlog_is_limited_and_more_so_for_a_peer_that_holds_too_much(most, limit):
    """So an answer to one that reads nothing is not kept for ever, nor many of them."""
    sending = Sending(most)
    sending.share.claim().force(5 << 20)
    sending.queue.pauseProducing()
    sending.write(limit)
    before = sending.queue.overfull()
    sending.write(1)

    assert (False, True) == (before, sending.queue.overfull())


def test_a_queue_that_is_closed_takes_no_more_senders(sending):
    """Those that wait already still have their turn."""
    sending.queue.pauseProducing()
    sending.send("a")
    sending.queue.close(LOST)
    sending.send("b")
    sending.queue.resumeProducing()

    assert [LOST, "a"] == sending.written


def test_when_the_connection_is_lost_all_fail_and_nothing_is_held(sending):
    """Those that wait for a turn that was due, and those that ask later; there is no timer left."""
    for name in range(3):
        sending.send(name, SEND_TURN_BYTES)
    sending.queue.pauseProducing()
    sending.write(7)
    sending.queue.fail(LOST)
    sending.send("late")

    assert [0, LOST, LOST, LOST] == sending.written
    assert (0, 0, []) == (sending.queue.backlog, sending.share.held, sending.clock.getDelayedCalls())


def test_a_connection_that_is_lost_in_somebodys_turn_fails_the_others(sending):
    """No turn comes after the end."""
    sending.queue.pauseProducing()
    sending.queue.writable().addCallback(lambda _: sending.queue.fail(LOST))
    sending.send("b")
    sending.queue.resumeProducing()

    assert [LOST] == sending.written
    assert [] == sending.clock.getDelayedCalls()


STEPS = st.lists(st.one_of(st.integers(1, SEND_TURN_BYTES), st.sampled_from(["pause", "resume", "turn"])), max_size=40)


@given(STEPS)
def test_whatever_happens_everybody_writes_once_in_order_and_never_to_a_full_transport(steps):
    """At the end of any history, after as many turns as it takes."""
    sending = Sending()
    queue, sent = sending.queue, 0
    for step in steps:
        before, was_full = len(sending.written), queue.full
        if step == "pause":
            queue.pauseProducing()
        elif step == "resume":
            queue.resumeProducing()
        elif step == "turn":
            sending.clock.turn()
        else:
            sending.send(sent, step)
            sent += 1
        assert step == "resume" or not was_full or before == len(sending.written)
        assert -SEND_TURN_BYTES < queue.left
    queue.resumeProducing()
    sending.turns(sent)

    assert list(range(sent)) == sending.written
    assert [] == sending.clock.getDelayedCalls()
