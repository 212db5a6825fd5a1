"""What a run has learned of the room at its destination; pure.

A destination refuses a large file that does not fit before anything of it is sent, if it knows.
Where only writing tells (a quota, other programs), what has failed shows what need not be tried.
"""

from __future__ import annotations

from attrs import define, field

from realize.errors import NoSpace
from realize.units import display_name, format_size


@define
class Scarcity:
    """Shared by all sources of a run."""

    _too_large: int | None = field(default=None, init=False)
    _left: dict[str, tuple[int, int]] = field(factory=dict, init=False)
    tight: bool = field(default=False, init=False)
    """Whether content was sent in vain: then one at a time is enough."""

    def failed(self, size: int) -> None:
        """A file of that size was sent, at least in part, and there was no room for it."""
        self.tight = True
        self._too_large = size if self._too_large is None else min(self._too_large, size)

    def refusal(self, path: bytes, size: int) -> NoSpace | None:
        """Why a file is not worth trying, because no more than it needs did not fit; None if it is."""
        if self._too_large is None or size < self._too_large:
            return None
        return NoSpace(
            f"{display_name(path)}: not tried, because there was no room for a file of {format_size(self._too_large)}"
        )

    def look_again(self) -> None:
        """The rest is done, and its end may have made room."""
        self._too_large = None

    def begin(self, source: str) -> None:
        """A source begins, perhaps once more after a lost connection: nothing of it is to be counted twice."""
        self._left.pop(source, None)

    def left(self, source: str, size: int) -> None:
        """A file of a source stays there for want of room."""
        files, total = self._left.get(source, (0, 0))
        self._left[source] = files + 1, total + size

    @property
    def files(self) -> int:
        """How many files did not fit."""
        return sum(files for files, _ in self._left.values())

    @property
    def size(self) -> int:
        """How many bytes they have together."""
        return sum(size for _, size in self._left.values())
