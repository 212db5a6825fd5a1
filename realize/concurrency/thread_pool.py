"""`ThreadPool`: the threads for disk work.

Twisted's pool and `deferToThreadPool` go through a coordinator, a `queue.Queue` and the context of Twisted's log: a
round trip costs 73 us of CPU time where this one costs 50, and 65 us instead of 20 if work overlaps (``python -m
benchmarks.thread_pool``); and while Python code runs in a thread, the reactor cannot run.
A file that is too large for a batch makes some ten such round trips: 1,000 files of 1 KiB to 8 MiB took 2.28 s instead
of 2.43 s, and 10,000 files of 10 KiB 1.07 s instead of 1.12 s (medians of five, in turns, both ends on 2 cores).
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Sequence
from inspect import CO_COROUTINE
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
"""Pause of a thread that had no memory to report its result before it tries again."""

_log = Logger()


@define(eq=False, repr=False)
class _PoolJob:
    """A call, and its result: there is room for that from the start, so keeping it cannot fail for lack of memory."""

    result: Deferred[Any]
    work: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    value: Any = None
    error: BaseException | None = None

    def do(self) -> None:
        """Make the call, and drop its arguments."""
        try:
            self.value = self.work(*self.args, **self.options)
        except BaseException as error:  # noqa: BLE001 -- the caller is told
            self.error = error
            _clear_frames(error)
        del self.work, self.args, self.options

    def tell(self) -> None:
        """Fire the caller's Deferred."""
        value, error = self.value, self.error
        del self.value, self.error  # which the traceback has, and so itself
        if error is None:
            self.result.callback(value)
        else:
            self.result.errback(Failure(error))


class ThreadPool:
    """Up to ``most`` threads, started when there is work for them.

    All methods must be called in the reactor's thread.
    """

    def __init__(self, reactor: IReactorFromThreads, most: int, name: str) -> None:
        self._reactor = reactor
        self._most = most
        self._name = name
        self._jobs: SimpleQueue[_PoolJob | None] = SimpleQueue()
        self._results: deque[_PoolJob] = deque()
        self._announced = False
        """Whether the reactor was told about new results and has not fetched them yet."""
        self._threads: list[Thread] = []
        self._late: list[Thread] = []
        """Threads for work that came after the end: each does one piece of it."""
        self._stopped = False
        self._unfinished = 0

    def run(self, work: Callable[..., Any], *args: Any, **options: Any) -> Deferred[Any]:
        """Call ``work`` in a thread, after earlier work; the Deferred fires with its result.

        If it is cancelled, it fires at once, but the work is done all the same.
        Raises `Busy` if there is no thread, and none can be started.
        """
        # Undelivered results count, too: better one thread too many than work that waits for a thread that hangs.
        if self._stopped or len(self._threads) < min(self._unfinished + 1, self._most):
            self._start()
        result: Deferred[Any] = Deferred()
        self._jobs.put(_PoolJob(result, work, args, options))
        self._unfinished += 1
        if self._stopped:
            # Such as closing a last descriptor; a thread that waited for more work would keep the process alive.
            self._jobs.put(None)
        return result

    def stop(self) -> None:
        """Wait until all work is done and the threads have ended; later work gets a thread of its own."""
        for thread in self.retire():
            thread.join()

    def retire(self) -> list[Thread]:
        """As `stop`, without waiting; return the threads since the last call, which end once all work is done."""
        threads, self._threads, self._late = [*self._threads, *self._late], [], []
        if not self._stopped:
            self._stopped = True
            for _ in threads:
                self._jobs.put(None)
        return threads

    def _start(self) -> None:
        thread = Thread(target=self._work, name=f"{self._name} {len(self._threads) + 1}")
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # no more threads are possible
            if not self._threads:
                raise Busy(
                    "the system gives no thread for work on the disk: is ulimit -u, or TasksMax= of the unit, reached?"
                ) from error
            return
        (self._late if self._stopped else self._threads).append(thread)

    @property
    def size(self) -> int:
        """Number of threads."""
        return len(self._threads)

    @property
    def busy(self) -> int:
        """Number of threads that work, or whose last result has not been delivered yet."""
        return min(self.size, max(0, self._unfinished - self.waiting))

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a thread."""
        return self._jobs.qsize()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.do()
            # First the result, then the flag; `_deliver` does it the other way round, so no result is left behind.
            _insist(self._results.append, job)
            if not self._announced:
                self._announced = True
                try:
                    _insist(self._reactor.callFromThread, self._deliver)
                except RuntimeError:
                    return  # the reactor's loop, that of asyncio, is closed: nobody waits for results any more
            # Or it would live on while this thread waits.
            del job

    def _deliver(self) -> None:
        self._announced = False
        # Results that arrive meanwhile are announced anew, so that the reactor gets its turn first.
        for _ in range(len(self._results)):
            job = self._results.popleft()
            self._unfinished -= 1
            with _log.failuresHandled("while the result of a thread was delivered"):
                job.tell()


def _clear_frames(error: BaseException) -> None:
    """Drop what the frames of a call hold that failed, such as content: it would stay until a search for garbage.

    An error that was kept and is raised again has also the frames of its earlier ways, behind those of this call. They
    begin with a coroutine that was told of it and may still run: to clear the frame of one that waits would end it.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_flags & CO_COROUTINE:
            break
        with contextlib.suppress(RuntimeError):  # the frame of a call that has not ended, such as our own
            frame.clear()


