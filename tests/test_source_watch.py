"""Watching a source: real directories and real events, with a clock that does as it is told."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path

import pytest

from realize.values import Kind
from realize.watch.source_watch import WatchMode
from tests.watching import SETTLE_S, Watched, plant


@pytest.fixture
def source(tmp_path):
    """An empty directory."""
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def watched(source):
    """A watched source, stopped in the end."""
    watched = Watched(source)
    yield watched
    watched.stop()


def test_what_is_there_at_the_start_settles(source, watched):
    """It is found by a walk, and handed out with the directories that it is in, as a listing has them."""
    plant(source / "a" / "b" / "file")
    (source / "a").chmod(0o700)
    watched.start()

    early = watched.entries()
    watched.settled()
    entries = watched.entries()

    assert [] == early
    assert [(b"a", Kind.DIRECTORY), (b"a/b", Kind.DIRECTORY), (b"a/b/file", Kind.FILE)] == [
        (each.path, each.kind) for each in entries
    ]
    assert 0o700 == entries[0].mode
    assert (source / "a").stat().st_mtime_ns == entries[0].mtime_ns
    assert 7 == entries[2].size
    assert watched.calls == 1


def test_a_new_file_settles_after_its_last_change(source, watched):
    """Each change makes it wait anew."""
    watched.start()
    path = plant(source / "file")
    watched.pass_time(SETTLE_S - 1)
    path.write_bytes(b"more content")
    watched.pass_time(SETTLE_S - 1)
    before = watched.taken()
    watched.settled()

    assert ([], [b"file"]) == (before, watched.taken())


def test_a_file_that_is_open_for_writing_does_not_settle(source, watched):
    """As long as the kernel refuses a lease; once it is closed it does."""
    watched.start()
    with (source / "open").open("wb"):
        watched.pass_time(10 * SETTLE_S)
        before = watched.taken()
    watched.settled()

    assert ([], [b"open"]) == (before, watched.taken())


def test_a_file_that_is_renamed_into_place_settles(source, watched):
    """Under its new name alone, whatever it was before."""
    watched.start()
    plant(source / "x.part")
    watched.pass_time(SETTLE_S - 1)
    (source / "x.part").rename(source / "x")
    watched.settled()

    assert [b"x"] == watched.taken()


def test_deep_new_directories_are_walked(source, watched):
    """All of them, although they come faster than anybody can watch them."""
    watched.start()
    plant(source / "a" / "b" / "c" / "d" / "1")
    watched.quiet()
    plant(source / "a" / "b" / "c" / "e" / "2")
    watched.settled()

    assert [b"a/b/c/d/1", b"a/b/c/e/2"] == watched.taken()


def test_a_renamed_directory_keeps_its_watches(source, watched):
    """What happens in it after that has its new name."""
    plant(source / "old" / "deep" / "1")
    watched.start()
    (source / "old").rename(source / "new")
    plant(source / "new" / "deep" / "2")
    watched.settled()
    first = watched.taken()
    plant(source / "new" / "deep" / "3")
    watched.settled()

    assert ([b"new/deep/1", b"new/deep/2"], [b"new/deep/3"]) == (first, watched.taken())


def test_a_directory_that_is_moved_out_is_watched_no_longer(source, watched, tmp_path):
    """Its files are forgotten, and its watches are given back."""
    plant(source / "a" / "b" / "1")
    watched.start()
    (source / "a").rename(tmp_path / "elsewhere")
    plant(tmp_path / "elsewhere" / "b" / "2")
    watched.settled()

    assert [] == watched.taken()
    assert 1 == len(watched.watch._directories)
    assert 0 == watched.watch.backlog.files


def test_a_directory_that_is_moved_in_is_walked(source, watched, tmp_path):
    """Also one that had been moved out before."""
    plant(source / "a" / "b" / "1")
    watched.start()
    (source / "a").rename(tmp_path / "elsewhere")
    watched.quiet()
    plant(tmp_path / "elsewhere" / "b" / "2")
    (tmp_path / "elsewhere").rename(source / "z")
    watched.settled()
    first = watched.taken()
    plant(source / "z" / "b" / "3")
    watched.settled()

    assert ([b"z/b/1", b"z/b/2"], [b"z/b/3"]) == (first, watched.taken())


def test_what_is_left_out_is_not_known(source):
    """By the filter for files, and by the rules for directories."""
    watched = Watched(source, accepts=lambda path: not path.endswith(b".tmp"), leave=[b"-/skip"])
    plant(source / "skip" / "1")
    plant(source / "2.tmp")
    watched.start()
    plant(source / "skip" / "sub" / "3")
    plant(source / "4.tmp")
    plant(source / "5")
    watched.settled()

    assert 1 == watched.watch.backlog.files
    assert [b"5"] == watched.taken()
    watched.stop()


def test_an_overflow_makes_it_walk_again(source, watched):
    """So what was not told of is found."""
    watched.start()
    watched.reactor.readers[0]._inotify.rm_watch(1)  # the kernel tells of nothing any more
    watched.reactor.read_all()
    watched.quiet()
    watched.watch._directories.clear()
    plant(source / "unseen")
    watched.watch.overflowed()
    watched.settled()

    assert [b"unseen"] == watched.taken()
    assert ["watch_events_lost"] == watched.log.events


def test_a_walk_every_hour_finds_what_was_missed(source, watched):
    """Slowly, with pauses."""
    watched.start()
    watched.watch.happened = lambda _event: None
    plant(source / "missed")
    watched.settled()
    before = watched.taken()
    watched.pass_time(3_600, 10)
    watched.settled()

    assert ([], [b"missed"]) == (before, watched.taken())


def test_a_source_that_is_absent_is_awaited(source, watched):
    """It is said once when it is not there, and once when it is."""
    source.rmdir()
    watched.start()
    absent = watched.watch.mode
    watched.pass_time(300)
    plant(source / "file")
    watched.pass_time(120)

    assert (WatchMode.ABSENT, WatchMode.EVENTS) == (absent, watched.watch.mode)
    assert ["source_is_absent", "source_is_back"] == watched.log.events
    assert [b"file"] == watched.taken()


def test_a_source_that_is_replaced_is_watched_anew(source, watched, tmp_path):
    """The directory of that name counts, and nothing of the former one."""
    plant(source / "former")
    watched.start()
    source.rename(tmp_path / "away")
    plant(source / "new")
    watched.settled()
    watched.settled()

    assert [b"new"] == watched.taken()
    assert 0 == watched.watch.backlog.files


OPERATIONS = (
    "create",
    "append",
    "open",
    "close",
    "rename",
    "mkdir",
    "move",
    "out",
    "in",
    "remove",
    "unlink",
    "truncate",
)


class Producer:
    """Does at random whatever a program may do to a directory."""

    def __init__(self, root: Path, away: Path, seed: int) -> None:
        self.root, self.away = root, away
        self.random = random.Random(seed)
        self.open: list[object] = []
        self.number = 0

    def directories(self) -> list[Path]:
        """All that there are."""
        return [Path(each) for each, _, _ in os.walk(self.root)]

    def files(self) -> list[Path]:
        """All that there are."""
        return [Path(each) / name for each, _, names in os.walk(self.root) for name in names]

    def name(self) -> str:
        """A name that may be there already."""
        return self.random.choice("abcdef")

    def step(self) -> None:
        """Do something, if it can be done."""
        operation = self.random.choice(OPERATIONS)
        with contextlib.suppress(OSError):  # such as a directory that has the name
            getattr(self, "do_" + operation)()

    def do_create(self) -> None:
        (self.random.choice(self.directories()) / self.name()).write_bytes(b"new")

    def do_append(self) -> None:
        with self.random.choice(self.files() or [self.root]).open("ab") as file:
            file.write(b"more")

    def do_truncate(self) -> None:
        os.truncate(self.random.choice(self.files() or [self.root]), 1)

    def do_open(self) -> None:
        self.open.append((self.random.choice(self.directories()) / self.name()).open("ab"))

    def do_close(self) -> None:
        if self.open:
            self.open.pop(self.random.randrange(len(self.open))).close()

    def do_rename(self) -> None:
        if files := self.files():
            self.random.choice(files).rename(self.random.choice(self.directories()) / self.name())

    def do_mkdir(self) -> None:
        path = self.random.choice(self.directories()) / self.name() / self.name() / self.name()
        path.mkdir(parents=True)
        (path / self.name()).write_bytes(b"deep")

    def do_move(self) -> None:
        self.random.choice(self.directories()[1:] or [self.away]).rename(
            self.random.choice(self.directories()) / self.name()
        )

    def do_out(self) -> None:
        self.number += 1
        self.random.choice(self.directories()[1:] or [self.away / "none"]).rename(self.away / str(self.number))

    def do_in(self) -> None:
        if away := list(self.away.iterdir()):
            self.random.choice(away).rename(self.random.choice(self.directories()) / self.name())

    def do_remove(self) -> None:
        shutil.rmtree(self.random.choice(self.directories()[1:] or [self.away / "none"]))

    def do_unlink(self) -> None:
        if files := self.files():
            self.random.choice(files).unlink()


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_overlooked_and_nothing_taken_too_early(source, tmp_path, seed):
    """Whatever happens in whatever order: all files come out that nobody writes to, without a walk for what was missed.

    Events are read, threads work, and their results come at random moments.
    """
    away = tmp_path / "away"
    away.mkdir()
    producer = Producer(source, away, seed)
    choice = random.Random(seed + 1000)
    watched = Watched(source)
    watched.watch.start()

    def take() -> None:
        take_some(watched, producer)

    for _ in range(400):
        producer.step()
        for act in (watched.reactor.read_all, watched.threads.work, watched.threads.deliver, take):
            if choice.random() < 0.3:
                act()
        watched.reactor.advance(choice.choice([0.0, 0.1, 1.0]))
    for file in list(producer.open)[::2]:
        file.close()
        producer.open.remove(file)
    for _ in range(10):
        watched.settled()
        take()

    writing = {os.stat(file.fileno()).st_ino for file in producer.open}
    left = [path for path in producer.files() if path.stat().st_ino not in writing]
    walks = watched.watch._walks
    for file in producer.open:
        file.close()
    watched.stop()
    assert [] == left
    assert 1 == walks


def take_some(watched: Watched, producer: Producer) -> None:
    """Take what is ready and remove it, or fail if somebody writes to it; what is gone by now was moved by somebody."""
    writing = {os.stat(file.fileno()).st_ino for file in producer.open}
    for entry in watched.watch.take(5):
        if entry.kind is Kind.DIRECTORY:
            continue
        path = watched.path / os.fsdecode(entry.path)
        try:
            if path.stat().st_ino not in writing:  # opened again after it had settled: the mover looks, too
                path.unlink()
                watched.watch.moved(entry.path)
            else:
                watched.watch.failed(entry.path)
        except OSError:
            watched.watch.moved(entry.path)
