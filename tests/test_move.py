"""The mover over two stores in memory: what becomes of every file, whatever happens on the way."""

import os
import random
import weakref

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

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
    SourceChanged,
    StorageError,
    Unsettled,
    UsageError,
    VerifyFailed,
    WrongSize,
)
from realize.mover import move
from realize.mover.events import (
    End,
    Failed,
    Finished,
    Found,
    HeldBack,
    How,
    Left,
    Listed,
    NoRoom,
    Planned,
    Postponed,
    Progressed,
    SourceStarted,
    Started,
    UnderWay,
)
from realize.mover.events import Stopped as FileInterrupted
from realize.mover.filters import selection
from realize.mover.plan import Action
from realize.mover.run import Run, Side, TransferOptions
from realize.values import (
    BLOCK_BYTES,
    ZERO_BLOCK,
    Attributes,
    Entry,
    Expected,
    Kind,
    OnConflict,
    Space,
    Travelled,
    Where,
    WhereKind,
)
from tests import memory_store
from tests.memory_store import MemoryStore
from tests.store_helpers import block_digests, digest, partial_path

MIB = 1 << 20
BIG = random.Random(1).randbytes(3 * MIB)


class Trial:
    """A run over memory stores that is driven by hand."""

    def __init__(self, source, destination, *more_sources, feed=None, **options):
        self.events = []
        self.clock = Clock()
        self.result = []
        which = {name: options.pop(name, None) for name in ("names", "sorting", "allowance")}
        sources = [Side(store, f"src{number}", feed=feed) for number, store in enumerate((source, *more_sources))]
        wanted = TransferOptions(**{"policy": OnConflict.REPLACE, **options})
        run = Run(sources, Side(destination, "dst"), wanted, self.events.append, self.clock, **which)
        self.done = run.start()
        self.done.addBoth(self.result.append)

    def finish(self):
        """Let time pass until the run has ended; the answer is None, or the error it ended with."""
        self.clock.pump([0.05] * 200)
        [result] = self.result
        return getattr(result, "value", result)

    def of(self, kind):
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def how(self):
        """How each finished file ended."""
        return {event.path: event.how for event in self.of(Finished)}


def moved(source, destination, *more, **options):
    """A trial that ran to its end without an error of its own."""
    trial = Trial(source, destination, *more, **options)
    assert trial.finish() is None
    return trial


def batched_into(store):
    """The names that come to a store in batches, as they come."""
    put, names = store.put_small, []

    def remembered(files, policy):
        names.extend(file.path for file in files)
        return put(files, policy)

    store.put_small = remembered
    return names


def contents(store):
    """What a memory store holds."""
    return {path: file.content for path, file in store.files.items()}


def test_everything_moves():
    """Small, large and empty files arrive whole and leave the source."""
    files = {b"a": b"1", b"b/c": BIG, b"empty": b"", b"z": b"x" * 65_536}
    source, destination = MemoryStore(files), MemoryStore()

    trial = moved(source, destination)

    assert files == contents(destination)
    assert {} == source.files
    assert dict.fromkeys(files, How.CREATED) == trial.how()
    assert digest(BIG) == next(event.digest for event in trial.of(Finished) if event.path == b"b/c")
    assert len(BIG) == sum(event.amount for event in trial.of(Progressed) if event.path == b"b/c")
    assert 4 == sum(event.files for event in trial.of(Found))


def test_it_is_said_once_that_all_was_found():
    """When the last source was listed to its end, also if one of them could not be."""
    broken = MemoryStore({b"x": b"1"})
    broken.fail_next["walk", b""] = StorageError("cannot be listed")
    trial = moved(MemoryStore({b"a": b"1"}), MemoryStore(), broken, MemoryStore({b"b": b"2", b"c": BIG}))
    kinds = [type(event) for event in trial.events]

    assert 1 == kinds.count(Listed)
    assert kinds.index(Listed) > max(number for number, kind in enumerate(kinds) if kind is Found)
    assert 2 == kinds.count(Found)


def test_that_all_was_found_is_said_while_it_is_still_moved():
    """From then on people see how much is left, of which most may be in one large file."""
    destination = MemoryStore()
    destination.open_writer = lambda *_, **__: Deferred()
    trial = Trial(MemoryStore({b"f": BIG}), destination)
    kinds = [type(event) for event in trial.events]
    trial.done.cancel()

    assert [SourceStarted, Found, Listed] == kinds


def test_copy_removes_nothing():
    """With remove off, both ends have everything."""
    source, destination = MemoryStore({b"a": b"1", b"b": BIG}), MemoryStore()

    trial = moved(source, destination, remove=False)

    assert contents(source) == contents(destination)
    assert {False} == {event.removed for event in trial.of(Finished)}


@pytest.mark.parametrize("preserve", [True, False])
def test_attributes_are_carried_over_if_wanted(preserve):
    """Modification time and permission bits travel unless --no-preserve."""
    kept = Attributes(42, 0o640)
    source, destination = MemoryStore(), MemoryStore()
    source.plant(b"small", b"1", kept)
    source.plant(b"big", BIG, kept)

    moved(source, destination, preserve=preserve)

    assert [preserve, preserve] == [file.attributes == kept for file in destination.files.values()]


@pytest.mark.parametrize("content", [b"same", BIG])
def test_identical_content_is_not_sent(content):
    """What the destination has already is removed from the source without being sent."""
    source, destination = MemoryStore({b"x": content}), MemoryStore({b"x": content})

    trial = moved(source, destination)

    [finished] = trial.of(Finished)
    assert (How.ALREADY_THERE, 0, digest(content)) == (finished.how, finished.sent, finished.digest)
    assert {} == source.files


@pytest.mark.parametrize("preserve", [True, False])
@pytest.mark.parametrize("policy", OnConflict)
@pytest.mark.parametrize("content", [b"same", BIG])
def test_identical_content_gets_the_attributes_of_the_source(content, policy, preserve):
    """Mode and time as if it had been sent, whatever the policy; with --no-preserve it keeps its own."""
    source, destination = MemoryStore(), MemoryStore()
    source.plant(b"x", content, Attributes(42, 0o600))
    destination.plant(b"x", content, Attributes(43, 0o644))

    trial = moved(source, destination, policy=policy, preserve=preserve)

    assert {b"x": How.ALREADY_THERE} == trial.how()
    expected = Attributes(42, 0o600) if preserve else Attributes(43, 0o644)
    assert expected == destination.files[b"x"].attributes


@pytest.mark.parametrize(("old", "new"), [(b"old!", b"new!"), (b"other size", b"new!"), (BIG[::-1], BIG)])
def test_other_content_is_replaced(old, new):
    """By default another file at the destination gives way, whether or not it has the same size."""
    source, destination = MemoryStore({b"x": new}), MemoryStore({b"x": old})

    trial = moved(source, destination)

    assert {b"x": How.REPLACED} == trial.how()
    assert ({b"x": new}, {}) == (contents(destination), contents(source))


@pytest.mark.parametrize(("old", "new"), [(b"old!", b"new!"), (b"other size", b"new!"), (BIG[::-1], BIG)])
def test_policy_skip(old, new):
    """With --on-conflict skip both files stay, and that is no failure."""
    source, destination = MemoryStore({b"x": new}), MemoryStore({b"x": old})

    trial = moved(source, destination, policy=OnConflict.SKIP)

    assert {b"x": How.SKIPPED} == trial.how()
    assert ({b"x": old}, {b"x": new}) == (contents(destination), contents(source))


@pytest.mark.parametrize(("old", "new"), [(b"old!", b"new!"), (b"other size", b"new!"), (BIG[::-1], BIG)])
def test_policy_fail(old, new):
    """With --on-conflict fail both files stay, and that is a failure."""
    source, destination = MemoryStore({b"x": new}), MemoryStore({b"x": old})

    trial = moved(source, destination, policy=OnConflict.FAIL)

    assert [(b"x", End.DESTINATION, Conflict)] == [(e.path, e.end, type(e.error)) for e in trial.of(Failed)]
    assert ({b"x": old}, {b"x": new}) == (contents(destination), contents(source))


def test_a_partial_is_resumed():
    """What a partial has is compared and not sent again; what differs is."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore()
    destination.plant_partial(b"x", BIG[: 1 << 20] + b"damaged" * 1000)

    trial = moved(source, destination)

    assert [1 << 20] == [event.have for event in trial.of(Started)]
    assert [2 << 20] == [event.sent for event in trial.of(Finished)]
    assert {b"x": BIG} == contents(destination)


@pytest.mark.parametrize("told", [True, False])
def test_holes_are_counted_apart_from_what_is_sent(told, monkeypatch):
    """They are part of the file and of its progress, but not of what travels, unless the destination gets zeros."""
    monkeypatch.setattr(memory_store._MemoryWriter, "takes_holes", told)
    content = BIG + 4 * ZERO_BLOCK
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    source.sparse.add(b"x")
    destination.room = Space(len(BIG), len(BIG))

    trial = moved(source, destination)

    sent, holes = (len(BIG), 4 << 20) if told else (len(content), 0)
    assert [(len(content), sent, holes)] == [(event.size, event.sent, event.holes) for event in trial.of(Finished)]
    told_so_far = [(event.amount, event.found) for event in trial.of(Progressed)]
    assert [len(content), holes] == list(map(sum, zip(*told_so_far, strict=True)))
    assert {b"x": content} == contents(destination)


@pytest.mark.parametrize("content", [b"1", BIG])
def test_a_source_that_changed_before_its_removal_is_sent_again(content):
    """The newer version arrives too, and replaces the one that this run has just sent."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    source.fail_next["remove", b"x"] = SourceChanged("x: changed after it was read")

    trial = Trial(source, destination)
    assert [b"x"] == [event.path for event in trial.of(Postponed)]
    source.plant(b"x", b"newer " + content)

    assert trial.finish() is None
    assert {b"x": b"newer " + content} == contents(destination)
    assert {} == source.files


def replace_it(destination):
    """Another peer moves a file of its own there, and has no other copy of it."""
    destination.plant(b"x", b"only copy")


