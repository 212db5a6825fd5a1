"""Symlinks as they are: reading them, and making them; for a thread.

No symlink is followed here, wherever it leads: only the name itself is looked at, and its target is just bytes.
Which targets a directory takes, and gives away, is its `realize.values.Links`; `realize.fs.names.leads_outside` says
which stay inside.

A new symlink is made under its own name, which is atomic: it is there with all of its target, or it is not there.
One that replaces another is made under a name that is recognised as ours (`realize.fs.names.temporary_link_name`), and
changes places with the other one in one step.
Where backups are kept, the other one gets a durable name among them first (`realize.store.local.backups`).
So whatever comes to have the name at the last moment is still there, under the other name, and gets its own back if it
is not what we looked at.

Symlinks are made durable by the batch, before anybody is answered.
A target of more than 59 bytes does not fit the inode, and older ext4 writes it like the content of a file, which an
fsync of the directory leaves out; older btrfs may leave any symlink empty.
So these, like many of them, are made durable by one syncfs(2).
XFS and older ext4 leave out of it, too, what a symlink was given after others had made its name durable: its owner and
its time. So the directory is changed once more before it is synced (`realize.fs.durable.change_nothing`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from realize.by_value import ByValue
from realize.errors import (
    BadName,
    Busy,
    Conflict,
    LinkRefused,
    NotFound,
    RealizeError,
    SourceChanged,
)
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.oserrors import Deed, storage_error
from realize.fs.own_files import holds_own
from realize.fs.syscalls import (
    BTRFS,
    FileStatus,
    file_system,
    fresh_stat,
    kind_of,
    rename_exchange,
    rename_noreplace,
)
from realize.fs.tree import Inode, Tree, identity_of
from realize.store.hooks import CommitHooks
from realize.store.local.acceptance import Acceptance
from realize.store.local.backups import set_aside
from realize.store.local.group_commit import sync_directories
from realize.store.local.headroom import Headroom, refuse_reserve
from realize.store.local.location import RootedLocation, refused_as_own
from realize.store.local.new_names import make_names
from realize.store.local.partial_marks import NOTE, refuse_ours
from realize.store.local.permissions import check_put
from realize.store.local.small_files import FSYNC_MAX_FILES
from realize.store.local.versions import Clock, representable, settled_in, unchanged, version_of
from realize.units import display_name
from realize.values import FoundSymlink, Linked, Links, OnConflict, Preserve, Symlink, coarseness_ns

if TYPE_CHECKING:
    from realize.extras import WantedExtras
    from realize.store.local.extras import AtHand

MAX_INLINE_TARGET_BYTES: Final = 59
"""The longest target that every file system keeps where an fsync of the directory reaches it."""

_LINK_TRIES: Final = 3
"""Attempts to make a symlink whose name keeps being taken and given up."""

_READ_TRIES: Final = 5
_NO_TIMES: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})


def read_links(
    location: RootedLocation, paths: Sequence[bytes], clock: Clock, gives: Links, wanted: WantedExtras | None = None
) -> list[FoundSymlink | RealizeError]:
    """Return each of these symlinks, with what is ``wanted`` if that is at hand; or why it is not given away."""
    at_hand: AtHand | None = None
    if wanted is not None:
        from realize.store.local.extras import AtHand

        at_hand = AtHand(wanted)
    answers: list[FoundSymlink | RealizeError] = []
    with location.tree() as tree:
        for path in paths:
            try:
                answers.append(_read(location, tree, path, clock, gives, at_hand))
            except RealizeError as error:
                answers.append(error)
            except (OSError, MemoryError) as error:
                answers.append(storage_error(error, path, Deed.READ))
    return answers


def _read(
    location: RootedLocation, tree: Tree, path: bytes, clock: Clock, gives: Links, at_hand: AtHand | None
) -> FoundSymlink:
    directory, name = location.split(path)
    directory_fd = tree.directory(directory)
    status = _settled(directory_fd, name, path, clock)
    if not stat.S_ISLNK(status.st_mode):
        raise SourceChanged(f"{display_name(path)}: is not a symlink any more")
    refuse_ours(directory_fd, name, status, path)
    try:
        target = os.readlink(name, dir_fd=directory_fd)
        same = unchanged(status, fresh_stat(name, directory_fd))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        same = False  # something else has the name
    if not same:
        raise SourceChanged(f"{display_name(path)}: changed while it was read")
    _judge(location, directory, path, target, gives, gives=True)
    extras = None if at_hand is None else at_hand.of_link(status, path)
    return FoundSymlink(Symlink(path, target, representable(status.st_mtime_ns), extras), version_of(status))


def _settled(directory_fd: int, name: bytes, path: bytes, clock: Clock) -> os.stat_result:
    """Return the status of a name once another symlink that got it, even with the same inode, would have another one.

    See `realize.store.local.versions.open_settled`.
    """
    for _ in range(_READ_TRIES):
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        wait = settled_in(status.st_ctime_ns, clock.now_ns())
        if wait <= 0:
            return status
        clock.sleep(wait)
    raise SourceChanged(f"{display_name(path)}: keeps being replaced")


def _judge(
    location: RootedLocation, directory: tuple[bytes, ...], path: bytes, target: bytes, policy: Links, *, gives: bool
) -> None:
    """Raise `LinkRefused` unless a directory with that policy takes, or ``gives``, a symlink with that target.

    In a served directory, a target may lead anywhere inside; in one of the user, anywhere below what the user named.
    """
    if policy is Links.NONE:
        deed = "gives away" if gives else "takes"
        raise LinkRefused(f'{display_name(path)}: the directory {deed} no symlinks: it has links = "none"')
    try:
        names.check_target(target)
    except BadName as error:
        raise BadName(f"{display_name(path)}: {error}") from None
    depth = len(directory) if location.root.served else len(directory) - len(location.base)
    if policy is Links.INSIDE and names.leads_outside(target, depth):
        if gives:
            # Not where it leads: that is what must not be given away.
            raise LinkRefused(f"{display_name(path)}: its target may lead out of the directory")
        raise LinkRefused(f"{display_name(path)}: its target {display_name(target)} may lead out of the destination")


@frozen(eq=False, repr=False)
class Placing(ByValue):
    """Makes the symlinks of one batch.

    ``earliest_ns`` returns the earliest stamp of anything that was stamped since the run began.
    ``origin`` is whom the symlinks come from, if it may not read here: it is told that one is there already only if it
    also has the same time, to the nanosecond, since anybody can try targets.
    Only with ``changes_all``, a symlink that is there already gets the time of the newcomer.
    """

    location: RootedLocation
    policy: OnConflict
    takes: Links
    earliest_ns: Callable[[], int]
    origin: bytes | None
    headroom: Headroom
    watch: CommitHooks
    changes_all: bool = True
    acceptance: Acceptance = field(factory=Acceptance)

    def put(self, links: Sequence[Symlink]) -> list[Linked | RealizeError]:
        """Make these symlinks durable; return for each how that went."""
        with self.location.tree(private=any(link.mtime_ns is not None for link in links)) as tree:
            free = self.headroom.free(tree.root_fd) if self.headroom.reserve else None

            def make(link: Symlink) -> tuple[tuple[bytes, ...] | None, Linked]:
                nonlocal free
                refuse_reserve(link.path, free, len(link.target))
                if free is not None:
                    free -= len(link.target)
                return self._put(tree, link)

            return make_names(tree, links, make, lambda: _needs_whole(tree, links), self.watch)

    def try_put(self, links: Sequence[Symlink]) -> list[Linked | RealizeError]:
        """Return what would become of these symlinks; touch nothing."""
        answers: list[Linked | RealizeError] = []
        with self.location.tree() as tree:
            for link in links:
                try:
                    answers.append(self._try(tree, link))
                except RealizeError as error:
                    answers.append(error)
                except (OSError, MemoryError) as error:
                    answers.append(storage_error(error, link.path, Deed.CREATE))
        return answers

    def _split(self, link: Symlink) -> tuple[tuple[bytes, ...], bytes]:
        directory, name = self.location.split(link.path)
        if names.is_temporary_link(name):
            raise BadName(f"{display_name(link.path)}: is the name of a {NOTE}")
        if holds_own(self.location.root.own, (*directory, name)):
            # It would lead us, who open these by their paths, to what others may read and replace.
            raise refused_as_own(link.path)
        _judge(self.location, directory, link.path, link.target, self.takes, gives=False)
        return directory, name

    def _try(self, tree: Tree, link: Symlink) -> Linked:
        directory, name = self._split(link)
        self._owner_of(link)
        try:
            directory_fd = tree.directory(directory)
            status = fresh_stat(name, directory_fd)
        except (FileNotFoundError, NotFound):
            check_put(tree, directory, name, link.path)
            return Linked.CREATED
        there = self._is_there(directory_fd, name, link, status)
        if there is None:
            check_put(tree, directory, name, link.path)
        return Linked.REPLACED if there is None else there

    def _put(self, tree: Tree, link: Symlink) -> tuple[tuple[bytes, ...] | None, Linked]:
        """Make one symlink; return its directory, if that is to be made durable, and how it went."""
        directory, name = self._split(link)
        give = self._owner_of(link)
        for _ in range(_LINK_TRIES):
            try:
                directory_fd = self._make(tree, directory, name, link)
            except FileExistsError:
                pass
            else:
                _set_time(directory_fd, name, link.mtime_ns)
                give(directory_fd, name)
                return directory, Linked.CREATED
            directory_fd = tree.directory(directory)
            try:
                status = fresh_stat(name, directory_fd)
                there = self._is_there(directory_fd, name, link, status)
                if there is Linked.SKIPPED:
                    return None, there
                if there is Linked.ALREADY_THERE:
                    if _renew(directory_fd, name, link, status, changes_time=self.changes_all):
                        give(directory_fd, name)
                        return directory, there
                    self._may_replace(link, status)
                if self._set_aside(directory, directory_fd, name, status):
                    # Nothing has the name now, or somebody else was faster.
                    os.symlink(link.target, name, dir_fd=directory_fd)
                    _set_time(directory_fd, name, link.mtime_ns)
                    give(directory_fd, name)
                    return directory, Linked.REPLACED
                if _replace(directory_fd, name, link, status):
                    give(directory_fd, name)
                    return directory, Linked.REPLACED
            except (FileExistsError, FileNotFoundError):
                pass
        raise Busy(f"{display_name(link.path)}: keeps being replaced there")

    def _owner_of(self, link: Symlink) -> Callable[[int, bytes], None]:
        """Return what gives a symlink its owner; raises `NotKept`, before it is made, if it cannot have that here.

        One that is there already does not get another owner from somebody who may not change it.
        """
        if link.extras is None:
            return _nothing
        from realize.store.local.extras import link_owner, not_kept, set_link_owner

        extras = self.acceptance.extras(link.extras, link.path)
        owner = link_owner(extras, link.path)
        if owner is None:
            return _nothing

        def give(directory_fd: int, name: bytes) -> None:
            status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode) and has_owner(status):
                return
            # Whoever may write to the directory may put something else of somebody else in its place at any time.
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
            try:
                give_opened(fd)
            finally:
                release(fd)

        def has_owner(status: os.stat_result) -> bool:
            return owner[0] in {-1, status.st_uid} and owner[1] in {-1, status.st_gid}

        def give_opened(fd: int) -> None:
            status = os.fstat(fd)
            if not stat.S_ISLNK(status.st_mode) or os.readlink(b"", dir_fd=fd) != link.target:
                raise Busy(f"{display_name(link.path)}: was replaced there before it had its owner")
            if has_owner(status):
                return
            if not self.changes_all and status.st_uid != os.geteuid():
                if Preserve.OWNER not in extras.lenient:
                    raise not_kept(Preserve.OWNER, link.path, "it is there already, and may not be changed")
                return
            set_link_owner(fd, owner, extras, link.path)

        return give

    def _set_aside(self, directory: tuple[bytes, ...], directory_fd: int, name: bytes, status: FileStatus) -> bool:
        """If backups are kept, keep the symlink that has this status; return whether it has lost its name by that."""
        place = self.location.backups
        if place is None:
            return False
        return set_aside(self.location.root, place, directory, directory_fd, name, status, sync_directories).moved

    def _make(self, tree: Tree, directory: tuple[bytes, ...], name: bytes, link: Symlink) -> int:
        """Make a symlink, and its directory; return the descriptor of that; raises `FileExistsError`.

        If somebody removes the still empty directory in between, it is made once more.
        """
        try:
            directory_fd = tree.directory(directory, create=True)
            os.symlink(link.target, name, dir_fd=directory_fd)
        except (FileNotFoundError, NotFound):
            tree.forget()
            directory_fd = tree.directory(directory, create=True)
            os.symlink(link.target, name, dir_fd=directory_fd)
        return directory_fd

    def _is_there(self, directory_fd: int, name: bytes, link: Symlink, status: FileStatus) -> Linked | None:
        """Return how a symlink ends whose name is taken; None if it replaces what has that status."""
        if not stat.S_ISLNK(status.st_mode):
            kind = kind_of(status.st_mode) or "file"
            raise Conflict(
                f"{display_name(link.path)}: there is a {kind} of that name, which a symlink does not replace"
            )
        same_time = link.mtime_ns is not None and status.st_mtime_ns == link.mtime_ns
        if os.readlink(name, dir_fd=directory_fd) == link.target and (self.origin is None or same_time):
            return Linked.ALREADY_THERE
        if self.policy is OnConflict.SKIP:
            return Linked.SKIPPED
        self._may_replace(link, status)
        return None

    def _may_replace(self, link: Symlink, status: FileStatus) -> None:
        """Raise `Conflict` if the symlink that is there must not be replaced: it may be from another source."""
        shown = display_name(link.path)
        if self.policy is not OnConflict.REPLACE:
            raise Conflict(f"{shown}: there is another symlink of that name")
        if status.st_ctime_ns + coarseness_ns(status.st_ctime_ns) >= self.earliest_ns():
            raise Conflict(f"{shown}: another symlink of that name arrived there during this run")


def _nothing(_directory_fd: int, _name: bytes) -> None:
    """Leave the owner as it is."""


def _needs_whole(tree: Tree, links: Sequence[Symlink]) -> bool:
    """Return whether these symlinks need a syncfs(2); see the module's docstring."""
    if len(links) > FSYNC_MAX_FILES or any(len(link.target) > MAX_INLINE_TARGET_BYTES for link in links):
        return True
    return file_system(tree.root_fd) == BTRFS


