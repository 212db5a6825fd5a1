"""Connections on which nothing is under way: who pings when, and when the other end counts as gone.

Nobody tells the other side that it rests, so each case is tried with the sides at odds.
"""

import random

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols import amp

from realize.errors import Silence
from realize.wire import boxes, commands
from realize.wire.connection import Greeting
from realize.wire.keepalive import (
    IDLE_TIMEOUT_S,
    PING_AFTER_S,
    RESTING_PING_AFTER_S,
    RESTING_STEP_S,
    RESTING_TIMEOUT_S,
)
from tests.loopback import Pair

PING = boxes.encode({b"_command": b"Ping"})
OLD = tuple(each for each in commands.CAPABILITIES if each != commands.REST)
LATE_S = 20.0
"""Longer than this nothing is on its way in these tests; the times leave 30 s for a ping and its answer."""


class Locator:
    """Answers every command as the test wants."""

    def __init__(self, answer):
        self._answer = answer

    def locateResponder(self, _):
        """Whatever was given."""
        return lambda _: self._answer()

    def transfers(self):
        """None."""
        return []

    def failed(self, box):
        """Nothing was to be closed."""


class Resting(Pair):
    """A pair that was introduced; counts the pings that each side has sent, and notes what it is asked."""

    def __init__(self, client=commands.CAPABILITIES, server=commands.CAPABILITIES):
        super().__init__(Clock(), client_greeting=Greeting("c", client), server_greeting=Greeting("s", server))
        self.introduced()
        self.asked = []
        self._gone = False
        for side in (self.client, self.server):
            side.serve(Locator(self._ask))

    def _ask(self):
        self.asked.append(Deferred())
        return self.asked[-1]

    def answer(self):
        """Answer what was asked first."""
        self.asked.pop(0).callback(amp.Box({b"report": b""}))
        self.flush()

    def wait(self, seconds):
        """Let time pass."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            if self._gone:
                # A transport has sent what it was given, and knows nothing of what becomes of it.
                self.client_wire.backlog.clear()
                self.server_wire.backlog.clear()
        self.flush()

    def pings(self, seconds):
        """How many pings the client and the server send while that much time passes and nothing else is sent."""
        before = self.client.bytes_sent, self.server.bytes_sent
        self.wait(seconds)
        return (self.client.bytes_sent - before[0]) / len(PING), (self.server.bytes_sent - before[1]) / len(PING)

    def hang(self):
        """Bring nothing any more, either way."""
        self.client_wire.stalled = self.server_wire.stalled = True

    def vanish(self):
        """Lose all that is sent, either way."""
        self.hang()
        self._gone = True

    def go_on(self):
        """Bring what was held back, and what comes."""
        for wire in (self.client_wire, self.server_wire):
            wire.stalled = False
            wire.schedule()

    @property
    def alive(self):
        """Whether nobody has given up."""
        return not self.client.lost and not self.server.lost

    def silence(self):
        """The seconds until the first side gives up."""
        began = self.clock.seconds()
        while self.alive:
            self.wait(1)
        return self.clock.seconds() - began

    def call(self, side, *, patient=True):
        """Let one side ask; returns the errors that it gets."""
        errors = []
        asked = side.call(commands.Status, patient=patient)
        asked.addErrback(lambda failure: errors.append(failure.value))
        return errors


@pytest.fixture
def made():
    """Makes pairs, which leave no timer behind."""
    pairs = []

    def make(**capabilities):
        pairs.append(Resting(**capabilities))
        return pairs[-1]

    yield make
    for each in pairs:
        each.go_on()
        each.client_wire.cut()
        each.flush()
        assert [] == each.clock.getDelayedCalls()


@pytest.fixture
def pair(made):
    """A pair that has been at rest for five minutes."""
    pair = made()
    pair.wait(300)
    return pair


def test_two_that_rest_ping_seldom_and_together(pair):
    """Each ping of the accepting side is answered at once, and the connecting side begins none."""
    client, server = pair.pings(600)

    assert client == server
    assert 600 / (RESTING_PING_AFTER_S + RESTING_STEP_S) - 1 <= server <= 600 / RESTING_PING_AFTER_S + 1


@pytest.mark.parametrize("lacking", ["client", "server", "both"])
def test_nothing_changes_for_one_that_does_not_know_of_it(made, lacking):
    """It may count us as gone after 45 seconds, and so do we."""
    both = {"client": OLD, "server": OLD}
    pair = made(**(both if lacking == "both" else {lacking: OLD}))
    pair.wait(300)
    client, server = pair.pings(600)
    pair.vanish()

    assert client == server >= 600 / PING_AFTER_S - 1
    assert IDLE_TIMEOUT_S - PING_AFTER_S <= pair.silence() <= IDLE_TIMEOUT_S


def test_an_end_that_has_gone_is_noticed_at_rest(pair):
    """Later than otherwise: nothing is asked of it."""
    pair.vanish()

    assert IDLE_TIMEOUT_S < pair.silence() <= RESTING_TIMEOUT_S


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("rested", range(0, 45, 9))
def test_an_end_that_has_gone_is_noticed_by_who_asks(pair, side, rested):
    """As soon as without rest, from the moment of the question."""
    pair.wait(rested)
    pair.vanish()
    errors = pair.call(getattr(pair, side))

    assert pair.silence() <= IDLE_TIMEOUT_S
    assert isinstance(errors[0], Silence)


@pytest.mark.parametrize("side", ["client", "server"])
def test_an_answer_that_takes_minutes_is_waited_for(pair, side):
    """Both ping as often as ever, and rest again behind it."""
    errors = pair.call(getattr(pair, side))
    pair.wait(60)
    client, server = pair.pings(300)
    pair.answer()
    pair.wait(60)
    after = pair.pings(600)

    assert [] == errors
    assert client == server >= 300 / PING_AFTER_S - 1
    assert max(after) <= 600 / RESTING_PING_AFTER_S + 1


@pytest.mark.parametrize("side", ["client", "server"])
def test_one_that_owes_an_answer_and_hangs_is_noticed(pair, side):
    """Within 45 seconds, though it was at rest before."""
    pair.call(getattr(pair, side))
    pair.flush()
    pair.vanish()

    assert IDLE_TIMEOUT_S - PING_AFTER_S <= pair.silence() <= IDLE_TIMEOUT_S


@pytest.mark.parametrize("side", ["client", "server"])
def test_one_that_hangs_and_waits_for_an_answer_is_noticed(pair, side):
    """By the other, which works on that: nobody may want it any more."""
    asking = getattr(pair, side)
    pair.call(asking)
    pair.flush()
    asking._keepalive.stop()
    pair.vanish()

    assert IDLE_TIMEOUT_S - PING_AFTER_S <= pair.silence() <= IDLE_TIMEOUT_S


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_question_that_is_long_on_its_way_is_no_silence(pair, side):
    """The other end rests until it has come."""
    pair.hang()
    errors = pair.call(getattr(pair, side))
    pair.wait(LATE_S)
    pair.go_on()
    pair.wait(60)
    pair.answer()

    assert ([], True) == (errors, pair.alive)


@pytest.mark.parametrize("side", ["client", "server"])
def test_who_alone_thinks_that_something_is_under_way_hears_enough(pair, side):
    """As of a stream that the other end has closed, and for as long as it thinks so: its pings are answered."""
    getattr(pair, side).streams.choose()
    pair.wait(60)
    client, server = pair.pings(600)

    assert pair.alive
    assert client == server >= 600 / PING_AFTER_S - 1


def test_a_stream_that_waits_for_credit_is_no_rest(pair):
    """Here nobody asks anything for minutes."""
    stream = pair.client.streams.outbound(pair.client.streams.choose())
    pair.server.streams.accept(stream.number)
    sending = Deferred.fromCoroutine(stream.send([b"x"]))
    sending.addErrback(lambda _: None)
    pair.wait(60)
    client, server = pair.pings(300)
    pair.vanish()

    assert client == server >= 300 / PING_AFTER_S - 1
    assert pair.silence() <= IDLE_TIMEOUT_S


def test_an_answer_that_waits_to_be_sent_is_no_rest(pair):
    """It has not come, so the other end is not at rest either."""
    pair.server.sending.pauseProducing()
    pair.wait(60)
    _, server = pair.pings(300)
    pair.server.sending.resumeProducing()

    assert server >= 300 / PING_AFTER_S - 1


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("old", [None, "client", "server"])
def test_nobody_who_lives_counts_as_gone(made, seed, old):
    """Whoever asks whatever whenever, however long answers take, and while each direction is held up now and then."""
    chance = random.Random(seed)
    pair = made(**({} if old is None else {old: OLD}))
    errors = []
    held = {pair.client_wire: 0.0, pair.server_wire: 0.0}
    for _ in range(1500):
        now = pair.clock.seconds()
        if chance.random() < 0.01:
            errors.append(pair.call(chance.choice([pair.client, pair.server])))
        if pair.asked and chance.random() < 0.02:
            pair.answer()
        for wire, until in held.items():
            if not wire.stalled and chance.random() < 0.02:
                held[wire] = now + chance.uniform(1, LATE_S / 2)
                wire.stalled = True
            elif wire.stalled and now >= until:
                wire.stalled = False
                wire.schedule()
        pair.wait(1)

    assert [] == [each for each in errors if each]
    assert pair.alive


@pytest.mark.parametrize("seed", range(12))
def test_whoever_is_gone_is_noticed_in_time(made, seed):
    """Within 45 seconds of the last that was heard, or of the moment at which something began; else within 75."""
    chance = random.Random(seed)
    pair = made()
    for _ in range(chance.randrange(4)):
        pair.call(chance.choice([pair.client, pair.server]))
        pair.wait(chance.uniform(0, 40))
        while pair.asked:
            pair.answer()
    pair.wait(chance.uniform(0, 200))
    side = chance.choice([pair.client, pair.server])
    pair.vanish()
    if chance.random() < 0.5:
        assert pair.silence() <= RESTING_TIMEOUT_S
    else:
        pair.wait(chance.uniform(0, 30))
        pair.call(side)
        assert pair.silence() <= IDLE_TIMEOUT_S
