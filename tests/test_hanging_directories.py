"""One directory whose disk hangs, and others that are served all the same."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from realize.concurrency.memory import Memory
from realize.concurrency.thread_pool import ThreadPools
from realize.config import Config, DirectoryConfig, PeerConfig, Right
from realize.daemon import looks, service
from realize.daemon.expiry import EXPIRY_INTERVAL_S, FIRST_EXPIRY_S, Housekeeping
from realize.daemon.looks import SILENT, look_at
from realize.daemon.served import serve_directories
from realize.daemon.service import RealizedService
from realize.keys import generate_identity
from realize.store.hooks import CommitHooks
from realize.store.local.promised_space import Ledger
from tests.local_stores import at_once
from tests.loopback import Log

MEMORY = Memory(1 << 30, 1 << 30)


@pytest.fixture
def two(tmp_path):
    """The configuration of two directories, ``bad`` and ``good``."""
    for name in ("bad", "good"):
        (tmp_path / name).mkdir()
    return {name: DirectoryConfig(str(tmp_path / name)) for name in ("bad", "good")}


WAITED_FOR = []
"""What never happens; it would be given up if nobody held it."""


def never(_job, *_arguments):
    """A thread that never comes back."""
    WAITED_FOR.append(Deferred())
    return WAITED_FOR[-1]


def watch(_name):
    return CommitHooks()


def test_a_directory_that_does_not_answer_is_told_from_the_others(two, monkeypatch):
    """The look at it is given up, and the others are served."""
    gate = threading.Event()
    look = looks.look

    def hanging(directory):
        if directory.path.endswith("bad"):
            gate.wait(30.0)
        return look(directory)

    monkeypatch.setattr(looks, "look", hanging)
    # The time is over when the good one has answered, however long that takes.
    monkeypatch.setattr(looks, "time", SimpleNamespace(monotonic=iter([0.0, 0.0, 1_000.0]).__next__))
    monkeypatch.setattr(looks, "DISK_ANSWER_S", 30.0)
    found = look_at({name: two[name] for name in ("good", "bad")})
    gate.set()

    assert SILENT == found["bad"]
    assert look(two["good"]) == found["good"]


def test_housekeeping_goes_on_beside_a_directory_that_hangs(two):
    """Every hour; the one that hangs is not looked at again before it has come back."""
    asked = []

    def threads_of(path):
        if path.endswith("good"):
            return at_once
        return lambda *work: asked.append(work) or never(*work)

    clock = Clock()
    housekeeping = Housekeeping(clock, Log())
    housekeeping.start(
        serve_directories(two, look_at(two), threads_of, clock, watch, Ledger(), print, MEMORY), 86_400.0
    )
    clock.advance(FIRST_EXPIRY_S)
    first = housekeeping.partials["good"].counted_at
    clock.advance(EXPIRY_INTERVAL_S)
    second = housekeeping.partials["good"].counted_at
    housekeeping.stop()

    assert first is not None
    assert first < second
    assert housekeeping.partials["bad"].counted_at is None
    assert 1 == len(asked)


class Reactor:
    """Takes what threads give back."""

    def __init__(self):
        self.given = threading.Semaphore(0)
        self.calls = []

    def callFromThread(self, call):
        self.calls.append(call)
        self.given.release()


def test_threads_that_hang_at_one_directory_are_not_missed_by_another():
    """Each has as many as it may have."""
    reactor, gate, begun = Reactor(), threading.Event(), threading.Semaphore(0)
    pools = ThreadPools(reactor, 2, "disk")

    def hang():
        begun.release()
        gate.wait(30.0)

    hanging = [pools.of("bad").run(hang) for _ in range(4)]
    done = []
    for _ in range(2):
        assert begun.acquire(timeout=30.0)
    pools.of("good").run(lambda: "done").addBoth(done.append)

    assert reactor.given.acquire(timeout=30.0)
    reactor.calls.pop()()
    busy = pools.busy, pools.waiting
    gate.set()
    pools.stop()

    assert ["done"] == done
    assert (2, 2) == busy
    assert 4 == len(hanging)


def test_pools_of_directories_that_are_not_served_any_more_end():
    """Their threads go as soon as their work is done, which nobody waits for but the end of all."""
    reactor, gate = Reactor(), threading.Event()
    pools = ThreadPools(reactor, 2, "disk")
    pools.of("former").run(gate.wait, 30.0)
    pools.of("kept").run(list)

    pools.keep(["kept"])
    size = pools.size
    stopping = threading.Thread(target=pools.stop)
    stopping.start()
    stopping.join(0.1)
    waited_for = stopping.is_alive()
    gate.set()
    stopping.join()

    assert 1 == size
    assert waited_for


async def test_what_peers_may_do_and_the_daemon_may_not_is_logged(monkeypatch):
    """For each directory, when the configuration is read; what no peer may do is no matter."""
    rights = {"inbox": frozenset({Right.CREATE, Right.REMOVE}), "out": frozenset({Right.READ}), "odd": frozenset()}
    peer = PeerConfig(generate_identity().public_key, rights=rights)
    config = Config(
        key=generate_identity(),
        directories={name: DirectoryConfig(f"/{name}") for name in rights},
        peers={"camera": peer},
    )
    daemon = RealizedService(config, MemoryReactorClock())
    daemon._log = Log()
    monkeypatch.setattr(service, "lacking_of", lambda path: {"/in": {os.W_OK}, "/out": {os.W_OK}}.get(path, {os.R_OK}))

    for name, path in (("inbox", "/in"), ("out", "/out"), ("out", "/closed"), ("odd", "/closed")):
        await daemon._say_what_is_forbidden(name, SimpleNamespace(path=path, run_in_thread=at_once))

    assert [("inbox", ["create", "remove"]), ("out", ["read"])] == [
        (line["dir"], line["rights"]) for line in daemon._log.named("directory_forbidden")
    ]
