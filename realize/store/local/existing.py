"""Files that a destination holds already: describe them, compare them, and make them durable; for a thread.

What is compared comes from the disk, not from the page cache.
Where content could not be written, the kernel says so to one fsync, perhaps to that of another program or of an earlier
run; after that it keeps the content in the cache as if it were written, and lets every fsync succeed (fsync(2)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, evolve, field, frozen
from blake3 import blake3

from realize.by_value import ByValue
from realize.errors import Busy, NotFound, NotRegular, RealizeError
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.identities import identity_token
from realize.fs.oserrors import Deed, storage_error, storage_errors
from realize.fs.reading import block_digest, blocks, digest_of, matching
from realize.fs.syscalls import (
    FileStatus,
    drop_cache,
    fresh_fstat,
    fresh_stat,
    fsync_directory,
    is_open_for_writing,
    kind_of,
)
from realize.fs.tree import Tree, identity_of
from realize.store.local.group_commit import sync_directories
from realize.store.local.known_files import KnownFiles
from realize.store.local.location import RootedLocation
from realize.store.local.partial_marks import MARK, NOTE, forget_given, is_ours
from realize.store.local.versions import Clock, has_more, open_settled, representable, settled_in, version_of
from realize.store.origin import digest_from
from realize.units import display_name
from realize.values import BLOCK_BYTES, NOTHING, Attributes, Existing, Expected, Preserve, Version, coarseness_ns

_MAX_COMPARISONS: Final = 32
"""Large files that one store compares at a time: as many as a run has in flight at most."""

_NOT_OURS: Final = frozenset({errno.EPERM, errno.EACCES, errno.EROFS, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of calls that change a file which we may not change, or which cannot be changed there."""


def describe_batch(
    location: RootedLocation,
    paths: Sequence[bytes],
    salt: bytes,
    earliest_ns: Callable[[], int],
    origin: bytes | None,
) -> list[Existing | RealizeError]:
    """Return what is there under each of these names.

    A final file is ``recent`` if its change time may be ``earliest_ns()`` or later, which is called after all of them
    were looked at.
    An ``origin`` that may not read is told of its own partials only.
    """
    answers: list[Existing | RealizeError] = []
    missing: set[tuple[bytes, ...]] = set()
    with location.tree() as tree:
        for path in paths:
            try:
                answers.append(_describe(location, tree, path, salt, missing, origin))
            except NotFound:
                answers.append(NOTHING)
            except RealizeError as error:
                answers.append(error)
            except (OSError, MemoryError) as error:
                answers.append(storage_error(error, path))
    since_ns = earliest_ns()
    return [_judged(answer, since_ns) for answer in answers]


def _judged(answer: Existing | RealizeError, since_ns: int) -> Existing | RealizeError:
    """Return ``answer``, marked as recent if the file may have been stamped at ``since_ns`` or later."""
    if isinstance(answer, RealizeError) or answer.final_size is None:
        return answer
    recent = answer.ctime_ns + coarseness_ns(answer.ctime_ns) >= since_ns
    return evolve(answer, recent=True) if recent else answer


def _describe(
    location: RootedLocation,
    tree: Tree,
    path: bytes,
    salt: bytes,
    missing: set[tuple[bytes, ...]],
    origin: bytes | None,
) -> Existing:
    """Return what is there; ``missing`` collects missing directories, so that each is looked up only once."""
    directory, name = location.split(path)
    if directory in missing:
        return NOTHING
    try:
        fd = tree.directory(directory)
    except NotFound:
        missing.add(directory)
        raise
    partial_size = None if location.only is not None else _partial_size(fd, name, origin)
    final = _fresh_status(fd, name)
    if final is None:
        return NOTHING if partial_size is None else Existing(partial_size=partial_size)
    if not stat.S_ISREG(final.st_mode):
        return Existing(partial_size=partial_size, obstacle=kind_of(final.st_mode))
    if is_ours(fd, name, final):
        return Existing(partial_size=partial_size, obstacle=NOTE)
    return Existing(
        final_size=final.st_size,
        mtime_ns=representable(final.st_mtime_ns),
        ctime_ns=representable(final.st_ctime_ns),
        identity=identity_token(salt, identity_of(final)),
        partial_size=partial_size,
    )


