"""Which directories of the source have long been empty, told from a listing of it; pure.

A program that writes into a directory loses its next files if the directory is removed under it, so age decides: that
of the directory's last change when the listing came to it, which is before anything below it is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from attrs import define, field

from realize.values import Entry, Kind, Vacant


@define
class _Open:
    """A directory whose end the listing has not reached yet."""

    path: bytes
    mtime_ns: int
    kept: bool
    """It stays, whatever is in it, or because of something in it."""
    emptied: bool = False
    """Something in it is to be removed."""


@define(eq=False)
class Vacancies:
    """Finds, in a listing with partials, the directories that are empty, or become so by the removal of such.

    ``may_go`` says of a directory whether it is old enough, and meant.
    """

    may_go: Callable[[Entry], bool]
    _open: list[_Open] = field(factory=list, init=False)

    def seen(self, entries: Iterable[Entry]) -> list[Vacant]:
        """The directories that turn out to be such now that these entries follow; in the order to remove them in."""
        found: list[Vacant] = []
        for entry in entries:
            found += self._close(entry.path)
            if entry.kind is Kind.DIRECTORY:
                self._open.append(_Open(entry.path, entry.mtime_ns, kept=not self.may_go(entry)))
            elif self._open:
                self._open[-1].kept = True
        return found

    def ended(self) -> list[Vacant]:
        """The rest of them, once the listing has ended."""
        return list(self._close(None))

    def _close(self, path: bytes | None) -> Iterator[Vacant]:
        """Leave the directories that ``path`` is neither in nor the name of."""
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
