"""`LocalWriter`: one large file on its way into a directory of this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from blake3 import blake3
from twisted.internet.defer import Deferred, DeferredLock
from zope.interface import implementer

from realize.errors import Conflict, InternalError, NotFound, ProtocolError, RealizeError, StorageError, VerifyFailed
from realize.store.commit import Committer, Outcome, Prepared, refuse_obstacle
from realize.store.content import matching
from realize.store.deltas import Assembly, Run, merged
from realize.store.described import Replaceable
from realize.store.descriptors import release
from realize.store.handle import Handle
from realize.store.interfaces import IWriter
from realize.store.location import Location
from realize.store.old_version import OldVersion
from realize.store.oserrors import storage_errors
from realize.store.partials import open_partial
from realize.store.small import set_attributes
from realize.store.syscalls import fsync_directory, start_writeback
from realize.store.threads import RunInThread, disposing, shielded
from realize.store.tree import Identity, Tree, identity_of
from realize.store.watching import CommitWatch, Sync
from realize.units import display_name
from realize.values import (
    BLOCK,
    MOST_CHUNKS,
    SPAN,
    SPANS_AHEAD,
    Attributes,
    Chunk,
    Content,
    OnConflict,
    Stored,
    extent,
)

_FLUSH: Final = 8 << 20
"""The kernel is asked to begin to write after so many bytes, so that the commit has less to wait for."""

MOST_WAITING: Final = 2 * SPANS_AHEAD * MOST_CHUNKS
"""Runs of a new version that wait for content; who offers more, and sends nothing, would fill our memory.

