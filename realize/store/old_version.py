"""`OldVersion`: the final file that is about to be replaced, as a place to take content from; for a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from realize.errors import RealizeError
from realize.store.content import read_into
from realize.store.deltas import Search
from realize.store.descriptors import release
from realize.store.files import open_regular
from realize.store.handle import Handle
from realize.store.tree import Tree
from realize.values import Chunk


class OldVersion:
    """An open final file, or none, of which nothing is found.

    Nobody keeps it from being changed while it is open: what is taken from it is no more than a guess, which the digest
    of the whole proves.
    """

    def __init__(
        self, tree: Tree, directory: tuple[bytes, ...], name: bytes, path: bytes, *, position: int, private: bool
    ) -> None:
        try:
            fd, status = open_regular(tree, directory, name, path)
        except (OSError, RealizeError):
            self._handle, self._search = None, None
            return
        try:
            self._search = Search(status.st_size, self.read, position=position, private=private)
            self._handle = Handle(fd)
        except BaseException:
            release(fd)
            raise

    def read(self, place: int, view: memoryview) -> int:
        """Fill ``view`` from there, less than it only at the end of the file; how much that was."""
        if self._handle is None:
            return 0
        with self._handle as fd:
            return read_into(fd, view, place)

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
