"""What a run would do, reported instead of done (``--dry-run``).

Loaded only where that is asked for.
Both stores are only asked: no content is read, and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from realize.errors import Conflict, RealizeError
from realize.mover.events import End, Failed, Planned
from realize.mover.plan import Action
from realize.mover.work import Work, whole
from realize.numbered import numbered
from realize.units import display_name
from realize.values import Entry, OnConflict, Siblings, Sized, Use

if TYPE_CHECKING:
    from realize.extras import Extras
    from realize.mover.keeping import Keeping

_NOTHING_LINKED: Final[Mapping[bytes, bytes]] = {}


async def report_dry_run(
    work: Work, decided: Sequence[tuple[Entry, Action]], linked_to: Mapping[bytes, bytes] = _NOTHING_LINKED
) -> None:
    """Report what would be done; a file that permissions would not allow to be moved is reported as failed.

    ``linked_to`` has those that would become links, to what.
    Raises `StoreFailed` if a store refuses a whole call.
    """
    refused: dict[bytes, tuple[End, RealizeError]] = {}
    conflicts = {Action.RENAME, Action.COMPARE} if work.options.policy is OnConflict.RENAME else set()
    beside = await _free_names(work, [entry for entry, action in decided if action in conflicts])
    put = [
        beside.get(entry.path, entry.path) for entry, action in decided if action not in {Action.SKIP, Action.COMPARE}
    ]
    compared = [entry.path for entry, action in decided if action is Action.COMPARE]
    read = [entry.path for entry, action in decided if action is not Action.SKIP]
    for end, store, paths, use in (
        (End.DESTINATION, work.destination, put, Use.PUT),
        (End.DESTINATION, work.destination, compared, Use.COMPARE),
        (End.SOURCE, work.source, read, Use.MOVE if work.options.remove else Use.READ),
    ):
        with whole(end):
            answers = await store.forbidden(paths, use) if paths else []
        refused |= {path: (end, error) for path, error in zip(paths, answers, strict=True) if error is not None}
    if work.keeping is not None and work.keeping.wanted:
        refused |= await _not_to_be_kept(work, work.keeping, [path for path in read if path not in refused])
    for entry, action in decided:
        stored_as = beside.get(entry.path, b"")
        why = refused.get(entry.path) or refused.get(stored_as)
        if action is Action.REPLACE and not work.destination.replaces:
            note = "exists already; we may create files there, and not replace any"
            why = End.DESTINATION, Conflict(f"{display_name(entry.path)}: {note}")
        if why is not None:
            work.emit(Failed(entry.path, *why))
        else:
            link = linked_to.get(entry.path, b"")
            sends = entry.size if action not in {Action.SKIP, Action.COMPARE} and not link else 0
            if sends and work.allowance is not None and not work.allowance.take(sends):
                work.spent()
                return
            work.emit(Planned(entry.path, entry.size, action, stored_as, linked_to=link))


async def _not_to_be_kept(
    work: Work, keeping: Keeping, paths: Sequence[bytes]
) -> dict[bytes, tuple[End, RealizeError]]:
    """The files of which something could not be kept, and why, as far as that shows without touching anything."""
    refused: dict[bytes, tuple[End, RealizeError]] = {}
    found: list[tuple[bytes, Extras]] = []
    for path, each in zip(paths, await keeping.read(work.source, paths), strict=True):
        if isinstance(each, RealizeError):
            refused[path] = End.SOURCE, each
        else:
            found.append((path, each.extras))

    def ask(some: Sequence[tuple[bytes, Extras]]) -> Deferred[list[RealizeError | None]]:
        return work.destination.foresee([path for path, _ in some], [keeping.current(extras) for _, extras in some])

    with whole(End.DESTINATION):
        answers = await keeping.insisting(found, itemgetter(0), ask) if found else []
    for (path, _), error in zip(found, answers, strict=True):
        if error is not None:
            refused[path] = End.DESTINATION, error
    return refused


async def _free_names(work: Work, files: Sequence[Entry]) -> dict[bytes, bytes]:
    """The numbered names that these files would get, by their own ones."""
    if not files:
        return {}
    with whole(End.DESTINATION):
        answers = await work.destination.siblings([Sized(entry.path, entry.size) for entry in files])
    return {
        entry.path: numbered(entry.path, answer.free)
        for entry, answer in zip(files, answers, strict=True)
        if isinstance(answer, Siblings)
    }
