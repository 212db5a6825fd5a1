"""Permissions and times of directories: what the mover asks for, and what a real destination has at every instant."""

from __future__ import annotations

import os
import stat
import struct

import pytest
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock

from realize.errors import ConnectionFailed, Interrupted, SourceChanged, StorageError
from realize.mover import directories as module
from realize.mover.directories import Directories
from realize.mover.events import Failed
from realize.mover.filters import selection
from realize.mover.run import Run, Side, TransferOptions
from realize.mover.stop_flag import StopFlag
from realize.store.local.store import LocalStore
from realize.values import MAX_SMALL_BYTES, Attributes, Directory, Entry, Kind, OnConflict
from tests.local_stores import as_nobody, open_root
from tests.memory_store import MemoryStore

__all__ = ["open_root"]

NOBODY = 0xFFFFFFFF
"""What an entry of an ACL has in place of a user, if it is about none."""


def directory(path: bytes, mtime_ns: int = 1, mode: int = 0o755) -> Entry:
    """A directory in a listing."""
    return Entry(path, Kind.DIRECTORY, mtime_ns=mtime_ns, mode=mode)


def file(path: bytes) -> Entry:
    """A file in a listing."""
    return Entry(path, Kind.FILE)


def test_makes_what_files_go_into_once():
    """Only the directories above a file that is moved are made, those above first, and each is asked for once."""
    known = Directories()
    here = known.listed([directory(b"a", mode=0o700), directory(b"a/b", mode=0o750), file(b"a/b/f"), directory(b"c")])

    first = known.fill([b"a/b/f", b"top"], here)
    again = known.fill([b"a/b/g", b"a/h"], here)

    assert [Directory(b"a", 0o700), Directory(b"a/b", 0o750)] == first
    assert [] == again


def test_what_is_announced_may_be_missing_until_it_was_made():
    """Those above some files, the outermost first; those that are done are nobody's business any more."""
    known = Directories(0o700)
    here = known.listed([directory(b"a"), directory(b"a/b"), file(b"a/b/f"), directory(b"c"), directory(b"d")])
    known.fill([b"a/b/f", b"c/f", b"d/f"], here)
    location, a, b, c = Directory(b"", 0o700), *(Directory(path, 0o755) for path in (b"a", b"a/b", b"c"))

    assert [location, a, b] == known.unmade([b"a/b/f", b"a/b/g"])
    known.made([location, a])
    assert [b, c] == known.unmade([b"a/b/f", b"c/f", b"e/f", b"top"])
    known.forget([c])
    assert [b] == known.unmade([b"a/b/f", b"c/f"])


def test_a_page_may_begin_in_the_middle_of_a_directory():
    """What an earlier page has named is known as long as the listing is in it."""
    known = Directories()
    known.listed([directory(b"a"), directory(b"a/b"), file(b"a/b/f"), directory(b"ab")])
    here = known.listed([file(b"ab/f"), directory(b"c")])

    assert {b"ab", b"c"} == set(here)
    assert [Directory(b"ab", 0o755)] == known.fill([b"ab/f"], here)


def test_the_location_is_made_first_if_it_is_missing():
    """A destination that is not there stands for the source, and is as private."""
    known = Directories(0o700)
    here = known.listed([directory(b"a")])

    assert [Directory(b"", 0o700), Directory(b"a", 0o755)] == known.fill([b"a/f"], here)
    assert [Directory(b"a", 0o755, 1)] == known.done(ended=True)


