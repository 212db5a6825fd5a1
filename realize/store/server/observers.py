"""Observers of one file that a peer sends or reads: they feed the metrics, the audit log, the table of open streams."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from attrs import define, field

from realize.errors import RealizeError, StorageError
from realize.store.hooks import FileHooks, Saved
from realize.store.server.audit import AuditLog
from realize.values import Committed, Version
from realize.wire.connection import PeerProtocol


def count_not_read(watch: FileHooks, audit: AuditLog, protocol: PeerProtocol, path: bytes, error: RealizeError) -> None:
    """Count that a file could not be read, and log it if the disk is at fault."""
    watch.failed(audit.directory, error)
    # With the connection, what was open is closed: that is no fault of the disk.
    if isinstance(error, StorageError) and not protocol.lost:
        audit.refused(path, "read", error)


class StreamObserver(Protocol):
    """Is told what becomes of a file, whichever way it goes."""

    def count_failed(self, error: RealizeError) -> None:
        """Something that was asked about the file could not be done; told once for each file."""

    def found(self, size: int) -> None:
        """``size`` bytes need not be sent: an earlier version has them."""

    def left_out(self, size: int) -> None:
        """``size`` bytes need not be sent: they are holes."""

    @property
    def forget(self) -> Callable[[], object]:
        """To be called once, when the stream has ended, and its number means nothing any more."""


class WriteObserver(StreamObserver, Protocol):
    """Is told what becomes of a file that the peer sends."""

    def count_committed(self, how: Committed) -> None:
        """It has its name, and is durable."""


class ReadObserver(StreamObserver, Protocol):
    """Is told what becomes of a file that the peer reads."""

    def was_read(self, version: Version, digest: bytes) -> None:
        """All of it was read, or the peer has it: that version, with that digest."""


@define(eq=False, repr=False)
class _Observing:
    _watch: FileHooks
    _audit: AuditLog
    _streams: dict[int, Any]
    """The open streams, by number."""
    _number: int
    forget: Callable[[], object] = field(init=False)
    """See `StreamObserver`; it needs no memory, so that nothing stays in the table when there is none."""

    def __attrs_post_init__(self) -> None:
        self.forget = partial(self._streams.pop, self._number, None)

    def left_out(self, size: int) -> None:
        """See `StreamObserver`."""
        self._watch.saved(Saved.HOLE, size)


@define(eq=False, repr=False)
class ObservedWrite(_Observing):
    """Tells whoever counts of a file that the peer sends."""

    def count_committed(self, how: Committed) -> None:
        """See `WriteObserver`."""
        self._watch.committed(self._audit.directory, how)

    def count_failed(self, error: RealizeError) -> None:
        """See `StreamObserver`."""
        self._watch.failed(self._audit.directory, error)

    def found(self, size: int) -> None:
        """See `StreamObserver`."""
        self._watch.saved(Saved.DELTA, size)


@define(eq=False, repr=False)
class ObservedRead(_Observing):
    """Tells whoever counts, and the audit log, of a file that the peer reads."""

    _path: bytes
    _protocol: PeerProtocol

    def was_read(self, version: Version, digest: bytes) -> None:
        """See `ReadObserver`."""
        self._audit.was_read(self._path, version, digest)

    def count_failed(self, error: RealizeError) -> None:
        """See `StreamObserver`; it is logged, too, if the disk is at fault."""
        count_not_read(self._watch, self._audit, self._protocol, self._path, error)

    def found(self, size: int) -> None:
        """See `StreamObserver`."""
        self._watch.saved(Saved.CLAIMED, size)
