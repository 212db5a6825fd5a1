"""The mover over stores whose calls come late, and may fail: what is said of it, and that nothing is lost by it."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from realize.errors import (
    AccessDenied,
    Busy,
    Conflict,
    ConnectionFailed,
    DeadlineReached,
    Interrupted,
    NoSpace,
    NotFound,
    SameFile,
    StorageError,
)
from realize.mover.delta import DELTA_MIN_BYTES, GIVE_UP_AFTER_BYTES, Delta
from realize.mover.events import (
    End,
    Failed,
    Finished,
    Found,
    How,
    Left,
    NoRoom,
    Postponed,
    Pruned,
    SourceStarted,
    Started,
)
from realize.mover.events import Stopped as FileInterrupted
from realize.mover.filters import selection
from realize.mover.run import Run, Side, TransferOptions
from realize.mover.work import SideError
from realize.values import SPAN_BYTES, SPANS_AHEAD, Attributes, Entry, Kind, OnConflict, Where, WhereKind
from tests import test_move
from tests.memory_store import MemoryStore
from tests.store_helpers import digest
from tests.test_manifest import Notes
from tests.test_move import BIG, HangingStore, contents, moved

OF_ONE_FILE = {
    "open_reader",
    "block_digests",
    "skip",
    "cut",
    "pick",
    "read",
    "finish",
    "match_final",
    "open_writer",
    "match",
    "offer",
    "write",
    "commit",
}
"""Calls that are about one file; if any other fails, nothing of that store can be relied upon."""

SILENT = {"make_directories", "set_directories", "prune"}
"""What cannot be done to one directory shows when a file is put there, or does no harm."""


class Script:
    """What happens to the calls of both stores of a run: each is answered after a while, and some go wrong.

    ``fault(end, number)`` is asked for each; an error that it answers is what the call fails with, and
    ``item(end, number)`` likewise for the first of the items that it is about.
    """

    def __init__(self, clock):
        self.clock = clock
        self.calls = []
        self.open = []
        self.fault = self.item = lambda *_: None

    def store(self, end, behind):
        """A store that follows it."""
        return Late(self, end, behind)

    def begin(self, end, name, arguments, options):
        """Take note of a call; the answer is its number, and the error that it fails with."""
        number = len(self.calls)
        self.calls.append((end, name, arguments, options))
        return number, self.fault(end, number)

    def opened(self, end, behind):
        """What is to be closed."""
        late = Late(self, end, behind)
        self.open.append(behind)
        return late

    def listing(self, end, walk, options):
        """It begins at once."""
        _, error = self.begin(end, "walk", (), options)
        if error is not None:
            raise error
        return self.opened(end, walk(**options))

    async def called(self, end, name, call, arguments, options):
        """Let it take a while, and perhaps fail."""
        number, error = self.begin(end, name, arguments, options)
        await deferLater(self.clock, 0.01)
        if error is not None:
            raise error
        answer = await call(*arguments, **options)
        error = self.item(end, number)
        if error is not None and isinstance(answer, list) and answer:
            answer = [error, *answer[1:]]
        if name == "open_reader":
            return self.opened(end, answer)
        return Late(self, end, answer) if name == "open_writer" else answer

    def closed(self, behind, close):
        """It is closed, perhaps once more."""
        if behind in self.open:
            self.open.remove(behind)
        close()


class Late:
    """A store, or what was opened in one, that follows a script."""

    AT_ONCE = frozenset({"keeps_both", "reads_at_once", "takes_at_once", "round_trip", "in_transit", "at_most", "stop"})

    def __init__(self, script, end, behind):
        self._script = script
        self._end = end
        self._behind = behind

    def __getattr__(self, name):
        found = getattr(self._behind, name)
        if not callable(found) or name in self.AT_ONCE:
            return found
        if name == "walk":
            return lambda **options: self._script.listing(self._end, found, options)
        if name == "close":
            return lambda: self._script.closed(self._behind, found)

        def call(*arguments, **options):
            return Deferred.fromCoroutine(self._script.called(self._end, name, found, arguments, options))

        return call


LARGE = bytes(range(256)) * 4
"""It fits no batch here."""

SOURCE = {
    b"a/new": b"1",
    b"a/same": b"22",
    b"a/same size": b"333",
    b"a/other size": b"4444",
    b"large/changed": BIG[: 1 << 18] + b"grown",
    b"large/new": LARGE,
    b"large/partial": LARGE[::-1],
    b"large/same": LARGE[1:],
    b"large/same size": LARGE[2:],
}
DESTINATION = {
    b"a/same": b"22",
    b"a/same size": b"xxx",
    b"a/other size": b"y",
    b"large/changed": BIG[: 1 << 18],
    b"large/same": LARGE[1:],
    b"large/same size": LARGE[2:][::-1],
}
PARTIAL = SOURCE[b"large/partial"][:700]
REPLACED = {b"a/same size", b"a/other size", b"large/changed", b"large/same size"}


class Trial:
    """A run over late stores that have a file for each of the ways of the mover, and old directories that are empty."""

    def __init__(self, monkeypatch, *, item=None, fault=None, **options):
        monkeypatch.setattr("realize.mover.delta.DELTA_MIN_BYTES", 512)
        monkeypatch.setattr("realize.mover.large.COMPARE_STEP_BYTES", 1 << 20)
        self.source, self.destination = MemoryStore(SOURCE), MemoryStore(DESTINATION)
        self.destination.plant_partial(b"large/partial", PARTIAL)
        self.destination.takes_at_once = lambda: 10
        self.source.plant_directory(b"empty", Attributes(1, 0o755))
        self.source.obstacles[b"link"] = "symlink"
        self.events, self.result, self.clock = [], [], Clock()
        self.script = Script(self.clock)
        self.script.fault, self.script.item = fault or self.script.fault, item or self.script.item
        self.notes = Notes(self.source)
        options = TransferOptions(**{"policy": OnConflict.REPLACE, "jobs": 2, "prune_age_ns": 0, **options})
        self.run = Run(
            [Side(self.script.store(End.SOURCE, self.source), "src")],
            Side(self.script.store(End.DESTINATION, self.destination), "dst"),
            options,
            self.events.append,
            self.clock,
            manifest=self.notes,
        )
        self.run.start().addBoth(self.result.append)
        finish(self.clock, self.result)
        self.left_open = [*self.script.open, *self.destination._writers, *self.destination.locked]
        self.lost = [
            path
            for path, content in SOURCE.items()
            if content not in (contents(self.source).get(path), contents(self.destination).get(path))
        ]

    def of(self, kind):
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


def finish(clock, result):
    """Let time pass until there is a result; it takes no longer than it has to."""
    while not result:
        upcoming = clock.getDelayedCalls()
        assert upcoming, "it waits for what never comes"
        clock.advance(min(call.getTime() for call in upcoming) - clock.seconds())
    assert [] == clock.getDelayedCalls()


def test_however_late_the_answers_come_everything_arrives(monkeypatch):
    """Each file is reported once, with how it ended, what of it travelled, and what it is; then what was empty goes."""
    trial = Trial(monkeypatch)

    sent = {path: len(content) for path, content in SOURCE.items()}
    sent |= {b"a/same": 0, b"large/same": 0, b"large/partial": len(LARGE) - len(PARTIAL)}
    finished = {event.path: event for event in trial.of(Finished)}
    changed = finished.pop(b"large/changed")
    how = {b"a/same": How.ALREADY_THERE, b"large/same": How.ALREADY_THERE} | dict.fromkeys(REPLACED, How.REPLACED)
    expected = {
        path: Finished(path, len(content), sent[path], how.get(path, How.CREATED), digest(content), removed=True)
        for path, content in SOURCE.items()
        if path != b"large/changed"
    }
    assert [None] == trial.result
    assert expected == finished
    assert (How.REPLACED, digest(SOURCE[b"large/changed"]), True) == (changed.how, changed.digest, changed.removed)
    assert 0 < changed.sent < changed.size // 2
    assert SOURCE == contents(trial.destination)
    assert {} == contents(trial.source)
    assert {b"a", b"empty", b"large"} == {event.path for event in trial.of(Pruned)}
    assert [Left(b"link", "symlink")] == trial.of(Left)
    assert (len(SOURCE), sum(map(len, SOURCE.values()))) == (
        sum(event.files for event in trial.of(Found)),
        sum(event.size for event in trial.of(Found)),
    )
    assert (set(SOURCE), []) == (set(trial.notes.told), trial.notes.too_late)
    assert sorted(SOURCE) == sorted(trial.notes.gone)


def test_what_a_store_is_asked_says_what_it_is_for(monkeypatch):
    """It may refuse what is open for writing only if it knows that a file is to go, and replaces only what was seen."""
    moving, copying = Trial(monkeypatch).script.calls, Trial(monkeypatch, remove=False, preserve=False).script.calls

    def options_of(calls, *names):
        return [options for _, name, _, options in calls if name in names]

    opening = {arguments[0]: (arguments[2], options) for _, name, arguments, options in moving if name == "open_writer"}
    assert {True} == {options["removing"] for options in options_of(moving, "open_reader", "read_small")}
    assert {False} == {options["removing"] for options in options_of(copying, "open_reader", "read_small")}
    assert {True} == {options["preserve"] for options in options_of(moving, "open_writer")}
    assert {False} == {options["preserve"] for options in options_of(copying, "open_writer")}
    for path, (policy, options) in opening.items():
        there = path in DESTINATION
        assert (path, OnConflict.REPLACE if there else OnConflict.FAIL) == (path, policy)
        assert (path, there) == (path, options["replaces"] is not None)
    assert 1 == len(options_of(moving, "set_directories"))
    assert [{"partials": True, "avoid": moving_avoid(moving), "leave": (), "one_file_system": False}] == options_of(
        moving, "walk"
    )[1:]


def moving_avoid(calls):
    """What the first listing was to stay out of."""
    return next(options["avoid"] for _, name, _, options in calls if name == "walk")


@pytest.mark.parametrize("kind", [StorageError, ConnectionFailed])
def test_whichever_call_fails_the_right_end_is_named_and_nothing_is_lost(monkeypatch, kind):
    """It fails one file, or ends the run where the store can do nothing more; the rest is moved, if there is a rest.

    A connection that is lost stays lost.
    """
    calls = Trial(monkeypatch).script.calls
    assert {name for _, name, *_ in calls} >= OF_ONE_FILE
    for wanted, (end, name, *_) in enumerate(calls):
        lost = kind is ConnectionFailed
        trial = Trial(monkeypatch, fault=from_then_on(end, wanted, kind) if lost else only(wanted, kind))

        [result] = trial.result
        about = (wanted, end, name)
        assert (about, []) == (about, trial.lost)
        assert (about, []) == (about, trial.notes.too_late)
        assert (about, []) == (about, trial.left_open if not lost else trial.script.open)
        if name in OF_ONE_FILE and not lost:
            failed = [(event.end, type(event.error)) for event in trial.of(Failed)]
            assert (about, [(end, kind)], None) == (about, failed, result)
            assert (about, 1) == (about, len(contents(trial.source)))
            for event in trial.of(FileInterrupted):
                kept = len(trial.destination.partials.get(event.path, b""))
                assert (about, kept) == (about, event.reached)
                assert (about, event.size) == (about, event.reached if name in {"finish", "commit"} else event.size)
        else:
            said = (type(result.value), str(result.value))
            assert (about, kind, f"{end.value} {_names(end)}: broken") == (about, *said)


def only(wanted, kind):
    """What one of the calls goes wrong with."""
    return lambda _end, number: kind("broken") if number == wanted else None


def from_then_on(broken, wanted, kind):
    """What all calls of one end go wrong with from a certain one on."""
    return lambda end, number: kind("broken") if number >= wanted and end is broken else None


def _names(end):
    return "src" if end is End.SOURCE else "dst"


@pytest.mark.parametrize("kind", [StorageError, Busy])
def test_whichever_item_fails_it_fails_alone(monkeypatch, kind):
    """What would go wrong again stays at the source, and is named; what was only busy moves in the end."""
    calls = Trial(monkeypatch).script.calls
    for wanted, (end, name, arguments, _) in enumerate(calls):
        items = arguments[0] if arguments and name not in OF_ONE_FILE | SILENT else None
        if not (isinstance(items, list) and items) or (name == "describe" and not kind.permanent):
            continue  # what stands against describing a file does not pass by itself
        trial = Trial(monkeypatch, item=only(wanted, kind))

        about = (wanted, end, name)
        said = trial.of(Failed) if kind.permanent else trial.of(Postponed)
        assert (about, [None], []) == (about, trial.result, trial.lost)
        assert (about, []) == (about, trial.left_open)
        assert (about, [(end, kind)]) == (about, [(event.end, type(event.error)) for event in said])
        assert (about, {event.path for event in trial.of(Finished) if event.removed}) == (about, set(trial.notes.gone))
        if kind.permanent:
            path = said[0].path
            assert (about, {path}) == (about, set(contents(trial.source)) | {path})
            assert (about, len(SOURCE) - 1) == (about, len(trial.of(Finished)))
        else:
            assert (about, {}, []) == (about, contents(trial.source), trial.of(Failed))
            assert (about, SOURCE) == (about, contents(trial.destination))


# What a run says of its locations, and when it is over.


def started(sources, destination, clock=None, **options):
    """A run that was started, and a list that its result comes to."""
    result = []
    sides = [Side(store, f"src{number}") for number, store in enumerate(sources)]
    events = []
    run = Run(sides, Side(destination, "dst"), TransferOptions(**options), events.append, clock or Clock())
    run.start().addBoth(result.append)
    return run, result, events


def resumed(run, sources, destination):
    """The result of a run that goes on over new connections."""
    result = []
    sides = [Side(store, f"src{number}") for number, store in enumerate(sources)]
    run.resumed(sides, Side(destination, "dst")).start().addBoth(result.append)
    finish(run.clock, result)
    return result


def test_without_the_right_to_write_nothing_is_read():
    """A destination that refuses is named, whether or not there is anything to move."""
    for files in ({}, {b"a": b"1"}):
        source, destination = MemoryStore(files), MemoryStore()
        destination.fail_next["put_small", b""] = AccessDenied("this peer may not write in inbox")

        error = test_move.Trial(source, destination).finish()

        assert (
            AccessDenied,
            "destination dst: this peer may not write in inbox (`realize check dst` says what to fix)",
        ) == (type(error), str(error))
        assert files == contents(source)


def test_a_destination_that_refuses_a_late_source_ends_the_run():
    """It is asked again for that one, and named."""
    slow, good, destination = HangingStore("open", {b"a": b"slow"}), MemoryStore({b"b": b"good"}), MemoryStore()
    trial = test_move.Trial(slow, destination, good)
    trial.clock.pump([0.5] * 20)
    destination.fail_next["put_small", b""] = AccessDenied("you may not write any more")
    slow.gate.callback(None)

    assert str(trial.finish()).startswith("destination dst: you may not write any more")
    assert {b"a": b"slow"} == contents(slow)


def test_a_directory_is_not_moved_into_itself():
    """Both names are said, and everything stays."""
    store = MemoryStore({b"a": b"1"})

    error = test_move.Trial(store, store).finish()

    assert SameFile is type(error)
    assert "source src0 and destination dst: they are the same directory" == str(error)
    assert {b"a": b"1"} == contents(store)


def test_a_late_source_is_not_moved_into_itself_either():
    """That it turns out to be the destination only when the others are moved makes no difference."""
    slow, good, destination = HangingStore("open", {b"a": b"slow"}), MemoryStore({b"b": b"good"}), MemoryStore()
    slow._device = destination._device
    trial = test_move.Trial(slow, destination, good)
    trial.clock.pump([0.5] * 20)
    slow.gate.callback(None)

    assert trial.finish() is None
    assert [(b"", End.SOURCE, SameFile)] == [(each.path, each.end, type(each.error)) for each in trial.of(Failed)]
    assert ({b"a": b"slow"}, {b"b": b"good"}) == (contents(slow), contents(destination))


@pytest.mark.parametrize("kind", [WhereKind.DIRECTORY, WhereKind.ABSENT])
def test_a_destination_that_is_mounted_below_the_source_is_not_entered(kind):
    """Neither for its files nor for its empty directories; one that is not there yet is nowhere below."""
    source, destination = MemoryStore({b"a": b"1"}), MemoryStore()
    walk, avoided, there = source.walk, [], (b"there", b"above")

    def watched(*, avoid, **options):
        avoided.append(avoid)
        return walk(avoid=avoid, **options)

    async def where():
        return Where(kind, there, 0)

    source.walk = watched
    destination.open = lambda *_: Deferred.fromCoroutine(where())
    moved(source, destination, prune_age_ns=0)

    assert [b"there" if kind is WhereKind.DIRECTORY else b""] * 2 == avoided


def test_a_resumed_run_works_with_what_the_new_connections_lead_to():
    """Nothing is asked of the old ones, which are lost, and the destination is told how old the run is."""
    clock = Clock()
    clock.advance(1000)
    ages, source, old, new = [], MemoryStore({b"a": BIG}), MemoryStore(), MemoryStore()
    for store in (old, new):
        opened = store.open
        store.open = lambda salt, age=0, opened=opened: ages.append(age) or opened(salt, age)
    old.fail_next["open_writer", b"a"] = ConnectionFailed("lost")
    run, lost, _ = started([MemoryStore({b"a": BIG})], old, clock)
    clock.advance(5)

    assert "destination dst: lost" == str(lost[0].value)
    assert [None] == resumed(run, [source], new)
    assert [0, 5 * 10**9] == ages
    assert ({}, {b"a": BIG}, {}) == (contents(old), contents(new), contents(source))


def test_a_run_of_which_all_is_done_ends_at_once():
    """The connection may be lost after the last file: nothing is left to do, and nothing is left behind."""
    source, destination = MemoryStore({b"a": b"1"}), MemoryStore()
    run, result, _ = started([source], destination)
    finish(run.clock, result)
    source.plant(b"late", b"2")

    assert [None] == resumed(run, [source], destination)
    assert {b"late"} == set(source.files)


def test_a_directory_that_is_gone_after_a_lost_connection_is_missing():
    """Moving leaves directories where they are: that one was not moved by us."""
    source, destination = MemoryStore({b"a": BIG}), MemoryStore()
    destination.fail_next["open_writer", b"a"] = ConnectionFailed("lost")
    run, _, _ = started([source], destination)

    async def where():
        return Where(WhereKind.ABSENT, (b"x",), 0)

    source.open = lambda *_: Deferred.fromCoroutine(where())
    [result] = resumed(run, [source], destination)

    assert (NotFound, "source src0: no such file or directory") == (result.type, str(result.value))


def test_who_waits_for_a_source_to_answer_can_be_stopped():
    """Nobody waits for the answer any more."""
    slow = HangingStore("open", {b"a": b"1"})
    trial = test_move.Trial(slow, MemoryStore(), MemoryStore({b"b": b"2"}))
    trial.done.cancel()

    assert isinstance(trial.finish(), Interrupted)
    assert slow.gate.called


def test_a_source_that_is_slow_but_gets_on_is_waited_for():
    """Every sign of life counts, so the next one begins when it has ended, however long that takes."""
    clock, slow = Clock(), MemoryStore({b"%d" % number: b"x" for number in range(9)}, page=1)
    walk = slow.walk

    def slowly(**options):
        listing = walk(**options)
        listed = listing.next_page
        listing.next_page = lambda: deferLater(clock, 3, listed)
        return listing

    slow.walk = slowly
    _, result, events = started([slow, MemoryStore({b"b": b"2"})], MemoryStore(), clock)
    finish(clock, result)

    order = [type(event) for event in events if isinstance(event, SourceStarted | Finished)]
    assert [SourceStarted, *[Finished] * 9, SourceStarted, Finished] == order


def test_when_the_time_is_over_a_long_listing_is_not_read_on():
    """What is under way goes on, and nothing more is looked at."""
    source, destination = MemoryStore({b"%03d" % number: b"x" for number in range(100)}, page=1), MemoryStore()
    walk, read = source.walk, []

    def watched(**options):
        listing = walk(**options)
        listed = listing.next_page
        listing.next_page = lambda: read.append(1) or listed()
        return listing

    source.walk = watched
    events, result = [], []
    run = Run([Side(source, "src")], Side(destination, "dst"), TransferOptions(), events.append, Clock())
    run.observer = lambda event: run.stop_flag.request() if isinstance(event, Finished) else None
    run.start().addBoth(result.append)

    assert DeadlineReached is result[0].type
    assert len(read) < 5


def test_what_waits_for_its_turn_when_the_time_is_over_is_not_begun():
    """Neither what waits for a slot, nor what waits because there is hardly any room."""
    files = {b"%d" % number: BIG[: len(BIG) - number] for number in range(5)}
    source, destination, clock = MemoryStore(files), MemoryStore(), Clock()
    destination.fail_next["write", b"0"] = NoSpace("0: No space left on device")
    script, result, begun = Script(clock), [], []
    sides = Side(script.store(End.SOURCE, source), "src"), Side(script.store(End.DESTINATION, destination), "dst")

    def observe(event):
        if isinstance(event, Started):
            begun.append(event.path)
        if begun[-1:] == [b"2"]:
            run.stop_flag.request()

    run = Run([sides[0]], sides[1], TransferOptions(jobs=2), observe, clock)
    run.start().addBoth(result.append)
    finish(clock, result)

    assert DeadlineReached is result[0].type
    assert [b"0", b"1", b"2"] == begun
    assert {b"0", b"3", b"4"} == set(source.files)


def test_when_the_time_is_over_no_directory_is_removed_any_more():
    """What the listing has not come to the end of may still be in use."""
    source, result = MemoryStore(), []
    for path in (b"a", b"b"):
        source.plant_directory(path, Attributes(1, 0o755))
    source.page = 1
    events = []
    run = Run(
        [Side(source, "src")], Side(MemoryStore(), "dst"), TransferOptions(prune_age_ns=0), events.append, Clock()
    )
    run.observer = lambda event: run.stop_flag.request() if isinstance(event, Pruned) else None
    run.start().addBoth(result.append)

    assert DeadlineReached is result[0].type
    assert {b"b"} == set(source.directories)


def test_what_cannot_be_looked_at_fails():
    """It is named with what the system said, and the rest is moved."""
    source, destination = MemoryStore({b"a": b"1"}), MemoryStore()
    walk = source.walk

    def with_a_closed_one(**options):
        listing = walk(**options)
        listing._entries.append(Entry(b"closed", Kind.UNREADABLE, note="closed: Permission denied"))
        return listing

    source.walk = with_a_closed_one
    trial = moved(source, destination)

    assert [(b"closed", End.SOURCE, "closed: Permission denied")] == [
        (event.path, event.end, str(event.error)) for event in trial.of(Failed)
    ]
    assert {b"a": b"1"} == contents(destination)


def test_a_connection_that_a_late_source_has_lost_is_lost():
    """The run ends with that, to go on over another one."""
    slow, good, destination = HangingStore("open", {b"a": b"slow"}), MemoryStore({b"b": b"good"}), MemoryStore()
    slow.fail_next["open", b""] = ConnectionFailed("lost")
    trial = test_move.Trial(slow, destination, good)
    trial.clock.pump([0.5] * 20)
    slow.gate.callback(None)

    error = trial.finish()
    assert (ConnectionFailed, "source src0: lost") == (type(error), str(error))
    assert [] == trial.of(Failed)


def test_a_single_file_that_was_moved_is_no_failure_if_its_source_is_late():
    """After a lost connection it turns out only in the end that nothing is left to do there."""
    slow, other, destination = HangingStore("open", {b"f": BIG}), MemoryStore(), MemoryStore()

    async def where(kind):
        return Where(kind, (b"x", b"y"), 0)

    slow.open = lambda *_: Deferred.fromCoroutine(where(WhereKind.FILE))
    destination.fail_next["write", b"f"] = ConnectionFailed("lost")
    run, lost, events = started([slow, other], destination)
    slow.open = lambda *_: deferLater(run.clock, 60, lambda: Deferred.fromCoroutine(where(WhereKind.ABSENT)))

    assert ConnectionFailed is lost[0].type
    assert [None] == resumed(run, [slow, other], destination)
    assert [] == [event for event in events if isinstance(event, Failed)]


@pytest.mark.parametrize("aside", [False, True])
def test_directories_are_set_for_good_only_when_nothing_in_them_is_under_way(monkeypatch, aside):
    """Also if there are so many that those that are done are set in between, and files come late or are put aside."""
    monkeypatch.setattr("realize.mover.directories.MAX_REMEMBERED_DIRECTORIES", 3)
    source, destination, clock = MemoryStore(), MemoryStore(), Clock()
    paths = [b"d%d" % number for number in range(10)]
    for number, path in enumerate(paths):
        source.plant(path + b"/f", b"content")
        source.plant_directory(path, Attributes(1000 + number, 0o711))
    if aside:
        destination.fail_next["put_small", paths[0] + b"/f"] = Busy("somebody else is writing it")
    script = Script(clock)
    _, result, _ = started([script.store(End.SOURCE, source)], script.store(End.DESTINATION, destination), clock)
    finish(clock, result)

    assert [None] == result
    assert {path: Attributes(1000 + number, 0o711) for number, path in enumerate(paths)} == destination.directories


# What fits, and what there is room for.


def test_files_as_large_as_a_batch_arrive_too():
    """Just at the limit, and on both sides of it."""
    files = {b"%d" % size: b"x" * size for size in range(95, 106)}
    source, destination = MemoryStore(files), MemoryStore()
    destination.takes_at_once = lambda: 100
    batched = test_move.batched_into(destination)

    trial = moved(source, destination)

    assert (files, {}) == (contents(destination), contents(source))
    assert sorted(files) == sorted(event.path for event in trial.of(Finished))
    assert sorted(path for path, content in files.items() if len(content) <= 100) == sorted(batched)


def test_small_files_without_room_are_tried_once_more(monkeypatch):
    """Those that were sent in vain, and those that were not tried because of it."""
    monkeypatch.setattr("realize.mover.small.MAX_BATCH_FILES", 1)
    files = {b"x": b"1", b"y": b"2"}
    source, destination = MemoryStore(files), MemoryStore()
    destination.fail_next["put_small", b"x"] = NoSpace("x: No space left on device")

    trial = moved(source, destination, jobs=1)

    assert ([b"x", b"y"], []) == ([event.path for event in trial.of(Postponed)], trial.of(Failed))
    assert files == contents(destination)


def test_nothing_is_missing_if_there_is_room_by_the_end():
    """Somebody else may have made it since."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore()
    destination.fail_next["open_writer", b"x"] = NoSpace("x: No space left on device")

    assert [NoRoom(1, len(BIG), 0)] == moved(source, destination).of(NoRoom)