def test_what_is_done_is_set_deepest_first_and_forgotten():
    """The directories that the listing is in, and those that files wait for, are not done yet."""
    known = Directories()
    here = known.listed(
        [directory(b"a"), directory(b"a/b"), file(b"a/b/f"), directory(b"c"), directory(b"c/d"), directory(b"c/d/e")]
    )
    known.fill([b"a/b/f", b"c/d/f", b"c/d/e/f"], here)
    known.listed([directory(b"c/x")])

    before = known.done([b"a/b/f"], ended=False)
    known.forget(before)
    after = known.done(ended=True)
    known.forget(after)

    assert [Directory(b"c/d/e", 0o755, 1), Directory(b"c/d", 0o755, 1)] == before
    assert [Directory(b"c", 0o755, 1), Directory(b"a/b", 0o755, 1), Directory(b"a", 0o755, 1)] == after
    assert [] == known.done(ended=True)


def test_where_nothing_was_put_in_only_what_a_killed_run_may_have_left_open_is_closed():
    """A copy that lacks nothing of its owner's permissions is final from the start."""
    known = Directories()
    known.listed([directory(b"a"), directory(b"b", mode=0o555)])

    assert [Directory(b"b", 0o555)] == known.done(ended=True)


def test_the_time_is_that_before_anything_was_moved():
    """After a lost connection the listing has times that our own removals have left."""
    known = Directories()
    known.fill([b"a/f"], known.listed([directory(b"a", 1)]))
    known.begin()
    known.fill([b"a/g"], known.listed([directory(b"a", 99)]))

    assert [Directory(b"a", 0o755, 1)] == known.done(ended=True)


class Trial:
    """A run over stores that is driven by hand."""

    def __init__(self, source, destination, *, stop_flag=None, **options):
        self.events = []
        self.clock = Clock()
        run = Run(
            [Side(source, "src")],
            Side(destination, "dst"),
            TransferOptions(**options),
            self.events.append,
            self.clock,
            StopFlag() if stop_flag is None else stop_flag,
        )
        self.run = run
        self.result = []
        self.ending = run.start().addBoth(self.result.append)
        self.clock.pump([0.05] * 200)

    def error(self):
        """What the run ended with."""
        [result] = self.result
        return getattr(result, "value", result)


def source_of(modes, files):
    """A store with directories of these modes, whose times count from 1000, and small files."""
    source = MemoryStore()
    for path in files:
        source.plant(path, b"content of " + path)
    for number, (path, mode) in enumerate(modes.items()):
        source.plant_directory(path, Attributes(1000 + number, mode))
    return source


def asked(store, method):
    """What a method of a store is asked, call by call."""
    original, calls = getattr(store, method), []

    def remembered(items, *arguments, **options):
        calls.append(list(items))
        return original(items, *arguments, **options)

    setattr(store, method, remembered)
    return calls


MODES = {b"a": 0o700, b"a/b": 0o555, b"empty": 0o755}
FILES = (b"a/b/f", b"a/f", b"top")


@pytest.mark.parametrize("remove", [True, False])
def test_directories_arrive_with_modes_and_times(remove):
    """Both as they were before the files were taken out; empty directories are not made."""
    source, destination = source_of(MODES, FILES), MemoryStore()

    trial = Trial(source, destination, remove=remove)

    assert trial.error() is None
    assert {b"a": Attributes(1000, 0o700), b"a/b": Attributes(1001, 0o555)} == destination.directories


def test_directories_that_are_there_get_them_too_if_files_come():
    """As with files and with rsync -a; where nothing is moved, a directory is only closed, never opened."""
    source = source_of({b"a": 0o750, b"idle": 0o555, b"private": 0o755}, [b"a/f"])
    destination = source_of({b"a": 0o777, b"idle": 0o755, b"private": 0o700}, [])

    Trial(source, destination)

    assert Attributes(1000, 0o750) == destination.directories[b"a"]
    assert Attributes(1001, 0o555) == destination.directories[b"idle"]
    assert Attributes(1002, 0o700) == destination.directories[b"private"]


