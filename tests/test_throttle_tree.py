"""The named limits of a daemon, `realize.throttle.tree`, on a pumped clock."""

import math

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from realize.errors import Conflict, NotFound, UsageError
from realize.throttle.factory import ThrottledFactory
from realize.throttle.tree import Limit, Scope, ThrottleTree
from realize.units import MAX_RATE_BPS

KIB, MIB = 1 << 10, 1 << 20


class Setting:
    """A tree and its connections."""

    def __init__(self, **limits):
        self.clock = Clock()
        self.clock.pump([1000])
        self.tree = ThrottleTree(self.clock, **limits)

    def connect(self, peer, name, waiting=0):
        """A new connection of ``peer`` with something to send; its transport and protocol."""
        paced = ThrottledFactory(Factory.forProtocol(Protocol), self.clock).buildProtocol(None)
        link = StringTransport()
        paced.makeConnection(link)
        paced.use(self.tree.attach(peer, name))
        paced.write(b"x" * waiting)
        return link, paced

    def pass_time(self, seconds):
        """In small steps."""
        self.clock.pump([0.001] * round(seconds * 1000))

    def limits(self):
        """Scope, name and limit of all nodes."""
        return [(limit.scope.value, limit.name, limit.limit) for limit in self.tree.snapshot()]

    @property
    def timers(self):
        """What the clock still has to do."""
        return list(self.clock.getDelayedCalls())


def test_whoever_wants_to_is_told_of_each_look_at_the_connections():
    """About every second while there are any, and by no timer of its own."""
    looks = []
    setting = Setting(sampled=lambda _: looks.append(setting.clock.seconds()))
    setting.pass_time(3)
    before = list(looks)
    setting.connect("camera", "1")
    setting.pass_time(3)

    assert [] == before
    assert 3 <= len(looks) <= 6
    assert 1 == len(setting.timers)
    setting.tree.close()


class TestScopes:
    """Service, peer, connection."""

    def test_starting_limits_apply_to_what_they_name(self):
        """As a configuration gives them; a peer without one has none."""
        setting = Setting(service=20 * MIB, peers={"camera": 5 * MIB}, connection=MIB)
        setting.connect("camera", "1")
        setting.connect("hostb", "2")

        expected = [
            ("service", "", 20 * MIB),
            ("peer", "camera", 5 * MIB),
            ("connection", "1", MIB),
            ("peer", "hostb", None),
            ("connection", "2", MIB),
        ]
        assert expected == setting.limits()

    @pytest.mark.parametrize(("scope", "name"), [(Scope.SERVICE, ""), (Scope.PEER, "camera"), (Scope.CONNECTION, "1")])
    def test_a_limit_on_any_scope_reaches_a_running_transfer(self, scope, name):
        """Within 100 ms, and the former limit is returned."""
        setting = Setting()
        link, paced = setting.connect("camera", "1")
        former = setting.tree.set_rate(scope, name, KIB)
        paced.write(b"x" * 4 * MIB)
        setting.pass_time(1)
        slow = len(link.value())
        again = setting.tree.set_rate(scope, name, MIB)
        setting.pass_time(0.1)

        assert (None, KIB) == (former, again)
        assert MIB == setting.tree.rate(scope, name)
        assert slow <= 2 * KIB
        assert len(link.value()) - slow == pytest.approx(0.1 * MIB, rel=0.1)

    def test_ten_connections_of_a_peer_share_its_limit(self):
        """Each of ten gets a tenth, within 5 %."""
        setting = Setting(peers={"camera": 10 * MIB})
        links = [setting.connect("camera", str(number), 8 * MIB)[0] for number in range(10)]
        setting.pass_time(5)

        assert [5 * MIB] * 10 == [pytest.approx(len(link.value()), rel=0.05) for link in links]

    def test_peers_share_the_service(self):
        """Whatever the number of their connections."""
        setting = Setting(service=10 * MIB)
        single, _ = setting.connect("one", "1", 40 * MIB)
        several = [setting.connect("many", f"m{number}", 40 * MIB)[0] for number in range(4)]
        setting.pass_time(4)

        assert len(single.value()) == pytest.approx(20 * MIB, rel=0.02)
        assert [len(link.value()) for link in several] == [pytest.approx(5 * MIB, rel=0.02)] * 4

    def test_a_peer_without_limit_is_not_held_by_the_limit_of_another(self):
        """Limits of brothers have nothing to do with each other."""
        setting = Setting(peers={"camera": KIB})
        setting.connect("camera", "1", MIB)
        link, paced = setting.connect("hostb", "2", MIB)

        assert MIB == len(link.value())
        assert 0 == paced.queued