def test_that_nobody_knows_how_much_is_missing_is_no_failure():
    """What did not fit is said all the same."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore()
    destination.fail_next["open_writer", b"x"] = NoSpace("x: No space left on device")
    destination.fail_next["space", b""] = StorageError("it does not say")

    assert [NoRoom(1, len(BIG), None)] == moved(source, destination).of(NoRoom)


def test_what_is_refused_before_it_is_sent_says_nothing_of_others():
    """It fails at once, for nothing was sent in vain; a file of the same size that is let in moves without delay."""
    source, destination = MemoryStore({b"x": BIG, b"y": BIG}), MemoryStore()
    destination.fail_next["open_writer", b"x"] = NoSpace("x: over quota")

    trial = moved(source, destination, jobs=1)

    assert ([b"x"], []) == ([event.path for event in trial.of(Failed)], trial.of(Postponed))
    assert {b"y": BIG} == contents(destination)


def test_a_file_that_breaks_off_does_not_hold_up_others():
    """That content was sent in vain is a sign of scarcity only if there was no room for it."""
    source, destination = MemoryStore({b"x": BIG, b"y": BIG}), MemoryStore()
    source.fail_next["finish", b"x"] = StorageError("x: Input/output error")

    trial = moved(source, destination, jobs=1)

    assert ([b"x"], []) == ([event.path for event in trial.of(Failed)], trial.of(Postponed))
    assert {b"y": BIG} == contents(destination)


# What is said of one file.


@pytest.mark.parametrize(("content", "seen"), [(b"small", digest(b"small")), (BIG, b"")])
def test_what_is_skipped_was_not_removed(content, seen):
    """Whether another file was there before, of the same size or not, or has come while ours was on its way."""
    files = {b"same size": content, b"taken": content, b"there": content}
    source = MemoryStore(files)
    destination = MemoryStore({b"same size": content[::-1], b"there": b"another one"})
    describe, open_writer = destination.describe, destination.open_writer

    def described(paths):
        found = describe(paths)
        if content is not BIG:
            destination.plant(b"taken", b"another one")
        return found

    def opened(path, *arguments, **options):
        opening = open_writer(path, *arguments, **options)
        destination.plant(path, b"another one")
        return opening

    destination.describe, destination.open_writer = described, opened
    trial = moved(source, destination, policy=OnConflict.SKIP)

    expected = {
        b"same size": Finished(b"same size", len(content), 0, How.SKIPPED, seen, removed=False),
        b"taken": Finished(b"taken", len(content), len(content), How.SKIPPED, digest(content), removed=False),
        b"there": Finished(b"there", len(content), 0, How.SKIPPED, b"", removed=False),
    }
    assert expected == {event.path: event for event in trial.of(Finished)}
    assert files == contents(source)


@pytest.mark.parametrize(("method", "content"), [("read_small", b"1"), ("open_reader", BIG)])
def test_of_what_is_gone_nothing_was_sent_or_removed(method, content):
    """It only has the size that it was listed with."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    source.fail_next[method, b"x"] = NotFound("x: no such file")

    trial = moved(source, destination)

    assert [Finished(b"x", len(content), 0, How.GONE, b"", removed=False)] == trial.of(Finished)


