"""Runs a move, or a copy, from the words of the command line to the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from realize.cli.display import Display, Look, choose
from realize.cli.options import Access
from realize.cli.runner import run
from realize.cli.session import Session
from realize.cli.summary import Tally
from realize.errors import Interrupted, RealizeError, StorageError
from realize.mover.events import Event, Observer
from realize.mover.run import MoveOptions, Run, Side


def run_move(sources: Sequence[str], destination: str, access: Access, options: MoveOptions, look: Look) -> int:
    """Move ``sources`` to ``destination`` and show it; the exit code, or the `RealizeError` that ended it."""

    async def main(reactor: Any) -> int:
        async with Session(reactor, access) as session:
            return await _shown(reactor, session, [*sources, destination], options, look)

    return run(main)


async def _shown(reactor: Any, session: Session, texts: Sequence[str], options: MoveOptions, look: Look) -> int:
    """The move between the beginning and the end of its display."""
    screen = _Screen(choose(look, sys.stdout, sys.stderr, reactor.seconds))
    ticking = LoopingCall(screen.tick)
    ticking.clock = reactor
    ticking.start(screen.display.interval, now=False)
    began = reactor.seconds()
    error: RealizeError | None = None
    start: Deferred[None] = Deferred()
    work = start.addCallback(lambda _: Deferred.fromCoroutine(_move(reactor, session, texts, options, screen)))
    # Not at once: the mover is in the middle of telling us something.
    screen.when_broken = lambda: reactor.callLater(0, work.cancel)
    start.callback(None)
    try:
        await work
    except CancelledError:
        error = Interrupted("interrupted")
    except RealizeError as problem:
        error = problem
    finally:
        ticking.stop()
    screen.close(reactor.seconds() - began, error)
    if screen.broken is not None:
        raise screen.broken from error
    if error is not None:
        raise error
    return screen.tally.exit_code()


async def _move(reactor: Any, session: Session, texts: Sequence[str], options: MoveOptions, observer: Observer) -> None:
    locations = session.resolve(*texts)
    *sources, destination = [Side(await session.store(location), str(location)) for location in locations]
    # Cancelling this Deferred, which a signal does, is the orderly way to stop a run.
    await Run(sources, destination, options, observer, reactor).start()


class _Screen:
    """The observer of a run: counts, displays, and spares the mover the trouble of an output that breaks."""

    def __init__(self, display: Display) -> None:
        self.tally = Tally()
        self.display = display
        self.broken: StorageError | None = None
        self.when_broken: Callable[[], object] = lambda: None

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self.tally(event)
        self._safely(lambda: self.display(event))

    def tick(self) -> None:
        """Show how far the run is."""
        self._safely(self.display.tick)

    def close(self, seconds: float, error: RealizeError | None) -> None:
        """Show what it came to."""
        self._safely(lambda: self.display.close(self.tally, seconds, error))

    def _safely(self, show: Callable[[], None]) -> None:
        if self.broken is not None:
            return
        try:
            show()
        except OSError as error:
            self.broken = StorageError(f"cannot write output: {error.strerror}")
            self.when_broken()
