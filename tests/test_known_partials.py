"""Which partials are known to be there: looked for now and then, and kept in step with what this process does."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred, maybeDeferred

from realize.errors import StorageError
from realize.store.local import known_partials
from realize.store.local.known_partials import MIN_LOOK_AGE_S, KnownPartials

HERE = 7
LOCATION, ANOTHER = object(), object()


def partial(path, device=HERE):
    """What a listing tells of one; without a device it could not be looked at."""
    status = None if device is None else SimpleNamespace(st_dev=device)
    return SimpleNamespace(from_root=path, status=status)


class Disk:
    """Answers as many looks as there are lists of pages; each page takes ``takes`` seconds."""

    def __init__(self, monkeypatch, *looks, takes=0.0):
        self.now = 1000.0
        self.takes = takes
        self.looks = list(looks)
        self.closed = 0
        self.asked = []
        monkeypatch.setattr(known_partials, "find_partials", self.find)
        monkeypatch.setattr(known_partials, "time", SimpleNamespace(monotonic=lambda: self.now))

    def find(self, location):
        """The pages of the next look."""
        self.asked.append(location)
        try:
            for page in self.looks.pop(0):
                if isinstance(page, Exception):
                    raise page
                self.now += self.takes
                yield page
        finally:
            self.closed += 1


def paths(found):
    """What was found, by name."""
    return [each.from_root for each in found]


async def test_what_is_on_another_device_or_cannot_be_looked_at_is_not_told(monkeypatch):
    """To remove it would make no room here."""
    Disk(monkeypatch, [[partial(b"a"), partial(b"b", 8)], [partial(b"c", None), partial(b"d")]])

    assert [b"a", b"d"] == paths(await KnownPartials(maybeDeferred).on(LOCATION, HERE))


@pytest.mark.parametrize(("takes", "counts"), [(0.0, MIN_LOOK_AGE_S), (0.4, MIN_LOOK_AGE_S), (2.0, 20.0)])
async def test_a_look_counts_for_some_time(monkeypatch, takes, counts):
    """At least so long, and ten times as long as it took."""
    disk = Disk(monkeypatch, [[partial(b"a")]], [[partial(b"b")]], takes=takes)
    known = KnownPartials(maybeDeferred)
    found = [paths(await known.on(LOCATION, HERE))]
    began = disk.now

    for seconds in (0.0, counts - 0.01, counts):
        disk.now = began + seconds
        found.append(paths(await known.on(LOCATION, HERE)))

    assert [[b"a"], [b"a"], [b"a"], [b"b"]] == found
    assert 2 == disk.closed


async def test_a_process_that_has_just_begun_looks(monkeypatch):
    """Its clock may begin at zero."""
    disk = Disk(monkeypatch, [[partial(b"a")]])
    disk.now = 0.0

    assert [b"a"] == paths(await KnownPartials(maybeDeferred).on(LOCATION, HERE))


async def test_another_location_is_looked_at_anew(monkeypatch):
    """What was found elsewhere is forgotten."""
    disk = Disk(monkeypatch, [[partial(b"a")]], [[partial(b"b")]])
    known = KnownPartials(maybeDeferred)

    assert [[b"a"], [b"b"]] == [paths(await known.on(each, HERE)) for each in (LOCATION, ANOTHER)]
    assert [LOCATION, ANOTHER] == disk.asked


async def test_what_cannot_be_looked_at_further_ends_the_look(monkeypatch):
    """What was found until then counts, nothing stays open, and the next one is not kept waiting."""
    disk = Disk(monkeypatch, [[partial(b"a")], StorageError("broken")])
    known = KnownPartials(maybeDeferred)

    assert [[b"a"], [b"a"]] == [paths(await known.on(LOCATION, HERE)) for _ in range(2)]
    assert 1 == disk.closed


async def test_a_look_that_is_given_up_leaves_nothing_open(monkeypatch):
    """The next one begins."""
    disk = Disk(monkeypatch, [[partial(b"a")]])
    hanging = [Deferred()]
    known = KnownPartials(lambda *work: hanging.pop() if hanging else maybeDeferred(*work))
    looking = Deferred.fromCoroutine(known.on(LOCATION, HERE)).addErrback(lambda _: None)
    looking.cancel()

    assert [b"a"] == paths(await known.on(LOCATION, HERE))
    assert [LOCATION] == disk.asked


async def test_two_who_ask_at_once_share_a_look(monkeypatch):
    """The second waits for what the first finds."""
    disk = Disk(monkeypatch, [[partial(b"a")]])
    gate, asked = Deferred(), []

    def later(*work):
        asked.append(work)
        return maybeDeferred(*work) if gate.called else gate.addCallback(lambda _: work[0](*work[1:]))

    known = KnownPartials(later)
    both = [Deferred.fromCoroutine(known.on(LOCATION, HERE)) for _ in range(2)]
    before = len(asked)
    gate.callback(None)

    assert 1 == before
    assert [[b"a"], [b"a"]] == [paths(await each) for each in both]
    assert [LOCATION] == disk.asked


async def test_what_this_process_leaves_and_removes_is_known(monkeypatch):
    """Before anybody has looked, nobody needs to know."""
    Disk(monkeypatch, [[partial(b"a"), partial(b"b")]])
    known = KnownPartials(maybeDeferred)
    known.note(partial(os.fsencode("early")))
    first = paths(await known.on(LOCATION, HERE))
    known.note(partial(b"c"))
    known.note(partial(b"a"))
    known.forget([partial(b"b"), partial(b"unknown")])

    assert [b"a", b"b"] == first
    assert [b"a", b"c"] == paths(await known.on(LOCATION, HERE))
