"""`LocalWriter`: one large file on its way into a directory of this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from blake3 import blake3
from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from zope.interface import implementer

from realize.concurrency.shielded import RunInThread, disposing, shielded, steadfast
from realize.errors import (
    Conflict,
    InternalError,
    NoSpace,
    NotFound,
    ProtocolError,
    RealizeError,
    StorageError,
    VerifyFailed,
)
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.handle import Handle
from realize.fs.holes import holes_are_sure
from realize.fs.oserrors import Deed, storage_errors
from realize.fs.reading import hash_zeros, matching
from realize.fs.syscalls import drop_cache, fsync_directory, start_writeback
from realize.fs.tree import Inode, Tree, identity_of
from realize.store.deltas import Assembly, ByteRun, merged
from realize.store.hooks import CommitHooks, Sync
from realize.store.interfaces import IWriter
from realize.store.local.acceptance import Acceptance
from realize.store.local.group_commit import Committer, Outcome, Prepared, refuse_obstacle
from realize.store.local.headroom import Headroom, refuse_reserve
from realize.store.local.known_files import KnownFiles
from realize.store.local.leftovers import gained_ns
from realize.store.local.location import RootedLocation
from realize.store.local.old_version import OldVersion
from realize.store.local.partials import open_partial
from realize.store.local.promised_space import Crowded, Promise
from realize.store.local.small_files import set_attributes
from realize.store.local.versions import Clock
from realize.store.local.walker import WalkEntry
from realize.store.origin import note_origin
from realize.store.transfer_state import WriteState
from realize.units import display_name
from realize.values import (
    BLOCK_BYTES,
    MAX_OFFERED_CHUNKS,
    SLICE_BYTES,
    SPANS_AHEAD,
    Attributes,
    Chunk,
    Content,
    Hole,
    OnConflict,
    Piece,
    Seen,
    Stored,
    extent,
)

_WRITEBACK_STEP_BYTES: Final = 8 << 20
"""Bytes after which the kernel is asked to start writing them out, so that the commit has less to wait for."""

MAX_WAITING_RUNS: Final = 2 * SPANS_AHEAD * MAX_OFFERED_CHUNKS
"""Runs of a new version that may wait for content: offers without content must not fill our memory.

