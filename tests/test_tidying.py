"""A command removes its old partials at a destination of this machine."""

import os

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from realize.mover.events import Finished, How, PartialGone
from realize.runs.expiry import TIDYING_EXTRA_S, TIDYING_PAUSE_S, Tidying
from tests.leftovers import leave_partial, partial_at
from tests.local_stores import at_once

DAY = 86_400


class Trial:
    """Tidying in a folder; ``told`` has the names of what went."""

    def __init__(self, path, threads=at_once):
        self.clock = Clock()
        self.told = []
        self.tidying = Tidying(os.fsencode(path), 7 * DAY, threads, self.clock, self.told.append)
        self.tidying.start()

    def finish(self):
        """Whether it has ended."""
        return Deferred.fromCoroutine(self.tidying.finish())


@pytest.fixture
def there(tmp_path):
    """A destination with old and young partials, and a file that only looks like one."""
    for name in ("a", "d/b", "d/e/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        old(leave_partial((tmp_path / name).parent, (tmp_path / name).name, b"123"))
    leave_partial(tmp_path, "young", b"123")
    old(partial_at(tmp_path, "foreign"), b"theirs")
    return tmp_path


def old(path, content=None):
    """Make it older than a week."""
    if content is not None:
        path.write_bytes(content)
    os.utime(path, (path.stat().st_mtime - 8 * DAY,) * 2)


def test_old_partials_go(there):
    """All below the destination, and nothing else; each is told with its path and size."""
    trial = Trial(there)
    ended = trial.finish()

    assert ended.called
    names = [
        partial_at(there / folder, name).relative_to(there) for folder, name in (("", "a"), ("d", "b"), ("d/e", "c"))
    ]
    assert {PartialGone(os.fsencode(name), 3, expired=True) for name in names} == set(trial.told)
    assert {partial_at(there, "young").name, partial_at(there, "foreign").name, "d"} == set(os.listdir(there))
    assert not trial.clock.getDelayedCalls()


def test_where_the_run_writes_it_looks_first(there, monkeypatch):
    """Before it goes through the rest, which takes its time."""
    monkeypatch.setattr("realize.store.local.leftovers.PAGE_ENTRIES", 1)
    trial = Trial(there)
    trial.tidying(Finished(b"d/e/x", 1, 1, How.CREATED, b"", removed=True))
    trial.clock.advance(TIDYING_PAUSE_S)

    assert [os.path.dirname(event.path) for event in trial.told] == [b"d/e"]
    trial.tidying.stop()
    assert not trial.clock.getDelayedCalls()


def test_it_takes_little_of_the_run(there, monkeypatch):
    """A slice, then a pause; nothing of it before the run has begun."""
    monkeypatch.setattr("realize.store.local.leftovers.PAGE_ENTRIES", 1)
    trial = Trial(there)
    assert not trial.told
    trial.clock.advance(TIDYING_PAUSE_S)
    assert len(trial.told) <= 1
    assert trial.finish().called
    assert len(trial.told) == 3


def test_a_disk_that_hangs_is_not_waited_for(there):
    """At the end of the run a moment is all that it gets."""
    hanging = []
    trial = Trial(there, lambda *_: hanging.append(Deferred()) or hanging[-1])
    ended = trial.finish()
    assert not ended.called
    trial.clock.advance(TIDYING_EXTRA_S)

    assert ended.called
    assert hanging
    assert not trial.clock.getDelayedCalls()


def test_a_destination_that_is_not_there_has_nothing_to_tidy(tmp_path):
    """It may be made by the run; what is beside it is none of its business."""
    beside = leave_partial(tmp_path, "a", b"123")
    old(beside)
    trial = Trial(tmp_path / "new")

    assert trial.finish().called
    assert beside.exists()
