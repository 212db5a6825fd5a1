"""`ThreadPool`: the threads for disk work, and the way there and back.

Twisted's pool and `deferToThreadPool` go through a coordinator, a `queue.Queue` and the context of Twisted's log: 73 us
of CPU time there and back where this takes 50, and 65 where this takes 20 if work overlaps (``python -m
benchmarks.thread_pool``); and Python that runs in a thread keeps the reactor from running.
A file that is too large for a batch goes that way some ten times: 1,000 files of 1 KiB to 8 MiB took 2.28 s instead of
2.43 s, and 10,000 files of 10 KiB 1.07 s instead of 1.12 s (medians of five, in turns, both ends on 2 cores).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

_Job: TypeAlias = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class ThreadPool:
    """Up to ``most`` threads, started when there is work for them.

    All but the work itself is to be called in the reactor's thread.
    """

    def __init__(self, reactor: IReactorFromThreads, most: int, name: str) -> None:
        self._reactor = reactor
        self._most = most
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._results: deque[tuple[Deferred[Any], Any]] = deque()
        self._announced = False
        """Whether the reactor has been told that there are results, and has not looked yet."""
        self._threads: list[Thread] = []
        self._stopped = False
        self._unfinished = 0

    def run(self, work: Callable[..., Any], *args: Any, **options: Any) -> Deferred[Any]:
        """Call ``work`` in a thread, after what was asked for before; fires with what comes of it.

        Cancelled, it fires at once, and the work is done all the same.
        """
        # What is done but not delivered counts too: rather a thread too many than work that waits for one that hangs.
        if self._stopped or len(self._threads) < min(self._unfinished + 1, self._most):
            self._start()
        result: Deferred[Any] = Deferred()
        self._unfinished += 1
        self._jobs.put((result, work, args, options))
        if self._stopped:
            # The last descriptor that somebody closes; a thread that waited for more would keep the process for ever.
            self._jobs.put(None)
        return result

    def stop(self) -> None:
        """Wait until all that was asked for is done, and the threads have ended; what comes later has one to itself."""
        self._stopped = True
        threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join()

    def _start(self) -> None:
        thread = Thread(target=self._work, name=f"{self._name} {len(self._threads) + 1}")
        try:
            thread.start()
        except RuntimeError:  # the machine allows no more
            if not self._threads:
                raise
            return
        if not self._stopped:
            self._threads.append(thread)

    @property
    def size(self) -> int:
        """Threads that there are."""
        return len(self._threads)

    @property
    def busy(self) -> int:
        """Those that work, or whose last result has not been delivered yet."""
        return min(self.size, max(0, self._unfinished - self.waiting))

    @property
    def waiting(self) -> int:
        """How much work waits for a thread."""
        return self._jobs.qsize()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            result, work, args, options = job
            try:
                value = work(*args, **options)
            except BaseException:  # noqa: BLE001 -- whoever asked is told
                value = Failure()
            self._results.append((result, value))
            # In this order here, and in the other one in `_deliver`: no result is left behind.
            if not self._announced:
                self._announced = True
                self._reactor.callFromThread(self._deliver)
            # None of it is to live on while this waits.
            del job, result, work, args, options, value

    def _deliver(self) -> None:
        self._announced = False
        # What comes while this runs is announced anew, so that the reactor gets its turn.
        for _ in range(len(self._results)):
            result, value = self._results.popleft()
            self._unfinished -= 1
            if isinstance(value, Failure):
                result.errback(value)
            else:
                result.callback(value)