Our own mover is never more than about eight spans ahead of its content.
"""


class PartialFile:
    """A partial that is open and locked, and what can be done to it in a thread, one thing at a time."""

    def __init__(
        self,
        location: RootedLocation,
        path: bytes,
        size: int,
        policy: OnConflict,
        replaces: Seen | None,
        number: int,
        allocated: int | None,
        salt: bytes,
        headroom: Headroom,
        preserve: bool,  # noqa: FBT001 -- called by way of a thread
        origin: bytes | None,
        clock: Clock,
    ) -> None:
        """``origin`` identifies the sender, if it may not read here; ``allocated`` is as for `IStore.open_writer`.

        Raises `Crowded` of `promised_space`, and leaves nothing new behind, if there is no room for the file.
        """
        self.path = path
        self.size = size
        self.position = 0
        self.kept: WalkEntry | None = None
        """The partial as it was left behind."""
        self._headroom = headroom
        self._failed: RealizeError | None = None
        self._discarded = False
        self._location = location
        self._policy = policy
        self._replaces = replaces
        self._number = number
        self._salt = salt
        self._origin = origin
        self._clock = clock
        self._directory, self._name = location.split(path)
        self._hasher = blake3()
        self._flushed = 0
        self._old: OldVersion | None = None
        self._assembly: Assembly | None = None
        self._unwritten: Iterator[memoryview | Hole] = iter(())
        self._piece: memoryview | Hole | None = None
        self._within_reserve = 0
        self._allocated = None if allocated is None else min(size, allocated)
        with location.tree(private=preserve) as tree, storage_errors(path, Deed.CREATE):
            replaced = self._check_policy(tree)
            self._made = tree.made
            try:
                self._open(tree, replaced)
            except BaseException:
                tree.unmake(self._made)
                raise

    def _check_policy(self, tree: Tree) -> int:
        """Return the bytes of the file that is to be replaced, 0 if none is, or if it is kept as a backup.

        Raises `Conflict` if it may not be replaced.
        """
        if self._policy is OnConflict.RENAME:
            return 0
        try:
            existing = refuse_obstacle(tree.directory(self._directory), self._name, self.path)
        except NotFound:
            return 0
        if existing is None:
            return 0
        if self._policy is not OnConflict.REPLACE:
            raise Conflict(f"{display_name(self.path)}: exists already")
        return existing.st_size if self._location.backups is None else 0

    def _open(self, tree: Tree, replaced: int) -> None:
        fd, status, self._partial = open_partial(tree, self._directory, self._name, self.path, self._origin)
        promise: Promise | None = None
        try:
            promise = self.promise = self._promised(tree, fd, status, replaced)
            self._status = status
            self._identity: Inode = identity_of(status)
            self._directory_identity = tree.identity(self._directory)
            self._on_disk = status.st_size
            self.have = min(status.st_size, self.size)
            self.handle = Handle(fd)
        except BaseException:
            if promise is not None:
                promise.release()
            release(fd)
            raise

    def _promised(self, tree: Tree, fd: int, status: os.stat_result, replaced: int) -> Promise:
        try:
            size, self._empty = self.size, 0
            if self._allocated is not None:
                # The file has holes, and so may what there is of it.
                size, self._empty = self._allocated, max(0, status.st_size - status.st_blocks * 512)
            return self._headroom.promise(
                fd, status.st_dev, size=size, had=status.st_size - self._empty, replaced=replaced
            )
        except Crowded as crowded:
            crowded.partial = names.join((*self._directory, self._partial))
            if not status.st_size:
                os.unlink(self._partial, dir_fd=tree.directory(self._directory))
            raise

    def free(self) -> int | None:
        """Return how many bytes may be written where the partial is; None if that cannot be known."""
        with self.handle as fd, storage_errors(self.path):
            return self._headroom.free(fd)

    def match(self, digests: Sequence[bytes], length: int) -> int:
        """Compare blocks from the position on, move it behind those that are the same, and return their bytes.

        They come from the disk: what an earlier transfer has left in the page cache may not have been written.
        """
        matched = 0
        with self.handle as fd, storage_errors(self.path):
            if not self.position:
                drop_cache(fd)
            for block in matching(fd, min(length, self.have - self.position), self.position, digests):
                self._hasher.update(block)
                matched += len(block)
        self.position += matched
        self._flushed = self.position
        return matched

    def open_old(self) -> OldVersion:
        """Open the final file, whose content may be used once it is proven; to be called once."""
        with self._location.tree() as tree:
            self._old = OldVersion(
                tree, self._directory, self._name, self.path, self._clock, position=self.position, origin=self._origin
            )
        return self._old

    def plan(self, runs: Sequence[ByteRun]) -> None:
        """Append runs to the plan of the new version, and write those that need not wait for content.

        Raises `ProtocolError` if more than `MAX_WAITING_RUNS` would wait.
        """
        if self._assembly is None:
            self._assembly = Assembly()
        if len(self._assembly) + len(runs) > MAX_WAITING_RUNS:
            raise ProtocolError(f"{display_name(self.path)}: more chunks are offered than may wait")
        self._assembly.add(runs)
        self.write(())

    def write(self, pieces: Sequence[Piece]) -> None:
        """Write and hash content at the position; after a failure every later call raises the same error."""
        if self._failed is not None:
            raise self._failed
        with self._failing(), self.handle as fd, storage_errors(self.path):
            self._cut(fd)
            self._unwritten = self._in_order(_joined(pieces))
            self._write(fd)

    def _in_order(self, pieces: Sequence[Piece]) -> Iterator[memoryview | Hole]:
        """Yield what is to be written: the pieces, and between them what need not be sent."""
        for piece in pieces:
            if self._assembly is not None and self._old is not None:
                yield from self._assembly.written(piece, self._old.read)
            else:
                yield piece if isinstance(piece, Hole) else memoryview(piece)

    def go_on(self) -> None:
        """Retry what could not be written for lack of room."""
        self._failed = None
        with self._failing(), self.handle as fd, storage_errors(self.path):
            if self._piece is not None:
                self._append(fd, self._piece)
            self._write(fd)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except RealizeError as error:
            self._failed = error
            raise
        except BaseException:
            # How much was written and hashed is not known any more.
            self._failed = InternalError(f"{display_name(self.path)}: could not be written")
            raise

    def _write(self, fd: int) -> None:
        for piece in self._unwritten:
            self._piece = piece
            self._append(fd, piece)
        self._piece = None

    def _append(self, fd: int, piece: memoryview | Hole) -> None:
        if isinstance(piece, Hole):
            self._leave_out(fd, len(piece))
        else:
            self._put(fd, piece)

    def _leave_out(self, fd: int, length: int) -> None:
        """Let a hole follow: the partial ends with it for now, so nothing of it was ever written."""
        os.ftruncate(fd, self.position + length)
        self._on_disk = self.position + length
        if self._headroom.reserve and not holes_are_sure(fd):
            # FAT, for one, has no holes: it fills them with zeros.
            try:
                refuse_reserve(self.path, self._headroom.free(fd), 0)
            except NoSpace:
                self._cut(fd)
                raise
        if self._allocated is not None:
            self._empty += length
        self._tell_reached()
        hash_zeros(self._hasher, length)
        self.position += length

    def _put(self, fd: int, view: memoryview) -> None:
        self._spare_reserve(fd, len(view))
        written = 0
        try:
            while written < len(view):
                written += os.pwrite(fd, view[written:], self.position + written)
        finally:
            self._on_disk = max(self._on_disk, self.position + written)
            self._tell_reached()
        self._hasher.update(view)
        self.position += len(view)
        if self.position - self._flushed >= _WRITEBACK_STEP_BYTES:
            start_writeback(fd, self._flushed, self.position - self._flushed)
            self._flushed = self.position

    def _cut(self, fd: int) -> None:
        """Truncate the partial at the position: an earlier transfer may have left more."""
        if self._on_disk > self.position:
            os.ftruncate(fd, self.position)
            self._on_disk = self.position
            if self._empty:
                self._empty = max(0, self.position - os.fstat(fd).st_blocks * 512)
            self._tell_reached()

    def _tell_reached(self) -> None:
        self.promise.reached(self._on_disk - self._empty, self._on_disk)

    def _spare_reserve(self, fd: int, length: int) -> None:
        """Raise `NoSpace` before the reserve is used up; looks only every `_WRITEBACK_STEP_BYTES`."""
        if not self._headroom.reserve or self.position + length <= self._within_reserve:
            return
        refuse_reserve(self.path, self._headroom.free(fd), length)
        self._within_reserve = self.position + length + _WRITEBACK_STEP_BYTES

    def prepare(
        self, digest: bytes, attributes: Attributes | None, acceptance: Acceptance, watch: CommitHooks
    ) -> Prepared:
        """Verify the content, set attributes and make it durable; the partial is discarded if any of it fails."""
        if self._failed is not None:
            raise self._failed
        try:
            self._verify(digest)
            attributes = acceptance.attributes(attributes, self.path)
            with self.handle as fd, storage_errors(self.path):
                self._cut(fd)
                note_origin(fd, self._origin, digest)
                mode, given = set_attributes(fd, self._name, os.fstat(fd), attributes, self.path)
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
                number=self._number,
                backups=self._location.backups,
                salt=self._salt,
                inode=self._identity,
                fd=fd,
                mode=mode,
                keep=True,
                given=given,
            )
        except BaseException:
            self.discard()
            raise

    def _verify(self, digest: bytes) -> None:
        shown = display_name(self.path)
        if self.position != self.size:
            raise VerifyFailed(f"{shown}: only {self.position} of {self.size} bytes arrived")
        if self._hasher.digest() != digest:
            raise VerifyFailed(f"{shown}: the content that arrived differs from the content that was read")

    def close(self, dispose: Callable[[int], object]) -> None:
        """Release everything; the lock goes with the descriptor, at once.

        Descriptors of files without a name, which take long to close, are closed by ``dispose``.
        """
        if self._discarded:
            self.handle.close(dispose)
        else:
            self.handle.close()
        if self._old is not None:
            self._old.close(dispose)

    def keep(self) -> int:
        """Make what has arrived durable as a partial, and return its bytes; if that fails or it is empty, discard it.

        After a failed fsync(2) a later one may succeed although the data is lost, so the partial is discarded then.
        """
        with self.handle as fd, storage_errors(self.path):
            size = os.fstat(fd).st_size
            if not size:
                return self.discard()
            try:
                if size <= self._status.st_size:
                    # It has gained nothing, and does not grow younger by being tried again and again.
                    gained = gained_ns(self._status)
                    os.utime(fd, ns=(gained, gained))
                os.fsync(fd)
            except BaseException:
                self.discard()
                raise
            with self._location.tree() as tree:
                fsync_directory(tree.directory(self._directory))
            self.kept = WalkEntry(self.path, self._directory, self._partial, os.fstat(fd), partial=True)
            return size

    def discard(self) -> int:
        """Remove the partial, if the name still leads to our file, and the directories that were made for it.

        Returns how many bytes are left, as `keep` does: 0.
        """
        with contextlib.suppress(OSError, RealizeError), self._location.tree() as tree:
            directory_fd = tree.directory(self._directory)
            named = os.stat(self._partial, dir_fd=directory_fd, follow_symlinks=False)
            if identity_of(named) == self._identity:
                os.unlink(self._partial, dir_fd=directory_fd)
                self._discarded = True
                tree.unmake(self._made)
        return 0


def _joined(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Return the pieces, with all content between two holes as one.

    One copy costs less than to let go of the interpreter, and get it back, twice for each piece.
    """
    if len(pieces) == 1:
        return pieces
    joined: list[Piece] = []
    content: list[Content] = []
    for piece in pieces:
        if not isinstance(piece, Hole):
            content.append(piece)
            continue
        if content:
            joined.append(b"".join(content))
            content.clear()
        joined.append(piece)
    if content or not joined:
        joined.append(b"".join(content))
    return joined


