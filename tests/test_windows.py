"""Windows of streams: what a receiver lets be under way follows the link, within what it may hold."""

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from realize.concurrency.memory import Memory
from realize.errors import Busy, ProtocolError
from realize.wire import commands
from realize.wire.connection import Greeting
from realize.wire.inbound_stream import AHEAD_BYTES, MAX_NARROW_BYTES, MIN_GRANT_BYTES, InboundStream
from realize.wire.windows import (
    EARLY_PROBE_INTERVAL_S,
    FIRST_WINDOW_BYTES,
    MEASURE_INTERVAL_S,
    MIN_WINDOW_BYTES,
    PROBE_INTERVAL_S,
    QUIET_S,
    RoundTrip,
    StreamWindow,
)
from tests.loopback import Pair
from tests.test_streams import FakeLink

MIB = 1 << 20
HALF_TRIP_S = 0.1


def measuring():
    """A round trip that is measured, its clock, and what was asked."""
    clock, asked = Clock(), []

    def ask():
        asked.append(Deferred())
        return asked[-1]

    return RoundTrip(clock, ask), clock, asked


def answer(clock, asked, took):
    """Answer the last question after so many seconds."""
    clock.advance(took)
    asked[-1].callback(None)


def test_a_round_trip_is_the_time_until_an_answer():
    """It is not known before, and not asked for again while the answer is on its way."""
    round_trip, clock, asked = measuring()
    before = round_trip.look(), round_trip.look(), len(asked)
    answer(clock, asked, 0.2)

    assert (None, None, 1) == before
    assert 0.2 == pytest.approx(round_trip.look())


def test_the_shortest_round_trip_counts():
    """Most answers wait behind content that is under way, or for a process that is busy."""
    round_trip, clock, asked = measuring()
    found = []
    for took in [0.3, 0.1, *[0.3] * 8]:
        round_trip.look()
        answer(clock, asked, took)
        found.append(round_trip.look())
        clock.advance(MEASURE_INTERVAL_S)

    assert [0.3, *[0.1] * 9] == pytest.approx(found)
    assert not round_trip.probing


def probed(*, before, after, seconds=120.0):
    """When a probe began and ended, and what it found: the first answer takes so long, all later ones so long."""
    round_trip, clock, asked = measuring()
    round_trip.look()
    answer(clock, asked, before)
    began = ended = None
    while clock.seconds() < seconds and ended is None:
        round_trip.look()
        if began is None and round_trip.probing:
            began = clock.seconds()
        if not asked[-1].called:
            answer(clock, asked, after)
        if began is not None and not round_trip.probing:
            ended = clock.seconds()
        clock.advance(MEASURE_INTERVAL_S)
    return began, ended, round_trip.look()


def test_an_old_round_trip_is_measured_anew_with_little_under_way():
    """Each minute, for three answers: so a way that has become longer is noticed."""
    began, ended, found = probed(before=0.1, after=0.2)

    assert PROBE_INTERVAL_S <= began <= PROBE_INTERVAL_S + 2
    assert 3 * 0.2 <= ended - began <= 3 * (0.2 + MEASURE_INTERVAL_S)
    assert 0.2 == pytest.approx(found)


def test_a_way_that_is_much_longer_is_noticed_soon():
    """No queue of our own makes all measurements so long, as long as the link takes much in a round trip."""
    began, _, found = probed(before=0.02, after=0.2)

    assert EARLY_PROBE_INTERVAL_S <= began <= EARLY_PROBE_INTERVAL_S + 2
    assert 0.2 == pytest.approx(found)


def test_a_round_trip_after_a_pause_needs_no_probe():
    """Nothing is under way then: the shortest of three answers counts, and nobody is held up."""
    round_trip, clock, asked = measuring()
    found = []
    for took in [0.1, 0.3]:
        for _ in range(3):
            round_trip.look()
            answer(clock, asked, took)
            found.append((round_trip.look(), round_trip.probing))
            clock.advance(MEASURE_INTERVAL_S)
        clock.advance(QUIET_S + PROBE_INTERVAL_S)

    assert [(pytest.approx(each), False) for each in [0.1, 0.1, 0.1, 0.1, 0.1, 0.3]] == found


def test_a_probe_that_is_refused_ends():
    """Whoever is too busy to answer is served as ever, with the round trip that is known."""
    round_trip, clock, asked = measuring()
    round_trip.look()
    answer(clock, asked, 0.1)
    for _ in range(round(PROBE_INTERVAL_S) + 2):
        clock.advance(0.8)
        round_trip.look()
        if not round_trip.probing:
            answer(clock, asked, 0.2)
    before = round_trip.probing
    asked[-1].errback(Busy("256 commands are in progress already"))
    after = round_trip.probing
    clock.advance(1)

    assert (True, False) == (before, after)
    assert 0.1 == pytest.approx(round_trip.look())
    assert not round_trip.probing


