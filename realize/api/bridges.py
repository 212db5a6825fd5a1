"""Deferreds for programs that are not written for Twisted: with asyncio, and with neither."""

from __future__ import annotations

import asyncio
import atexit
import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
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


async def in_asyncio(work: Deferred[T]) -> T:
    """Await a Deferred in a coroutine of asyncio, on whose loop the reactor runs.

    A task that is cancelled waits until the work has ended in order, and is cancelled then.
    """
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    outcome: list[T | Failure] = []

    def ended(result: T | Failure) -> None:
        outcome.append(result)
        if not done.done():
            done.set_result(None)

    work.addBoth(ended)
    cancelled: asyncio.CancelledError | None = None
    while not outcome:
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError as error:
            cancelled = error
            work.cancel()
    if cancelled is not None:
        raise cancelled
    return _result(outcome[0])


def blocking(
    function: Callable[Concatenate[IReactor, Given], Deferred[T]], *args: Given.args, **kwargs: Given.kwargs
) -> T:
    """Call a function of this package in a program without a reactor, and return or raise what its Deferred does.

    The first call starts the reactor in a thread of its own, which goes on until the program ends.
    KeyboardInterrupt cancels the work, waits until it has ended in order, and is raised then.
    Raises RuntimeError in the reactor's thread, which would wait for itself.
    """
    reactor = _running_reactor()
    outcomes: queue.SimpleQueue[T | Failure] = queue.SimpleQueue()
    started: list[Deferred[T]] = []

    def start() -> None:
        try:
            started.append(function(reactor, *args, **kwargs))
        except Exception:  # noqa: BLE001 -- raised in the thread that called
            outcomes.put(Failure())
        else:
            started[0].addBoth(outcomes.put)

    def cancel() -> None:
        for work in started:
            work.cancel()

    reactor.callFromThread(start)
    try:
        return _result(outcomes.get())
    except KeyboardInterrupt:
        reactor.callFromThread(cancel)
        outcomes.get()
        raise


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
    running = threading.Event()
    use_monotonic_clock(reactor)
    reactor.callWhenRunning(running.set)
    thread = threading.Thread(
        target=reactor.run, kwargs={"installSignalHandlers": False}, name="realize reactor", daemon=True
    )
    thread.start()
    running.wait()

    def stop() -> None:
        reactor.callFromThread(reactor.stop)
        thread.join(STOP_TIMEOUT_S)

    atexit.register(stop)
