"""Metrics of standing moves: `realize.daemon.metrics.moves`."""

from __future__ import annotations

import math

import pytest

from realize.daemon.metrics.moves import MOVE_FAILURES, MoveMetrics
from realize.moves.status import KnownBacklog, MoveStatus, Phase, RunNow, RunResult, Totals
from realize.telemetry.metrics.exposition import new_registry
from tests.prometheus import check_metrics

CAMERA = MoveStatus(
    name="camera",
    sources=("/store/camera", "/store/more"),
    destination="nas::inbox",
    when="settled",
    phase=Phase.RUNNING,
    watching={"/store/camera": "events", "/store/more": "events"},
    backlog=KnownBacklog(files=3, size=3000, oldest=1000.0, at_least=True),
    running=RunNow(run="r2", began=2000.0, moved_files=1, moved_bytes=10),
    last_run=RunResult(run="r1", began=1500.0, ended=1512.5, moved_files=4, moved_bytes=40),
    last_success=1512.5,
    failed_files=2,
    busy_files=1,
    up_bps=1024,
    totals=Totals(
        moved_files=5,
        moved_bytes=50,
        runs=1,
        run_seconds=12.5,
        failures={"no_space": 2, "NO_SPACE": 1, "made_up": 4},
        after={"ok": 1, "failed": 0},
    ),
)
IDLE = MoveStatus(name="idle", sources=(), destination="nas::inbox", when="every 10m", phase=Phase.IDLE)


@pytest.fixture
def moves():
    """The moves that there are, to be changed."""
    return [CAMERA, IDLE]


@pytest.fixture
def value(moves):
    """The value of a series now, None if there is none."""
    registry = new_registry()
    registry.register(MoveMetrics(lambda: moves))
    return lambda name, **labels: registry.get_sample_value(f"realize_move_{name}", {"move": "camera", **labels})


def test_what_a_move_is_about(value):
    """Its state, what waits, what it has moved, its runs and its limits are as the engine says."""
    for expected, name, labels in (
        (1, "state", {"state": "running"}),
        (0, "state", {"state": "paused"}),
        (2, "sources", {"watching": "events"}),
        (3, "backlog_files", {}),
        (3000, "backlog_bytes", {}),
        (1, "backlog_incomplete", {}),
        (1000, "backlog_oldest_timestamp_seconds", {}),
        (5, "moved_files_total", {}),
        (50, "moved_bytes_total", {}),
        (2, "failed_files", {}),
        (1, "busy_files", {}),
        (1, "run_duration_seconds_count", {}),
        (12.5, "run_duration_seconds_sum", {}),
        (2000, "run_start_timestamp_seconds", {}),
        (12.5, "last_run_duration_seconds", {}),
        (1512.5, "last_run_timestamp_seconds", {}),
        (1512.5, "last_success_timestamp_seconds", {}),
        (1, "after_total", {"outcome": "ok"}),
        (0, "after_total", {"outcome": "failed"}),
        (1024, "throttle_limit_bytes_per_second", {"direction": "send"}),
        (math.inf, "throttle_limit_bytes_per_second", {"direction": "receive"}),
    ):
        assert expected == value(name, **labels), name


def test_what_is_not_known_is_absent(value):
    """No time is made up for what has not happened, or will not."""
    assert None is value("next_run_timestamp_seconds")
    assert None is value("failing_since_timestamp_seconds")
    for name in ("backlog_oldest", "last_success", "last_run", "run_start"):
        assert None is value(f"{name}_timestamp_seconds", move="idle")


def test_failures_are_counted_by_codes_of_the_protocol(value):
    """Usual ones are there with 0, words are codes whatever their case, and what nobody knows is no new series."""
    reasons = ("NO_SPACE", "INTERNAL", "DENIED", "MADE_UP")

    assert [3, 4, 0, None] == [value("failures_total", reason=reason) for reason in reasons]
    assert [0] * len(MOVE_FAILURES) == [value("failures_total", move="idle", reason=each) for each in MOVE_FAILURES]


def test_a_move_that_was_removed_is_gone(value, moves):
    """A reload that removes a move leaves none of its series."""
    del moves[0]

    assert None is value("moved_files_total")
    assert None is value("run_duration_seconds_count")
    assert 0 == value("moved_files_total", move="idle")


def test_the_exposition_is_right(moves):
    """`promtool check metrics` has nothing to say."""
    from prometheus_client import generate_latest

    registry = new_registry()
    registry.register(MoveMetrics(lambda: moves))

    assert "" == check_metrics(generate_latest(registry).decode())
