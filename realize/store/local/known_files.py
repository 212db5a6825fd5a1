"""What one store has put, or compared: the only files that its user may give other names to.

A user that may only write could otherwise link to any file whose name it can guess, and so keep it, or reach it in
another place.
"""

from __future__ import annotations

import threading
from typing import Final

from realize.fs.identities import identity_token
from realize.fs.tree import Inode
from realize.values import Stored, Version

MAX_LINKABLE_FILES: Final = 4096
"""Files known at most, some 200 bytes each; beyond it the oldest is dropped, and its content is sent for each name."""


class KnownFiles:
    """The files, by identity token, with their change time and digest; knows nothing before `begin`.

    Used by the threads of a store.
    """

    def __init__(self) -> None:
        self._salt: bytes | None = None
        self._files: dict[bytes, tuple[int, bytes | None]] = {}
        self._lock = threading.Lock()
        self.linking = threading.Lock()
        """Held while a file gets a name: that changes its change time."""

    @property
    def noting(self) -> bool:
        """Whether it takes note of files."""
        return self._salt is not None

    def begin(self, salt: bytes) -> None:
        """Take note of files from now on; ``salt`` is that of the identity tokens of the store."""
        self._salt = salt

    def stored(self, stored: Stored, digest: bytes) -> None:
        """Note a file with this digest that was put."""
        if self.noting and stored.identity:
            self._note(stored.identity, stored.ctime_ns, digest)

    def compared(self, version: Version, digest: bytes | None) -> None:
        """Note a file that has the content of what its user has; ``digest`` is None if that was compared by blocks."""
        if self._salt is not None:
            token = identity_token(self._salt, (version.device, version.inode))
            self._note(token, version.ctime_ns, digest)

    def has(self, inode: Inode, ctime_ns: int, digest: bytes) -> bool:
        """Return whether a file with this change time is known, and has this digest as far as that is known."""
        if self._salt is None:
            return False
        with self._lock:
            known = self._files.get(identity_token(self._salt, inode))
        return known is not None and known[0] == ctime_ns and known[1] in {None, digest}

    def linked(self, inode: Inode, ctime_ns: int) -> None:
        """Note that the change time of a known file is this one now, since it got another name."""
        if self._salt is not None:
            token = identity_token(self._salt, inode)
            with self._lock:
                known = self._files.get(token)
                if known is not None:
                    self._files[token] = (ctime_ns, known[1])

    def _note(self, token: bytes, ctime_ns: int, digest: bytes | None) -> None:
        with self._lock:
            self._files.pop(token, None)
            if len(self._files) >= MAX_LINKABLE_FILES:
                del self._files[next(iter(self._files))]
            self._files[token] = (ctime_ns, digest)