@pytest.mark.parametrize("options", [{"preserve": False}, {"dry_run": True}])
def test_nothing_is_carried_over_unless_it_is_wanted(options):
    """With --no-preserve directories are made as any others, and in a dry run none."""
    source, destination = source_of(MODES, FILES), MemoryStore()
    made, done = asked(destination, "make_directories"), asked(destination, "set_directories")

    Trial(source, destination, **options)

    assert ([], []) == (made, done)
    assert set() == {each.mode for each in destination.directories.values()} - {0o755}


def test_no_command_more_where_no_directory_is_new():
    """Pages of files of one directory ask for it once, and files of the location itself for nothing."""
    source = source_of({b"a": 0o700}, [b"a/%02d" % number for number in range(50)])
    flat, destination = source_of({}, [b"%02d" % number for number in range(50)]), MemoryStore()
    made, done = asked(destination, "make_directories"), asked(destination, "set_directories")

    Trial(source, destination)
    Trial(flat, destination)

    assert [[Directory(b"a", 0o700)]] == made
    assert [[Directory(b"a", 0o700, 1000)]] == done


def held_back(store, method):
    """Let a method of a store answer only when it is told to: what it was asked, and what lets the answers go."""
    original, calls, waiting = getattr(store, method), [], []

    def held(items, *arguments, **options):
        calls.append([each.path for each in items])
        waiting.append(Deferred())
        return waiting[-1].addCallback(lambda _: original(items, *arguments, **options))

    setattr(store, method, held)
    return calls, waiting


def test_pages_make_their_directories_side_by_side():
    """Over a long link one after the other would be a round trip for each page; files wait for their own."""
    source = source_of({b"a": 0o700, b"b": 0o700}, [b"a/f", b"a/g", b"b/f", b"b/g"])
    destination = MemoryStore()
    calls, waiting = held_back(destination, "make_directories")
    put = asked(destination, "put_small")

    trial = Trial(source, destination)
    before = list(calls), [files for files in put if files]
    waiting[0].callback(None)
    trial.clock.pump([0.05] * 200)
    first = [[each.path for each in files] for files in put]
    waiting[1].callback(None)
    trial.clock.pump([0.05] * 200)

    assert ([[b"a"], [b"b"]], []) == before
    assert {b"a/f", b"a/g"} == {path for files in first for path in files}
    assert trial.error() is None
    assert {b"a/f", b"a/g", b"b/f", b"b/g"} == set(destination.files)


def test_small_files_are_read_while_their_directories_are_made():
    """Over a long link that takes a round trip; nothing is put there before it is over."""
    source, destination = source_of({b"a": 0o700}, [b"a/f"]), MemoryStore()
    _, waiting = held_back(destination, "make_directories")
    read, put = asked(source, "read_small"), asked(destination, "put_small")

    trial = Trial(source, destination)
    before = list(read), [files for files in put if files]
    waiting[0].callback(None)
    trial.clock.pump([0.05] * 200)

    assert ([[b"a/f"]], []) == before
    assert trial.error() is None
    assert [b"a/f"] == [each.path for files in put for each in files]


def test_small_files_stay_if_the_destination_is_lost_while_their_directories_are_made():
    """They were read in vain, and the run ends with that error."""
    source, destination = source_of({b"a": 0o700}, [b"a/f"]), MemoryStore()
    _, waiting = held_back(destination, "make_directories")
    put = asked(destination, "put_small")

    trial = Trial(source, destination)
    waiting[0].errback(ConnectionFailed("lost"))
    trial.clock.pump([0.05] * 200)

    assert isinstance(trial.error(), ConnectionFailed)
    assert [] == [files for files in put if files]
    assert {b"a/f"} == set(source.files)


def test_a_run_may_be_cancelled_while_directories_are_made():
    """Nothing is put there any more, and nothing is left that waits."""
    source, destination = source_of({b"a": 0o700}, [b"a/f"]), MemoryStore()
    held_back(destination, "make_directories")
    put = asked(destination, "put_small")

    trial = Trial(source, destination)
    trial.ending.cancel()
    trial.clock.pump([0.05] * 200)

    assert isinstance(trial.error(), Interrupted)
    assert [] == [files for files in put if files]
    assert {b"a/f"} == set(source.files)
    assert [] == trial.clock.getDelayedCalls()


