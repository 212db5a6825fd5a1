"""Where a local store is: the root, the components below it, and the check that the root is still the same.

The root is a path given by the operator and may lead through symlinks.
It is opened by path for each batch of work and must be the same directory each time: after an unmount the path leads to
the empty mount point, where nothing may be written, and whose emptiness must not be taken for missing files.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from attrs import Factory, field, frozen

from realize.by_value import ByValue
from realize.errors import BadName, Conflict, NotFound, NotRegular, RealizeError, StorageError, Unavailable
from realize.fs import names
from realize.fs.ancestors import Ancestors
from realize.fs.descriptors import release
from realize.fs.identities import identity_token, identity_tokens_upwards
from realize.fs.oserrors import Deed, reason, storage_error, storage_errors
from realize.fs.own_files import OWN_FILES, is_own
from realize.fs.syscalls import kind_of
from realize.fs.tree import Inode, Tree, identity_of
from realize.store.local.partial_marks import refuse_ours
from realize.units import display_name
from realize.values import Backup, Where, WhereKind

ANOTHER_IN_ITS_PLACE: Final = "another directory is in its place: is its file system mounted?"
"""Why a directory that a daemon serves is not there, though its path leads to one."""


OWN_NOTE: Final = "belongs to Realize itself"
"""What messages say of a file that is one of `realize.fs.own_files`."""


def refused_as_own(path: bytes) -> BadName:
    """The error for a name of something that belongs to Realize itself."""
    return BadName(f"{display_name(path)}: {OWN_NOTE}")


def unavailable(shown: bytes, why: str) -> Unavailable:
    """The error for a directory of that name, which a daemon serves, and which is not there now."""
    return Unavailable(f"directory {display_name(shown)} is not there now: {why}")


@frozen(eq=False, repr=False)
class Root(ByValue):
    """The directory that all names are relative to, and its identity when it was first seen."""

    path: bytes
    identity: Inode
    shown: bytes = field(default=Factory(lambda self: self.path, takes_self=True))
    """Its name in errors, since peers must not learn its path."""
    served: bool = False
    """Whether it belongs to a daemon, whose peers wait for it if it is not there."""
    ancestors: Ancestors = field(factory=Ancestors, eq=False, repr=False)

    @property
    def own(self) -> frozenset[tuple[bytes, ...]]:
        """What is in it and belongs to Realize itself, as known by now; see `realize.fs.own_files`."""
        return OWN_FILES.below(self.identity)

    def own_names(self, directory: tuple[bytes, ...]) -> frozenset[bytes]:
        """Return the names in a directory that belong to Realize itself, whether there is something or not."""
        own = self.own
        return frozenset(place[-1] for place in own if place[:-1] == directory) if own else frozenset()

    def refuse_own(self, components: tuple[bytes, ...]) -> None:
        """Raise `BadName` for what belongs to Realize itself."""
        own = self.own
        if own and is_own(own, components):
            raise refused_as_own(names.join(components))

    def tree(self, private_below: int | None = None, *, backups: bool = False) -> Tree:
        """Open the root for one batch of work; see `Tree` for ``private_below`` and ``backups``.

        Raises `StorageError`, or `Unavailable` if it is served, if it cannot be reached or is another directory by now.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            if identity_of(os.fstat(fd)) != self.identity:
                raise self._changed()  # noqa: TRY301
            return Tree(fd, self.identity, self.ancestors, private_below, backups=backups)
        except OSError as error:
            release(fd)
            raise self._unreachable(error) from error
        except BaseException:
            release(fd)
            raise

    def _unreachable(self, error: OSError) -> RealizeError:
        if self.served:
            return unavailable(self.shown, reason(error, Deed.OPEN))
        return _unreachable(self.shown, error)

    def _changed(self) -> RealizeError:
        if self.served:
            return unavailable(self.shown, ANOTHER_IN_ITS_PLACE)
        return StorageError(
            f"{display_name(self.shown)}: is not the directory that it was; is its file system still mounted?"
        )


