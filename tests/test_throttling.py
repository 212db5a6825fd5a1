"""The limits of a daemon: who may change them, what is asked of the other ends, and what comes back when."""

import json

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from realize.daemon import throttling
from realize.daemon.throttling import Throttling
from realize.errors import AccessDenied, ConnectionFailed, NotFound, UsageError
from realize.schedule.timetable import parse_timetable
from realize.throttle.tree import Scope, ThrottleTree
from realize.wire.commands import Direction
from realize.wire.reports import dumped
from realize.wire.throttling import OwnLimit
from tests.walls import Wall


class Log:
    """Collects what is logged."""

    def __init__(self, lines=None, bound=None):
        self.lines = [] if lines is None else lines
        self._bound = bound or {}

    def bind(self, **fields):
        return Log(self.lines, {**self._bound, **fields})

    def info(self, event, **fields):
        self.lines.append(("info", event, {**self._bound, **fields}))

    def warning(self, event, **fields):
        self.lines.append(("warning", event, {**self._bound, **fields}))


class Connection:
    """The other end of a connection: remembers what it was asked."""

    lost = False

    def __init__(self):
        self.asked = []
        self._lost = Deferred()

    def call(self, _command, *, scope, name, direction, rate=None):
        assert (Scope.CONNECTION, "", Direction.SEND) == (scope, name, direction)
        self.asked.append(rate)
        return self.answer()

    def when_lost(self):
        return self._lost

    def answer(self):
        """What the other end says to that."""
        return Deferred()

    def lose(self):
        self.lost = True
        self._lost.callback(None)


class Lane:
    """Stands for the lane of a connection."""


@pytest.fixture
def limits(monkeypatch):
    """A daemon's limits on a clock, with two peers in its configuration."""
    monkeypatch.setattr(throttling, "limit_by", lambda tree, _connection, peer, name: tree.attach(peer, name))
    clock, log = Clock(), Log()
    wall = Wall(clock, "07:59:50")
    limits = Throttling(clock, log, wall_clock=wall)
    limits.configure(None, {"a": None, "b": None}, None)
    limits.clock, limits.log, limits.wall = clock, log, wall
    yield limits
    limits.close()
    assert [] == clock.getDelayedCalls()


def joined(limits, peer, name):
    """A new connection of a peer."""
    connection = Connection()
    limits.joined(connection, peer, name)
    limits.clock.advance(0)
    return connection


def change(limits, scope, name, rate, *, direction=Direction.SEND, seconds=None, admin=True, own="1"):
    """Change a limit as peer ``a`` on connection ``own``."""
    return limits.set("a", own, scope, name, direction, rate, seconds, is_admin=admin)


def limit_of(limits, scope, name=""):
    """The limit on sending that the report shows."""
    return next(
        row["limit"]
        for row in limits.report("a", is_admin=True)
        if (row["scope"], row["name"], row["direction"]) == (scope.value, name, "send")
    )


def test_everybody_may_limit_the_own_connection(limits):
    """An empty name is the connection that the command came on, and the former limit is answered."""
    joined(limits, "a", "1")

    assert None is change(limits, Scope.CONNECTION, "", 1000, admin=False)
    assert 1000 == change(limits, Scope.CONNECTION, "1", None, admin=False)


def test_what_the_configuration_says_of_connections_is_a_ceiling(limits):
    """Who is no admin may set less for the own connection, for a time too, and never more, also after a reload."""
    limits.configure(None, {"a": None, "b": None}, 1000)
    joined(limits, "a", "1")

    change(limits, Scope.CONNECTION, "", None, admin=False)
    lifted = limit_of(limits, Scope.CONNECTION, "1")
    change(limits, Scope.CONNECTION, "", 5000, admin=False)
    raised = limit_of(limits, Scope.CONNECTION, "1")
    limits.configure(None, {"a": None, "b": None}, 3000)
    reloaded = limit_of(limits, Scope.CONNECTION, "1")
    logged = [fields["new"] for _, _, fields in limits.log.lines]
    change(limits, Scope.CONNECTION, "", 500, admin=False, seconds=1)
    lowered = limit_of(limits, Scope.CONNECTION, "1")
    limits.clock.advance(1)

    assert [1000, 1000, 3000] == logged
    assert (1000, 1000, 3000, 500, 3000) == (
        lifted,
        raised,
        reloaded,
        lowered,
        limit_of(limits, Scope.CONNECTION, "1"),
    )