def rely_on_it(destination):
    """Another peer finds its file there already, and removes its own."""
    content = destination.files[b"x"].content
    if len(content) <= 1 << 20:
        destination.settle([Expected(b"x", len(content), digest(content))])
    else:
        destination.match_final(b"x", len(content), 0, block_digests(content))


@pytest.mark.parametrize("content", [b"1", BIG])
@pytest.mark.parametrize("meddle", [replace_it, rely_on_it])
@pytest.mark.parametrize("grown", [b"", b" and more"])
def test_a_later_attempt_replaces_only_what_the_run_has_sent(content, meddle, grown):
    """What somebody else has put there, or relies upon, since our first attempt stays, and so does our newer file."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    source.fail_next["remove", b"x"] = SourceChanged("x: changed after it was read")

    trial = Trial(source, destination)
    assert [b"x"] == [event.path for event in trial.of(Postponed)]
    source.plant(b"x", content[:-1] + b"!" + grown)
    meddle(destination)
    kept = destination.files[b"x"].content

    assert trial.finish() is None
    [failed] = trial.of(Failed)
    assert (Conflict, End.DESTINATION) == (type(failed.error), failed.end)
    assert "x: the file of this name arrived there, or changed, during this run" in str(failed.error)
    assert ({b"x": kept}, {b"x": content[:-1] + b"!" + grown}) == (contents(destination), contents(source))


@pytest.mark.parametrize("content", [b"1", BIG])
def test_every_attempt_replaces_what_the_one_before_has_sent(content):
    """A source that changes twice is sent three times, and each version is replaced by the next."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    source.fail_next["remove", b"x"] = SourceChanged("x: changed after it was read")
    trial = Trial(source, destination)
    for version in (b"second " + content, b"third " + content):
        source.plant(b"x", version)
        source.fail_next["remove", b"x"] = SourceChanged("x: changed after it was read")
        while ("remove", b"x") in source.fail_next:
            trial.clock.advance(0.05)
    source.plant(b"x", b"last " + content)

    assert trial.finish() is None
    assert ({b"x": b"last " + content}, {}) == (contents(destination), contents(source))


@pytest.mark.parametrize("content", [b"1", BIG])
def test_an_attempt_that_fails_in_between_does_not_forget_what_was_sent(content):
    """What the first attempt sent may be replaced by the third one, if nobody has touched it."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    source.fail_next["remove", b"x"] = SourceChanged("x: changed after it was read")
    trial = Trial(source, destination)
    source.plant(b"x", b"newer " + content)
    destination.fail_next["open_writer", b"x"] = Busy("x: somebody else is writing it")

    assert trial.finish() is None
    assert 2 == len(trial.of(Postponed))
    assert ({b"x": b"newer " + content}, {}) == (contents(destination), contents(source))


@pytest.mark.parametrize("content", [b"1", BIG])
def test_a_resumed_run_does_not_replace_what_it_has_sent_before(content):
    """Over new connections nobody knows any more whose file that is, so the newer one stays, as a conflict."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    source.fail_next["remove", b""] = ConnectionFailed("the connection was lost")
    # The first question is whether something may be removed at all.
    asked = source.remove([])
    asked.addErrback(lambda _: None)
    removing = source.remove

    def lose(removals):
        if removals:
            source.fail_next["remove", b""] = ConnectionFailed("the connection was lost")
        return removing(removals)

    source.remove = lose
    events = []
    run = Run(
        [Side(source, "src")],
        Side(destination, "dst"),
        TransferOptions(policy=OnConflict.REPLACE),
        events.append,
        Clock(),
    )
    lost = []
    run.start().addErrback(lost.append)
    del source.remove
    source.plant(b"x", b"newer " + content)
    run.resumed([Side(source, "src")], Side(destination, "dst")).start()

    assert ConnectionFailed is lost[0].type
    [failed] = [event for event in events if isinstance(event, Failed)]
    assert Conflict is type(failed.error)
    assert ({b"x": content}, {b"x": b"newer " + content}) == (contents(destination), contents(source))


def test_a_source_that_keeps_changing_is_a_failure():
    """After three more attempts the file stays where it is and counts as failed."""
    source, destination = MemoryStore({b"x": b"1"}), MemoryStore()
    attempts = []

    class Changing(dict):
        def pop(self, key, default=None):
            if key == ("remove", b"x"):
                attempts.append(key)
                return SourceChanged("x: changed")
            return super().pop(key, default)

    source.fail_next = Changing()

    trial = moved(source, destination)

    assert 4 == len(attempts)
    assert [(b"x", End.SOURCE, SourceChanged)] == [(e.path, e.end, type(e.error)) for e in trial.of(Failed)]
    assert {b"x": b"1"} == contents(source)


@pytest.mark.parametrize(("method", "content"), [("read_small", b"1"), ("open_reader", BIG)])
def test_a_source_that_vanished_is_gone(method, content):
    """Somebody else moved or removed it: reported, and no failure."""
    source, destination = MemoryStore({b"x": content, b"y": b"2"}), MemoryStore()
    source.fail_next[method, b"x"] = NotFound("x: no such file")

    trial = moved(source, destination)

    assert {b"x": How.GONE, b"y": How.CREATED} == trial.how()


def test_a_read_error_fails_one_file_only():
    """EIO midway: the file stays at the source, the others move."""
    source, destination = MemoryStore({b"x": BIG, b"y": b"2"}), MemoryStore()
    source.fail_next["read", b"x"] = StorageError("x: Input/output error")

    trial = moved(source, destination)

    assert [(b"x", End.SOURCE)] == [(event.path, event.end) for event in trial.of(Failed)]
    assert ({b"x"}, {b"y"}) == (set(source.files), set(destination.files))
    assert [b"x"] == [event.path for event in trial.of(FileInterrupted)]


def test_a_full_disk_fails_what_does_not_fit():
    """ENOSPC for one small and one large file: they stay, the others move, and what is missing is said at the end."""
    source, destination = MemoryStore({b"x": BIG, b"y": b"2", b"z": b"3"}), MemoryStore()
    destination.fail_next["open_writer", b"x"] = NoSpace("x: No space left on device")
    destination.fail_next["put_small", b"y"] = NoSpace("y: No space left on device")
    destination.fail_next["open_writer", b"y"] = NoSpace("y: No space left on device")
    destination.room = Space(1000, 2000)

    trial = moved(source, destination)

    assert {b"x", b"y"} == {event.path for event in trial.of(Failed)} == set(source.files)
    assert {b"z"} == set(destination.files)
    assert [NoRoom(2, len(BIG) + 1, len(BIG) + 1 - 1000)] == trial.of(NoRoom)
    assert trial.events[-1] == trial.of(NoRoom)[0]


class Full(dict):
    """Faults of a store that lets large files begin, and never has room for them; remembers whom that befell."""

    def __init__(self):
        self.befell = []

    def pop(self, key, default=None):
        """Each write fails."""
        method, path = key
        if method != "write":
            return default
        self.befell.append(path)
        return NoSpace(f"{path.decode()}: Disk quota exceeded")


class Pieces(list):
    """Content that can be seen to go."""


def test_what_was_sent_of_a_large_file_goes_before_more_is_read(monkeypatch):
    """Each file under way would keep 2 MiB more, and each that fails as much for as long as its error is kept."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore()
    given, kept = [], []

    def reading(reader):
        kept.extend(pieces for each in given if (pieces := each()) is not None)
        start = reader._order.position
        reader._order.flow()
        reader._order.position = min(len(BIG), start + BLOCK_BYTES)
        pieces = Pieces([BIG[start : reader._order.position]] if start < len(BIG) else [])
        given.append(weakref.ref(pieces))
        return succeed(pieces)

    monkeypatch.setattr(type(source.open_reader(b"x").result), "read", reading)
    moved(source, destination)

    assert {b"x": BIG} == contents(destination)
    assert len(given) > 2
    assert [] == kept


def test_little_is_sent_in_vain():
    """Where nothing but writing tells, what needs as much as a file that failed is not tried; smaller files go on."""
    files = {b"%d" % number: BIG for number in range(9)}
    source, destination = MemoryStore({**files, b"s": b"small"}), MemoryStore()
    destination.fail_next = Full()

    trial = moved(source, destination, jobs=1)

    assert [b"0", b"0"] == destination.fail_next.befell
    assert set(files) == set(source.files)
    assert {b"s"} == set(destination.files)
    assert set(files) == {event.path for event in trial.of(Failed)}
    assert sum("not tried" in str(event.error) for event in trial.of(Failed)) == 8
    assert [9] == [event.files for event in trial.of(NoRoom)]


def test_what_there_was_no_room_for_is_tried_once_more():
    """When the rest is done there may be room, and then nothing has failed."""
    files = {b"%d" % number: BIG for number in range(3)}
    source, destination = MemoryStore(files), MemoryStore()
    destination.fail_next["write", b"0"] = NoSpace("0: No space left on device")

    trial = moved(source, destination, jobs=1)

    assert files == contents(destination)
    assert [] == trial.of(Failed) == trial.of(NoRoom)
    assert set(files) == {event.path for event in trial.of(Postponed)}


def test_small_files_stop_when_the_disk_is_full(monkeypatch):
    """Of small ones that fit no more, one batch is sent in vain, not all of them."""
    monkeypatch.setattr("realize.mover.small.MAX_BATCH_FILES", 2)
    files = {b"%02d" % number: b"x" for number in range(20)}
    source, destination = MemoryStore(files, page=100), MemoryStore()
    for path in list(files)[2:]:
        destination.fail_next["put_small", path] = NoSpace(f"{path.decode()}: No space left on device")
    destination.room = Space(0, 2000)
    put = batched_into(destination)

    trial = moved(source, destination, jobs=1)

    assert 2 == len(destination.files)
    assert len(put) < 10
    assert 18 == len(trial.of(Failed))


def test_a_digest_that_differs_is_tried_again():
    """A transfer that was corrupted is repeated, and is never committed."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore()
    destination.fail_next["commit", b"x"] = VerifyFailed("x: another digest")

    trial = moved(source, destination)

    assert [VerifyFailed] == [type(event.error) for event in trial.of(Postponed)]
    assert {b"x": BIG} == contents(destination)


