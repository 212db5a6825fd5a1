"""A busy reactor: what `realize.throttle.scheduler` makes up for, as `realize.throttle.lateness` allows."""

import pytest
from twisted.internet.task import Clock

from realize.throttle.buckets import Bucket
from realize.throttle.lateness import MAX_CATCH_UP_S, MIN_CATCH_UP_S, Lateness
from realize.throttle.scheduler import Scheduler

KIB, MIB = 1 << 10, 1 << 20
TICK_S = 0.001


class Greedy:
    """A connection that always has as much to send as the layer queues: 50 ms."""

    def __init__(self, scheduler, bucket):
        self.clock = scheduler._clock
        self.rate = bucket.rate
        self.moments = []
        self.flow = scheduler.flow(Bucket(parent=bucket))
        self.flow.waiter = self
        self.ask()

    def ask(self):
        """For 50 ms of bytes."""
        self.flow.ask(int(self.rate * 0.05))

    def granted(self, amount):
        """Note it, and ask again."""
        self.moments.append((self.clock.seconds(), amount))
        self.ask()

    def limits_changed(self):
        """Ask anew."""
        self.ask()

    def told(self):
        """How often it was granted something."""
        return len(self.moments)

    def sent(self, start=0.0):
        """Bytes since ``start``."""
        return sum(amount for moment, amount in self.moments if moment >= start)

    def worst(self, start=0.0, width=0.1):
        """The most bytes of any window that begins at ``start`` or later, over its share."""
        times = [each for each in self.moments if each[0] >= start]
        return max(
            sum(amount for moment, amount in times if begin <= moment <= begin + width) for begin, _ in times
        ) / (width * self.rate)


class Filling(Greedy):
    """One whose transport is full after each grant, for ``full_s`` seconds or until the next turn of the reactor."""

    full_s = 0.0

    def granted(self, amount):
        """Note it, and ask again when the transport takes more."""
        self.moments.append((self.clock.seconds(), amount))
        self.flow.hold()
        self.clock.callLater(self.full_s, self.ask)


def sending(rate, burst=None, kind=Greedy):
    """A greedy connection below a limit, and its clock."""
    clock = Clock()
    clock.advance(1000)
    root = Bucket(rate, burst)
    return clock, kind(Scheduler(clock, root), root)


def run(clock, seconds, blocked=0.0, period=TICK_S):
    """Let time go by; in each ``period`` the reactor does nothing for ``blocked`` seconds, the rest in ticks."""
    end = clock.seconds() + seconds
    while clock.seconds() < end:
        if blocked:
            clock.advance(blocked)
        clock.pump([TICK_S] * round((period - blocked) / TICK_S))


