"""What the mover asks of whoever keeps a record of the files that it moves."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from realize.mover.events import How


@frozen
class Arrived:
    """A file that is whole, verified and durable at the destination; ``path`` is relative to the source.

    Where it is not known whether it is, ``how`` is None.
    """

    path: bytes
    size: int
    digest: bytes
    how: How | None


class IManifest(Interface):
    """A record of what arrived and what was removed; ``source`` is the name of a `realize.mover.work.Side`."""

    def durable(source: str, files: Sequence[Arrived]) -> Deferred[None]:
        """These files arrived: fires when that is recorded for good; only then may they be removed at the source.

        Fails with a `realize.errors.RealizeError`; the run ends with it, and what is not recorded is not removed.
        """

    def removed(source: str, files: Sequence[Arrived]) -> None:
        """These files were removed at the source; that need not be recorded for good."""

    def unknown(source: str, files: Sequence[Arrived]) -> None:
        """These files were sent, and no answer came; that need not be recorded for good."""