def _partial_size(fd: int, name: bytes, origin: bytes | None) -> int | None:
    """Return the size of our partial, None if there is none; skips names that other files have."""
    for partial in names.partial_names(name, origin):
        status = _status(fd, partial)
        if status is None:
            return None
        if is_ours(fd, partial, status):
            return status.st_size
    return None


def _fresh_status(fd: int, name: bytes) -> FileStatus | None:
    """Return the current status, bypassing attribute caches: a decision to replace the file may depend on it.

    A name that is missing is looked up only once.
    """
    if _status(fd, name) is None:
        return None
    try:
        return fresh_stat(name, fd)
    except FileNotFoundError:
        return None


def _status(fd: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def settle_batch(
    location: RootedLocation, expected: Sequence[Expected], vouching: Vouching, origin: bytes | None
) -> list[bool | RealizeError]:
    """Return which of the final files have exactly the expected content.

    These are durable then, and look as if they had just arrived.
    For an ``origin`` that may not read, only files whose content came from there are compared.
    """
    answers: list[bool | RealizeError] = []
    directories: list[tuple[bytes, ...] | None] = []
    with location.tree() as tree:
        for each in expected:
            directory = None
            try:
                directory = _settle(location, tree, each, vouching, origin)
                answers.append(directory is not None)
            except (NotFound, NotRegular):
                answers.append(False)
            except RealizeError as error:
                answers.append(error)
            except (OSError, MemoryError) as error:
                answers.append(storage_error(error, each.path))
            directories.append(directory)
        failed = sync_directories(tree, {directory for directory in directories if directory is not None})
    return [
        failed.get(directory, answer) if directory is not None else answer
        for directory, answer in zip(directories, answers, strict=True)
    ]


def _settle(
    location: RootedLocation, tree: Tree, expected: Expected, vouching: Vouching, origin: bytes | None
) -> tuple[bytes, ...] | None:
    """Return the directory of the file if it has the expected content, else None."""
    directory, name = location.split(expected.path)
    with storage_errors(expected.path, Deed.READ):
        fd, status = open_settled(tree, directory, name, expected.path, vouching.clock)
    try:
        if origin is not None and digest_from(fd, origin) != expected.digest:
            return None
        written = is_open_for_writing(fd)
        if status.st_size != expected.size:
            return None
        drop_cache(fd)
        if digest_of(fd, expected.size) != expected.digest or has_more(fd, expected.size):
            return None
        _refuse_written(expected.path, written=written)
        settled = vouching.vouch(fd, tree, directory, name, version_of(status), expected.attributes)
        if settled is None:
            return None
        # A write just before the mtime was set would not show in it, so compare again.
        timed = expected.attributes is not None and expected.attributes.mtime_ns != status.st_mtime_ns
        if timed and digest_of(fd, expected.size) != expected.digest:
            return None
        _refuse_written(expected.path, written=is_open_for_writing(fd))
        vouching.known.compared(settled, expected.digest)
        return directory
    finally:
        release(fd)


def _refuse_written(path: bytes, *, written: bool) -> None:
    """Raise `Busy` if a program has, or had, a file open for writing whose content is right at the moment.

    What that program stores need not show in the status of the file, so the content may be different by now.
    """
    if written:
        raise Busy(f"{display_name(path)}: has the same content, but is open for writing by another program")


@frozen(eq=False, repr=False)
class Vouching(ByValue):
    """Confirms that a file is there, so that its source may be removed.

    A replacement or removal that any process decided on before the change time was renewed has happened by the time of
    our last look, and shows in it.
    """

    clock: Clock
    known: KnownFiles = field(factory=KnownFiles)
    """Is to be told of what was compared, as it is then."""

    def vouch(
        self,
        fd: int,
        tree: Tree,
        directory: tuple[bytes, ...],
        name: bytes,
        version: Version,
        attributes: Attributes | None,
    ) -> Version | None:
        """Make a file durable that somebody else may have written, and return what it is now, if still that version.

        It gets ``attributes``, if given: a file that fewer may read at the source may be read by as few here.

        From now on a source may be removed because this file is here, so it must look as if it had just arrived: then
        a file from another source of the run will not replace it, and a process that read it earlier, to move it away,
        will not remove it.
        Therefore its change time is renewed, and differs from the one before: whoever sent the file may replace the
        version that it stored, and no other.
        Returns None for a file on which we may not do that.
        """
        mtime_ns = version.mtime_ns
        before = fresh_fstat(fd)
        if version_of(before) != version:
            return None
        try:
            if before.st_mode & MARK:
                _end_commit(fd, tree.directory(directory), name, before)
            # Clears the mark of a partial, which a power cut may have left.
            mode = stat.S_IMODE(before.st_mode) & ~MARK if attributes is None else attributes.mode & 0o777
            timed = attributes is not None and attributes.mtime_ns != mtime_ns
            if attributes is not None and attributes.extras is not None:
                # Without these, nothing of it is loaded.
                from realize.store.local.extras import give_to_final

                most = give_to_final(fd, attributes.extras, names.join((*directory, name)))
                # Without set-uid and set-gid bits: they would be those of another owner.
                mode = (before.st_mode if attributes.leaves(Preserve.MODE) else mode) & most
                timed = timed and not attributes.leaves(Preserve.TIMES)
            _renew(fd, before, mode, self.clock)
            if attributes is not None and timed:
                if not _is_still(version, version_of(fresh_fstat(fd))):
                    return None
                os.utime(fd, ns=(attributes.mtime_ns, attributes.mtime_ns))
                mtime_ns = version_of(fresh_fstat(fd)).mtime_ns  # which may be coarser
        except OSError as error:
            if error.errno in _NOT_OURS:
                return None
            raise
        os.fsync(fd)
        directory_fd = tree.directory(directory)
        with tree.lock(directory, fd, names.join((*directory, name))):
            try:
                named = fresh_stat(name, directory_fd)
            except FileNotFoundError:
                return None
            after = version_of(fresh_fstat(fd))
        return after if version_of(named) == after and _is_still(evolve(version, mtime_ns=mtime_ns), after) else None


def _end_commit(fd: int, directory_fd: int, name: bytes, final: FileStatus) -> None:
    """Finish a commit that was interrupted after the file got its final name, but before its mark was cleared.

    The note that it was given more than content goes as well; our caller clears the mark.
    Where renaming takes a link(2), the file may still have the partial's name as well.
    Both names are made durable before the mark is cleared: otherwise another power cut could leave a partial that does
    not look like one.
    """
    if final.st_nlink > 1:
        for other in os.listdir(directory_fd):
            partial = os.fsencode(other)
            # A numbered name tells little of the partial's.
            if names.is_partial(partial) and partial != name:
                with contextlib.suppress(FileNotFoundError):
                    if identity_of(os.stat(partial, dir_fd=directory_fd, follow_symlinks=False)) == identity_of(final):
                        os.unlink(partial, dir_fd=directory_fd)
    fsync_directory(directory_fd)
    forget_given(fd)


def _renew(fd: int, before: FileStatus, mode: int, clock: Clock) -> None:
    """Set the mode of a file, and make sure that this changes its change time.

    A file that was stamped in the current tick of the kernel's clock would get the same stamp again, so we wait.
    A file system that keeps no change times always shows an older one, for which there is no wait.
    """
    os.fchmod(fd, mode)
    if fresh_fstat(fd).st_ctime_ns != before.st_ctime_ns:
        return
    # The clock of a server may be ahead of ours.
    wait = settled_in(before.st_ctime_ns, max(clock.now_ns(), before.st_ctime_ns))
    if wait > 0:
        clock.sleep(wait)
        os.fchmod(fd, mode)


def _is_still(version: Version, after: Version) -> bool:
    """Return whether nothing but the change time differs."""
    return after == evolve(version, ctime_ns=after.ctime_ns)


@define(eq=False, repr=False)
class _Verdict:
    """Compares a file for an origin that may not read: nothing is revealed before the end.

    What is revealed then is whether the content is what that origin has now and also what it ``sent`` here earlier.
    Both are computed from the same bytes, so it does not matter if somebody changes the file meanwhile.
    """

    _sent: bytes
    _content: blake3 = field(factory=blake3)
    _same: bool = True

    def compare(self, fd: int, length: int, offset: int, digests: Sequence[bytes]) -> int:
        """Compare ``length`` bytes from ``offset`` on; claims that all of them match, whatever the truth."""
        for piece, digest in zip(blocks(fd, length, offset), digests, strict=False):
            self._content.update(piece)
            self._same &= block_digest(piece) == digest
        return length

    def holds(self) -> bool:
        """Return the result, at the end of the file."""
        return self._same and self._content.digest() == self._sent


@frozen(eq=False, repr=False)
class _Comparison(ByValue):
    """This version of a file matches up to ``offset``.

    ``written`` says that a program had it open for writing.
    """

    version: Version
    offset: int
    written: bool
    verdict: _Verdict | None


class FinalMatches:
    """Compares large final files piece by piece, over several calls.

    Between two calls a file could be replaced by one that matches at the end, but not at the beginning.
    So each call must find the version that the first one saw, and begin where the last one ended; else nothing matches.
    An ``origin`` that may not read gets its answer from the last call only, and only about what it has sent itself.
    """

    def __init__(self, vouching: Vouching, origin: bytes | None) -> None:
        self._vouching = vouching
        self._origin = origin
        self._progress: dict[bytes, _Comparison] = {}
        """By digest of the path, since paths may be long."""

    def match(
        self,
        location: RootedLocation,
        path: bytes,
        size: int,
        offset: int,
        digests: Sequence[bytes],
        attributes: Attributes | None,
    ) -> int | None:
        """Return how many bytes from ``offset`` on match; None if the file is not the one it should be.

        If they reach the end, the file is durable.
        """
        key = blake3(path).digest()
        before = self._progress.pop(key, None)
        directory, name = location.split(path)
        with location.tree() as tree:
            try:
                fd, status = open_settled(tree, directory, name, path, self._vouching.clock)
            except OSError as error:
                raise storage_error(error, path, Deed.READ) from error
            try:
                version = version_of(status)
                written = is_open_for_writing(fd)
                if status.st_size != size:
                    return None
                if offset:
                    if before is None or (before.version, before.offset) != (version, offset):
                        return None
                    written = written or before.written
                verdict = before.verdict if before is not None and offset else None
                if self._origin is not None and verdict is None:
                    sent = digest_from(fd, self._origin)
                    if sent is None:
                        return None
                    verdict = _Verdict(sent)
                if not offset:
                    # Not of a file that this origin could not compare: others read it, too.
                    drop_cache(fd)
                length = max(0, min(len(digests) * BLOCK_BYTES, size - offset))
                if verdict is None:
                    matched = sum(len(piece) for piece in matching(fd, length, offset, digests))
                else:
                    matched = verdict.compare(fd, length, offset, digests)
                if offset + matched == size:
                    if (verdict is not None and not verdict.holds()) or has_more(fd, size):
                        return None
                    _refuse_written(path, written=written)
                    vouched = self._vouching.vouch(fd, tree, directory, name, version, attributes)
                    if vouched is None:
                        return None
                    _refuse_written(path, written=is_open_for_writing(fd))
                    for failure in sync_directories(tree, [directory]).values():
                        raise failure
                    self._vouching.known.compared(vouched, None)
                elif version_of(os.fstat(fd)) != version:
                    return None
                elif matched == length:
                    self._remember(key, _Comparison(version, offset + matched, written, verdict))
            except (OSError, MemoryError) as error:
                raise storage_error(error, path) from error
            finally:
                release(fd)
        return matched

    def _remember(self, key: bytes, progress: _Comparison) -> None:
        while len(self._progress) >= _MAX_COMPARISONS:
            del self._progress[next(iter(self._progress))]
        self._progress[key] = progress