def test_a_file_that_is_being_written_by_somebody_else_is_tried_again():
    """A locked partial is waited for; once it is free the file moves."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore()
    destination.locked.add(b"x")

    trial = Trial(source, destination)
    destination.locked.clear()

    assert trial.finish() is None
    assert [Busy] == [type(event.error) for event in trial.of(Postponed)]
    assert {b"x": BIG} == contents(destination)


@pytest.mark.parametrize("content", [b"small", BIG])
def test_a_name_that_was_taken_between_looking_and_committing_is_not_replaced(content):
    """Somebody else's file of that name, seen by nobody before, survives; ours stays at the source."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    describe = destination.describe

    def describe_then_plant(paths):
        found = describe(paths)
        if b"x" not in destination.files:
            destination.plant(b"x", b"somebody else's")
        return found

    destination.describe = describe_then_plant

    trial = moved(source, destination)

    assert ({b"x": b"somebody else's"}, {b"x": content}) == (contents(destination), contents(source))
    assert [Conflict] == [type(event.error) for event in trial.of(Failed)]


def test_the_second_source_does_not_replace_what_the_first_has_sent():
    """One name in two sources: the second file stays at its source and is a failure, as `mv` has it."""
    first, second, destination = MemoryStore({b"x": b"1"}), MemoryStore({b"x": b"22", b"y": b"3"}), MemoryStore()

    trial = moved(first, destination, second)

    assert {b"x": b"1", b"y": b"3"} == contents(destination)
    assert {b"x": b"22"} == contents(second)
    assert [b"x"] == [event.path for event in trial.of(Failed)]


@pytest.mark.parametrize("content", [b"same", BIG])
def test_the_second_source_does_not_replace_what_the_first_one_relied_upon(content):
    """A file that was there already is the only one left once the first source has removed its own: it stays."""
    first, destination = MemoryStore({b"x": content}), MemoryStore({b"x": content})
    second = MemoryStore({b"x": b"other " + content})

    trial = moved(first, destination, second)

    assert ({b"x": content}, {}) == (contents(destination), first.files)
    assert {b"x": b"other " + content} == contents(second)
    assert [b"x"] == [event.path for event in trial.of(Failed)]


class SetBack(MemoryStore):
    """A destination whose clock is set back before the first file gets its final name."""

    def make_final(self, file, policy):
        self.clock_ahead = -(10**6)
        return super().make_final(file, policy)


@pytest.mark.parametrize("content", [b"small", BIG])
@pytest.mark.parametrize("size", ["same", "other"])
def test_a_clock_that_is_set_back_does_not_hide_what_the_first_source_has_sent(content, size):
    """By its stamp it seems to be from before the run; the destination knows better."""
    other = b"X" + content[1:] if size == "same" else b"X" + content
    first, second, destination = MemoryStore({b"x": content}), MemoryStore({b"x": other}), SetBack()

    trial = moved(first, destination, second)

    assert ({b"x": content}, {}, {b"x": other}) == (contents(destination), first.files, contents(second))
    assert [b"x"] == [event.path for event in trial.of(Failed)]


def test_a_clock_that_is_set_back_does_not_hide_what_was_there_already():
    """The first source has removed its own because of it."""
    first, second, destination = MemoryStore({b"x": BIG}), MemoryStore({b"x": b"1" + BIG}), MemoryStore({b"x": BIG})
    vouch_for = destination._vouch_for

    def late(*arguments):
        destination.clock_ahead = -(10**6)
        vouch_for(*arguments)

    destination._vouch_for = late
    trial = moved(first, destination, second)

    assert ({b"x": BIG}, {}) == (contents(destination), first.files)
    assert [b"x"] == [event.path for event in trial.of(Failed)]


def test_files_of_other_sizes_are_left_alone():
    """They are not even counted as found, and a dry run says the same."""
    for options in ({}, {"dry_run": True}):
        source, destination = MemoryStore({b"1": b"x", b"2": b"xx", b"3": b"xxx", b"4": b"xxxx"}), MemoryStore()
        trial = moved(source, destination, selection=selection([], min_size=2, max_size=3), **options)

        assert {b"1", b"4"} <= set(source.files)
        assert [(b"2", 2), (b"3", 3)] == [(each.path, each.size) for each in trial.of(Planned if options else Finished)]
        assert [2] == [each.files for each in trial.of(Found)]


def test_other_file_systems_of_the_source_may_be_left_alone():
    """Their files stay, each such directory is reported once, and its empty directories are not removed."""
    source, destination = MemoryStore({b"a/f": b"1", b"b/f": b"2", b"c": b"3"}), MemoryStore()
    source.plant_directory(b"b/empty")
    source.mounted.add(b"b")
    trial = moved(source, destination, one_file_system=True, prune_age_ns=0)

    assert {b"b/f"} == set(source.files)
    assert {b"b", b"b/empty"} == set(source.directories)
    assert [Left(b"b", "directory on another file system")] == trial.of(Left)


def test_a_source_whose_clock_is_set_back_holds_what_is_young():
    """What was just modified is not taken for old because the clock was ahead when the run began."""
    source, destination = MemoryStore(), MemoryStore()
    source.plant(b"young", b"3", Attributes(-(5 * 10**9), 0o644))
    walk = source.walk

    def late(**options):
        source.clock_ahead = -(5 * 10**9)
        return walk(**options)

    source.walk = late
    moved(source, destination, selection=selection([], min_age=1.0))

    assert {b"young"} == set(source.files)


def changing_when_listed(source, path, content):
    """Somebody writes ``content`` to a file just after the source has listed it as 10 s old."""
    source.plant(path, content[:-1], Attributes(-(10 * 10**9), 0o644))
    walk = source.walk

    def walk_and_write(**options):
        listing = walk(**options)
        next_page = listing.next_page

        def page_and_write():
            page = next_page()
            listing.next_page = next_page
            source.plant(path, content, Attributes(-(10**9), 0o644))
            return page

        listing.next_page = page_and_write
        return listing

    source.walk = walk_and_write


@pytest.mark.parametrize("content", [b"12", BIG], ids=["small", "large"])
@pytest.mark.parametrize("there", [{}, {b"x": b"former"}], ids=["new", "replaced"])
def test_a_file_that_is_young_when_its_turn_comes_stays(content, there):
    """It was old enough when it was listed, hours ago perhaps, but somebody has begun to append to it since.

    If it were moved now, what is appended later would be another file of its name, and replace it.
    """
    source, destination = MemoryStore(), MemoryStore(there)
    changing_when_listed(source, b"x", content)

    trial = moved(source, destination, selection=selection([], min_age=5.0))

    [failed] = trial.of(Failed)
    assert isinstance(failed.error, Unsettled)
    assert [] == trial.of(Postponed)
    assert (there, {b"x"}) == (contents(destination), set(source.files))


@pytest.mark.parametrize("content", [b"12", BIG], ids=["small", "large"])
def test_without_a_minimum_age_the_newest_version_is_moved(content):
    """What changes after it was listed is moved as it is when its turn comes."""
    source, destination = MemoryStore(), MemoryStore()
    changing_when_listed(source, b"x", content)

    moved(source, destination)

    assert ({b"x": content}, {}) == (contents(destination), source.files)


@pytest.mark.parametrize("content", [b"12", BIG], ids=["small", "large"])
def test_another_attempt_does_not_send_what_is_young_by_then(content):
    """A file that changes while it is read, and so is tried again, is too young by then."""
    source, destination = MemoryStore(), MemoryStore()
    source.plant(b"x", content, Attributes(-(10 * 10**9), 0o644))
    source.fail_next["read_small" if content != BIG else "read", b"x"] = SourceChanged("x: is being written")
    trial = Trial(source, destination, selection=selection([], min_age=5.0))
    trial.clock.pump([0.05] * 2)
    source.plant(b"x", content + b"3", Attributes(-(10**9), 0o644))

    assert trial.finish() is None
    assert [b"x"] == [event.path for event in trial.of(Postponed)]
    assert [Unsettled] == [type(event.error) for event in trial.of(Failed)]
    assert ({}, {b"x"}) == (contents(destination), set(source.files))