def test_a_directory_is_made_after_the_one_that_it_is_in():
    """Calls are worked on side by side, so the page below waits for the page above, and so do its files."""
    source = source_of({b"a": 0o700, b"a/b": 0o750}, [b"a/0", b"a/1", b"a/2", b"a/3", b"a/b/f", b"a/b/g"])
    destination = MemoryStore()
    calls, waiting = held_back(destination, "make_directories")
    put = asked(destination, "put_small")

    trial = Trial(source, destination)
    before = list(calls), [files for files in put if files]
    waiting[0].callback(None)
    trial.clock.pump([0.05] * 200)
    waiting[1].callback(None)
    trial.clock.pump([0.05] * 200)

    assert ([[b"a"]], []) == before
    assert [[b"a"], [b"a/b"]] == calls
    assert trial.error() is None
    assert 6 == len(destination.files)
    assert Attributes(1001, 0o750) == destination.directories[b"a/b"]


def test_what_is_skipped_or_refused_makes_no_directory():
    """Only files that are really moved have directories made for them."""
    source = source_of({b"a": 0o700}, [b"a/f"])
    destination = MemoryStore({b"a/f": b"another one"})
    made = asked(destination, "make_directories")

    Trial(source, destination, policy=OnConflict.SKIP)

    assert [] == made
    assert 0o755 == destination.directories[b"a"].mode


def test_files_that_were_put_aside_find_their_directories_open():
    """A read-only directory gets its mode when the last attempt at what is in it is over."""
    source, destination = source_of({b"a": 0o555}, [b"a/f", b"a/g"]), MemoryStore()
    source.fail_next["remove", b"a/f"] = SourceChanged("a/f: changed after it was read")
    modes = []
    put = destination.put_small

    def watched(files, policy):
        modes.extend(destination.directories[b"a"].mode for _ in files)
        return put(files, policy)

    destination.put_small = watched

    assert Trial(source, destination).error() is None
    assert {0o755} == set(modes)
    assert Attributes(1000, 0o555) == destination.directories[b"a"]


def test_memory_is_bounded(monkeypatch):
    """When too many directories are remembered, those that are done are set; in the end all are, once each."""
    monkeypatch.setattr(module, "MAX_REMEMBERED_DIRECTORIES", 10)
    modes = {b"d%03d" % number: 0o711 for number in range(100)}
    source, destination = source_of(modes, [path + b"/f" for path in modes]), MemoryStore()
    done = asked(destination, "set_directories")

    assert Trial(source, destination).error() is None

    assert {path: Attributes(1000 + number, 0o711) for number, path in enumerate(modes)} == destination.directories
    assert sorted(modes) == sorted(each.path for call in done for each in call)
    assert max(map(len, done)) < 20


def test_what_cannot_be_made_or_set_fails_nothing():
    """A directory of somebody else stays as it is; a file that cannot be put there says so itself."""
    source, destination = source_of({b"a": 0o700}, [b"a/f"]), MemoryStore()
    destination.fail_next["make_directories", b"a"] = StorageError("a: Permission denied")
    destination.fail_next["set_directories", b"a"] = StorageError("a: Operation not permitted")

    trial = Trial(source, destination)

    assert trial.error() is None
    assert [] == [event for event in trial.events if isinstance(event, Failed)]
    assert 0o700 == destination.directories[b"a"].mode