def test_what_an_admin_has_set_for_a_connection_is_a_ceiling_too(limits):
    """In both directions; an admin may lift what the configuration says."""
    limits.configure(None, {"a": None, "b": None}, 1000)
    connection = joined(limits, "a", "1")

    change(limits, Scope.CONNECTION, "1", 4000, direction=Direction.BOTH)
    change(limits, Scope.CONNECTION, "1", None, direction=Direction.BOTH, admin=False)

    assert 4000 == limit_of(limits, Scope.CONNECTION, "1")
    assert [4000] == connection.asked


@pytest.mark.parametrize(
    ("scope", "name"), [(Scope.SERVICE, ""), (Scope.PEER, "a"), (Scope.PEER, "b"), (Scope.CONNECTION, "2")]
)
def test_the_rest_is_for_admins(limits, scope, name):
    """Without admin, limits of others, and of the own peer as a whole, are refused, and the refusal is logged."""
    joined(limits, "a", "1")
    joined(limits, "b", "2")

    with pytest.raises(AccessDenied):
        change(limits, scope, name, 1000, admin=False)

    assert [("warning", "throttle_refused", "a", scope.value)] == [
        (level, event, fields["peer"], fields["scope"]) for level, event, fields in limits.log.lines
    ]


def told(limits):
    """What the log says of changes."""
    return [
        (fields["cause"], fields["scope"], fields["name"], fields["direction"], fields["old"], fields["new"])
        for _, event, fields in limits.log.lines
        if event == "throttle_changed"
    ]


@pytest.mark.parametrize(
    ("scope", "name", "direction", "rate", "error"),
    [
        (Scope.SERVICE, "", Direction.SEND, 1000, AccessDenied),
        (Scope.CONNECTION, "", Direction.BOTH, 1000, AccessDenied),
        (Scope.CONNECTION, "", Direction.SEND, 1 << 62, UsageError),
    ],
)
def test_what_a_command_refuses_its_daemon_is_logged(scope, name, direction, rate, error):
    """Only what it sends itself can be limited from there, and not to anything."""
    tree, log = ThrottleTree(Clock()), Log()
    tree.attach("nas", "1")
    own = OwnLimit(tree, "1", log)

    with pytest.raises(error):
        own._set_throttle(scope, name, direction, rate)
    own._set_throttle(Scope.CONNECTION, "", Direction.SEND, 256_000)
    own._set_throttle(Scope.CONNECTION, "", Direction.SEND, None)
    tree.close()

    (_, event, refused), *changes = log.lines
    assert ("throttle_refused", scope.value, direction.value, rate) == (
        event,
        refused["scope"],
        refused["direction"],
        refused["new"],
    )
    assert [("send", None, 256_000), ("send", 256_000, None)] == [
        (fields["direction"], fields["old"], fields["new"]) for _, _, fields in changes
    ]
    assert [None, int] == [type(fields["old"]) if fields["old"] else None for _, _, fields in changes]


def test_what_a_reload_changes_is_logged(limits):
    """Node by node, what is in force; the first configuration is what the daemon begins with, and no change."""
    joined(limits, "a", "1")
    limits.configure(1 << 20, {"a": 1000, "b": None}, 500)
    limits.configure(1 << 20, {"a": 1000, "b": None}, 500)

    assert [
        ("reload", "service", "", "send", None, 1 << 20),
        ("reload", "peer", "a", "send", None, 1000),
        ("reload", "connection", "1", "send", None, 500),
    ] == told(limits)


