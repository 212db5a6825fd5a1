"""What is done whether its answer comes or not: it is waited for when a run ends, and what stays open is said."""

from functools import partial

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock

from realize.concurrency.shielded import steady
from realize.errors import ConnectionFailed, Interrupted, NoSpace, Silence, Unanswered
from realize.mover.events import Finished, Found, How, Listed, Stopped, Unknown
from realize.mover.jobs import CANCEL_TIMEOUT_S
from realize.mover.run import Run, Side, TransferOptions
from realize.values import MAX_SMALL_BYTES, OnConflict, Where, WhereKind
from tests.memory_store import MemoryStore
from tests.test_manifest import Notes
from tests.test_move import BIG, contents


class Slow(MemoryStore):
    """A store that has done ``slow`` at once, but whose answer to it comes when ``answer`` fires."""

    def __init__(self, slow, files=None):
        super().__init__(files or {})
        self.answer = Deferred()
        self.asked = 0
        if slow == "commit":
            self._open_writer, self.open_writer = self.open_writer, self._open_slow_writer
        else:
            setattr(self, slow, partial(self._late, getattr(self, slow)))

    def _late(self, call, *arguments, **options):
        done = call(*arguments, **options)
        if arguments[0] == []:
            return done
        self.asked += 1
        return steady(self.answer.addCallback(lambda _: done))

    def _open_slow_writer(self, *arguments, **options):
        def slow(writer):
            writer.commit = partial(self._late, writer.commit)
            return writer

        return self._open_writer(*arguments, **options).addCallback(slow)


class Trial:
    """A run that has come as far as it can without an answer."""

    def __init__(self, source, destination):
        self.clock, self.events, self.result, self.notes = Clock(), [], [], Notes(source)
        self.source, self.destination = source, destination
        sides = [Side(source, "src")], Side(destination, "dst")
        self.run = Run(
            *sides, TransferOptions(policy=OnConflict.REPLACE), self.events.append, self.clock, manifest=self.notes
        )
        self.start(self.run)

    def start(self, run):
        """Start it, or go on with it."""
        self.result.clear()
        self.done = run.start()
        self.done.addBoth(self.result.append)
        self.clock.pump([0.05] * 20)

    def told(self, *kinds):
        """The events of these kinds."""
        return [event for event in self.events if isinstance(event, kinds)]


FILES = {"put_small": {b"f": b"12345"}, "remove": {b"f": b"12345"}, "commit": {b"f": BIG}}
SLOW_ENDS = {"put_small": "destination", "remove": "source", "commit": "destination"}
assert len(BIG) > MAX_SMALL_BYTES


def trial(slow):
    """A run in which no answer comes to one call."""
    files = FILES[slow]
    at_source = SLOW_ENDS[slow] == "source"
    return Trial(
        Slow("remove", files) if at_source else MemoryStore(files),
        MemoryStore() if at_source else Slow(slow),
    )


def unanswered(cause):
    """What a store fails with when that kept an answer from coming."""
    error = Unanswered(str(cause))
    error.__cause__ = cause
    return error


def slow_store(of):
    """The one whose answer is waited for."""
    return of.source if isinstance(of.source, Slow) else of.destination


@pytest.mark.parametrize("slow", FILES)
def test_an_answer_that_comes_while_a_run_ends_counts(slow):
    """What was being made durable, or removed, when a signal came is waited for, and moved to its end."""
    run = trial(slow)
    assert [1, []] == [slow_store(run).asked, run.result]

    run.done.cancel()
    run.clock.advance(CANCEL_TIMEOUT_S / 2)
    before = list(run.result)
    slow_store(run).answer.callback(None)

    assert [] == before
    assert [Interrupted] == [failure.type for failure in run.result]
    assert [(b"f", How.CREATED, True)] == [(each.path, each.how, each.removed) for each in run.told(Finished)]
    assert [] == run.told(Unknown)
    assert ({}, FILES[slow]) == (contents(run.source), contents(run.destination))
    assert [b"f"] == run.notes.gone
    assert [] == run.clock.getDelayedCalls()


@pytest.mark.parametrize("slow", FILES)
def test_a_run_that_ends_waits_for_answers_no_longer_than_that(slow):
    """Then it says that nobody knows: whether the file is there, or, of one that is there, whether it was removed."""
    run = trial(slow)

    run.done.cancel()
    run.clock.pump([CANCEL_TIMEOUT_S / 2] * 2)

    assert [Interrupted] == [failure.type for failure in run.result]
    size = len(FILES[slow][b"f"])
    assert [Unknown(b"f", size, size, How.CREATED if slow == "remove" else None)] == run.told(Unknown, Finished)
    assert ([] if slow == "remove" else [b"f"]) == run.notes.unsure
    assert ([b"f"] if slow == "remove" else []) == list(run.notes.told)
    assert [] == run.clock.getDelayedCalls()


