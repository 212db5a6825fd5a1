"""When a run that has not ended at its limit is ended by force: `realize.cli.deadline`."""

import io
import math
import os
import threading
import time
from types import SimpleNamespace

import pytest

from realize import process
from realize.cli import deadline
from realize.cli.deadline import KILL_AFTER_S, Deadline
from realize.process import process_started
from realize.runs.options import Patience

IMPORTED = time.monotonic()
EXIT_CODE = 11


class Watched:
    """What becomes of a run that ends by itself so many seconds after its process began; time passes as it is waited.

    It takes 1.5 seconds before it is watched.
    """

    def __init__(self, monkeypatch, patience, *, ends=math.inf, parting=0.0):
        self.began, self.now, self.ends = 1000.0, 1001.5, 1000.0 + ends
        self.happened = []
        monkeypatch.setattr(deadline, "process_started", lambda: self.began)
        monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(deadline, "threading", SimpleNamespace(Event=lambda: self, Thread=self.thread))
        monkeypatch.setattr(os, "_exit", lambda code: self.happened.append(("exit", code)))
        self.left = []
        with Deadline(patience, self.overdue, parting) as watching:
            self.left.append(watching.left())

    def thread(self, target, **_):
        """It has all the time that passes."""
        return SimpleNamespace(start=target)

    def wait(self, seconds):
        """Until then, or until the run ends; whether it has."""
        assert seconds >= 0
        self.now = min(self.now + seconds, max(self.ends, self.now))
        return self.now >= self.ends

    def set(self):
        """The run has ended."""
        self.happened.append("ended")

    def overdue(self):
        """It has not ended."""
        self.happened.append(("overdue", self.now - self.began))
        return EXIT_CODE


def test_what_hangs_is_ended_in_the_end(monkeypatch):
    """The time before it was watched counts."""
    run = Watched(monkeypatch, Patience(10.0, 3.0))

    last = 10.0 + 3.0 + KILL_AFTER_S
    assert [("overdue", last), ("exit", EXIT_CODE), "ended"] == run.happened


def test_what_has_to_be_done_before_the_end_is_begun_in_time(monkeypatch):
    """It is given its seconds, and they are not added to those of the run."""
    run = Watched(monkeypatch, Patience(10.0, 3.0), parting=2.0)

    assert ("overdue", 10.0 + 3.0 + KILL_AFTER_S - 2.0) in run.happened


@pytest.mark.parametrize("ends", [9.0, 12.0])
def test_what_ends_in_time_is_left_alone(monkeypatch, ends):
    """Before the limit, and in its grace."""
    run = Watched(monkeypatch, Patience(10.0, 3.0), ends=ends)

    assert ["ended"] == run.happened


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_a_limit_that_is_over_before_it_is_watched_is_kept_all_the_same(monkeypatch, limit):
    """Also if it is none at all, which is no lack of one."""
    run = Watched(monkeypatch, Patience(limit))

    assert ("overdue", limit + KILL_AFTER_S) == run.happened[0]


def test_without_a_limit_nothing_is_watched(monkeypatch):
    """Whatever the grace: there is all the time that it takes."""
    run = Watched(monkeypatch, Patience(None, 3.0))

    assert (["ended"], [math.inf]) == (run.happened, run.left)


def test_how_long_is_left_counts_to_the_end_by_force(monkeypatch):
    """From when the process began."""
    run = Watched(monkeypatch, Patience(1e6, 3.0), ends=1.5)

    assert [1e6 + 3.0 + KILL_AFTER_S - 1.5] == run.left


def test_the_watch_ends_with_the_run_and_keeps_no_process():
    """In a thread of its own, which nobody has to wait for."""
    with Deadline(Patience(1e6), lambda: 0):
        [watching] = [each for each in threading.enumerate() if each.name == "deadline"]
        alive, daemon = watching.is_alive(), watching.daemon
    watching.join(60)

    assert (True, True, False) == (alive, daemon, watching.is_alive())


def test_this_process_began_before_its_tests():
    """And not long ago."""
    assert IMPORTED - 7 * 86_400 < process_started() <= IMPORTED


@pytest.mark.parametrize("name", [b"python", b"a) (b 7) S"])
def test_when_a_process_began_is_told_by_the_system(monkeypatch, name):
    """Whatever it is called."""
    ticks = 50 * os.sysconf("SC_CLK_TCK")
    fields = [b"%d" % (10**9 + number) for number in range(4, 53)]
    fields[22 - 4] = b"%d" % ticks
    status = b"123 (" + name + b") S " + b" ".join(fields)
    monkeypatch.setattr(process, "open", lambda *_: io.BytesIO(status), raising=False)
    clock = SimpleNamespace(monotonic=lambda: 1000.0, clock_gettime=lambda _: 80.0, CLOCK_BOOTTIME=None)
    monkeypatch.setattr(process, "time", clock)

    assert 1000.0 - 30.0 == process_started()


@pytest.mark.parametrize("status", [None, b"", b"nonsense", b"1 (x) S 1 2 3"])
def test_where_the_system_does_not_tell_the_process_begins_now(monkeypatch, status):
    """A little late is better than not at all."""

    def opened(*_):
        if status is None:
            raise FileNotFoundError
        return io.BytesIO(status)

    monkeypatch.setattr(process, "open", opened, raising=False)
    before = time.monotonic()

    assert before <= process_started() <= time.monotonic()
