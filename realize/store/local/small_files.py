"""Reading and writing batches of small files; for a thread."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from typing import Final

from attrs import define
from blake3 import blake3

from realize.errors import InternalError, NoSpace, ProtocolError, RealizeError, SourceChanged, VerifyFailed
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.durable import write_all
from realize.fs.oserrors import Deed, storage_error
from realize.fs.reading import read_exactly
from realize.fs.syscalls import fresh_fstat, read_umask, syncs_as_a_whole
from realize.fs.tree import Tree, identity_of
from realize.store.hooks import CommitHooks, Sync
from realize.store.local.commit import Anchor, Prepared
from realize.store.local.headroom import Headroom
from realize.store.local.location import Location
from realize.store.local.partial_names import MARK
from realize.store.local.partials import open_partial
from realize.store.local.versions import (
    Clock,
    attributes_of,
    open_settled,
    refuse_written,
    unchanged,
    version_of,
    wrong_size,
)
from realize.store.origin import note_origin
from realize.units import display_name
from realize.values import MAX_SMALL_BYTES, Attributes, Fetched, OnConflict, SmallFile

FSYNC_MAX_FILES: Final = 8
"""Up to so many files of a batch get an fsync each; more are worth a syncfs(2)."""

_UNWRITTEN: Final = InternalError("was not written")

_PLAIN_MODE: Final = 0o666 & ~read_umask()
_IMMUTABLE: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP})


@define(eq=False)
class Batch:
    """What became of each file of a batch so far: ready to be committed, or an error.

    Whoever has it calls `release` in the end, whatever happens: it holds locks until it is committed.
    """

    items: list[Prepared | RealizeError]
    anchor: Anchor | None = None

    def prepared(self) -> list[Prepared]:
        """The files to be committed."""
        return [each for each in self.items if isinstance(each, Prepared)]

    def release(self) -> None:
        """Let go of what no commit has let go of."""
        for each in self.items:
            if isinstance(each, Prepared):
                each.release()
        if self.anchor is not None:
            self.anchor.close()


def read_batch(
    location: Location,
    paths: Sequence[bytes],
    clock: Clock,
    removing: bool,  # noqa: FBT001 -- what runs in a thread is called like this
) -> list[Fetched | RealizeError]:
    """Whole small files; what is not small, or no longer fits, is `SourceChanged`.

    So is what a program has open for writing, if it is to be removed afterwards.
    """
    answers: list[Fetched | RealizeError] = []
    room = MAX_SMALL_BYTES
    with location.tree() as tree:
        for path in paths:
            try:
                fetched = _read(location, tree, path, room, clock, removing=removing)
            except RealizeError as error:
                answers.append(error)
            except (OSError, MemoryError) as error:
                answers.append(storage_error(error, path, Deed.READ))
            else:
                room -= len(fetched.file.content)
                answers.append(fetched)
    return answers


def _read(location: Location, tree: Tree, path: bytes, room: int, clock: Clock, *, removing: bool) -> Fetched:
    directory, name = location.split(path)
    fd, status = open_settled(tree, directory, name, path, clock)
    try:
        size = status.st_size
        if size > room:
            raise SourceChanged(f"{display_name(path)}: does not fit, it has {size} bytes")
        if removing:
            refuse_written(fd, path)
        content = read_exactly(fd, size + 1, 0)
        if not unchanged(status, fresh_fstat(fd)):
            raise SourceChanged(f"{display_name(path)}: changed while it was read")
        if len(content) != size:
            raise wrong_size(path, size, more=len(content) > size)
    finally:
        release(fd)
    return Fetched(SmallFile(path, content, blake3(content).digest(), attributes_of(status)), version_of(status))


def write_batch(
    location: Location,
    files: Sequence[SmallFile],
    policy: OnConflict,
    salt: bytes,
    watch: CommitHooks,
    headroom: Headroom,
    origin: bytes | None,
) -> Batch:
    """Write each file to its partial, with its attributes and its ``origin``, and keep the partial locked.

    Their content is durable, or they hold an anchor for the group commit to make it so.
    """
    # With room for all answers: what is written is never lost on its way into them.
    batch = Batch([_UNWRITTEN] * len(files))
    syncs: list[float] = []
    try:
        with location.tree(private=any(file.attributes is not None for file in files)) as tree:
            batch.anchor = _anchor(tree) if len(files) > FSYNC_MAX_FILES else None
            free = headroom.free(tree.root_fd) if headroom.reserve else None
            for number, file in enumerate(files):
                try:
                    free = _taken(free, file)
                    batch.items[number] = _write(location, tree, file, policy, batch.anchor, salt, origin, syncs)
                except RealizeError as error:
                    batch.items[number] = error
                except (OSError, MemoryError) as error:
                    batch.items[number] = storage_error(error, file.path, Deed.CREATE)
            if any(isinstance(item, RealizeError) for item in batch.items):
                tree.unmake(tree.made)  # as far as they stayed empty
        watch.synced(Sync.FILE, syncs)
    except BaseException:
        batch.release()
        raise
    return batch


def _taken(free: int | None, file: SmallFile) -> int | None:
    """What is left of the room that does not belong to the reserve."""
    if free is None:
        return None
    if file.size > free:
        raise NoSpace(f"{display_name(file.path)}: {os.strerror(errno.ENOSPC)}: the rest is a reserve")
    return free - file.size


def _anchor(tree: Tree) -> Anchor | None:
    """None where each file needs its own fsync, also if descriptors have run out."""
    try:
        if not syncs_as_a_whole(tree.root_fd):
            return None
        device = tree.identity(())[0]
        fd = os.dup(tree.root_fd)
    except OSError:
        return None
    try:
        return Anchor(fd, device)
    except BaseException:
        release(fd)
        raise


def _write(
    location: Location,
    tree: Tree,
    file: SmallFile,
    policy: OnConflict,
    anchor: Anchor | None,
    salt: bytes,
    origin: bytes | None,
    syncs: list[float],
) -> Prepared:
    """How long it took to make the file durable is added to ``syncs``."""
    directory, name = location.split(file.path)
    if file.size > MAX_SMALL_BYTES:
        raise ProtocolError(f"{display_name(file.path)}: is not small, it has {file.size} bytes")
    if blake3(file.content).digest() != file.digest:
        raise VerifyFailed(f"{display_name(file.path)}: the content does not have the digest that was announced")
    fd, status, partial = open_partial(tree, directory, name, file.path, origin)
    try:
        identity = tree.identity(directory)
        if anchor is not None and identity[0] != anchor.device:
            anchor = None
        if status.st_size:
            os.ftruncate(fd, 0)
        write_all(fd, file.content)
        note_origin(fd, origin, file.digest)
        mode = set_attributes(fd, name, status, file.attributes)
        if anchor is None:
            started = time.perf_counter()
            os.fsync(fd)
            syncs.append(time.perf_counter() - started)
        return Prepared(
            root=location.root,
            path=file.path,
            directory=directory,
            identity=identity,
            partial=partial,
            inode=identity_of(status),
            name=name,
            policy=policy,
            replaces=file.replaces,
            salt=salt,
            fd=fd,
            mode=mode,
            anchor=anchor,
            lock=True,
        )
    except BaseException:
        try:
            with contextlib.suppress(OSError, RealizeError):
                os.unlink(partial, dir_fd=tree.directory(directory))
        finally:
            release(fd)
        raise


def set_attributes(fd: int, name: bytes, status: os.stat_result, attributes: Attributes | None) -> int | None:
    """Give a partial, with that status, what its final file is to have; a file system that has no such thing is let be.

    The mark stays on it, unless the final ``name`` has the form of a partial's: there, one that a power cut left would
    keep the file from being one.
    The answer is the mode without the mark, None if there was none.
    """
    mode = _PLAIN_MODE if attributes is None else attributes.mode & 0o777
    mark = status.st_mode & MARK
    try:
        os.fchmod(fd, mode if names.is_partial(name) else mode | mark)
        if attributes is not None:
            os.utime(fd, ns=(attributes.mtime_ns, attributes.mtime_ns))
    except OSError as error:
        if error.errno not in _IMMUTABLE:
            raise
    return mode if mark else None