def test_after_a_lost_connection_directories_get_the_times_they_had():
    """What was known before it was lost still counts: the removals have changed the times at the source."""
    source, destination = source_of({b"a": 0o711, b"b": 0o711}, [b"a/f", b"b/f"]), MemoryStore()
    destination.fail_next["set_directories", b""] = ConnectionFailed("lost")
    trial = Trial(source, destination)
    assert isinstance(trial.error(), ConnectionFailed)

    again = []
    trial.run.resumed([Side(source, "src")], Side(destination, "dst")).start().addBoth(again.append)
    trial.clock.pump([0.05] * 200)

    assert [None] == again
    assert {b"a": Attributes(1000, 0o711), b"b": Attributes(1001, 0o711)} == destination.directories


def along(destination):
    """A destination to which small files bring their directories, and the calls that make any otherwise."""
    destination.takes_directories = True
    calls, make = [], destination.make_directories
    destination.make_directories = lambda some: calls.append([each.path for each in some]) or make(some)
    return calls


def test_directories_go_along_with_small_files():
    """So there is no round trip before the first of them; they arrive as if they had been made before."""
    modes = {b"a": 0o700, b"a/b": 0o750, b"c": 0o711}
    source, destination = source_of(modes, [b"a/b/f", b"c/f", b"c/g", b"top"]), MemoryStore()
    source.page = 10
    put, brought = destination.put_small, []
    along(destination)
    destination.put_small = lambda *given: brought.append(given[2:]) or put(*given)

    trial = Trial(source, destination)

    assert None is trial.error()
    assert [(), ([Directory(path, mode) for path, mode in modes.items()],)] == brought
    assert modes == {path: attributes.mode for path, attributes in destination.directories.items()}
    assert {b"a/b/f", b"c/f", b"c/g", b"top"} == set(destination.files)


def test_what_large_files_go_into_is_made_before():
    """Also what small ones beside them have announced."""
    source = source_of({b"a": 0o700, b"b": 0o711}, [b"a/f"])
    source.plant(b"b/large", bytes(MAX_SMALL_BYTES + 1))
    source.page = 10
    destination = MemoryStore()
    # What has come already is not asked for again.
    put, late = destination.put_small, Deferred()
    destination.put_small = lambda *given: (late if given[0] else succeed(None)).addCallback(lambda _: put(*given))
    calls = along(destination)

    trial = Trial(source, destination)
    before = list(calls)
    late.callback(None)

    assert None is trial.error()
    assert [[b"a", b"b"]] == before == calls[:1]
    assert {b"a": 0o700, b"b": 0o711} == {path: each.mode for path, each in destination.directories.items()}
    assert {b"a/f", b"b/large"} == set(destination.files)


def test_directories_that_did_not_arrive_go_along_with_what_is_tried_again():
    """After a refusal, and over another connection: else the copy would be more open than its source."""
    source, destination = source_of({b"a": 0o700}, [b"a/f"]), MemoryStore()
    calls = along(destination)
    destination.fail_next["put_small", b""] = ConnectionFailed("lost")
    trial = Trial(source, destination)
    assert isinstance(trial.error(), ConnectionFailed)
    before = dict(destination.directories)

    seen = []
    put = destination._put
    destination._put = lambda *given: seen.append(destination.directories[b"a"].mode) or put(*given)
    again = []
    trial.run.resumed([Side(source, "src")], Side(destination, "dst")).start().addBoth(again.append)
    trial.clock.pump([0.05] * 200)

    assert ({}, [None], [0o700]) == (before, again, seen)
    assert [[b"a"]] == calls


def test_a_pattern_spares_directories_in_which_nothing_is_moved():
    """What --exclude names is not touched at the destination either."""
    source, destination = source_of({b"a": 0o555}, []), source_of({b"a": 0o755}, [])

    Trial(source, destination, selection=selection([("exclude", "a")]))

    assert 0o755 == destination.directories[b"a"].mode


def local(path):
    """A store of a directory of this machine, without threads."""
    return LocalStore(os.fsencode(path), run_in_thread=maybeDeferred)