@pytest.mark.parametrize(("method", "content"), [("read_small", b"1"), ("read", BIG), ("finish", BIG)])
@pytest.mark.parametrize("remove", [True, False])
def test_a_file_whose_size_is_wrong_stays_and_leaves_nothing(method, content, remove):
    """It would be the same the next time, so it fails at once, and a partial of it is of no use to anybody."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    source.fail_next[method, b"x"] = WrongSize("x: has more content than its size says")

    trial = moved(source, destination, remove=remove)

    assert ({b"x": content}, {}, {}) == (contents(source), contents(destination), destination.partials)
    assert ([WrongSize], []) == ([type(event.error) for event in trial.of(Failed)], trial.of(Postponed))
    assert [] == [event.reached for event in trial.of(FileInterrupted) if event.reached]


@pytest.mark.parametrize("content", [b"1", BIG])
def test_what_is_open_for_writing_is_put_aside(content):
    """It moves when it is closed in time, stays and fails by name if it is not, and is copied all the same."""
    closed_in_time, never, copied = (MemoryStore({b"x": content}) for _ in range(3))
    destinations = MemoryStore(), MemoryStore(), MemoryStore()
    for store in (closed_in_time, never, copied):
        store.written.add(b"x")

    trial = Trial(closed_in_time, destinations[0])
    trial.clock.pump([0.05] * 10)
    closed_in_time.written.clear()

    assert trial.finish() is None
    assert ({}, {b"x": content}) == (contents(closed_in_time), contents(destinations[0]))
    assert [SourceChanged] * 2 == [type(event.error) for event in trial.of(Postponed)]
    failed = moved(never, destinations[1])
    assert ({b"x": content}, {}) == (contents(never), contents(destinations[1]))
    assert ["x: is open for writing by another program"] == [str(event.error) for event in failed.of(Failed)]
    moved(copied, destinations[2], remove=False)
    assert {b"x": content} == contents(destinations[2])


@pytest.mark.parametrize("content", [b"1", BIG])
def test_an_identical_file_that_is_open_for_writing_is_not_relied_upon(content):
    """The source stays as long as a program may change the only other copy; once that is closed it is there already."""
    sources = MemoryStore({b"x": content}), MemoryStore({b"x": content})
    destination = MemoryStore({b"x": content})
    destination.written.add(b"x")

    failed = moved(sources[0], destination)
    trial = Trial(sources[1], destination)
    destination.written.clear()

    assert [(End.DESTINATION, Busy)] == [(event.end, type(event.error)) for event in failed.of(Failed)]
    assert {b"x": content} == contents(sources[0])
    assert trial.finish() is None
    assert [How.ALREADY_THERE] == [event.how for event in trial.of(Finished)]
    assert {} == contents(sources[1])


@pytest.mark.parametrize("content", [b"1", BIG])
def test_what_is_opened_for_writing_while_it_is_moved_stays(content):
    """Also if nothing was written yet: whatever will be is sent when it is closed, over what was sent before."""
    source, destination = MemoryStore({b"x": content}), MemoryStore()
    remove = source.remove

    def opened_before(removals):
        if removals:
            source.written.add(b"x")
            source.remove = remove
        return remove(removals)

    source.remove = opened_before
    trial = Trial(source, destination)
    while not trial.of(Postponed):
        trial.clock.advance(0.01)

    assert ({b"x": content}, {b"x": content}) == (contents(source), contents(destination))
    source.written.clear()
    source.plant(b"x", content + b"more")
    assert trial.finish() is None
    assert ({}, {b"x": content + b"more"}) == (contents(source), contents(destination))


@pytest.mark.parametrize(("method", "size"), [("read_small", 1), ("open_reader", 70_000)])
def test_a_change_before_anything_was_sent_does_not_lift_the_protection(method, size):
    """The second source is being written when its turn comes; tried again, it replaces nothing either."""
    ones, twos = b"1" * size, b"2" * size
    first, second, destination = MemoryStore({b"x": ones}), MemoryStore({b"x": twos}), MemoryStore()
    second.fail_next[method, b"x"] = SourceChanged("x: is being written")

    trial = moved(first, destination, second)

    assert ({b"x": ones}, {b"x": twos}) == (contents(destination), contents(second))
    assert [Conflict] == [type(event.error) for event in trial.of(Failed)]


@pytest.mark.parametrize("content", [b"ours", BIG])
def test_a_file_that_was_replaced_between_looking_and_committing_is_not_replaced_again(content):
    """Somebody replaced the old file that we were about to replace, and removed his source: his file survives."""
    source, destination = MemoryStore({b"x": content}), MemoryStore({b"x": b"old"})
    describe = destination.describe

    def describe_then_replace(paths):
        found = describe(paths)
        if destination.files[b"x"].content == b"old":
            destination.plant(b"x", b"somebody else's")
        return found

    destination.describe = describe_then_replace

    trial = moved(source, destination)

    assert ({b"x": b"somebody else's"}, {b"x": content}) == (contents(destination), contents(source))
    assert [Conflict] == [type(event.error) for event in trial.of(Failed)]


def test_what_does_not_fit_a_batch_goes_by_itself_until_it_does():
    """One large file may be enough to show that the link is fast."""
    files = {b"%d" % number: b"%d" % number * 1000 for number in range(7)}
    source, destination = MemoryStore(files), MemoryStore()
    open_writer, alone, batched = destination.open_writer, [], batched_into(destination)

    def opened(path, *arguments, **options):
        alone.append(path)
        return open_writer(path, *arguments, **options)

    destination.open_writer = opened
    destination.takes_at_once = lambda: 5000 if len(alone) == 2 else 100

    moved(source, destination)

    assert (files, {}) == (contents(destination), contents(source))
    assert [b"0", b"1"] == alone
    assert [b"2", b"3", b"4", b"5", b"6"] == batched


@pytest.mark.parametrize("grows", [True, False])
def test_what_does_not_fit_a_batch_yet_may_when_the_first_ones_have_arrived(grows):
    """How fast a link is, is not known before; what is too large then goes by itself."""
    files = {b"a": b"1" * 10, b"b": b"2" * 1000, b"c": b"3" * 20}
    source, destination = MemoryStore(files), MemoryStore()
    batched = batched_into(destination)
    destination.takes_at_once = lambda: 2000 if grows and batched else 100

    moved(source, destination)

    assert (files, {}) == (contents(destination), contents(source))
    assert ([b"a", b"c", b"b"] if grows else [b"a", b"c"]) == batched


@pytest.mark.parametrize(("there", "times"), [({}, 1), ({b"x": b"old"}, 2)])
def test_a_large_file_is_described_again_only_if_it_replaces_one(there, times):
    """What was found with the page may be old when the file's turn comes; where nothing was, the commit will tell."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore(there)
    describe, asked = destination.describe, []

    def counted(paths):
        asked.append(list(paths))
        return describe(paths)

    destination.describe = counted

    moved(source, destination)

    assert ({b"x": BIG}, [[b"x"]] * times) == (contents(destination), asked)