@pytest.mark.parametrize("content", [b"1", BIG])
def test_what_has_arrived_and_cannot_be_removed_is_said_to_be_there(content):
    """Unlike other files that fail, it is at both ends."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    source.fail_next["remove", b"x"] = StorageError("x: cannot be removed: Permission denied")

    (failed,) = moved(source, destination).of(Failed)

    assert (End.SOURCE, "x: cannot be removed: Permission denied; it has arrived at the destination") == (
        failed.end,
        str(failed.error),
    )
    assert {b"x": content} == contents(source) == contents(destination)


LONG = BIG + BIG[: 1 << 19]
"""What is not all compared at once, nor in rounds of the same length."""


@pytest.mark.parametrize("damaged", [True, False])
def test_a_partial_is_compared_to_its_end_in_several_rounds(monkeypatch, damaged):
    """However long it is, nothing of it is sent again, up to what differs."""
    monkeypatch.setattr("realize.mover.large.COMPARE_STEP_BYTES", 1 << 20)
    source, destination = MemoryStore({b"x": LONG}), MemoryStore()
    destination.plant_partial(b"x", LONG[: 1 << 20] + (bytes(100) if damaged else b"") + LONG[1 << 20 :])

    trial = moved(source, destination)

    assert [1 << 20 if damaged else len(LONG)] == [event.have for event in trial.of(Started)]
    assert [len(LONG) - (1 << 20) if damaged else 0] == [event.sent for event in trial.of(Finished)]
    assert {b"x": LONG} == contents(destination)


@pytest.mark.parametrize("damaged", [True, False])
def test_a_file_is_compared_to_its_end_in_several_rounds(monkeypatch, damaged):
    """It is there already only if all of it is."""
    monkeypatch.setattr("realize.mover.large.COMPARE_STEP_BYTES", 1 << 20)
    source = MemoryStore({b"x": LONG})
    destination = MemoryStore({b"x": LONG[:-1] + b"x" if damaged else LONG})

    trial = moved(source, destination)

    assert [How.REPLACED if damaged else How.ALREADY_THERE] == [event.how for event in trial.of(Finished)]
    assert ({}, {b"x": LONG}) == (contents(source), contents(destination))


def test_a_rest_that_is_short_is_sent_whole():
    """What a partial leaves of a file may not be worth looking for in the old version."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore({b"x": BIG + b"old"})
    destination.plant_partial(b"x", BIG[:-100_000])

    trial = moved(source, destination)

    assert [100_000] == [event.sent for event in trial.of(Finished)]
    assert {b"x": BIG} == contents(destination)