def tree(tmp_path):
    """A source whose directories are open to some, with an age."""
    source = tmp_path / "source"
    for name, mode in (("private/in", 0o755), ("private", 0o700), ("group/in", 0o750), ("group", 0o711)):
        (source / name).mkdir(parents=True, exist_ok=True)
        for number in range(12):
            (source / name / f"{number}").write_bytes(b"content")
        (source / name / "large").write_bytes(b"content" * 500_000)
        (source / name).chmod(mode)
    for name in ("private/in", "private", "group/in", "group", ""):
        os.utime(source / name, ns=(1, 1_234_567_890_123_456_789))
    source.chmod(0o750)
    return source


def state(folder):
    """Mode and time of all directories below a folder."""
    return {
        os.path.relpath(where, folder): (os.stat(where).st_mode & 0o7777, os.stat(where).st_mtime_ns)
        for where, _, _ in os.walk(folder)
        if where != str(folder)
    }


def test_at_no_instant_is_a_directory_more_open_than_its_source(tmp_path, monkeypatch):
    """After each call that makes or changes anything, nobody but the owner may do more than at the source."""
    source, target = tree(tmp_path), tmp_path / "target"
    wanted = state(source)
    allowed = {name: mode & 0o077 for name, (mode, _) in wanted.items()} | {".": 0o050}
    seen: set[str] = set()

    def watching(name):
        original = getattr(os, name)

        def call(*arguments, **options):
            answer = original(*arguments, **options)
            for where, _, files in os.walk(target):
                relative = os.path.relpath(where, target)
                seen.add(relative)
                assert not stat.S_IMODE(os.stat(where).st_mode) & 0o077 & ~allowed[relative], (name, relative)
                assert all(os.stat(os.path.join(where, each)).st_mode & 0o777 <= 0o644 for each in files)
            return answer

        monkeypatch.setattr(os, name, call)

    umask = os.umask(0)
    try:
        for name in ("mkdir", "fchmod", "rename"):
            watching(name)
        trial = Trial(local(source), local(target))
    finally:
        os.umask(umask)

    assert trial.error() is None
    assert {*wanted, "."} == seen
    assert wanted == state(target)
    assert 0o750 == stat.S_IMODE(target.stat().st_mode)


def test_a_location_that_is_there_stays_as_it_is(tmp_path):
    """Only what is below the destination is carried over, and a set-gid bit there stays and is inherited."""
    source, target = tree(tmp_path), tmp_path / "target"
    target.mkdir()
    target.chmod(0o2775)
    wanted = {name: (mode | 0o2000, time) for name, (mode, time) in state(source).items()}

    assert Trial(local(source), local(target)).error() is None

    assert 0o2775 == stat.S_IMODE(target.stat().st_mode)
    assert wanted == state(target)


def test_a_symlink_at_the_destination_is_not_followed(tmp_path):
    """Neither is anything made behind it nor does what it leads to get another mode."""
    source, target, outside = tree(tmp_path), tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir(mode=0o777)
    before = stat.S_IMODE(outside.stat().st_mode)
    (target / "private").symlink_to(outside)

    trial = Trial(local(source), local(target))

    assert trial.error() is None
    assert [] == list(outside.iterdir())
    assert before == stat.S_IMODE(outside.stat().st_mode)
    assert {b"private/" in event.path for event in trial.events if isinstance(event, Failed)} == {True}


