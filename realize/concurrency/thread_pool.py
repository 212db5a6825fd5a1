"""`ThreadPool`: the threads for disk work, and the way there and back.

Twisted's pool and `deferToThreadPool` go through a coordinator, a `queue.Queue` and the context of Twisted's log: 73 us
of CPU time there and back where this takes 50, and 65 where this takes 20 if work overlaps (``python -m
benchmarks.thread_pool``); and Python that runs in a thread keeps the reactor from running.
A file that is too large for a batch goes that way some ten times: 1,000 files of 1 KiB to 8 MiB took 2.28 s instead of
2.43 s, and 10,000 files of 10 KiB 1.07 s instead of 1.12 s (medians of five, in turns, both ends on 2 cores).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from realize.errors import Busy

ANNOUNCE_RETRY_S: Final = 0.05
"""Seconds after which a thread that had no memory to say that it is done tries again."""

_log = Logger()


@define(eq=False)
class _Job:
    """What is to be called, and what came of it: kept here, so that to keep it needs no memory."""

    result: Deferred[Any]
    work: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    value: Any = None
    error: BaseException | None = None

    def do(self) -> None:
        """Call it, and let go of what it was called with."""
        try:
            self.value = self.work(*self.args, **self.options)
        except BaseException as error:  # noqa: BLE001 -- whoever asked is told
            self.error = error
        del self.work, self.args, self.options

    def tell(self) -> None:
        """Let the one who asked know."""
        if self.error is None:
            self.result.callback(self.value)
        else:
            self.result.errback(Failure(self.error))


class ThreadPool:
    """Up to ``most`` threads, started when there is work for them.

    All but the work itself is to be called in the reactor's thread.
    """

    def __init__(self, reactor: IReactorFromThreads, most: int, name: str) -> None:
        self._reactor = reactor
        self._most = most
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._results: deque[_Job] = deque()
        self._announced = False
        """Whether the reactor has been told that there are results, and has not looked yet."""
        self._threads: list[Thread] = []
        self._stopped = False
        self._unfinished = 0

    def run(self, work: Callable[..., Any], *args: Any, **options: Any) -> Deferred[Any]:
        """Call ``work`` in a thread, after what was asked for before; fires with what comes of it.

        Cancelled, it fires at once, and the work is done all the same.
        Raises `Busy` if there is no thread, and none can be made.
        """
        # What is done but not delivered counts too: rather a thread too many than work that waits for one that hangs.
        if self._stopped or len(self._threads) < min(self._unfinished + 1, self._most):
            self._start()
        result: Deferred[Any] = Deferred()
        self._jobs.put(_Job(result, work, args, options))
        self._unfinished += 1
        if self._stopped:
            # The last descriptor that somebody closes; a thread that waited for more would keep the process for ever.
            self._jobs.put(None)
        return result

    def stop(self) -> None:
        """Wait until all that was asked for is done, and the threads have ended; what comes later has one to itself."""
        for thread in self.retire():
            thread.join()

    def retire(self) -> list[Thread]:
        """The same without waiting: the threads that end when all that was asked for is done."""
        self._stopped = True
        threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)
        return threads

    def _start(self) -> None:
        thread = Thread(target=self._work, name=f"{self._name} {len(self._threads) + 1}")
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # the machine allows no more
            if not self._threads:
                raise Busy("no thread is to be had for work on the disk") from error
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
            job.do()
            # In this order here, and in the other one in `_deliver`: no result is left behind.
            _insist(self._results.append, job)
            if not self._announced:
                self._announced = True
                _insist(self._reactor.callFromThread, self._deliver)
            # It is not to live on while this waits.
            del job

    def _deliver(self) -> None:
        self._announced = False
        # What comes while this runs is announced anew, so that the reactor gets its turn.
        for _ in range(len(self._results)):
            job = self._results.popleft()
            self._unfinished -= 1
            with _log.failuresHandled("while the result of a thread was delivered"):
                job.tell()


def _insist(act: Callable[..., object], *args: Any) -> None:
    """Call ``act`` until there is memory for it: somebody waits for the result, which may hold locks."""
    while True:
        try:
            act(*args)
        except MemoryError:
            time.sleep(ANNOUNCE_RETRY_S)
        else:
            return


class ThreadPools:
    """A pool for each of several directories, by any key: a disk that hangs holds up nobody but its own directory."""

    def __init__(self, reactor: IReactorFromThreads, most: int, name: str) -> None:
        """``most`` threads for each."""
        self._reactor = reactor
        self._most = most
        self._name = name
        self._pools: dict[str, ThreadPool] = {}
        self._ending: list[Thread] = []

    def of(self, key: str) -> ThreadPool:
        """The pool of that directory."""
        if key not in self._pools:
            self._pools[key] = ThreadPool(self._reactor, self._most, self._name)
        return self._pools[key]

    def keep(self, keys: Collection[str]) -> None:
        """Retire the pools of all other directories."""
        for key in self._pools.keys() - set(keys):
            self._ending += self._pools.pop(key).retire()
        self._ending = [thread for thread in self._ending if thread.is_alive()]

    def stop(self) -> None:
        """Wait until all that was asked for is done, and all threads have ended."""
        self._ending += [thread for pool in self._pools.values() for thread in pool.retire()]
        for thread in self._ending:
            thread.join()

    @property
    def size(self) -> int:
        """Threads that there are."""
        return sum(pool.size for pool in self._pools.values())

    @property
    def busy(self) -> int:
        """Those that work."""
        return sum(pool.busy for pool in self._pools.values())

    @property
    def waiting(self) -> int:
        """How much work waits for a thread."""
        return sum(pool.waiting for pool in self._pools.values())