def test_the_end_of_a_limit_for_a_time_is_logged(limits):
    """In both directions."""
    change(limits, Scope.PEER, "b", 4000)
    change(limits, Scope.PEER, "b", 1000, direction=Direction.BOTH, seconds=60)
    limits.log.lines.clear()
    limits.clock.advance(60)

    assert [("time", "peer", "b", "receive", 1000, None), ("time", "peer", "b", "send", 1000, 4000)] == told(limits)


def test_another_connection_of_the_same_peer_is_its_own_too(limits):
    """So a command that runs can be limited, and freed, from beside it; the ceiling holds there as well."""
    limits.configure(None, {"a": None, "b": None}, 5000)
    joined(limits, "a", "1")
    running = joined(limits, "a", "2")
    for rate in (1000, 4000, None):
        change(limits, Scope.CONNECTION, "2", rate, direction=Direction.BOTH, admin=False)

    assert [1000, 4000, None] == running.asked
    assert 5000 == limit_of(limits, Scope.CONNECTION, "2")


def test_an_admin_can_raise_what_a_command_has_asked_for_itself(limits):
    """In both directions, for good or for a time; what is shown is what is in force."""
    running = joined(limits, "a", "1")
    change(limits, Scope.CONNECTION, "", 1000, direction=Direction.BOTH, admin=False)
    change(limits, Scope.CONNECTION, "1", 4000, direction=Direction.BOTH, seconds=60)
    during = limit_of(limits, Scope.CONNECTION, "1"), received(limits)[("connection", "1")]["limit"]
    limits.clock.advance(61)
    after = limit_of(limits, Scope.CONNECTION, "1"), received(limits)[("connection", "1")]["limit"]
    change(limits, Scope.CONNECTION, "1", 2000, direction=Direction.BOTH)
    change(limits, Scope.CONNECTION, "", 3000, direction=Direction.BOTH, admin=False)

    assert ((4000, 4000), (1000, 1000)) == (during, after)
    assert [1000, 4000, 1000, 2000] == running.asked
    assert (2000, 2000) == (limit_of(limits, Scope.CONNECTION, "1"), received(limits)[("connection", "1")]["limit"])


def test_every_change_is_logged_with_who_scope_old_and_new(limits):
    """From the log alone one can tell who changed which limit from what to what."""
    change(limits, Scope.PEER, "b", 1000)
    change(limits, Scope.PEER, "b", 2000)

    assert [("b", "a", None, 1000), ("b", "a", 1000, 2000)] == [
        (fields["name"], fields["peer"], fields["old"], fields["new"]) for _, _, fields in limits.log.lines
    ]


def test_a_change_of_what_is_received_is_logged_with_the_old_limit_too(limits):
    """The log has the former limit on receiving; the answer is about sending only."""
    first = change(limits, Scope.PEER, "b", 1000, direction=Direction.RECEIVE)
    second = change(limits, Scope.PEER, "b", 2000, direction=Direction.RECEIVE)

    assert [None, None] == [first, second]
    assert [None, 1000] == [fields["old"] for _, _, fields in limits.log.lines]


@pytest.mark.parametrize("rate", [0, (10 << 40) + 1])
def test_an_absurd_rate_is_refused_with_what_is_allowed(limits, rate):
    """Zero, and more than 10 TiB/s, are no limits."""
    with pytest.raises(UsageError, match="from 1 byte/s to 10 TiB/s"):
        change(limits, Scope.SERVICE, "", rate)


@pytest.mark.parametrize("direction", list(Direction))
def test_unknown_names_are_refused(limits, direction):
    """There is no such peer, no such connection."""
    with pytest.raises(NotFound):
        change(limits, Scope.PEER, "nobody", 1000, direction=direction)
    with pytest.raises(NotFound):
        change(limits, Scope.CONNECTION, "77", 1000, direction=direction)


def test_what_the_whole_service_receives_cannot_be_limited(limits):
    """The error says what can."""
    with pytest.raises(UsageError, match="a peer or a connection"):
        change(limits, Scope.SERVICE, "", 1000, direction=Direction.RECEIVE)


