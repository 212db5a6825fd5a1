"""When a connection counts as silent or stalled."""

from itertools import pairwise

import pytest
from twisted.internet.task import Clock

from realize.wire.coarse_timers import CoarseTimers
from realize.wire.keepalive import (
    CATCHING_UP_S,
    IDLE_TIMEOUT_S,
    PING_AFTER_S,
    RESTING_PING_AFTER_S,
    RESTING_PING_BEHIND_S,
    RESTING_STEP_S,
    RESTING_TIMEOUT_S,
    Keepalive,
)
from realize.wire.reply_timeouts import REPLY_TIMEOUT_S, SLOW_REPLY_TIMEOUT_S, ReplyTimeouts


class Watched:
    """A connection that is watched on a clock."""

    def __init__(self, clock=None, *, may_rest=False, first=True, timers=None):
        self.clock = clock or Clock()
        self.may_rest = may_rest
        self.pings = 0
        self.verdicts = []
        self.replies = ReplyTimeouts(self.clock)
        self.liveness = Keepalive(
            self.clock,
            self.replies,
            ping=self.ping,
            silent=self.silent,
            may_rest=lambda: self.may_rest and not self.replies.expected,
            first=first,
            timers=timers,
        )
        self.liveness.start()

    def ping(self):
        self.pings += 1

    def silent(self, reason):
        self.verdicts.append(reason)
        self.liveness.stop()

    def live(self, seconds, *, pinged=True, worked=False, step=5):
        """Let time pass, with a ping or with work from the peer at every step."""
        for _ in range(int(seconds / step)):
            self.clock.advance(step)
            if pinged or worked:
                self.liveness.heard()
            if worked:
                self.liveness.worked()

    def silence(self):
        """Let time pass until the peer is given up; the seconds that it took, whole ones."""
        before = self.clock.seconds()
        while not self.verdicts:
            self.clock.advance(1)
        return self.clock.seconds() - before


@pytest.fixture
def watched():
    """A watched connection, without timers in the end."""
    watched = Watched()
    yield watched
    watched.liveness.stop()
    assert [] == watched.clock.getDelayedCalls()


def test_silence_is_noticed_within_a_minute(watched):
    """A peer that vanished without a word is given up after 45 seconds."""
    watched.live(IDLE_TIMEOUT_S - 5, pinged=False)
    before = list(watched.verdicts)
    watched.live(10, pinged=False)

    assert ([], ["has not been heard of for 45 seconds"]) == (before, watched.verdicts)


def test_an_ordinary_question_is_waited_for_a_minute(watched):
    """Pings alone do not make up for an answer."""
    watched.replies.asked("Describe")
    watched.live(REPLY_TIMEOUT_S + 15)

    assert ["did not answer Describe for 60 seconds"] == watched.verdicts


def test_what_may_take_long_is_waited_for_longer(watched):
    """A trickle of pings hides no stall, but a slow disk is given its time."""
    watched.replies.asked("CommitStream", SLOW_REPLY_TIMEOUT_S)
    watched.live(SLOW_REPLY_TIMEOUT_S - 30)
    before = list(watched.verdicts)
    watched.live(60)

    assert ([], ["did not answer CommitStream for 900 seconds"]) == (before, watched.verdicts)


def test_slowness_is_no_stall(watched):
    """As long as anything but pings arrives, however slowly, nothing is given up."""
    watched.replies.asked("EndRead", SLOW_REPLY_TIMEOUT_S)
    for _ in range(20):
        watched.live(512)
        watched.liveness.heard()
        watched.liveness.worked()

    assert [] == watched.verdicts


def test_our_own_full_transport_is_not_held_against_the_peer(watched):
    """What has not left us cannot be answered."""
    watched.replies.asked("Describe")
    watched.replies.held_up(on=True)
    watched.live(10 * REPLY_TIMEOUT_S)

    assert [] == watched.verdicts


def test_an_impatient_question_behind_a_patient_one_counts(watched):
    """The oldest question is not always the first that is overdue."""
    watched.replies.asked("CommitStream", SLOW_REPLY_TIMEOUT_S)
    watched.replies.asked("Status")
    watched.live(REPLY_TIMEOUT_S + 15)

    assert ["did not answer Status for 60 seconds"] == watched.verdicts


def test_what_was_answered_is_forgotten(watched):
    """An answer, or nobody waiting any more, ends the wait."""
    ticket = watched.replies.asked("Status")
    watched.replies.answered(ticket)
    watched.live(10 * REPLY_TIMEOUT_S)

    assert [] == watched.verdicts
    assert watched.pings > 0


def test_a_ping_is_answered_by_one_that_would_soon_be_due(watched):
    """Two idle ends wake up once for both; who has just sent something, a ping above all, sends none."""
    sent = []
    for seconds in (5, 5, 0, 8, 7):
        watched.clock.advance(seconds)
        watched.liveness.heard()
        watched.liveness.pinged()
        sent.append(watched.pings)

    assert [0, 1, 1, 2, 2] == sent


def test_a_connection_that_ends_with_a_ping_is_watched_no_more(watched):
    """To send it may find that the other end has gone, or that there is no memory."""
    watched.liveness._ping = watched.liveness.stop
    watched.clock.advance(PING_AFTER_S)

    assert [] == watched.clock.getDelayedCalls()