@pytest.mark.parametrize("files", [FILES["remove"], {b"f": BIG}], ids=["small", "large"])
def test_what_is_begun_while_a_run_ends_is_not_waited_for_any_longer(files):
    """What arrived while the run was ending is still to be removed, and nothing comes back from there."""
    run = Trial(Slow("remove", files), Slow("commit" if len(files[b"f"]) > MAX_SMALL_BYTES else "put_small"))
    run.done.cancel()
    run.clock.advance(CANCEL_TIMEOUT_S / 2)
    run.destination.answer.callback(None)
    assert [1, []] == [run.source.asked, run.result]

    run.clock.advance(CANCEL_TIMEOUT_S / 2)

    assert [Interrupted] == [failure.type for failure in run.result]
    size = len(files[b"f"])
    assert [Unknown(b"f", size, size, How.CREATED)] == run.told(Unknown, Finished, Stopped)
    assert [] == run.clock.getDelayedCalls()


class Half(MemoryStore):
    """A store to which nothing can be put any more once it has taken one batch."""

    def put_small(self, files, policy):
        """Take files; of what replaces others, nothing is taken."""
        if any(file.replaces for file in files):
            return fail(ConnectionFailed("lost"))
        return super().put_small(files, policy)


def test_what_has_arrived_of_a_batch_that_goes_no_further_is_in_the_manifest():
    """What was sent, and what was there already: both are said to be at the destination, and stay at the source."""
    run = Trial(MemoryStore({b"new": b"1", b"same": b"2", b"other": b"3"}), Half({b"same": b"2", b"other": b"4"}))

    assert [ConnectionFailed] == [failure.type for failure in run.result]
    said = {each.path: (each.how, each.removed) for each in run.told(Finished)}
    assert {b"new": (How.CREATED, False), b"same": (How.ALREADY_THERE, False)} == said
    assert {path: how for path, (how, _) in said.items()} == {path: told[-1] for path, told in run.notes.told.items()}
    assert [] == run.notes.gone


@pytest.mark.parametrize("slow", FILES)
def test_what_had_no_answer_when_a_connection_was_lost_is_unknown(slow):
    """The run ends with what the connection was lost by."""
    run = trial(slow)
    slow_store(run).answer.errback(unanswered(Silence("not heard of for 45 s")))

    [failure] = run.result
    end = {"source": "source src", "destination": "destination dst"}[SLOW_ENDS[slow]]
    assert (Silence, f"{end}: not heard of for 45 s") == (failure.type, str(failure.value))
    assert [b"f"] == [event.path for event in run.told(Unknown)]
    assert [] == run.told(Finished)


@pytest.mark.parametrize("removed", [True, False], ids=["removed", "still there"])
def test_a_run_that_comes_back_looks_whether_a_file_was_removed(removed):
    """It was reported as unknown; now it is moved, or there already and removed."""
    run = trial("remove")
    run.source.answer.errback(unanswered(ConnectionFailed("lost")))
    assert [Unknown(b"f", 5, 5, How.CREATED)] == run.told(Unknown, Finished)
    before = list(run.notes.gone)
    source = MemoryStore({} if removed else FILES["remove"])
    run.notes.source = source

    run.start(run.run.resumed([Side(source, "src")], Side(run.destination, "dst")))

    assert [None] == run.result
    how = How.CREATED if removed else How.ALREADY_THERE
    assert [(b"f", how, True, 0)] == [(each.path, each.how, each.removed, each.sent) for each in run.told(Finished)]
    assert 2 == sum(each.files for each in run.told(Found))
    assert ([], [b"f"]) == (before, run.notes.gone)
    assert {} == contents(source)


def test_a_run_that_comes_back_and_cannot_look_says_at_which_end():
    """What it could not look at stays unknown."""
    run = trial("remove")
    run.source.answer.errback(unanswered(ConnectionFailed("lost")))
    source = MemoryStore(FILES["remove"])
    source.describe = lambda _: fail(ConnectionFailed("lost again"))

    run.start(run.run.resumed([Side(source, "src")], Side(run.destination, "dst")))

    [failure] = run.result
    assert (ConnectionFailed, "source src: lost again") == (failure.type, str(failure.value))
    assert [] == run.told(Finished)


def test_a_run_that_comes_back_twice_says_only_once_what_was_removed():
    """But each time that all was found, for it has listed its sources anew."""
    run = trial("remove")
    run.source.answer.errback(unanswered(ConnectionFailed("lost")))
    found = [len(run.told(Listed))]
    for _ in range(2):
        broken = MemoryStore()
        broken.fail_next["walk", b""] = ConnectionFailed("lost again")
        run.start(run.run.resumed([Side(broken, "src")], Side(run.destination, "dst")))
        run.start(run.run.resumed([Side(MemoryStore(), "src")], Side(run.destination, "dst")))
        found.append(len(run.told(Listed)))

    assert [(b"f", True)] == [(each.path, each.removed) for each in run.told(Finished)]
    assert [1, 2, 3] == found


