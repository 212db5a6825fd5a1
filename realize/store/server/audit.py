"""The audit trail of one connection: what became of which file, as records of the log.

From these records alone, at level info, it can be told who put, replaced or removed which file, when, with what size
and digest; their fields are in ``docs/logging.md``.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from attrs import define, field
from blake3 import blake3

from realize.concurrency.memory import Claim
from realize.errors import NotFound, RealizeError, StorageError
from realize.tracing import transfer_id
from realize.units import display_name
from realize.values import Committed, Expected, Removal, SmallFile, Stored, Version

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

MAX_REMEMBERED_FILES: Final = 16_384
"""Files below one location that are remembered: the digests of those that were read, and what was there already."""

FILES_PER_CLAIM: Final = 64
"""Memory is claimed for so many at a time."""

BYTES_PER_FILE: Final = 512
"""Bytes for each of them, about."""


@define(eq=False)
class AuditLog:
    """The records about the files below one location that the peer has opened.

    ``log`` is bound to the peer and the connection; ``run`` is the run of the peer, see `realize.tracing`.
    What is remembered is by digest of the path, which may be long, and as far as ``claim`` has plenty of memory for it;
    beyond that, the oldest is forgotten.
    """

    log: Any
    run: str
    directory: str
    base: bytes
    _claim: Claim
    _digests: dict[tuple[bytes, Version], bytes] = field(factory=dict, init=False)
    _told: dict[bytes, tuple[int, bytes | None]] = field(factory=dict, init=False)
    """What was said to be there already: to ask for it again makes no new record."""
    _room: int = field(default=0, init=False)
    """For so many more, memory is claimed."""

    def shown(self, path: bytes) -> str:
        """A name for people, from the directory's own start."""
        return display_name(self.base + b"/" + path if self.base else path)

    def file(self, path: bytes, size: int) -> FileAudit:
        """The records about one file that arrives as a stream."""
        return FileAudit(self, path, size)

    def was_read(self, path: bytes, version: Version, digest: bytes) -> None:
        """The peer has read a file, and may remove it."""
        self._remember(self._digests, (_key(path), version), digest)

    def put(self, file: SmallFile, outcome: Stored | RealizeError) -> None:
        """What became of a file that came in one piece."""
        self.ended(file.path, len(file.content), file.digest, outcome)

    def ended(self, path: bytes, size: int, digest: bytes, outcome: Stored | RealizeError) -> None:
        """A file is in its place, durable; or it was refused, or left out as its sender wished."""
        if isinstance(outcome, RealizeError):
            self.refused(path, "commit", outcome)
        elif outcome.how is not Committed.SKIPPED:
            self._told.pop(_key(path), None)
            self.log.info(
                "file_committed",
                dir=self.directory,
                path=self.shown(path),
                size=size,
                digest=digest.hex(),
                replaced=outcome.how is Committed.REPLACED,
                transfer=transfer_id(self.run, path),
            )

    def settled(self, expected: Expected, answer: bool | RealizeError) -> int:  # noqa: FBT001 -- the store's answer
        """Whether a file was there already; how many bytes of it that is news for."""
        if answer is True:
            return self.already_there(expected.path, expected.size, expected.digest)
        if isinstance(answer, StorageError):
            self.refused(expected.path, "commit", answer)
        return 0

    def already_there(self, path: bytes, size: int, digest: bytes | None) -> int:
        """A file of the same content is durable, and was not sent; its sender may remove its own now.

        How many bytes that is news for: none if the same was answered before.
        """
        key = _key(path)
        if self._told.get(key) == (size, digest):
            return 0
        self._remember(self._told, key, (size, digest))
        self.log.info(
            "file_already_there",
            dir=self.directory,
            path=self.shown(path),
            size=size,
            digest=None if digest is None else digest.hex(),
            transfer=transfer_id(self.run, path),
        )
        return size

    def removed(self, removal: Removal, error: RealizeError | None) -> None:
        """A file of that very version was removed, at the wish of the peer; or it stays."""
        digest = self._digests.pop((_key(removal.path), removal.version), None)
        if isinstance(error, NotFound):
            return  # somebody else removed it, or nobody: it was perhaps never there
        if error is not None:
            self.refused(removal.path, "remove", error)
            return
        self._told.pop(_key(removal.path), None)
        self.log.info(
            "file_removed",
            dir=self.directory,
            path=self.shown(removal.path),
            size=removal.version.size,
            digest=None if digest is None else digest.hex(),
            transfer=transfer_id(self.run, removal.path),
        )

    def pruned(self, path: bytes) -> None:
        """A directory, which was empty, is gone at the wish of the peer."""
        self.log.info("directory_removed", dir=self.directory, path=self.shown(path))

    def refused(self, path: bytes, doing: str, error: RealizeError) -> None:
        """A file could not be dealt with; if the disk is at fault, somebody must act."""
        log = self.log.bind(dir=self.directory, path=self.shown(path), transfer=transfer_id(self.run, path))
        if isinstance(error, StorageError):
            log.error("storage_failed", doing=doing, code=error.wire_code.decode(), error=str(error))
        else:
            log.warning("file_refused", doing=doing, code=error.wire_code.decode(), error=str(error))

    def _remember(self, known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
        if key not in known and (len(known) >= MAX_REMEMBERED_FILES or not self._has_room()):
            if not known:
                return
            del known[next(iter(known))]
        known[key] = value

    def _has_room(self) -> bool:
        """Whether one more may be remembered, for which memory is claimed then; what was forgotten makes room again."""
        if len(self._digests) + len(self._told) < self._room:
            return True
        if not self._claim.try_grow(FILES_PER_CLAIM * BYTES_PER_FILE):
            return False
        self._room += FILES_PER_CLAIM
        return True


def _key(path: bytes) -> bytes:
    return blake3(path).digest()


@define(eq=False)
class FileAudit:
    """The records about one file that arrives as a stream."""

    _trail: AuditLog
    _path: bytes
    _size: int

    @property
    def shown(self) -> str:
        """The name for people."""
        return self._trail.shown(self._path)

    def started(self, have: int) -> None:
        """It is on its way; so many bytes were there already."""
        self._trail.log.debug(
            "transfer_started",
            dir=self._trail.directory,
            path=self.shown,
            size=self._size,
            have=have,
            transfer=transfer_id(self._trail.run, self._path),
        )

    def stopped(self, done: int | None, *, kept: bool) -> None:
        """It stopped on its way."""
        self._trail.log.info(
            "transfer_stopped",
            dir=self._trail.directory,
            path=self.shown,
            size=self._size,
            done=done,
            kept=kept,
            transfer=transfer_id(self._trail.run, self._path),
        )

    def failed(self, error: RealizeError) -> None:
        """It could not be opened, or what arrived could not be written."""
        self._trail.refused(self._path, "write", error)

    def ended(self, digest: bytes, outcome: Stored | RealizeError) -> None:
        """It was committed, or not."""
        self._trail.ended(self._path, self._size, digest, outcome)
