"""The last steps of a batch, of small files or of symlinks: what has arrived is recorded, removed and reported."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, TypeAlias, TypeVar

from realize.errors import Unanswered
from realize.mover.events import End, Finished, Unknown
from realize.mover.interfaces import Arrived
from realize.mover.removal import remove_arrived
from realize.mover.work import SideError, StoreFailed, Work
from realize.values import Removal, Stored

_Found = TypeVar("_Found")
_How = TypeVar("_How")

BatchOutcome: TypeAlias = Finished | Unknown | SideError


class MovingBatch(Generic[_Found, _How]):
    """What is moved together, between the steps; each ends up in ``outcomes``.

    ``arrived`` has what is at the destination now, as it was found, and how it came there; ``recorded`` says whether
    the manifest was told of it.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.outcomes: dict[bytes, BatchOutcome] = {}
        self.arrived: list[tuple[_Found, _How]] = []
        self.recorded = False

    @abstractmethod
    def paths(self) -> Iterable[bytes]:
        """The paths of all that belongs to the batch, in order."""

    @abstractmethod
    def removal(self, found: _Found) -> Removal:
        """What the source is asked to remove."""

    @abstractmethod
    def arrival(self, found: _Found, how: _How) -> Arrived:
        """What the manifest records."""

    @abstractmethod
    def there(self, found: _Found, how: _How, *, removed: bool = False) -> Finished:
        """The outcome of what is at the destination."""

    async def remove(self) -> None:
        """Record what is durable at the destination, and remove it from the source if asked to."""
        recorded = self._arrivals()
        self.recorded = True
        removals = [self.removal(found) for found, _ in self.arrived]
        try:
            refusals = await remove_arrived(self.work, recorded, removals)
        except StoreFailed as side_error:
            if isinstance(side_error.error, Unanswered):
                for removal, (found, how) in zip(removals, self.arrived, strict=True):
                    self.outcomes[removal.path] = self.work.removal_unknown(self.there(found, how))
            raise
        for removal, (found, how), refused in zip(removals, self.arrived, refusals, strict=True):
            if refused is not None:
                stored = how if isinstance(how, Stored) else None
                self.outcomes[removal.path] = SideError(End.SOURCE, refused, stored=stored)
            else:
                self.outcomes[removal.path] = self.there(found, how, removed=self.work.options.remove)

    def note(self) -> None:
        """Record what has arrived, if the batch ended before `remove` did."""
        if not self.recorded:
            self.work.kept(self._arrivals())

    def so_far(self) -> Iterator[tuple[bytes, BatchOutcome]]:
        """The outcomes known so far, by path; what has arrived and was not yet removed is on both sides."""
        there: dict[bytes, tuple[_Found, _How]] | None = None
        for path in self.paths():
            if path in self.outcomes:
                yield path, self.outcomes[path]
                continue
            if there is None:
                there = {self.removal(found).path: (found, how) for found, how in self.arrived}
            if path in there:
                yield path, self.there(*there[path])

    def _arrivals(self) -> list[Arrived]:
        """What the manifest is to record of ``arrived``, if there is one."""
        if self.work.manifest is None:
            return []
        return [self.arrival(found, how) for found, how in self.arrived]
