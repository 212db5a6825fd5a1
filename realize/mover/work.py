"""What every part of the mover works with: the two sides, the options, and errors that know their side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from attrs import evolve, field, frozen

from realize.by_value import ByValue
from realize.errors import (
    AccessDenied,
    Busy,
    ConnectionFailed,
    NoSpace,
    NotFound,
    ProtocolError,
    RealizeError,
    StorageError,
    Unanswered,
    Unsettled,
)
from realize.mover.allowance import Allowance
from realize.mover.directories import Directories
from realize.mover.events import End, Finished, Observer, Unknown
from realize.mover.filters import Selection
from realize.mover.history import RunHistory
from realize.mover.interfaces import Arrived, Feed, IManifest, Names, Sorting
from realize.mover.plan import Action
from realize.mover.progress import Progress
from realize.mover.scarcity import Scarcity
from realize.mover.stop_flag import StopFlag
from realize.store.interfaces import IStore
from realize.units import display_name
from realize.values import (
    USUALLY_PRESERVED,
    Entry,
    Existing,
    OnConflict,
    Order,
    Preserve,
    Removal,
    Stored,
    Version,
    preserving,
)

if TYPE_CHECKING:
    from realize.mover.keeping import Keeping

SPENT: Final = "the limit of bytes to send was reached"
"""Why a run ends early that has sent all that it may."""

FATAL_ERRORS: Final = (AccessDenied, ConnectionFailed, ProtocolError)
"""Errors of one file that all other files on that side would get too."""


@frozen(eq=False, repr=False)
class Side(ByValue):
    """A store, and its location as the user wrote it.

    ``into`` is for a source only: the store that writes to the destination what comes from this source, or None if
    that is the destination's own store.
    ``feed``, for a source, says which files are moved; None: all that its store lists.
    """

    store: IStore
    name: str
    into: IStore | None = None
    feed: Feed | None = None


@frozen(eq=False, repr=False)
class TransferOptions(ByValue):
    """What the user asked for.

    ``jobs`` is how many files too large for a batch are in flight at once; batches of small files come on top of that.
    """

    remove: bool = True
    policy: OnConflict = OnConflict.RENAME
    policy_asked: bool = False
    """Whether the policy was asked for; else it is a default, and gives way where the destination does not know it."""
    preserve: frozenset[Preserve] = field(default=USUALLY_PRESERVED, converter=preserving)
    """What is carried over besides the content."""
    numeric_ids: bool = False
    """Whether owners and groups are carried over by number, whatever their names."""
    best_effort: bool = False
    """Whether a file is moved even if some of that cannot be kept; else it stays."""
    jobs: int = 4
    selection: Selection = field(factory=Selection)
    one_file_system: bool = False
    """Whether directories of the source that are on another file system than the source itself are left alone."""
    order: Order | None = None
    """Which files of a source go first; None: in path order."""
    dry_run: bool = False
    prune_age_ns: int | None = None
    """Remove directories of the source that are empty and at least this old (since their last change); None: never."""
    links: bool = False
    """Whether symlinks are moved, as they are."""


@frozen(eq=False, repr=False)
class Work(ByValue):
    """One source being moved into the destination.

    ``name`` is the name of the source, for the manifest.
    ``directories`` are the directories of the source whose permissions and times are copied, or None to copy none.
    ``feed``, or ``names``, say which files are moved, if not all that the source lists.
    ``unsure`` collects the files whose removal at the source was asked for but never answered.
    """

    source: IStore
    destination: IStore
    options: TransferOptions
    emit: Observer
    history: RunHistory
    stop_flag: StopFlag = field(factory=StopFlag)
    name: str = ""
    manifest: IManifest | None = None
    scarcity: Scarcity = field(factory=Scarcity)
    directories: Directories | None = None
    unsure: list[Finished] = field(factory=list)
    progress: Progress = field(factory=Progress)
    allowance: Allowance | None = None
    """What may still be sent; None: all."""
    feed: Feed | None = None
    names: Names | None = None
    sorting: Callable[[], Sorting] | None = None
    """Makes what sorts a listing, if the files go in an order, or hard links are kept."""
    hard_links: bool = False
    """Whether names of one file become names of one file: that is asked for, and both ends know how."""
    removals: dict[bytes, Version] | None = None
    """Collects what is to be removed later, as the version that has arrived; None: it is removed at once."""
    keeping: Keeping | None = None
    """What else is carried over, or not; None: permission bits and times are, or nothing."""

    @property
    def settles(self) -> bool:
        """Whether a file only moves once it was unchanged for a while."""
        return self.feed is not None or self.options.selection.min_age_ns > 0

    def changed_since(self, listed: Entry, version: Version, *, size: int | None = None) -> Unsettled | None:
        """The error for a file that only moves once it was unchanged for a while, and has changed since it was listed.

        Its turn may come hours later, when somebody writes to it again.
        ``size`` is what a listing would say of that version, None if that is its own size.
        """
        size = version.size if size is None else size
        if not self.settles or (listed.size, listed.mtime_ns) == (size, version.mtime_ns):
            return None
        return Unsettled(f"{display_name(listed.path)}: changed before its turn came; a later run moves it")

    def spent(self) -> None:
        """Say that something stays since no more may be sent; nothing new is started then."""
        self.stop_flag.reached(SPENT)

    async def arrived(self, files: Sequence[Arrived]) -> None:
        """Record files as arrived; await this before removing them at the source."""
        if self.manifest is not None and files:
            await self.manifest.durable(self.name, files)

    def kept(self, files: Sequence[Arrived]) -> None:
        """Record files that arrived at the destination and stay at the source."""
        if self.manifest is not None and files:
            # Nothing depends on the result: if it could not be recorded, the manifest itself says so at the end.
            self.manifest.durable(self.name, files).addErrback(lambda _: None)

    async def remove(self, removals: Sequence[Removal]) -> list[RealizeError | None]:
        """Remove files at the source; for each, why it stays, or None if it is gone (even if it was gone before).

        Raises `StoreFailed` if the source refuses the whole call.
        """
        with whole(End.SOURCE):
            refusals = await self.source.remove(removals)
        return [None if isinstance(refused, NotFound) else _arrived(refused) for refused in refusals]

    def removed(self, files: Sequence[Arrived]) -> None:
        """Record files as removed at the source."""
        if self.manifest is not None and files:
            self.manifest.removed(self.name, files)

    def unknown(self, files: Sequence[Arrived]) -> list[Unknown]:
        """Record files that were sent without an answer; returns the event for each."""
        if self.manifest is not None and files:
            self.manifest.unknown(self.name, files)
        return [Unknown(each.path, each.size, each.size, None) for each in files]

    def removal_unknown(self, finished: Finished) -> Unknown:
        """Note that the removal of a file that has arrived was not answered; returns the event for it."""
        self.unsure.append(evolve(finished, sent=0, removed=True))
        return Unknown(finished.path, finished.size, finished.sent, finished.how)

    def policy(self, existing: Existing, action: Action) -> OnConflict:
        """The policy for another file that the destination finds at commit.

        One that was not seen is never replaced, nor is a second name given because of it: it may be the same file.
        What this run has stored itself from an earlier version is replaced, where both files are to be kept.
        """
        policy = self.options.policy
        free = existing.final_size is None and not existing.obstacle
        if free and policy in {OnConflict.REPLACE, OnConflict.RENAME}:
            return OnConflict.FAIL
        return OnConflict.REPLACE if action is Action.REPLACE else policy


class SideError(Exception):
    """An error, and the side it happened on; never leaves the mover.

    ``stored`` is what this run had stored at the destination from the same source file before the error.
    """

    def __init__(self, end: End, error: RealizeError, *, stored: Stored | None = None) -> None:
        super().__init__(end, error)
        self.end = end
        self.error = error
        self.stored = stored
        self.in_vain = False
        """Whether content was sent for nothing, as when the destination turned out to be full."""

    @property
    def cause(self) -> RealizeError:
        """The error to show to people: for a missing answer, why it is missing."""
        why = self.error.__cause__ if isinstance(self.error, Unanswered) else None
        return why if isinstance(why, RealizeError) else self.error

    @property
    def no_room(self) -> bool:
        """Whether the destination is full."""
        return self.end is End.DESTINATION and isinstance(self.error, NoSpace)

    @property
    def fatal(self) -> bool:
        """Whether all other files of the source would fail in the same way."""
        return isinstance(self.error, FATAL_ERRORS)


class StoreFailed(SideError):
    """The store as a whole refused, not one file of it."""

    @property
    def fatal(self) -> bool:
        """Always True: the store would refuse the next call too."""
        return True


def _arrived(refused: RealizeError | None) -> RealizeError | None:
    """The refusal to remove a file, with a hint that unlike other files that fail, it is now on both sides."""
    return type(refused)(f"{refused}; it has arrived at the destination") if type(refused) is StorageError else refused


def just_arrived(path: bytes) -> Busy:
    """The error for a file that appeared under this name between `describe` and the commit; a retry looks again."""
    return Busy(f"{display_name(path)}: a file of this name has just arrived there")


@contextmanager
def at(end: End) -> Iterator[None]:
    """Turn a `RealizeError` in this block into a `SideError`: it concerns one file on that side."""
    try:
        yield
    except RealizeError as error:
        raise SideError(end, error) from error


@contextmanager
def whole(end: End) -> Iterator[None]:
    """Turn a `RealizeError` in this block into a `StoreFailed`: it concerns that store as a whole."""
    try:
        yield
    except RealizeError as error:
        raise StoreFailed(end, error) from error
