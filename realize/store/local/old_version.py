"""`OldVersion`: the final file that is about to be replaced, as a source of content for the new one; for a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field
from blake3 import blake3

from realize.errors import RealizeError
from realize.fs.descriptors import release
from realize.fs.handle import Handle
from realize.fs.reading import blocks, read_into
from realize.fs.syscalls import FileStatus, fresh_fstat, is_open_for_writing
from realize.fs.tree import Tree
from realize.store.deltas import Search
from realize.store.local.versions import Clock, open_regular, open_settled, unchanged
from realize.store.origin import digest_from
from realize.values import SLICE_BYTES, Chunk

PROOF_TIMEOUT_S: Final = 300.0
"""After that, the proof is given up and the new version is sent whole, because its sender is waiting."""


class OldVersion:
    """An open final file, or none, in which nothing is found.

    For an ``origin`` that may not read, `prove` first establishes that all of its content came from there, and nothing
    that is read after the file may have changed is used.
    In any case what is taken from it is only a guess, since the file may change while it is open; the digest of the
    new version verifies it.
    """

    def __init__(
        self,
        tree: Tree,
        directory: tuple[bytes, ...],
        name: bytes,
        path: bytes,
        clock: Clock,
        *,
        position: int,
        origin: bytes | None,
    ) -> None:
        self._handle: Handle | None = None
        self._search: Search | None = None
        self._proof: _Proof | None = None
        try:
            if origin is None:
                fd, status = open_regular(tree, directory, name, path)
            else:
                fd, status = open_settled(tree, directory, name, path, clock)
        except (OSError, RealizeError):
            return
        try:
            self._search = Search(status.st_size, self.read, position=position)
            if origin is not None:
                self._proof = _Proof(digest_from(fd, origin), status)
            self._handle = Handle(fd)
        except BaseException:
            release(fd)
            raise

    def prove(self) -> bool:
        """Do the next step of the proof that content may be taken from it; return whether there is another one.

        Call it until it returns False, before anything else.
        """
        if self._proof is None or self._handle is None or self._search is None:
            return False
        try:
            with self._handle as fd:
                if self._proof.go_on(fd):
                    return True
            if not self._proof.holds():
                self._search = None
        except OSError:
            self._search = None
        return False

    def read(self, offset: int, view: memoryview) -> int:
        """Fill ``view`` from ``offset`` on; return the number of bytes read.

        They are fewer than ``view`` holds only at the end of the file, or, for an origin that may not read, none once
        the file may have changed.
        """
        assert self._handle is not None  # noqa: S101 -- without one, nothing was found to be read
        with self._handle as fd:
            count = read_into(fd, view, offset)
            # The sender must not learn anything about what somebody else has written meanwhile.
            return count if self._proof is None or self._proof.counts(fd) else 0

    def find(self, chunks: Sequence[Chunk]) -> list[int | None]:
        """Return the offsets of the next chunks of the new version in this one; see `realize.store.deltas.Search`."""
        if self._search is None:
            return [None] * len(chunks)
        try:
            return self._search.find(chunks)
        except OSError:
            # An old version that cannot be read can still be replaced.
            self._search = None
            return [None] * len(chunks)

    def close(self, dispose: Callable[[int], object]) -> None:
        """Close the descriptor with ``dispose`` as soon as no thread uses it; may be called more than once."""
        if self._handle is not None:
            self._handle.close(dispose)


@define(eq=False, repr=False)
class _Proof:
    """Proof that an open file, which had ``status``, has exactly the content that its origin ``sent``."""

    _sent: bytes | None
    _status: FileStatus
    _position: int = 0
    _content: blake3 = field(factory=blake3)
    _until: float = field(factory=lambda: time.monotonic() + PROOF_TIMEOUT_S)
    _lease_lock: threading.Lock = field(factory=threading.Lock)

    def go_on(self, fd: int) -> bool:
        """Read up to `SLICE_BYTES` more; return whether it is worth going on.

        It is not if the origin is unknown, time is up, the file has changed, or ends before its size says so.
        """
        if self._sent is None or time.monotonic() > self._until:
            return False
        began = self._position
        for piece in blocks(fd, min(SLICE_BYTES, self._status.st_size - self._position), self._position):
            self._content.update(piece)
            self._position += len(piece)
        return began < self._position < self._status.st_size and self.counts(fd)

    def holds(self) -> bool:
        """Return whether everything up to the size at opening was read and is what the origin sent.

        What was appended since is not looked at; `counts` refuses to use it.
        """
        return self._position == self._status.st_size and self._content.digest() == self._sent

    def counts(self, fd: int) -> bool:
        """Return whether the file is unchanged so far, so that what was read is what was, or will be, proven."""
        # Asking takes a lease: of two threads with the same descriptor, one would give back that of the other.
        with self._lease_lock:
            return unchanged(self._status, fresh_fstat(fd)) and not is_open_for_writing(fd)
