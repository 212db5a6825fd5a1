"""How the store uses threads: all disk work happens there, all state of a Deferred stays with the reactor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from realize.errors import Unanswered
from realize.fs.descriptors import release

RunInThread = Callable[..., Deferred[Any]]
"""Calls ``f(*args)`` in a pool; that is `realize.concurrency.thread_pool.ThreadPool.run`, or stands in for it."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def disposing(run_in_thread: RunInThread) -> Callable[[int], Deferred[Any]]:
    """Closes a descriptor in a thread: the last one of a large file that was removed frees all its blocks.

    Fires when that is done.
    """

    def dispose(fd: int) -> Deferred[Any]:
        return maybeDeferred(run_in_thread, release, fd).addErrback(no_thread, fd)

    def no_thread(_: Failure, fd: int) -> None:
        """Only that can have failed: to close has no errors."""
        release(fd)

    return dispose


def shielded(method: Callable[_P, Coroutine[Deferred[Any], Any, _T]]) -> Callable[_P, Deferred[_T]]:
    """A coroutine method as one that returns a Deferred, whose cancellation leaves the coroutine alone.

    A thread cannot be stopped: what it has begun goes on to its end, and its cleaning up with it.
    To cancel means only that the result is not wanted any more.
    """
    return _shielded(method, _forget)


def shielded_opening(
    release: Callable[[_T], object],
) -> Callable[[Callable[_P, Coroutine[Deferred[Any], Any, _T]]], Callable[_P, Deferred[_T]]]:
    """The same for a method that opens something: what nobody wants any more is given to ``release``."""

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
    """A plain value needs no release."""


def steadfast(method: Callable[_P, Coroutine[Deferred[Any], Any, _T]]) -> Callable[_P, Deferred[_T]]:
    """A coroutine method as one that returns a Deferred, which is `steady`."""

    @functools.wraps(method)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        return steady(Deferred.fromCoroutine(method(*args, **kwargs)))

    return run


def steady(asked: Deferred[_T]) -> Deferred[_T]:
    """The answer to what has begun, and may be done whether somebody waits or not.

    Cancelled, it goes on to be waited for; cancelled again, it fails with `Unanswered`.
    What was asked is never cancelled.
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