def test_a_limit_for_a_time_is_followed_by_the_former_one(limits):
    """After its time the limit on sending is what it was before."""
    change(limits, Scope.SERVICE, "", 5000)
    change(limits, Scope.SERVICE, "", 1000, seconds=60)
    during = limit_of(limits, Scope.SERVICE)
    limits.clock.advance(61)

    assert (1000, 5000) == (during, limit_of(limits, Scope.SERVICE))


def test_receiving_is_limited_at_the_other_end(limits):
    """The peer's connection is asked to send no faster, and told again when the limit is lifted."""
    connection = joined(limits, "a", "1")

    change(limits, Scope.CONNECTION, "", 1000, direction=Direction.RECEIVE)
    change(limits, Scope.CONNECTION, "", None, direction=Direction.RECEIVE)

    assert [1000, None] == connection.asked
    assert None is limit_of(limits, Scope.CONNECTION, "1")


def test_both_directions_at_once(limits):
    """One command can bind both ends."""
    connection = joined(limits, "a", "1")

    change(limits, Scope.CONNECTION, "", 1000, direction=Direction.BOTH)

    assert ([1000], 1000) == (connection.asked, limit_of(limits, Scope.CONNECTION, "1"))


def test_connections_share_what_their_peer_may_send(limits):
    """Each gets an equal part, which grows and shrinks as others leave and come; another peer is not concerned."""
    first, second, other = joined(limits, "a", "1"), joined(limits, "a", "2"), joined(limits, "b", "3")
    change(limits, Scope.PEER, "a", 1000, direction=Direction.RECEIVE)
    third = joined(limits, "a", "4")
    second.lose()

    assert [500, 333, 500] == first.asked
    assert [500, 333] == second.asked
    assert [333, 500] == third.asked
    assert [] == other.asked


def test_the_lower_of_two_limits_on_receiving_holds(limits):
    """A connection keeps to its own limit or to its share of the peer's, whichever is lower."""
    connection = joined(limits, "a", "1")

    change(limits, Scope.PEER, "a", 1000, direction=Direction.RECEIVE)
    change(limits, Scope.CONNECTION, "1", 400, direction=Direction.RECEIVE)
    change(limits, Scope.PEER, "a", 100, direction=Direction.RECEIVE)

    assert [1000, 400, 100] == connection.asked


def test_a_limit_on_receiving_for_a_time(limits):
    """The other end is told when the time is over, also if the limit was changed for a time twice."""
    connection = joined(limits, "a", "1")
    change(limits, Scope.PEER, "a", 5000, direction=Direction.RECEIVE)
    change(limits, Scope.PEER, "a", 1000, direction=Direction.RECEIVE, seconds=60)
    change(limits, Scope.PEER, "a", 2000, direction=Direction.RECEIVE, seconds=60)
    limits.clock.advance(61)

    assert [5000, 1000, 2000, 5000] == connection.asked


def test_reports_are_for_whom_they_concern(limits):
    """A peer sees itself and the service; an admin sees all."""
    joined(limits, "a", "1")
    joined(limits, "b", "2")
    change(limits, Scope.PEER, "b", 1000, direction=Direction.RECEIVE)

    mine = {(row["scope"], row["name"]) for row in limits.report("a", is_admin=False)}
    everything = {(row["scope"], row["name"], row["direction"]) for row in limits.report("a", is_admin=True)}

    assert {("service", ""), ("peer", "a"), ("connection", "1")} == mine
    assert {("peer", "b", "send"), ("peer", "b", "receive"), ("connection", "2", "send")} <= everything


def test_reports_mark_what_binds_the_connection_that_asks(limits):
    """Neither another peer's limit nor that of another connection of the same peer is one's own."""
    joined(limits, "a", "1")
    joined(limits, "a", "2")
    joined(limits, "b", "3")

    rows = limits.report("a", is_admin=True, own="2")

    assert {("service", ""), ("peer", "a"), ("connection", "2")} == {
        (row["scope"], row["name"]) for row in rows if row["yours"]
    }


