"""Remove old partials at a destination on this machine, where no daemon does it.

`Tidying` works beside the run, a slice at a time with pauses, so that it does not slow the run down: first in the
directories that the run has written to, then in all of them.
What it does not reach is left for the next run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from realize.concurrency.shielded import RunInThread
from realize.errors import RealizeError
from realize.fs.stamps import Stamps
from realize.mover.events import Event, Finished, PartialGone, Stopped
from realize.store.local.expiry import expire_partials, next_step
from realize.store.local.location import locate

TIDYING_PAUSE_S: Final = 0.1
"""Pause between two slices while the run goes on."""

TIDYING_EXTRA_S: Final = 1.0
"""How long it may go on after the end of the run, without pauses."""

MAX_PREFERRED_DIRECTORIES: Final = 10_000
"""Directories that are checked before the others; any more wait for the pass over all directories."""


class Tidying:
    """Removes partials below ``path`` older than ``max_age`` seconds; ``report`` gets a `PartialGone` for each."""

    def __init__(
        self,
        path: bytes,
        max_age: float,
        run_in_thread: RunInThread,
        clock: IReactorTime,
        report: Callable[[Event], object],
    ) -> None:
        self._path = path
        self._max_age_ns = int(max_age * 1e9)
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._report = report
        self._stamps = Stamps()
        self._seen: set[bytes] = set()
        self._written: list[bytes] = []
        self._stopped = False
        self._urgent = False
        self._pause: Deferred[None] | None = None
        self._ended: Deferred[None] = Deferred()

    def start(self) -> None:
        """Start in the background."""
        Deferred.fromCoroutine(self._check()).addErrback(lambda failure: failure.trap(RealizeError)).addBoth(self._end)

    def __call__(self, event: Event) -> None:
        """Note where the run writes, to check there first."""
        if isinstance(event, Finished | Stopped):
            directory = os.path.dirname(event.path)
            if directory not in self._seen and len(self._seen) < MAX_PREFERRED_DIRECTORIES:
                self._seen.add(directory)
                self._written.append(directory)

    async def finish(self) -> None:
        """Go on without pauses for at most `TIDYING_EXTRA_S`, since the run has ended; fires when done."""
        self._urgent = True
        if self._pause is not None:
            self._pause.cancel()
        timer = self._clock.callLater(TIDYING_EXTRA_S, self.stop)
        try:
            await self._ended
        finally:
            if timer.active():
                timer.cancel()

    def stop(self) -> None:
        """Stop, without waiting for a thread that may hang."""
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()
        self._end(None)

    def _end(self, _: object) -> None:
        if not self._ended.called:
            self._ended.callback(None)

    async def _check(self) -> None:
        await self._wait()
        await self._check_written()
        await self._check_directory(b"", deep=True)
        await self._check_written()

    async def _check_written(self) -> None:
        while self._written and not self._stopped:
            await self._check_directory(self._written.pop(), deep=False)

    async def _check_directory(self, directory: bytes, *, deep: bool) -> None:
        """Check one directory; if ``deep``, also all below it, and in between those that the run has written to."""
        try:
            where = await self._run_in_thread(locate, os.path.join(self._path, directory), b"", None)
            steps = expire_partials(where, self._max_age_ns, self._stamps.present(), deep=deep)
            try:
                while not self._stopped and (step := await self._run_in_thread(next_step, steps)) is not None:
                    for path, size in step.removed:
                        self._report(PartialGone(os.path.join(directory, path), size, expired=True))
                    if deep:
                        await self._check_written()
                    await self._wait()
            finally:
                steps.close()
        except RealizeError:
            return  # a directory that does not exist or cannot be read is left alone

    async def _wait(self) -> None:
        if self._urgent or self._stopped:
            return
        self._pause = deferLater(self._clock, TIDYING_PAUSE_S)
        try:
            await self._pause
        except CancelledError:
            pass
        finally:
            self._pause = None
