"""Reading and writing batches of small files; for a thread."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from realize.errors import InternalError, ProtocolError, RealizeError, SourceChanged, VerifyFailed
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.durable import write_all
from realize.fs.oserrors import Deed, storage_error
from realize.fs.reading import read_exactly
from realize.fs.syscalls import fresh_fstat, read_umask, syncs_as_a_whole
from realize.fs.tree import Tree, identity_of
from realize.store.hooks import CommitHooks, Sync
from realize.store.local.group_commit import Anchor, Prepared
from realize.store.local.headroom import Headroom, refuse_reserve
from realize.store.local.location import RootedLocation
from realize.store.local.partial_marks import MARK
from realize.store.local.partials import open_partial
from realize.store.local.versions import (
    Clock,
    open_settled,
    refuse_written,
    unchanged,
    version_of,
    wrong_size,
)
from realize.store.origin import note_origin
from realize.units import display_name
from realize.values import MAX_SMALL_BYTES, Attributes, Fetched, OnConflict, Preserve, SmallFile

if TYPE_CHECKING:
    from realize.extras import WantedExtras
    from realize.store.local.extras import AtHand

FSYNC_MAX_FILES: Final = 8
"""Up to this many files of a batch are fsynced one by one; for more, one syncfs(2) is cheaper."""

_UNWRITTEN: Final = InternalError("was not written")

_PLAIN_MODE: Final = 0o666 & ~read_umask()
_IMMUTABLE: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of file systems that do not let attributes be set."""


class WrittenBatch:
    """The state of each file of a batch: ready to be committed, or an error.

    It holds locks until it is committed, so its owner must call `release` in the end, whatever happens.
    """

    def __init__(self, items: list[Prepared | RealizeError], anchor: Anchor | None = None) -> None:
        self.items = items
        self.anchor = anchor

    def prepared(self) -> list[Prepared]:
        """The files to be committed."""
        return [each for each in self.items if isinstance(each, Prepared)]

    def release(self) -> None:
        """Release everything that no commit has released."""
        for each in self.items:
            if isinstance(each, Prepared) and each.lock:
                each.release()
        if self.anchor is not None:
            self.anchor.close()


def read_batch(
    location: RootedLocation,
    paths: Sequence[bytes],
    clock: Clock,
    removing: bool,  # noqa: FBT001 -- what runs in a thread is called like this
    wanted: WantedExtras | None = None,
) -> list[Fetched | RealizeError]:
    """Read whole small files; one that is not small, or no longer fits in the batch, gives `SourceChanged`.

    So does one that a program has open for writing, if it is to be removed afterwards (``removing``).
    What is ``wanted`` of each comes along if it is at hand.
    """
    at_hand: AtHand | None = None
    if wanted is not None:
        # Without these, nothing of it is loaded.
        from realize.store.local.extras import AtHand

        at_hand = AtHand(wanted)
    answers: list[Fetched | RealizeError] = []
    left = MAX_SMALL_BYTES
    with location.tree() as tree:
        for path in paths:
            try:
                fetched = _read(location, tree, path, left, clock, at_hand, removing=removing)
            except RealizeError as error:
                # Its traceback has this frame, and so would keep the content of all others until a search for garbage.
                answers.append(error.with_traceback(None))
            except (OSError, MemoryError) as error:
                answers.append(storage_error(error, path, Deed.READ))
            else:
                left -= len(fetched.file.content)
                answers.append(fetched)
    return answers


def _read(
    location: RootedLocation,
    tree: Tree,
    path: bytes,
    left: int,
    clock: Clock,
    at_hand: AtHand | None,
    *,
    removing: bool,
) -> Fetched:
    directory, name = location.split(path)
    fd, status = open_settled(tree, directory, name, path, clock)
    try:
        size = status.st_size
        if size > left:
            raise SourceChanged(f"{display_name(path)}: is too large for a batch now: {size} bytes")
        if removing:
            refuse_written(fd, path)
        content = os.pread(fd, size + 1, 0)
        fresh = tree.is_always_fresh(fd, status)
        if len(content) != size or not fresh:
            # Elsewhere a read may end before the file does, and a file have more content than its size says.
            content += read_exactly(fd, size + 1 - len(content), len(content))
        extras = None if at_hand is None else at_hand.of_file(tree, fd, status, path)
        if not unchanged(status, os.fstat(fd) if fresh else fresh_fstat(fd)):
            raise SourceChanged(f"{display_name(path)}: changed while it was read")
        if len(content) != size:
            raise wrong_size(path, size, more=len(content) > size)
    finally:
        release(fd)
    version = version_of(status)
    attributes = Attributes(version.mtime_ns, status.st_mode & 0o777, extras)
    return Fetched(SmallFile(path, content, blake3(content).digest(), attributes), version)