Our own mover is never more than some eight spans ahead of its content.
"""


class PartialFile:
    """A partial that is open and locked, and what can be done to it in a thread, one thing at a time."""

    def __init__(
        self, location: Location, path: bytes, size: int, policy: OnConflict, replaces: Replaceable, salt: bytes
    ) -> None:
        self.path = path
        self.size = size
        self.position = 0
        self._failed: RealizeError | None = None
        self._discarded = False
        self._location = location
        self._policy = policy
        self._replaces = replaces
        self._salt = salt
        self._directory, self._name = location.split(path)
        self._hasher = blake3()
        self._flushed = 0
        self._old: OldVersion | None = None
        self._assembly: Assembly | None = None
        with location.tree() as tree, storage_errors(path):
            self._check_policy(tree)
            self._open(tree)

    def _check_policy(self, tree: Tree) -> None:
        try:
            exists = refuse_obstacle(tree.directory(self._directory), self._name, self.path)
        except NotFound:
            return
        if exists and self._policy is not OnConflict.REPLACE:
            raise Conflict(f"{display_name(self.path)}: exists already")

    def _open(self, tree: Tree) -> None:
        fd, status, self._partial = open_partial(tree, self._directory, self._name, self.path)
        try:
            self._status = status
            self._identity: Identity = identity_of(status)
            self._directory_identity = tree.identity(self._directory)
            self._on_disk = status.st_size
            self.have = min(status.st_size, self.size)
            self.handle = Handle(fd)
        except BaseException:
            release(fd)
            raise

    def match(self, digests: Sequence[bytes], length: int) -> int:
        """Compare blocks at the position, and go on behind those that are the same."""
        matched = 0
        with self.handle as fd, storage_errors(self.path):
            for block in matching(fd, min(length, self.have - self.position), self.position, digests):
                self._hasher.update(block)
                matched += len(block)
        self.position += matched
        self._flushed = self.position
        return matched

    def open_old(self, private: bool) -> OldVersion:  # noqa: FBT001 -- called by way of a thread
        """The final file that is there, to take content from; to be called once."""
        with self._location.tree() as tree:
            self._old = OldVersion(
                tree, self._directory, self._name, self.path, position=self.position, private=private
            )
        return self._old

    def plan(self, runs: Sequence[Run]) -> None:
        """What comes next, behind what was planned before; what need not wait for content is written."""
        if self._assembly is None:
            self._assembly = Assembly()
        if len(self._assembly) + len(runs) > MOST_WAITING:
            raise ProtocolError(f"{display_name(self.path)}: too much is offered before what is wanted is sent")
        self._assembly.add(runs)
        self.write(())

    def write(self, pieces: Sequence[Content]) -> None:
        """Write and hash at the position; once that has failed, it fails for good."""
        if self._failed is not None:
            raise self._failed
        try:
            with self.handle as fd, storage_errors(self.path):
                self._write(fd, pieces)
        except RealizeError as error:
            self._failed = error
            raise
        except BaseException:
            # How much was written and hashed is not known any more.
            self._failed = InternalError(f"{display_name(self.path)}: could not be written")
            raise

    def _write(self, fd: int, pieces: Sequence[Content]) -> None:
        self._cut(fd)
        # One copy costs less than to let go of the interpreter, and get it back, twice for each piece.
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._assembly is None or self._old is None:
            self._append(fd, memoryview(content))
            return
        for piece in self._assembly.written(content, self._old.read):
            self._append(fd, piece)

    def _append(self, fd: int, view: memoryview) -> None:
        written = 0
        while written < len(view):
            written += os.pwrite(fd, view[written:], self.position + written)
        self._hasher.update(view)
        self.position += len(view)
        self._on_disk = max(self._on_disk, self.position)
        if self.position - self._flushed >= _FLUSH:
            start_writeback(fd, self._flushed, self.position - self._flushed)
            self._flushed = self.position

    def _cut(self, fd: int) -> None:
        """Drop what an earlier transfer left behind the position."""
        if self._on_disk > self.position:
            os.ftruncate(fd, self.position)
            self._on_disk = self.position

    def prepare(self, digest: bytes, attributes: Attributes | None, watch: CommitWatch) -> Prepared:
        """Verify, and make the content durable; the partial is discarded if either fails."""
        if self._failed is not None:
            raise self._failed
        try:
            self._verify(digest)
            with self.handle as fd, storage_errors(self.path):
                self._cut(fd)
                mode = set_attributes(fd, self._status, attributes)
                with watch.syncing(Sync.FILE):
                    os.fsync(fd)
            return Prepared(
                root=self._location.root,
                path=self.path,
                directory=self._directory,
                identity=self._directory_identity,
                partial=self._partial,
                name=self._name,
                policy=self._policy,
                replaces=self._replaces,
                salt=self._salt,
                inode=self._identity,
                fd=fd,
                mode=mode,
                keep=True,
            )
        except BaseException:
            self.discard()
            raise

    def _verify(self, digest: bytes) -> None:
        shown = display_name(self.path)
        if self.position != self.size:
            raise VerifyFailed(f"{shown}: {self.position} of {self.size} bytes arrived")
        if self._hasher.digest() != digest:
            raise VerifyFailed(f"{shown}: what arrived has another digest than what was read")

    def close(self, dispose: Callable[[int], object]) -> None:
        """Let go of everything; the lock goes with the descriptor, at once.

        What was replaced or discarded, and is nobody's any more, goes by ``dispose``.
        """
        if self._discarded:
            self.handle.close(dispose)
        else:
            self.handle.close()
        if self._old is not None:
            self._old.close(dispose)

    def keep(self) -> None:
        """Make what has arrived durable as a partial; if that is nothing, or fails, leave nothing behind.

        After a failed fsync a later one may succeed without the data being there: nobody may build upon this partial.
        """
        with self.handle as fd, storage_errors(self.path):
            if not os.fstat(fd).st_size:
                self.discard()
                return
            try:
                os.fsync(fd)
            except BaseException:
                self.discard()
                raise
            with self._location.tree() as tree:
                fsync_directory(tree.directory(self._directory))

    def discard(self) -> None:
        """Remove the partial, if the name is still that of our file."""
        with contextlib.suppress(OSError, RealizeError), self._location.tree() as tree:
            directory_fd = tree.directory(self._directory)
            named = os.stat(self._partial, dir_fd=directory_fd, follow_symlinks=False)
            if identity_of(named) == self._identity:
                os.unlink(self._partial, dir_fd=directory_fd)
                self._discarded = True


@implementer(IWriter)
class LocalWriter:
    """A local file being written; what is asked of it is done in order, also if nobody waits.

    To look for chunks has an order of its own, so that the next ones are looked for while the last ones are written.
    """

    deltas = True

    def __init__(
        self,
        partial: PartialFile,
        run_in_thread: RunInThread,
        committer: Committer,
        on_closed: Callable[[LocalWriter], None],
    ) -> None:
        self.have = partial.have
        self._partial = partial
        self._run_in_thread = run_in_thread
        self._committer = committer
        self._on_closed = on_closed
        self._dispose = disposing(run_in_thread)
        self._turn = DeferredLock()
        self._looking = DeferredLock()
        self._old: OldVersion | None = None
        self._position = 0
        self._writing = False
        self._offers = 0
        self._wanted = 0
        self._appending = False

    @shielded
    async def match(self, digests: Sequence[bytes], length: int) -> int:
        """Compare the next bytes of the partial with the source."""
        if self._writing:
            raise ProtocolError(f"{self._shown}: blocks are compared before the first byte is written")
        if len(digests) != -(-length // BLOCK):
            raise ProtocolError(f"{self._shown}: {len(digests)} digests do not fit {length} bytes")
        matched: int = await self._in_turn(self._partial.match, digests, length)
        self._position += matched
        return matched

    @shielded
    async def offer(self, chunks: Sequence[Chunk], *, private: bool = False) -> list[bool]:
        """Look for chunks in the final file, and write what is found of them at its place."""
        length = extent(chunks)
        if self._appending or self._offers >= SPANS_AHEAD or length > SPAN:
            raise ProtocolError(f"{self._shown}: chunks that may not be offered now")
        if self._position + length > self._partial.size:
            raise ProtocolError(f"{self._shown}: more than the announced {self._partial.size} bytes are offered")
        self._writing = True
        self._position += length
        self._offers += 1
        try:
            await self._looking.acquire()
            try:
                if self._old is None:
                    self._old = await self._in_turn(self._partial.open_old, private)
                places: list[int | None] = await self._run_in_thread(self._old.find, chunks)
                # In line before the next ones can be.
                planned = Deferred.fromCoroutine(self._in_turn(self._partial.plan, merged(chunks, places)))
            finally:
                self._looking.release()
            await planned
        finally:
            self._offers -= 1
        wanted = [place is None for place in places]
        self._wanted += extent(chunks, wanted)
        return wanted

    @shielded
    async def write(self, pieces: Sequence[Content]) -> None:
        """Go on; more than was announced is refused as a whole."""
        length = sum(map(len, pieces))
        self._writing = True
        appended = max(0, length - self._wanted)
        if appended and self._offers:
            raise ProtocolError(f"{self._shown}: more arrives than was wanted so far")
        if self._position + appended > self._partial.size:
            raise ProtocolError(f"{self._shown}: more than the announced {self._partial.size} bytes arrive")
        self._wanted -= length - appended
        self._position += appended
        self._appending = self._appending or appended > 0
        await self._in_turn(self._partial.write, pieces)

    @shielded
    async def commit(self, digest: bytes, attributes: Attributes | None) -> Stored:
        """Verify, make durable, give the final name, and close."""
        await self._turn.acquire()
        try:
            self._check_open()
            try:
                prepared: Prepared = await self._run_in_thread(
                    self._partial.prepare, digest, attributes, self._committer.watch
                )
                outcome: Outcome
                [outcome] = await self._committer.commit([prepared])
            finally:
                self._close()
        finally:
            self._turn.release()
        if isinstance(outcome, RealizeError):
            raise outcome
        return outcome

    @shielded
    async def abandon(self, *, keep: bool) -> None:
        """Close without committing."""
        await self._turn.acquire()
        try:
            try:
                if not self._partial.handle.closed:
                    await self._run_in_thread(self._partial.keep if keep else self._partial.discard)
            finally:
                self._close()
        finally:
            self._turn.release()

    async def _in_turn(self, job: Callable[..., Any], *arguments: object) -> Any:
        await self._turn.acquire()
        try:
            self._check_open()
            return await self._run_in_thread(job, *arguments)
        finally:
            self._turn.release()

    def _check_open(self) -> None:
        if self._partial.handle.closed:
            raise StorageError(f"{self._shown}: is not being written any more")

    def _close(self) -> None:
        self._partial.close(self._dispose)
        self._on_closed(self)

    @property
    def _shown(self) -> str:
        return display_name(self._partial.path)