def test_a_configuration_changes_only_what_it_says_anew(limits):
    """After a reload, a limit that was set at run time stays unless the file has another value than before."""
    limits.configure(5000, {"a": 100, "b": None}, None)
    change(limits, Scope.PEER, "a", 77)
    limits.configure(6000, {"a": 100, "b": 50}, None)

    assert (6000, 77, 50) == (
        limit_of(limits, Scope.SERVICE),
        limit_of(limits, Scope.PEER, "a"),
        limit_of(limits, Scope.PEER, "b"),
    )


def received(limits):
    """The limits on receiving that the report shows."""
    rows = limits.report("a", is_admin=True)
    return {(row["scope"], row["name"]): row for row in rows if row["direction"] == "receive"}


def test_each_new_connection_gets_what_the_configuration_says(limits):
    """Its own limit is that of the file until somebody sets another."""
    limits.configure(None, {"a": None, "b": None}, 700)
    joined(limits, "a", "1")

    assert 700 == limit_of(limits, Scope.CONNECTION, "1")


def test_a_refused_change_is_logged_with_its_reason_and_a_made_one_with_its_time(limits):
    """Whoever reads the log later was not there."""
    joined(limits, "a", "1")
    change(limits, Scope.CONNECTION, "", 1000, seconds=60)
    with pytest.raises(AccessDenied) as refused:
        change(limits, Scope.SERVICE, "", 1000, admin=False)

    changed, denied = (fields for _, _, fields in limits.log.lines)
    assert (60, str(refused.value)) == (changed["seconds"], denied["error"])


@pytest.mark.parametrize(("rate", "seconds"), [(0, None), ((10 << 40) + 1, None), (1000, 0), (None, -1)])
def test_what_is_received_is_not_limited_absurdly_either(limits, rate, seconds):
    """It is refused here, before anybody is asked to keep to it."""
    connection = joined(limits, "a", "1")
    with pytest.raises(UsageError):
        change(limits, Scope.CONNECTION, "1", rate, direction=Direction.RECEIVE, seconds=seconds)

    assert [] == connection.asked
    assert {} == received(limits)


def test_a_limit_for_a_time_says_how_long_it_still_lasts(limits):
    """Also one on receiving; what lasts says nothing, and what was lifted is not shown."""
    change(limits, Scope.PEER, "a", 1000, direction=Direction.RECEIVE, seconds=60)
    change(limits, Scope.PEER, "b", 1000, direction=Direction.RECEIVE)
    limits.clock.advance(20)
    shown = received(limits)
    change(limits, Scope.PEER, "b", None, direction=Direction.RECEIVE)

    assert (40, None) == (shown["peer", "a"]["lasts"], shown["peer", "b"]["lasts"])
    assert {("peer", "a")} == received(limits).keys()


def test_no_limit_for_a_time(limits):
    """To lift a limit for a while is a limit too: it is shown, and the former one comes back."""
    connection = joined(limits, "a", "1")
    change(limits, Scope.PEER, "a", 5000, direction=Direction.RECEIVE)
    change(limits, Scope.PEER, "a", None, direction=Direction.RECEIVE, seconds=60)
    shown = received(limits)["peer", "a"]
    limits.clock.advance(61)

    assert (None, 60) == (shown["limit"], shown["lasts"])
    assert [5000, None, 5000] == connection.asked


def test_a_lasting_limit_is_not_ended_by_the_time_of_the_one_before(limits):
    """Who sets a limit without a time means it."""
    connection = joined(limits, "a", "1")
    change(limits, Scope.CONNECTION, "", 1000, direction=Direction.RECEIVE, seconds=60)
    change(limits, Scope.CONNECTION, "", 2000, direction=Direction.RECEIVE)
    limits.clock.advance(61)

    assert [1000, 2000] == connection.asked
    assert 2000 == received(limits)["connection", "1"]["limit"]


