"""Work that is asked for more often than it can be done: `realize.concurrency.coalesced`."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from realize.concurrency.coalesced import Coalesced


class Work:
    """Work that the test ends."""

    def __init__(self) -> None:
        self.begun: list[Deferred[None]] = []
        self.coalesced = Coalesced(self.begin)

    def begin(self) -> Deferred[None]:
        """Begin one more."""
        self.begun.append(Deferred())
        return self.begun[-1]


def test_what_is_asked_for_meanwhile_is_done_once_more() -> None:
    """After the work that was going on, so that what had changed by then is seen."""
    work = Work()
    for _ in range(100):
        work.coalesced.request()
    assert 1 == len(work.begun)

    work.begun[0].callback(None)
    assert 2 == len(work.begun)

    work.begun[1].callback(None)
    assert 2 == len(work.begun)


def test_work_that_fails_keeps_none_from_being_done() -> None:
    """What it failed with is for whoever logs what nobody deals with."""
    work = Work()
    work.coalesced.request()
    work.coalesced.request()
    failed = work.begun[0]
    failed.errback(Failure(ValueError("no")))

    assert 2 == len(work.begun)
    seen: list[BaseException] = []
    failed.addErrback(lambda failure: seen.append(failure.value))
    assert "no" == str(seen[0])


def test_work_that_is_done_at_once_is_done_each_time() -> None:
    """Then nothing is asked for meanwhile."""
    done: list[int] = []
    coalesced = Coalesced(lambda: succeed(done.append(1)))
    for _ in range(3):
        coalesced.request()

    assert 3 == len(done)
