"""What every part of the mover works with: the two sides, the options, and trouble that knows its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from attrs import evolve, field, frozen

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
)
from realize.mover.brake import Brake
from realize.mover.directories import Directories
from realize.mover.events import End, Finished, Observer, Unknown
from realize.mover.filters import Selection
from realize.mover.interfaces import Arrived, IManifest
from realize.mover.progress import Progress
from realize.mover.scarcity import Scarcity
from realize.store.interfaces import IStore
from realize.units import display_name
from realize.values import Existing, OnConflict, Removal, Stored

HOPELESS: Final = (AccessDenied, ConnectionFailed, ProtocolError)
"""When one of these befalls a file, it would befall all others of that side too."""


@frozen
class Side:
    """A store and its location as the user wrote it.

    ``into`` is, for a source, the destination as a store for what comes from there; None if that is no other one.
    """

    store: IStore
    name: str
    into: IStore | None = None


@frozen
class MoveOptions:
    """What the user asked for.

    ``jobs`` is how many files are in flight that do not fit one command; batches of smaller ones are under way besides.
    """

    remove: bool = True
    policy: OnConflict = OnConflict.REPLACE
    preserve: bool = True
    jobs: int = 4
    selection: Selection = field(factory=Selection)
    dry_run: bool = False
    prune_age_ns: int | None = None
    """Remove directories of the source that are empty and have not changed for so long; None to remove none."""


@frozen
class Work:
    """One source on its way into the destination.

    ``taken_since_ns`` is when the run began, by the destination's clock: a file that arrived since then came from an
    earlier source, from somebody else, or from a name that the destination does not tell from this one (its file system
    may fold case), and is not replaced.
    ``sent`` is what this run has made there of an earlier version of the file, and the newer one may replace.
    ``name`` is that of the source, for the manifest.
    ``directories`` are those of the source whose permissions and times are carried over; None to carry none over.
    ``unsure`` gathers what was, perhaps, removed: no answer came.
    """

    source: IStore
    destination: IStore
    options: MoveOptions
    emit: Observer
    taken_since_ns: int
    brake: Brake = field(factory=Brake)
    name: str = ""
    manifest: IManifest | None = None
    sent: Stored | None = None
    scarcity: Scarcity = field(factory=Scarcity)
    directories: Directories | None = None
    unsure: list[Finished] = field(factory=list)
    progress: Progress = field(factory=Progress)

    async def arrived(self, files: Sequence[Arrived]) -> None:
        """To be called, and waited for, before these files are removed at the source."""
        if self.manifest is not None and files:
            await self.manifest.durable(self.name, files)

    def kept(self, files: Sequence[Arrived]) -> None:
        """To be called when these files are at the destination, and stay at the source."""
        if self.manifest is not None and files:
            # Nothing depends on it; and of what could not be recorded, the manifest says so itself at the end.
            self.manifest.durable(self.name, files).addErrback(lambda _: None)

    async def remove(self, removals: Sequence[Removal]) -> list[RealizeError | None]:
        """Remove files at the source; why each of them stays, None for one that does not, also if it was gone."""
        with whole(End.SOURCE):
            refusals = await self.source.remove(removals)
        return [None if isinstance(refused, NotFound) else _arrived(refused) for refused in refusals]

    def removed(self, files: Sequence[Arrived]) -> None:
        """To be called when they are removed."""
        if self.manifest is not None and files:
            self.manifest.removed(self.name, files)

    def unknown(self, files: Sequence[Arrived]) -> list[Unknown]:
        """What is said of files that were sent, when no answer came."""
        if self.manifest is not None and files:
            self.manifest.unknown(self.name, files)
        return [Unknown(each.path, each.size, each.size, None) for each in files]

    def removal_unknown(self, finished: Finished) -> Unknown:
        """What is said of a file that is at the destination, when no answer came to its removal."""
        self.unsure.append(evolve(finished, sent=0, removed=True))
        return Unknown(finished.path, finished.size, finished.sent, finished.how)

    def policy(self, existing: Existing) -> OnConflict:
        """How the destination is to treat another file when it comes to commit: never replace what was not seen."""
        if self.options.policy is OnConflict.REPLACE and existing.final_size is None:
            return OnConflict.FAIL
        return self.options.policy


class SideError(Exception):
    """An error, and the end it happened at; never leaves the mover.

    ``sent`` is what this run has made at the destination of the same source before that.
    """

    def __init__(self, end: End, error: RealizeError, *, sent: Stored | None = None) -> None:
        super().__init__(end, error)
        self.end = end
        self.error = error
        self.sent = sent
        self.in_vain = False
        """Whether content was sent for nothing."""

    @property
    def cause(self) -> RealizeError:
        """The error, or why no answer came, for people."""
        why = self.error.__cause__ if isinstance(self.error, Unanswered) else None
        return why if isinstance(why, RealizeError) else self.error

    @property
    def no_room(self) -> bool:
        """Whether the destination is full."""
        return self.end is End.DESTINATION and isinstance(self.error, NoSpace)

    @property
    def hopeless(self) -> bool:
        """Whether the other files of the source would fail the same way."""
        return isinstance(self.error, HOPELESS)


class StoreFailed(SideError):
    """The store as a whole refused, not one file of it."""

    @property
    def hopeless(self) -> bool:
        """Always: the next call would be refused too."""
        return True


def _arrived(refused: RealizeError | None) -> RealizeError | None:
    """Why a file stays that is at the destination now: unlike others that fail, it is at both ends."""
    return type(refused)(f"{refused}; it has arrived at the destination") if type(refused) is StorageError else refused


def just_arrived(path: bytes) -> Busy:
    """The error for a name under which a file appeared between looking and committing: look again."""
    return Busy(f"{display_name(path)}: a file of this name has just arrived there")


@contextmanager
def at(end: End) -> Iterator[None]:
    """Errors in this block concern one file at that end."""
    try:
        yield
    except RealizeError as error:
        raise SideError(end, error) from error


@contextmanager
def whole(end: End) -> Iterator[None]:
    """Errors in this block concern the store at that end as a whole."""
    try:
        yield
    except RealizeError as error:
        raise StoreFailed(end, error) from error
