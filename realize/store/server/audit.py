"""The audit log of one connection: what became of each file, as log records.

From these records alone, at level info, one can tell who put, replaced or removed which file, when, with what size and
digest; their fields are described in ``docs/logging.md``.
"""

from __future__ import annotations

from typing import Final, TypeVar

from attrs import define, field
from blake3 import blake3

from realize.concurrency.memory import Claim
from realize.errors import NotFound, RealizeError, StorageError
from realize.logger import Logger
from realize.numbered import numbered
from realize.tracing import transfer_id
from realize.units import display_name
from realize.values import (
    Committed,
    Expected,
    HardLink,
    HardLinked,
    Linked,
    Removal,
    SmallFile,
    Stored,
    Symlink,
    Version,
)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

MAX_REMEMBERED_FILES: Final = 16_384
"""Files remembered for one location: the digests of those that were read, and those that were already there."""

FILES_PER_CLAIM: Final = 64
"""Memory is claimed for this many files at a time."""

BYTES_PER_FILE: Final = 512
"""Approximate memory for each of them."""


@define(eq=False, repr=False)
class AuditLog:
    """Writes the records about the files below one location that the peer has opened.

    ``log`` is bound to the peer and the connection; ``run`` is the run of the peer, see `realize.tracing`.
    Files are remembered by the digest of their path, which may be long, as far as ``claim`` has enough memory; beyond
    that, the oldest is forgotten.
    """

    log: Logger
    run: str
    directory: str
    base: bytes
    _claim: Claim
    _digests: dict[tuple[bytes, Version], bytes] = field(factory=dict, init=False)
    _reported: dict[bytes, object] = field(factory=dict, init=False)
    """Files and symlinks reported as already there, with what tells them: asking again makes no new record."""
    _claimed_files: int = field(default=0, init=False)
    """Number of files for which memory is claimed."""

    def shown(self, path: bytes) -> str:
        """Return a name for messages, relative to the served directory."""
        return display_name(self.base + b"/" + path if self.base else path)

    def file(self, path: bytes, size: int) -> FileAudit:
        """Return the audit log of one file that arrives as a stream."""
        return FileAudit(self, path, size)

    def was_read(self, path: bytes, version: Version, digest: bytes) -> None:
        """Remember the digest of a file that the peer has read, and may remove."""
        self._remember(self._digests, (_key(path), version), digest)

    def put(self, file: SmallFile, outcome: Stored | RealizeError) -> None:
        """Record what became of a small file."""
        self.ended(file.path, len(file.content), file.digest, outcome)

    def ended(self, path: bytes, size: int, digest: bytes, outcome: Stored | RealizeError) -> None:
        """Record that a file was committed or refused; one that was skipped makes no record."""
        if isinstance(outcome, RealizeError):
            self.refused(path, "commit", outcome)
        elif outcome.how is not Committed.SKIPPED:
            self._changed(path)
            self.log.info(
                "file_committed",
                dir=self.directory,
                path=self.shown(numbered(path, outcome.number)),
                size=size,
                digest=digest.hex(),
                replaced=outcome.how is Committed.REPLACED,
                beside=self.shown(path) if outcome.number else None,
                backup=None if outcome.backup is None else display_name(outcome.backup.path),
                transfer=transfer_id(self.run, path),
            )

    def linked(self, link: Symlink, outcome: Linked | RealizeError) -> None:
        """Record that a symlink was made, or was there already, or was refused; a skipped one makes no record."""
        if isinstance(outcome, RealizeError):
            self.refused(link.path, "commit", outcome)
        elif outcome is Linked.SKIPPED:
            return
        elif self._is_news(link.path, _key(link.target), there=outcome is Linked.ALREADY_THERE):
            self.log.info(
                "link_committed",
                dir=self.directory,
                path=self.shown(link.path),
                target=display_name(link.target),
                how=outcome.name.lower(),
                transfer=transfer_id(self.run, link.path),
            )

    def hard_linked(self, link: HardLink, outcome: HardLinked | RealizeError) -> None:
        """Record that a file has another name now, or that this was refused; else its content is yet to come."""
        if isinstance(outcome, RealizeError):
            self.refused(link.path, "commit", outcome)
        elif outcome is HardLinked.NOT_LINKED:
            return
        elif self._is_news(link.path, link.digest, there=outcome is HardLinked.ALREADY_THERE):
            self.log.info(
                "file_linked",
                dir=self.directory,
                path=self.shown(link.path),
                to=self.shown(link.to),
                digest=link.digest.hex(),
                how=outcome.name.lower(),
                transfer=transfer_id(self.run, link.path),
            )

    def link_was_read(self, link: Symlink) -> None:
        """Record that the peer was told the target of a symlink, which it may remove."""
        self.log.info(
            "link_read",
            dir=self.directory,
            path=self.shown(link.path),
            target=display_name(link.target),
            transfer=transfer_id(self.run, link.path),
        )

    def settled(self, expected: Expected, answer: bool | RealizeError) -> int:  # noqa: FBT001 -- the store's answer
        """Record the answer whether a file is already there; return its size in bytes if that is news, else 0."""
        if answer is True:
            return self.already_there(expected.path, expected.size, expected.digest)
        if isinstance(answer, StorageError):
            self.refused(expected.path, "commit", answer)
        return 0

    def already_there(self, path: bytes, size: int, digest: bytes | None) -> int:
        """Record that a file with the same content is durable without being sent, so its source may be removed now.

        Returns its size in bytes, or 0 if this was recorded before.
        """
        if not self._is_news(path, size if digest is None else digest, there=True):
            return 0
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
        """Record that a file of that version was removed at the request of the peer, or why it was not."""
        digest = self._digests.pop((_key(removal.path), removal.version), None)
        if isinstance(error, NotFound):
            return  # gone before, or never there
        if error is not None:
            self.refused(removal.path, "remove", error)
            return
        self._changed(removal.path)
        self.log.info(
            "file_removed",
            dir=self.directory,
            path=self.shown(removal.path),
            size=removal.version.size,
            digest=None if digest is None else digest.hex(),
            transfer=transfer_id(self.run, removal.path),
        )

    def pruned(self, path: bytes) -> None:
        """Record that an empty directory was removed at the request of the peer."""
        self.log.info("directory_removed", dir=self.directory, path=self.shown(path))

    def refused(self, path: bytes, doing: str, error: RealizeError) -> None:
        """Record that an operation on a file failed: as an error if the disk is at fault, else as a warning."""
        log = self.log.bind(dir=self.directory, path=self.shown(path), transfer=transfer_id(self.run, path))
        if isinstance(error, StorageError):
            log.error("storage_failed", doing=doing, code=error.wire_code.decode(), error=str(error))
        else:
            log.warning("file_refused", doing=doing, code=error.wire_code.decode(), error=str(error))

    def _is_news(self, path: bytes, what: object, *, there: bool) -> bool:
        """Return whether this is to be recorded: if it was there already, only once."""
        if not there:
            self._changed(path)
            return True
        key = _key(path)
        if self._reported.get(key) == what:
            return False
        self._remember(self._reported, key, what)
        return True

    def _changed(self, path: bytes) -> None:
        """Note that the name has something else now, or nothing."""
        if self._reported:
            self._reported.pop(_key(path), None)

    def _remember(self, known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
        if key not in known and (len(known) >= MAX_REMEMBERED_FILES or not self._may_remember()):
            if not known:
                return
            del known[next(iter(known))]
        known[key] = value

    def _may_remember(self) -> bool:
        """Return whether one more file may be remembered, claiming memory for it if necessary."""
        if len(self._digests) + len(self._reported) < self._claimed_files:
            return True
        if not self._claim.try_grow(FILES_PER_CLAIM * BYTES_PER_FILE):
            return False
        self._claimed_files += FILES_PER_CLAIM
        return True


def _key(path: bytes) -> bytes:
    return blake3(path).digest()


@define(eq=False, repr=False)
class FileAudit:
    """Writes the records about one file that arrives as a stream."""

    _audit: AuditLog
    _path: bytes
    _size: int

    @property
    def shown(self) -> str:
        """The file's name for messages."""
        return self._audit.shown(self._path)

    def started(self, have: int) -> None:
        """Record that its transfer has started, with ``have`` bytes there already."""
        self._audit.log.debug(
            "transfer_started",
            dir=self._audit.directory,
            path=self.shown,
            size=self._size,
            have=have,
            transfer=transfer_id(self._audit.run, self._path),
        )

    def stopped(self, done: int | None, *, kept: bool) -> None:
        """Record that its transfer was stopped, with ``done`` bytes there, None if unknown."""
        self._audit.log.info(
            "transfer_stopped",
            dir=self._audit.directory,
            path=self.shown,
            size=self._size,
            done=done,
            kept=kept,
            transfer=transfer_id(self._audit.run, self._path),
        )

    def failed(self, error: RealizeError) -> None:
        """Record that it could not be opened or written."""
        self._audit.refused(self._path, "write", error)

    def ended(self, digest: bytes, outcome: Stored | RealizeError) -> None:
        """Record that it was committed, or why not."""
        self._audit.ended(self._path, self._size, digest, outcome)
