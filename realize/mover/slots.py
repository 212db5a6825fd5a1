"""How many batches and larger files are in flight, and who waits until there may be one more.

That depends on the jobs that the user allows, and on how long the link between the two ends is at the moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

from realize.store.interfaces import IStore
from realize.values import MAX_SMALL_BYTES

BATCHES_PER_JOB: Final = 2
"""Batches of small files in flight for each of the jobs that the user allows."""

MAX_BATCHES: Final = 16
"""Batches of small files in flight at most; each has up to `realize.values.MAX_SMALL_BYTES` bytes."""

FAR_BATCHES_PER_JOB: Final = 5
"""The same over a long link, where those come on top that both ends work off in a round trip."""

MAX_FAR_BATCHES: Final = 20
"""The same at most: with these, the other end, at its default limit, has memory left for all else."""

MAX_FAR_BYTES: Final = MAX_BATCHES * MAX_SMALL_BYTES
"""Bytes of all batches in flight, beyond which a long link gets no more batches than a short one."""

FAR_FILES_PER_JOB: Final = 2
"""Larger files in flight for each job over a long link: each waits for two round trips besides its content."""

MAX_FAR_FILES: Final = 8
"""The same at most, unless the user allows more jobs."""

MAX_FAR_FILE_BYTES: Final = 64 << 20
"""Bytes of all larger files in flight, beyond which there are as many as jobs: their content keeps the link busy."""

BATCH_S: Final = 0.01
"""Seconds that both ends take for a batch, roughly."""


class FlightLimits:
    """How many batches and larger files may be in flight between two stores; ``jobs`` is what the user allows."""

    def __init__(self, jobs: int, source: IStore, destination: IStore) -> None:
        self._jobs = jobs
        self._source = source
        self._destination = destination

    def may_begin_batch(self, batches: int, size: int) -> bool:
        """Whether a batch may begin beside so many others, with which it has ``size`` bytes."""
        near = min(BATCHES_PER_JOB * self._jobs, MAX_BATCHES)
        far = min(near + self._batches_in_a_round_trip(), FAR_BATCHES_PER_JOB * self._jobs, MAX_FAR_BATCHES)
        return batches < near or (batches < far and size <= MAX_FAR_BYTES)

    def may_begin_file(self, files: int, size: int) -> bool:
        """The same for a file that is too large for a batch."""
        far = min(self._jobs + self._batches_in_a_round_trip(), FAR_FILES_PER_JOB * self._jobs, MAX_FAR_FILES)
        return files < self._jobs or (files < far and size <= MAX_FAR_FILE_BYTES)

    def _batches_in_a_round_trip(self) -> int:
        """How many batches both ends could work off while an answer is on its way."""
        return int(max(self._source.round_trip(), self._destination.round_trip()) / BATCH_S)


class VaryingSlots:
    """Lets a job run beside others if ``may_begin`` says so; it is asked whenever one is to start, or has ended.

    It is given how many run, and how large they are with the new one, together.
    When it allows less, those that run go on, and none starts until it may.
    Waiting jobs start in order, and may be cancelled.
    """

    def __init__(self, may_begin: Callable[[int, int], bool]) -> None:
        self._may_begin = may_begin
        self._taken = self._size = 0
        self._waiting: deque[tuple[Deferred[None], int]] = deque()

    def for_size(self, size: int) -> SizedSlots:
        """The same slots, for a job of that size."""
        return SizedSlots(self, size)

    def acquire(self, size: int = 0) -> Deferred[None]:
        """Take a slot; fires when there is one."""
        if not self._waiting and self._may_begin(self._taken, self._size + size):
            self._take(size)
            return succeed(None)
        turn: Deferred[None] = Deferred(lambda turn: self._waiting.remove((turn, size)))
        self._waiting.append((turn, size))
        return turn

    def release(self, size: int = 0) -> None:
        """Give a slot back."""
        self._taken -= 1
        self._size -= size
        while self._waiting and self._may_begin(self._taken, self._size + self._waiting[0][1]):
            turn, wanted = self._waiting.popleft()
            self._take(wanted)
            turn.callback(None)

    def _take(self, size: int) -> None:
        self._taken += 1
        self._size += size


@frozen(eq=False, repr=False)
class SizedSlots:
    """Slots for jobs of one size."""

    slots: VaryingSlots
    size: int

    def acquire(self) -> Deferred[None]:
        """See `VaryingSlots`."""
        return self.slots.acquire(self.size)

    def release(self) -> None:
        """See `VaryingSlots`."""
        self.slots.release(self.size)