def test_a_name_that_was_taken_before_the_writer_was_opened_is_looked_at_again():
    """A file that appears after looking is no failure while it may turn out to be the same one."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore()
    open_writer = destination.open_writer

    def plant_then_open(*arguments, **options):
        destination.plant(b"x", BIG)
        return open_writer(*arguments, **options)

    destination.open_writer = plant_then_open

    trial = moved(source, destination)

    assert {b"x": How.ALREADY_THERE} == trial.how()
    assert {} == source.files


class Folding(dict):
    """Names that differ in nothing but case are one; the first spelling stays."""

    def _key(self, name):
        return next((key for key in self if key.lower() == name.lower()), name)

    def __contains__(self, name):
        return super().__contains__(self._key(name))

    def __getitem__(self, name):
        return super().__getitem__(self._key(name))

    def __setitem__(self, name, file):
        super().__setitem__(self._key(name), file)

    def get(self, name, default=None):
        return super().get(self._key(name), default)


@pytest.mark.parametrize("there", [{}, {b"A": b"old"}, {b"A": b"1"}], ids=["nothing", "another", "the same"])
@pytest.mark.parametrize("size", [1, 70_000], ids=["small", "large"])
def test_names_that_the_destination_takes_for_one(size, there):
    """Whatever the destination had, one of the two arrives, and the other one stays at its source."""
    files = {b"A": b"1" * size, b"a": b"22" * size}
    source, destination = MemoryStore(files), MemoryStore()
    destination.files = Folding()
    for path, content in there.items():
        destination.plant(path, content * size)

    trial = moved(source, destination)

    assert sorted(files.values()) == sorted([*contents(destination).values(), *contents(source).values()])
    assert 1 == len(trial.of(Failed))


def test_one_file_under_both_names_is_refused():
    """Source and destination are one inode: it would be the only copy, so it is not removed."""
    source, destination = MemoryStore({b"x": b"1", b"y": BIG}), MemoryStore({b"x": b"1", b"y": BIG})
    for store in (source, destination):
        store._place = lambda inode: b"one and the same" if inode else os.urandom(16)

    trial = moved(source, destination)

    assert {SameFile} == {type(event.error) for event in trial.of(Failed)}
    assert {b"x", b"y"} == set(source.files)


def test_a_dry_run_changes_nothing():
    """Every file is named with what would be done, and both ends stay as they are."""
    source = MemoryStore({b"new": b"1", b"same size": b"22", b"other size": b"333", b"partial": BIG})
    destination = MemoryStore({b"same size": b"xx", b"other size": b"x"})
    destination.plant_partial(b"partial", b"x")
    before = contents(source), contents(destination)

    trial = moved(source, destination, dry_run=True)

    assert before == (contents(source), contents(destination))
    assert {
        b"new": Action.SEND,
        b"same size": Action.COMPARE,
        b"other size": Action.REPLACE,
        b"partial": Action.RESUME,
    } == {event.path: event.action for event in trial.of(Planned)}


def test_files_from_the_future_are_told_if_their_age_holds_them_back():
    """They may never come of age. Those that are only young, or of a clock that differs a little, are not told."""
    second, now_ns = 10**9, MemoryStore().now_ns()
    for options, told in (({"selection": selection([("exclude", "*.x")], min_age=60.0)}, [b"future"]), ({}, [])):
        source, destination = MemoryStore({b"old": b"1"}), MemoryStore()
        for name, ahead in ((b"future", 3600), (b"future.x", 3600), (b"young", -30), (b"skewed", 4)):
            source.plant(name, b"2", Attributes(now_ns + ahead * second, 0o644))
        source.plant(b"old", b"1", Attributes(now_ns - 100 * second, 0o644))

        trial = moved(source, destination, **options)

        assert [HeldBack(name, now_ns + 3600 * second) for name in told] == trial.of(HeldBack)
        assert bool(options) == (b"future" in contents(source))
        assert b"old" in contents(destination)


def test_a_dry_run_fails_where_permissions_are_against_it():
    """Each file by itself, at the end where it would; what would be compared must be read, and not be put, there."""
    files = {b"closed": b"1", b"ro/f": b"2", b"same": b"3", b"shut": b"5", b"fine": b"4"}
    source, destination = MemoryStore(files), MemoryStore({b"same": b"x", b"shut": b"x"})
    destination.fail_next["forbidden to compare", b"shut"] = StorageError("shut: cannot be read: Permission denied")
    source.fail_next["forbidden to move", b"closed"] = StorageError("closed: cannot be read: Permission denied")
    for name in (b"ro/f", b"same"):
        destination.fail_next["forbidden to put", name] = StorageError("ro: cannot be created: Permission denied")

    trial = moved(source, destination, dry_run=True)

    assert {(b"closed", End.SOURCE), (b"ro/f", End.DESTINATION), (b"shut", End.DESTINATION)} == {
        (event.path, event.end) for event in trial.of(Failed)
    }
    assert {b"same", b"fine"} == {event.path for event in trial.of(Planned)}


@pytest.mark.parametrize(("end", "method"), [("source src0", "remove"), ("destination dst", "put_small")])
def test_a_dry_run_fails_for_want_of_a_right(end, method):
    """As the run would, before anything is looked at."""
    source, destination = MemoryStore({b"a": b"1"}), MemoryStore()
    (source if method == "remove" else destination).fail_next[method, b""] = AccessDenied("you may not")

    trial = Trial(source, destination, dry_run=True)

    assert f"{end}: you may not (`realize check {end.split()[1]}` says what to fix)" == str(trial.finish())
    assert [] == trial.of(Planned)


def test_a_dry_run_fails_for_what_may_not_be_replaced():
    """As the run would, for a peer that may create files and no more; what would be compared is said to be."""
    source = MemoryStore({b"new": b"1", b"other": b"longer", b"same": b"1"})
    destination = MemoryStore({b"other": b"1", b"same": b"2"})
    destination.replaces = False

    trial = moved(source, destination, dry_run=True)

    assert [(b"other", End.DESTINATION)] == [(event.path, event.end) for event in trial.of(Failed)]
    assert {b"new", b"same"} == {event.path for event in trial.of(Planned)}


def test_a_dry_copy_needs_no_leave_to_remove():
    """It only reads."""
    source, destination = MemoryStore({b"a": b"1"}), MemoryStore()
    source.fail_next["forbidden to move", b"a"] = StorageError("a: cannot be removed: Permission denied")

    trial = moved(source, destination, dry_run=True, remove=False)

    assert [b"a"] == [event.path for event in trial.of(Planned)]


def test_filters_and_age():
    """What the patterns leave out, or is too young, is not touched and not reported."""
    source, destination = MemoryStore({b"a.tmp": b"1"}), MemoryStore()
    source.plant(b"b", b"2", Attributes(-(10**9), 0o644))
    source.plant(b"young", b"3", Attributes(0, 0o644))

    trial = moved(source, destination, selection=selection([("exclude", "*.tmp")], min_age=0.5))

    assert {b"b"} == set(destination.files)
    assert 1 == sum(event.files for event in trial.of(Found))


def test_what_is_not_a_regular_file_is_left():
    """Symlinks and the like are reported with what they are."""
    source, destination = MemoryStore({b"a": b"1"}), MemoryStore()
    source.obstacles[b"link"] = "symlink"

    trial = moved(source, destination)

    assert [(b"link", "symlink")] == [(event.path, event.note) for event in trial.of(Left)]


def test_a_partial_at_the_source_is_left_and_said_so():
    """What somebody else is still sending there stays, with an event; a file that only has such a name is moved."""
    foreign = partial_path(b"g")
    source, destination = MemoryStore({foreign: b"1"}), MemoryStore()
    source.plant_partial(b"f", b"12")
    trial = Trial(source, destination)

    assert trial.finish() is None
    assert [(partial_path(b"f"), "partial file of Realize")] == [(each.path, each.note) for each in trial.of(Left)]
    assert (source.partials, list(destination.files)) == ({b"f": b"12"}, [foreign])


def test_without_the_right_to_remove_nothing_is_sent():
    """A move that could not remove is refused before it copies."""
    source, destination = MemoryStore({b"a": b"1"}), MemoryStore()
    source.fail_next["remove", b""] = AccessDenied("this peer may not remove in inbox")

    error = Trial(source, destination).finish()

    assert AccessDenied is type(error)
    assert str(error).startswith("source src0: this peer may not remove in inbox")
    assert {} == destination.files


def test_a_side_that_fails_as_a_whole_ends_the_run_and_is_named():
    """When the destination refuses everything, one sentence says so instead of one for each file."""
    source, destination = MemoryStore({bytes([c]): b"1" for c in range(97, 120)}), MemoryStore()
    destination.fail_next["describe", b""] = StorageError("is its file system still mounted?")

    trial = Trial(source, destination)
    error = trial.finish()

    assert "destination dst: is its file system still mounted?" == str(error)
    assert [] == trial.of(Failed)


def test_a_source_that_fails_as_a_whole_leaves_the_others():
    """With several sources, one that cannot be listed is a failure, and the next one is moved."""
    broken, fine, destination = MemoryStore({b"a": b"1"}), MemoryStore({b"b": b"2"}), MemoryStore()
    broken.fail_next["walk", b""] = StorageError("Input/output error")

    trial = moved(broken, destination, fine)

    assert [(b"", End.SOURCE)] == [(event.path, event.end) for event in trial.of(Failed)]
    assert {b"b"} == set(destination.files)


class HangingStore(MemoryStore):
    """A store whose ``open`` or ``walk`` waits for a gate."""

    def __init__(self, hanging, files):
        super().__init__(files)
        self.hanging = hanging
        self.gate = Deferred()

    async def _late(self, answer):
        await self.gate
        return await answer()

    def open(self, salt, run_age_ns=0):
        if self.hanging == "open":
            return Deferred.fromCoroutine(self._late(lambda: MemoryStore.open(self, salt, run_age_ns)))
        return super().open(salt, run_age_ns)

    def read_small(self, paths, **options):
        if self.hanging == "read":
            return Deferred.fromCoroutine(self._late(lambda: MemoryStore.read_small(self, paths, **options)))
        return super().read_small(paths, **options)

    def walk(self, **options):
        listing = super().walk(**options)
        if self.hanging == "walk":
            listed = listing.next_page
            listing.next_page = lambda: Deferred.fromCoroutine(self._late(listed))
        return listing


@pytest.mark.parametrize("hanging", ["open", "walk"])
def test_a_source_that_hangs_does_not_hold_up_the_others(hanging):
    """They are moved beside it, and it is moved when it has come back."""
    slow, good, destination = HangingStore(hanging, {b"a": b"slow"}), MemoryStore({b"b": b"good"}), MemoryStore()
    trial = Trial(slow, destination, good)

    trial.clock.pump([0.5] * 9)
    before = contents(destination)
    trial.clock.pump([0.5] * 9)
    meanwhile = contents(destination)
    ended = list(trial.result)
    slow.gate.callback(None)

    assert ({}, {b"b": b"good"}, []) == (before, meanwhile, ended)
    assert trial.finish() is None
    assert {b"a": b"slow", b"b": b"good"} == contents(destination)
    assert {} == contents(slow)


def test_sources_moved_side_by_side_do_not_replace_the_files_of_each_other():
    """Both have seen the old file of a name that both have: the one that comes later keeps its own."""
    sources = [HangingStore("read", {b"x": content}) for content in (b"slow", b"other", b"third")]
    destination = MemoryStore({b"x": b"old one"})
    trial = Trial(sources[0], destination, *sources[1:])
    trial.clock.pump([0.5] * 30)
    for each in (sources[1], sources[0], sources[2]):
        each.gate.callback(None)
        trial.clock.pump([0.01] * 5)

    assert trial.finish() is None
    assert {b"x": b"other"} == contents(destination)
    assert [{b"x": b"slow"}, {}, {b"x": b"third"}] == [contents(each) for each in sources]
    assert [Conflict] * 2 == [type(failed.error) for failed in trial.of(Failed)]


def test_a_source_that_gets_on_is_waited_for():
    """However long it takes: the next one begins when it has ended."""
    first, second, destination = MemoryStore({b"a": b"1"}), MemoryStore({b"b": b"2"}), MemoryStore()
    trial = Trial(first, destination, second)
    trial.finish()

    order = [event for event in trial.events if isinstance(event, SourceStarted | Finished)]

    assert [SourceStarted, Finished] * 2 == list(map(type, order))


def test_a_late_source_that_is_unfit_fails_alone():
    """What was late in saying what it is, and cannot be moved, is a failure; the rest is moved."""
    slow, good, destination = HangingStore("open", {}), MemoryStore({b"b": b"good"}), MemoryStore()
    slow.fail_next["open", b""] = StorageError("broken")
    trial = Trial(slow, destination, good)
    trial.clock.pump([0.5] * 20)
    slow.gate.callback(None)

    assert trial.finish() is None
    [failed] = trial.of(Failed)
    assert (b"", End.SOURCE) == (failed.path, failed.end)
    assert "src0" in str(failed.error)
    assert {b"b": b"good"} == contents(destination)


def test_a_run_with_a_hanging_source_can_be_stopped():
    """Whether it hangs at its beginning or later."""
    for hanging in ("open", "walk"):
        trial = Trial(HangingStore(hanging, {b"a": b"1"}), MemoryStore(), MemoryStore({b"b": b"2"}))
        trial.clock.pump([0.5] * 20)
        trial.done.cancel()

        assert isinstance(trial.finish(), Interrupted)


def test_a_lost_connection_ends_the_run():
    """A connection that is lost in the middle of a file would be lost for all others too."""
    source, destination = MemoryStore({b"x": BIG, b"y": BIG}), MemoryStore()
    destination.fail_next["write", b"x"] = ConnectionFailed("the connection was lost")

    error = Trial(source, destination).finish()

    assert ConnectionFailed is type(error)
    assert b"x" in source.files


def test_a_missing_source_and_a_file_as_destination_are_refused():
    """Nothing is touched when a location makes no sense."""
    source, destination = MemoryStore({b"a": b"1"}), MemoryStore()
    source.open = lambda *_: Deferred.fromCoroutine(_where(WhereKind.ABSENT))
    missing = Trial(source, destination).finish()
    destination.open = lambda *_: Deferred.fromCoroutine(_where(WhereKind.FILE))
    file = Trial(MemoryStore(), destination).finish()

    assert (NotFound, "source src0: no such file or directory") == (type(missing), str(missing))
    assert (UsageError, "destination dst: is a file, not a directory") == (type(file), str(file))


async def _where(kind):
    return Where(kind, (b"x", b"y"), 0)


def test_stopped_in_the_middle_keeps_partials_and_says_how_far_they_are():
    """A run that is stopped abandons what is under way, keeping it, and ends as interrupted."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore()
    opened = []
    open_writer = destination.open_writer

    def slow(path, size, policy, **_):
        def hold(writer):
            opened.append(writer)
            write = writer.write
            writer.write = lambda pieces: write(pieces).addCallback(lambda _: Deferred())
            return writer

        return open_writer(path, size, policy).addCallback(hold)

    destination.open_writer = slow
    trial = Trial(source, destination)
    assert 1 == len(opened)

    trial.done.cancel()

    error = trial.finish()
    assert Interrupted is type(error)
    assert [b"x"] == [event.path for event in trial.of(FileInterrupted)]
    assert destination.partials[b"x"] and BIG.startswith(destination.partials[b"x"])
    assert {b"x": BIG} == contents(source)