class TestRefusals:
    """What may not be set."""

    @pytest.mark.parametrize("rate", [0, -1, 0.5, MAX_RATE_BPS + 1, math.inf, math.nan])
    def test_a_rate_out_of_bounds_is_refused_with_the_bounds(self, rate):
        """The sentence says what is allowed; nothing changes."""
        setting = Setting(service=MIB)

        with pytest.raises(UsageError, match="from 1 byte/s to 10 TiB/s, or unlimited"):
            setting.tree.set_rate(Scope.SERVICE, "", rate)
        with pytest.raises(UsageError, match="from 1 byte/s to 10 TiB/s, or unlimited"):
            setting.tree.configure(peers={"camera": rate})
        assert [("service", "", MIB)] == setting.limits()

    @pytest.mark.parametrize("scope", [Scope.PEER, Scope.CONNECTION])
    def test_an_unknown_name_is_not_found(self, scope):
        """A limit for something that does not exist is a mistake."""
        setting = Setting()

        with pytest.raises(NotFound, match="nobody"):
            setting.tree.set_rate(scope, "nobody", MIB)

    @pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
    def test_a_time_that_makes_no_sense_is_refused(self, seconds):
        """A limit for a time needs one."""
        setting = Setting()

        with pytest.raises(UsageError, match="more than 0 seconds"):
            setting.tree.set_rate(Scope.SERVICE, "", MIB, seconds)
        assert [("service", "", None)] == setting.limits()

    def test_two_connections_of_one_name_are_refused(self):
        """Limits could not tell them apart."""
        setting = Setting()
        setting.connect("camera", "1")

        with pytest.raises(Conflict, match="connection 1"):
            setting.tree.attach("hostb", "1")


class TestForATime:
    """Limits that go by themselves."""

    def test_the_former_limit_is_back_afterwards(self):
        """To the second, and a waiting transfer notices at once."""
        setting = Setting(service=MIB)
        link, _ = setting.connect("camera", "1", 10 * MIB)
        setting.tree.set_rate(Scope.SERVICE, "", KIB, 2)
        lasts = setting.tree.snapshot()[0].lasts
        setting.pass_time(1.9)
        during = len(link.value())
        setting.pass_time(0.2)
        after = setting.limits()[0]
        setting.pass_time(1)

        assert 2 == lasts
        assert during < 4 * KIB
        assert ("service", "", MIB) == after
        assert len(link.value()) - during == pytest.approx(1.1 * MIB, rel=0.02)
        assert setting.tree.snapshot()[0].lasts is None

    def test_one_for_a_time_on_top_of_another_returns_to_the_lasting_one(self):
        """Never to a limit that was itself only for a time."""
        setting = Setting(service=MIB)
        setting.tree.set_rate(Scope.SERVICE, "", 2 * MIB, 10)
        setting.pass_time(1)
        setting.tree.set_rate(Scope.SERVICE, "", 3 * MIB, 1)
        setting.pass_time(1.1)

        assert [("service", "", MIB)] == setting.limits()
        assert [] == setting.timers

    def test_a_lasting_limit_ends_one_for_a_time(self):
        """What was set last holds."""
        setting = Setting(service=MIB)
        setting.tree.set_rate(Scope.SERVICE, "", 2 * MIB, 10)
        setting.tree.set_rate(Scope.SERVICE, "", None)

        assert [] == setting.timers
        assert [("service", "", None)] == setting.limits()

    def test_a_connection_that_goes_takes_its_timer_along(self):
        """There is nothing to return to."""
        setting = Setting()
        _, paced = setting.connect("camera", "1")
        setting.tree.set_rate(Scope.CONNECTION, "1", MIB, 10)
        paced.connectionLost()

        assert [] == setting.timers