def test_a_single_file_that_is_gone_when_a_run_comes_back_was_removed():
    """There is nothing left that could be looked at, and nobody else was to take it."""

    async def where(kind):
        return Where(kind, (b"x", b"y"), 0)

    source = Slow("remove", FILES["remove"])
    source.open = lambda *_: Deferred.fromCoroutine(where(WhereKind.FILE))
    run = Trial(source, MemoryStore())
    source.answer.errback(unanswered(ConnectionFailed("lost")))
    assert [Unknown(b"f", 5, 5, How.CREATED)] == run.told(Unknown, Finished)
    gone = MemoryStore()
    gone.open = lambda *_: Deferred.fromCoroutine(where(WhereKind.ABSENT))

    run.start(run.run.resumed([Side(gone, "src")], Side(run.destination, "dst")))

    assert [None] == run.result
    assert [(b"f", How.CREATED, True)] == [(each.path, each.how, each.removed) for each in run.told(Finished)]
    assert [b"f"] == run.notes.gone


@pytest.mark.parametrize(("answer", "reached"), [(1000, 1000), (0, 0), (None, None), (ConnectionFailed("lost"), None)])
def test_how_far_a_file_got_is_what_the_destination_says(answer, reached):
    """Not what was read, or sent: the last of it may still be on its way, or not fit."""
    files = {b"f": BIG}
    source, destination = MemoryStore(files), MemoryStore()
    open_writer = destination.open_writer

    def stuck(writer):
        abandon = writer.abandon
        writer.write = lambda _: Deferred()
        writer.abandon = lambda *, keep: abandon(keep=keep).addCallback(
            lambda _: fail(answer) if isinstance(answer, Exception) else answer
        )
        return writer

    destination.open_writer = lambda *arguments, **options: open_writer(*arguments, **options).addCallback(stuck)
    run = Trial(source, destination)

    run.done.cancel()

    assert [Stopped(b"f", len(BIG), reached)] == run.told(Stopped)
    assert [Interrupted] == [failure.type for failure in run.result]


def test_how_far_a_file_got_that_could_not_be_committed_is_asked():
    """The writer is closed by then, and whether it has kept anything depends on what went wrong."""
    source, destination = MemoryStore({b"f": BIG}), MemoryStore()
    destination.fail_next["commit", b"f"] = NoSpace("f: full")

    run = Trial(source, destination)

    assert [Stopped(b"f", len(BIG), len(BIG))] == run.told(Stopped)


def outcome(waiting):
    """The list has its result or failure once it has one."""
    results = []
    waiting.addBoth(results.append)
    return results


def test_what_is_steady_goes_on_when_it_is_cancelled():
    """The answer still comes, as a result or as an error."""
    for answer in (5, ValueError("x")):
        asked = Deferred()
        waiting = steady(asked)
        results = outcome(waiting)

        waiting.cancel()
        before = list(results)
        asked.callback(answer) if answer == 5 else asked.errback(answer)

        assert [] == before
        assert [answer] == [getattr(result, "value", result) for result in results]


def test_what_is_steady_is_given_up_at_the_second_time():
    """Whatever comes then is nobody's any more, also an error."""
    asked = Deferred()
    waiting = steady(asked)
    results = outcome(waiting)

    waiting.cancel()
    waiting.cancel()
    asked.errback(ValueError("late"))

    assert [Unanswered] == [failure.type for failure in results]


def test_what_is_steady_may_be_cancelled_by_others():
    """That is an answer like any other."""
    for times in range(2):
        asked = Deferred()
        waiting = steady(asked)
        results = outcome(waiting)
        for _ in range(times):
            waiting.cancel()

        asked.cancel()

        assert [CancelledError] == [failure.type for failure in results]


def test_a_large_file_whose_removal_had_no_answer_is_there():
    """It is durable at the destination, so it is not said to have been interrupted."""
    run = Trial(Slow("remove", {b"f": BIG}), MemoryStore())
    run.source.answer.errback(unanswered(ConnectionFailed("lost")))

    assert [Unknown(b"f", len(BIG), len(BIG), How.CREATED)] == run.told(Unknown, Finished, Stopped)


def test_a_large_file_whose_commit_had_no_answer_is_not_interrupted():
    """It may be whole there: how much of it is kept for the next time is no question then."""
    run = trial("commit")
    run.destination.answer.errback(unanswered(ConnectionFailed("lost")))

    assert [Unknown(b"f", len(BIG), len(BIG), None)] == run.told(Unknown, Finished, Stopped)


def test_of_a_large_file_whose_commit_had_no_answer_only_what_was_sent_counts():
    """The rest had been there before."""
    destination = Slow("commit")
    destination.plant_partial(b"f", BIG[: 1 << 20])
    run = Trial(MemoryStore(FILES["commit"]), destination)
    destination.answer.errback(unanswered(ConnectionFailed("lost")))

    assert [Unknown(b"f", len(BIG), len(BIG) - (1 << 20), None)] == run.told(Unknown, Finished, Stopped)
