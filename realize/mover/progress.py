"""Report the progress of files in flight, in bytes, also during a step that takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Final

from realize.mover.events import End, Observer, Progressed
from realize.values import Entry, Travelled

PROGRESS_INTERVAL_S: Final = 0.2
"""Time between two samples of what has travelled."""

SAMPLES_BEFORE_BATCH_PROGRESS: Final = 3
"""Samples before progress of the files of a batch is reported; most batches end sooner, which reports all of them."""


def _nothing_travels() -> None:
    return None


class _BatchProgress:
    """The sizes of the files of a batch, and how many samples were taken while it is in flight."""

    def __init__(self, sizes: dict[bytes, int]) -> None:
        self.sizes = sizes
        self.samples = 0


class Progress:
    """Emits `Progressed` events that report each byte once.

    ``in_transit`` is the method of the store at the other end of a connection (see `realize.store.interfaces.IStore`).
    Between two stores of this machine it returns None, and progress is what has been written.
    """

    def __init__(
        self, in_transit: Callable[[], Sequence[Travelled] | None] = _nothing_travels, end: End = End.DESTINATION
    ) -> None:
        self.in_transit = in_transit
        self.end = end
        """Which side that store is on."""
        self.watches = in_transit() is not None
        """Whether `look` has anything to sample: one of the stores is at the other end of a connection."""
        self._reported: dict[bytes, int] = {}
        self._batches: list[_BatchProgress] = []

    @contextmanager
    def batch(self, files: Sequence[Entry]) -> Iterator[None]:
        """Announce, for the time of the block, files that travel in one batch."""
        batch = _BatchProgress({file.path: file.size for file in files})
        self._batches.append(batch)
        try:
            yield
        finally:
            self._batches.remove(batch)

    def all_travelled(self, end: End, files: Iterable[tuple[bytes, int]], emit: Observer) -> None:
        """Report the whole content of files of one batch, given as (path, size), that came from or went to that store.

        To be called before the next step, which takes time on a slow link.
        """
        for path, size in files if end is self.end else ():
            if self._samples(path) < SAMPLES_BEFORE_BATCH_PROGRESS:
                return
            self._report(path, size, emit)

    def look(self, emit: Observer) -> None:
        """Report what has travelled since the last call."""
        transfers = self.in_transit()
        if transfers is None:
            return
        for batch in self._batches:
            batch.samples += 1
        travelled = dict(chain.from_iterable(map(self._by_file, transfers)))
        for path in self._reported.keys() - travelled.keys():
            del self._reported[path]
        for path, sent in travelled.items():
            self._report(path, sent, emit)

    def begun(self, path: bytes) -> None:
        """Count a file from 0 again: it is sent anew."""
        self._reported.pop(path, None)

    def written(self, path: bytes, sent: int, emit: Observer) -> None:
        """Report that ``sent`` bytes of a file were handed to its destination so far."""
        if not self.watches:
            self._report(path, sent, emit)

    def reported(self, path: bytes) -> int:
        """How many bytes of a file were reported so far."""
        return self._reported.get(path, 0)

    def arrived(self, path: bytes, sent: int, emit: Observer) -> None:
        """Report that a file is complete at the destination; ``sent`` bytes of it were sent."""
        self._report(path, sent, emit)
        self._reported.pop(path, None)

    def _by_file(self, transfer: Travelled) -> Iterator[tuple[bytes, int]]:
        """Each file of a transfer and how many bytes of it have travelled; the contents follow each other."""
        for batch in self._batches:
            if transfer.paths[0] in batch.sizes:
                left = transfer.amount if batch.samples >= SAMPLES_BEFORE_BATCH_PROGRESS else 0
                for path in transfer.paths:
                    if left <= 0:
                        return
                    yield path, min(left, batch.sizes[path])
                    left -= batch.sizes[path]
                return
        if len(transfer.paths) == 1:
            yield transfer.paths[0], transfer.amount

    def _samples(self, path: bytes) -> int:
        """How many samples were taken since the batch of that file set out."""
        return next((batch.samples for batch in self._batches if path in batch.sizes), 0)

    def _report(self, path: bytes, sent: int, emit: Observer) -> None:
        before = self._reported.get(path, 0)
        if sent > before:
            self._reported[path] = sent
            emit(Progressed(path, sent - before))
