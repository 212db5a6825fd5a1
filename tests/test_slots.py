"""Slots of which there are as many as somebody says at the moment."""

from twisted.internet.defer import CancelledError

from realize.mover.slots import VaryingSlots


def asked(slots, count):
    """So many requests for a slot, and the list of those that have one by now, by number."""
    got = []
    requests = [slots.acquire() for _ in range(count)]
    for number, request in enumerate(requests):
        request.addCallbacks(lambda _, number=number: got.append(number), lambda failure: failure.trap(CancelledError))
    return requests, got


def test_slots_are_given_in_order():
    """As many as there are, and the next one when one is given back."""
    slots = VaryingSlots(lambda taken, _: taken < 2)
    _, got = asked(slots, 4)
    before = list(got)
    slots.release()

    assert ([0, 1], [0, 1, 2]) == (before, got)


def test_more_slots_are_noticed_when_one_is_given_back():
    """All that wait and fit go on then."""
    most = [1]
    slots = VaryingSlots(lambda taken, _: taken < most[0])
    _, got = asked(slots, 5)
    most[0] = 3
    slots.release()

    assert [0, 1, 2, 3] == got


def test_fewer_slots_let_those_that_run_go_on():
    """The next one waits until fewer run than there are slots."""
    most = [3]
    slots = VaryingSlots(lambda taken, _: taken < most[0])
    _, got = asked(slots, 4)
    most[0] = 1
    slots.release()
    slots.release()
    before = list(got)
    slots.release()

    assert ([0, 1, 2], [0, 1, 2, 3]) == (before, got)


def test_who_waits_no_more_is_passed_over():
    """A run that is cancelled leaves its place."""
    slots = VaryingSlots(lambda taken, _: taken < 1)
    requests, got = asked(slots, 3)
    requests[1].cancel()
    slots.release()

    assert [0, 2] == got


def test_nobody_overtakes_those_who_wait():
    """Even if there are more slots by now."""
    most = [1]
    slots = VaryingSlots(lambda taken, _: taken < most[0])
    _, first = asked(slots, 2)
    most[0] = 2
    _, second = asked(slots, 1)
    slots.release()

    assert ([0, 1], [0]) == (first, second)


def test_large_jobs_leave_room_for_fewer():
    """What counts is how large those are that run, with the next one; it keeps its place before smaller ones."""
    slots = VaryingSlots(lambda taken, size: not taken or size <= 10)
    got = []
    for size in (6, 4, 7, 1):
        slots.for_size(size).acquire().addCallback(lambda _, size=size: got.append(size))
    before = list(got)
    slots.for_size(6).release()
    after = list(got)
    slots.for_size(4).release()

    assert ([6, 4], [6, 4], [6, 4, 7, 1]) == (before, after, got)
