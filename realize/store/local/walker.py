"""Walking everything below a location, a page at a time, in bounded memory.

`Walker` finds them as `WalkEntry` values, and lists them as `realize.values.Entry` values; `examine` and `entry_of` do
the same for one name.

Paths are sorted as bytes, those of directories with a slash at the end, as long as no directory has more than
`MAX_SORTED_NAMES` names.
A larger directory is read and sorted in runs of `MAX_SORTED_NAMES` names, and each run, with everything below it, comes
before the next.
Between pages we keep the sorted names of one run for each directory on the way down, and an open descriptor only for a
directory that has more runs to come.
For each page, directories are opened again, component by component from the root.
What vanishes meanwhile is skipped.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from attrs import define

from realize.by_value import ByValue
from realize.errors import BadName, Conflict, InternalError, NotFound, RealizeError, StorageError
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.identities import identity_token
from realize.fs.oserrors import Deed, reason, storage_error
from realize.fs.syscalls import kind_of
from realize.fs.tree import DIRECTORY_FLAGS, Tree, holds_backups, identity_of
from realize.leaving import Leaving
from realize.store.local.location import OWN_NOTE, RootedLocation
from realize.store.local.partial_marks import NOTE, is_ours
from realize.store.local.versions import attributes_of, representable
from realize.units import display_name
from realize.values import Entry, Kind, frozen

MAX_SORTED_NAMES: Final = 16_384
"""Names of one directory that are held and sorted at a time."""

PAGE_ENTRIES: Final = 500
"""Entries on a page."""

_FILE_SYSTEM_ENCODING: Final = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
"""What os.fsencode() goes by."""

OTHER_FILE_SYSTEM: Final = "directory on another file system"
"""The note of a directory that is not entered for that."""

_FRAME_OVERHEAD_BYTES: Final = 1024
_NAME_OVERHEAD_BYTES: Final = 48
_COMPONENT_OVERHEAD_BYTES: Final = 8


@frozen(eq=False, repr=False)
class WalkEntry(ByValue):
    """Something below the location; ``status`` is None if it could not be examined, and ``note`` says why.

    A directory that has a ``note`` is left, with all that is in it.
    A directory, once it could be opened, comes before what is in it.
    ``partial`` says that it is one of our partials.
    """

    path: bytes
    directory: tuple[bytes, ...]
    name: bytes
    status: os.stat_result | None
    note: str = ""
    partial: bool = False

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    @property
    def from_root(self) -> bytes:
        """The path relative to the root, where ``path`` is relative to the location."""
        return names.join((*self.directory, self.name))

    @property
    def size(self) -> int:
        """Size in bytes; 0 if it could not be examined."""
        return 0 if self.status is None else self.status.st_size


@define(eq=False, repr=False)
class _Frame:
    """A directory that is being walked; ``names`` is reversed, so the next one is the last."""

    directory: tuple[bytes, ...]
    prefix: bytes
    names: list[bytes]
    fd: int | None
    scan: os._ScandirIterator[str] | None
    size: int = 0
    """Bytes of the names in the current run."""

    @property
    def held(self) -> int:
        """Approximate memory use in bytes."""
        return (
            _FRAME_OVERHEAD_BYTES
            + self.size
            + _NAME_OVERHEAD_BYTES * len(self.names)
            + len(self.prefix)
            + _COMPONENT_OVERHEAD_BYTES * len(self.directory)
        )

    def close(self) -> None:
        if self.scan is not None:
            self.scan.close()
            self.scan = None
        fd, self.fd = self.fd, None
        if fd is not None:
            release(fd)


class Walker:
    """Walks everything below a location, depth first.

    ``salt``, ``partials``, ``avoid``, ``leave``, ``one_file_system``, ``links`` and ``hard_links`` are those of
    `realize.store.interfaces.IStore.walk`; without ``deep``, no directory below the location is entered.
    ``start`` is where to begin, below the location: only what has that name is walked, if it is there; paths are
    relative to the location all the same. Many walks that begin somewhere may share one `Leaving`, whose rules are
    compiled once.
    ``entering`` is called with the path and a descriptor of each directory, the location's own path being empty, before
    its names are read; it must not raise anything.
    Not thread-safe.
    """

    def __init__(
        self,
        location: RootedLocation,
        *,
        salt: bytes = b"",
        partials: bool = False,
        avoid: bytes = b"",
        leave: Sequence[bytes] | Leaving = (),
        one_file_system: bool = False,
        links: bool = False,
        hard_links: bool = False,
        deep: bool = True,
        start: tuple[bytes, ...] = (),
        entering: Callable[[bytes, int], object] | None = None,
    ) -> None:
        self._location = location
        self._start_below = start
        self._entering = entering
        self._salt = salt
        self._partials = partials
        self._avoid = avoid
        self._leaving = leave if isinstance(leave, Leaving) else Leaving(leave)
        self._own = location.root.own
        self._one_file_system = one_file_system
        self._device: int | None = None
        """That of the location, once it is known, if no other one is entered."""
        self._links = links
        self._inodes_salt = salt if hard_links else None
        self._deep = deep
        self._stack: list[_Frame] = []
        self._started = False
        self._names_read = 0
        """Names read for the current page."""
        self._failure: RealizeError | None = None

    @property
    def held(self) -> int:
        """Approximate number of bytes kept in memory between two pages."""
        return sum(frame.held for frame in self._stack) + self._leaving.held

    def page(self, limit: int = PAGE_ENTRIES) -> list[Entry]:
        """Return up to ``limit`` more entries, as `realize.store.interfaces.IStore.walk` lists them; see `found`."""
        partials, links, salt = self._partials, self._links, self._inodes_salt
        return [entry_of(each, partials=partials, links=links, inodes_salt=salt) for each in self.found(limit)]

    def found(self, limit: int) -> list[WalkEntry]:
        """Return up to ``limit`` more things that were found; an empty list is the end.

        The page is shorter if many names had to be read for it, since these are kept in memory.
        Raises an error if the location itself cannot be read, and after any failure the same error again.
        """
        if self._failure is not None:
            raise self._failure
        found: list[WalkEntry] = []
        try:
            with self._location.tree() as tree:
                if not self._started:
                    self._started = True
                    self._start(tree, found)
                self._names_read = 0
                while self._stack and len(found) < limit and (self._names_read < MAX_SORTED_NAMES or not found):
                    self._step(tree, self._stack[-1], found)
        except BaseException as error:
            # What was found so far is lost and would not be found again: going on would leave it out.
            self._failure = self._final(error)
            self.close()
            if self._failure is error:
                raise
            raise self._failure from error
        return found

    def close(self) -> None:
        """Give up the rest."""
        self._started = True
        while self._stack:
            self._stack.pop().close()

    def _start(self, tree: Tree, found: list[WalkEntry]) -> None:
        location = self._location
        if self._one_file_system and location.only is None:
            self._device = tree.identity(location.base)[0]
        if self._start_below:
            *above, name = self._start_below
            self._visit(tree, (*location.base, *above), name, names.join(self._start_below), found)
            return
        if location.only is None:
            self._descend(tree, location.base, b"", None, found)
            return
        fd = tree.directory(location.base)
        try:
            status = os.stat(location.only, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            raise storage_error(error, location.only, Deed.LOOK) from error
        partial = is_ours(fd, location.only, status)
        found.append(WalkEntry(location.only, location.base, location.only, status, partial=partial))

    def _step(self, tree: Tree, frame: _Frame, found: list[WalkEntry]) -> None:
        if not frame.names:
            if frame.scan is None:
                self._stack.pop().close()
            else:
                self._read_run(frame, found)
            return
        name = frame.names.pop()
        if not self._visit(tree, frame.directory, name, frame.prefix + name, found):
            self._stack.pop().close()

    def _visit(
        self, tree: Tree, directory: tuple[bytes, ...], name: bytes, path: bytes, found: list[WalkEntry]
    ) -> bool:
        """Take in what has that name, and descend if it is a directory; return False if its directory is of no use."""
        if self._own and (*directory, name) in self._own:
            return self._leave_own(directory, name, path, found)
        if name == names.BACKUP_MARK:
            return True
        try:
            directory_fd = tree.directory(directory)
        except NotFound:
            return False
        except RealizeError as error:
            found.append(WalkEntry(path, directory, name, None, reason_of(error)))
            return False
        there = examine(directory_fd, directory, name, path)
        if there is None:
            return True
        if there.status is None or not stat.S_ISDIR(there.status.st_mode) or self._leaving(path):
            found.append(there)
            return True
        if self._device is not None and there.status.st_dev != self._device:
            found.append(WalkEntry(path, directory, name, there.status, OTHER_FILE_SYSTEM))
            return True
        note = self._why_not(path, there.status)
        if note:
            found.append(WalkEntry(path, directory, name, None, note))
        else:
            self._descend(tree, (*directory, name), path + b"/", there, found)
        return True

    def _leave_own(self, directory: tuple[bytes, ...], name: bytes, path: bytes, found: list[WalkEntry]) -> bool:
        """Pass over what belongs to Realize itself: peers are not told of it, and users are told that it stays."""
        if not self._location.root.served:
            found.append(WalkEntry(path, directory, name, None, OWN_NOTE))
        return True

    def _why_not(self, path: bytes, status: os.stat_result) -> str:
        """Return the reason not to enter a directory, or an empty string."""
        try:
            names.judge(path)
        except BadName as error:
            return reason_of(error)
        if not self._deep:
            return "is not looked into"
        is_avoided = self._avoid and identity_token(self._salt, identity_of(status)) == self._avoid
        return "is the destination" if is_avoided else ""

    def _descend(
        self, tree: Tree, directory: tuple[bytes, ...], prefix: bytes, itself: WalkEntry | None, found: list[WalkEntry]
    ) -> None:
        """Continue with the content of a directory, unless it holds backups.

        ``itself`` is its own entry, None for the location.
        """
        try:
            fd = os.open(b".", DIRECTORY_FLAGS, dir_fd=tree.directory(directory))
        except (RealizeError, OSError) as error:
            ours = self._error(error, prefix) if isinstance(error, OSError) else error
            if not prefix:
                raise ours from error
            # The tree has refused it already if it holds backups, so only then that is asked once more.
            passed_over = isinstance(ours, BadName) and _refused_as_backups(tree, directory)
            if not passed_over and not isinstance(ours, NotFound):
                self._report(prefix, directory, reason_of(error), found)
            return
        try:
            frame = _Frame(directory, prefix, [], fd, None)
            self._stack.append(frame)
        except BaseException:
            release(fd)
            raise
        if self._entering is not None:
            self._entering(prefix[:-1], fd)
        try:
            frame.scan = os.scandir(fd)
        except OSError as error:
            self._stack.pop().close()
            self._fail(frame, error, found)
            return
        if itself is not None:
            found.append(itself)
        self._read_run(frame, found)

    def _read_run(self, frame: _Frame, found: list[WalkEntry]) -> None:
        assert frame.scan is not None  # noqa: S101 -- for the type checker
        run: list[tuple[bytes, bytes]] = []
        failed: OSError | None = None
        try:
            for entry in islice(frame.scan, MAX_SORTED_NAMES):
                name = entry.name.encode(*_FILE_SYSTEM_ENCODING)
                try:
                    run.append((name + b"/" if entry.is_dir(follow_symlinks=False) else name, name))
                except OSError:
                    run.append((name, name))  # examining it will tell what it is
        except OSError as error:
            failed = error
        if failed is not None or len(run) < MAX_SORTED_NAMES:
            frame.close()
        run.sort(reverse=True)
        frame.names = [name for _, name in run]
        frame.size = sum(map(len, frame.names))
        self._names_read += len(run)
        if failed is not None:
            self._fail(frame, failed, found)

    def _fail(self, frame: _Frame, error: OSError, found: list[WalkEntry]) -> None:
        if not frame.prefix:
            raise self._error(error) from error
        self._report(frame.prefix, frame.directory, reason_of(error), found)

    def _error(self, error: OSError | MemoryError, prefix: bytes = b"") -> RealizeError:
        return storage_error(error, prefix or self._location.shown, Deed.LIST)

    def _final(self, error: BaseException) -> RealizeError:
        """Return the error that a listing ended by ``error`` raises from then on."""
        if isinstance(error, RealizeError):
            return error
        if isinstance(error, OSError | MemoryError):
            return self._error(error)
        return InternalError(f"the listing was ended by {error!r}")

    def _report(self, prefix: bytes, directory: tuple[bytes, ...], note: str, found: list[WalkEntry]) -> None:
        found.append(WalkEntry(prefix[:-1], directory[:-1], directory[-1], None, note))


def examine(directory_fd: int, directory: tuple[bytes, ...], name: bytes, path: bytes) -> WalkEntry | None:
    """Return what has a name in that open directory, not following symlinks; None if there is nothing."""
    try:
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        return WalkEntry(path, directory, name, None, reason(error, Deed.LOOK))
    partial = names.is_partial(name) and is_ours(directory_fd, name, status)
    return WalkEntry(path, directory, name, status, partial=partial)


def examine_batch(
    location: RootedLocation,
    paths: Sequence[bytes],
    links: bool,  # noqa: FBT001 -- what runs in a thread is called like this
    inodes_salt: bytes | None = None,
) -> list[Entry | RealizeError]:
    """Return what a listing would have under each of these names, or an error; not following symlinks."""
    with location.tree() as tree:
        return [_examined(location, tree, path, links=links, inodes_salt=inodes_salt) for path in paths]


def _examined(
    location: RootedLocation, tree: Tree, path: bytes, *, links: bool, inodes_salt: bytes | None
) -> Entry | RealizeError:
    try:
        if not location.root.served and location.is_own(path):
            return Entry(path, Kind.LEFT, note=OWN_NOTE)
        directory, name = location.split(path)
        found = examine(tree.directory(directory), directory, name, path)
    except Conflict as error:  # what should be a directory is a file
        return NotFound(str(error))
    except RealizeError as error:
        return error
    if found is None:
        return NotFound(f"{display_name(path)}: there is no such file")
    return entry_of(found, links=links, inodes_salt=inodes_salt)


def entry_of(
    found: WalkEntry, *, partials: bool = False, links: bool = False, inodes_salt: bytes | None = None
) -> Entry:
    """Return what was found as a listing has it; without ``partials``, ours are among what is left alone.

    So are symlinks without ``links``, and those of ours in any case.
    With ``inodes_salt``, a file that has other names, too, has an identity token.
    """
    status = found.status
    if status is None:
        return Entry(found.path, Kind.LEFT if found.note == OWN_NOTE else Kind.UNREADABLE, note=found.note)
    is_file = stat.S_ISREG(status.st_mode)
    if not is_file and stat.S_ISDIR(status.st_mode):
        if found.note:
            return Entry(found.path, Kind.LEFT, note=found.note)
        attributes = attributes_of(status)
        return Entry(found.path, Kind.DIRECTORY, mtime_ns=attributes.mtime_ns, mode=attributes.mode)
    if found.partial:
        if not partials or not is_file:
            return Entry(found.path, Kind.LEFT, note=NOTE)
        final = found.path[: -len(found.name)] + names.final_name_of_partial(found.name)
        return Entry(final, Kind.PARTIAL, status.st_size, representable(status.st_mtime_ns))
    if not is_file and not (links and stat.S_ISLNK(status.st_mode)):
        return Entry(found.path, Kind.LEFT, note=kind_of(status.st_mode))
    try:
        names.parted(found.path)
    except BadName as error:
        return Entry(found.path, Kind.UNREADABLE, note=reason_of(error))
    if not is_file:
        return Entry(found.path, Kind.LINK, mtime_ns=representable(status.st_mtime_ns))
    mtime_ns = representable(status.st_mtime_ns)
    if inodes_salt is None or status.st_nlink == 1:
        return Entry(found.path, Kind.FILE, status.st_size, mtime_ns)
    token = identity_token(inodes_salt, identity_of(status))
    return Entry(found.path, Kind.FILE, status.st_size, mtime_ns, identity=token)


def reason_of(error: RealizeError | OSError) -> str:
    """Return why something cannot be listed, without the name at the start of the error: the entry has that."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    return reason(cause, Deed.LIST) if isinstance(cause, OSError) else str(error).rpartition(": ")[2]


def _refused_as_backups(tree: Tree, directory: tuple[bytes, ...]) -> bool:
    """Whether backups are why a directory could not be entered."""
    try:
        return holds_backups(tree.directory(directory[:-1]), directory[-1])
    except RealizeError:
        return False