def test_a_default_acl_lets_nobody_into_what_is_private(tmp_path):
    """The bits for the group are the mask of what an ACL grants, so a mode of 0700 or 0600 leaves nothing of that."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "d").mkdir(parents=True)
    (source / "d" / "f").write_bytes(b"content")
    (source / "d" / "f").chmod(0o600)
    (source / "d").chmod(0o700)
    target.mkdir()
    everybody = [(0x01, 7, NOBODY), (0x02, 7, 65_534), (0x04, 7, NOBODY), (0x10, 7, NOBODY), (0x20, 5, NOBODY)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in everybody)
    os.setxattr(target, "system.posix_acl_default", acl)

    assert Trial(local(source), local(target)).error() is None

    assert [0o700, 0o600] == [stat.S_IMODE((target / name).stat().st_mode) for name in ("d", "d/f")]
    for name in ("d", "d/f"):
        granted = os.getxattr(target / name, "system.posix_acl_access")
        entries = [struct.unpack_from("<HHI", granted, place) for place in range(4, len(granted), 8)]
        assert [0] == [permissions for tag, permissions, _ in entries if tag == 0x10]


def test_what_root_copies_is_as_closed_as_its_source(tmp_path):
    """Root looks into it all the same."""
    source, target = source_of({b"closed": 0o100}, [b"closed/f"]), tmp_path / "target"

    trial = Trial(source, local(target))

    assert trial.error() is None
    assert (0o500 if os.getuid() else 0o100) == stat.S_IMODE((target / "closed").stat().st_mode)


@pytest.mark.parametrize("mode", [0o311, 0o100, 0o611, 0])
def test_a_directory_that_its_owner_may_not_enter_can_be_moved_into_again(open_root, mode):
    """Who is not root keeps the right to look into the copy of one that only root can look into, for the next run."""
    os.chmod(open_root, 0o777)
    for name in (b"first", b"second"):
        source = source_of({b"closed": mode}, [b"closed/" + name])
        trial = Trial(source, LocalStore(open_root, run_in_thread=as_nobody))

        assert trial.error() is None
        assert [] == [each for each in trial.events if isinstance(each, Failed)]
        kept = os.stat(os.path.join(open_root, b"closed"))
        assert (mode | 0o500, 1_000) == (stat.S_IMODE(kept.st_mode), kept.st_mtime_ns)


@pytest.mark.parametrize("filled", [0, 1, 2, 3])
def test_so_many_are_remembered_and_no_more(monkeypatch, filled):
    """Those that files are put into, and those that lack something of their owner's permissions, count together."""
    monkeypatch.setattr(module, "MAX_REMEMBERED_DIRECTORIES", 4)
    known = Directories()
    full = [known.full]
    for number in range(4):
        mode = 0o755 if number < filled else 0o555
        here = known.listed([directory(b"%d" % number, mode=mode)])
        if number < filled:
            known.fill([b"%d/f" % number], here)
        full.append(known.full)

    assert [False] * 4 + [True] == full


@pytest.mark.parametrize("mode", [0o755, 0o555])
def test_what_cannot_be_done_yet_is_not_asked_for_again_at_once(monkeypatch, mode):
    """Directories that the listing is still in stay; so many more may come before it is time again."""
    monkeypatch.setattr(module, "MAX_REMEMBERED_DIRECTORIES", 3)
    known = Directories()

    def comes(path):
        here.update(known.listed([directory(path, mode=mode)]))
        if mode == 0o755:
            known.fill([path + b"/f"], here)

    here = {}
    for depth in range(1, 4):
        comes(b"/".join([b"d"] * depth))
    done = known.done(ended=False)
    full = [known.full]
    known.forget(done)
    for number in range(3):
        full.append(known.full)
        comes(b"d/d/d/%d" % number)

    assert ([], [True, False, False, False], True) == (done, full, known.full)


def test_what_only_has_to_be_closed_is_closed_once_and_not_while_the_listing_is_in_it():
    """Files may still be put there; if they are, it gets its time with its permissions."""
    known = Directories()
    here = known.listed([directory(b"a", mode=0o555), directory(b"a/b", mode=0o500), directory(b"a/c", mode=0o500)])
    early = known.done(ended=False)
    known.forget(early)
    known.fill([b"a/c/f"], here)
    late = known.done(ended=True)
    known.forget(late)

    assert [Directory(b"a/b", 0o500)] == early
    assert [Directory(b"a/c", 0o500, 1), Directory(b"a", 0o555, 1)] == late
    assert [] == known.done(ended=True)
