"""The arithmetic of `realize.throttle.buckets`, without a clock."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realize.errors import UsageError
from realize.throttle.buckets import Bucket
from realize.throttle.meter import Meter
from realize.throttle.rates import QUANTUM_S, burst_of, slice_of

KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40
RATES = st.one_of(st.integers(1, 10 * TIB), st.sampled_from([1, 2, 100, KIB, 64 * KIB, MIB, 100 * MIB, 10 * TIB]))
STEPS = st.floats(0, 0.05) | st.floats(0, 100) | st.sampled_from([0.0, 1e-9, 1e-6])
HUGE = 1 << 60


def drain(root, leaves, start, end):
    """Keep all leaves waiting from ``start`` to ``end``; what was handed out, as (time, leaf, bytes)."""
    for leaf in leaves:
        leaf.wait_for(HUGE, start)
    now, history = start, []
    while now <= end:
        history += [(now, leaf, amount) for leaf, amount in root.serve(now).items()]
        now += root.delay(now)
    return history


def totals(history):
    """Bytes by leaf."""
    found = {}
    for _, leaf, amount in history:
        found[leaf] = found.get(leaf, 0) + amount
    return found


def most_above_rate(moments, rate):
    """By how many bytes any interval of (time, bytes) exceeds rate * t: its burst."""
    worst = saved = 0.0
    last = -math.inf
    for now, amount in moments:
        saved = max(0.0, saved - rate * (now - last)) + amount if last > -math.inf else amount
        worst, last = max(worst, saved), now
    return worst


class TestDerivedValues:
    """What follows from a rate."""

    @pytest.mark.parametrize("rate", [MIB, 10 * MIB, 100 * MIB, TIB])
    def test_any_window_of_100_ms_holds_at_most_1_06_of_its_share(self, rate):
        """From 1 MiB/s on the burst is 6 ms' worth, which leaves 4 ms to the timing of the rest of the world."""
        assert (rate * 0.1 + burst_of(rate)) / (rate * 0.1) <= 1.0601

    @pytest.mark.parametrize("rate", [64 * KIB, 100 * KIB, 300 * KIB, MIB, 100 * MIB])
    def test_any_5_s_hold_at_most_1_005_of_their_share(self, rate):
        """From 64 KiB/s on the burst is less than half a percent of what 5 s carry."""
        assert burst_of(rate) / (5 * rate) < 0.005

    @given(rate=RATES)
    def test_a_slice_is_at_least_a_byte_and_takes_at_most_half_a_second(self, rate):
        """No rate makes the smallest thing that is sent nothing, or takes for ever to collect it."""
        assert 1 <= slice_of(rate) <= burst_of(rate)
        assert slice_of(rate) <= max(1, rate / 2)

    @pytest.mark.parametrize("rate", [0, -1, 0.5, 10 * TIB + 1, math.inf, math.nan])
    def test_a_rate_that_is_none_is_refused(self, rate):
        """From 1 byte/s to 10 TiB/s, for a new limit and for one that is changed, which then stays what it was."""
        bucket = Bucket(MIB)

        for refused in (lambda: Bucket(rate), lambda: bucket.set_rate(rate, 0)):
            with pytest.raises(UsageError, match="from 1 byte/s to 10 TiB/s"):
                refused()
        assert MIB == bucket.rate

    @pytest.mark.parametrize(
        ("rate", "burst", "least"),
        [
            (1, 0.5, "1 byte,"),
            (100 * MIB, 64 * KIB, "314572 bytes"),
            (20 * MIB, 4 * KIB, "62914 bytes"),
            (1, math.nan, ""),
        ],
    )
    def test_a_burst_that_would_lower_the_rate_is_refused(self, rate, burst, least):
        """The error names the least that the rate needs; a limit that was to be changed stays what it was."""
        bucket = Bucket(KIB)

        for refused in (lambda: Bucket(rate, burst), lambda: bucket.set_rate(rate, 0, burst)):
            with pytest.raises(UsageError, match=f"needs a burst of at least {least}"):
                refused()
        assert (KIB, burst_of(KIB)) == (bucket.rate, bucket.burst)

    @given(rate=RATES)
    @settings(deadline=None)
    def test_the_least_burst_is_enough_for_the_rate(self, rate):
        """A bucket that saves up a slice and no more passes what it should, if it is served when it is due."""
        bucket = Bucket(rate, slice_of(rate))
        duration = 300 * max(QUANTUM_S, slice_of(rate) / rate)

        history = drain(bucket, [bucket], 0, duration)

        assert sum(amount for _, _, amount in history) == pytest.approx(rate * duration, rel=0.03, abs=2)

    def test_no_limit_takes_any_burst(self):
        """A configuration may leave the burst where it is when it lifts the limit."""
        assert math.inf == Bucket(None, 1).burst


