"""What the mover needs of others: a manifest, the record of the files that it moves, and perhaps a feed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from zope.interface import Interface

from realize.by_value import ByValue
from realize.mover.events import Event, Finished, How
from realize.store.interfaces import IListing
from realize.values import frozen


@frozen(eq=False, repr=False)
class Arrived(ByValue):
    """A file that is complete, verified and durable at the destination; ``path`` is relative to the source.

    ``how`` is None if that is not known, because the destination did not answer.
    ``stored_as`` is its name at the destination, if that is another one; ``backup`` is where the file is now that it
    replaced, below the directory for backups.
    A symlink has a ``target``, and no digest.
    ``linked_to`` is the name at the destination of which it is a hard link.
    """

    path: bytes
    size: int
    digest: bytes
    how: How | None
    stored_as: bytes = b""
    target: bytes | None = None
    backup: bytes = b""
    linked_to: bytes = b""

    @classmethod
    def of(cls, finished: Finished) -> Arrived:
        """What is recorded of something that ended at the destination."""
        return cls(
            finished.path,
            finished.size,
            finished.digest,
            finished.how,
            finished.stored_as,
            finished.target,
            finished.backup,
            finished.linked_to,
        )


class IManifest(Interface):
    """A record of the files that arrived and were removed; ``source`` is the name of a `realize.mover.work.Side`."""

    def durable(source: str, files: Sequence[Arrived]) -> Deferred[None]:
        """Record that these files arrived; fires when the record is durable, and only then may the source be removed.

        Fails with a `realize.errors.RealizeError`, which ends the run: a file that is not recorded is not removed.
        """

    def removed(source: str, files: Sequence[Arrived]) -> None:
        """Record that these files were removed at the source; the record need not be durable."""

    def unknown(source: str, files: Sequence[Arrived]) -> None:
        """Record that these files were sent and no answer came; the record need not be durable."""


class Names(Protocol):
    """The names of the files that the user wants, sorted by bytes, each once; kept for the whole run."""

    def read(self, position: int, most: int) -> Deferred[tuple[list[bytes], int]]:
        """Fires with up to ``most`` names from a position on, 0 being the first, and the position after them."""

    def known(self, number: int) -> bool:
        """Return whether the name of that number was noted before."""

    def note(self, number: int) -> None:
        """Remember that there was a file of that name, or that it was reported that there is none."""


class Sorting(Protocol):
    """Sorts records by their bytes, more than memory should hold; one call at a time."""

    def add(self, records: Sequence[bytes]) -> Deferred[None]:
        """Add some; fires when there may be more."""

    def sort(self) -> Deferred[None]:
        """Say that there are no more; fires when they can be read."""

    def read(self, position: int, most: int) -> Deferred[tuple[list[bytes], int]]:
        """Fires with up to ``most`` of them from a position on, 0 being the first, and the position after them."""

    def close(self) -> None:
        """Free the space that they take up; no call may be under way."""


class Feed(Protocol):
    """Says which files of a source are moved, in place of a listing by its store, and learns what becomes of them.

    A file that cannot be moved now fails at once: it is for the feed to bring it again.
    """

    def listing(self) -> IListing:
        """The files, a page at a time, each page in path order with the directories that its files are in.

        A page may come late; the run goes on with what it has meanwhile.
        """

    def __call__(self, event: Event) -> None:
        """Take an event about this source."""
