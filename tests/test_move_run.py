"""A run as a whole: its time limit, and how it comes back after lost connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from realize.cli.logs import logger_of
from realize.config import Config
from realize.errors import ConnectionFailed, DeadlineReached, Interrupted, WrongPeer
from realize.keys import Identity, PublicKey
from realize.mover.events import Event, Retrying
from realize.runs.move_options import MoveOptions
from realize.runs.move_run import MoveRun
from realize.runs.reconnecting import Reconnecting
from realize.runs.session import Session
from realize.runs.tally import Tally

LOST = ConnectionFailed("connection lost")


class NoPeers:
    """Credentials for a run on this machine alone."""

    peer_key: PublicKey | None = None
    peer_key_name = config_name = key_name = "none"
    config = Config(key="none")
    partial_max_age_s = 1.0

    def identity(self) -> Identity:
        """There is none."""
        raise AssertionError


class Attempts:
    """Attempts with given ends, in turn: an error, or None for the proper end."""

    def __init__(self, *ends: Exception | None) -> None:
        self.clock = Clock()
        self.ends: Iterator[Exception | None] = iter(ends)
        self.seen: list[Event] = []
        self.disconnected = 0
        self.steps = 0
        self.given_up: Exception | None = None
        self.grow = False
        self.reconnecting = Reconnecting(
            self.clock, cast("Session", self), [], self.seen.append, lambda: self.steps, lambda: self.given_up
        )
        self.result = ensureDeferred(self.reconnecting.run(self.attempt))

    async def attempt(self) -> None:
        """Make one."""
        self.steps += self.grow
        if (end := next(self.ends)) is not None:
            raise end

    async def disconnect(self) -> None:
        """As a session does."""
        self.disconnected += 1

    def delays(self) -> list[float]:
        """The pauses that were announced."""
        return [event.delay for event in self.seen if isinstance(event, Retrying)]


def test_a_lost_connection_is_made_anew_after_a_pause() -> None:
    """What is left of the old one is closed first."""
    attempts = Attempts(LOST, None)
    [delay] = attempts.delays()
    before = attempts.disconnected, attempts.reconnecting.pausing, attempts.result.called

    attempts.clock.advance(delay)

    assert (1, True, False) == before
    assert attempts.result.called
    assert not attempts.reconnecting.pausing


def test_pauses_grow_until_something_is_done() -> None:
    """Then the next one is short again."""
    attempts = Attempts(*[LOST] * 12)
    while len(attempts.delays()) < 10:
        attempts.clock.advance(attempts.delays()[-1])
    attempts.grow = True
    attempts.clock.advance(attempts.delays()[-1])

    *_, longest, short = attempts.delays()
    assert longest > 10 * attempts.delays()[0]
    assert short < longest / 10
    attempts.result.addErrback(lambda _: None).cancel()


def test_another_error_ends_the_run() -> None:
    """A refusal is not waited out."""
    refused = WrongPeer("not welcome")
    attempts = Attempts(refused)

    assert refused is attempts.result.result.value
    attempts.result.addErrback(lambda _: None)
    assert [] == attempts.seen


def test_who_has_given_up_does_not_come_back() -> None:
    """The error says why, and what was lost."""
    attempts = Attempts(LOST, LOST)
    attempts.given_up = DeadlineReached("over")

    attempts.clock.advance(attempts.delays()[-1])

    assert isinstance(attempts.result.result.value, DeadlineReached)
    assert LOST is attempts.result.result.value.__cause__
    attempts.result.addErrback(lambda _: None)


class Hanging:
    """A run on this machine whose first answer never comes."""

    def __init__(self, tmp_path: Path, options: MoveOptions, elapsed: float = 0.0) -> None:
        self.clock = Clock()
        self.tally = Tally()
        session = SimpleNamespace(
            resolve=Session(cast("Any", self.clock), NoPeers(), logger_of).resolve,
            run="run",
            tidying=lambda *_: None,
            store=self.store,
            origin=lambda *_: None,
            disconnect=lambda: None,
            ended_by=self.ended,
            compression_saved_bytes=0,
            uncompressed=[],
        )
        self.reason: list[object] = []
        self.cancelled = 0
        texts = [str(tmp_path / "a"), str(tmp_path / "b")]
        self.moving = MoveRun(self.clock, cast("Session", session), texts, options, self.tally, self.tally, remove=True)
        self.result = self.moving.start(elapsed)
        self.failures: list[BaseException] = []
        self.result.addErrback(lambda failure: self.failures.append(failure.value))

    def ended(self, error: object) -> None:
        """What the session is told."""
        self.reason.append(error)

    async def store(self, *_: object, **__: object) -> object:
        """Never comes."""

        def cancelled(_: object) -> None:
            self.cancelled += 1

        await Deferred[None](cancelled)
        return None


def test_a_run_ends_in_order_at_its_limit_and_its_grace(tmp_path: Path) -> None:
    """Until then nothing is cancelled; who never got a connection has failed."""
    run = Hanging(tmp_path, MoveOptions(max_duration_s=10.0, grace_s=3.0))

    run.clock.advance(10.0)
    run.clock.advance(2.9)
    before = run.cancelled
    run.clock.advance(0.2)

    assert (0, 1) == (before, run.cancelled)
    [error] = run.failures
    assert isinstance(error, ConnectionFailed)
    assert "the time limit was reached, and no connection was made" == str(error)
    assert [error] == run.reason


@pytest.mark.parametrize("elapsed", [9.0, 10.0, 50.0])
def test_what_passed_before_the_start_counts(tmp_path: Path, elapsed: float) -> None:
    """A limit that is over when the run starts ends it at once."""
    run = Hanging(tmp_path, MoveOptions(max_duration_s=10.0), elapsed)

    run.clock.advance(max(0.0, 10.0 - elapsed))
    run.clock.advance(0.0)

    assert 1 == len(run.failures)


def test_a_run_that_is_cancelled_was_interrupted_and_leaves_no_timer(tmp_path: Path) -> None:
    """Its limit is forgotten with it."""
    run = Hanging(tmp_path, MoveOptions(max_duration_s=10.0))

    cancel: Callable[[], None] = run.result.cancel
    cancel()

    assert isinstance(run.failures[0], Interrupted)
    assert [] == run.clock.getDelayedCalls()


def test_a_run_that_ends_within_its_grace_leaves_no_timer(tmp_path: Path) -> None:
    """A program goes on for long after its run."""
    run = Hanging(tmp_path, MoveOptions(max_duration_s=10.0, grace_s=3600.0))
    run.clock.advance(10.0)

    run.result.cancel()

    assert 1 == len(run.failures)
    assert [] == run.clock.getDelayedCalls()