class TestOneBucket:
    """A bucket alone."""

    @given(rate=RATES, start=st.floats(0, 1e8), steps=st.lists(st.tuples(STEPS, st.integers(0, HUGE)), max_size=60))
    def test_never_more_than_rate_times_t_plus_burst_in_any_interval(self, rate, start, steps):
        """Whenever it is asked, and for however much."""
        bucket, now, moments = Bucket(rate), start, []
        for step, amount in steps:
            now += step
            bucket.wait_for(amount, now)
            moments += [(now, given) for given in bucket.serve(now).values()]

        # The time itself is rounded when it is added up here.
        assert most_above_rate(moments, rate) <= bucket.burst * (1 + 1e-9) + rate * 1e-7

    @given(rate=RATES, start=st.floats(0, 1e8))
    @settings(deadline=None)
    def test_the_delay_is_neither_too_short_nor_too_long(self, rate, start):
        """Whoever comes after the delay gets something, every time, and in all what the rate promises."""
        bucket = Bucket(rate)
        duration = 300 * max(QUANTUM_S, slice_of(rate) / rate)

        history = drain(bucket, [bucket], start, start + duration)

        assert all(amount > 0 for _, _, amount in history)
        assert sum(amount for _, _, amount in history) == pytest.approx(rate * duration, rel=0.03, abs=2)

    @pytest.mark.parametrize("late", [0.0005, 0.001, 0.0025])
    @pytest.mark.parametrize("rate", [64 * KIB, MIB, 100 * MIB])
    def test_being_served_late_costs_nothing(self, rate, late):
        """Who is served up to 3 ms late catches up: the mean stays within 1 %."""
        bucket, now, total = Bucket(rate), 0.0, 0
        bucket.wait_for(HUGE, now)
        while now < 5:
            total += sum(bucket.serve(now).values())
            now += bucket.delay(now) + late

        assert total == pytest.approx(rate * now, rel=0.01)

    def test_an_idle_bucket_saves_up_its_burst_and_no_more(self):
        """After an hour of silence as much goes out at once as at the start."""
        bucket = Bucket(MIB)
        bucket.wait_for(HUGE, 0)
        first = bucket.serve(0)[bucket]
        bucket.wait_for(0, 0)
        bucket.wait_for(HUGE, 3600)

        assert first == bucket.serve(3600)[bucket] == int(burst_of(MIB))

    def test_a_small_request_waits_only_for_itself(self):
        """A few bytes are not held back until a whole slice is there."""
        bucket = Bucket(MIB)
        bucket.wait_for(HUGE, 0)
        bucket.serve(0)
        bucket.wait_for(10, 0)

        assert bucket.delay(0) <= 10 / MIB + 2e-6

    def test_nobody_waiting_means_no_delay(self):
        """There is nothing to wake up for."""
        assert Bucket(1).delay(0) is None

    def test_a_burst_that_was_asked_for_goes_out_at_once(self):
        """An explicit burst replaces the derived one."""
        bucket = Bucket(MIB, 64 * KIB)
        bucket.wait_for(HUGE, 0)

        assert {bucket: 64 * KIB} == bucket.serve(0)

    def test_without_a_rate_all_is_served(self):
        """No limit, no wait."""
        bucket = Bucket()
        bucket.wait_for(HUGE, 0)

        assert {bucket: HUGE} == bucket.serve(0)


