"""What a run has done at its destination so far: the decision about the next file needs it.

What somebody else has done since the run started is never undone.
"""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from realize.by_value import ByValue
from realize.values import Existing, Stored, coarseness_ns

MAX_FILES: Final = 8192
"""Files remembered at most; the oldest is dropped first, and a message about it says less then."""


class OtherNames:
    """Files of the destination of which the run has replaced one name, or found the content under one identical.

    Both change the change time of the file. This says why such a file stays, and decides nothing.
    """

    def __init__(self) -> None:
        self._files: dict[bytes, tuple[int | None, int]] = {}

    def note(self, existing: Existing) -> None:
        """Note that the file that was ``existing`` under one name has lost that name, or is relied on."""
        if not existing.identity:
            return
        self._files.pop(existing.identity, None)
        if len(self._files) >= MAX_FILES:
            del self._files[next(iter(self._files))]
        self._files[existing.identity] = existing.final_size, existing.mtime_ns

    def has(self, existing: Existing) -> bool:
        """Return whether this is such a file; another file with its inode number has another size or time."""
        known = self._files.get(existing.identity)
        return known is not None and known == (existing.final_size, existing.mtime_ns)


@frozen(eq=False, repr=False)
class RunHistory(ByValue):
    """What a run has done at its destination, as far as the decision about one file needs it.

    ``started_ns`` is when the run started, by the destination's clock.
    ``stored`` is what this run has stored from an earlier version of the same source file, None if it has not.
    """

    started_ns: int
    stored: Stored | None = None
    other_names: OtherNames = field(factory=OtherNames)

    @property
    def number(self) -> int:
        """That of the numbered name under which it has ``stored`` that version, else 0."""
        return 0 if self.stored is None else self.stored.number

    def has_stored(self, existing: Existing) -> bool:
        """Return whether this final is what the run has stored from an earlier version of the same source file."""
        return self.stored is not None and self.stored.is_still(existing)

    def protects(self, existing: Existing) -> bool:
        """Return whether this final must not be replaced: that might lose a file.

        One that changed since the run started (by the destination's clock) may have come from another source of this
        run, from somebody else, or under a name that the destination does not tell from this one (its file system may
        fold case).
        The same holds for one that the destination itself calls recent, since its clock may have been set meanwhile.
        Once the run has ``stored`` an earlier version of the same source file, it may replace that, and nothing else.
        """
        if self.stored is not None:
            return not self.stored.is_still(existing)
        return existing.recent or existing.ctime_ns + coarseness_ns(existing.ctime_ns) >= self.started_ns
