"""What others cause cannot flood the log: `realize.telemetry.logging.limiting`."""

from __future__ import annotations

import pytest
import structlog
from twisted.internet.task import Clock

from realize.telemetry.logging.limiting import (
    AUDIT,
    LIMIT_WINDOW_S,
    MAX_PEER_EVENTS,
    MAX_UNAUTHENTICATED_EVENTS,
    Limiter,
)
from tests.log_catalogue import components


class Door:
    """A limiter, and what came through it."""

    def __init__(self):
        self.clock = Clock()
        self.told = []
        self.counting = 0
        self.limiter = Limiter(self.clock.seconds, lambda *what: self.told.append(what), self._counting)

    def _counting(self):
        self.counting += 1

    def passes(self, event, **fields):
        """Whether a record is logged."""
        try:
            self.limiter(None, "info", {"event": event, **fields})
        except structlog.DropEvent:
            return False
        return True


@pytest.fixture
def door():
    return Door()


def test_a_burst_of_refusals_is_counted_not_logged(door):
    """Strangers share one limit, from however many addresses they come, and their minute ends with a count."""
    passed = [door.passes("peer_refused", address=f"192.0.2.{number}") for number in range(100)]
    assert MAX_UNAUTHENTICATED_EVENTS == sum(passed)
    assert 1 == door.counting
    assert LIMIT_WINDOW_S == door.limiter.sweep()

    door.clock.advance(LIMIT_WINDOW_S)

    assert door.limiter.sweep() is None
    assert [("peer_refused", "", 100 - MAX_UNAUTHENTICATED_EVENTS)] == door.told
    assert door.passes("peer_refused", address="192.0.2.1")


def test_the_count_is_told_with_the_next_one(door):
    """If it comes before anybody looked."""
    for _ in range(MAX_PEER_EVENTS + 7):
        door.passes("access_denied", peer="camera")
    door.clock.advance(LIMIT_WINDOW_S + 1)

    assert door.passes("access_denied", peer="camera")
    assert [("access_denied", "camera", 7)] == door.told


def test_peers_and_events_do_not_share_a_limit(door):
    """One peer's flood hides neither another peer's records nor its own other ones."""
    for _ in range(1_000):
        door.passes("access_denied", peer="camera", address="192.0.2.1")

    assert door.passes("access_denied", peer="scanner", address="192.0.2.1")
    assert door.passes("protocol_violation", peer="camera", address="192.0.2.1")
    assert not door.passes("access_denied", peer="camera", address="192.0.2.1")


@pytest.mark.parametrize("event", [*sorted(AUDIT), "command", "records_left_out"])
def test_the_audit_trail_is_never_left_out(door, event):
    """However many files a peer puts or removes."""
    assert all(door.passes(event, peer="camera") for _ in range(10 * MAX_PEER_EVENTS))


def test_the_end_of_every_file_of_a_run_is_logged():
    """However many there are, and whatever it was: a run's own records about its files are no flood."""
    ends = {
        event for event, where in components().items() if event.startswith(("file_", "link_")) and where == {"mover"}
    }

    assert {"file_not_taken", "link_moved"} <= ends
    assert ends - AUDIT == {"file_postponed"}


def test_whatever_a_name_is_given_or_taken_by_is_logged():
    """A peer's files, symlinks and hard links, and what the daemon removes by itself."""
    at_daemon = {event for event, where in components().items() if where & {"store", "daemon"}}
    endings = ("_committed", "_linked", "_removed", "_expired", "_freed")
    changes = {event for event in at_daemon if event.endswith(endings)}

    assert {"file_linked", "link_committed", "backup_expired"} <= changes
    assert changes <= AUDIT


def test_the_end_tells_what_is_still_untold(door):
    """A process that ends does not wait for the minute to be over."""
    for _ in range(MAX_PEER_EVENTS + 3):
        door.passes("peer_accepted", peer="camera")
    door.limiter.sweep(everything=True)

    assert [("peer_accepted", "camera", 3)] == door.told
