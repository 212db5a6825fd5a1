"""Every error that Realize reports on purpose.

One small tree below `RealizeError`.
Each class says three things about itself:

* ``wire_code``: the AMP error code that carries it between peers (``docs/protocol.md`` lists them);
* ``exit_code``: what the command exits with when the error ends a run;
* ``permanent``: whether trying again without changing anything is pointless.

The text of an error is one sentence for a person.
It names the thing that is wrong; whoever reports it adds which end it happened at.
This module imports nothing of ours but the exit codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

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


class ConfigError(RealizeError):
    """A configuration or key file is missing, unreadable or wrong."""

    wire_code = b"CONFIG"
    exit_code = ExitCode.USAGE


class InternalError(RealizeError):
    """A fault of ours; the text carries the id under which it was logged."""

    wire_code = b"INTERNAL"


class ProtocolError(RealizeError):
    """The peer sent what the protocol does not allow."""

    wire_code = b"PROTOCOL"


class VersionMismatch(RealizeError):
    """The two ends speak different major versions of the protocol."""

    wire_code = b"VERSION"


class WrongPeer(RealizeError):
    """The other end has another key than the pinned one."""

    wire_code = b"WRONG_PEER"


class AccessDenied(RealizeError):
    """The peer lacks the right that the command needs."""

    wire_code = b"DENIED"


class BadName(RealizeError):
    """A name from the wire is not one that may be used below a directory."""

    wire_code = b"BAD_NAME"


class NotFound(RealizeError):
    """There is no file or directory of that name."""

    wire_code = b"NOT_FOUND"


class NotRegular(RealizeError):
    """The name belongs to something that is not a regular file."""

    wire_code = b"NOT_REGULAR"


class Conflict(RealizeError):
    """The destination holds something of that name which must not be replaced."""

    wire_code = b"CONFLICT"


class SameFile(RealizeError):
    """Source and destination are one and the same file or directory, or one is inside the other."""

    wire_code = b"SAME_FILE"
    exit_code = ExitCode.USAGE


class SourceChanged(RealizeError):
    """The source is no longer the file that was read."""

    wire_code = b"CHANGED"
    permanent = False


class WrongSize(RealizeError):
    """The source has more, or less, content than its size says, and nobody has changed it."""

    wire_code = b"WRONG_SIZE"


class VerifyFailed(RealizeError):
    """What arrived has another digest than what was read."""

    wire_code = b"VERIFY"
    permanent = False


class Busy(RealizeError):
    """Somebody else is writing that file at this moment, or a limit on concurrent work is reached."""

    wire_code = b"BUSY"
    permanent = False


class StorageError(RealizeError):
    """The operating system refused to read, write or make durable; the text ends with its reason."""

    wire_code = b"STORAGE"


class NoSpace(StorageError):
    """The file system, or the quota on it, is full."""

    wire_code = b"NO_SPACE"


class ConnectionFailed(RealizeError):
    """The peer cannot be reached, or the connection to it was lost."""

    wire_code = b"CONNECTION"
    permanent = False


class Silence(ConnectionFailed):
    """The peer has not been heard of for longer than it may be silent."""

    wire_code = b"SILENCE"


class Unanswered(ConnectionFailed):
    """No answer came to what may have been done all the same; the cause, if it was an error, is chained."""

    wire_code = b"UNANSWERED"


class Interrupted(RealizeError):
    """SIGINT or SIGTERM ended the run."""

    wire_code = b"INTERRUPTED"
    exit_code = ExitCode.INTERRUPTED


class DeadlineReached(RealizeError):
    """The time limit of the run was reached before everything was done."""

    wire_code = b"DEADLINE"
    exit_code = ExitCode.DEADLINE_REACHED


def next_step(error: RealizeError, location: str) -> str:
    """What follows the text of an error at a location: with a right that is missing, what tells how to get it."""
    return f" ({mending(location)})" if isinstance(error, AccessDenied) else ""


def mending(location: str) -> str:
    """How to find out what is wrong with the way to a location."""
    return f"`realize check {location}` tells what to mend"


def ignore_expected(failure: Failure) -> None:
    """The errback of what nobody waits for any more: errors of ours end here, any other one is a fault all the same."""
    failure.trap(RealizeError)


def every_error() -> Iterator[type[RealizeError]]:
    """All classes of the tree, most specific first, so that the first match is the right one."""

    def below(cls: type[RealizeError]) -> Iterator[type[RealizeError]]:
        for child in cls.__subclasses__():
            yield from below(child)
        yield cls

    return below(RealizeError)
