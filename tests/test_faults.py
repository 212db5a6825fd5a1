"""Every call in turn fails, of whole pieces of work: nothing is lost, nothing stays open or locked, a second try works.

That is what has to hold when memory is short, and when a file system answers EIO or ESTALE where nobody expects it.
The suite tries a sample of the calls, the soak tests all of them.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import time
from collections import deque
from functools import partial

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import Logger

from realize.concurrency.short_jobs import ShortJobs
from realize.concurrency.turns import Turns
from realize.config import Right
from realize.errors import Busy, Interrupted, RealizeError
from realize.fs.stamps import Stamps
from realize.mover.run import Run, Side, TransferOptions
from realize.store.client.store import RemoteStore
from realize.store.local.group_commit import Committer
from realize.store.local.store import LocalStore, root_identity
from realize.store.local.versions import Clock as FileClock
from realize.store.server.responders import DirectoryResponders
from realize.values import MAX_SMALL_BYTES, Expected, OnConflict, Removal, Vacant
from realize.wire.reply_timeouts import SLOW_REPLY_TIMEOUT_S
from tests.faults import Fault, descriptors
from tests.local_stores import at_once
from tests.loopback import Pair
from tests.store_helpers import digest, random_bytes, small_file

SALT = b"salt"
REPLACE = OnConflict.REPLACE
BIG = random_bytes(MAX_SMALL_BYTES + 70_000)
OLD = random_bytes(200_000)
SETTLED = FileClock(now_ns=lambda: 1 << 62)
"""A clock by which every file was changed long ago."""
LATER = Stamps(lambda: (time.monotonic_ns(), time.monotonic_ns() + (1 << 62)))
"""A clock by which every file was stamped before the run began."""

KINDS = {
    "memory": (MemoryError, {}),
    "EIO": (lambda: OSError(errno.EIO, "Input/output error"), {"disk_only": True}),
    "ESTALE": (lambda: OSError(errno.ESTALE, "Stale file handle"), {"disk_only": True}),
}


class Place:
    """A directory as a store, in this thread."""

    def __init__(self, path, pool=None, clock=None):
        self.path = path
        path.mkdir(exist_ok=True)
        pool = pool or at_once
        briefly = ShortJobs(pool, clock or Clock()).run
        committer = Committer(pool, stamps=LATER)
        self.store = LocalStore(
            os.fsencode(path), run_in_thread=pool, run_briefly=briefly, committer=committer, clock=SETTLED
        )

    def plant(self, name, content):
        """Put a file there."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def content(self, name):
        """What is there, or None."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None


def outcome(work):
    """What work that needs no reactor has come to, or the error it failed with."""
    results = []
    waiting = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    waiting.addBoth(results.append)
    assert results, "it hangs"
    result = results[0]
    return getattr(result, "value", result)


async def put_small(place):
    """A batch with many files, into several directories."""
    files = [small_file(b"d%d/f%d" % (number % 3, number), b"content %d" % number) for number in range(10)]
    return await place.store.put_small(files, REPLACE)


async def put_few(place):
    """A batch with few files, each with its own fsync."""
    return await place.store.put_small([small_file(b"a/b", b"one"), small_file(b"c", b"two")], REPLACE)


async def write(place):
    """A large file."""
    writer = await place.store.open_writer(b"d/big", len(BIG), REPLACE)
    try:
        matched = min(writer.have, 0)
        await writer.write([BIG[matched : MAX_SMALL_BYTES - 5], BIG[MAX_SMALL_BYTES - 5 : MAX_SMALL_BYTES]])
        await writer.write([BIG[MAX_SMALL_BYTES:]])
        return [await writer.commit(digest(BIG), None)]
    finally:
        await writer.abandon(keep=False)


async def keep(place):
    """A large file of which only the beginning comes."""
    writer = await place.store.open_writer(b"d/big", len(BIG), REPLACE)
    try:
        await writer.write([BIG[:MAX_SMALL_BYTES]])
    finally:
        await writer.abandon(keep=True)
    return []


async def read(place):
    """A large file, compared and read to its end."""
    reader = await place.store.open_reader(b"d/old")
    try:
        await reader.block_digests(100_000)
        while await reader.read():
            pass
        assert digest(OLD) == await reader.finish()
    finally:
        reader.close()
    return []


async def read_small(place):
    """Small files, some of which are not there."""
    answers = await place.store.read_small([b"x", b"no", b"e/y"])
    return [answer for answer in (answers[0], answers[2]) if isinstance(answer, RealizeError)]


async def look(place):
    """Where it is, what is there, and how much room."""
    await place.store.open(SALT)
    await place.store.space()
    await place.store.describe([b"x", b"no", b"d/old", b"no/no"])
    listing = place.store.walk(partials=True)
    try:
        while await listing.next_page():
            pass
    finally:
        listing.close()
    return []


async def settle(place):
    """What is there already."""
    answers = await place.store.settle([Expected(b"x", 1, digest(b"x")), Expected(b"no", 1, digest(b"x"))])
    await place.store.match_final(b"e/y", 1, 0, [digest(b"y")])
    return [answer for answer in answers if isinstance(answer, RealizeError)]


async def remove(place):
    """What was moved away."""
    answers = await place.store.read_small([b"x", b"e/y"])
    there = [answer for answer in answers if not isinstance(answer, RealizeError)]
    refused = await place.store.remove([Removal(each.file.path, each.version) for each in there])
    return [each for each in refused if each is not None]


async def trial(place):
    """What `realize check` does."""
    await place.store.try_write()
    return []


async def prune(place):
    """Directories that have been empty for long."""
    for name in ("q/r", "q/s", "d/t"):
        (place.path / name).mkdir(parents=True, exist_ok=True)
    paths = (b"q/r", b"q/s", b"q", b"d/t", b"d")
    await place.store.prune([Vacant(path, None) for path in paths])
    return [] if place.path.joinpath("d/old").exists() and not place.path.joinpath("q").exists() else [Busy("stays")]


WORK = [put_small, put_few, write, keep, read, read_small, look, settle, remove, prune, trial]


def went_well(result):
    """Whether a piece of work did all that it was asked for."""
    return isinstance(result, list) and not any(isinstance(each, RealizeError) for each in result)


def sweep(attempt, step, folder):
    """Let the calls fail, every ``step``-th of them, until there are no more, and there were some.

    What an attempt leaves in the ``folder``, below its number, goes with it: thousands of them would fill the disk.
    """
    number = 1
    while attempt(number):
        shutil.rmtree(folder / f"{number}", ignore_errors=True)
        number += step
    gc.collect()  # what was not handled in a Deferred is told now, while that is no failure of the test
    assert number > step


@pytest.fixture
def unhandled(monkeypatch, kind):
    """Only for want of memory may an error be left in a Deferred, where nobody handles it; it would be logged."""
    told = []
    monkeypatch.setattr(Logger, "failure", lambda *_, **__: None)
    monkeypatch.setattr(Logger, "critical", lambda _, text, **__: told.append(text))
    yield
    gc.collect()
    assert "memory" == kind or [] == told


def fewer(step, how):
    """The step where only calls to the disk count, of which there are a tenth."""
    return max(1, step // 10) if how else step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.soak)], ids=["sample", "all"])
def test_whatever_fails_a_second_try_works(tmp_path, work, kind, step):
    """The store is as it was, all that was opened is closed, no lock is held, and no error but ours leaves the disk."""
    error, how = KINDS[kind]

    def attempt(number):
        place = Place(tmp_path / f"{number}")
        place.plant("x", b"x")
        place.plant("e/y", b"y")
        place.plant("d/old", OLD)
        outcome(place.store.open(SALT))
        before = descriptors()
        with Fault(number, error(), **how) as fault:
            first = outcome(work(place))
        second = outcome(work(place))
        outcome(place.store.close())

        assert went_well(second), (fault.where, first, second)
        assert before == descriptors(), fault.where
        if how and isinstance(first, BaseException):
            assert isinstance(first, RealizeError), (fault.where, first)
        return fault.hit

    sweep(attempt, step, tmp_path)


class Daemon:
    """A directory that is served, to any number of connections in memory."""

    def __init__(self, path, pool=at_once):
        self.path = path
        path.mkdir(exist_ok=True)
        self.clock = Clock()
        self.pool = pool
        self.committer = Committer(pool, stamps=LATER)
        self.briefly = ShortJobs(pool, self.clock).run
        self.identity = root_identity(path)

    def connected(self, at_work=lambda: None):
        """A connection to it, and a store on the side of the client; ``at_work`` does what waits for a thread."""
        return Connected(self, at_work)

    def make_store(self, _directory, base, origin, _backup_dir):
        """See `realize.store.server.responders.MakeStore`."""
        return LocalStore(
            os.fsencode(self.path),
            base,
            run_in_thread=self.pool,
            run_briefly=self.briefly,
            root_identity=self.identity,
            committer=self.committer,
            clock=SETTLED,
            origin=origin,
        )


class Connected(Pair):
    """A connection whose bytes are delivered, and timers run, while somebody waits."""

    def __init__(self, daemon, at_work):
        self._at_work = at_work
        turns = Turns(99, 2)

        def welcome(protocol, _greeting):
            self.responders = DirectoryResponders(
                protocol,
                key=b"tester's key",
                rights={"inbox": frozenset(Right)},
                make_store=daemon.make_store,
                turns_of=lambda directory: partial(turns.run, "tester"),
                log=self.log,
            )
            protocol.serve(self.responders)
            return "tester"

        self.path = daemon.path
        super().__init__(daemon.clock, welcome=welcome, chunk=1 << 20)
        self.introduced()
        self.store = RemoteStore(self.client, "inbox")
        self.outcome(self.store.open(SALT))

    def outcome(self, work):
        """What a piece of work has come to, or the error it failed with; an error as well if it waits for ever."""
        results = []
        waiting = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        waiting.addBoth(results.append)
        for step in (0, *[1] * int(2 * SLOW_REPLY_TIMEOUT_S)):
            self._at_work()
            self.turn(step)
            if results:
                return getattr(results[0], "value", results[0])
        raise AssertionError("it hangs")

    def turn(self, seconds):
        """Let time pass; a reactor goes on behind a timer that fails, and drops a connection that does."""
        for _ in range(10_000):
            try:
                self.clock.advance(seconds)
            except MemoryError:
                self.cut()
            seconds = 0
            if not any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                return
        raise AssertionError("it never comes to rest")

    def cut(self):
        """The link breaks, unless it has."""
        if not self.client_wire.closed:
            self.client_wire.cut()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
@pytest.mark.parametrize("step", [61, pytest.param(1, marks=pytest.mark.soak)], ids=["sample", "all"])
@pytest.mark.usefixtures("unhandled")
def test_whatever_fails_at_either_end_of_a_connection_another_one_works(tmp_path, work, kind, step):
    """The daemon goes on: other connections work, and once this one has ended, all that it had open is free."""
    error, how = KINDS[kind]

    def attempt(number):
        planted = Place(tmp_path / f"{number}")
        planted.plant("x", b"x")
        planted.plant("e/y", b"y")
        planted.plant("d/old", OLD)
        daemon = Daemon(planted.path)
        before = descriptors()
        first, other = daemon.connected(), daemon.connected()
        with Fault(number, error(), **how) as fault:
            result = first.outcome(work(first))
        assert not isinstance(other.outcome(other.store.describe([b"x"])), BaseException), fault.where
        assert not how or isinstance(result, list | RealizeError), (fault.where, result)
        first.cut()
        first.turn(0)
        assert first.responders.closed.called, (fault.where, result)
        second = other.outcome(work(other))
        assert went_well(second), (fault.where, result, second)
        other.cut()
        other.turn(0)
        assert before == descriptors(), (fault.where, result)
        assert 0 == first.responders.open_count + other.responders.open_count, fault.where
        return fault.hit

    sweep(attempt, fewer(step, how), tmp_path)


FILES = {"s1": b"one", "d/s2": b"two", "same": b"same", "big": BIG, "d/newer": BIG[::-1]}
THERE = {"same": b"same", "d/newer": BIG[::-1][:1_000_000] + OLD}
WAYS = ["local", "push", "pull"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", [331, pytest.param(1, marks=pytest.mark.soak)], ids=["sample", "all"])
@pytest.mark.usefixtures("unhandled")
def test_whatever_fails_no_file_is_lost_and_the_next_run_finishes(tmp_path, way, kind, step):
    """Each content is at the source or at the destination, whole, at any time; the next run moves all that is left."""
    error, how = KINDS[kind]

    def attempt(number):
        journey = Journey(tmp_path / f"{number}", way, at_once)
        before = descriptors()
        fault = Fault(number, error(), **how)
        first = journey.move(fault)
        journey.nothing_is_lost((fault.where, first))
        assert before == descriptors(), (fault.where, first)
        if how and first is not None:
            assert isinstance(first, RealizeError), (fault.where, first)

        second = journey.move()
        assert second is None, (fault.where, first, second)
        journey.all_is_moved((fault.where, first))
        return fault.hit

    sweep(attempt, fewer(step, how), tmp_path)


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.soak)], ids=["sample", "all"])
def test_whatever_fails_both_files_are_kept_and_none_twice(tmp_path, step):
    """What was there is never touched, and the next run makes no second copy of what had arrived."""
    expected = {**FILES, **THERE, "d/newer.1": FILES["d/newer"]}

    def attempt(number):
        journey = Journey(tmp_path / f"{number}", "local", at_once, OnConflict.RENAME)
        fault = Fault(number, OSError(errno.EIO, os.strerror(errno.EIO)), disk_only=True)
        first = journey.move(fault)
        assert THERE == {name: (journey.target / name).read_bytes() for name in THERE}, (fault.where, first)

        second = journey.move()
        assert second is None, (fault.where, first, second)
        there = {
            str(path.relative_to(journey.target)): path.read_bytes()
            for path in journey.target.rglob("*")
            if path.is_file()
        }
        assert expected == there, (fault.where, first)
        assert not [path for path in journey.source.rglob("*") if path.is_file()], (fault.where, first)
        return fault.hit

    sweep(attempt, step, tmp_path)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.soak)], ids=["sample", "all"])
def test_whenever_a_run_is_cancelled_nothing_stays_open(tmp_path, way, step):
    """However many pieces of work were done by then: no descriptor and no lock is left, and the next run finishes."""

    def attempt(number):
        pool = Later()
        journey = Journey(tmp_path / f"{number}", way, pool)
        before = descriptors()
        pool.countdown = number
        first = journey.move()
        cancelled, pool.countdown = pool.countdown <= 0, -1
        journey.nothing_is_lost((number, first))
        assert before == descriptors(), (number, first)
        assert first is None or (cancelled and isinstance(first, Interrupted)), (number, first)

        second = journey.move()
        assert second is None, (number, first, second)
        journey.all_is_moved((number, first))
        return cancelled

    sweep(attempt, step, tmp_path)


class Later:
    """A pool whose work is done when time passes, a piece at a time; after ``countdown`` of them ``then`` is called."""

    def __init__(self):
        self.waiting = deque()
        self.countdown = 0
        self.then = lambda: None

    def __call__(self, job, *arguments):
        """See `realize.concurrency.shielded.RunInThread`."""
        result = Deferred()
        self.waiting.append((result, job, arguments))
        return result

    def go_on(self):
        """Do the next piece of work."""
        if self.waiting:
            result, job, arguments = self.waiting.popleft()
            maybeDeferred(job, *arguments).chainDeferred(result)
            self.countdown -= 1
            if not self.countdown:
                self.then()


class Journey:
    """A source and a destination, one of which may be at the other end of a connection."""

    def __init__(self, path, way, pool, policy=OnConflict.REPLACE):
        path.mkdir()
        self.way = way
        self.options = TransferOptions(policy=policy)
        self.pool = pool
        self.source, self.target = path / "source", path / "target"
        for place, files in ((self.source, FILES), (self.target, THERE)):
            for name, content in files.items():
                Place(place).plant(name, content)

    def move(self, fault=None):
        """Run a move to its end, over a new connection if it needs one; what ended it before its time."""
        served = {"push": self.target, "pull": self.source}.get(self.way)
        daemon = Daemon(served or self.target, self.pool)
        clock = daemon.clock
        connection = None if served is None else daemon.connected(at_work=self.go_on)
        stores = [
            connection.store if connection and place == served else Place(place, self.pool, clock).store
            for place in (self.source, self.target)
        ]
        results = []
        run = Run([Side(stores[0], "src")], Side(stores[1], "dst"), self.options, lambda _: None, clock)
        with contextlib.nullcontext() if fault is None else fault:
            running = maybeDeferred(run.start)
            if isinstance(self.pool, Later):
                self.pool.then = running.cancel
            running.addBoth(results.append)
            for _ in range(5_000):
                self.go_on()
                self.turn(clock, connection)
                if results:
                    break
        assert results, f"it hangs after {fault.where if fault else None}"
        closing = [store.close() for store in stores]
        if connection is not None:
            connection.cut()
        for _ in range(100):
            self.go_on()
            self.turn(clock, connection)
        assert all(each.called for each in closing), "it does not close"
        assert connection is None or connection.responders.closed.called, "it does not close"
        return getattr(results[0], "value", results[0])

    def go_on(self):
        """Do what waits for a thread."""
        if isinstance(self.pool, Later):
            self.pool.go_on()

    def turn(self, clock, connection):
        """A turn of the reactor."""
        if connection is None:
            clock.advance(0.05)
        else:
            connection.turn(0.05)

    def nothing_is_lost(self, why):
        """Each content is at one of the ends."""
        for name, content in FILES.items():
            assert content in {Place(self.source).content(name), Place(self.target).content(name)}, (name, why)

    def all_is_moved(self, why):
        """Each content is at the destination, and nowhere else."""
        for name, content in FILES.items():
            assert (None, content) == (Place(self.source).content(name), Place(self.target).content(name)), (name, why)
