"""When a connection counts as silent or stalled."""

import pytest
from twisted.internet.task import Clock

from realize.wire.keepalive import IDLE_TIMEOUT_S, PING_AFTER_S, Keepalive
from realize.wire.reply_timeouts import REPLY_TIMEOUT_S, SLOW_REPLY_TIMEOUT_S, ReplyTimeouts


class Watched:
    """A connection that is watched on a clock."""

    def __init__(self):
        self.clock = Clock()
        self.pings = 0
        self.verdicts = []
        self.replies = ReplyTimeouts(self.clock)
        self.liveness = Keepalive(self.clock, self.replies, ping=self.ping, silent=self.silent)
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
