"""Says how far files under way are, in bytes, however long it takes from one step of theirs to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Final

from attrs import define, field

from realize.mover.events import End, Observer, Progressed
from realize.values import Entry, Travelled

PROGRESS_INTERVAL_S: Final = 0.2
"""Seconds between two looks at what has travelled."""

SAMPLES_BEFORE_BATCH_PROGRESS: Final = 3
"""Looks after which the files of a batch are told; most batches have ended by then, which tells all of them."""


def _nothing_travels() -> None:
    return None


@define(eq=False)
class _BatchProgress:
    """How large the files of a batch are, and how many looks it has seen."""

    sizes: dict[bytes, int]
    looks: int = 0


@define(eq=False)
class Progress:
    """Says each byte once; ``in_transit`` is that of the store at the other end of a connection, if there is one.

    See `realize.store.interfaces.IStore`.
    Between two stores of this machine, what has been written is what is said.
    """

    in_transit: Callable[[], Sequence[Travelled] | None] = _nothing_travels
    end: End = End.DESTINATION
    """Which store that is."""
    watches: bool = field(init=False)
    """Whether `look` has anything to see."""
    _said: dict[bytes, int] = field(factory=dict)
    _batches: list[_BatchProgress] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        """A store is at the other end of a connection, or it is not."""
        self.watches = self.in_transit() is not None

    @contextmanager
    def batch(self, files: Sequence[Entry]) -> Iterator[None]:
        """These travel together."""
        batch = _BatchProgress({file.path: file.size for file in files})
        self._batches.append(batch)
        try:
            yield
        finally:
            self._batches.remove(batch)

    def all_travelled(self, end: End, files: Iterable[tuple[bytes, int]], emit: Observer) -> None:
        """These files of one batch, of such sizes, have all come from, or gone to, that store.

        To be said before what else is done with them, which on a slow line takes its time.
        """
        for path, size in files if end is self.end else ():
            if self._looks(path) < SAMPLES_BEFORE_BATCH_PROGRESS:
                return
            self._say(path, size, emit)

    def look(self, emit: Observer) -> None:
        """Say what has travelled since the last look."""
        journeys = self.in_transit()
        if journeys is None:
            return
        for batch in self._batches:
            batch.looks += 1
        under_way = dict(chain.from_iterable(map(self._spread, journeys)))
        for path in self._said.keys() - under_way.keys():
            del self._said[path]
        for path, travelled in under_way.items():
            self._say(path, travelled, emit)

    def begun(self, path: bytes) -> None:
        """A file begins anew."""
        self._said.pop(path, None)

    def written(self, path: bytes, sent: int, emit: Observer) -> None:
        """So much of a file has been handed to its destination so far."""
        if not self.watches:
            self._say(path, sent, emit)

    def arrived(self, path: bytes, sent: int, emit: Observer) -> None:
        """All of a file is there, so much of which was sent."""
        self._say(path, sent, emit)
        self._said.pop(path, None)

    def _spread(self, journey: Travelled) -> Iterator[tuple[bytes, int]]:
        """What has travelled of each file: their contents follow each other."""
        for batch in self._batches:
            if journey.paths[0] in batch.sizes:
                left = journey.amount if batch.looks >= SAMPLES_BEFORE_BATCH_PROGRESS else 0
                for path in journey.paths:
                    if left <= 0:
                        return
                    yield path, min(left, batch.sizes[path])
                    left -= batch.sizes[path]
                return
        if len(journey.paths) == 1:
            yield journey.paths[0], journey.amount

    def _looks(self, path: bytes) -> int:
        """How many looks the batch of that file has seen."""
        return next((batch.looks for batch in self._batches if path in batch.sizes), 0)

    def _say(self, path: bytes, sent: int, emit: Observer) -> None:
        before = self._said.get(path, 0)
        if sent > before:
            self._said[path] = sent
            emit(Progressed(path, sent - before))
