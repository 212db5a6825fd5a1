"""What a run has learned about the free space at its destination; pure.

A destination that knows its free space refuses a large file that does not fit before any of it is sent.
Where only writing tells (a quota, other programs that fill the disk), the files that failed show which need not be
tried.
"""

from __future__ import annotations

from realize.errors import NoSpace
from realize.units import display_name, format_size


class Scarcity:
    """The files for which there was no space, shared by all sources of a run."""

    def __init__(self) -> None:
        self._too_large: int | None = None
        self._left: dict[str, tuple[int, int]] = {}
        self.tight = False
        """Whether content was sent in vain; from then on files are sent one at a time."""

    def failed(self, size: int) -> None:
        """Note that a file of this size was sent, at least in part, and did not fit."""
        self.tight = True
        self._too_large = size if self._too_large is None else min(self._too_large, size)

    def refusal(self, path: bytes, size: int) -> NoSpace | None:
        """The error for a file that need not be tried, since one of its size or smaller did not fit; None: try it."""
        if self._too_large is None or size < self._too_large:
            return None
        return NoSpace(
            f"{display_name(path)}: not tried, because there was no room for a file of {format_size(self._too_large)}"
        )

    def look_again(self) -> None:
        """Forget which sizes did not fit: everything else is done, and that may have freed space."""
        self._too_large = None

    def begin(self, source: str) -> None:
        """Start counting a source, perhaps again after a lost connection: none of its files is counted twice."""
        self._left.pop(source, None)

    def left(self, source: str, size: int) -> None:
        """Count a file that stays at its source for want of space."""
        files, total = self._left.get(source, (0, 0))
        self._left[source] = files + 1, total + size

    @property
    def files(self) -> int:
        """How many files did not fit."""
        return sum(files for files, _ in self._left.values())

    @property
    def size(self) -> int:
        """Their total size in bytes."""
        return sum(size for _, size in self._left.values())
