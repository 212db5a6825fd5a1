"""The mover over stores whose every call comes late, and may fail: what is said of it, and that nothing is lost by it."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from realize.errors import Busy, ConnectionFailed, StorageError
from realize.mover.events import (
    End,
    Failed,
    Finished,
    Found,
    How,
    Left,
    Planned,
    Postponed,
    Progressed,
    Pruned,
    Started,
)
from realize.mover.events import Interrupted as FileInterrupted
from realize.mover.run import MoveOptions, Run, Side
from realize.testing import MemoryStore, digest
from realize.values import Attributes
from tests.test_manifest import Notes
from tests.test_move import contents

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
    """What happens to the calls of both stores of a run: each is answered after a while, and one goes wrong.

    ``fault(end, name, number)`` is asked for each; an error that it answers is what the call fails with, and
    ``item(end, name, number)`` likewise for the first of the items that it is about.
    """

    def __init__(self, clock):
        self.clock = clock
        self.calls = []
        self.fault = self.item = lambda *_: None

    def store(self, end, behind):
        """A store that follows it."""
        return Late(self, end, behind)

    async def called(self, end, name, call, arguments, options):
        """Let it take a while, and perhaps fail."""
        number = len(self.calls)
        self.calls.append((end, name, arguments))
        await deferLater(self.clock, 0.01)
        error = self.fault(end, name, number)
        if error is not None:
            raise error
        answer = await call(*arguments, **options)
        error = self.item(end, name, number)
        if error is not None and isinstance(answer, list) and answer:
            answer = [error, *answer[1:]]
        return Late(self, end, answer) if name in {"open_reader", "open_writer"} else answer


class Late:
    """A store, or what was opened in one, that follows a script."""

    AT_ONCE = frozenset({"close", "reads_at_once", "takes_at_once"})

    def __init__(self, script, end, behind):
        self._script = script
        self._end = end
        self._behind = behind

    def __getattr__(self, name):
        found = getattr(self._behind, name)
        if not callable(found) or name in self.AT_ONCE:
            return found
        if name == "walk":
            return lambda **options: Late(self._script, self._end, found(**options))

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
    b"large/changed": LARGE + b"grown",
    b"large/new": LARGE,
    b"large/partial": LARGE[::-1],
    b"large/same": LARGE[1:],
    b"large/same size": LARGE[2:],
}
DESTINATION = {
    b"a/same": b"22",
    b"a/same size": b"xxx",
    b"a/other size": b"y",
    b"large/changed": LARGE,
    b"large/same": LARGE[1:],
    b"large/same size": LARGE[2:][::-1],
}
PARTIAL = SOURCE[b"large/partial"][:700]
REPLACED = {b"a/same size", b"a/other size", b"large/changed", b"large/same size"}


class Trial:
    """A run over late stores that have a file for each of the ways of the mover, and old directories that are empty."""

    def __init__(self, monkeypatch, *, item=None, fault=None, **options):
        monkeypatch.setattr("realize.mover.large.WORTHWHILE", 512)
        monkeypatch.setattr("realize.mover.large.COMPARED_AT_ONCE", 1 << 20)
        self.source, self.destination = MemoryStore(SOURCE), MemoryStore(DESTINATION)
        self.destination.plant_partial(b"large/partial", PARTIAL)
        self.destination.takes_at_once = lambda: 10
        self.source.plant_directory(b"empty", Attributes(1, 0o755))
        self.source.obstacles[b"link"] = "symlink"
        self.events, self.result, self.clock = [], [], Clock()
        self.script = Script(self.clock)
        self.script.fault, self.script.item = fault or self.script.fault, item or self.script.item
        self.notes = Notes(self.source)
        options = MoveOptions(**{"jobs": 2, "prune_age_ns": 0, **options})
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
    assert SOURCE == contents(trial.destination)
    assert {} == contents(trial.source)
    assert {b"a", b"empty", b"large"} == {event.path for event in trial.of(Pruned)}
    assert [Left(b"link", "symlink")] == trial.of(Left)
    assert (len(SOURCE), sum(map(len, SOURCE.values()))) == (
        sum(event.files for event in trial.of(Found)),
        sum(event.size for event in trial.of(Found)),
    )
    assert (set(SOURCE), []) == (set(trial.notes.told), trial.notes.too_late)


@pytest.mark.parametrize("error", [StorageError("broken"), ConnectionFailed("lost")])
def test_whichever_call_fails_the_right_end_is_named_and_nothing_is_lost(monkeypatch, error):
    """It fails one file, or ends the run where the store can do nothing more; the rest is moved, if there is a rest."""
    calls = Trial(monkeypatch).script.calls
    assert {name for _, name, _ in calls} >= OF_ONE_FILE
    for wanted, (end, name, _) in enumerate(calls):
        trial = Trial(monkeypatch, fault=lambda _end, _name, number, wanted=wanted: error if number == wanted else None)

        [result] = trial.result
        about = (wanted, end, name)
        assert (about, []) == (about, trial.lost)
        assert (about, []) == (about, trial.notes.too_late)
        if name in OF_ONE_FILE and not isinstance(error, ConnectionFailed):
            failed = [(event.end, event.error) for event in trial.of(Failed)]
            assert (about, [(end, error)], None) == (about, failed, result)
            assert (about, 1) == (about, len(contents(trial.source)))
            for event in trial.of(FileInterrupted):
                assert (about, True) == (about, event.reached <= len(trial.destination.partials.get(event.path, b"")))
        else:
            said = (type(result.value), str(result.value))
            assert (about, type(error), f"{end.value} {_names(end)}: {error}") == (about, *said)


def _names(end):
    return "src" if end is End.SOURCE else "dst"


@pytest.mark.parametrize("error", [StorageError("broken"), Busy("not now")])
def test_whichever_item_fails_it_fails_alone(monkeypatch, error):
    """What would go wrong again stays at the source, and is named; what was only busy moves in the end."""
    calls = Trial(monkeypatch).script.calls
    for wanted, (end, name, arguments) in enumerate(calls):
        items = arguments[0] if arguments and name not in OF_ONE_FILE | SILENT else None
        if not (isinstance(items, list) and items) or (name == "describe" and not error.permanent):
            continue  # what stands against describing a file does not pass by itself
        trial = Trial(monkeypatch, item=lambda _end, _name, number, wanted=wanted: error if number == wanted else None)

        about = (wanted, end, name)
        said = trial.of(Failed) if error.permanent else trial.of(Postponed)
        assert (about, [None], []) == (about, trial.result, trial.lost)
        assert (about, [(end, error)]) == (about, [(event.end, event.error) for event in said])
        if error.permanent:
            path = said[0].path
            assert (about, {path}) == (about, set(contents(trial.source)) | {path})
            assert (about, len(SOURCE) - 1) == (about, len(trial.of(Finished)))
        else:
            assert (about, {}, []) == (about, contents(trial.source), trial.of(Failed))
            assert (about, SOURCE) == (about, contents(trial.destination))