class TestChanges:
    """A rate that changes while somebody waits."""

    @pytest.mark.parametrize(("before", "after"), [(KIB, 10 * MIB), (MIB, 4 * MIB), (4 * MIB, MIB), (10 * TIB, 1)])
    def test_a_new_rate_holds_from_the_moment_it_is_set(self, before, after):
        """The wait is computed anew, and nothing of the old rate is left but what fits the new burst."""
        bucket = Bucket(before)
        bucket.wait_for(HUGE, 0)
        bucket.serve(0)
        bucket.set_rate(after, 0.001)

        assert bucket.delay(0.001) <= slice_of(after) / after + 2e-6
        history = drain(bucket, [bucket], 0.001, 5)
        assert most_above_rate([(now, amount) for now, _, amount in history], after) <= burst_of(after) * 1.001

    def test_a_lifted_limit_serves_all_at_once(self):
        """None is no limit from now on."""
        bucket = Bucket(1)
        bucket.wait_for(HUGE, 0)
        bucket.serve(0)
        bucket.set_rate(None, 0)

        assert bucket.delay(0) == 0
        assert sum(bucket.serve(0).values()) > HUGE - 10

    def test_a_limit_set_on_a_free_bucket_starts_without_a_burst(self):
        """What was sent just before was not counted, so nothing is given on top."""
        bucket = Bucket()
        bucket.set_rate(MIB, 10)
        bucket.wait_for(HUGE, 10)

        assert {} == bucket.serve(10)

    @given(st.lists(st.tuples(RATES | st.none(), st.floats(0, 1)), min_size=1, max_size=20))
    def test_changes_never_add_up_to_more_than_the_rates_and_the_largest_burst(self, changes):
        """Switching to and fro cannot be used to get more."""
        bucket, now, total, allowed, burst = Bucket(1), 0.0, 0.0, 0.0, 0.0
        bucket.wait_for(HUGE, now)
        for rate, duration in changes:
            bucket.set_rate(rate, now)
            if rate is None:
                now += duration
                continue
            burst = max(burst, bucket.burst)
            end = now + duration
            for step in range(11):
                total += sum(bucket.serve(now + duration * step / 10).values())
                bucket.wait_for(HUGE, now)
            now, allowed = end, allowed + rate * duration

            assert total <= (allowed + burst) * (1 + 1e-9) + 1