def _insist(act: Callable[..., object], *args: Any) -> None:
    """Call ``act`` again until there is enough memory: a caller waits for the result, which may hold locks."""
    while True:
        try:
            act(*args)
        except MemoryError:
            time.sleep(ANNOUNCE_RETRY_S)
        else:
            return


def when_ended(reactor: IReactorFromThreads, threads: Sequence[Thread]) -> Deferred[None]:
    """A Deferred that fires when these threads have ended, and all their results were delivered; blocks nobody."""
    ended: Deferred[None] = Deferred()

    def wait() -> None:
        for thread in threads:
            thread.join()
        reactor.callFromThread(ended.callback, None)

    # A daemon thread: a disk that hangs for ever must not keep a process alive that is told to end.
    Thread(target=wait, name="end of threads", daemon=True).start()
    return ended


class ThreadPools:
    """A pool per directory, by any key: a disk that hangs then holds up only its own directory."""

    def __init__(self, reactor: IReactorFromThreads, most: int, name: str) -> None:
        """Each pool has up to ``most`` threads."""
        self._reactor = reactor
        self._most = most
        self._name = name
        self._pools: dict[str, ThreadPool] = {}
        self._ending: list[Thread] = []

    def of(self, key: str) -> ThreadPool:
        """Return the pool of that directory, creating it if necessary."""
        if key not in self._pools:
            self._pools[key] = ThreadPool(self._reactor, self._most, self._name)
        return self._pools[key]

    def keep(self, keys: Collection[str]) -> None:
        """Retire the pools of all other directories."""
        for key in self._pools.keys() - set(keys):
            self._ending += self._pools.pop(key).retire()
        self._ending = [thread for thread in self._ending if thread.is_alive()]

    def stop(self) -> None:
        """Wait until all work is done and all threads have ended."""
        for thread in self.retire():
            thread.join()

    async def ended(self) -> None:
        """As `stop`, without holding up the reactor; also what the last results gave rise to is done."""
        while threads := [thread for thread in self.retire() if thread.is_alive()]:
            await when_ended(self._reactor, threads)

    def retire(self) -> list[Thread]:
        """As `stop`, without waiting; return the threads, which end once all work is done."""
        self._ending += [thread for pool in self._pools.values() for thread in pool.retire()]
        return self._ending

    @property
    def size(self) -> int:
        """Number of threads of all pools."""
        return sum(pool.size for pool in self._pools.values())

    @property
    def busy(self) -> int:
        """Number of busy threads of all pools; see `ThreadPool.busy`."""
        return sum(pool.busy for pool in self._pools.values())

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a thread."""
        return sum(pool.waiting for pool in self._pools.values())
