"""What the other end of a connection may ask of us: `realize.wire.throttling`."""

import json

import pytest
from twisted.internet.task import Clock

from realize.errors import AccessDenied
from realize.throttle.tree import Scope, ThrottleTree
from realize.wire.commands import Direction
from realize.wire.throttling import OwnLimit
from tests.loopback import Log


class Connected:
    """A command with one connection."""

    def __init__(self, own=None):
        self.clock = Clock()
        self.tree = ThrottleTree(self.clock)
        self.tree.attach("nas", "1")
        self.limit = OwnLimit(self.tree, "1", Log(), own)

    def asked(self, rate, milliseconds=None):
        """The daemon asks; the limit in force then."""
        self.limit._set_throttle(Scope.CONNECTION, "", Direction.SEND, rate, milliseconds)
        return self.rate

    @property
    def rate(self):
        """What is in force."""
        return self.limit.rate


def test_our_own_limit_binds_from_the_beginning():
    """Whatever the daemon asks before it knows of it."""
    command = Connected(1000)

    assert (1000, 1000, 500) == (command.rate, command.asked(5000), command.asked(500))


def test_once_the_daemon_knows_it_it_can_be_changed_there():
    """Raised, lowered and lifted."""
    command = Connected(1000)
    command.asked(1000)
    command.limit.known()

    assert (1000, 4000, 500, None) == (command.rate, command.asked(4000), command.asked(500), command.asked(None))


@pytest.mark.parametrize("asked", [[], [5000], [500, None]])
def test_a_daemon_that_does_not_ask_us_to_keep_to_it_changes_nothing(asked):
    """Our limit does not vanish with one that answers and forgets."""
    command = Connected(1000)
    for rate in asked:
        command.asked(rate)
    command.limit.known()

    assert 1000 == command.rate


def test_without_a_limit_of_our_own_only_the_daemons_binds():
    """For a time, too."""
    command = Connected()
    command.limit.known()
    limited = command.asked(1000, 2000)
    command.clock.advance(3)

    assert (1000, None) == (limited, command.rate)


@pytest.mark.parametrize(
    ("scope", "name", "direction"),
    [
        (Scope.SERVICE, "", Direction.SEND),
        (Scope.CONNECTION, "2", Direction.SEND),
        (Scope.CONNECTION, "", Direction.RECEIVE),
    ],
)
def test_nothing_else_can_be_asked(scope, name, direction):
    """What we send elsewhere, or receive, is not the daemon's business."""
    with pytest.raises(AccessDenied):
        Connected().limit._set_throttle(scope, name, direction, 1000)


def test_another_limit_of_our_own_binds_at_once_and_then_the_daemon_says():
    """As at a change of a timetable: lower or higher, and none."""
    command = Connected(1000)
    command.asked(1000)
    command.limit.known()

    command.limit.change(500)
    lowered = command.rate
    command.asked(500)
    command.limit.known()
    command.limit.change(2000)
    raised = command.rate, command.asked(2000)
    command.limit.known()
    command.limit.change(None)
    lifted = command.rate, command.asked(None)
    command.limit.known()

    assert (500, (500, 2000), (2000, None)) == (lowered, raised, lifted)
    assert 7000 == command.asked(7000)


@pytest.mark.parametrize("held", [9000, None])
def test_a_limit_that_somebody_has_set_at_the_daemon_for_a_time_outranks_another_one_of_our_own(held):
    """The daemon asks for no other one when it is told; and when that time is over, it does."""
    command = Connected(1000)
    command.asked(1000)
    command.limit.known()
    command.asked(held)

    command.limit.change(500)
    command.limit.known()

    assert (held, 500) == (command.rate, command.asked(500))


def test_a_daemon_that_never_asks_leaves_us_the_other_limit_of_our_own():
    """It is kept to here alone."""
    command = Connected()
    command.limit.change(500)
    command.limit.known()

    assert 500 == command.rate


def test_the_other_end_is_told_of_this_connection_alone():
    """What other limits there are in the process is nothing to it."""
    command = Connected(1000)
    command.tree.attach("another", "2")
    rows = json.loads(command.limit._get_throttle()["report"])

    assert [("connection", "1", 1000)] == [(row["scope"], row["name"], row["limit"]) for row in rows]