def test_what_may_not_be_replaced_any_more_when_its_turn_comes_stays():
    """A conflict that the destination reports itself is one, also if it held a file before."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore({b"x": b"old"})
    destination.fail_next["open_writer", b"x"] = Conflict("x: there is a directory of that name")

    trial = moved(source, destination)

    assert [(End.DESTINATION, Conflict)] == [(event.end, type(event.error)) for event in trial.of(Failed)]
    assert {b"x": BIG} == contents(source)


def test_a_small_file_that_has_come_meanwhile_is_looked_at_again():
    """It may turn out to be the same one; what was there before and may not be replaced is a conflict at once."""
    source, destination = MemoryStore({b"new": b"1", b"old": b"2"}), MemoryStore({b"old": b"other"})
    destination.fail_next["put_small", b"old"] = Conflict("old: there is a directory of that name")
    read = source.read_small

    def late(*arguments, **options):
        destination.plant(b"new", b"1")
        return read(*arguments, **options)

    source.read_small = late
    trial = moved(source, destination)

    assert {b"new": How.ALREADY_THERE} == trial.how()
    assert [(b"new", Busy)] == [(event.path, type(event.error)) for event in trial.of(Postponed)]
    assert [(b"old", Conflict)] == [(event.path, type(event.error)) for event in trial.of(Failed)]
    assert {b"old": b"2"} == contents(source)


def test_what_came_between_the_last_look_and_the_writer_is_not_replaced():
    """A file that somebody else has put over the old one just before we began to send is his only copy."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore({b"x": b"old"})
    open_writer = destination.open_writer

    def opened(*arguments, **options):
        destination.plant(b"x", b"only copy")
        destination.open_writer = open_writer
        return open_writer(*arguments, **options)

    destination.open_writer = opened
    trial = moved(source, destination)

    assert ({b"x": b"only copy"}, {b"x": BIG}) == (contents(destination), contents(source))
    assert [Conflict] == [type(event.error) for event in trial.of(Failed)]


