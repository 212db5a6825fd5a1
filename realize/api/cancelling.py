"""Deferreds that can be cancelled from anywhere, also from a function that the work itself calls."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")


def cancellable_anywhere(reactor: IReactorFromThreads, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Start a coroutine, and return a Deferred that fires as it ends.

    Each cancellation reaches what the coroutine waits for in the next turn of the reactor.
    At once, it would be lost on a coroutine that is running, because it has called who cancels.
    """
    return Deferred.fromCoroutine(_followed(reactor, Deferred.fromCoroutine(work)))


async def _followed(reactor: IReactorFromThreads, work: Deferred[T]) -> T:
    outcome: list[T | Failure] = []
    ended: Deferred[None] = Deferred()

    def keep(result: T | Failure) -> None:
        outcome.append(result)
        if not ended.called:
            ended.callback(None)

    work.addBoth(keep)
    while not outcome:
        try:
            await ended
        except CancelledError:
            ended = Deferred()
            # Not a call for later: the clock of the reactor may have been set back.
            reactor.callFromThread(work.cancel)
    (result,) = outcome
    if isinstance(result, Failure):
        result.raiseException()
    return result
