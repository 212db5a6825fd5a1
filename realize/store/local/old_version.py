"""`OldVersion`: the final file that is about to be replaced, as a place to take content from; for a thread."""

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
"""Seconds that a proof may take; then the new version is sent whole, for its sender waits."""


class OldVersion:
    """An open final file, or none, of which nothing is found.

    For an ``origin`` that may not read, `prove` finds out first whether all of it came from there, and what is read
    once it may have been changed does not count.
    Else what is taken from it is no more than a guess, for nobody keeps it from being changed while it is open; the
    digest of the whole proves it.
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
        """Go on to find out whether content may be taken from it, and say whether there is more to do.

        To be called until there is not, before anything else.
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

    def read(self, place: int, view: memoryview) -> int:
        """Fill ``view`` from there, less than it only at the end of the file; how much that was."""
        assert self._handle is not None  # noqa: S101 -- without one, nothing was found to be read
        with self._handle as fd:
            count = read_into(fd, view, place)
            # What somebody has written meanwhile is nothing that the sender may learn of.
            return count if self._proof is None or self._proof.counts(fd) else 0

    def find(self, chunks: Sequence[Chunk]) -> list[int | None]:
        """Where the next chunks of the new version are in this one; see `realize.store.deltas.Search`."""
        if self._search is None:
            return [None] * len(chunks)
        try:
            return self._search.find(chunks)
        except OSError:
            # What cannot be read is replaced as well as anything.
            self._search = None
            return [None] * len(chunks)

    def close(self, dispose: Callable[[int], object]) -> None:
        """Release it, by ``dispose``, as soon as no thread reads it; may be called more than once."""
        if self._handle is not None:
            self._handle.close(dispose)


@define(eq=False)
class _Proof:
    """That an open file, of that status, has just the content that its origin has ``sent``."""

    _sent: bytes | None
    _status: FileStatus
    _place: int = 0
    _content: blake3 = field(factory=blake3)
    _until: float = field(factory=lambda: time.monotonic() + PROOF_TIMEOUT_S)
    _asking: threading.Lock = field(factory=threading.Lock)

    def go_on(self, fd: int) -> bool:
        """Read some more; whether there is still more, and hope.

        There is none where nothing comes any more although the size says that there is more.
        """
        if self._sent is None or time.monotonic() > self._until:
            return False
        began = self._place
        for piece in blocks(fd, min(SLICE_BYTES, self._status.st_size - self._place), self._place):
            self._content.update(piece)
            self._place += len(piece)
        return began < self._place < self._status.st_size and self.counts(fd)

    def holds(self) -> bool:
        """Whether all was read, and is what was sent: also what somebody has appended to that, and was not come to."""
        return self._place == self._status.st_size and self._content.digest() == self._sent

    def counts(self, fd: int) -> bool:
        """Whether what was read up to now cannot be anything else than what was, or is to be, proven."""
        # Of two threads with the same descriptor, one would find the lease gone that the other one has given back.
        with self._asking:
            return unchanged(self._status, fresh_fstat(fd)) and not is_open_for_writing(fd)
