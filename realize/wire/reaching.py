"""Why a connection could not be made, by the errors of Twisted and the kernel: an `Obstacle`, and in words; pure."""

from __future__ import annotations

import enum
import errno
import os
from typing import Final

from twisted.internet import error as internet_errors
from twisted.internet.defer import TimeoutError as DeferredTimeout

ON_THE_WAY: Final = "refused on the way, by a firewall or a router"


class Obstacle(enum.Enum):
    """What kept a connection from being made."""

    REFUSED = enum.auto()
    """The machine itself answered that nobody listens on the port."""
    ON_THE_WAY = enum.auto()
    """A firewall, perhaps that of the machine itself, or a router answered for it, by ICMP."""
    HERE = enum.auto()
    """Our own machine does not let the connection out."""
    NO_WAY = enum.auto()
    """There is no route, or no machine on the destination network has that address."""
    SILENCE = enum.auto()
    OTHER = enum.auto()


_BY_NUMBER: Final = {
    errno.ECONNREFUSED: Obstacle.REFUSED,
    errno.EHOSTUNREACH: Obstacle.NO_WAY,
    errno.ENETUNREACH: Obstacle.NO_WAY,
    errno.EACCES: Obstacle.HERE,
    errno.EPERM: Obstacle.HERE,
    errno.ETIMEDOUT: Obstacle.SILENCE,
}

_BY_CLASS: Final = {
    internet_errors.ConnectionRefusedError: Obstacle.REFUSED,
    internet_errors.NoRouteError: Obstacle.NO_WAY,
    internet_errors.TimeoutError: Obstacle.SILENCE,
    DeferredTimeout: Obstacle.SILENCE,
}


def obstacle(error: BaseException | None) -> Obstacle:
    """Return the obstacle that an attempt to connect has met."""
    if _is_lost(error):
        return Obstacle.ON_THE_WAY
    number = _number(error)
    if number in _BY_NUMBER:
        return _BY_NUMBER[number]
    return next((found for kind, found in _BY_CLASS.items() if isinstance(error, kind)), Obstacle.OTHER)


def in_words(error: Exception) -> str:
    """The same for a sentence, on one line."""
    found, number = obstacle(error), _number(error)
    if found is Obstacle.ON_THE_WAY:
        return ON_THE_WAY
    if found is Obstacle.SILENCE:
        return "no answer"
    reason = os.strerror(number) if number is not None else " ".join(str(error).split()).rstrip(".")
    return f"refused by this machine, by a firewall or a route: {reason}" if found is Obstacle.HERE else reason


def _is_lost(error: BaseException | None) -> bool:
    """Return whether the connection was lost before it was established: Twisted's result for an answer by ICMP.

    It then puts a failure where the text of the error belongs; the kernel's errno is lost with the socket.
    """
    return isinstance(error, internet_errors.ConnectError) and error.osError is None and bool(error.args[0])


def _number(error: BaseException | None) -> int | None:
    number = getattr(error, "osError", None)  # an errno, whatever its name says
    if number is None:
        number = getattr(error, "errno", None)
    return number if isinstance(number, int) else None