def test_a_round_trip_is_not_measured_all_the_time():
    """Content comes hundreds of times a second."""
    round_trip, clock, asked = measuring()
    for _ in range(100):
        round_trip.look()
        clock.advance(0.01)
        for each in asked:
            if not each.called:
                each.callback(None)

    assert 2 == len(asked)


def test_a_refused_question_tells_nothing():
    """Whoever is too busy to answer is asked again later."""
    clock = Clock()
    round_trip = RoundTrip(clock, lambda: fail(Busy("256 commands are in progress already")))
    found = round_trip.look()
    clock.advance(10)

    assert (None, None) == (found, round_trip.look())


def test_a_clock_that_is_set_back_tells_nothing():
    """No round trip takes less than no time, and measuring goes on."""
    round_trip, clock, asked = measuring()
    clock.rightNow = 1000.0
    round_trip.look()
    clock.rightNow = 10.0
    asked[0].callback(None)
    found = round_trip.look()
    clock.advance(0.2)
    asked[1].callback(None)

    assert (None, 0.2) == (found, pytest.approx(round_trip.look()))


def fitted(rates, round_trip, seconds=0.2):
    """The windows of a stream that has these rates for so long each, in MiB per second."""
    window, now, arrived, found = StreamWindow(), 0.0, 1, []
    window.fit(arrived, now, round_trip)
    for rate in rates:
        now += seconds
        arrived += int(rate * MIB * seconds)
        window.fit(arrived, now, round_trip)
        found.append(window.bytes)
    return found


def test_a_window_is_twice_what_the_link_takes_in_a_round_trip():
    """So a sender that waits for credit doubles what it sends with each, until the link is full."""
    assert [16, 32, 40, 40] == [round(each / MIB) for each in fitted([40, 80, 100, 100], 0.2)]


def test_a_window_is_narrow_where_the_way_is_short():
    """More would only wait at the other end, and go through the caches: on the way down an eighth at a time."""
    found = fitted([500] * 20, 0.001)

    assert FIRST_WINDOW_BYTES * 7 // 8 == found[0]
    assert MIN_WINDOW_BYTES == found[-1]
    assert sorted(found, reverse=True) == found


def test_a_window_becomes_narrow_again_when_the_rate_falls():
    """By an eighth at a time: one pause of a sender's disk does not cost the round trips to grow again."""
    found = fitted([100, 0, 100, *[1] * 30], 0.2)

    assert [40, 35, 40] == [round(each / MIB) for each in found[:3]]
    assert MIN_WINDOW_BYTES == found[-1]


def test_a_window_stays_as_it_is_while_no_round_trip_is_known():
    """A peer that does not answer is served as ever."""
    assert [FIRST_WINDOW_BYTES] * 3 == fitted([1000, 1, 1000], None)


def test_a_window_survives_a_clock_that_jumps():
    """Back or forth, nothing but the next measurement suffers."""
    window = StreamWindow()
    for now, arrived in [(1000.0, 1), (10.0, 50 * MIB), (10.1, 51 * MIB)]:
        window.fit(arrived, now, 0.2)
    before = window.bytes
    window.fit(50 * MIB + 40 * MIB, 10.25, 0.25)
    after = window.bytes
    window.fit(91 * MIB, 1e9, 0.2)

    assert (FIRST_WINDOW_BYTES, 80 * MIB, 70 * MIB) == (before, after, window.bytes)


def linked(most, most_each, peer="peer", memory=None):
    """A link to a peer that may hold so much."""
    link = FakeLink()
    link.memory = (memory or Memory(most, most_each)).of(peer)
    return link


class Line:
    """A sender at the other end of a long link: what has credit arrives a round trip later, and questions are answered.

    ``rate`` in MiB per second is what the link carries.
    """

    def __init__(self, link, stream, rate):
        self.link, self.stream, self.rate = link, stream, rate
        self.sent = 0
        self.travelling = []
        self.credit = []
        self.seen = 0
        self.most_unread = 0

    def pass_time(self, seconds, step=0.02):
        """Let content arrive, and the consumer take it at once."""
        for _ in range(round(seconds / step)):
            self.link.clock.advance(step)
            now = self.link.clock.seconds()
            given = sum(self.link.granted)
            self.credit.append((now + HALF_TRIP_S, given))
            while self.credit and self.credit[0][0] <= now:
                self.seen = self.credit.pop(0)[1]
            size = min(self.seen - self.sent, int(self.rate * MIB * step))
            if size > 0:
                self.sent += size
                self.travelling.append((now + HALF_TRIP_S, size))
            while self.travelling and self.travelling[0][0] <= now:
                self.stream.receive(bytes(self.travelling.pop(0)[1]))
            self.stream.delivered()
            while self.stream._held:
                self.stream.read()
            self.most_unread = max(self.most_unread, given - self.stream.arrived)
            for asked in self.link.asked:
                if not asked.called:
                    self.link.clock.callLater(2 * HALF_TRIP_S, lambda each=asked: each.called or each.callback(None))


