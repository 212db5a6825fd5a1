"""What the mover says while it works: frozen events, for one observer, in the order in which they happen."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen

from realize.errors import RealizeError
from realize.mover.plan import Action


class End(enum.Enum):
    """Which of the two stores something happened at."""

    SOURCE = "source"
    DESTINATION = "destination"


class How(enum.Enum):
    """How the work on a file ended well."""

    CREATED = "created"
    """Sent; the destination had no file of that name."""
    REPLACED = "replaced"
    """Sent; it took the place of another file."""
    ALREADY_THERE = "already there"
    """Not sent; the destination had the same content."""
    SKIPPED = "skipped"
    """Left in place; the destination has another file of that name and the policy is to skip."""
    GONE = "gone"
    """Somebody else removed or moved it before its turn came."""


@frozen
class SourceStarted:
    """Work on one of the sources begins; both names are locations as the user wrote them."""

    source: str
    destination: str


@frozen
class Found:
    """The listing came across this many more files to work on, of this many bytes together."""

    files: int
    size: int


@frozen
class Listed:
    """All that there is to find has been found."""


@frozen
class Planned:
    """A dry run says what would be done with a file."""

    path: bytes
    size: int
    action: Action


@frozen
class Started:
    """A file that does not fit one command is on its way; ``have`` bytes were there already and matched."""

    path: bytes
    size: int
    have: int


@frozen
class Progressed:
    """This many more bytes of the content of a file have gone over to the destination.

    ``found`` of them did not travel: it took them from the old version of the file.
    Said of large files, which were said to be started, and of small ones that take long; what was not said of a file by
    then comes with its end.
    """

    path: bytes
    amount: int
    found: int = 0


@frozen
class Stopped:
    """A started file stopped on its way; ``reached`` bytes of ``size`` are durable there, None if nobody told."""

    path: bytes
    size: int
    reached: int | None


@frozen
class Unknown:
    """No answer came any more, so nobody here knows what became of a file.

    ``how`` says that it is whole and durable at the destination, and only its removal is uncertain; it is None if that
    is uncertain too, and then it is still at the source.
    ``sent`` is how many bytes of it travelled.
    """

    path: bytes
    size: int
    sent: int
    how: How | None


@frozen
class UnderWay:
    """So many small files more, or fewer, are on their way; what became of them is told before the latter."""

    files: int


@frozen
class Finished:
    """A file is whole, verified and durable at the destination, and removed from the source if that was asked for.

    ``size`` is that of the file, ``sent`` how many bytes of it travelled, ``digest`` its BLAKE3 (empty where no content
    was looked at).
    """

    path: bytes
    size: int
    sent: int
    how: How
    digest: bytes
    removed: bool


@frozen
class Failed:
    """A file, directory or whole source could not be dealt with; it is still at the source."""

    path: bytes
    end: End
    error: RealizeError


@frozen
class Postponed:
    """A file could not be dealt with now and will be tried again at the end of this source."""

    path: bytes
    end: End
    error: RealizeError


@frozen
class Left:
    """Something that is not moved was left where it is: a symlink, device, socket or FIFO."""

    path: bytes
    note: str


@frozen
class HeldBack:
    """A file stays whose time lies in the future, so that it is not of the age asked for, and will not be for long."""

    path: bytes
    mtime_ns: int


@frozen
class Pruned:
    """A directory of the source that had long been empty was removed; or, in a dry run, it would be."""

    path: bytes
    removed: bool


@frozen
class PartialGone:
    """A partial at a destination of this machine was removed.

    It had gained nothing for long (``expired``), or stood in the way of another file.
    """

    path: bytes
    size: int
    expired: bool


@frozen
class NoRoom:
    """At the end of a run: so many files, of ``size`` bytes together, did not fit the destination.

    ``missing`` is how much more room they need: 0 if the file system seems to have enough, as with a quota, and None if
    it did not say.
    """

    files: int
    size: int
    missing: int | None


@frozen
class Retrying:
    """The connection was lost, or could not be made; what is not done is tried again in ``delay`` seconds."""

    error: RealizeError
    delay: float
    advice: str = ""
    """What may help, when it has been in vain for a while."""


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
    | Retrying
)
Observer: TypeAlias = Callable[[Event], None]
