"""Move symlinks in batches, as they are: read, made durable at the destination, recorded, then removed at the source.

What a directory takes, and gives away, the two stores decide; a symlink that one of them refuses stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from attrs import evolve
from twisted.internet.defer import Deferred

from realize.errors import LinkRefused, RealizeError, Unanswered
from realize.mover.batch import BatchOutcome, MovingBatch
from realize.mover.events import End, Failed, Finished, How, Left, Planned, UnderWay
from realize.mover.interfaces import Arrived
from realize.mover.plan import Action
from realize.mover.work import SideError, StoreFailed, Work, whole
from realize.units import display_name
from realize.values import Entry, FoundSymlink, Linked, Preserve, Removal, Symlink, Use

if TYPE_CHECKING:
    from realize.mover.keeping import Keeping

MAX_BATCH_LINKS: Final = 256
"""Symlinks in one batch at most: as many as one command of the protocol takes."""

HOW_LINKED: Final = {
    Linked.CREATED: How.CREATED,
    Linked.REPLACED: How.REPLACED,
    Linked.SKIPPED: How.SKIPPED,
    Linked.ALREADY_THERE: How.ALREADY_THERE,
}
_PLANNED: Final = {
    Linked.CREATED: Action.SEND,
    Linked.REPLACED: Action.REPLACE,
    Linked.SKIPPED: Action.SKIP,
    Linked.ALREADY_THERE: Action.COMPARE,
}

LinkReport: TypeAlias = Callable[[Entry, BatchOutcome], object]


def link_batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Group symlinks in order."""
    for first in range(0, len(entries), MAX_BATCH_LINKS):
        yield entries[first : first + MAX_BATCH_LINKS]


def left_of(entry: Entry, error: LinkRefused) -> Left:
    """The event for a symlink that is refused: it is left, like what is never moved."""
    return Left(entry.path, "symlink: " + str(error).removeprefix(f"{display_name(entry.path)}: "))


async def move_links(work: Work, batch: Sequence[Entry], report: LinkReport) -> None:
    """Move the symlinks of a batch; at the end, ``report`` is called with the outcome of each, in order.

    Raises `StoreFailed` if a store refuses a whole call.
    Then, or if cancelled, ``report`` is called only for the symlinks whose outcome is known.
    """
    moving = _LinkBatch(work, {entry.path: entry for entry in batch})
    under_way = 0
    try:
        found = await moving.read()
        under_way = len(found)
        work.emit(UnderWay(under_way))
        await moving.put(found)
        await moving.remove()
    finally:
        moving.note()
        for path, outcome in moving.so_far():
            report(moving.entries[path], outcome)
        # Only after all reports: a hanging process may be ended in the middle of them.
        work.emit(UnderWay(-under_way))


async def plan_links(work: Work, batch: Sequence[Entry]) -> None:
    """Report what would be done with the symlinks of a batch."""
    moving = _LinkBatch(work, {entry.path: entry for entry in batch})
    found = await moving.read()
    with whole(End.SOURCE):
        use = Use.MOVE if work.options.remove else Use.READ
        forbidden = await work.source.forbidden([each.link.path for each in found], use) if found else []
    for each, error in zip(found, forbidden, strict=True):
        if error is not None:
            moving.outcomes[each.link.path] = SideError(End.SOURCE, error)
    allowed = [each for each in found if each.link.path not in moving.outcomes]
    with whole(End.DESTINATION):
        answers = await moving.ask(allowed, trial=True) if allowed else []
    planned = {each.link.path: (each.link, answer) for each, answer in zip(allowed, answers, strict=True)}
    for path, entry in moving.entries.items():
        outcome = moving.outcomes.get(path)
        if outcome is None:
            link, answer = planned[path]
            if isinstance(answer, Linked):
                work.emit(Planned(path, 0, _PLANNED[answer], target=link.target))
                continue
            outcome = SideError(End.DESTINATION, answer)
        if isinstance(outcome, SideError):
            error = outcome.error
            work.emit(
                left_of(entry, error)
                if isinstance(error, LinkRefused)
                else Failed(path, outcome.end, error, found=False)
            )


