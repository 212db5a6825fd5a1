"""Every error that Realize reports on purpose.

One small tree below `RealizeError`.
Each class says three things about itself:

* ``wire_code``: the AMP error code that carries it between peers (``docs/protocol.md`` lists them);
* ``exit_code``: what the command exits with when the error ends a run;
* ``permanent``: whether trying again without changing anything is pointless.

The text of an error is one sentence for people.
It names the thing that is wrong; the code that reports it adds on which side it happened.
This module imports no other module of Realize but the exit codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from realize.exit_codes import ExitCode

if TYPE_CHECKING:
    from twisted.python.failure import Failure


class RealizeError(Exception):
    """Base of all errors that Realize raises on purpose."""

    wire_code: ClassVar[bytes] = b"INTERNAL"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED
    permanent: ClassVar[bool] = True


class UsageError(RealizeError):
    """The command line asks for something that makes no sense."""

    wire_code = b"USAGE"
    exit_code = ExitCode.USAGE


KeyPath = tuple[str | int, ...]
"""Where a value of a configuration is: names of tables and keys, indices of arrays."""

Problem = tuple[KeyPath, str]
"""Where a problem of a configuration is, and what was expected there."""


class ConfigError(RealizeError):
    """A configuration or key file, or a value of a configuration, is missing, unreadable or wrong."""

    wire_code = b"CONFIG"
    exit_code = ExitCode.USAGE

    def __init__(self, text: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(text)
        self.problems = problems
        """What the lines of the text say, if they are about values of a configuration."""


class InternalError(RealizeError):
    """A bug of ours; the text has the id under which it was logged."""

    wire_code = b"INTERNAL"


class ProtocolError(RealizeError):
    """The peer sent what the protocol does not allow."""

    wire_code = b"PROTOCOL"


class VersionMismatch(RealizeError):
    """The two sides speak different major versions of the protocol."""

    wire_code = b"VERSION"


class WrongPeer(RealizeError):
    """The other side has another key than the pinned one."""

    wire_code = b"WRONG_PEER"


class AccessDenied(RealizeError):
    """The peer lacks the right that the command needs."""

    wire_code = b"DENIED"


class BadName(RealizeError):
    """A name from the wire must not be used below a directory."""

    wire_code = b"BAD_NAME"


class NotFound(RealizeError):
    """There is no file or directory of that name."""

    wire_code = b"NOT_FOUND"


class NotRegular(RealizeError):
    """Something other than a regular file has this name."""

    wire_code = b"NOT_REGULAR"


class Conflict(RealizeError):
    """The destination has something under this name that must not be replaced."""

    wire_code = b"CONFLICT"


class LinkRefused(RealizeError):
    """A symlink stays where it is: its target leads outside, or the directory takes, or gives away, no symlinks."""

    wire_code = b"LINK_REFUSED"


class NotKept(RealizeError):
    """Something of a file that was to be carried over cannot be kept, so the file stays where it is."""

    wire_code = b"NOT_KEPT"
    kind: ClassVar[str] = ""
    """The name of what cannot be kept, one of `realize.values.Preserve`; empty if it is all that was asked for."""


class OwnerNotKept(NotKept):
    """The owner or the group of a file cannot be kept: nobody has that name there, or who writes there may not."""

    wire_code = b"OWNER_NOT_KEPT"
    kind = "owner"


class AclNotKept(NotKept):
    """The access control list of a file cannot be kept."""

    wire_code = b"ACL_NOT_KEPT"
    kind = "acl"


class XattrNotKept(NotKept):
    """Extended attributes of a file cannot be kept."""

    wire_code = b"XATTR_NOT_KEPT"
    kind = "xattr"


class SameFile(RealizeError):
    """Source and destination are one and the same file or directory, or one is inside the other."""

    wire_code = b"SAME_FILE"
    exit_code = ExitCode.USAGE


class SourceChanged(RealizeError):
    """The source is no longer the file that was read."""

    wire_code = b"CHANGED"
    permanent = False


class Unsettled(SourceChanged):
    """The source had long been unchanged when it was listed, and changed before its turn; a later run may move it."""

    wire_code = b"UNSETTLED"
    permanent = True


class WrongSize(RealizeError):
    """The source has more or less content than its size says, although it has not changed."""

    wire_code = b"WRONG_SIZE"


class VerifyFailed(RealizeError):
    """The content that arrived has another digest than the content that was read."""

    wire_code = b"VERIFY"
    permanent = False


class Busy(RealizeError):
    """Another transfer is writing this file at the moment, or a limit on concurrent work is reached."""

    wire_code = b"BUSY"
    permanent = False


class StorageError(RealizeError):
    """The operating system failed to read, write or make durable; the text ends with its reason."""

    wire_code = b"STORAGE"


class NoSpace(StorageError):
    """The file system, or the quota on it, is full."""

    wire_code = b"NO_SPACE"


class ConnectionFailed(RealizeError):
    """The peer cannot be reached, or the connection to it was lost."""

    wire_code = b"CONNECTION"
    permanent = False


class Silence(ConnectionFailed):
    """Nothing came from the peer for longer than the protocol allows."""

    wire_code = b"SILENCE"


class Unanswered(ConnectionFailed):
    """No answer came to a command, which may have been executed all the same; an error that caused this is chained."""

    wire_code = b"UNANSWERED"


class Unavailable(ConnectionFailed):
    """The peer serves the directory, but it is not there now: not mounted, removed, or on a disk that is silent.

    It may come back, as a peer may, so whoever needs it does what is done about a peer that is away.
    """

    wire_code = b"UNAVAILABLE"


class Interrupted(RealizeError):
    """SIGINT or SIGTERM ended the run."""

    wire_code = b"INTERRUPTED"
    exit_code = ExitCode.INTERRUPTED


class DeadlineReached(RealizeError):
    """The time limit of the run was reached before everything was done."""

    wire_code = b"DEADLINE"
    exit_code = ExitCode.DEADLINE_REACHED


BUSY_CODES: Final = frozenset(each.wire_code for each in (SourceChanged, Unsettled, Busy))
"""Codes of errors of files that somebody writes or uses at the moment: a later run moves them."""


def is_busy(error: RealizeError) -> bool:
    """Return whether a file failed that somebody uses: nobody has to do anything, unless it fails again and again."""
    return error.wire_code in BUSY_CODES


def next_step(error: RealizeError, location: str) -> str:
    """What to append to the text of an error at a location: for a missing right, the advice how to get it."""
    return f" ({mending(location)})" if isinstance(error, AccessDenied) else ""


def mending(location: str) -> str:
    """The advice to let ``realize check`` find out what is wrong with a location."""
    return f"`realize check {location}` says what to fix"


def ignore_expected(failure: Failure) -> None:
    """The errback of what nobody waits for any more: errors of ours end here, any other one is a fault all the same."""
    failure.trap(RealizeError)


def every_error() -> Iterator[type[RealizeError]]:
    """All classes of the tree, most specific first, so that the first match of an error is its own class."""

    def below(cls: type[RealizeError]) -> Iterator[type[RealizeError]]:
        for child in cls.__subclasses__():
            yield from below(child)
        yield cls

    return below(RealizeError)
