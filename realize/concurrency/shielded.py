"""How the store uses threads: all disk work happens there; Deferreds are only touched in the reactor's thread."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from realize.errors import Unanswered
from realize.fs.descriptors import release

RunInThread = Callable[..., Deferred[Any]]
"""Calls ``f(*args)`` in a thread: `realize.concurrency.thread_pool.ThreadPool.run`, or a substitute for it."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def disposing(run_in_thread: RunInThread) -> Callable[[int], Deferred[Any]]:
    """Return a function that closes a descriptor in a thread; its Deferred fires when that is done.

    Closing the last descriptor of a large file that was removed takes long, as it frees all its blocks.
    """

    def dispose(fd: int) -> Deferred[Any]:
        return maybeDeferred(run_in_thread, release, fd).addErrback(no_thread, fd)

    def no_thread(_: Failure, fd: int) -> None:
        """Close it here: as `release` raises nothing, only starting a thread can have failed."""
        release(fd)

    return dispose


def cancellable(method: Callable[_P, Coroutine[Deferred[Any], Any, _T]]) -> Callable[_P, Deferred[_T]]:
    """Make a coroutine method return a Deferred; cancelling that cancels what the coroutine waits for."""

    @functools.wraps(method)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        return Deferred.fromCoroutine(method(*args, **kwargs))

    return run


def shielded(method: Callable[_P, Coroutine[Deferred[Any], Any, _T]]) -> Callable[_P, Deferred[_T]]:
    """Make a coroutine method return a Deferred whose cancellation does not reach the coroutine.

    A thread cannot be stopped: its work, and the clean-up after it, always runs to the end.
    Cancelling only means that the result is not wanted any more.
    """
    return _shielded(method, _forget)


def shielded_opening(
    release: Callable[[_T], object],
) -> Callable[[Callable[_P, Coroutine[Deferred[Any], Any, _T]]], Callable[_P, Deferred[_T]]]:
    """As `shielded`, for a method that opens something: a result that is not wanted any more goes to ``release``."""

    def decorate(method: Callable[_P, Coroutine[Deferred[Any], Any, _T]]) -> Callable[_P, Deferred[_T]]:
        return _shielded(method, release)

    return decorate


def _shielded(
    method: Callable[_P, Coroutine[Deferred[Any], Any, _T]], release: Callable[[_T], object]
) -> Callable[_P, Deferred[_T]]:
    @functools.wraps(method)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        wanted: Deferred[_T] = Deferred()

        def deliver(result: _T) -> None:
            if wanted.called:  # it was cancelled
                release(result)
            else:
                wanted.callback(result)

        Deferred.fromCoroutine(method(*args, **kwargs)).addCallbacks(deliver, wanted.errback)
        return wanted

    return run


def _forget(_result: object) -> None:
    """Drop a result that needs no release."""


def steadfast(method: Callable[_P, Coroutine[Deferred[Any], Any, _T]]) -> Callable[_P, Deferred[_T]]:
    """Make a coroutine method return a Deferred, which is `steady`."""

    @functools.wraps(method)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        return steady(Deferred.fromCoroutine(method(*args, **kwargs)))

    return run


def steady(asked: Deferred[_T]) -> Deferred[_T]:
    """Return a Deferred for the answer to a request that may take effect whether somebody waits or not.

    Cancelled once, it goes on waiting; cancelled again, it fails with `Unanswered`.
    ``asked`` itself is never cancelled.
    """
    return Deferred.fromCoroutine(_steady(asked))


async def _steady(asked: Deferred[_T]) -> _T:
    waiting: Deferred[_T] = Deferred()

    def deliver(answer: _T | Failure) -> None:
        if not waiting.called:  # it was cancelled
            waiting.callback(answer)

    asked.addBoth(deliver)
    try:
        return await waiting
    except CancelledError:
        if asked.called:
            raise
    waiting = Deferred()
    try:
        return await waiting
    except CancelledError:
        if asked.called:
            raise
        raise Unanswered("it was given up before an answer came") from None
