"""What all ways to connect to the holder of a pinned key have in common: their time limit, and how they fail."""

from __future__ import annotations

from typing import Final, TypeVar

from twisted.internet import error as internet_errors
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from realize.errors import ConnectionFailed
from realize.wire.reaching import in_words

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 30.0
"""Seconds for everything from the name look-up to the first thing that only the holder of the key can answer."""

UNREACHABLE: Final = (internet_errors.ConnectError, OSError)
"""What Twisted's endpoints fail with if there is no connection."""


def in_time(connected: Deferred[T], label: str, timeout: float, clock: IReactorTime) -> Deferred[T]:
    """Cancel ``connected`` after ``timeout`` seconds, and let it fail with `ConnectionFailed` then."""
    return connected.addTimeout(timeout, clock).addErrback(_too_late, label, timeout)


def unreachable(error: Exception, label: str) -> ConnectionFailed:
    """The error of an attempt to connect to ``label`` for which ``error`` is the reason."""
    if isinstance(error, internet_errors.DNSLookupError):
        return ConnectionFailed(f"{label}: the name cannot be looked up: {error}")
    return ConnectionFailed(
        f"{label} cannot be reached: {in_words(error) if isinstance(error, internet_errors.ConnectError) else error}"
    )


def _too_late(failure: Failure, label: str, timeout: float) -> Failure:
    if isinstance(failure.value, DeferredTimeout):
        return Failure(ConnectionFailed(f"{label} did not answer within {timeout:g} seconds"))
    return failure