def run_line(link, rate, seconds, limit=10_000 * MIB):
    """A stream over such a line for so long; what it got per second in the last one, in MiB."""
    stream = InboundStream(1, limit, link)
    stream.start()
    line = Line(link, stream, rate)
    line.pass_time(seconds - 1)
    before = stream.arrived
    line.pass_time(1)
    return line, (stream.arrived - before) / MIB


def test_a_stream_fills_a_long_fat_link():
    """The fixed window of 8 MiB gave 40 MB/s at 200 ms."""
    line, got = run_line(linked(512 * MIB, 256 * MIB), 120, 4)

    assert got >= 0.95 * 120
    assert line.most_unread <= (2 * 120 * 0.25 + 2) * MIB


class Bottleneck:
    """A link that carries ``rate`` MiB per second, and queues what comes faster: content, and answers behind it."""

    def __init__(self, link, stream, rate, round_trip):
        self.link, self.stream, self.rate, self.half = link, stream, rate * MIB, round_trip / 2
        self.free = 0.0
        self.sent = self.given = 0
        self.piece = int(self.rate / 20)

    def pass_time(self, seconds):
        """Let time go by; returns the most that was under way, in MiB, and what arrived per second."""
        clock, before, most = self.link.clock, self.stream.arrived, 0
        until = clock.seconds() + seconds
        while clock.seconds() < until:
            for each in self.link.asked:
                clock.callLater(self.half, self._queue, 0, each)
            self.link.asked.clear()
            if self.link.granted:
                self.given += sum(self.link.granted)
                self.link.granted.clear()
                clock.callLater(self.half, self._credited, self.given)
            most = max(most, self.given - self.stream.arrived)
            clock.advance(clock.getDelayedCalls()[0].getTime() - clock.seconds())
        return most / MIB, (self.stream.arrived - before) / MIB / seconds

    def _credited(self, given):
        while self.sent < given:
            size = min(given - self.sent, self.piece)
            self.sent += size
            self._queue(size, None)

    def _queue(self, size, answer):
        now = self.link.clock.seconds()
        self.free = max(self.free, now) + size / self.rate
        self.link.clock.callLater(self.free - now + self.half, self._arrive, size, answer)

    def _arrive(self, size, answer):
        if answer is not None:
            answer.callback(None)
            return
        self.stream.receive(bytes(size))
        self.stream.delivered()
        while self.stream._held:
            self.stream.read()


def bottleneck(rate, round_trip):
    """A stream over such a link that has begun."""
    link = linked(4096 * MIB, 2048 * MIB)
    stream = InboundStream(1, 1_000_000 * MIB, link)
    stream.start()
    return Bottleneck(link, stream, rate, round_trip)


@pytest.mark.parametrize(("rate", "round_trip"), [(10, 0.002), (10, 0.1), (1, 0.02)])
def test_a_window_over_a_slow_link_stays_narrow(rate, round_trip):
    """What is under way waits in the link's queue, and makes answers late: that is no reason to have more under way."""
    link = bottleneck(rate, round_trip)
    link.pass_time(30)
    most, got = link.pass_time(150)

    assert most <= (MIN_WINDOW_BYTES + AHEAD_BYTES) / MIB + 2
    assert got >= 0.97 * rate


def test_a_window_over_a_fat_link_is_twice_what_it_carries_in_a_round_trip():
    """For minutes, with a probe in each of them."""
    link = bottleneck(50, 0.2)
    link.pass_time(4)
    most, got = link.pass_time(130)

    assert most <= 2 * 50 * 0.2 + (AHEAD_BYTES + MIN_WINDOW_BYTES) / MIB + 2
    assert got >= 0.97 * 50


@pytest.mark.parametrize(("short", "long"), [(0.02, 0.2), (0.1, 0.25)])
def test_a_window_follows_a_way_that_becomes_longer(short, long):
    """Another way through the network: the link is full again within a minute or so."""
    link = bottleneck(50, short)
    link.pass_time(15)
    link.half = long / 2
    link.pass_time(75)
    _, got = link.pass_time(5)

    assert got >= 0.95 * 50


def test_a_window_follows_a_way_that_becomes_shorter():
    """Less under way fills it; until a probe, the queue that is no longer needed hides that."""
    link = bottleneck(50, 0.3)
    link.pass_time(15)
    link.half = 0.02
    link.pass_time(65)
    most, got = link.pass_time(5)

    assert most <= (MIN_WINDOW_BYTES + AHEAD_BYTES) / MIB + 3
    assert got >= 0.97 * 50