@pytest.mark.parametrize(("near", "kept"), [(True, 3), (False, 1)])
def test_what_has_arrived_is_kept_when_a_run_is_stopped(near, kept):
    """What a peer has sent is written before the end, unless it would have to travel on to another peer."""
    source, destination = MemoryStore({b"x": bytes(8 * BLOCK_BYTES)}), MemoryStore()
    open_reader, open_writer = source.open_reader, destination.open_writer

    def sent_by_a_peer(reader):
        read, blocks = reader.read, iter(range(3))
        reader.stop = lambda: None
        reader.read = lambda: fail(ConnectionFailed("stopped")) if next(blocks, None) is None else read()
        return reader

    def slow(writer):
        writer.near, write = near, writer.write
        waits = iter([Deferred(), None, None])
        writer.write = lambda pieces: write(pieces).addCallback(lambda _: next(waits))
        return writer

    source.open_reader = lambda *given, **options: open_reader(*given, **options).addCallback(sent_by_a_peer)
    destination.open_writer = lambda *given, **options: open_writer(*given, **options).addCallback(slow)
    trial = Trial(source, destination)
    trial.done.cancel()

    assert Interrupted is type(trial.finish())
    assert kept * BLOCK_BYTES == len(destination.partials[b"x"])
    assert [kept * BLOCK_BYTES] == [event.reached for event in trial.of(FileInterrupted)]


def test_what_is_kept_counts_as_sent():
    """Also what was still on its way when the run was stopped, and came before the peer was asked how much it keeps."""
    source, destination = MemoryStore({b"x": BIG}), MemoryStore()
    destination.in_transit = lambda: [Travelled([b"x"], 10)]
    open_writer = destination.open_writer

    def slow(writer):
        write, waits = writer.write, iter([None, Deferred()])
        writer.near, writer.write = False, lambda pieces: next(waits) or write(pieces)
        return writer

    destination.open_writer = lambda *given, **options: open_writer(*given, **options).addCallback(slow)
    trial = Trial(source, destination)
    trial.done.cancel()
    trial.finish()

    [stopped] = trial.of(FileInterrupted)
    assert 10 < stopped.reached == sum(event.amount for event in trial.of(Progressed))


def test_files_put_aside_are_bounded(monkeypatch):
    """Only so many files wait for another attempt; the others fail at once."""
    monkeypatch.setattr(move, "MAX_RETRY_QUEUE_FILES", 2)
    names = [bytes([c]) for c in range(97, 102)]
    source, destination = MemoryStore(dict.fromkeys(names, b"1")), MemoryStore()
    for name in names:
        destination.fail_next["put_small", name] = Busy("somebody else is writing it")

    trial = moved(source, destination)

    assert (2, 3) == (len(trial.of(Postponed)), len(trial.of(Failed)))
    assert 2 == len(destination.files)


def test_many_files_through_few_slots():
    """Hundreds of files of all sizes move with one job at a time."""
    files = {b"%03d" % number: random.Random(number).randbytes(number * 700) for number in range(300)}
    source, destination = MemoryStore(files, page=50), MemoryStore()

    trial = moved(source, destination, jobs=1)

    assert files == contents(destination)
    assert 300 == len(trial.of(Finished))


def test_a_run_goes_on_over_new_connections():
    """After a lost connection the resumed run does what is left, and does not begin again with what is done."""
    first, second, destination = MemoryStore({b"a": b"1"}), MemoryStore({b"b": BIG}), MemoryStore()
    destination.fail_next["write", b"b"] = ConnectionFailed("the connection was lost")
    events, clock, ended = [], Clock(), []
    sides = [Side(first, "first"), Side(second, "second")]
    run = Run(sides, Side(destination, "dst"), TransferOptions(), events.append, clock)
    run.start().addBoth(ended.append)
    clock.pump([0.05] * 200)
    first.plant(b"late", b"2")

    run.resumed(sides, Side(destination, "dst")).start().addBoth(ended.append)
    clock.pump([0.05] * 200)

    assert ConnectionFailed is ended[0].type
    assert None is ended[1]
    assert {b"a": b"1", b"b": BIG} == contents(destination)
    assert {b"late"} == set(first.files)


def test_a_source_may_have_a_way_of_its_own_into_the_destination():
    """Each is opened once, also if it is not that of the first source, and nothing goes by that of another source."""
    sources = [MemoryStore({name: BIG, b"small " + name: b"1"}) for name in (b"a", b"b", b"c")]
    ways = [MemoryStore(), MemoryStore()]
    opened = []
    for way in ways:
        opening = way.open
        way.open = lambda *arguments, way=way, opening=opening: (opened.append(way), opening(*arguments))[1]
    sides = [Side(source, "src", ways[number % 2]) for number, source in enumerate(sources)]
    ended = []
    Run(sides, Side(ways[0], "dst"), TransferOptions(), lambda _: None, Clock()).start().addBoth(ended.append)

    assert [None] == ended
    assert ways == opened
    assert [{b"a", b"small a", b"c", b"small c"}, {b"b", b"small b"}] == [set(way.files) for way in ways]


@pytest.mark.parametrize(("remove", "ending"), [(True, None), (False, NotFound)])
def test_a_single_file_that_is_gone_after_a_lost_connection(remove, ending):
    """A move has moved it; a copy does not remove its source, so that somebody else did, and it is missing."""
    source, destination = MemoryStore({b"f": BIG}), MemoryStore()
    source.open = lambda *_: Deferred.fromCoroutine(_where(WhereKind.FILE))
    destination.fail_next["write", b"f"] = ConnectionFailed("the connection was lost")
    clock, ended = Clock(), []
    options = TransferOptions(remove=remove)
    run = Run([Side(source, "src")], Side(destination, "dst"), options, lambda _: None, clock)
    run.start().addBoth(ended.append)
    clock.pump([0.05] * 200)
    source.open = lambda *_: Deferred.fromCoroutine(_where(WhereKind.ABSENT))

    run.resumed([Side(source, "src")], Side(destination, "dst")).start().addBoth(ended.append)
    clock.pump([0.05] * 200)

    assert ConnectionFailed is ended[0].type
    assert ending is getattr(ended[1], "type", None)


def test_a_name_from_an_earlier_source_is_still_protected_after_a_lost_connection():
    """What the first source sent before the connection was lost is not replaced by the second one after it."""
    first, second, destination = MemoryStore({b"x": b"1"}), MemoryStore({b"x": b"22", b"y": BIG}), MemoryStore()
    destination.fail_next["write", b"y"] = ConnectionFailed("the connection was lost")
    events, clock, ended = [], Clock(), []
    sides = [Side(first, "first"), Side(second, "second")]
    run = Run(sides, Side(destination, "dst"), TransferOptions(policy=OnConflict.REPLACE), events.append, clock)
    run.start().addBoth(ended.append)
    clock.pump([0.05] * 200)

    run.resumed(sides, Side(destination, "dst")).start().addBoth(ended.append)
    clock.pump([0.05] * 200)

    assert {b"x": b"1", b"y": BIG} == contents(destination)
    assert {b"x": b"22"} == contents(second)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_name_is_still_protected_after_a_lost_connection_though_the_clock_was_set_back(restarted):
    """The destination is told when the run began; one that was restarted says at least what its clock shows."""
    first, second, destination = MemoryStore({b"x": b"1"}), MemoryStore({b"x": b"22", b"y": BIG}), SetBack()
    destination.fail_next["write", b"y"] = ConnectionFailed("the connection was lost")
    clock, ended = Clock(), []
    sides = [Side(first, "first"), Side(second, "second")]
    run = Run(sides, Side(destination, "dst"), TransferOptions(policy=OnConflict.REPLACE), lambda _: None, clock)
    run.start().addBoth(ended.append)
    clock.pump([0.05] * 200)
    if restarted:
        open_anew = destination.open
        destination.open = lambda salt, _run_age_ns=0: open_anew(salt)

    run.resumed(sides, Side(destination, "dst")).start().addBoth(ended.append)
    clock.pump([0.05] * 200)

    assert {b"x": b"1", b"y": BIG} == contents(destination)
    assert {b"x": b"22"} == contents(second)


def test_a_pulled_brake_starts_nothing_new():
    """What was not started because of it is left where it is, and the run says that it is not done."""
    source, destination = MemoryStore({b"a": b"1", b"b": BIG}), MemoryStore()
    ended = []
    run = Run([Side(source, "src")], Side(destination, "dst"), TransferOptions(), lambda _: None, Clock())
    run.stop_flag.request()

    run.start().addBoth(ended.append)

    assert DeadlineReached is ended[0].type
    assert ({b"a", b"b"}, {}) == (set(source.files), destination.files)


CHANGED = BIG[: 1 << 20] + b"inserted" + BIG[1 << 20 :]


def test_a_version_that_is_there_is_made_use_of():
    """Of a file that has changed a little only that travels; progress counts all of it."""
    source, destination = MemoryStore({b"x": CHANGED}), MemoryStore({b"x": BIG})

    trial = moved(source, destination)

    [finished] = trial.of(Finished)
    assert {b"x": CHANGED} == contents(destination)
    assert {} == source.files
    assert How.REPLACED is finished.how
    assert 0 < finished.sent < 100_000
    assert len(CHANGED) == sum(event.amount for event in trial.of(Progressed))
    assert finished.sent == sum(event.amount - event.found for event in trial.of(Progressed))


