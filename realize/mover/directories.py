"""Which directories of the source had files to move, and which permissions and times their copies are to get; pure.

A listing has each directory before its contents, so a directory's time is known as it was before anything was moved.
Copies get their permissions and times when everything below them is done: until then even a read-only one must accept
files, and each file that arrives changes its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from realize.values import OWNERS, Attributes, Directory, Entry, Kind

MAX_REMEMBERED_DIRECTORIES: Final = 10_000
"""Once this many are remembered, those that are done get their permissions and times and are forgotten."""


class Directories:
    """The directories of one source; kept when the source is listed again after a lost connection.

    ``location_mode`` is the permissions of the source itself, for a destination that does not exist yet; else None.
    """

    def __init__(self, location_mode: int | None = None) -> None:
        self.location_mode = location_mode
        self._above: list[tuple[bytes, Attributes]] = []
        self._filled: dict[bytes, Attributes] = {}
        """Those whose copies files are put into, directly or further below."""
        self._unmade: dict[bytes, Directory] = {}
        """Those that were announced, and are not known to have been made."""
        self._narrow: dict[bytes, Attributes] = {}
        """Those that lack a permission of the owner; a killed run may have left a copy that still has it."""
        self._most = MAX_REMEMBERED_DIRECTORIES

    def begin(self) -> None:
        """Start with the first page of a listing."""
        self._above.clear()

    def listed(self, page: Sequence[Entry]) -> dict[bytes, Attributes]:
        """Take the next page of the listing; returns the directories that its entries are in, as far as known."""
        here = dict(self._above)
        for entry in page:
            if entry.kind is Kind.DIRECTORY:
                while self._above and not entry.path.startswith(self._above[-1][0] + b"/"):
                    self._above.pop()
                attributes = here[entry.path] = Attributes(entry.mtime_ns, entry.mode)
                self._above.append((entry.path, attributes))
                if entry.mode & OWNERS != OWNERS:
                    self._narrow[entry.path] = attributes
        return here

    def fill(self, paths: Iterable[bytes], here: Mapping[bytes, Attributes]) -> list[Directory]:
        """Announce files to be put there; returns the directories to make before that, parents first."""
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
        self._unmade |= {each.path: each for each in make}
        return make

    def unmade(self, paths: Iterable[bytes]) -> list[Directory]:
        """Of the directories above these paths, those that were announced and may be missing yet, parents first."""
        if not self._unmade:
            return []
        seen: set[bytes] = set()
        for path in paths:
            above = path
            while above and (above := above.rpartition(b"/")[0]) not in seen:
                seen.add(above)
        return [self._unmade[path] for path in sorted(seen & self._unmade.keys())]

    def made(self, directories: Iterable[Directory]) -> None:
        """Note that these are not missing any more, or cannot be made."""
        for each in directories:
            self._unmade.pop(each.path, None)

    @property
    def full(self) -> bool:
        """Whether so many are remembered that it is time to finish those that are `done`."""
        return len(self._filled) + len(self._narrow) >= self._most

    def done(self, waiting: Iterable[bytes] = (), *, ended: bool) -> list[Directory]:
        """The directories that are done, in the order to set them in: children first.

        To be called when no file is in flight; ``waiting`` has the paths of files that will be tried again.
        ``ended`` says that the listing has ended; before that, the directories it is still in are not done.
        """
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
        """Forget directories that were set."""
        for each in directories:
            self._filled.pop(each.path, None)
            self._narrow.pop(each.path, None)
            self._unmade.pop(each.path, None)
        self._most = MAX_REMEMBERED_DIRECTORIES + len(self._filled) + len(self._narrow)
