"""Remove the directories of the source that have long been empty, at its end; `Vacancies`, which finds them, is pure.

If a directory is removed while a program still uses it, the program's next files are lost.
So only directories go whose last change is long past; the time of that change is read when the listing reaches the
directory, before the removal of anything in it changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import define, field

from realize.by_value import ByValue
from realize.mover.events import End, Pruned
from realize.mover.work import Work, whole
from realize.store.interfaces import IListing
from realize.values import Entry, Kind, Vacant


@define(repr=False)
class _Open(ByValue):
    """A directory whose end the listing has not reached yet."""

    path: bytes
    mtime_ns: int
    kept: bool
    """Whether it stays, on its own account or because of something in it."""
    emptied: bool = False
    """Whether a directory in it is to be removed."""


@define(eq=False, repr=False)
class Vacancies:
    """Finds the directories that are empty, or contain nothing but such directories.

    The listing must include partials, since a directory with a partial in it is not empty.
    ``may_go`` says whether a directory is old enough and selected.
    """

    may_go: Callable[[Entry], bool]
    _open: list[_Open] = field(factory=list, init=False)

    def seen(self, entries: Iterable[Entry]) -> list[Vacant]:
        """Take the next entries; returns the directories now known to be removable, in the order to remove them in."""
        found: list[Vacant] = []
        for entry in entries:
            found += self._close(entry.path)
            if entry.kind is Kind.DIRECTORY:
                self._open.append(_Open(entry.path, entry.mtime_ns, kept=not self.may_go(entry)))
            elif self._open:
                self._open[-1].kept = True
        return found

    def ended(self) -> list[Vacant]:
        """The remaining removable directories, once the listing has ended."""
        return list(self._close(None))

    def _close(self, path: bytes | None) -> Iterator[Vacant]:
        """Close the directories that end before ``path`` (None: all of them); yields those that can be removed."""
        while self._open:
            last = self._open[-1]
            if path is not None and (path == last.path or path.startswith(last.path + b"/")):
                return
            self._open.pop()
            if not last.kept:
                yield Vacant(last.path, None if last.emptied else last.mtime_ns)
            if self._open:
                above = self._open[-1]
                above.kept = above.kept or last.kept
                above.emptied = above.emptied or not last.kept


async def prune(work: Work, avoid: bytes, age_ns: int, now_ns: Callable[[IListing], int]) -> None:
    """List the source once more, and remove the directories that have been empty for ``age_ns``.

    ``avoid`` is as for `IStore.walk`; ``now_ns`` returns the time by the source's clock.
    Raises `StoreFailed` if the source refuses a whole call.
    """
    selection = work.options.selection

    def may_go(directory: Entry) -> bool:
        old = not age_ns or now_ns(listing) - directory.mtime_ns >= age_ns
        return old and selection.accepts_directory(directory.path)

    vacancies = Vacancies(may_go)
    with whole(End.SOURCE):
        # Where only named files are meant, these rules would skip directories that may be empty: list them all.
        leave = () if selection.only else selection.leaving()
        listing = work.source.walk(
            partials=True, avoid=avoid, leave=leave, one_file_system=work.options.one_file_system
        )
    try:
        while not work.stop_flag.should_stop():
            with whole(End.SOURCE):
                page = await listing.next_page()
            if not page:
                break
            await _remove(work, vacancies.seen(page))
        if not work.stop_flag.should_stop():
            await _remove(work, vacancies.ended())
    finally:
        listing.close()


async def _remove(work: Work, vacant: Sequence[Vacant]) -> None:
    if work.options.dry_run:
        for each in vacant:
            work.emit(Pruned(each.path, removed=False))
    elif vacant:
        with whole(End.SOURCE):
            answers = await work.source.prune(vacant)
        for each, answer in zip(vacant, answers, strict=True):
            if answer is True:
                work.emit(Pruned(each.path, removed=True))
