"""Group commit: many files become final, and durable, at the cost of a few.

The order is what makes a file safe, and holds for each group:

1. the content is on stable storage: each file had its own fsync before it came here (a large one at the end of
   `realize.store.local.writer`, one of a small batch in `realize.store.local.small_files`), or it has an `Anchor`, and
   the group makes the whole file system durable once;
2. the directory is still the one that the partial was written in;
3. the partial gets its final name, or a numbered one if that is taken and both files are to be kept;
4. the mark of a partial is cleared;
5. the directory and every directory above it up to the mount point, which may be new themselves, are on stable storage;
   if they are many, again by syncing the whole file system (those above the root once, see `realize.fs.ancestors`),
   and that file system still takes changes (`realize.fs.durable` says why);
6. only then is anybody answered.

A power cut between 3 and 5 may leave the mark on a final file, where it means nothing.
The exception is a final name that has the form of a partial's: with the mark, the file would be taken for a partial, so
its mark is cleared before step 1.

A file whose content cannot be made durable is not renamed, and its partial is removed: after a failed fsync the kernel
may consider the pages clean, so a second fsync proves nothing (fsync(2), "errors").
One group is committed at a time; files that arrive meanwhile form the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import stat
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from realize.concurrency.semaphore import FairSemaphore
from realize.concurrency.shielded import RunInThread
from realize.concurrency.turns import Rota
from realize.errors import Busy, Conflict, NotFound, RealizeError, StorageError
from realize.fs import awaiting, names
from realize.fs.descriptors import release
from realize.fs.durable import refuse_dead
from realize.fs.identities import identity_token
from realize.fs.oserrors import Deed, reason, storage_error
from realize.fs.stamps import STAMPS, Stamps
from realize.fs.syscalls import (
    FileStatus,
    fresh_fstat,
    fresh_stat,
    fsync_directory,
    kind_of,
    rename_noreplace,
    syncfs,
    syncs_as_a_whole,
)
from realize.fs.tree import Inode, Tree, identity_of
from realize.store.hooks import CommitHooks, Sync
from realize.store.local.backups import set_aside
from realize.store.local.location import BackupPlace, Root
from realize.store.local.partial_marks import NOTE, RECEIVING, forget_given, is_of_others, is_ours
from realize.store.local.siblings import take_number
from realize.store.local.versions import open_if_readable, representable
from realize.units import display_name
from realize.values import Backup, Committed, OnConflict, Seen, Stored

if TYPE_CHECKING:
    from realize.store.local.several_names import OldFile

MAX_GROUP_FILES: Final = 1024
"""A group takes no more submissions once it has this many files; deep ones count more than once."""

FSYNC_MAX_DIRECTORIES: Final = 2
"""Up to this many directories are fsynced one by one; for more, one syncfs(2) is cheaper, as each fsync waits for the
device once."""

DIRECTORIES_PER_EXTRA_FILE: Final = 8
"""A file counts once more for every this many directories above it, since they are made durable with it."""

MAX_UNCOMMITTED_SMALL_FILES: Final = 2 * MAX_GROUP_FILES
"""Small files that may be written and not yet committed; each holds a descriptor."""

_REPLACE_TRIES: Final = 3
"""Attempts to replace a file that keeps disappearing and reappearing."""

_order: Final = itertools.count()
_CREATED: Final = Stored(Committed.CREATED)
_ROOT: Final = operator.attrgetter("root")

Outcome = Stored | RealizeError


class Anchor:
    """A descriptor that was opened before the files of a batch were written, on their file system.

    syncfs(2) reports to a descriptor every write error since it was opened, so the oldest anchor of a group covers all
    files of the group.
    """

    def __init__(self, fd: int, device: int) -> None:
        self.fd = fd
        self.device = device
        self.order = next(_order)
        self.closed = False

    def close(self) -> None:
        """Close the descriptor once the group is done; may be called more than once, by one thread at a time."""
        if not self.closed:
            self.closed = True
            release(self.fd)


@define(eq=False, repr=False)
class Prepared:
    """A partial that is complete, verified and has its attributes.

    ``directory`` (below ``root``) had this ``identity`` when the partial was written there.
    ``anchor`` is None if the content is durable already.
    ``inode`` is the identity that the partial must still have.
    ``fd`` is its descriptor, which holds its lock; if ``lock`` is set, it is closed when the group is done.
    ``mode`` is the mode to set once the file has its final name, None if it has it already.
    ``keep`` leaves the partial in place when it cannot be renamed, unless it has another owner by now.
    ``replaces`` is the only version of the final file that may be replaced; None allows any.
    ``number`` is the only one that it may get if both files are to be kept; 0 allows any.
    ``backups`` is where the file goes that it replaces; None if that is not kept.
    ``salt`` is that of the store, for the identity token of the final file.
    ``given`` says that the partial was given more than content, mode and time.
    """

    root: Root
    path: bytes
    directory: tuple[bytes, ...]
    identity: Inode
    partial: bytes
    inode: Inode
    name: bytes
    policy: OnConflict
    replaces: Seen | None
    salt: bytes
    fd: int
    mode: int | None
    anchor: Anchor | None = None
    lock: bool = False
    keep: bool = False
    number: int = 0
    backups: BackupPlace | None = None
    given: bool = False

    def release(self) -> None:
        """Close partial and anchor, if that is ours to do; may be called more than once, by one thread at a time."""
        if self.lock:
            self.lock = False
            release(self.fd)
        if self.anchor is not None and not self.anchor.closed:
            self.anchor.close()


class _Submission:
    def __init__(self, files: Sequence[Prepared]) -> None:
        self.files = files
        self.answer: Deferred[list[Outcome]] = Deferred()


class Committer:
    """Gathers files into groups to commit; shared by all stores of a directory.

    Owners with files to commit take turns.
    """

    def __init__(self, run_in_thread: RunInThread, watch: CommitHooks | None = None, stamps: Stamps = STAMPS) -> None:
        self.watch = CommitHooks() if watch is None else watch
        self.stamps = stamps
        self._run_in_thread = run_in_thread
        self._waiting: Rota[_Submission] = Rota()
        self._running = False
        self.slots = FairSemaphore(MAX_UNCOMMITTED_SMALL_FILES)
        """For small files: acquired before they are written, released once they are committed."""

    def commit(self, files: Sequence[Prepared], owner: str = "") -> Deferred[list[Outcome]]:
        """Commit the files; the result has the outcome of each, in their order.

        What one owner submits is committed in the order in which it was submitted.
        If the Deferred fails, the caller releases the partials.
        """
        submission = _Submission(files)
        self._waiting.add(owner, submission)
        try:
            if not self._running:
                self._next_group()
        except BaseException:
            # The caller will release these files, so they must not be committed later.
            self._waiting.remove(owner, submission)
            raise
        return submission.answer

    def _next_group(self) -> None:
        group: list[_Submission] = []
        committing: Deferred[list[Outcome]] | None = None
        try:
            count = 0
            while count < MAX_GROUP_FILES and (found := self._waiting.peek()):
                owner, submission = found
                size = sum(1 + len(each.directory) // DIRECTORIES_PER_EXTRA_FILE for each in submission.files)
                if group and count + size > 2 * MAX_GROUP_FILES:
                    break
                group.append(submission)
                self._waiting.pop(owner)
                count += size
            self._running = bool(group)
            if group:
                files = [each for submission in group for each in submission.files]
                # Even if no thread can be started, the callers are answered, and the next group has its turn.
                committing = maybeDeferred(self._run_in_thread, commit_group, files, self.watch, self.stamps)
        except BaseException:  # noqa: BLE001 -- the callers are told
            self._give_up(group)
        if committing is not None:
            committing.addBoth(self._answer, group)

    def _answer(self, result: list[Outcome] | Failure, group: list[_Submission]) -> None:
        try:
            self._next_group()
        except Exception:  # noqa: BLE001 -- the callers are told
            self._give_up([])
        try:
            if isinstance(result, Failure):
                self._fail(group, result)
                return
            outcomes = iter(result)
            for submission in group:
                submission.answer.callback(list(itertools.islice(outcomes, len(submission.files))))
        except Exception:  # noqa: BLE001 -- the callers are told
            self._fail(group, Failure())

    def _give_up(self, group: list[_Submission]) -> None:
        """Fail all submissions when a group cannot be started, so that no caller waits for ever."""
        self._running = False
        failure = Failure()
        self._fail(group, failure)
        while found := self._waiting.peek():
            self._waiting.pop(found[0])
            self._fail([found[1]], failure)

    def _fail(self, group: list[_Submission], failure: Failure) -> None:
        """Fail the submissions without an answer; their callers then release the partials."""
        for submission in group:
            if not submission.answer.called:
                submission.answer.errback(failure)


def commit_group(files: Sequence[Prepared], watch: CommitHooks, stamps: Stamps = STAMPS) -> list[Outcome]:
    """Commit in the order given in the module's docstring; return the outcome of each file; for a thread.

    Closes the anchors and locks.
    """
    try:
        anchors = {id(each.anchor): each.anchor for each in files if each.anchor is not None}
        watch.group(len(files))
        failed = _sync_devices(anchors.values(), watch)
        outcomes: dict[int, Outcome] = {}
        by_root: dict[Root, list[Prepared]] = {}
        for root, some in itertools.groupby(files, _ROOT):
            by_root.setdefault(root, []).extend(some)
        for root, below in by_root.items():
            outcomes.update(_commit_below(root, below, failed, watch, stamps))
        return [outcomes[id(each)] for each in files]
    finally:
        for each in files:
            each.release()


def _sync_devices(anchors: Iterable[Anchor], watch: CommitHooks) -> dict[int, OSError]:
    """Make each device durable through its oldest anchor; return the errors by device."""
    oldest: dict[int, Anchor] = {}
    for anchor in sorted(anchors, key=lambda each: each.order):
        oldest.setdefault(anchor.device, anchor)
    failed: dict[int, OSError] = {}
    for device, anchor in oldest.items():
        try:
            with watch.syncing(Sync.FILE_SYSTEM):
                syncfs(anchor.fd)
        except OSError as error:
            failed[device] = error
    return failed


def _commit_below(
    root: Root,
    files: Sequence[Prepared],
    failed: dict[int, OSError],
    watch: CommitHooks,
    stamps: Stamps,
) -> dict[int, Outcome]:
    several, others = _of_one_file(files)
    by_directory: dict[tuple[bytes, ...], list[Prepared]] = {}
    for each in others:
        by_directory.setdefault(each.directory, []).append(each)
    outcomes: dict[int, Outcome] = {}
    try:
        tree = root.tree()
    except RealizeError as error:
        return {id(each): error for each in files}
    with tree:
        stamps.note()
        renamed = {
            directory
            for directory, inside in by_directory.items()
            if _commit_inside(tree, directory, inside, failed, outcomes)
        }
        for some in several:
            renamed |= _commit_together(tree, some, failed, outcomes)
        stamps.note()
        note_arrivals(tree, renamed)
        not_durable: dict[tuple[bytes, ...], RealizeError] = {}
        if renamed:
            # An anchor whose syncfs has failed proves nothing about directories: it reports each error only once.
            anchor = next((each.anchor for each in files if each.anchor and each.anchor.device not in failed), None)
            with watch.syncing(Sync.DIRECTORIES):
                not_durable = sync_directories(tree, renamed, anchor)
    for each in files if not_durable else ():
        outcome = outcomes[id(each)]
        if each.directory in not_durable and isinstance(outcome, Stored) and outcome.how is not Committed.SKIPPED:
            outcomes[id(each)] = not_durable[each.directory]
    return outcomes


def _of_one_file(files: Sequence[Prepared]) -> tuple[list[list[Prepared]], Sequence[Prepared]]:
    """Return those that are to replace one version of one file, under several names, and all others."""
    replacing = [each for each in files if each.replaces is not None and each.policy is OnConflict.REPLACE]
    if len(replacing) < 2:
        return [], files
    by_version: dict[Seen | None, list[Prepared]] = {}
    for each in replacing:
        by_version.setdefault(each.replaces, []).append(each)
    several = [some for some in by_version.values() if len(some) > 1]
    chosen = {id(each) for some in several for each in some}
    return several, [each for each in files if id(each) not in chosen]


def _commit_together(
    tree: Tree, files: Sequence[Prepared], failed: dict[int, OSError], outcomes: dict[int, Outcome]
) -> set[tuple[bytes, ...]]:
    """Rename files that replace several names of one file, adding to ``outcomes``; return the changed directories."""
    # Without such files, it is not loaded.
    from realize.store.local.several_names import OldFile

    with OldFile() as old:
        return {each.directory for each in files if _commit_inside(tree, each.directory, [each], failed, outcomes, old)}


def _commit_inside(
    tree: Tree,
    directory: tuple[bytes, ...],
    files: Sequence[Prepared],
    failed: dict[int, OSError],
    outcomes: dict[int, Outcome],
    old: OldFile | None = None,
) -> bool:
    """Rename the files of one directory, adding to ``outcomes``; return whether that changed the directory.

    ``old`` is the file that they replace, if others replace it, too.
    """
    try:
        fd = tree.directory(directory)
        identity = tree.identity(directory)
    except RealizeError as unreachable:
        outcomes.update({id(each): unreachable for each in files})
        return False
    changed = False
    for each in files:
        outcome: Outcome
        try:
            _check(each, identity, failed)
            stored = _rename(tree, fd, each, old)
            outcome = stored if stored.how is Committed.SKIPPED else _made(each, stored)
        except (OSError, MemoryError) as error:
            outcome = storage_error(error, each.path, Deed.COMMIT)
        except RealizeError as refused:
            outcome = refused
        outcomes[id(each)] = outcome
        if isinstance(outcome, RealizeError) and each.keep and not (each.given and is_of_others(each.fd)):
            _make_private(fd, each)
        elif isinstance(outcome, RealizeError) or outcome.how is Committed.SKIPPED:
            _discard(fd, each)
        else:
            changed = True
    return changed


def note_arrivals(tree: Tree, directories: Iterable[tuple[bytes, ...]]) -> None:
    """Unmark the directories, and all above them, as awaiting files, even above a directory that is not marked."""
    for directory in _all_above(directories):
        with contextlib.suppress(RealizeError):
            if directory:
                awaiting.unmark(tree.directory(directory))


def _made(file: Prepared, stored: Stored) -> Stored:
    """Clear the mark of the final file and add what it is now; that its status cannot be read undoes nothing."""
    if file.given:
        forget_given(file.fd)
    _take_mark_off(file)
    try:
        # Clearing the mark has refreshed the status; otherwise, it may have been cached since before the rename.
        status = os.fstat(file.fd) if file.mode is not None else fresh_fstat(file.fd)
    except OSError:
        return stored
    token = identity_token(file.salt, file.inode)
    return Stored(stored.how, token, representable(status.st_ctime_ns), stored.number, stored.backup)


def _take_mark_off(file: Prepared) -> None:
    """Give a file that has its final name its final mode, without the mark of a partial."""
    if file.mode is not None and not names.is_partial(file.name):
        try:  # noqa: SIM105 -- it is called for every file, and `suppress` takes three calls
            os.fchmod(file.fd, file.mode)
        except OSError:
            pass


def _make_private(fd: int, file: Prepared) -> None:
    """Take the final mode and mtime back from a partial that stays one: it is for us alone, and was changed now."""
    if file.given:
        from realize.store.local.extras import take_back

        take_back(file.fd, fd)
    if file.mode is not None:
        with contextlib.suppress(OSError):
            os.fchmod(file.fd, RECEIVING)
            os.utime(file.fd)


def _discard(fd: int, file: Prepared) -> None:
    """Remove the partial, if the name still refers to our file."""
    with contextlib.suppress(OSError):
        if identity_of(os.stat(file.partial, dir_fd=fd, follow_symlinks=False)) == file.inode:
            os.unlink(file.partial, dir_fd=fd)


def _check(file: Prepared, identity: Inode, failed: dict[int, OSError]) -> None:
    if file.identity != identity:
        raise StorageError(f"{display_name(file.path)}: its directory was replaced by another meanwhile")
    if file.anchor is not None and file.anchor.device in failed:
        raise failed[file.anchor.device]


def _rename(tree: Tree, fd: int, file: Prepared, old: OldFile | None) -> Stored:
    """Give the partial its final name, as the policy says; return the outcome, which does not tell the version."""
    if identity_of(os.stat(file.partial, dir_fd=fd, follow_symlinks=False)) != file.inode:
        raise StorageError(f"{display_name(file.path)}: its partial was replaced by another file meanwhile")
    for _ in range(_REPLACE_TRIES):
        try:
            rename_noreplace(fd, file.partial, file.name)
        except FileExistsError:
            pass
        else:
            return _CREATED
        if file.policy is OnConflict.RENAME:
            spared = file.root.own_names(file.directory)
            number = take_number(fd, file.partial, file.name, file.path, file.number, spared)
            return Stored(Committed.RENAMED, number=number)
        if file.policy is OnConflict.SKIP:
            return Stored(Committed.SKIPPED)
        if file.policy is OnConflict.FAIL:
            raise Conflict(f"{display_name(file.path)}: exists already")
        if replaced := _replace(tree, fd, file, old):
            return replaced
    raise Busy(f"{display_name(file.path)}: keeps being replaced there")


def _replace(tree: Tree, directory_fd: int, file: Prepared, old: OldFile | None) -> Stored | None:
    """Replace the existing file by the partial; return None if it disappeared or was replaced meanwhile."""
    existing = refuse_obstacle(directory_fd, file.name, file.path)
    if existing is None:
        return None
    if old is not None and old.held:
        if not old.is_still(existing):
            raise _changed_there(file)
        stored = _take_name(directory_fd, file, existing)
        old.has_lost_name(existing)
        return stored
    with contextlib.ExitStack() as stack:
        try:
            fd = open_if_readable(file.name, directory_fd)
        except FileNotFoundError:
            return None
        guarded = False
        # A process that may not read a file cannot vouch for it either, so there is nothing to lock against.
        if fd is not None:
            stack.callback(release, fd)
            lock = stack.enter_context(tree.lock(file.directory, fd, file.path))
            guarded = old is not None and not lock.of_process and old.keep_writers_away(tree, fd)
        existing = refuse_obstacle(directory_fd, file.name, file.path)
        if existing is None or (fd is not None and identity_of(os.fstat(fd)) != identity_of(existing)):
            return None
        if not _may_replace(file, existing):
            raise _changed_there(file)
        stored = _take_name(directory_fd, file, existing)
        if guarded and old is not None and fd is not None:
            old.hold(fd, existing, stack)
    return stored


def _take_name(directory_fd: int, file: Prepared, existing: FileStatus) -> Stored | None:
    """Rename the partial over the existing file, which is kept as a backup, if asked to; None as for `_replace`."""
    backup: Backup | None = None
    if file.backups is not None:
        aside = set_aside(file.root, file.backups, file.directory, directory_fd, file.name, existing, sync_directories)
        backup = aside.backup
        if aside.moved:
            # Nothing has the name now, or somebody else was faster.
            try:
                rename_noreplace(directory_fd, file.partial, file.name)
            except FileExistsError:
                return None
            return Stored(Committed.REPLACED, backup=backup)
    os.rename(file.partial, file.name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    return Stored(Committed.REPLACED, backup=backup)


def _changed_there(file: Prepared) -> Busy:
    return Busy(f"{display_name(file.path)}: the file there has changed since it was looked at, or is another one")


def _may_replace(file: Prepared, existing: FileStatus) -> bool:
    """Return whether ``existing`` is the version that it was decided to replace.

    Another writer may have put a file there since and removed its source: to replace that file would lose it.
    """
    if file.replaces is None:
        return True
    ctime_ns = representable(existing.st_ctime_ns)
    return file.replaces == Seen(identity_token(file.salt, identity_of(existing)), ctime_ns)


def refuse_obstacle(fd: int, name: bytes, path: bytes) -> FileStatus | None:
    """Return the status of the regular file of that name, None if there is none; anything else raises `Conflict`."""
    try:
        status = fresh_stat(name, fd)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise Conflict(f"{display_name(path)}: there is a {kind_of(status.st_mode)} of that name")
    if is_ours(fd, name, status):
        raise Conflict(f"{display_name(path)}: there is a {NOTE} of that name")
    return status


def sync_directories(
    tree: Tree, directories: Iterable[tuple[bytes, ...]], anchor: Anchor | None = None, *, whole: bool = False
) -> dict[tuple[bytes, ...], RealizeError]:
    """Make directories and all above them durable, each once, after those below it; return the errors by directory.

    That includes those above the root and those that others have made: whoever made them may have died before they
    were durable.
    Many directories on the file system of ``anchor`` are made durable by one syncfs(2), and with ``whole`` any number,
    with all that is on it.
    """
    wanted = list(directories)
    if not wanted:
        return {}
    try:
        tree.ancestors.sync(tree.root_fd)
    except OSError as error:
        doubt = StorageError(f"the directories above the destination cannot be made durable: {reason(error)}")
        return dict.fromkeys(wanted, doubt)
    chain = _all_above(wanted)
    many = whole or len(chain) > FSYNC_MAX_DIRECTORIES
    if anchor is not None and many and _devices(tree, chain) == {anchor.device}:
        try:
            syncfs(anchor.fd)
            # The last one is one of those: the root may be mounted read-only, and another mount be below it.
            refuse_dead(tree.directory(chain[-1]))
        except OSError as error:
            return {each: storage_error(error, names.join(each) or b".") for each in wanted}
        except RealizeError:
            pass  # gone meanwhile
        else:
            return {}
    failed = _sync_each(tree, chain, wanted, whole=whole)
    if not failed:
        return {}
    return {
        directory: failed[directory[:depth]]
        for directory in wanted
        for depth in range(len(directory) + 1)
        if directory[:depth] in failed
    }


def _sync_each(
    tree: Tree, chain: Sequence[tuple[bytes, ...]], wanted: Iterable[tuple[bytes, ...]], *, whole: bool
) -> dict[tuple[bytes, ...], RealizeError]:
    """Make the directories of a chain durable one by one, those below first.

    The file systems of the ``wanted`` ones must still take changes, and with ``whole`` all that is on them is made
    durable, too; one of those above may be mounted read-only.
    Returns the errors by directory.
    """
    failed: dict[tuple[bytes, ...], RealizeError] = {}
    devices: dict[tuple[bytes, ...], int] = {}
    opened: dict[int, int] = {}
    root_device = tree.identity(())[0]
    meant = set(wanted)
    try:
        for directory in reversed(chain):
            try:
                fd = tree.directory(directory)
                if directory in meant:
                    device = devices[directory] = tree.identity(directory)[0]
                    if device not in opened:
                        opened[device] = os.dup(fd)
                fsync_directory(fd)
            except OSError as error:
                failed[directory] = storage_error(error, names.join(directory) or b".")
            except NotFound:
                # Gone with all its files: somebody removed it after the commit.
                failed[directory] = StorageError(f"{display_name(names.join(directory))}: was removed meanwhile")
            except RealizeError as refused:
                failed[directory] = refused
        for device, fd in opened.items():
            try:
                if whole and syncs_as_a_whole(fd):
                    # Of a file system, the descriptor that was opened first is told of most failures.
                    syncfs(tree.root_fd if device == root_device else fd)
                refuse_dead(fd)
            except OSError as error:
                for directory, of in devices.items():
                    if of == device:
                        failed.setdefault(directory, storage_error(error, names.join(directory) or b"."))
    finally:
        while opened:
            release(opened.popitem()[1])
    return failed


def _all_above(directories: Iterable[tuple[bytes, ...]]) -> list[tuple[bytes, ...]]:
    """Return the directories and all above them, each once and parents first: a parent is open when it is needed."""
    return sorted({directory[:depth] for directory in directories for depth in range(len(directory) + 1)})


def _devices(tree: Tree, directories: Iterable[tuple[bytes, ...]]) -> set[int]:
    """Return the devices of the directories; none if one of the directories cannot be reached any more."""
    try:
        return {tree.identity(directory)[0] for directory in directories}
    except RealizeError:
        return set()
