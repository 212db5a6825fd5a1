"""The files and directories that Realize works with itself: keys, configurations, logs, manifests, states.

They may lie in a directory that is moved or served, and are no data there: they are not moved, and nobody who names
them gets, replaces or removes them.
Whoever opens such a file adds it to `OWN_FILES`.

A place is known by the identities of the directories that it is in, so it does not matter by which path or link
somebody comes to it; a daemon looks where else their file systems are mounted, too.
A hard link to such a file is another file.
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
        self._added: dict[bytes, str] = {}
        """Real paths, and the path that each was added by."""

    def add(self, path: str, *, mounts: bool = False) -> None:
        """Add a file or directory, whether it exists or not; raises nothing.  Blocks as long as its disk does.

        With ``mounts``, it is known wherever its file system is mounted now, below whichever directory.
        """
        try:
            absolute = os.path.abspath(path)
            directory, name = os.path.split(absolute)
            # The name itself, and what it leads to if it is a link.
            seen = {os.path.join(os.path.realpath(directory), name), os.path.realpath(absolute)}
            places = {os.fsencode(place) for place in seen}
        except (OSError, ValueError):  # no name of a file, or relative to a directory that is gone
            return
        if mounts:
            places |= _mounted_elsewhere(places)
        with self._lock:
            self._added.update((place, absolute) for place in places)
        for place in places:
            found = list(_above(place))
            with self._lock:
                for identity, below in found:
                    self._below[identity] = self.below(identity) | {below}

    def look_again(self, directory: str) -> None:
        """Look once more for those in a directory that was not there, or was another one; blocks as `add` does."""
        real = os.fsencode(os.path.realpath(directory))
        with self._lock:
            paths = {path for place, path in self._added.items() if real in {place, *_directories(place)}}
        for path in paths:
            self.add(path, mounts=True)

    @property
    def paths(self) -> frozenset[str]:
        """The absolute paths that were added."""
        with self._lock:
            return frozenset(self._added.values())

    def below(self, directory: _DirectoryIdentity) -> frozenset[_Below]:
        """Return the places inside that directory."""
        return self._below.get(directory, frozenset())


OWN_FILES: Final = OwnFiles()
"""Those of this process, shared by all stores."""


def is_own(own: Collection[_Below], components: _Below) -> bool:
    """Return whether a name is one of these places, or below one; pure."""
    return any(components[: len(place)] == place for place in own)


def holds_own(own: Collection[_Below], components: _Below) -> bool:
    """Return whether a name is one of these places, or that of a directory on the way to one; pure."""
    return any(place[: len(components)] == components for place in own)


def _mounted_elsewhere(places: Collection[bytes]) -> frozenset[bytes]:
    from realize.fs.mounts import aliases, read_mountinfo  # only daemons look, so no command loads it at its start

    mountinfo = read_mountinfo()
    return frozenset(alias for place in places for alias in aliases(place, mountinfo))


def _directories(place: bytes) -> Iterator[bytes]:
    """Yield the directories above an absolute path."""
    while (above := os.path.dirname(place)) != place:
        yield above
        place = above


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
