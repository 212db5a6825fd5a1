"""What a run has learned of the room at its destination."""

from realize.errors import NoSpace
from realize.mover.scarcity import Scarcity


def test_nothing_is_known_at_first():
    """Everything is worth trying."""
    scarcity = Scarcity()

    assert scarcity.refusal(b"f", 1 << 60) is None
    assert not scarcity.tight
    assert (0, 0) == (scarcity.files, scarcity.size)


def test_what_needs_as_much_is_not_tried():
    """The smallest that did not fit counts; what is smaller may fit."""
    scarcity = Scarcity()
    scarcity.failed(1000)
    scarcity.failed(2000)

    assert isinstance(scarcity.refusal(b"f", 1000), NoSpace)
    assert "f: not tried, because there was no room for a file of 1000 B" == str(scarcity.refusal(b"f", 5000))
    assert scarcity.refusal(b"f", 999) is None
    assert scarcity.tight


def test_a_second_look_is_fresh_but_careful():
    """What was not tried is tried once more, one at a time."""
    scarcity = Scarcity()
    scarcity.failed(1000)
    scarcity.look_again()

    assert scarcity.refusal(b"f", 1000) is None
    assert scarcity.tight


def test_nothing_is_counted_twice():
    """A source that begins again after a lost connection is counted anew, the others stay counted."""
    scarcity = Scarcity()
    for source in ("a", "b"):
        scarcity.begin(source)
        scarcity.left(source, 10)
    scarcity.begin("b")
    scarcity.left("b", 20)
    scarcity.left("b", 30)

    assert (3, 60) == (scarcity.files, scarcity.size)
