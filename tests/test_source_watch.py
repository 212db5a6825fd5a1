"""Watching a source: real directories and real events, with a clock that does as it is told."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from inotify_simple import INotify
from twisted.internet.defer import fail
from twisted.internet.task import deferLater

from realize.errors import StorageError
from realize.fs.names import MAX_PATH_COMPONENTS
from realize.values import Kind
from realize.watch import source_watch, walking, walks
from realize.watch.events import DirectoryEvents
from realize.watch.jobs import HANGS_AFTER_S
from realize.watch.settling import FailedFile
from realize.watch.source_watch import CHECK_S, LIMITED_WALK_S, MAX_RETRY_S, POLLED_WALK_S, SLOW_WALK_S, WatchMode
from tests.watching import SETTLE_S, Readers, Watched, plant


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


@pytest.mark.parametrize("links", [False, True])
def test_symlinks_settle_if_they_are_moved(source, links):
    """Those that are there at the start, and new ones; else they are of no interest, and none is followed."""
    watched = Watched(source, links=links)
    try:
        (source / "there").symlink_to("nowhere")
        watched.start()
        (source / "to a directory").symlink_to(source.parent)
        watched.settled()

        expected = [(b"there", Kind.LINK, 0), (b"to a directory", Kind.LINK, 0)] if links else []
        assert expected == [(each.path, each.kind, each.size) for each in watched.entries()]
        watched.watch.untouched([b"there", b"to a directory"])
        assert [path for path, *_ in expected] == watched.taken()
    finally:
        watched.stop()


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


def test_a_directory_that_goes_while_it_is_walked_is_not_taken_for_the_next_one(source, watched):
    """One that is removed while a file in it is open is still watched, and the next one of that name is not."""
    watched.start()
    (source / "a").mkdir()
    watched.reactor.advance(1.0)
    watched.reactor.read_all()
    with (source / "a" / "open").open("wb"):
        watched.threads.work()
        shutil.rmtree(source / "a")
        watched.reactor.advance(1.0)
        watched.reactor.read_all()
        watched.threads.deliver()
        plant(source / "a" / "file")
        watched.settled()

        assert [b"a/file"] == watched.taken()


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


def test_what_is_too_small_or_too_large_is_not_known(source):
    """It is found when it has another size."""
    watched = Watched(source, accepts_size=lambda size: 2 <= size <= 3)
    for name, content in (("1", b"x"), ("2", b"xx"), ("4", b"xxxx")):
        plant(source / name, content)
    watched.start()
    watched.settled()
    assert (1, [b"2"]) == (watched.watch.backlog.files, watched.taken())
    plant(source / "1", b"xxx")
    plant(source / "5", b"xxxxx")
    watched.settled()

    assert (1, [b"1"]) == (watched.watch.backlog.files, watched.taken())
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
    watched.pass_time(MAX_RETRY_S + 1)
    watched.pass_time(SETTLE_S + 1)

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


@pytest.mark.parametrize("seed", [*range(20), 630, 713, 726, 1012, 1110, 1399])
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
    walks = watched.watch._walking.number
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


def refusing(watched: Watched, number: int, when: list[bool]) -> None:
    """Let every second directory be refused a watch, while ``when`` is not empty."""
    adding = watched.events.add
    turns = iter(range(1_000_000))

    def add(fd: int) -> int:
        if when and next(turns) % 2:
            raise OSError(number, os.strerror(number))
        return adding(fd)

    watched.events.add = add


def test_without_enough_watches_it_walks_every_minute(source, watched):
    """It is said once, with the limit to raise, and once when there is room again."""
    for name in "abcd":
        plant(source / name / "1")
    limited = [True]
    refusing(watched, errno.ENOSPC, limited)
    watched.start()
    watched.settled()
    first = watched.taken()
    for name in "abcd":
        plant(source / name / "2")
    mode = watched.watch.mode
    watched.pass_time(LIMITED_WALK_S)
    watched.settled()
    second = watched.taken()
    limited.clear()
    watched.pass_time(LIMITED_WALK_S + 1)

    assert [b"a/1", b"b/1", b"c/1", b"d/1"] == first
    assert [b"a/2", b"b/2", b"c/2", b"d/2"] == second
    assert (WatchMode.LIMITED, WatchMode.EVENTS) == (mode, watched.watch.mode)
    [(level, event, fields), (_, over, _)] = watched.log.all
    assert ("warning", "watch_limit_reached", "watch_limit_over") == (level, event, over)
    assert "fs.inotify.max_user_watches" == fields["sysctl"]
    with open("/proc/sys/fs/inotify/max_user_watches") as file:
        assert int(file.read()) == fields["value"]


def test_a_limit_that_is_reached_later_makes_it_walk_every_minute_from_then_on(source, watched):
    """Not when the next walk would have been due."""
    watched.start()
    watched.pass_time(100, 10)
    limited = [True]
    refusing(watched, errno.ENOSPC, limited)
    watched.quiet()
    for name in "ab":
        plant(source / name / "sub" / "1")
    watched.settled()
    first = watched.taken()
    for name in "ab":
        plant(source / name / "sub" / "2")
    watched.pass_time(LIMITED_WALK_S)
    watched.settled()

    assert [b"a/sub/1", b"b/sub/1"] == first
    assert [b"a/sub/2", b"b/sub/2"] == watched.taken()


def test_where_nothing_can_be_watched_it_walks_every_minute(source, watched):
    """Whatever the reason is, such as that there is no /proc."""
    watched.events.add = lambda _: os.open("/none", os.O_RDONLY)
    watched.start()
    plant(source / "1")
    watched.pass_time(LIMITED_WALK_S)
    watched.settled()

    assert [b"1"] == watched.taken()
    assert WatchMode.LIMITED is watched.watch.mode
    [(_, event, fields)] = watched.log.all
    assert ("watch_limit_reached", "", None) == (event, fields["sysctl"], fields["value"])


def test_without_an_instance_it_walks_every_minute(source):
    """Until there is one."""
    refuse = [True]

    def opening(**options: bool) -> object:
        if refuse:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return INotify(**options)

    reactor = Readers()
    watched = Watched(source, reactor=reactor, events=DirectoryEvents(reactor, opening))
    plant(source / "1")
    watched.start()
    watched.settled()
    first, mode = watched.taken(), watched.watch.mode
    plant(source / "2")
    refuse.clear()
    watched.pass_time(LIMITED_WALK_S + 1)
    watched.settled()

    assert ([b"1"], [b"2"]) == (first, watched.taken())
    assert (WatchMode.LIMITED, WatchMode.EVENTS) == (mode, watched.watch.mode)
    assert "fs.inotify.max_user_instances" == watched.log.all[0][2]["sysctl"]
    watched.stop()


def test_a_file_system_that_tells_nothing_is_walked_by_the_clock(source, watched, monkeypatch):
    """Without a watch, twice a minute."""
    monkeypatch.setattr(walks, "may_change_elsewhere", lambda _: True)
    plant(source / "a" / "1")
    watched.start()
    watched.settled()
    first = watched.taken()
    plant(source / "a" / "2")
    watched.pass_time(POLLED_WALK_S)
    watched.settled()

    assert ([b"a/1"], [b"a/2"]) == (first, watched.taken())
    assert WatchMode.POLLED is watched.watch.mode
    assert 0 == len(watched.watch._directories)
    assert ["source_is_polled"] == watched.log.events


def test_a_file_system_below_that_tells_nothing_is_walked_by_the_clock(source, watched, monkeypatch):
    """And nothing else is; when it is unmounted, what is there then is watched."""
    mounted = [True]

    def elsewhere(fd: int) -> bool:
        return bool(mounted) and b"/mnt" in os.readlink(b"/proc/self/fd/%d" % fd)

    monkeypatch.setattr(walks, "may_change_elsewhere", elsewhere)
    plant(source / "mnt" / "sub" / "1")
    watched.start()
    watched.settled()
    first = watched.taken()
    plant(source / "mnt" / "sub" / "2")
    plant(source / "mnt" / "3")
    watched.pass_time(POLLED_WALK_S)
    watched.settled()
    second, watches = watched.taken(), len(watched.watch._directories)
    mounted.clear()
    watched.pass_time(POLLED_WALK_S)

    assert ([b"mnt/sub/1"], [b"mnt/3", b"mnt/sub/2"]) == (first, second)
    assert (1, 3) == (watches, len(watched.watch._directories))
    assert 1 == watched.watch._walking.number
    assert WatchMode.EVENTS is watched.watch.mode
    assert [{"path": "mnt", "every_s": POLLED_WALK_S}] == [fields for _, _, fields in watched.log.all]


def slowly(watched: Watched, seconds: float) -> list[float]:
    """Let each piece of a walk take so long; returns a list of when each began."""
    run, began = watched.threads.run, []

    def slow(work, *args):
        if work is walks.read_page:
            began.append(watched.reactor.seconds())
            return deferLater(watched.reactor, seconds, work, *args)
        return run(work, *args)

    watched.watch._jobs._run_in_thread = slow
    return began


def test_walks_by_the_clock_leave_pauses(source, watched, monkeypatch):
    """A walk that takes longer than its period is not done all the time, but a fifth of it."""
    monkeypatch.setattr(walks, "may_change_elsewhere", lambda _: True)
    slowly(watched, 20.0)
    watched.watch.start()
    watched.pass_time(470)

    assert 5 == watched.watch._walking.number


def test_walks_of_what_is_mounted_below_leave_pauses(source, watched, monkeypatch):
    """The same, for what is walked beside the rest."""
    monkeypatch.setattr(walks, "may_change_elsewhere", lambda fd: b"/mnt" in os.readlink(b"/proc/self/fd/%d" % fd))
    plant(source / "mnt" / "1")
    starts = []
    walk = watched.watch._walk
    monkeypatch.setattr(watched.watch._walking, "_begin", lambda path: starts.append(path) or walk(path))
    slowly(watched, 20.0)
    watched.watch.start()
    watched.pass_time(470)

    assert [b"", *[b"mnt"] * 5] == starts


def test_overflows_do_not_make_it_walk_all_the_time(source, watched):
    """At least as long as a walk takes, none is done."""
    slowly(watched, 10.0)
    watched.watch.start()
    for _ in range(100):
        watched.watch.overflowed()
        watched.pass_time(1.0)

    assert 5 <= watched.watch._walking.number <= 6


def test_the_slow_walk_leaves_pauses(source, monkeypatch):
    """It is four times as long at rest as at work, and is hurried when events are lost."""
    monkeypatch.setattr("realize.watch.source_watch.CHECK_S", 1e9)  # each piece of work takes time here
    for number in range(1_400):
        plant(source / f"{number:04}")
    watched = Watched(source)
    watched.start()
    began = slowly(watched, 1.0)
    watched.pass_time(SLOW_WALK_S - 30, 30)
    before = list(began)
    watched.pass_time(36, 0.1)
    slow = [round(later - earlier) for earlier, later in pairwise(began)]
    watched.pass_time(SLOW_WALK_S - 30, 30)
    began.clear()
    watched.watch._walking.want(slowly=True)
    watched.pass_time(1.5, 0.1)
    watched.watch.overflowed()
    watched.pass_time(4.5, 0.1)
    fast = [round(later - earlier) for earlier, later in pairwise(began)]

    assert [] == before
    assert [5, 5] == slow
    assert [1, 4] == fast[1:3]  # then the walk that the overflow asks for
    watched.stop()


def test_a_mount_below_makes_it_walk(source, watched, monkeypatch):
    """Nobody tells of it: it is checked every ten seconds."""
    watched.start()
    monkeypatch.setattr(walks, "read_mountinfo", lambda: b"9 1 0:1 / " + os.fsencode(source) + b"/x rw - nfs a b\n")
    before = watched.watch._walking.number
    watched.pass_time(CHECK_S + 1)

    assert (1, 2) == (before, watched.watch._walking.number)


def test_a_source_that_is_swapped_is_noticed(source, watched, tmp_path):
    """Also if the path led to it through a symlink, of which no event tells."""
    other = tmp_path / "other"
    plant(other / "new")
    link = tmp_path / "link"
    link.symlink_to(source)
    watched = Watched(link)
    plant(source / "old")
    watched.start()
    link.unlink()
    link.symlink_to(other)
    watched.pass_time(CHECK_S + 1)
    watched.settled()

    assert [b"new"] == watched.taken()
    watched.stop()


def test_a_disk_that_hangs_is_told_of(source, watched):
    """Once, until it answers; then all goes on."""
    plant(source / "1")
    watched.watch.start()
    watched.reactor.advance(HANGS_AFTER_S)
    mode = watched.watch.mode
    watched.settled()

    assert (WatchMode.ABSENT, WatchMode.EVENTS) == (mode, watched.watch.mode)
    assert ["source_hangs", "source_answers_again"] == watched.log.events
    assert [b"1"] == watched.taken()


def test_a_disk_that_cannot_be_read_for_long_is_told_of_once(source, watched):
    """A directory that can be opened, and not listed, is not back each time."""
    run = watched.threads.run

    def failing(work, *args):
        return fail(StorageError("on purpose")) if work is walks.read_page else run(work, *args)

    plant(source / "1")
    watched.watch._jobs._run_in_thread = failing
    watched.start()
    watched.pass_time(600)
    during, calls = list(watched.log.events), watched.threads.calls
    watched.watch._jobs._run_in_thread = run
    watched.pass_time(MAX_RETRY_S + 1)
    watched.settled()

    assert ["source_is_absent"] == during
    assert calls < 600 / MAX_RETRY_S + 10
    assert ["source_is_absent", "source_is_back"] == watched.log.events
    assert [b"1"] == watched.taken()


def test_it_ends_while_a_thread_works(source):
    """When that has come to its end; its results are of no use to anybody."""
    plant(source / "a" / "1")
    watched = Watched(source)
    watched.watch.start()
    watched.threads.work()
    watched.threads.deliver()
    stopped = watched.watch.stop()
    assert not stopped.called
    watched.quiet()

    assert stopped.called
    assert [] == watched.reactor.getDelayedCalls()
    assert [] == watched.reactor.readers


def test_it_is_lost_while_a_thread_walks(source, tmp_path):
    """The walk is of no use any more; what is there then is walked anew."""
    for number in range(3):
        plant(source / str(number) / "file")
    watched = Watched(source)
    watched.start()
    watched.watch.walk_now()
    watched.pass_time(1)
    watched.watch.walk_now()
    watched.reactor.advance(1.0)
    watched.threads.work()
    source.rename(tmp_path / "away")
    plant(source / "new")
    watched.reactor.advance(1.0)
    watched.reactor.read_all()
    watched.settled()

    assert [b"new"] == watched.taken()
    watched.stop()


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_an_error_of_the_disk_ends_nothing(source, watched, fails):
    """Whatever piece of work it happens to: it is told, and tried again until it goes on."""
    plant(source / "a" / "1")
    run, calls = watched.threads.run, iter(range(1_000))

    def failing(work, *args):
        if next(calls) == fails:
            return fail(StorageError("on purpose"))
        return run(work, *args)

    watched.watch._jobs._run_in_thread = failing
    watched.start()
    watched.settled()
    watched.settled()

    assert [b"a/1"] == watched.taken()
    assert ["source_is_absent", "source_is_back"] == watched.log.events


def test_a_file_that_cannot_be_moved_comes_back(source, watched):
    """After its own delay, and at once when somebody asks for it."""
    plant(source / "1")
    watched.start()
    watched.settled()
    [entry] = watched.entries()
    delay_s = watched.watch.failed(entry.path, first_delay_s=100.0)
    watched.pass_time(90)
    before = watched.watch.ready
    watched.pass_time(12)
    after = watched.watch.ready
    watched.entries()
    watched.watch.failed(entry.path, first_delay_s=100.0)
    watched.watch.retry_now()
    watched.pass_time(1)

    assert (100.0, 0, 1) == (delay_s, before, after)
    assert [(b"1", 0)] == [(each.path, each.attempts) for each in watched.watch.failures]
    assert [b"1"] == watched.taken()
    assert [] == list(watched.watch.failures)


def test_failures_are_taken_over_from_before_a_restart(source, watched):
    """With what is there still; the rest is forgotten."""
    plant(source / "1")
    watched.watch.restore([FailedFile(b"1", 5.0, 3), FailedFile(b"2", 6.0, 1)])
    watched.start()
    watched.settled()

    assert [FailedFile(b"1", 5.0, 3)] == list(watched.watch.failures)
    assert [b"1"] == watched.taken()


def test_a_failure_of_a_file_that_is_excluded_now_is_not_taken_over(source):
    """Whoever moves would not look at it, and it would fail for ever."""
    watched = Watched(source, accepts=lambda path: not path.endswith(b".tmp"))
    plant(source / "1.tmp")
    watched.watch.restore([FailedFile(b"1.tmp", 5.0, 3)])
    watched.start()
    watched.settled()

    assert [] == watched.entries()
    assert [] == list(watched.watch.failures)
    assert 0 == watched.watch.backlog.files
    watched.stop()


def test_what_cannot_be_read_and_is_excluded_is_nothing(source):
    """Whether a walk has found it, or it failed before it was excluded."""
    deep = b"/".join([b"d"] * (MAX_PATH_COMPONENTS + 1))
    watched = Watched(source, accepts_unreadable=lambda _: False)
    plant(source / os.fsdecode(deep))
    watched.watch.restore([FailedFile(deep, 5.0, 3)])
    watched.start()
    watched.settled()

    assert [] == watched.entries()
    assert 0 == watched.watch.backlog.files
    watched.stop()


def test_more_files_than_may_be_known(source):
    """Are counted, and found as soon as there is room for them: none is forgotten."""
    watched = Watched(source, max_known=1_000)
    for number in range(2_500):
        plant(source / f"{number // 1_000}" / f"{number:04}", b"x")
    watched.start()
    known = watched.watch.backlog
    watched.settled()
    taken = []
    for _ in range(20):
        taken += watched.taken(200)
        watched.settled()

    assert (2_500, 2_500, True) == (known.files, known.bytes, known.at_least)
    assert 2_500 == len(taken) == len(set(taken))
    assert (0, 0, None, False) == (
        watched.watch.backlog.files,
        watched.watch.backlog.bytes,
        watched.watch.backlog.oldest,
        watched.watch.backlog.at_least,
    )
    assert 1 == watched.watch._walking.number
    watched.stop()


def test_a_source_is_lost_while_more_files_are_looked_for(source, tmp_path):
    """There is nothing to be looked for then; when it is back, all of its files are found."""
    watched = Watched(source, max_known=600)
    for number in range(1_500):
        plant(source / f"{number:04}", b"x")
    watched.start()
    watched.settled()
    before = len(watched.taken())
    while not watched.watch._walking.reading:
        watched.reactor.advance(0.1)
    source.rename(tmp_path / "away")
    watched.reactor.advance(1.0)
    watched.reactor.read_all()
    watched.pass_time(30)
    absent = watched.watch.mode
    (tmp_path / "away").rename(source)
    watched.pass_time(60)
    after = 0
    for _ in range(10):
        watched.settled()
        after += len(watched.taken())

    assert WatchMode.ABSENT is absent
    assert (600, 900) == (before, after)
    watched.stop()


def test_files_that_come_while_no_more_may_be_known(source):
    """Are found when there is room, although nobody has counted them."""
    watched = Watched(source, max_known=600)
    watched.start()
    for number in range(1_500):
        plant(source / f"{number:04}", b"x")
        if number % 100 == 0:
            watched.quiet()
    watched.quiet()
    backlog = watched.watch.backlog
    taken = []
    for _ in range(30):
        watched.settled()
        taken += watched.taken()

    assert (600, True) == (backlog.files, backlog.at_least)
    assert 1_500 == len(taken) == len(set(taken))
    assert not watched.watch.backlog.at_least
    watched.stop()


def test_files_that_cannot_be_moved_leave_room_for_others(source):
    """However many they are: those that cannot be remembered are found by a later walk."""
    watched = Watched(source, max_known=600)
    watched.watch._files._max_failed = 100
    for number in range(1_000):
        plant(source / f"a{number:04}", b"x")
    for number in range(1_000):
        plant(source / f"b{number:04}", b"x")
    watched.start()
    moved = set()
    for _ in range(100):
        watched.settled()
        for entry in watched.entries():
            if entry.path.startswith(b"a"):
                watched.watch.failed(entry.path)
            else:
                (source / os.fsdecode(entry.path)).unlink()
                watched.watch.moved(entry.path)
                moved.add(entry.path)
        if len(moved) == 1_000:
            break

    assert 1_000 == len(moved)
    watched.stop()


def test_files_that_cannot_be_remembered_are_tried_again_by_the_hour(source):
    """Not as fast as they can fail."""
    watched = Watched(source, max_known=600)
    watched.watch._files._max_failed = 10
    for number in range(100):
        plant(source / f"{number:03}", b"x")
    watched.start()
    tried = []

    def fail_all() -> None:
        for entry in watched.entries():
            tried.append(entry.path)
            watched.watch.failed(entry.path, first_delay_s=10_000.0)

    watched.watch.on_ready = fail_all
    watched.pass_time(SLOW_WALK_S - 60, 5)
    first, at_least = len(tried), watched.watch.backlog.at_least
    watched.pass_time(180, 5)

    assert 100 == first == len(set(tried))
    assert at_least
    assert 190 <= len(tried) <= 200
    watched.stop()


def test_a_directory_that_cannot_be_listed_is_handed_out(source, watched, monkeypatch):
    """So that somebody is told; when it can be, it is walked."""
    plant(source / "a" / "1")
    forbidden = [True]
    scandir = os.scandir

    def scanning(fd: int) -> object:
        if forbidden and os.readlink(f"/proc/self/fd/{fd}").endswith("/a"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(fd)

    monkeypatch.setattr(os, "scandir", scanning)
    watched.start()
    first = watched.entries()
    delays = [watched.watch.failed(b"a")]
    watched.pass_time(2)
    second = watched.entries()
    delays.append(watched.watch.failed(b"a"))
    forbidden.clear()
    watched.settled()

    assert [(b"a", Kind.UNREADABLE, "cannot be listed: Permission denied")] == [
        (each.path, each.kind, each.note) for each in first
    ]
    assert first == second
    assert [1.0, 2.0] == delays
    assert [b"a/1"] == watched.taken()
    assert 0 == watched.watch.backlog.files


def test_two_sources_may_be_one_directory(source, watched):
    """With different files of interest; when one ends, the other one is still told of everything."""
    first = Watched(
        source,
        reactor=watched.reactor,
        events=watched.events,
        accepts=lambda path: path.endswith(b".jpg"),
    )
    watched.start()
    first.start()
    plant(source / "a" / "1.jpg")
    for _ in range(50):
        watched.pass_time(0.5)
        first.quiet()
    taken = first.taken()
    stopped = first.watch.stop()
    first.quiet()
    plant(source / "a" / "2.jpg")
    watched.settled()

    assert stopped.called
    assert [b"a/1.jpg"] == taken
    assert [b"a/2.jpg"] == watched.taken()


def test_a_very_busy_start_makes_it_walk_again(source, watched, monkeypatch):
    """If more happens during a walk than is kept until the walk is over."""
    monkeypatch.setattr(source_watch, "MAX_EARLY_EVENTS", 10)
    watched.watch.start()
    watched.threads.work()
    watched.threads.deliver()
    watched.threads.work()
    for number in range(20):
        plant(source / str(number))
    watched.reactor.read_all()
    watched.settled()

    assert 20 == len(watched.taken())
    assert 2 == watched.watch._walking.number


def test_very_many_new_directories_are_walked_together(source, watched, monkeypatch):
    """Instead of remembering each."""
    monkeypatch.setattr(walking, "MAX_NEW_DIRECTORIES", 5)
    watched.start()
    for number in range(50):
        plant(source / str(number) / "file")
    watched.settled()

    assert 50 == len(watched.taken())


def test_names_that_are_too_deep_are_handed_out_as_unreadable(source, watched):
    """As a listing has them, and once, until their delay is over."""
    watched.start()
    deep = source.joinpath(*["d"] * (MAX_PATH_COMPONENTS + 2))
    deep.mkdir(parents=True)
    watched.settled()
    entries = [entry for entry in watched.entries() if entry.kind is not Kind.DIRECTORY]

    assert [Kind.UNREADABLE] == [each.kind for each in entries]
    assert "components" in entries[0].note


@pytest.mark.parametrize("seed", [*range(6), 1372])
def test_all_comes_out_whatever_goes_wrong(tmp_path, monkeypatch, seed):
    """Events are lost, watches run out, the source goes and comes, and few files may be known: soon all come out."""
    monkeypatch.setattr(walking, "PAGE_ENTRIES", 5)
    monkeypatch.setattr(walks, "PAGE_ENTRIES", 5)
    source, away = tmp_path / "source", tmp_path / "away"
    source.mkdir()
    away.mkdir()
    producer, choice = Producer(source, away, seed), random.Random(seed + 5)
    watched = Watched(source, max_known=12)
    watched.watch._files._max_failed = 3
    limited: list[bool] = []
    refusing(watched, errno.ENOSPC, limited)
    watched.watch.start()

    def go_wrong(number: int) -> None:
        what = choice.random()
        if what < 0.01:
            watched.watch.overflowed()
        elif what < 0.02:
            limited[:] = [] if limited else [True]
        elif what < 0.025:
            source.rename(tmp_path / f"former{number}")
            if choice.random() < 0.5:
                source.mkdir()
            else:
                (tmp_path / f"former{number}").rename(source)
        elif what < 0.03:
            watched.watch.retry_now()

    for number in range(400):
        producer.step()
        acts = (watched.reactor.read_all, watched.threads.work, watched.threads.deliver)
        for act in (*acts, lambda: take_some(watched, producer)):
            if choice.random() < 0.3:
                act()
        go_wrong(number)
        watched.reactor.advance(choice.choice([0.0, 0.1, 1.0]))
    limited.clear()
    while producer.open:
        producer.open.pop().close()
    for _ in range(8):
        watched.settled()
        take_some(watched, producer)
        if not producer.files():
            break
        watched.pass_time(70, 5)

    left = producer.files()
    watched.stop()
    assert [] == left