class TestTree:
    """Limits above limits, and brothers."""

    @given(
        service=RATES | st.none(),
        peers=st.lists(st.tuples(RATES | st.none(), st.lists(RATES | st.none(), min_size=1, max_size=3)), max_size=3),
        steps=st.lists(st.tuples(STEPS, st.integers(0, 8), st.integers(0, 1 << 24)), max_size=40),
    )
    @settings(deadline=None)
    def test_every_node_holds_its_own_bound_and_work_is_conserved(self, service, peers, steps):
        """Each node passes at most rate * t + burst; after serving, nobody could have been given anything."""
        root = Bucket(service)
        leaves = []
        for rate, connections in peers:
            peer = Bucket(rate, parent=root)
            leaves += [Bucket(connection, parent=peer) for connection in connections]
        passed = {}
        now = 0.0
        for step, which, amount in steps:
            now += step
            if leaves:
                leaves[which % len(leaves)].wait_for(amount, now)
            before = {leaf: leaf.demand for leaf in leaves}
            grants = root.serve(now)
            for leaf, given_now in grants.items():
                assert 0 < given_now <= before[leaf]
                assert leaf.demand == before[leaf] - given_now
                node = leaf
                while node is not None:
                    passed.setdefault(node, []).append((now, given_now))
                    node = node.parent
            assert root.demand == sum(leaf.demand for leaf in leaves)
            assert {} == root.serve(now)
            assert root.delay(now) is None or root.delay(now) > 0

        for node, moments in passed.items():
            if node.rate is not None:
                assert most_above_rate(moments, node.rate) <= node.burst * (1 + 1e-9) + node.rate * 1e-7

    @given(
        service=st.integers(1, 100 * MIB) | st.none(),
        peer=st.integers(1, 100 * MIB) | st.none(),
        connections=st.lists(st.integers(1, 100 * MIB), min_size=1, max_size=5),
    )
    @settings(deadline=None)
    def test_after_the_delay_somebody_is_served(self, service, peer, connections):
        """The delay is long enough, whichever nodes hold whom back."""
        root = Bucket(service)
        node = Bucket(peer, parent=root)
        leaves = [Bucket(rate, parent=node) for rate in connections]
        for leaf in leaves:
            leaf.wait_for(HUGE, 0)
        now = 1e6
        root.serve(now)
        for _ in range(50):
            now += root.delay(now)
            assert root.serve(now)

    @pytest.mark.parametrize("tightest", [0, 1, 2])
    def test_the_tightest_of_three_limits_holds(self, tightest):
        """Wherever it is: on the service, the peer or the connection."""
        rates = [4 * MIB, 4 * MIB, 4 * MIB]
        rates[tightest] = MIB
        service = Bucket(rates[0])
        peer = Bucket(rates[1], parent=service)
        leaf = Bucket(rates[2], parent=peer)

        history = drain(service, [leaf], 0, 5)

        assert sum(amount for _, _, amount in history) == pytest.approx(5 * MIB, rel=0.01)

    @pytest.mark.parametrize("rate", [10 * KIB, MIB, 10 * MIB, 1000 * MIB])
    @pytest.mark.parametrize("count", [2, 10, 100])
    def test_brothers_get_the_same(self, rate, count):
        """Connections that wait all the time share what is above them evenly."""
        root = Bucket(rate)
        leaves = [Bucket(parent=root) for _ in range(count)]
        duration = max(10, 200 * count * slice_of(rate) / rate) if count < 100 else 10

        found = totals(drain(root, leaves, 0, duration))
        turn = max(slice_of(rate) // count, min(4096, slice_of(rate)))

        assert set(leaves) == set(found)
        assert max(found.values()) - min(found.values()) <= 2 * turn

    def test_peers_get_the_same_however_many_connections_they_have(self):
        """The service is shared between peers, then each part between the connections of a peer."""
        root = Bucket(10 * MIB)
        one, many = Bucket(parent=root), Bucket(parent=root)
        single = Bucket(parent=one)
        several = [Bucket(parent=many) for _ in range(9)]

        found = totals(drain(root, [single, *several], 0, 10))

        assert found[single] == pytest.approx(50 * MIB, rel=0.01)
        assert [found[leaf] for leaf in several] == [pytest.approx(50 * MIB / 9, rel=0.01)] * 9

    def test_what_a_limited_brother_leaves_goes_to_the_others(self):
        """A connection below its own limit does not hold the others to it."""
        root = Bucket(10 * MIB)
        slow, fast = Bucket(MIB, parent=root), Bucket(parent=root)

        found = totals(drain(root, [slow, fast], 0, 10))

        assert found[slow] == pytest.approx(10 * MIB, rel=0.01)
        assert found[fast] == pytest.approx(90 * MIB, rel=0.01)

    def test_whoever_was_away_is_not_repaid(self):
        """A connection that comes back starts level with those that went on; it does not starve them."""
        root = Bucket(MIB)
        away, busy = Bucket(parent=root), Bucket(parent=root)
        drain(root, [busy], 0, 10)
        found = totals(drain(root, [away, busy], 10, 20))

        assert found[away] == pytest.approx(found[busy], rel=0.01)

    def test_many_small_requests_get_no_more_than_one_large(self):
        """Fairness is by bytes, not by requests."""
        root = Bucket(MIB)
        small, large = Bucket(parent=root), Bucket(parent=root)
        now, got = 0.0, {small: 0, large: 0}
        large.wait_for(HUGE, now)
        while now < 10:
            small.wait_for(5000, now)
            for leaf, amount in root.serve(now).items():
                got[leaf] += amount
            now += root.delay(now)

        assert got[small] == pytest.approx(got[large], rel=0.02)

    def test_the_share_is_what_a_leaf_may_expect(self):
        """The tightest of its limits, divided by those who wait beside it."""
        root = Bucket(8 * MIB)
        peer = Bucket(4 * MIB, parent=root)
        leaf, other = Bucket(parent=peer), Bucket(parent=peer)
        alone = leaf.share()
        other.wait_for(1, 0)

        assert (4 * MIB, 2 * MIB) == (alone, leaf.share())
        assert Bucket().share() is None

    def test_limited_says_whether_any_node_above_has_a_limit(self):
        """So that those without one need not ask."""
        root = Bucket()
        leaf = Bucket(parent=root)
        before = leaf.limited
        root.set_rate(1, 0)

        assert (False, True) == (before, leaf.limited)

    def test_what_a_leaf_counted_stays_with_its_parent(self):
        """Counters of a peer do not go back when a connection ends."""
        root = Bucket(MIB)
        leaf = Bucket(parent=root)
        sent = sum(amount for _, _, amount in drain(root, [leaf], 0, 2))
        leaf.leave(2)

        assert () == root.children
        assert root.demand == 0
        assert sent == root.sent()
        assert root.waited(3) == pytest.approx(2, abs=0.01)
        assert root.current_rate(2) == pytest.approx(MIB, rel=0.05)


class TestJumps:
    """A clock that is set, as that of somebody else's reactor may be."""

    @pytest.mark.parametrize("jump", [-1e4, -0.5, 0.5, 1e4])
    def test_a_jump_neither_stops_the_flow_nor_lets_a_flood_through(self, jump):
        """The rate goes on to hold, and at most one burst is let through besides."""
        root = Bucket(rate=MIB)
        leaf = Bucket(parent=root)
        drain(root, [leaf], 5e4, 5e4 + 10)
        before = root.sent()

        drain(root, [leaf], 5e4 + 10 + jump, 5e4 + 20 + jump)

        assert 9.9 * MIB <= root.sent() - before <= 10.1 * MIB + burst_of(MIB)

    def test_time_that_waiting_took_does_not_become_less(self):
        """A counter in the metrics never goes back."""
        root = Bucket(rate=1)
        leaf = Bucket(parent=root)
        leaf.wait_for(1000, 5e4)

        assert 0 == root.waited(4e4)
        leaf.wait_for(0, 4e4)
        assert 0 == root.waited(4e4)


class TestMeter:
    """What `GetThrottle` shows as the current rate."""

    def test_a_steady_flow_is_measured(self):
        """After two seconds the reading is the rate."""
        meter = Meter()
        for step in range(300):
            meter.count(1000, 1000 + step / 100)

        assert meter.rate(1003) == pytest.approx(100_000, rel=0.02)

    def test_a_flow_that_stopped_is_forgotten(self):
        """Two seconds later nothing is left of it but the total."""
        meter = Meter()
        meter.count(1000, 5)

        assert 1000 == meter.rate(5.1)
        assert 0 == meter.rate(7.1)
        assert 1000 == meter.total

    def test_a_clock_that_is_set_back_is_followed(self):
        """The reading stays what it can be, and shows the flow from then on."""
        meter = Meter()
        for step in range(300):
            meter.count(1000, 1000 + step / 100)
        at_once = meter.rate(500)
        for step in range(300):
            meter.count(1000, 500 + step / 100)

        assert 0 <= at_once <= 200_000
        assert meter.rate(503) == pytest.approx(100_000, rel=0.02)