@frozen(eq=False, repr=False)
class BackupPlace(ByValue):
    """Where backups go: the directory ``below`` a root, under the path that a file has below its first ``base`` ones.

    ``base`` is a number of components.
    With ``own``, it is the place of the daemon, of which peers learn nothing.
    """

    below: tuple[bytes, ...]
    base: int = 0
    own: bool = False

    def of(self, directory: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return the directory for the backups of a directory below the root."""
        return self.below + directory[self.base :]

    def backup(self, directory: tuple[bytes, ...], name: bytes) -> Backup:
        """Return what is to be said of the backup of that name, of a file of that directory."""
        return Backup(names.join((*directory[self.base :], name)), self.own)


class Backups:
    """Where the daemon keeps what is replaced in a directory, which a reload may change while peers are connected."""

    def __init__(self, place: BackupPlace | None = None) -> None:
        self.place = place
        self.max_age_s: float | None = None
        """Seconds after which a backup is removed; None: never."""


@frozen(eq=False, repr=False)
class RootedLocation(ByValue):
    """A directory below a root, or (``only``) one file of it.

    ``backups`` is where what is replaced goes; None if it is not kept.
    """

    root: Root
    base: tuple[bytes, ...]
    only: bytes | None = None
    backups: BackupPlace | None = None

    def tree(self, *, private: bool = False) -> Tree:
        """Open the root for one batch of work.

        With ``private``, directories made on demand below the location are accessible to their owner alone.
        """
        return self.root.tree(len(self.base) if private else None)

    @property
    def shown(self) -> bytes:
        """The directory's name in errors."""
        return names.join(self.base) or self.root.shown

    def split(self, path: bytes) -> tuple[tuple[bytes, ...], bytes]:
        """Validate a name; return its directory below the root, and its last component.

        Raises `BadName`, also for what belongs to Realize itself, or `NotFound` if the location is a single file of
        another name.
        """
        above, name = names.parted(path)
        if self.only is not None and (above or name != self.only):
            raise NotFound(f"{display_name(path)}: the location is the single file {display_name(self.only)}")
        directory = self.base + above
        own = OWN_FILES.below(self.root.identity)  # not by `Root.own`: this is called several times for each file
        if own and is_own(own, (*directory, name)):
            raise refused_as_own(path)
        return directory, name

    def is_own(self, path: bytes) -> bool:
        """Whether a name is that of something that belongs to Realize itself; `split` refuses it."""
        return bool(self.root.own) and is_own(self.root.own, self.base + names.components(path))

    def where(self, salt: bytes, now_ns: int) -> Where:
        """Return what the location is now, and the identity tokens of it and the directories above it."""
        with self.tree() as tree:
            if self.only is not None:
                return self._where_file(tree, salt, now_ns)
            fd, nearest = tree.nearest(self.base)
            there = nearest == self.base
            with storage_errors(names.join(nearest) or self.root.shown):
                mode = os.fstat(fd).st_mode & 0o777 if there else None
                kind = WhereKind.DIRECTORY if there else WhereKind.ABSENT
                return Where(kind=kind, identities=identity_tokens_upwards(salt, fd), now_ns=now_ns, mode=mode)

    def _where_file(self, tree: Tree, salt: bytes, now_ns: int) -> Where:
        assert self.only is not None  # noqa: S101 -- for the type checker
        fd = tree.directory(self.base)
        with storage_errors(self.only):
            status = os.stat(self.only, dir_fd=fd, follow_symlinks=False)
            identities = (identity_token(salt, identity_of(status)), *identity_tokens_upwards(salt, fd))
            return Where(kind=WhereKind.FILE, identities=identities, now_ns=now_ns)


def locate(root: bytes, base: bytes, expected: Inode | None, shown: bytes | None = None) -> RootedLocation:
    """Return the location ``base`` below ``root``; errors call the root by its path, or ``shown``.

    ``expected`` is the identity that the root must have; it is required for a served directory.
    Without it the root may be a file, or missing: then it is made on demand.
    """
    components = names.judge(base) if base else ()
    if expected is None:
        located = _locate_freely(root, components)
    else:
        located = RootedLocation(Root(root, expected, shown or root, served=True), components)
    located.root.refuse_own(located.base)
    return _narrow_to_file(located)


def _locate_freely(path: bytes, components: tuple[bytes, ...]) -> RootedLocation:
    """Return the location of any path: the nearest existing directory is the root, the rest precedes ``components``."""
    real = os.path.realpath(path)
    below: tuple[bytes, ...] = ()
    while True:
        try:
            status = os.stat(real)
        except (FileNotFoundError, NotADirectoryError):
            pass  # what is above it says more
        except OSError as error:
            raise _unreachable(path, error) from error
        else:
            if stat.S_ISDIR(status.st_mode):
                return RootedLocation(Root(real, identity_of(status), real), below + components)
            if below or components:
                raise Conflict(f"{display_name(real)}: is not a directory")
        real, name = os.path.split(real)
        below = (name, *below)


def _narrow_to_file(located: RootedLocation) -> RootedLocation:
    """Return the same location, or, if it is a file, its parent directory with ``only`` that file."""
    if not located.base:
        return located
    *parent, name = located.base
    with located.tree() as tree:
        try:
            fd = tree.directory(tuple(parent))
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, NotFound):
            return located
        except OSError as error:
            raise storage_error(error, names.join(located.base)) from error
        refuse_ours(fd, name, status, names.join(located.base))
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return RootedLocation(located.root, tuple(parent), name)
    if not stat.S_ISDIR(mode):
        raise NotRegular(f"{display_name(names.join(located.base))}: is a {kind_of(mode)}")
    return located


def _unreachable(path: bytes, error: OSError) -> StorageError:
    found = storage_error(error, path, Deed.OPEN)
    return found if isinstance(found, StorageError) else StorageError(str(found))
