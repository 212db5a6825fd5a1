"""Deferreds for programs that are not written for Twisted: with asyncio, and with neither."""

from __future__ import annotations

import asyncio
import atexit
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRestartable
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

from realize.clocks import use_monotonic_clock
from realize.concurrency.reactor import IReactor

Given = ParamSpec("Given")
T = TypeVar("T")

STOP_TIMEOUT_S: Final = 10.0
"""Seconds that the end of a program waits for the reactor's thread."""


@asynccontextmanager
async def asyncio_reactor() -> AsyncIterator[IReactor]:
    """Within the block, Twisted's reactor on the running loop of asyncio, for programs that have not installed one.

    One block for each process, around all that is done.
    Raises RuntimeError if the program has a reactor already: that one has to be used.
    """
    if "twisted.internet.reactor" in sys.modules:
        raise RuntimeError("there is a reactor already: pass it to the functions of realize.api")
    asyncioreactor.install(asyncio.get_running_loop())
    from twisted.internet import reactor as installed

    reactor = cast("IReactor", installed)
    cast("Any", reactor).startRunning(installSignalHandlers=False)
    try:
        yield reactor
    finally:
        # Its threads look up names; the process would wait for them.
        reactor.getThreadPool().stop()


def in_asyncio(work: Deferred[T]) -> Coroutine[Any, Any, T]:
    """Await a Deferred in a coroutine of asyncio, on whose loop the reactor runs.

    A task that is cancelled waits until the work has ended in order, and is cancelled then.
    """
    return _Awaited(work)


class _Awaited(Coroutine[Any, Any, T]):
    """Awaits a Deferred.

    A task that is cancelled before its first turn throws that into a coroutine that has not begun. One of asyncio would
    end with it, and the work go on with nobody who waits for it.
    """

    def __init__(self, work: Deferred[T]) -> None:
        self._work = work
        self._cancelled: asyncio.CancelledError | None = None
        self._begun = False
        self._waiting = self._wait()

    async def _wait(self) -> T:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outcome: list[T | Failure] = []

        def ended(result: T | Failure) -> None:
            outcome.append(result)
            if not done.done():
                done.set_result(None)

        self._work.addBoth(ended)
        while not outcome:
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError as error:
                self._cancelled = error
                self._work.cancel()
        if self._cancelled is not None:
            raise self._cancelled
        return _result(outcome[0])

    def send(self, value: Any) -> Any:
        """Go on."""
        self._begun = True
        return self._waiting.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error; a cancellation that comes first cancels the work."""
        if self._begun or not isinstance(error[0], asyncio.CancelledError):
            return self._waiting.throw(*error)
        self._cancelled = error[0]
        self._work.cancel()
        return self.send(None)

    def close(self) -> None:
        """End without waiting."""
        self._waiting.close()

    def __await__(self) -> Generator[Any, Any, T]:
        """Await it within another coroutine."""
        return self._waiting.__await__()


def blocking(
    function: Callable[Concatenate[IReactor, Given], Deferred[T]], *args: Given.args, **kwargs: Given.kwargs
) -> T:
    """Call a function of this package in a program without a reactor, and return or raise what its Deferred does.

    The first call starts the reactor in a thread of its own, which goes on until the program ends.
    KeyboardInterrupt, or whatever else a signal handler raises meanwhile, cancels the work, waits until it has ended in
    order, and is raised then.
    Raises RuntimeError in the reactor's thread, which would wait for itself, and when the reactor has run before.
    """
    reactor = _running_reactor()
    outcome: list[T | Failure] = []
    ended = threading.Event()
    started: list[Deferred[T]] = []

    def end(result: T | Failure) -> None:
        outcome.append(result)
        ended.set()

    def start() -> None:
        started.append(maybeDeferred(function, reactor, *args, **kwargs))
        started[0].addBoth(end)

    def cancel() -> None:
        for work in started:
            work.cancel()

    try:
        reactor.callFromThread(start)
        ended.wait()
    except BaseException:
        # In this order, whenever it was raised: what has not started yet will have.
        reactor.callFromThread(cancel)
        ended.wait()
        raise
    return _result(outcome[0])


def _result(outcome: T | Failure) -> T:
    if isinstance(outcome, Failure):
        outcome.raiseException()
    return outcome


_starting: Final = threading.Lock()


def _running_reactor() -> IReactor:
    from twisted.internet import reactor as installed

    with _starting:
        if not cast("Any", installed).running:
            _start(installed)
        elif isInIOThread():
            raise RuntimeError("blocking() waits for the reactor, so it cannot be called in the reactor's own thread")
    return cast("IReactor", installed)


def _start(reactor: Any) -> None:
    told = threading.Event()
    refused: list[BaseException] = []

    def run() -> None:
        try:
            reactor.run(installSignalHandlers=False)
        except ReactorNotRestartable as error:
            refused.append(error)
            told.set()

    use_monotonic_clock(reactor)
    reactor.callWhenRunning(told.set)
    thread = threading.Thread(target=run, name="realize reactor", daemon=True)
    thread.start()
    told.wait()
    if refused:
        raise RuntimeError("the reactor of this program has run and ended, and cannot be started again")

    def stop() -> None:
        reactor.callFromThread(reactor.stop)
        thread.join(STOP_TIMEOUT_S)

    atexit.register(stop)
