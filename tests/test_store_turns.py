"""Work of several peers, one piece of each after the other."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from realize.concurrency.turns import Rota, Turns
from tests.faults import Fault


class Work:
    """Pieces that end when the test says so."""

    def __init__(self, most, most_each):
        self.turns = Turns(most, most_each)
        self.begun = []
        self.results = []

    def ask(self, *names):
        """The first letter is whose it is."""
        for name in names:
            self.turns.run(name[0], lambda name=name: self.begin(name)).addBoth(self.results.append)

    def begin(self, name):
        piece = Deferred()
        self.begun.append((name, piece))
        return piece

    def end(self, number):
        name, piece = self.begun[number]
        piece.callback(name)

    @property
    def names(self):
        return [name for name, _ in self.begun]


def test_peers_take_turns_however_much_one_asks_for():
    """What came first of each comes first; who has asked for one thing only waits for one thing of each other."""
    work = Work(most=1, most_each=1)
    work.ask("a1", "a2", "a3", "b1", "c1", "b2")
    for number in range(6):
        work.end(number)

    assert ["a1", "a2", "b1", "c1", "a3", "b2"] == work.names == work.results


def test_nobody_has_all_places():
    """What one peer may have at once leaves places to others."""
    work = Work(most=3, most_each=2)
    work.ask("a1", "a2", "a3", "b1", "b2")
    first = list(work.names)
    work.end(0)

    assert ["a1", "a2", "b1"] == first
    assert ["a1", "a2", "b1", "a3"] == work.names
    assert 1 == work.turns.waiting


def test_what_fails_or_is_not_wanted_keeps_nobody_from_a_turn():
    """Errors are of the one who asked; what is cancelled keeps its place, for a thread cannot be stopped."""
    turns, seen = Turns(1, 1), []
    first = Deferred()
    turns.run("a", lambda: first).addErrback(lambda failure: seen.append(failure.type))
    cancelled = turns.run("a", lambda: succeed(seen.append("done")))
    cancelled.addErrback(lambda failure: seen.append(failure.type))
    turns.run("b", lambda: fail(KeyError())).addErrback(lambda failure: seen.append(failure.type))
    turns.run("c", lambda: 1 / 0).addErrback(lambda failure: seen.append(failure.type))
    cancelled.cancel()
    first.errback(OSError())

    assert {CancelledError, KeyError, ZeroDivisionError, "done", OSError} == set(seen)
    assert 0 == turns.waiting


def test_thousands_that_end_as_they_begin_are_no_burden():
    """As when a connection with thousands of commands is lost: none begins inside of another."""
    turns, held, seen = Turns(1, 1), Deferred(), []
    turns.run("a", lambda: held)
    for number in range(5000):
        turns.run("a", lambda number=number: succeed(seen.append(number)))
    held.callback(None)

    assert list(range(5000)) == seen


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.integers(1, 4), st.integers(1, 3))
def test_limits_hold_and_all_is_done(steps, most, most_each):
    """Whatever comes and ends in whatever order: never more at once, never idle while somebody may, nothing is lost."""
    running, turns = [], Turns(most, most_each)
    for asked, (owner, ends) in enumerate(steps, 1):
        turns.run(owner, lambda owner=owner: running.append((owner, Deferred())) or running[-1][1])
        if ends and running:
            running.pop(0)[1].callback(None)
        counts = {each: sum(1 for other, _ in running if other == each) for each in "abc"}
        assert len(running) <= most
        assert max(counts.values()) <= most_each
        assert len(running) + turns.waiting <= asked
    while running:
        running.pop(0)[1].callback(None)

    assert 0 == turns.waiting


def test_only_those_who_may_are_next():
    """The others keep their place."""
    rota = Rota()
    for owner, item in ("a1", "b2", "a3"):
        rota.add(owner, item)
    only = rota.peek(lambda owner: owner == "b")
    rota.pop("b")
    first = rota.peek(lambda _: True)
    rota.pop("a")

    assert (("b", "2"), ("a", "1"), ("a", "3")) == (only, first, rota.peek(lambda _: True))
    assert rota.peek(lambda owner: owner == "b") is None
    assert 1 == len(rota)


def test_what_is_not_wanted_any_more_leaves_the_line():
    """Others keep their place, also behind it; nothing is left of an owner of whom nothing waits."""
    rota = Rota()
    for owner, item in ("a1", "a2", "b3"):
        rota.add(owner, item)
    rota.remove("a", "1")
    rota.remove("a", "1")
    rota.remove("c", "1")
    then = rota.peek(), len(rota)
    rota.remove("a", "2")

    assert (("a", "2"), 2) == then
    assert (("b", "3"), 1) == (rota.peek(), len(rota))


def test_work_for_threads_has_its_turn_too():
    """With what it is called with, in its own order."""
    turns, held, calls = Turns(1, 1), Deferred(), []
    turns.run("a", lambda: held)
    run = turns.threads_of("b", lambda *args, **options: calls.append((args, options)) or succeed(7))
    answer = run(int, 1, base=2)
    before = list(calls)
    held.callback(None)

    assert ([], [((int, 1), {"base": 2})]) == (before, calls)
    assert 7 == answer.result


@pytest.mark.parametrize("beside", [False, True])
def test_want_of_memory_keeps_nobody_waiting(beside):
    """Who cannot begin is told, unless something is under way at whose end it begins all the same."""
    seen = set()
    for number in itertools.count(1):
        turns, first, other, told = Turns(2 if beside else 1, 1), Deferred(), Deferred(), []
        turns.run("a", lambda first=first: first)
        if beside:
            turns.run("b", lambda other=other: other)
        for name in "cd":
            turns.run(name, lambda name=name: succeed(name)).addBoth(told.append)
        with Fault(number, MemoryError()) as fault:
            first.callback(None)
        if not fault.hit:
            break
        if beside:
            assert MemoryError not in {getattr(each, "type", each) for each in told}, fault.where
            other.callback(None)
            assert ["c", "d"] == told, fault.where
        answers = [getattr(each, "type", each) for each in told]
        assert 2 == len(answers), fault.where
        assert {"c", "d", MemoryError} >= set(answers), fault.where
        seen.update(answers)

    assert {"c", "d", *([] if beside else [MemoryError])} == seen


def test_who_could_not_be_put_in_line_keeps_nobody_out():
    """Whatever there was no memory for: the next one has his turn."""
    for number in itertools.count(1):
        turns, seen = Turns(1, 1), []
        with Fault(number, MemoryError()) as fault:
            try:
                turns.run("a", lambda: succeed("a")).addBoth(seen.append)
            except MemoryError:
                seen.append("refused")
        if not fault.hit:
            break
        turns.run("b", lambda: succeed("b")).addCallback(seen.append)

        assert (2, "b") == (len(seen), seen[-1]), fault.where