@pytest.mark.parametrize(("old", "new", "looked"), [(0, 1, True), (-1, 1, False), (1, 0, True), (1, -1, False)])
def test_an_old_version_is_looked_at_from_a_certain_size_on(monkeypatch, old, new, looked):
    """Of both: below it, all is sent."""
    content = BIG[: DELTA_MIN_BYTES + new]
    source, destination = MemoryStore({b"x": content}), MemoryStore({b"x": BIG[: DELTA_MIN_BYTES + old]})
    destination.takes_at_once = lambda: 100

    [finished] = moved(source, destination).of(Finished)

    assert looked == (finished.sent < DELTA_MIN_BYTES // 2)
    assert {b"x": content} == contents(destination)


@pytest.mark.parametrize("ahead", [-1, 1])
def test_a_source_whose_clock_is_set_while_it_is_moved_holds_what_is_young(ahead):
    """How old a file is, is told by the clock as it was at the beginning, wherever it is set to; long runs too."""
    source, destination = MemoryStore(), MemoryStore()
    source.plant(b"young", b"3", Attributes(0, 0o644))
    walk = source.walk

    def late(**options):
        source.clock_ahead = ahead * 5 * 10**9
        return walk(**options)

    source.walk = late
    clock = Clock()
    clock.advance(1000)
    run, result, _ = started([source], destination, clock, selection=selection([], min_age=1.0))
    finish(run.clock, result)

    assert {b"young"} == set(source.files)


# The old version of a file: what is under way at once, and what is left of it when that goes wrong.


class Spans:
    """A reader and writer of a long file; what ``hold`` names is answered when we say so.

    Of its spans only the first one is found, and that only if ``found``.
    """

    def __init__(self, *hold, found=False):
        self.hold = hold
        self.found = found
        self.takes_holes = True
        self.cuts = self.picks = self.written = 0
        self.most = 0
        self.held = []

    def _answer(self, name, answer):
        answered = Deferred()
        if name in self.hold:
            self.held.append(answered)
        else:
            answered.callback(answer)
        return answered

    def cut(self):
        """One chunk for all of it."""
        self.cuts += 1
        self.most = max(self.most, self.cuts - self.picks)
        return self._answer("cut", [(SPAN_BYTES, b"digest")])

    def offer(self, chunks):
        """Say what is wanted."""
        found, self.found = self.found, False
        return self._answer("offer", [not found] * len(chunks))

    def pick(self, wanted):
        """Some of it will do."""
        answered = self._answer("pick", [b"content"] * len(wanted))
        answered.addCallback(self._picked)
        return answered

    def _picked(self, pieces):
        self.picks += 1
        return pieces

    def write(self, pieces):
        """It fits."""
        self.written += len(pieces)
        return self._answer("write", None)


def delta(spans, count, more=0):
    """What is moved of so many spans and bytes; and what comes of it."""
    result = []
    moving = Delta(spans, spans, count * SPAN_BYTES + more, lambda *_: None)
    Deferred.fromCoroutine(moving.run()).addBoth(result.append)
    return moving, result


def test_as_many_spans_are_under_way_as_may_be():
    """No more are cut and not picked than the other end allows, and no fewer, lest one stage waits for another."""
    spans = Spans("pick")
    _, result = delta(spans, 100)

    assert ([], SPANS_AHEAD) == (result, spans.most)
    while not result:
        spans.held.pop(0).callback([b"content"])
    assert SPANS_AHEAD == spans.most


def test_a_long_file_of_which_nothing_is_found_is_sent_as_usual():
    """From where the error was found to be fatal, beyond what was under way then."""
    spans = Spans()
    moving, result = delta(spans, 100)

    assert [None] == result
    assert spans.written == spans.cuts == spans.picks == 100 - moving.left // SPAN_BYTES
    assert GIVE_UP_AFTER_BYTES // SPAN_BYTES + 5 == spans.cuts


@pytest.mark.parametrize(("more", "expected"), [(-1, 2), (0, 2), (1, 3)])
def test_every_span_of_a_file_is_looked_for_and_none_behind_its_end(more, expected):
    """However long the last one is."""
    spans = Spans()
    _, result = delta(spans, 2, more)

    assert ([None], expected) == (result, spans.cuts)


def test_as_long_as_something_was_found_there_is_hope():
    """All of the file is looked for."""
    spans = Spans(found=True)
    _, result = delta(spans, 100)

    assert ([None], 100) == (result, spans.cuts)


@pytest.mark.parametrize(("hold", "end"), [("cut", End.SOURCE), ("offer", End.DESTINATION), ("pick", End.SOURCE)])
def test_what_is_asked_ahead_may_fail_as_well(hold, end):
    """Of what nobody waits for any more, an error is no news; a fault of ours is not hidden."""
    spans = Spans(hold)
    _, result = delta(spans, 100)
    first, second, third, *_ = [*spans.held, Deferred()]
    first.errback(ConnectionFailed("lost"))
    second.errback(ConnectionFailed("lost too"))
    third.errback(ValueError("a fault"))
    left = []
    third.addErrback(left.append)

    [ended] = result
    assert (SideError, end, "lost") == (ended.type, ended.value.end, str(ended.value.error))
    assert [ValueError] == [failure.type for failure in left]