class TestConfiguration:
    """Limits from a file that is read again."""

    def test_what_changed_is_applied(self):
        """Set, new, gone: all at once, on connections that are already there."""
        setting = Setting(service=MIB, peers={"camera": MIB, "hostb": MIB}, connection=MIB)
        setting.connect("camera", "1")
        setting.tree.configure(service=None, peers={"camera": 2 * MIB, "new": 3 * MIB}, connection=4 * MIB)

        expected = [
            ("service", "", None),
            ("peer", "camera", 2 * MIB),
            ("connection", "1", 4 * MIB),
            ("peer", "new", 3 * MIB),
        ]
        assert expected == setting.limits()

    def test_what_was_set_at_run_time_stays_unless_the_file_changes_it(self):
        """Reading an unchanged file undoes nothing, and a connection keeps its own limit."""
        setting = Setting(service=MIB, connection=MIB)
        setting.connect("camera", "1")
        setting.tree.set_rate(Scope.SERVICE, "", 2 * MIB)
        setting.tree.set_rate(Scope.CONNECTION, "1", 3 * MIB)
        setting.tree.configure(service=MIB, connection=5 * MIB)

        expected = [("service", "", 2 * MIB), ("peer", "camera", None), ("connection", "1", 3 * MIB)]
        assert expected == setting.limits()


class TestSnapshot:
    """What `GetThrottle` and the metrics show."""

    def test_rates_totals_and_waiting_add_up(self):
        """A peer and the service show the sum of what is below them."""
        setting = Setting(service=2 * MIB)
        setting.connect("camera", "1", 10 * MIB)
        setting.connect("camera", "2", 10 * MIB)
        setting.pass_time(4)
        service, peer, first, second = setting.tree.snapshot()

        assert service.rate == pytest.approx(2 * MIB, rel=0.02)
        assert peer.rate == pytest.approx(service.rate)
        assert first.rate + second.rate == pytest.approx(service.rate)
        assert service.sent == peer.sent == first.sent + second.sent == pytest.approx(8 * MIB, rel=0.01)
        assert first.waited == pytest.approx(4, abs=0.01)
        assert service.waited == pytest.approx(8, abs=0.01)

    def test_connections_without_a_limit_are_counted_too(self):
        """What passes straight through is looked at twice a second."""
        setting = Setting()
        _, paced = setting.connect("camera", "1")
        for _ in range(300):
            paced.write(b"x" * 1000)
            setting.pass_time(0.01)
        _, peer, connection = setting.tree.snapshot()

        assert 300_000 == peer.sent == connection.sent
        assert connection.rate == pytest.approx(100_000, rel=0.5)

    def test_connections_that_send_nothing_wake_the_process_once_a_second(self):
        """However many they are; an idle daemon is to leave the processor alone."""
        setting = Setting()
        for name in "123":
            setting.connect("camera", name)
        due = set()
        for _ in range(100):
            setting.pass_time(0.1)
            due |= {call.getTime() for call in setting.timers}

        assert 9 <= len(due) <= 11

    def test_counters_of_a_peer_survive_its_connections(self):
        """A counter in the metrics never goes back, and the peer keeps its limit."""
        setting = Setting(peers={"camera": MIB})
        _, paced = setting.connect("camera", "1", 10 * MIB)
        setting.pass_time(1)
        before = setting.tree.snapshot()[1]
        paced.connectionLost()
        after = setting.tree.snapshot()[1]

        assert (before.sent, MIB) == (after.sent, after.limit)
        assert before.waited == pytest.approx(after.waited)
        assert [] == setting.timers

    def test_an_idle_tree_shows_its_limits(self):
        """Nothing flows, nothing waits."""
        expected = (Limit(Scope.SERVICE, "", "", None, 0, 0, 0),)

        assert expected == Setting().tree.snapshot()


def test_close_leaves_no_timer():
    """Waiting connections leave, and limits for a time stay."""
    setting = Setting(service=KIB)
    setting.connect("camera", "1", MIB)
    setting.tree.set_rate(Scope.SERVICE, "", 2 * KIB, 100)
    setting.tree.close()

    assert [] == setting.timers
    assert [("service", "", 2 * KIB), ("peer", "camera", None)] == setting.limits()


def test_what_is_configured_for_connections_is_for_those_alone_that_are_to_have_it():
    """Another one keeps to the limits above it, also after a reload."""
    clock = Clock()
    tree = ThrottleTree(clock, connection=1000)
    tree.attach("a", "1")
    tree.attach("a", "2", configured=False)
    before = tree.rate(Scope.CONNECTION, "1"), tree.rate(Scope.CONNECTION, "2")
    tree.configure(connection=2000)

    assert (1000, None) == before
    assert (2000, None) == (tree.rate(Scope.CONNECTION, "1"), tree.rate(Scope.CONNECTION, "2"))
    tree.close()