def write_batch(
    location: RootedLocation,
    files: Sequence[SmallFile],
    policy: OnConflict,
    salt: bytes,
    watch: CommitHooks,
    headroom: Headroom,
    origin: bytes | None,
) -> WrittenBatch:
    """Write each file to its partial, with its attributes and ``origin``, and keep the partial locked.

    The content of each is durable, or the file has an anchor with which the group commit makes it so.
    """
    # Allocated in advance, so that no file is written and then lost because its answer cannot be appended.
    batch = WrittenBatch([_UNWRITTEN] * len(files))
    syncs: list[float] = []
    try:
        with location.tree(private=any(brings_mode(file.attributes) for file in files)) as tree:
            batch.anchor = open_anchor(tree) if len(files) > FSYNC_MAX_FILES else None
            free = headroom.free(tree.root_fd) if headroom.reserve else None
            for number, file in enumerate(files):
                try:
                    if free is not None:
                        refuse_reserve(file.path, free, file.size)
                        free -= file.size
                    batch.items[number] = _write(location, tree, file, policy, batch.anchor, salt, origin, syncs)
                except RealizeError as error:
                    batch.items[number] = error.with_traceback(None)  # which has all files, as above
                except (OSError, MemoryError) as error:
                    batch.items[number] = storage_error(error, file.path, Deed.CREATE)
            if any(isinstance(item, RealizeError) for item in batch.items):
                tree.unmake(tree.made)  # those that stayed empty
        watch.synced(Sync.FILE, syncs)
    except BaseException:
        batch.release()
        raise
    return batch


def open_anchor(tree: Tree) -> Anchor | None:
    """Return an anchor, or None where each file needs its own fsync, also if descriptors have run out."""
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
    location: RootedLocation,
    tree: Tree,
    file: SmallFile,
    policy: OnConflict,
    anchor: Anchor | None,
    salt: bytes,
    origin: bytes | None,
    syncs: list[float],
) -> Prepared:
    """Write one file; the seconds that its fsync took, if it needed one, are appended to ``syncs``."""
    directory, name = location.split(file.path)
    if len(file.content) > MAX_SMALL_BYTES:
        raise ProtocolError(f"{display_name(file.path)}: is not small, it has {file.size} bytes")
    if blake3(file.content).digest() != file.digest:
        raise VerifyFailed(f"{display_name(file.path)}: the content differs from its digest")
    fd, status, partial = open_partial(tree, directory, name, file.path, origin)
    try:
        identity = tree.identity(directory)
        if anchor is not None and identity[0] != anchor.device:
            anchor = None
        if status.st_size:
            os.ftruncate(fd, 0)
        write_all(fd, file.content)
        note_origin(fd, origin, file.digest)
        mode, given = set_attributes(fd, name, status, file.attributes, file.path, tree)
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
            number=file.number,
            backups=location.backups,
            salt=salt,
            fd=fd,
            mode=mode,
            anchor=anchor,
            lock=True,
            given=given,
        )
    except BaseException:
        try:
            with contextlib.suppress(OSError, RealizeError):
                os.unlink(partial, dir_fd=tree.directory(directory))
        finally:
            release(fd)
        raise


def brings_mode(attributes: Attributes | None) -> bool:
    """Return whether a file brings permission bits, so that directories made for it are private at first."""
    return attributes is not None and (attributes.extras is None or not attributes.leaves(Preserve.MODE))


def set_attributes(
    fd: int, name: bytes, status: os.stat_result, attributes: Attributes | None, path: bytes, tree: Tree | None = None
) -> tuple[int | None, bool]:
    """Set mode and mtime of a partial, which has that status; ignored where the file system does not support it.

    What else it is given comes first, and raises `realize.errors.NotKept` if that is impossible.

    The partial keeps its mark, unless its final ``name`` has the form of a partial's: there, a mark left by a power cut
    would make the final file look like a partial.
    Returns the final mode, to be set when the mark is to be cleared, or None if the partial has no mark; and whether it
    was given more than mode and mtime.
    With the ``tree`` in which it is, less is asked of the system.
    """
    mode = _PLAIN_MODE if attributes is None else attributes.mode & 0o777
    mark = status.st_mode & MARK
    timed = attributes is not None
    given = False
    if attributes is not None and attributes.extras is not None:
        # Without these, nothing of it is loaded.
        from realize.store.local.extras import give_to_partial

        listing = tree is not None and tree.lists_acls(fd, status)
        most, given = give_to_partial(fd, status, attributes.extras, path, lists_acls=listing)
        mode = (_PLAIN_MODE if attributes.leaves(Preserve.MODE) else mode) & most
        timed = not attributes.leaves(Preserve.TIMES)
    _if_supported(os.fchmod, fd, mode if names.is_partial(name) else mode | mark)
    if attributes is not None and timed:
        _if_supported(os.utime, fd, ns=(attributes.mtime_ns, attributes.mtime_ns))
    return mode if mark else None, given


def _if_supported(call: Callable[..., None], *arguments: object, **named: object) -> None:
    """Set something, or leave it as it is where the file system does not let it be set."""
    try:
        call(*arguments, **named)
    except OSError as error:
        if error.errno not in _IMMUTABLE:
            raise
