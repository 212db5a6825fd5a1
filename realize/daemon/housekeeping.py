"""Removing partials that nobody came back for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from realize.daemon.served import ServedDirectory
from realize.errors import RealizeError
from realize.store.expiry import Expired, expire_partials
from realize.units import display_name

EVERY: Final = 3600.0
"""Seconds between two looks."""


@define(eq=False)
class Housekeeping:
    """Looks through all directories once an hour, a page at a time, in a thread."""

    clock: IReactorTime
    run_in_thread: Callable[..., Deferred[Any]]
    log: Any
    _directories: Mapping[str, ServedDirectory] = field(factory=dict, init=False)
    _max_age: float = field(default=0.0, init=False)
    _next: IDelayedCall | None = field(default=None, init=False)
    _stopped: bool = field(default=True, init=False)

    def start(self, directories: Mapping[str, ServedDirectory], max_age: float) -> None:
        """From now on, keep these directories clear of partials older than ``max_age`` seconds."""
        self._directories, self._max_age = directories, max_age
        if self._stopped:
            self._stopped = False
            self._next = self.clock.callLater(min(EVERY, max_age), self._look)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _look(self) -> None:
        ensureDeferred(self._look_through())

    async def _look_through(self) -> None:
        for name, directory in list(self._directories.items()):
            now = time.time_ns()
            removing = expire_partials(directory.path, int(self._max_age * 1e9), now)
            try:
                while not self._stopped and (page := await self.run_in_thread(_next_page, removing)) is not None:
                    for path, size in page:
                        self.log.info("partial_expired", dir=name, path=display_name(path), size=size)
            except (RealizeError, OSError) as error:
                self.log.warning("expiry_failed", dir=name, error=str(error))
            finally:
                removing.close()  # type: ignore[attr-defined]
        if not self._stopped:
            self._next = self.clock.callLater(min(EVERY, self._max_age), self._look)


def _next_page(pages: Iterator[list[Expired]]) -> list[Expired] | None:
    """One step, in a thread; StopIteration could not come back through a Deferred."""
    return next(pages, None)
