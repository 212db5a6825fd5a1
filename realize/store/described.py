"""What a store has said of final files that may be replaced because of it.

Between being described and being replaced another writer may put his own file there and remove its source: to replace
that one, unseen, would lose it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from realize.errors import RealizeError
from realize.store.places import place
from realize.store.syscalls import FileStatus
from realize.store.tree import identity_of
from realize.values import Existing

REMEMBERED: Final = 20_000
"""More files than a run has under way at a time; of one that was forgotten, any version may be replaced."""


@frozen
class Described:
    """The version of a final file that its replacement was decided upon."""

    salt: bytes
    place: bytes
    ctime_ns: int

    def matches(self, status: FileStatus) -> bool:
        """Whether the file is still that one."""
        return status.st_ctime_ns == self.ctime_ns and place(self.salt, identity_of(status)) == self.place


class Descriptions:
    """What was said last of each final file; bounded, and each is good for one replacement."""

    def __init__(self) -> None:
        self._known: dict[bytes, Described] = {}

    def remember(self, salt: bytes, paths: Sequence[bytes], answers: Sequence[Existing | RealizeError]) -> None:
        """Take note of answers that are on their way to the caller."""
        for path, answer in zip(paths, answers, strict=True):
            self._known.pop(path, None)
            if isinstance(answer, Existing) and answer.final_size is not None:
                self._known[path] = Described(salt, answer.place, answer.ctime_ns)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def take(self, path: bytes) -> Described | None:
        """What was said of that file, once."""
        return self._known.pop(path, None)
