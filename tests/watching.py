"""A watched source with a clock that tests set, real directories and events, and threads that work when told to."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from realize.values import Entry, Kind
from realize.watch.events import GATHER_EVENTS_S, DirectoryEvents
from realize.watch.source_watch import SourceWatch

SETTLE_S = 10.0


class Records:
    """A logger that keeps what it is told, as ``(level, event, fields)``."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, dict[str, object]]] = []

    def bind(self, **_: object) -> Records:
        """The same one."""
        return self

    def __getattr__(self, level: str) -> Callable[..., None]:
        if level.startswith("_"):
            raise AttributeError(level)
        return lambda event, /, **fields: self.all.append((level, event, fields))

    @property
    def events(self) -> list[str]:
        """The names of the events, in order."""
        return [event for _, event, _ in self.all]


class Readers(Clock):
    """A clock with descriptors to read from, which are read when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        """See `IReactorFDSet`."""
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """See `IReactorFDSet`."""
        if reader in self.readers:
            self.readers.remove(reader)

    def read_all(self) -> None:
        """Read what is there to be read."""
        while readable := [each for each in self.readers if select.select([each.fileno()], [], [], 0)[0]]:
            for each in readable:
                each.doRead()


class Threads:
    """Work for threads: it is done in `work`, and its results are told in `deliver`, one after the other."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self.done: deque[tuple[Deferred[Any], Any]] = deque()
        self.calls = 0

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """See `RunInThread`."""
        result: Deferred[Any] = Deferred()
        self.waiting.append((result, work, args))
        self.calls += 1
        return result

    def work(self) -> None:
        """Do one piece."""
        if self.waiting:
            result, work, args = self.waiting.popleft()
            try:
                self.done.append((result, work(*args)))
            except Exception:  # noqa: BLE001 -- the caller is told
                self.done.append((result, Failure()))

    def deliver(self) -> None:
        """Tell of one result."""
        if self.done:
            result, value = self.done.popleft()
            result.callback(value)


class Watched:
    """A source below a temporary directory, and a consumer that removes what it takes."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.reactor = options.pop("reactor", None) or Readers()
        self.threads = Threads()
        self.log = Records()
        self.events = options.pop("events", None) or DirectoryEvents(self.reactor)
        self.epoch = 1_000_000.0
        self.calls = 0
        self.watch = SourceWatch(
            os.fsencode(path),
            **{
                "settle_s": SETTLE_S,
                "accepts": lambda _: True,
                "reactor": self.reactor,
                "events": self.events,
                "run_in_thread": self.threads.run,
                "log": self.log,
                "random": lambda: 0.0,
                "epoch": lambda: self.epoch + self.reactor.seconds(),
                **options,
            },
        )
        self.watch.on_ready = self._ready

    def _ready(self) -> None:
        self.calls += 1

    def quiet(self) -> None:
        """Do all that can be done now."""
        while True:
            self.reactor.advance(GATHER_EVENTS_S)
            self.reactor.read_all()
            if not self.threads.waiting and not self.threads.done:
                break
            self.threads.work()
            self.threads.deliver()

    def pass_time(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass, and all be done meanwhile."""
        self.quiet()
        for _ in range(round(seconds / step)):
            self.reactor.advance(step)
            self.quiet()

    def start(self) -> None:
        """Begin, and finish the first walk."""
        self.watch.start()
        self.pass_time(0.5)

    def settled(self) -> None:
        """Let everything settle: the looks prove nothing here, since files are stamped by another clock."""
        self.pass_time(2 * SETTLE_S + 2)

    def taken(self, most: int = 1000) -> list[bytes]:
        """The paths of the files that are ready, which are removed, as a mover does."""
        paths = [entry.path for entry in self.watch.take(most) if entry.kind is not Kind.DIRECTORY]
        for path in paths:
            os.unlink(os.path.join(os.fsencode(self.path), path))
            self.watch.moved(path)
        return paths

    def entries(self, most: int = 1000) -> list[Entry]:
        """What is ready, left in flight."""
        return self.watch.take(most)

    def stop(self) -> None:
        """End, and check that nothing is left."""
        stopped = self.watch.stop()
        self.pass_time(60, 30)
        assert stopped.called
        assert [] == self.reactor.getDelayedCalls()
        assert [] == self.reactor.readers


def plant(path: Path, content: bytes = b"content") -> Path:
    """Make a file, and the directories that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