@implementer(IWriter)
class LocalWriter:
    """A local file being written; steps are done in the order of the calls, even if nobody waits for them.

    The search for chunks is queued apart from writing, so that the next ones are found while the last ones are written.
    """

    deltas = True
    takes_holes = True
    near = True

    def __init__(
        self,
        partial: PartialFile,
        run_in_thread: RunInThread,
        committer: Committer,
        headroom: Headroom,
        scope: RootedLocation,
        on_closed: Callable[[LocalWriter], None],
        owner: str,
        acceptance: Acceptance,
        known: KnownFiles | None = None,
    ) -> None:
        """Partials below ``scope`` may be removed to make room; commits take turns by ``owner``; ``known`` is told."""
        self._owner = owner
        self._acceptance = acceptance
        self._known = known
        self.have = partial.have
        self._partial = partial
        self._run_in_thread = run_in_thread
        self._committer = committer
        self._headroom = headroom
        self._scope = scope
        self._on_closed = on_closed
        self._dispose = disposing(run_in_thread)
        self._freeing: list[Deferred[Any]] = []
        self._turn = DeferredLock()
        self._looking = DeferredLock()
        self._old: OldVersion | None = None
        self._order = WriteState(partial.size, partial.path)

    @shielded
    async def match(self, digests: Sequence[bytes], length: int) -> int:
        """See `IWriter`."""
        self._order.match(len(digests), length)
        total, blocks = 0, SLICE_BYTES // BLOCK_BYTES
        for first in range(0, len(digests), blocks):
            some = min(SLICE_BYTES, length - first * BLOCK_BYTES)
            matched: int = await self._in_turn(self._partial.match, digests[first : first + blocks], some)
            self._order.matched(matched)
            total += matched
            if matched < some:
                break
        return total

    @shielded
    async def offer(self, chunks: Sequence[Chunk]) -> list[bool]:
        """See `IWriter`; what is found in the final file is written at its place."""
        length = extent(chunks)
        self._order.offer(length)
        try:
            await self._looking.acquire()
            try:
                if self._old is None:
                    self._old = await self._in_turn(self._partial.open_old)
                    while await self._run_in_thread(self._old.prove):
                        pass
                places: list[int | None] = await self._run_in_thread(self._old.find, chunks)
                # In line before the next ones can be.
                planned = Deferred.fromCoroutine(self._write_in_turn(self._partial.plan, merged(chunks, places)))
            finally:
                self._looking.release()
            await planned
        except BaseException:
            self._order.dropped()
            raise
        wanted = [place is None for place in places]
        self._order.answered(length, extent(chunks, wanted))
        return wanted

    @shielded
    async def write(self, pieces: Sequence[Piece]) -> None:
        """See `IWriter`; content beyond the announced size is refused as a whole."""
        self._order.write(sum(map(len, pieces)))
        await self._write_in_turn(self._partial.write, pieces)

    @steadfast
    async def commit(self, digest: bytes, attributes: Attributes | None) -> Stored:
        """See `IWriter`."""
        await self._turn.acquire()
        try:
            if self._partial.handle.closed:
                raise self._not_open()
            try:
                prepared: Prepared = await self._run_in_thread(
                    self._partial.prepare, digest, attributes, self._acceptance, self._committer.watch
                )
                outcome: Outcome
                [outcome] = await self._committer.commit([prepared], self._owner)
            finally:
                self._close()
        finally:
            self._turn.release()
        if isinstance(outcome, RealizeError):
            raise outcome
        if self._known is not None:
            self._known.stored(outcome, digest)
        return outcome

    @shielded
    async def abandon(self, *, keep: bool) -> int | None:
        """See `IWriter`."""
        kept: int | None = None
        await self._turn.acquire()
        try:
            try:
                if not self._partial.handle.closed:
                    kept = await self._run_in_thread(self._partial.keep if keep else self._partial.discard)
            finally:
                self._close()
        finally:
            self._turn.release()
        return kept

    async def _in_turn(self, job: Callable[..., Any], *arguments: object) -> Any:
        await self._turn.acquire()
        try:
            if self._partial.handle.closed:
                raise self._not_open()
            return await self._run_in_thread(job, *arguments)
        finally:
            self._turn.release()

    async def _write_in_turn(self, job: Callable[..., Any], *arguments: object) -> None:
        """Like `_in_turn`, for jobs that write: without room, remove partials that are in the way and retry."""
        await self._turn.acquire()
        try:
            if self._partial.handle.closed:
                raise self._not_open()
            while True:
                made = self._headroom.made
                try:
                    await self._run_in_thread(job, *arguments)
                except NoSpace:
                    free: int | None = await self._run_in_thread(self._partial.free)
                    if not await self._headroom.go_on(self._scope, self._partial.promise, free, made):
                        raise
                    job, arguments = self._partial.go_on, ()
                else:
                    return
        finally:
            self._turn.release()

    def _not_open(self) -> StorageError:
        return StorageError(f"{display_name(self._partial.path)}: is not being written any more")

    def _close(self) -> None:
        kept, self._partial.kept = self._partial.kept, None
        try:
            if kept is not None:
                self._headroom.partials.note(kept)
        finally:
            try:
                self._partial.close(lambda fd: self._freeing.append(self._dispose(fd)))
                self._on_closed(self)
            finally:
                # What was replaced has its room until then, and whoever waits for that must not look too early.
                DeferredList(self._freeing).addBoth(self._give_back).addErrback(self._give_back)

    def _give_back(self, _: object) -> None:
        self._partial.promise.release()
        self._partial.promise.file_system.changed()
