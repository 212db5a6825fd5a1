"""Every call in turn fails, of whole pieces of work: nothing is lost, nothing stays open or locked, a second try works.

That is what has to hold when memory is short, and when a file system answers EIO or ESTALE where nobody expects it.
The suite tries a sample of the calls, the soak tests all of them.
"""

from __future__ import annotations

import errno
import os
import time

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from realize.errors import RealizeError
from realize.mover.run import MoveOptions, Run, Side
from realize.store.brief import BriefWork
from realize.store.files import Clock as FileClock
from realize.store.local import LocalStore
from realize.testing import digest, random_bytes, small_file
from realize.values import SMALL, Expected, OnConflict, Removal
from tests.faults import Fault, descriptors

SALT = b"salt"
REPLACE = OnConflict.REPLACE
BIG = random_bytes(SMALL + 70_000)
OLD = random_bytes(200_000)
NO_FAULT = Fault(-1, MemoryError())
SETTLED = FileClock(now_ns=lambda: 1 << 62, stamp_ns=lambda: time.time_ns() + 10**9)
"""A clock by which every file was changed long ago, and before the run began."""

KINDS = {
    "memory": (MemoryError, {}),
    "EIO": (lambda: OSError(errno.EIO, "Input/output error"), {"disk_only": True}),
    "ESTALE": (lambda: OSError(errno.ESTALE, "Stale file handle"), {"disk_only": True}),
}


def at_once(job, *arguments):
    """A pool without threads: the work is done before the call returns."""
    return maybeDeferred(job, *arguments)


class Place:
    """A directory as a store, in this thread."""

    def __init__(self, path):
        self.path = path
        path.mkdir(exist_ok=True)
        self.store = LocalStore(
            os.fsencode(path), run_in_thread=at_once, run_briefly=BriefWork(at_once, Clock()).run, clock=SETTLED
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
        await writer.write([BIG[matched : SMALL - 5], BIG[SMALL - 5 : SMALL]])
        await writer.write([BIG[SMALL:]])
        return [await writer.commit(digest(BIG), None)]
    finally:
        await writer.abandon(keep=False)


async def keep(place):
    """A large file of which only the beginning comes."""
    writer = await place.store.open_writer(b"d/big", len(BIG), REPLACE)
    try:
        await writer.write([BIG[:SMALL]])
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


WORK = [put_small, put_few, write, keep, read, read_small, look, settle, remove, trial]


def went_well(result):
    """Whether a piece of work did all that it was asked for."""
    return isinstance(result, list) and not any(isinstance(each, RealizeError) for each in result)


def sweep(attempt, step):
    """Let the calls fail, every ``step``-th of them, until there are no more; how many there were."""
    number = 1
    while attempt(number):
        number += step
    return number


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

    assert sweep(attempt, step) > step


FILES = {"s1": b"one", "d/s2": b"two", "same": b"same", "big": BIG, "d/newer": BIG[::-1]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [41, pytest.param(1, marks=pytest.mark.soak)], ids=["sample", "all"])
def test_whatever_fails_no_file_is_lost_and_the_next_run_finishes(tmp_path, kind, step):
    """Each content is at the source or at the destination, whole, at any time; the next run moves all that is left."""
    error, how = KINDS[kind]

    def attempt(number):
        source, target = Place(tmp_path / f"{number}a"), Place(tmp_path / f"{number}b")
        for name, content in FILES.items():
            source.plant(name, content)
        target.plant("same", FILES["same"])
        target.plant("d/newer", OLD)
        before = descriptors()
        fault = Fault(number, error(), **how)
        first = move(source, target, fault)
        for name, content in FILES.items():
            assert content in {source.content(name), target.content(name)}, (fault.where, name, first)
        for place in (source, target):
            outcome(place.store.close())
        assert before == descriptors(), fault.where
        if how and first is not None:
            assert isinstance(first, RealizeError), (fault.where, first)

        second = move(Place(source.path), Place(target.path))
        assert second is None, (fault.where, first, second)
        for name, content in FILES.items():
            assert (None, content) == (source.content(name), target.content(name)), (fault.where, name, first)
        return fault.hit

    assert sweep(attempt, step) > step


def move(source, target, fault=NO_FAULT):
    """Run a move to its end, with a fault; what ended it before its time."""
    results, clock = [], Clock()
    run = Run([Side(source.store, "src")], Side(target.store, "dst"), MoveOptions(), lambda _: None, clock)
    with fault:
        maybeDeferred(run.start).addBoth(results.append)
        clock.pump([0.05] * 200)
    assert results, "it hangs"
    return getattr(results[0], "value", results[0])