class TestBusyReactor:
    """Rates while something else keeps the reactor."""

    @pytest.mark.parametrize("rate", [64 * KIB, MIB, 20 * MIB, 100 * MIB])
    @pytest.mark.parametrize(("blocked", "period"), [(0.010, 0.025), (0.050, 0.100), (0.090, 0.100), (0.003, 0.004)])
    def test_it_sends_at_its_rate_all_the_same(self, rate, blocked, period):
        """Blocked for 10 ms of 25, for 50 of 100, or nearly always."""
        clock, greedy = sending(rate)
        run(clock, 1, blocked, period)
        settled = clock.seconds()
        run(clock, 5, blocked, period)

        assert greedy.sent(settled) == pytest.approx(rate * (clock.seconds() - settled), rel=0.02)

    @pytest.mark.parametrize("rate", [MIB, 20 * MIB, 100 * MIB])
    @pytest.mark.parametrize(("blocked", "period"), [(0.010, 0.025), (0.050, 0.100)])
    def test_a_transport_that_is_full_after_each_grant_loses_nothing_of_it(self, rate, blocked, period):
        """What keeps the reactor keeps the transport as well, and both are made up for."""
        clock, filling = sending(rate, kind=Filling)
        run(clock, 1, blocked, period)
        settled = clock.seconds()
        run(clock, 5, blocked, period)

        assert filling.sent(settled) == pytest.approx(rate * (clock.seconds() - settled), rel=0.03)

    @pytest.mark.parametrize("full_s", [0.002, 0.02, 0.09])
    def test_a_slow_transport_of_a_punctual_reactor_is_not_followed_by_a_burst(self, full_s):
        """It is no lateness of the reactor: no more than the 3 ms that are always made up for."""
        clock, filling = sending(20 * MIB, kind=Filling)
        filling.full_s = full_s
        run(clock, 1)
        filling.full_s = 0.0
        eased = clock.seconds()
        run(clock, 1)

        assert filling.worst() < 1.10
        assert filling.worst(eased) < 1.10

    def test_who_asks_for_nothing_after_a_full_transport_saves_nothing_up(self):
        """It was idle, and not held up."""
        clock, filling = sending(MIB, kind=Filling)
        run(clock, 1, 0.05, 0.1)
        filling.ask = lambda: filling.flow.ask(0)
        run(clock, 0.05)
        del filling.ask
        idle = clock.seconds()
        filling.ask()
        clock.pump([0, 0])

        assert filling.sent(idle) <= filling.flow.bucket.parent.burst

    @pytest.mark.parametrize("rate", [MIB, 100 * MIB])
    def test_no_100_ms_carry_more_than_their_share_while_it_is_punctual(self, rate):
        """At the start, and again soon after the load has gone: less than 1.10 times."""
        clock, greedy = sending(rate)
        run(clock, 2)
        at_start = greedy.worst()
        run(clock, 2, 0.05, 0.1)
        punctual = clock.seconds() + TICK_S
        run(clock, 2)

        assert at_start < 1.10
        assert greedy.worst(punctual) < 1.10

    def test_a_hiccup_is_not_followed_by_a_burst(self):
        """A reactor that is late once, by any time, makes up for 3 ms of it."""
        clock, greedy = sending(MIB)
        run(clock, 1)
        clock.advance(0.5)
        late = clock.seconds()
        run(clock, 1)

        assert greedy.worst(late) < 1.10

    def test_what_is_made_up_for_is_told_in_one_go(self):
        """A transport is full after the first step of many."""
        clock, greedy = sending(MIB)
        run(clock, 1, 0.05, 0.1)
        before = greedy.told()
        clock.advance(0.03)

        assert 1 == greedy.told() - before

    def test_who_writes_for_another_while_grants_are_made_up_for_does_not_get_them_twice(self):
        """What was granted and not told yet is part of what was asked for."""
        clock, greedy = sending(MIB)
        run(clock, 1, 0.05, 0.1)
        other = Greedy(greedy.flow._scheduler, greedy.flow.bucket.parent)
        other.flow.ask(0)
        other.ask, left = lambda: None, [100_000]

        def granted(amount):
            left[0] -= amount
            other.flow.ask(left[0])

        other.granted = granted
        told, greedy.rate = greedy.granted, MIB / 100

        def writes_for_it(amount):
            told(amount)
            other.flow.ask(left[0])

        greedy.granted = writes_for_it
        other.flow.ask(left[0])
        for _ in range(20):
            clock.advance(0.03)

        assert 0 == left[0]
        assert 0 == other.flow.bucket.demand

    def test_the_least_burst_keeps_the_rate(self):
        """With a slice and nothing more saved up, on a timer that is always a millisecond late."""
        clock, greedy = sending(20 * MIB, 62_914)
        run(clock, 5)

        assert greedy.sent() == pytest.approx(5 * 20 * MIB, rel=0.01)

    def test_who_asks_in_a_late_turn_takes_nothing_from_what_is_made_up_for(self):
        """A connection that begins to wait before the late timer fires neither resets it nor empties the bucket."""
        clock, greedy = sending(MIB)
        other = Greedy(greedy.flow._scheduler, greedy.flow.bucket.parent)
        other.flow.ask(0)
        start = clock.seconds()
        for _ in range(50):
            other.ask()
            clock.rightNow += 0.01
            other.flow.ask(0)
            other.ask()
            clock.pump([0, *[TICK_S] * 15])

        assert greedy.sent(start) + other.sent(start) == pytest.approx(MIB * (clock.seconds() - start), rel=0.04)

    def test_a_limit_that_changes_in_a_late_turn_holds_from_then_on(self):
        """Nothing of the time before is granted at the new rate."""
        clock, greedy = sending(KIB)
        run(clock, 1)
        clock.rightNow += 0.05
        changed = clock.seconds()
        greedy.rate = MIB
        greedy.flow._scheduler.set_rate(greedy.flow.bucket.parent, MIB)
        run(clock, 1)

        assert greedy.worst(changed) < 1.10


class TestBound:
    """How much lateness counts."""

    def test_a_punctual_timer_is_followed_exactly(self):
        """What it is late by counts."""
        assert 10.0 == Lateness().begin(10.0, 10.001)

    def test_lateness_that_comes_again_counts_in_full(self):
        """Up to a tenth of a second, after a few times."""
        lateness = Lateness()
        begun = [lateness.begin(now - 0.08, now) for now in (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)]

        assert begun[0] == pytest.approx(1.0 - MIN_CATCH_UP_S)
        assert begun == sorted(begun)
        assert begun[-1] == pytest.approx(1.52)
        assert lateness.begin(0.0, 2.0) >= 2.0 - MAX_CATCH_UP_S

    def test_lateness_that_does_not_come_again_is_forgotten(self):
        """Some seconds later no more counts than at the start."""
        lateness = Lateness()
        for now in range(10):
            lateness.begin(now - 0.09, now)

        assert lateness.begin(19.0, 20.0) == pytest.approx(20.0 - MIN_CATCH_UP_S)

    def test_a_clock_that_is_set_makes_nobody_late(self):
        """Back: not at all; forward: by no more than counts."""
        assert 5.0 == Lateness().begin(10.0, 5.0)
        assert 1e6 - MIN_CATCH_UP_S == Lateness().begin(10.0, 1e6)
