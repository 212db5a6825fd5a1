"""One instance of inotify for all sources: who is told what, and what is left open."""

from __future__ import annotations

import errno
import os

import pytest
from attrs import define, field

from realize.watch.events import EVENTS_READ_BYTES, GATHER_EVENTS_S, DirectoryEvents
from tests.watching import Readers


@define(eq=False)
class Source:
    """A listener that keeps what it is told."""

    adding: bool = False
    names: list = field(factory=list)
    lost: int = 0
    fails: bool = False

    def happened(self, event):
        """See `Listener`."""
        if self.fails:
            raise ValueError("on purpose")
        self.names.append(event.name)

    def overflowed(self):
        """See `Listener`."""
        self.lost += 1


@pytest.fixture
def reactor():
    """A clock with readers."""
    return Readers()


@pytest.fixture
def events(reactor):
    """Nobody listens."""
    return DirectoryEvents(reactor)


def watching(events, source, path):
    """Let a source watch a directory; returns the number of the watch."""
    events.listen(source)
    fd = os.open(path, os.O_RDONLY)
    try:
        watch = events.add(fd)
    finally:
        os.close(fd)
    events.claim(source, watch)
    return watch


def told(reactor):
    """Let all events be told."""
    for _ in range(3):
        reactor.read_all()
        reactor.advance(GATHER_EVENTS_S)


def test_two_sources_may_have_one_directory(events, reactor, tmp_path):
    """Both are told; when one is gone, the other one still is."""
    first, second = Source(), Source()
    watch = watching(events, first, tmp_path)
    assert watch == watching(events, second, tmp_path)
    (tmp_path / "a").touch()
    told(reactor)
    unused = events.unclaim(first, [watch])
    events.ignore(first)
    (tmp_path / "b").touch()
    told(reactor)
    assert [] == unused
    assert [watch] == events.unclaim(second, [watch])
    events.ignore(second)

    assert {b"a"} == set(first.names)
    assert {b"a", b"b"} == set(second.names)
    assert [] == reactor.readers
    assert [] == reactor.getDelayedCalls()


def test_names_are_bytes(events, reactor, tmp_path):
    """Whatever these are."""
    source = Source()
    watching(events, source, tmp_path)
    name = b"\xff\xfe \n \xc3\xa4"
    with open(os.fsencode(tmp_path) + b"/" + name, "wb"):
        pass
    told(reactor)
    events.ignore(source)

    assert {name} == set(source.names)


def test_who_adds_watches_is_told_everything(events, reactor, tmp_path):
    """For a watch may be its own that it does not know yet."""
    knows, adds, idle = Source(), Source(adding=True), Source()
    watching(events, knows, tmp_path)
    events.listen(adds)
    events.listen(idle)
    (tmp_path / "a").touch()
    told(reactor)
    for source in (knows, adds, idle):
        events.ignore(source)

    assert knows.names == adds.names
    assert [] == idle.names


def test_one_that_fails_keeps_nobody_from_being_told(events, reactor, tmp_path, monkeypatch):
    """It is a fault of ours, and logged."""
    failures = []
    monkeypatch.setattr("realize.watch.events._log.failure", failures.append)
    fails, other = Source(fails=True), Source()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    watching(events, fails, tmp_path / "a")
    watching(events, other, tmp_path / "b")
    (tmp_path / "a" / "file").touch()
    (tmp_path / "b" / "file").touch()
    reactor.readers[0].doRead()
    events.ignore(fails)
    events.ignore(other)

    assert {b"file"} == set(other.names)
    assert 2 == len(failures)


def test_an_overflow_is_told_to_all(events, reactor, tmp_path):
    """A real one: nobody reads while more happens than the kernel keeps."""
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        most = int(file.read())
    source, other = Source(), Source()
    watching(events, source, tmp_path)
    events.listen(other)
    names = [os.path.join(tmp_path, str(number % 2)) for number in range(most + 10)]
    for name in names:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT))
    while not source.lost:
        reactor.read_all()
        reactor.advance(GATHER_EVENTS_S)
    events.ignore(source)
    events.ignore(other)

    assert (1, 1) == (source.lost, other.lost)


def test_events_are_gathered(events, reactor, tmp_path):
    """After each read there is a pause; nothing is lost."""
    source = Source()
    watching(events, source, tmp_path)
    (tmp_path / "a").touch()
    reactor.read_all()
    (tmp_path / "b").touch()
    reactor.read_all()
    early = set(source.names)
    reactor.advance(GATHER_EVENTS_S)
    reactor.read_all()
    events.ignore(source)

    assert ({b"a"}, {b"a", b"b"}) == (early, set(source.names))
    assert EVENTS_READ_BYTES >= 16 + 256  # or read(2) refuses an event


def test_a_directory_that_is_gone_may_be_given_up(events, tmp_path):
    """The kernel was faster."""
    source = Source()
    (tmp_path / "a").mkdir()
    watch = watching(events, source, tmp_path / "a")
    (tmp_path / "a").rmdir()
    events.remove([watch, 12345])
    events.ignore(source)
    events.ignore(source)


def test_no_more_instances(reactor):
    """Whoever wants to listen is told."""

    def refuse(**_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    events = DirectoryEvents(reactor, refuse)

    with pytest.raises(OSError, match="Too many"):
        events.listen(Source())
    assert [] == reactor.readers