class _LinkBatch(MovingBatch[FoundSymlink, Linked]):
    """The symlinks of one batch."""

    def __init__(self, work: Work, entries: dict[bytes, Entry]) -> None:
        super().__init__(work)
        self.entries = entries

    async def read(self) -> list[FoundSymlink]:
        """Read all symlinks; returns those that could be read."""
        keeping, paths = self.work.keeping, list(self.entries)
        wanted = None if keeping is None else keeping.asks_of_links()
        with whole(End.SOURCE):
            answers = await self.work.source.read_links(paths, wanted=wanted)
        found: list[FoundSymlink] = []
        for (path, entry), answer in zip(self.entries.items(), answers, strict=True):
            if isinstance(answer, RealizeError):
                self.outcomes[path] = SideError(End.SOURCE, answer)
                continue
            # A listing has no size of a symlink.
            changed = self.work.changed_since(entry, answer.version, size=0)
            if changed is not None:
                self.outcomes[path] = SideError(End.SOURCE, changed)
            else:
                found.append(answer)
        return found if keeping is None or wanted is None else await self._owned(keeping, found)

    async def _owned(self, keeping: Keeping, found: Sequence[FoundSymlink]) -> list[FoundSymlink]:
        """Return the symlinks with their owners; those that came without are asked for."""
        bare = [each for each in found if each.link.extras is None]
        told = iter(
            await keeping.of_versions(
                self.work.source, [each.link.path for each in bare], [each.version for each in bare]
            )
        )
        owned: list[FoundSymlink] = []
        for each in found:
            extras = next(told) if each.link.extras is None else each.link.extras
            if isinstance(extras, RealizeError):
                self.outcomes[each.link.path] = SideError(End.SOURCE, extras)
            else:
                owned.append(
                    each if extras is each.link.extras else evolve(each, link=evolve(each.link, extras=extras))
                )
        return owned

    async def put(self, found: Sequence[FoundSymlink]) -> None:
        """Make the symlinks at the destination."""
        if not found:
            return
        try:
            with whole(End.DESTINATION):
                answers = await self.ask(found)
        except StoreFailed as side_error:
            if isinstance(side_error.error, Unanswered):
                unknown = self.work.unknown([_arrived(each, None) for each in found])
                self.outcomes |= {each.path: each for each in unknown}
            raise
        for each, answer in zip(found, answers, strict=True):
            if isinstance(answer, RealizeError):
                self.outcomes[each.link.path] = SideError(End.DESTINATION, answer)
            elif answer is Linked.SKIPPED:
                self.outcomes[each.link.path] = _finished(each, answer)
            else:
                self.arrived.append((each, answer))

    async def ask(self, found: Sequence[FoundSymlink], *, trial: bool = False) -> Sequence[Linked | RealizeError]:
        """Ask the destination to make symlinks, insisting on what the run insists on."""

        def ask(some: Sequence[FoundSymlink]) -> Deferred[list[Linked | RealizeError]]:
            links = [self._outgoing(each.link) for each in some]
            return self.work.destination.put_links(links, self.work.options.policy, trial=trial)

        if self.work.keeping is None:
            return await ask(found)
        return await self.work.keeping.insisting(found, lambda each: each.link.path, ask)

    def paths(self) -> Iterable[bytes]:
        """See `MovingBatch`."""
        return self.entries

    def removal(self, found: FoundSymlink) -> Removal:
        """See `MovingBatch`."""
        return Removal(found.link.path, found.version)

    def arrival(self, found: FoundSymlink, how: Linked) -> Arrived:
        """See `MovingBatch`."""
        return _arrived(found, HOW_LINKED[how])

    def there(self, found: FoundSymlink, how: Linked, *, removed: bool = False) -> Finished:
        """See `MovingBatch`."""
        return _finished(found, how, removed=removed)

    def _outgoing(self, link: Symlink) -> Symlink:
        if Preserve.TIMES not in self.work.options.preserve:
            link = evolve(link, mtime_ns=None)
        if link.extras is None or self.work.keeping is None:
            return link
        current = self.work.keeping.current(link.extras)
        return link if current is link.extras else evolve(link, extras=current)


def _arrived(found: FoundSymlink, how: How | None) -> Arrived:
    return Arrived(found.link.path, 0, b"", how, target=found.link.target)


def _finished(found: FoundSymlink, linked: Linked, *, removed: bool = False) -> Finished:
    return Finished(found.link.path, 0, 0, HOW_LINKED[linked], b"", removed, target=found.link.target)