def test_a_partial_and_the_old_version_are_both_made_use_of():
    """What the partial has is not looked for, and what neither has is all that travels."""
    source, destination = MemoryStore({b"x": CHANGED + b"more"}), MemoryStore({b"x": BIG})
    destination.plant_partial(b"x", CHANGED[: (1 << 20) + 5])

    trial = moved(source, destination)

    [finished], [started] = trial.of(Finished), trial.of(Started)
    assert {b"x": CHANGED + b"more"} == contents(destination)
    assert (1 << 20) + 5 == started.have
    assert 0 < finished.sent < 100_000


def test_what_arrived_of_a_delta_is_not_sent_again():
    """A delta that was stopped goes on where it was: the partial has what was sent and what was found."""
    inserted = random.Random(2).randbytes(1 << 20)
    new = BIG[: 2 << 20] + inserted + BIG[2 << 20 :]
    source, destination = MemoryStore({b"x": new}), MemoryStore({b"x": BIG})
    open_writer, writes = destination.open_writer, []

    def broken(path, size, policy, **_):
        def breaks(writer):
            write = writer.write

            def half(pieces):
                content = b"".join(pieces)
                writes.append(len(content))
                return write([content[: len(content) // 2]]).addCallback(lambda _: Deferred())

            writer.write = half
            return writer

        return open_writer(path, size, policy).addCallback(breaks)

    destination.open_writer = broken
    trial = Trial(source, destination)
    trial.done.cancel()
    trial.finish()
    destination.open_writer = open_writer

    [finished] = moved(source, destination).of(Finished)

    assert {b"x": new} == contents(destination)
    assert finished.sent < len(inserted) - sum(writes) // 2 + 100_000


@pytest.mark.parametrize("what", ["reader", "writer"])
def test_who_knows_no_deltas_gets_the_whole_file(what):
    """The file travels as ever if one of the two ends cannot."""
    source, destination = MemoryStore({b"x": CHANGED}), MemoryStore({b"x": BIG})
    store, method = (source, "open_reader") if what == "reader" else (destination, "open_writer")
    opening = getattr(store, method)

    def without(*arguments, **options):
        def made_older(opened):
            opened.deltas = False
            return opened

        return opening(*arguments, **options).addCallback(made_older)

    setattr(store, method, without)

    [finished] = moved(source, destination).of(Finished)

    assert {b"x": CHANGED} == contents(destination)
    assert len(CHANGED) == finished.sent


def test_an_old_version_that_somebody_writes_to_is_not_trusted_again():
    """If the digest of the whole shows that something was not what it was taken for, the file is sent whole."""
    source, destination = MemoryStore({b"x": CHANGED}), MemoryStore({b"x": BIG})
    open_writer, commits = destination.open_writer, []

    def misled(path, size, policy, **_):
        def misleads(writer):
            offer, commit = writer.offer, writer.commit

            def late(chunks):
                asked = offer(chunks)
                writer._partial = writer._partial[:-1] + bytes([writer._partial[-1] ^ 1])
                return asked

            def counted(*arguments):
                commits.append(path)
                return commit(*arguments)

            writer.offer, writer.commit = late, counted
            return writer

        return open_writer(path, size, policy).addCallback(misleads)

    destination.open_writer = misled

    trial = moved(source, destination)

    [finished] = trial.of(Finished)
    assert {b"x": CHANGED} == contents(destination)
    assert 2 == len(commits)
    assert len(CHANGED) == finished.sent
    assert [] == trial.of(Postponed)


def test_hope_is_given_up(monkeypatch):
    """When nothing of the beginning is found, the rest is not looked for: it is sent as ever."""
    monkeypatch.setattr("realize.mover.delta.GIVE_UP_AFTER_BYTES", 8 << 20)
    large = BIG * 12
    source, destination = MemoryStore({b"x": large}), MemoryStore({b"x": random.Random(2).randbytes(1 << 20)})
    open_writer, offers = destination.open_writer, []

    def counting(path, size, policy, **_):
        def count(writer):
            offer = writer.offer

            def counted(chunks):
                offers.append(chunks)
                return offer(chunks)

            writer.offer = counted
            return writer

        return open_writer(path, size, policy).addCallback(count)

    destination.open_writer = counting

    [finished] = moved(source, destination).of(Finished)

    assert {b"x": large} == contents(destination)
    assert len(large) == finished.sent
    assert 2 <= len(offers) < 9


def test_a_source_that_breaks_in_a_delta_fails_the_file():
    """An error of either end, at any stage, is one of that file, and what came together is kept."""
    for store, method, end in (("s", "cut", End.SOURCE), ("s", "pick", End.SOURCE), ("d", "offer", End.DESTINATION)):
        source, destination = MemoryStore({b"x": CHANGED, b"y": b"1"}), MemoryStore({b"x": BIG})
        (source if store == "s" else destination).fail_next[method, b"x"] = StorageError("x: broken")

        trial = moved(source, destination)

        assert [(b"x", end)] == [(event.path, event.end) for event in trial.of(Failed)]
        assert {b"x": BIG, b"y": b"1"} == contents(destination)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_source_that_says_later_that_it_fails_ends_the_run_with_that(failing):
    """Whichever of the sources answers last: nothing is touched, and the error is the one that it gave."""
    sources = [MemoryStore(), MemoryStore()]
    answers = [Deferred(), Deferred()]
    for store, answer in zip(sources, answers, strict=True):
        store.plant(b"f", b"x")
        found = store.open(b"")
        store.open = lambda *_, found=found, answer=answer: answer.addCallback(lambda _, found=found: found)
    trial = Trial(sources[0], MemoryStore(), sources[1])

    answers[1 - failing].callback(None)
    answers[failing].errback(AccessDenied("no"))

    assert isinstance(trial.finish(), AccessDenied)
    assert b"f" in sources[0].files


@pytest.mark.parametrize("missing", ["absent", "unreadable"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_of_several_sources_one_that_is_missing_is_a_failure_and_the_others_are_moved(missing, place):
    """It is named in its turn, in the way of rsync; the run itself goes well."""
    sources = [MemoryStore({b"%d" % number: b"x"}) for number in range(3)]
    destination = MemoryStore()
    error = StorageError("Permission denied")
    if missing == "absent":
        sources[place].open = lambda *_: Deferred.fromCoroutine(_where(WhereKind.ABSENT))
    else:
        sources[place].fail_next["open", b""] = error
    trial = Trial(sources[0], destination, *sources[1:])

    assert trial.finish() is None
    why = "no such file or directory" if missing == "absent" else "Permission denied"
    assert [(b"", End.SOURCE, f"source src{place}: {why}", False)] == [
        (event.path, event.end, str(event.error), event.found) for event in trial.of(Failed)
    ]
    assert ["src0", "src1", "src2"] == [event.source for event in trial.of(SourceStarted)]
    assert {b"0", b"1", b"2"} - {b"%d" % place} == set(contents(destination))


def test_of_several_sources_one_that_overlaps_refuses_all():
    """It is no source that is missing, but an order that makes no sense."""
    good, destination = MemoryStore({b"a": b"1"}), MemoryStore()
    trial = Trial(destination, destination, good)

    assert SameFile is type(trial.finish())
    assert {b"a": b"1"} == contents(good)


def test_a_large_file_that_is_copied_is_said_to_be_there():
    """As one that is moved, but that it stays."""
    source = MemoryStore({b"f": BIG})
    trial = moved(source, MemoryStore(), remove=False)

    assert [(How.CREATED, len(BIG), False)] == [(each.how, each.sent, each.removed) for each in trial.of(Finished)]
    assert {b"f": BIG} == contents(source)


@pytest.mark.parametrize("far", [True, False], ids=["remote", "local"])
def test_all_bytes_of_a_file_are_told_as_they_go(far):
    """By what is on its way, or between stores of this machine by what was written; the rest at its end."""
    destination = MemoryStore()
    if far:
        destination.in_transit = list
    trial = moved(MemoryStore({b"f": BIG, b"small": b"12345"}), destination)

    told = [(event.path, event.amount) for event in trial.of(Progressed)]
    large = [amount for path, amount in told if path == b"f"]
    assert (len(BIG), far) == (sum(large), len(large) == 1)
    assert [] == trial.clock.getDelayedCalls()


def test_the_first_look_at_what_travels_is_not_at_once():
    """What is on its way when a source begins is not that source's."""
    destination = MemoryStore()
    destination.in_transit = lambda: [Travelled([b"f"], 10)]
    destination.open_writer = lambda *_, **__: Deferred()
    trial = Trial(MemoryStore({b"f": BIG}), destination)
    before = trial.of(Progressed)
    trial.clock.advance(0.2)
    after = trial.of(Progressed)
    trial.done.cancel()

    assert ([], [Progressed(b"f", 10)]) == (before, after)
    assert [] == trial.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("seconds", "jobs", "most", "files"),
    [
        (0.0, 4, 30, 4),
        (0.03, 4, 30, 7),
        (0.2, 4, 30, 8),
        (0.2, 2, 30, 4),
        (0.2, 6, 30, 8),
        (0.2, 20, 30, 20),
        (0.2, 4, 6, 6),
        (0.2, 4, 1, 4),
    ],
)
def test_more_large_files_are_under_way_where_the_way_is_long(monkeypatch, seconds, jobs, most, files):
    """Each waits for two round trips; so many that their content keeps the link busy meanwhile."""
    monkeypatch.setattr("realize.mover.slots.MAX_FAR_FILE_BYTES", most * len(BIG))
    destination, begun = MemoryStore(), []
    destination.round_trip = lambda: seconds
    destination.open_writer = lambda path, *_, **__: begun.append(path) or Deferred()
    trial = Trial(MemoryStore({b"%02d" % number: BIG for number in range(24)}), destination, jobs=jobs)
    found = len(begun)
    trial.done.cancel()

    assert files == found


def test_large_files_are_under_way_side_by_side():
    """As many as there are jobs, where there is room."""
    destination = MemoryStore()
    begun = []
    destination.open_writer = lambda path, *_, **__: begun.append(path) or Deferred()
    Trial(MemoryStore({b"%d" % number: BIG for number in range(3)}), destination, jobs=2)

    assert [b"0", b"1"] == begun


@pytest.mark.parametrize(
    ("seconds", "jobs", "most", "batches"),
    [
        (0.0, 4, 32, 8),
        (0.0, 100, 1, 16),
        (0.05, 4, 32, 13),
        (0.2, 4, 32, 20),
        (0.2, 4, 16, 16),
        (0.2, 4, 1, 8),
        (0.2, 1, 32, 5),
        (0.2, 100, 32, 20),
    ],
)
@pytest.mark.parametrize("far", ["source", "destination"])
def test_more_batches_are_under_way_where_the_way_is_long(monkeypatch, far, seconds, jobs, most, batches):
    """As many as both ends work off in a round trip, as far as the jobs and the memory of the other end allow it.

    What counts is what they have, and not what they might have.
    """
    monkeypatch.setattr("realize.mover.small.MAX_BATCH_FILES", 1)
    monkeypatch.setattr("realize.mover.slots.MAX_FAR_BYTES", most)
    source, destination = MemoryStore({b"%02d" % number: b"x" for number in range(40)}), MemoryStore()
    ends = {"source": source, "destination": destination}
    ends[far].round_trip = lambda: seconds
    begun = []
    destination.put_small = lambda files, _policy: begun.extend(files) or (Deferred() if files else succeed([]))
    trial = Trial(source, destination, jobs=jobs)
    found = len(begun)
    trial.done.cancel()

    assert batches == found


def test_a_source_is_told_what_need_not_be_listed():
    """An excluded directory may be large, slow, or not ours to read."""
    source = MemoryStore({b"cache/f": b"1", b"f": b"1"})
    walk, asked = source.walk, []
    source.walk = lambda **how: asked.append(how["leave"]) or walk(**how)
    moved(source, MemoryStore(), selection=selection([("exclude", "cache/")]))

    assert [(b"-cache",)] == asked


def test_small_files_are_under_way_until_they_have_ended():
    """A run that is ended by force in between does not know what becomes of them."""
    source, destination = MemoryStore({b"a": b"1", b"b": b"2", b"same": b"3"}), MemoryStore({b"same": b"3"})
    trial = moved(source, destination)

    kinds = [type(event) for event in trial.events if isinstance(event, Finished | UnderWay)]
    assert [3, -3] == [event.files for event in trial.of(UnderWay)]
    assert [UnderWay, Finished, Finished, Finished, UnderWay] == kinds


def test_small_files_of_a_batch_are_told_when_all_have_travelled():
    """Where a connection tells what is on its way, which a quick batch never shows."""
    destination = MemoryStore()
    destination.in_transit = list
    put = destination.put_small
    late = Deferred()
    destination.put_small = lambda files, policy: (late if files else succeed(None)).addCallback(
        lambda _: put(files, policy)
    )
    trial = Trial(MemoryStore({b"a": b"1", b"b": b"22"}), destination)
    trial.clock.pump([0.2] * 10)
    late.callback(None)
    trial.finish()

    assert {b"a": 1, b"b": 2} == {event.path: event.amount for event in trial.of(Progressed)}


def test_small_files_that_are_fetched_are_told_when_all_of_them_have_come():
    """What is left of them may take long at the destination, and is not on its way any more."""
    source, destination = HangingStore("read", {b"a": b"1", b"b": b"22"}), MemoryStore()
    source.in_transit = list
    put, late = destination.put_small, Deferred()
    destination.put_small = lambda files, policy: (late if files else succeed(None)).addCallback(
        lambda _: put(files, policy)
    )
    trial = Trial(source, destination)
    trial.clock.pump([0.2] * 10)
    on_their_way = trial.of(Progressed)
    source.gate.callback(None)
    told = {event.path: event.amount for event in trial.of(Progressed)}
    late.callback(None)

    assert [] == on_their_way
    assert {b"a": 1, b"b": 2} == told
    assert trial.finish() is None


def test_what_there_is_no_room_for_is_counted_once_however_often_a_connection_is_lost():
    """A run that goes on finds the same files again."""
    source, destination = MemoryStore({b"a": BIG, b"b": BIG[1:]}), MemoryStore()
    destination.fail_next["write", b"b"] = ConnectionFailed("the connection was lost")
    events, ended = [], []
    side = Side(source, "src")
    run = Run([side], Side(destination, "dst"), TransferOptions(jobs=1), events.append, Clock())
    for again in (False, True):
        destination.fail_next["open_writer", b"a"] = NoSpace("a: No space left on device")
        (run.resumed([side], Side(destination, "dst")) if again else run).start().addBoth(ended.append)

    assert ConnectionFailed is ended[0].type
    assert None is ended[1]
    assert [1] == [event.files for event in events if isinstance(event, NoRoom)]


@pytest.mark.parametrize(
    ("end", "call"), [(End.SOURCE, "block_digests"), (End.DESTINATION, "match"), (End.SOURCE, "skip")]
)
def test_a_partial_that_cannot_be_compared_fails_its_file_and_names_the_end(end, call):
    """The other files are moved, and what was there is kept."""
    source, destination = MemoryStore({b"f": BIG, b"s": b"1"}), MemoryStore()
    destination.plant_partial(b"f", BIG[:2_000_000])
    (source if end is End.SOURCE else destination).fail_next[call, b"f"] = StorageError("f: broken")

    trial = moved(source, destination)

    assert [(b"f", end, "f: broken")] == [(each.path, each.end, str(each.error)) for each in trial.of(Failed)]
    assert ({b"f"}, {b"s"}) == (set(source.files), set(destination.files))


def test_a_destination_that_sets_no_directories_any_more_is_named():
    """That is no matter of one directory: the run ends with it, and removes none at the source."""
    source, destination = MemoryStore({b"d/f": b"1"}), MemoryStore()
    source.plant_directory(b"d", Attributes(1, 0o750))
    destination.fail_next["set_directories", b""] = StorageError("broken")

    assert "destination dst: broken" == str(Trial(source, destination, prune_age_ns=0).finish())
    assert [b"d"] == list(source.directories)


@pytest.mark.parametrize(("path", "under_way"), [(b"a", [2, -2]), (b"", [0])], ids=["one", "all"])
def test_small_files_that_could_not_be_read_are_not_under_way(path, under_way):
    """Of what never left its source, a run that is ended by force knows what became."""
    source = MemoryStore({b"a": b"1", b"b": b"2", b"c": b"3"})
    source.fail_next["read_small", path] = StorageError("broken")
    trial = Trial(source, MemoryStore())
    trial.finish()

    assert under_way == [event.files for event in trial.of(UnderWay)][: len(under_way)]
    assert 0 == sum(event.files for event in trial.of(UnderWay))


class GivenPages:
    """A feed, and its listing, whose pages the test gives when it likes; it keeps what it is told."""

    now_ns = held = 0

    def __init__(self):
        self.told = []
        self.closed = 0
        self._waiting = None

    def listing(self):
        return self

    def __call__(self, event):
        self.told.append(event)

    def next_page(self):
        self._waiting = Deferred()
        return self._waiting

    def give(self, *entries):
        """Answer the request for a page."""
        waiting, self._waiting = self._waiting, None
        waiting.callback(list(entries))

    def close(self):
        self.closed += 1


def file_entry(source, path):
    """What a listing says of a file."""
    file = source.files[path]
    return Entry(path, Kind.FILE, len(file.content), file.version.mtime_ns)


def fed(source, destination):
    """A trial in which a feed says which files are moved."""
    feed = GivenPages()
    trial = Trial(source, destination, feed=feed)
    trial.clock.pump([0.05] * 5)
    return trial, feed


def test_a_feed_says_which_files_are_moved():
    """What it gives is moved while it is waited for, into directories like those at the source; the rest stays."""
    source, destination = MemoryStore({b"a": b"1", b"d/b": b"2", b"z": b"3"}), MemoryStore()
    trial, feed = fed(source, destination)
    feed.give(Entry(b"d", Kind.DIRECTORY, mtime_ns=5, mode=0o750), file_entry(source, b"d/b"))
    trial.clock.pump([0.05] * 5)
    after_one_page = contents(destination)
    feed.give(file_entry(source, b"a"))
    trial.clock.pump([0.05] * 5)
    feed.give()

    assert trial.finish() is None
    assert {b"d/b": b"2"} == after_one_page
    assert {b"a": b"1", b"d/b": b"2"} == contents(destination)
    assert {b"z"} == set(source.files)
    assert [b"d/b", b"a"] == [event.path for event in feed.told if isinstance(event, Finished)]
    assert 1 == feed.closed


@pytest.mark.parametrize("content", [b"1", b"1" * (3 << 20)], ids=["small", "large"])
@pytest.mark.parametrize("there", [{}, {b"a": b"former"}], ids=["new", "replaced"])
def test_what_has_changed_since_a_feed_gave_it_is_not_sent(content, there):
    """Its turn may come hours after it had settled, when somebody writes to it again: it has to settle anew."""
    source, destination = MemoryStore({b"a": content}), MemoryStore(there)
    trial, feed = fed(source, destination)
    given = file_entry(source, b"a")
    source.plant(b"a", content)
    feed.give(given)
    trial.clock.pump([0.05] * 5)

    [failed] = [event for event in feed.told if isinstance(event, Failed)]
    assert isinstance(failed.error, SourceChanged)
    assert there == contents(destination)
    assert {b"a"} == set(source.files)
    feed.give()
    assert trial.finish() is None


def test_what_a_feed_brings_fails_at_once():
    """A file that cannot be moved now is not tried again by the run: the feed brings it when it likes."""
    source, destination = MemoryStore({b"a": b"1"}), MemoryStore()
    source.read_small = lambda paths, **_: succeed([SourceChanged("a: changed") for _ in paths])
    trial, feed = fed(source, destination)
    feed.give(file_entry(source, b"a"))
    trial.clock.pump([0.05] * 5)

    assert [b"a"] == [event.path for event in feed.told if isinstance(event, Failed)]
    assert [] == trial.of(Postponed)
    assert {b"a"} == set(source.files)
    feed.give()
    assert trial.finish() is None