def test_the_least_limit_is_one_byte_for_each_connection(limits):
    """There is no limit of nothing, however many share it."""
    connections = [joined(limits, "a", "1"), joined(limits, "a", "2")]
    change(limits, Scope.PEER, "a", 1, direction=Direction.RECEIVE)

    assert [[1], [1]] == [connection.asked for connection in connections]


@pytest.mark.parametrize(("lost", "lines"), [(False, [("a", 1, "no")]), (True, [])])
def test_who_does_not_obey_is_named(limits, lost, lines):
    """Unless it is gone: then there is nobody who sends too fast."""
    connection = joined(limits, "a", "1")
    asked = []
    connection.answer = lambda: asked.append(Deferred()) or asked[-1]
    change(limits, Scope.CONNECTION, "", 1000, direction=Direction.RECEIVE)
    connection.lost = lost
    asked[0].errback(ConnectionFailed("no"))

    assert lines == [
        (fields["peer"], fields["conn"], fields["error"])
        for _, event, fields in limits.log.lines
        if event == "throttle_not_obeyed"
    ]


def test_the_limits_of_a_connection_end_with_it(limits):
    """Also those for a time: nothing comes back for a connection that is gone."""
    connection = joined(limits, "a", "1")
    change(limits, Scope.CONNECTION, "", 500, direction=Direction.RECEIVE)
    change(limits, Scope.CONNECTION, "", 1000, direction=Direction.RECEIVE, seconds=60)
    connection.lose()
    limits.clock.advance(61)

    assert {} == received(limits)


def test_ending_stops_what_would_come_back(limits):
    """A daemon that ends leaves no timer of a limit on receiving behind."""
    change(limits, Scope.PEER, "a", 1000, direction=Direction.RECEIVE, seconds=60)
    limits.close()

    assert [] == limits.clock.getDelayedCalls()


def test_a_report_holds_as_many_limits_as_fit():
    """The first ones; all of them, if they fit to the last byte."""
    rows = [{"name": str(number)} for number in range(10)]
    whole = json.dumps(rows)

    assert rows == json.loads(dumped(iter(rows), len(whole)))
    assert rows[:5] == json.loads(dumped(rows, len(whole) - 1))
    assert rows[:2] == json.loads(dumped(rows, len(json.dumps(rows[:5])) - 1))
    assert [] == json.loads(dumped(rows, 2))


DAY = parse_timetable("08:00,1M 18:00,unlimited")
M = 1 << 20


def row_of(limits, scope, name="", direction="send"):
    """One limit as it is reported to an admin."""
    return next(
        row
        for row in limits.report("a", is_admin=True)
        if (row["scope"], row["name"], row["direction"]) == (scope.value, name, direction)
    )


def test_what_the_configuration_says_may_change_by_the_clock(limits):
    """Of the service, of peers and of connections; each change is logged, and told beforehand."""
    limits.configure(DAY, {"a": DAY, "b": None}, DAY)
    joined(limits, "a", "1")
    nodes = ((Scope.SERVICE, ""), (Scope.PEER, "a"), (Scope.CONNECTION, "1"))
    before = [row_of(limits, *node) for node in nodes]

    limits.clock.pump([5.0, 5.0])

    assert [(None, 10.0, M, "08:00,1M 18:00,unlimited")] * 3 == [
        (row["limit"], row["changes_in"], row["changes_to"], row["timetable"]) for row in before
    ]
    after = [row_of(limits, *node) for node in nodes]
    assert [(M, 36_000.0, None)] * 3 == [(row["limit"], row["changes_in"], row["changes_to"]) for row in after]
    logged = [fields for _, event, fields in limits.log.lines if event == "throttle_changed"]
    assert [("timetable", scope.value, name, None, M) for scope, name in nodes] == [
        (each["cause"], each["scope"], each["name"], each["old"], each["new"]) for each in logged
    ]
    plain = row_of(limits, Scope.PEER, "b")
    assert (None, None, None) == (plain["timetable"], plain["changes_in"], plain["changes_to"])