def test_no_more_is_promised_than_may_be_held():
    """Half of what a peer may hold: promises are claimed, and end with what arrives or with the stream."""
    link = linked(128 * MIB, 64 * MIB)
    line, got = run_line(link, 400, 4)

    assert line.most_unread <= 32 * MIB
    assert link.memory.held <= 32 * MIB
    assert got >= 0.7 * 32 / (2 * HALF_TRIP_S)
    line.stream.fail(Busy("abandoned"))
    assert 0 == link.memory.held


def test_a_sender_that_falls_silent_keeps_its_share_alone():
    """What it was promised it may send at any time; others have theirs, and windows as wide as ever."""
    memory = Memory(128 * MIB, 64 * MIB)
    silent = linked(0, 0, "silent", memory)
    run_line(silent, 400, 4)
    other = linked(0, 0, "other", memory)
    narrow = InboundStream(1, 1000 * MIB, other)
    narrow.start()
    beside = InboundStream(3, 1000 * MIB, silent)
    beside.start()

    assert [MAX_NARROW_BYTES] == other.granted
    assert MIN_GRANT_BYTES == silent.granted[-1]


def test_a_wide_window_makes_room_for_the_streams_beside_it():
    """A stream that begins when another one has taken all there is gets as much as ever, a moment later."""
    link = linked(128 * MIB, 64 * MIB)
    line, _ = run_line(link, 400, 4)
    late = InboundStream(3, 1000 * MIB, link)
    given = []
    link.grant = lambda stream, amount: (given if stream == 3 else link.granted).append(amount)
    late.start()
    first = sum(given)
    line.pass_time(1)
    late.receive(bytes(MIB))
    late.delivered()
    late.read()
    late.read()

    assert MIN_GRANT_BYTES == first
    assert sum(given) >= FIRST_WINDOW_BYTES


def test_wide_windows_of_many_peers_leave_half_of_the_memory():
    """Whoever comes then has narrow windows at least."""
    memory = Memory(128 * MIB, 64 * MIB)
    for number in range(8):
        run_line(linked(0, 0, f"peer{number}", memory), 400, 4)
    late = linked(0, 0, "late", memory)
    InboundStream(1, 1000 * MIB, late).start()

    assert memory.held <= 128 * MIB
    assert sum(late.granted) >= MIN_GRANT_BYTES


def test_no_window_grows_while_somebody_waits_for_memory():
    """What only makes things faster is not taken from what others need."""
    memory = Memory(64 * MIB, 64 * MIB)
    hungry = memory.of("hungry").claim()
    hungry.force(30 * MIB)
    waiting = memory.of("hungry").claim().grow(60 * MIB)
    line, _ = run_line(linked(0, 0, "peer", memory), 400, 3)

    assert not waiting.called
    assert line.most_unread <= MAX_NARROW_BYTES
    waiting.addErrback(lambda _: None)
    waiting.cancel()


def test_a_peer_that_answers_late_gains_no_more_than_its_share():
    """It may make its link look as long as it likes."""
    link = linked(128 * MIB, 64 * MIB)
    stream = InboundStream(1, 100_000 * MIB, link)
    stream.start()
    for _ in range(60):
        link.clock.advance(60)
        for each in link.asked:
            if not each.called:
                each.callback(None)
        size = min(sum(link.granted) - stream.arrived, 8 * MIB)
        stream.receive(bytes(size))
        stream.delivered()
        while stream._held:
            stream.read()

    assert sum(link.granted) - stream.arrived <= 32 * MIB
    assert link.memory.held <= 32 * MIB


def test_content_beyond_a_grown_window_is_a_violation():
    """A wide window is a limit like any other."""
    line, _ = run_line(linked(128 * MIB, 64 * MIB), 100, 3)
    left = sum(line.link.granted) - line.stream.arrived

    assert left > FIRST_WINDOW_BYTES + AHEAD_BYTES
    with pytest.raises(ProtocolError):
        line.stream.receive(bytes(left + 1))


def test_both_ends_answer_pings_that_want_an_answer():
    """That is how a receiver learns how long the link is, whichever end it is."""
    pair = Pair(Clock()).introduced()
    found = []
    for end in (pair.client, pair.server):
        before = end.round_trip.look()
        pair.flush()
        found.append((before, end.round_trip.look()))

    assert [(None, 0.0)] * 2 == found


def test_a_peer_without_that_capability_is_not_asked():
    """To one of before, a ping with an answer would be a violation."""
    pair = Pair(Clock(), client_greeting=Greeting("old", (commands.DELTAS,))).introduced()
    sent = pair.server.bytes_sent
    pair.server.round_trip.look()
    pair.flush()

    assert (None, sent) == (pair.server.round_trip.look(), pair.server.bytes_sent)
