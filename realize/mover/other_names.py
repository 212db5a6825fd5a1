"""Telling, at a destination, a file that has just arrived from one that the run itself has changed by another name."""

from __future__ import annotations

from typing import Final

from attrs import define, field

from realize.values import Existing

MAX_FILES: Final = 8192
"""Files remembered at most; of those dropped, the oldest first, it is said only that they arrived, or changed."""


@define(eq=False, repr=False)
class OtherNames:
    """Files of the destination of which the run has replaced one name, or found what one leads to identical.

    Both change their change time.  This says why such a file stays, and decides nothing.
    """

    _files: dict[bytes, tuple[int | None, int]] = field(factory=dict, init=False)

    def note(self, existing: Existing) -> None:
        """Note that what was ``existing`` under one name has lost that name, or is relied on."""
        if not existing.identity:
            return
        self._files.pop(existing.identity, None)
        if len(self._files) >= MAX_FILES:
            del self._files[next(iter(self._files))]
        self._files[existing.identity] = existing.final_size, existing.mtime_ns

    def has(self, existing: Existing) -> bool:
        """Return whether this is such a file; another one may have got its inode, but looks different."""
        known = self._files.get(existing.identity)
        return known is not None and known == (existing.final_size, existing.mtime_ns)
