"""`Tidying`: a command removes its old partials at a destination of this machine, where no daemon does.

It looks a slice at a time, beside the run and hardly to be felt: first where the run has written, then everywhere.
What it does not get to is left for the next run.
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
"""Seconds between two slices while the run goes on."""

TIDYING_EXTRA_S: Final = 1.0
"""Seconds that it may go on at the end of the run, without pauses."""

MAX_PREFERRED_DIRECTORIES: Final = 10_000
"""Directories to be looked at before the others; what is beyond waits for its turn."""


class Tidying:
    """Old partials below ``path`` go; ``told`` gets a `PartialGone` for each."""

    def __init__(
        self,
        path: bytes,
        max_age: float,
        run_in_thread: RunInThread,
        clock: IReactorTime,
        told: Callable[[Event], object],
    ) -> None:
        self._path = path
        self._max_age_ns = int(max_age * 1e9)
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._told = told
        self._stamps = Stamps()
        self._seen: set[bytes] = set()
        self._written: list[bytes] = []
        self._stopped = False
        self._hurried = False
        self._pause: Deferred[None] | None = None
        self._ended: Deferred[None] = Deferred()

    def start(self) -> None:
        """Begin to look."""
        Deferred.fromCoroutine(self._look()).addErrback(lambda failure: failure.trap(RealizeError)).addBoth(self._end)

    def __call__(self, event: Event) -> None:
        """Where the run writes, it looks first."""
        if isinstance(event, Finished | Stopped):
            directory = os.path.dirname(event.path)
            if directory not in self._seen and len(self._seen) < MAX_PREFERRED_DIRECTORIES:
                self._seen.add(directory)
                self._written.append(directory)

    async def finish(self) -> None:
        """The run has ended: go on for a moment at most."""
        self._hurried = True
        if self._pause is not None:
            self._pause.cancel()
        timer = self._clock.callLater(TIDYING_EXTRA_S, self.stop)
        try:
            await self._ended
        finally:
            if timer.active():
                timer.cancel()

    def stop(self) -> None:
        """Look no more; a thread that hangs is not waited for."""
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()
        self._end(None)

    def _end(self, _: object) -> None:
        if not self._ended.called:
            self._ended.callback(None)

    async def _look(self) -> None:
        await self._rest()
        await self._look_where_written()
        await self._look_at(b"", deep=True)
        await self._look_where_written()

    async def _look_where_written(self) -> None:
        while self._written and not self._stopped:
            await self._look_at(self._written.pop(), deep=False)

    async def _look_at(self, directory: bytes, *, deep: bool) -> None:
        """Look through one directory, or (``deep``) all below it, and meanwhile where the run has written."""
        try:
            where = await self._run_in_thread(locate, os.path.join(self._path, directory), b"", None)
            steps = expire_partials(where, self._max_age_ns, self._stamps.present(), deep=deep)
            try:
                while not self._stopped and (step := await self._run_in_thread(next_step, steps)) is not None:
                    for path, size in step.removed:
                        self._told(PartialGone(os.path.join(directory, path), size, expired=True))
                    if deep:
                        await self._look_where_written()
                    await self._rest()
            finally:
                steps.close()
        except RealizeError:
            return  # what is not there, or cannot be looked at, is left alone

    async def _rest(self) -> None:
        if self._hurried or self._stopped:
            return
        self._pause = deferLater(self._clock, TIDYING_PAUSE_S)
        try:
            await self._pause
        except CancelledError:
            pass
        finally:
            self._pause = None
