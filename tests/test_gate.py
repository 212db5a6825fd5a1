"""A gate that several wait before: `realize.mover.gate`."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from realize.errors import NotFound
from realize.mover.gate import Gate


def outcomes(*waiting):
    """What these have come to, None while they wait."""
    found = [[] for _ in waiting]
    for each, results in zip(waiting, found, strict=True):
        each.addCallbacks(lambda _, results=results: results.append("open"), results.append)
    return found


def raising(error):
    """A function that raises that."""

    def fails(*_):
        raise error

    return fails


def test_it_opens_for_all_who_wait_and_for_those_who_come_later():
    """Once for all."""
    opening = Deferred()
    gate = Gate(opening)
    early = outcomes(gate.passed(), gate.passed())
    before = list(early[0])
    opening.callback(None)

    assert [] == before
    assert [["open"]] * 3 == [*early, *outcomes(gate.passed())]


def test_if_it_cannot_tell_that_it_opened_all_who_were_not_told_fail(monkeypatch):
    """As for want of memory; nobody waits for ever."""
    opening = Deferred()
    gate = Gate(opening)
    first, second = gate.passed(), gate.passed()
    found = outcomes(first, second)
    monkeypatch.setattr(first, "callback", raising(MemoryError()))
    opening.callback(None)

    assert [] == found[0]
    assert isinstance(found[1][0].value, MemoryError)


def test_if_it_cannot_open_all_fail():
    """Also those who come later; nothing is left that nobody has looked at."""
    opening = Deferred()
    gate = Gate(opening)
    found = [*outcomes(gate.passed(), gate.passed())]
    opening.errback(NotFound("gone"))
    found += outcomes(gate.passed())

    assert [NotFound] * 3 == [type(failure.value) for [failure] in found]


def test_who_waits_may_be_cancelled():
    """The others go on to wait."""
    opening = Deferred()
    gate = Gate(opening)
    first, second = gate.passed(), gate.passed()
    found = outcomes(first, second)
    first.cancel()
    opening.callback(None)

    assert CancelledError is type(found[0][0].value)
    assert ["open"] == found[1]


@pytest.mark.parametrize("is_open", [False, True])
def test_what_opens_it_is_cancelled_if_it_is_abandoned_before(is_open):
    """Those who wait are left to others, which cancel them for their own reasons."""
    cancelled = []
    opening = Deferred(cancelled.append)
    gate = Gate(opening)
    waiting = gate.passed()
    found = outcomes(waiting)
    if is_open:
        opening.callback(None)
    gate.abandon()
    before = list(found[0])
    waiting.cancel()

    assert ([] if is_open else [opening]) == cancelled
    assert (["open"] if is_open else []) == before
