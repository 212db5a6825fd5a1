"""The files and directories that Realize works with itself: keys, configurations, logs, manifests, states.

They may lie in a directory that is moved or served, and are no data there: they are not moved, and nobody who names
them gets, replaces or removes them.
Whoever opens such a file adds it to `OWN_FILES`.

A place is known by the identities of the directories that it is in, so it does not matter by which path, link or mount
somebody comes to it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from typing import Final

_DirectoryIdentity = tuple[int, int]
"""Device and inode of a directory."""

_Below = tuple[bytes, ...]
"""The components of a place below some directory."""


class OwnFiles:
    """Places of this process, each with all that is below it; they stay known until it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._below: dict[_DirectoryIdentity, frozenset[_Below]] = {}

    def add(self, path: str) -> None:
        """Add a file or directory, whether it exists or not; raises nothing.  Blocks as long as its disk does."""
        try:
            absolute = os.path.abspath(path)
            directory, name = os.path.split(absolute)
            # The name itself, and what it leads to if it is a link.
            places = {os.path.join(os.path.realpath(directory), name), os.path.realpath(absolute)}
        except (OSError, ValueError):  # no name of a file, or relative to a directory that is gone
            return
        for place in places:
            found = list(_above(os.fsencode(place)))
            with self._lock:
                for identity, below in found:
                    self._below[identity] = self.below(identity) | {below}

    def below(self, directory: _DirectoryIdentity) -> frozenset[_Below]:
        """Return the places inside that directory."""
        return self._below.get(directory, frozenset())


OWN_FILES: Final = OwnFiles()
"""Those of this process, shared by all stores."""


def is_own(own: Collection[_Below], components: _Below) -> bool:
    """Return whether a name is one of these places, or below one; pure."""
    return any(components[: len(place)] == place for place in own)


def _above(place: bytes) -> Iterator[tuple[_DirectoryIdentity, _Below]]:
    """Yield the directories that a place is in, as far as they exist, and where below each of them it is."""
    below: _Below = ()
    while True:
        place, name = os.path.split(place)
        if not name:
            return
        below = (name, *below)
        try:
            status = os.stat(place)
        except (OSError, ValueError):
            continue
        yield (status.st_dev, status.st_ino), below