def _set_time(directory_fd: int, name: bytes, mtime_ns: int | None) -> None:
    """Set the modification time of a symlink; ignored where the file system does not support it."""
    if mtime_ns is None:
        return
    try:
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=directory_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_TIMES:
            raise


def _renew(directory_fd: int, name: bytes, link: Symlink, status: FileStatus, *, changes_time: bool) -> bool:
    """Let a symlink look as if it had just arrived; return False if it may not be changed, or is another one by now.

    Whoever has read it before, to move it away, will not remove it then; see
    `realize.store.local.existing.Vouching.vouch`.
    """
    mtime_ns = link.mtime_ns if changes_time and link.mtime_ns is not None else status.st_mtime_ns
    try:
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=directory_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_TIMES | {errno.EACCES, errno.EROFS}:
            raise
        return False
    after = fresh_stat(name, directory_fd)
    return identity_of(after) == identity_of(status) and os.readlink(name, dir_fd=directory_fd) == link.target


def _replace(directory_fd: int, name: bytes, link: Symlink, status: FileStatus) -> bool:
    """Put a symlink in the place of the one with that status; return False if something else has the name by now."""
    temporary = names.temporary_link_name(name)
    os.symlink(link.target, temporary, dir_fd=directory_fd)
    ours = identity_of(os.stat(temporary, dir_fd=directory_fd, follow_symlinks=False))
    try:
        _set_time(directory_fd, temporary, link.mtime_ns)
        if not rename_exchange(directory_fd, temporary, name):
            raise Conflict(
                f"{display_name(link.path)}: there is another symlink of that name, "
                "and this file system cannot replace it in one step"
            )
        former = os.stat(temporary, dir_fd=directory_fd, follow_symlinks=False)
        # Not the change time: the exchange itself changes it.
        seen = (status.st_mode, status.st_size, status.st_mtime_ns)
        if identity_of(former) == identity_of(status) and seen == (
            former.st_mode,
            former.st_size,
            former.st_mtime_ns,
        ):
            os.unlink(temporary, dir_fd=directory_fd)
            return True
        _give_back(directory_fd, temporary, name)
        return False
    finally:
        _discard(directory_fd, temporary, ours)


def _give_back(directory_fd: int, temporary: bytes, name: bytes) -> None:
    """Give its own name back to what has lost it by mistake."""
    try:
        rename_exchange(directory_fd, temporary, name)
    except FileNotFoundError:
        rename_noreplace(directory_fd, temporary, name)


def _discard(directory_fd: int, temporary: bytes, ours: Inode) -> None:
    """Remove our temporary symlink, if it is still there; never what has changed places with it."""
    with contextlib.suppress(OSError):
        if identity_of(os.stat(temporary, dir_fd=directory_fd, follow_symlinks=False)) == ours:
            os.unlink(temporary, dir_fd=directory_fd)
