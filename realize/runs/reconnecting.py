"""Comes back after lost connections: attempt after attempt, with growing pauses, until one gets to its end."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from realize.errors import ConnectionFailed, mending
from realize.locations import Location, RemoteLocation
from realize.mover.events import Observer, Retrying
from realize.runs.session import Session

FIRST_DELAY_S: Final = 0.5
"""The delay before the first attempt."""

MAX_DELAY_S: Final = 300.0
"""The longest delay before an attempt."""

JITTER_FRACTION: Final = 0.25
"""The random part of a delay, so that many commands do not all reconnect at the same moment."""

FAILED_ATTEMPTS_BEFORE_ADVICE: Final = 5
"""After this many failed attempts, some six seconds, the user is told how to find the cause."""


class Backoff:
    """Delays that double from `FIRST_DELAY_S` up to `MAX_DELAY_S`; ``chance`` returns random numbers from 0 to 1."""

    def __init__(self, chance: Callable[[], float], attempts: int = 0) -> None:
        self.chance = chance
        self.attempts = attempts

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = min(FIRST_DELAY_S * 2.0 ** min(self.attempts, 32), MAX_DELAY_S)
        self.attempts += 1
        return delay * (1.0 - JITTER_FRACTION * self.chance())

    def reset(self) -> None:
        """Start again with the first delay, because an attempt made progress."""
        self.attempts = 0


class Reconnecting:
    """Runs attempts; ``observe`` gets a `Retrying` before each pause.

    ``steps`` returns a count that grows with all lasting progress; after some, the pauses are short again.
    ``given_up`` is asked after a lost connection, and may return the error with which to end instead of coming back.
    """

    def __init__(
        self,
        clock: IReactorTime,
        session: Session,
        locations: Sequence[Location],
        observe: Observer,
        steps: Callable[[], int],
        given_up: Callable[[], Exception | None],
    ) -> None:
        self._clock = clock
        self._session = session
        self._locations = locations
        self._observe = observe
        self._steps = steps
        self._given_up = given_up
        self.lost: ConnectionFailed | None = None
        """Why there is no connection now."""
        self.pausing = False
        """Whether this is between two attempts, so that nothing is in flight."""

    async def run(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Make attempts until one ends; raises what ended it, but for connections that were lost and may come back."""
        backoff = Backoff(random.SystemRandom().random)
        while True:
            steps = self._steps()
            try:
                return await attempt()
            except ConnectionFailed as error:
                self.lost = error
                if (end := self._given_up()) is not None:
                    raise end from error
                if self._steps() > steps:
                    backoff.reset()
                delay = backoff.next()
                what_helps = advice(error, self._locations) if backoff.attempts >= FAILED_ATTEMPTS_BEFORE_ADVICE else ""
                self._observe(Retrying(error, delay, what_helps))
            self.pausing = True
            await self._session.disconnect()
            await deferLater(self._clock, delay)
            self.pausing = False


def advice(error: ConnectionFailed, locations: Sequence[Location]) -> str:
    """The command that shows why a connection failed; empty if ``error`` names none of the remote locations."""
    remote = (each for each in locations if isinstance(each, RemoteLocation) and each.address in str(error))
    return next((mending(str(each)) for each in remote), "")
