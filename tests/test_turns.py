"""Whose turn it is, and who is let in beside a job that hangs."""

from twisted.internet.task import Clock

from realize.mover.turns import SourceTurns


def entered(turns):
    """Ask for a turn; the list is not empty when it has come."""
    come = []
    asked = turns.acquire()
    asked.addBoth(come.append)
    return asked, come


def test_the_next_one_waits_for_the_end_of_the_last():
    """As long as that shows that it gets on."""
    clock = Clock()
    turns = SourceTurns(clock, 5.0)
    _, first = entered(turns)
    _, second = entered(turns)

    for _ in range(10):
        clock.advance(4.0)
        turns.alive()
    waited = list(second)
    turns.release()

    assert ([None], [], [None]) == (first, waited, second)
    assert [] == clock.getDelayedCalls()


def test_who_hangs_lets_the_next_one_in_beside_it():
    """After the patience is over; and the one after that comes in when the second has ended."""
    clock = Clock()
    turns = SourceTurns(clock, 5.0)
    entered(turns)
    _, second = entered(turns)
    clock.advance(5.0)
    _, third = entered(turns)
    early = list(third)
    turns.release()

    assert ([None], [], [None]) == (second, early, third)


def test_who_gives_up_waiting_leaves_nothing_behind():
    """Neither a timer nor a place."""
    clock = Clock()
    turns = SourceTurns(clock, 5.0)
    entered(turns)
    asked, _ = entered(turns)

    asked.cancel()
    turns.release()
    _, last = entered(turns)

    assert [None] == last
    assert [] == clock.getDelayedCalls()
