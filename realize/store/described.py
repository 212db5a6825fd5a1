"""Which version of a final file may be replaced: the one that its replacement was decided upon.

Between being described and being replaced another writer may put his own file there and remove its source: to replace
that one, unseen, would lose it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, TypeAlias

from attrs import frozen

from realize.errors import RealizeError
from realize.store.files import representable
from realize.store.places import place
from realize.store.syscalls import FileStatus
from realize.store.tree import identity_of
from realize.values import Existing

REMEMBERED: Final = 20_000
"""More files than a run has under way at a time; one that was forgotten is not replaced before it is described anew."""


class Unseen(enum.Enum):
    """What may be replaced of a final file that is not known to have been described."""

    ANY = enum.auto()
    """Whatever is there: nobody has asked, and whoever wants it replaced takes that upon himself."""
    NONE = enum.auto()
    """Nothing: what was said of it may have been forgotten."""

    def matches(self, _status: FileStatus) -> bool:
        """Whether the file may be replaced."""
        return self is Unseen.ANY


@frozen
class Described:
    """The version of a final file that its replacement was decided upon."""

    salt: bytes
    place: bytes
    ctime_ns: int

    def matches(self, status: FileStatus) -> bool:
        """Whether the file is still that one."""
        return (
            representable(status.st_ctime_ns) == self.ctime_ns and place(self.salt, identity_of(status)) == self.place
        )


Replaceable: TypeAlias = Described | Unseen
"""The version of a final file that may be replaced."""


class Descriptions:
    """What was said last of each final file; bounded, and each is good for one replacement."""

    def __init__(self) -> None:
        self._known: dict[bytes, Described] = {}
        self._unseen = Unseen.ANY

    def remember(self, salt: bytes, paths: Sequence[bytes], answers: Sequence[Existing | RealizeError]) -> None:
        """Take note of answers that are on their way to the caller."""
        for path, answer in zip(paths, answers, strict=True):
            self._known.pop(path, None)
            if isinstance(answer, Existing) and answer.final_size is not None:
                self._known[path] = Described(salt, answer.place, answer.ctime_ns)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
            self._unseen = Unseen.NONE

    def take(self, path: bytes) -> Replaceable:
        """The version of that file that may be replaced, once."""
        return self._known.pop(path, self._unseen)
