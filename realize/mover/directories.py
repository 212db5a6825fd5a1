"""Which directories of the source files were moved out of, and what their copies are to have in the end; pure.

A listing has each directory before what is in it, so a directory's time is known as it was before anything was moved.
Copies get their permissions and times when everything below them is done: read-only ones must take files until then,
and each file that comes changes the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import define, field

from realize.values import Attributes, Directory, Entry, Kind

MAX_REMEMBERED_DIRECTORIES: Final = 10_000
"""When so many are remembered, those that are done get what they are to have."""

_OWNERS: Final = 0o700


@define(eq=False)
class Directories:
    """The directories of one source, also when it is listed anew after a connection was lost.

    ``location_mode`` are the permissions of the source itself, if the destination is to be made.
    """

    location_mode: int | None = None
    _above: list[tuple[bytes, Attributes]] = field(factory=list, init=False)
    _filled: dict[bytes, Attributes] = field(factory=dict, init=False)
    """Files were, or are, put into their copies, or below these."""
    _narrow: dict[bytes, Attributes] = field(factory=dict, init=False)
    """Not all of the owner's permissions are there; a run that was killed may have left a copy with them."""
    _most: int = field(factory=lambda: MAX_REMEMBERED_DIRECTORIES, init=False)

    def begin(self) -> None:
        """The listing begins, or begins again."""
        self._above.clear()

    def listed(self, page: Sequence[Entry]) -> dict[bytes, Attributes]:
        """The directories that the entries of the next page are in, as far as the listing has named them."""
        here = dict(self._above)
        for entry in page:
            if entry.kind is Kind.DIRECTORY:
                while self._above and not entry.path.startswith(self._above[-1][0] + b"/"):
                    self._above.pop()
                attributes = here[entry.path] = Attributes(entry.mtime_ns, entry.mode)
                self._above.append((entry.path, attributes))
                if entry.mode & _OWNERS != _OWNERS:
                    self._narrow[entry.path] = attributes
        return here

    def fill(self, paths: Iterable[bytes], here: Mapping[bytes, Attributes]) -> list[Directory]:
        """Files of these names will be put there: the directories that have to be made before, those above first."""
        new: dict[bytes, Attributes] = {}
        for path in paths:
            above = path.rpartition(b"/")[0]
            while above in here and above not in self._filled:
                new[above] = self._filled[above] = here[above]
                above = above.rpartition(b"/")[0]
        make = [Directory(path, new[path].mode) for path in sorted(new)]
        if self.location_mode is not None:
            make.insert(0, Directory(b"", self.location_mode))
            self.location_mode = None
        return make

    @property
    def full(self) -> bool:
        """Whether it is time to ask for what is `done`."""
        return len(self._filled) + len(self._narrow) >= self._most

    def done(self, waiting: Iterable[bytes] = (), *, ended: bool) -> list[Directory]:
        """What is done, if nothing is under way and only files of these names wait; to be set in this order."""
        kept = set() if ended else {path for path, _ in self._above}
        for path in waiting:
            above = path.rpartition(b"/")[0]
            while above and above not in kept:
                kept.add(above)
                above = above.rpartition(b"/")[0]
        found = [
            Directory(path, attributes.mode, attributes.mtime_ns)
            for path, attributes in self._filled.items()
            if path not in kept
        ]
        found += [
            Directory(path, attributes.mode)
            for path, attributes in self._narrow.items()
            if path not in kept and path not in self._filled
        ]
        return sorted(found, key=lambda each: each.path, reverse=True)

    def forget(self, directories: Iterable[Directory]) -> None:
        """They have what they are to have."""
        for each in directories:
            self._filled.pop(each.path, None)
            self._narrow.pop(each.path, None)
        self._most = MAX_REMEMBERED_DIRECTORIES + len(self._filled) + len(self._narrow)
