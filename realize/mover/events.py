"""What the mover reports while it works: frozen events, for one observer, in the order in which they happen."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeAlias

from realize.by_value import ByValue
from realize.errors import RealizeError
from realize.mover.plan import Action
from realize.values import Preserve, frozen


class End(enum.Enum):
    """Which of the two stores something happened at."""

    SOURCE = "source"
    DESTINATION = "destination"


class How(enum.Enum):
    """How a file ended, if not with an error."""

    __hash__ = object.__hash__  # as good as that of `enum.Enum`, which is in Python, and called for each file

    CREATED = "created"
    """Sent; the destination had no file of that name."""
    REPLACED = "replaced"
    """Sent; it replaced another file."""
    ALREADY_THERE = "already there"
    """Not sent; the destination had the same content."""
    RENAMED = "renamed"
    """Sent; something else has its name at the destination, and both are kept: it has a numbered name there."""
    SKIPPED = "skipped"
    """Left in place; the destination has another file of that name and the policy is to skip."""
    GONE = "gone"
    """Somebody else removed or moved it before its turn came."""


@frozen(eq=False, repr=False)
class SourceStarted(ByValue):
    """Work on one of the sources begins; both names are locations as the user wrote them."""

    source: str
    destination: str


@frozen(eq=False, repr=False)
class Found(ByValue):
    """The listing found this many more files to move, with this many bytes in total."""

    files: int
    size: int


@frozen(eq=False, repr=False)
class Listed(ByValue):
    """All sources are listed: no more `Found` follows."""


@frozen(eq=False, repr=False)
class Planned(ByValue):
    """What a dry run would do with a file, or with a symlink, which has a ``target``.

    ``stored_as`` is the name that it would have at the destination, if that is another one; ``linked_to`` is another
    name of the same file, of which it would be a hard link.
    """

    path: bytes
    size: int
    action: Action
    stored_as: bytes = b""
    target: bytes | None = None
    linked_to: bytes = b""


@frozen(eq=False, repr=False)
class Started(ByValue):
    """Sending of a file too large for a batch has started; the destination had ``have`` bytes of it already."""

    path: bytes
    size: int
    have: int


@frozen(eq=False, repr=False)
class Progressed(ByValue):
    """``amount`` more bytes of the content of a file are at the destination.

    ``found`` of them did not travel: the destination copied them from the old version of the file, or they are holes.
    Emitted for large files, after their `Started`, and for small files that take long.
    Bytes that were not reported so are part of the event that ends the file.
    """

    path: bytes
    amount: int
    found: int = 0


@frozen(eq=False, repr=False)
class Stopped(ByValue):
    """A file was started and not completed; ``reached`` of its ``size`` bytes are durable there, None if unknown."""

    path: bytes
    size: int
    reached: int | None


@frozen(eq=False, repr=False)
class Unknown(ByValue):
    """It is unknown what became of a file, because an answer never came.

    With ``how``, the file is complete and durable at the destination, and only its removal at the source is unknown.
    If ``how`` is None, it is unknown whether the file arrived, and it is still at the source.
    ``sent`` is how many bytes of it travelled.
    """

    path: bytes
    size: int
    sent: int
    how: How | None


@frozen(eq=False, repr=False)
class UnderWay(ByValue):
    """``files`` more small files are in flight (fewer if negative); their outcomes are emitted before the decrease."""

    files: int


@frozen(eq=False, repr=False)
class Finished(ByValue):
    """The work on a file ended without an error: ``how`` says how, ``removed`` whether it was removed at the source.

    Where it is removed, it is complete, verified and durable at the destination.
    ``size`` is the size of the file in bytes, ``sent`` how many of them travelled, ``holes`` how many were left out as
    holes, and ``digest`` its BLAKE3 hash (empty if its content was not read).
    ``stored_as`` is its name at the destination, if that is another one: a numbered one, since its own was taken.
    ``backup`` is where the file is now that it replaced, below the directory for backups of this move, if it has one.
    A symlink has a ``target``, no digest, and counts as 0 bytes.
    ``linked_to`` is the name at the destination of which it is a hard link there, if it was made one or was one.
    """

    path: bytes
    size: int
    sent: int
    how: How
    digest: bytes
    removed: bool
    stored_as: bytes = b""
    target: bytes | None = None
    holes: int = 0
    backup: bytes = b""
    linked_to: bytes = b""


@frozen(eq=False, repr=False)
class Failed(ByValue):
    """A file, directory or whole source (path empty) could not be moved; it is still at the source.

    ``found`` says whether it is one of the files that were `Found`.
    """

    path: bytes
    end: End
    error: RealizeError
    found: bool = True


@frozen(eq=False, repr=False)
class Postponed(ByValue):
    """A file could not be moved now, and will be tried again at the end of this source."""

    path: bytes
    end: End
    error: RealizeError


@frozen(eq=False, repr=False)
class Left(ByValue):
    """An entry that is not moved was left where it is: a device, socket or FIFO, or a symlink; ``note`` says why."""

    path: bytes
    note: str


@frozen(eq=False, repr=False)
class HeldBack(ByValue):
    """A file stays because of ``--min-age``: its time lies in the future, so it will not be old enough for long."""

    path: bytes
    mtime_ns: int


@frozen(eq=False, repr=False)
class Pruned(ByValue):
    """A directory of the source that had long been empty was removed, or would be in a dry run."""

    path: bytes
    removed: bool


@frozen(eq=False, repr=False)
class PartialGone(ByValue):
    """A partial at a destination of this machine was removed.

    Either nothing had been added to it for long (``expired``), or another file needed its space.
    """

    path: bytes
    size: int
    expired: bool


@frozen(eq=False, repr=False)
class NoRoom(ByValue):
    """At the end of a run: ``files`` files with ``size`` bytes in total did not fit the destination.

    ``missing`` is how many more bytes of free space they need: 0 if the file system reports enough, as with a quota,
    and None if it could not be asked.
    """

    files: int
    size: int
    missing: int | None


@frozen(eq=False, repr=False)
class OlderDestination(ByValue):
    """The destination is of an older version that cannot keep both of two files: what conflicts is skipped.

    Told once in a run, with the first file that is skipped because of that; who has asked to keep both gets an error.
    """


@frozen(eq=False, repr=False)
class NotPreserved(ByValue):
    """Something that was asked for cannot be kept of a file, which is moved all the same; ``why`` says why.

    Told once in a run for each kind, with the first file; the path is empty if it holds for all of them.
    """

    path: bytes
    kind: Preserve
    why: str


@frozen(eq=False, repr=False)
class NotCompressed(ByValue):
    """Content goes as it is, though compressing it was asked for: ``peer`` is of an older version, or says never.

    Told once in a run for each such peer, after it was connected to.
    """

    peer: str


@frozen(eq=False, repr=False)
class NoHardLinks(ByValue):
    """The peer at this end is of an older version and knows no hard links: a file with several names becomes several.

    Told once in a run, if hard links were to be kept.
    """

    end: End


@frozen(eq=False, repr=False)
class Retrying(ByValue):
    """The connection was lost or could not be made; the next attempt at the rest comes in ``delay`` seconds."""

    error: RealizeError
    delay: float
    advice: str = ""
    """What may help, after several attempts in vain; else empty."""


Event: TypeAlias = (
    SourceStarted
    | Found
    | Listed
    | Planned
    | Started
    | Progressed
    | Stopped
    | Unknown
    | UnderWay
    | Finished
    | Failed
    | Postponed
    | Left
    | HeldBack
    | Pruned
    | NoRoom
    | PartialGone
    | OlderDestination
    | NotPreserved
    | NotCompressed
    | NoHardLinks
    | Retrying
)
Observer: TypeAlias = Callable[[Event], None]