def test_a_limit_for_a_time_outranks_the_timetable(limits):
    """Also over a change; afterwards that holds which the timetable says then."""
    limits.configure(DAY, {"a": None, "b": None}, None)
    change(limits, Scope.SERVICE, "", 7 * M, seconds=60)
    told = row_of(limits, Scope.SERVICE)
    limits.clock.pump([10.0] * 5)
    during = limit_of(limits, Scope.SERVICE)
    limits.clock.advance(10.0)

    assert (7 * M, 60.0, 60.0, M) == (told["limit"], told["lasts"], told["changes_in"], told["changes_to"])
    assert (7 * M, M) == (during, limit_of(limits, Scope.SERVICE))


def test_a_limit_for_good_outranks_the_timetable_until_the_configuration_is_read_again(limits):
    """Also if that has not changed; one for a time goes on to its end."""
    limits.configure(DAY, {"a": DAY, "b": 5 * M}, None)
    change(limits, Scope.SERVICE, "", 7 * M)
    change(limits, Scope.PEER, "a", 6 * M, seconds=600)
    change(limits, Scope.PEER, "b", 4 * M)
    limits.clock.pump([10.0] * 2)
    before = [limit_of(limits, *node) for node in ((Scope.SERVICE, ""), (Scope.PEER, "a"), (Scope.PEER, "b"))]

    limits.configure(DAY, {"a": DAY, "b": 5 * M}, None)

    after = [limit_of(limits, *node) for node in ((Scope.SERVICE, ""), (Scope.PEER, "a"), (Scope.PEER, "b"))]
    assert ([7 * M, 6 * M, 4 * M], [M, 6 * M, 4 * M]) == (before, after)
    limits.clock.pump([10.0] * 60)
    assert M == limit_of(limits, Scope.PEER, "a")


def test_a_reload_changes_the_timetable(limits):
    """From a rate to a timetable, to another one, and back."""
    found = []
    for service in (M, parse_timetable("07:00,5M"), parse_timetable("07:00,6M"), None):
        limits.configure(service, {"a": None, "b": None}, None)
        found.append(limit_of(limits, Scope.SERVICE))

    assert [M, 5 * M, 6 * M, None] == found
    assert [] == limits.clock.getDelayedCalls()


def test_a_clock_that_is_set_changes_limits_within_a_minute(limits):
    """As a machine that has slept does."""
    limits.configure(DAY, {"a": None, "b": None}, None)
    limits.wall.show("12:00:00")
    limits.clock.pump([10.0] * 6)

    assert M == limit_of(limits, Scope.SERVICE)


@pytest.mark.parametrize("admin", [True, False])
def test_what_a_connection_asks_for_itself_waits_for_the_end_of_a_limit_for_a_time(limits, admin):
    """As a command does when its timetable has another rate: what an admin has set for a time outranks that."""
    connection = joined(limits, "a", "1")
    for direction in (Direction.SEND, Direction.RECEIVE):
        change(limits, Scope.CONNECTION, "", M, direction=direction, admin=admin)
    change(limits, Scope.CONNECTION, "1", 9 * M, direction=Direction.BOTH, seconds=60, own="2")
    for direction in (Direction.SEND, Direction.RECEIVE):
        change(limits, Scope.CONNECTION, "", 2 * M, direction=direction, admin=admin)
    during = limit_of(limits, Scope.CONNECTION, "1"), connection.asked[-1]
    told = [row_of(limits, Scope.CONNECTION, "1", direction) for direction in ("send", "receive")]

    limits.clock.advance(60.0)

    assert (9 * M, 9 * M) == during
    assert all(0 < row["changes_in"] <= 60 and row["changes_to"] == 2 * M for row in told)
    assert (2 * M, 2 * M) == (limit_of(limits, Scope.CONNECTION, "1"), connection.asked[-1])