@pytest.fixture
def resting(watched):
    """The same connection, at rest for ten minutes."""
    watched.may_rest = True
    watched.live(600)
    watched.pings = 0
    return watched


@pytest.mark.parametrize(("first", "after"), [(True, RESTING_PING_AFTER_S), (False, RESTING_PING_BEHIND_S)])
def test_fewer_pings_are_sent_at_rest(first, after):
    """The one side is to ping first, and the other only if that one does not."""
    watched = Watched(may_rest=True, first=first)
    watched.live(600)
    before = watched.pings
    watched.live(12 * after)
    watched.liveness.stop()

    assert 12 == watched.pings - before


def test_silence_at_rest_is_noticed_later(resting):
    """By as much as pings are sent later; the answer to one may take as long as otherwise."""
    assert RESTING_TIMEOUT_S == resting.silence()
    assert ["has not been heard of for 75 seconds"] == resting.verdicts


@pytest.mark.parametrize(
    "begin", [lambda each: each.replies.answered(each.liveness.asked("Status", REPLY_TIMEOUT_S)), lambda _: None]
)
def test_a_connection_that_was_roused_comes_to_rest_again(watched, begin):
    """Once a while has passed in which nothing was under way."""
    watched.may_rest = True
    for _ in range(3):
        begin(watched)
        watched.live(PING_AFTER_S, worked=True)
        watched.live(2 * PING_AFTER_S + RESTING_STEP_S)
        before = watched.pings
        watched.live(120)

        assert 1 <= watched.pings - before <= 1 + 120 / RESTING_PING_AFTER_S


@pytest.mark.parametrize("since", [0, 10, 34])
def test_what_is_asked_at_rest_is_noticed_like_any_other(resting, since):
    """The 45 seconds count from the question, whenever the peer was last heard of, and pings ask for a sign of life."""
    resting.clock.pump([1] * since)
    resting.pings = 0
    resting.liveness.asked("CommitStream", SLOW_REPLY_TIMEOUT_S)
    resting.liveness.sent()

    assert IDLE_TIMEOUT_S == resting.silence()
    assert ["has not been heard of for 45 seconds"] == resting.verdicts
    assert resting.pings == (IDLE_TIMEOUT_S - 1) // PING_AFTER_S


def test_what_the_peer_asks_at_rest_is_noticed_like_any_other(resting):
    """Whatever comes that is no ping ends the rest."""
    resting.liveness.heard()
    resting.liveness.worked()
    resting.may_rest = False

    assert IDLE_TIMEOUT_S == resting.silence()
    assert resting.pings == (IDLE_TIMEOUT_S - 1) // PING_AFTER_S


def test_what_nobody_told_us_of_gives_the_peer_its_time(resting):
    """Should something be under way that has begun with neither question nor box, the peer is asked first."""
    resting.may_rest = False
    while not resting.pings:
        resting.clock.advance(1)

    assert IDLE_TIMEOUT_S == resting.silence()


@pytest.mark.parametrize("rested", range(1, 36, 5))
def test_a_ping_that_is_due_comes_though_something_begins(resting, rested):
    """The peer, which began it, may have waited for one since our last, and has 45 seconds of patience from now on."""
    while not resting.pings:
        resting.live(1, step=1)
    resting.pings = 0
    resting.live(rested, step=1)
    resting.liveness.worked()
    resting.may_rest = False
    waited = 0
    while not resting.pings:
        resting.live(1, step=1)
        waited += 1

    assert waited <= min(PING_AFTER_S, RESTING_PING_AFTER_S + RESTING_STEP_S - rested)


@pytest.mark.parametrize("asked", [False, True])
def test_a_process_that_was_suspended_reads_first_what_came(watched, asked):
    """Twisted makes overdue calls before it reads, and the peer may have patience left."""
    if asked:
        watched.liveness.asked("Status", REPLY_TIMEOUT_S)
    watched.live(10)
    watched.clock.advance(IDLE_TIMEOUT_S + PING_AFTER_S)
    before = list(watched.verdicts)
    watched.liveness.heard()
    watched.liveness.worked()
    watched.live(3 * IDLE_TIMEOUT_S, worked=True)

    assert ([], []) == (before, watched.verdicts)
    assert watched.pings


def test_a_process_that_was_suspended_notices_a_peer_that_is_gone(watched):
    """Once it had the time to read, however late its timers are then."""
    watched.clock.advance(100)
    before = list(watched.verdicts)
    watched.clock.advance(10 * CATCHING_UP_S)

    assert [] == before
    assert ["has not been heard of for 45 seconds"] == watched.verdicts


def test_many_connections_at_rest_wake_up_a_process_once():
    """Though they were made at different times."""
    clock, pinged = Clock(), []
    clock.advance(1000.3)
    timers = CoarseTimers(clock)
    crowd = []
    for number in range(100):
        crowd.append(Watched(clock, may_rest=True, timers=timers))
        crowd[-1].liveness._ping = lambda number=number: pinged.append((clock.seconds(), number))
        clock.advance(0.37)
    for _ in range(800):
        for each in crowd:
            each.liveness.heard()
        clock.advance(0.25)
    for each in crowd:
        each.liveness.stop()

    # The first minute is over: all are at rest.
    moments = sorted({moment for moment, _ in pinged if moment > 1070})
    assert len(pinged) > 100
    assert all(later - earlier > 0.9 * RESTING_STEP_S for earlier, later in pairwise(moments))
    assert [] == clock.getDelayedCalls()
