"""How errors become answers, and answers errors.

Nothing that a responder raises leaves it as anything but a declared error: what we did not expect is logged with its
traceback under a short random id, and the peer learns only the id.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.protocols import amp
from twisted.python.failure import Failure

from realize.errors import Busy, ConnectionFailed, InternalError, ProtocolError, RealizeError
from realize.wire.packing import MAX_ERROR_TEXT_BYTES, cut, harmless

UNDECLARED: Final = (amp.UnknownRemoteError, amp.RemoteAmpError)


def log_unexpected(log: Any, failure: Failure, doing: str) -> InternalError:
    """Log a fault of ours, and make the error that may be told to others."""
    fault = secrets.token_hex(4)
    # Without memory for a record, whoever asked is told all the same.
    with contextlib.suppress(MemoryError):
        log.error(
            "internal_error",
            id=fault,
            doing=doing,
            error=failure.getErrorMessage(),
            exc=failure.getTraceback(),
        )
    return InternalError(f"internal error {fault}; the log of that machine has the details")


def to_declared(log: Any, failure: Failure, doing: str) -> RealizeError:
    """The error to report for whatever a piece of work failed with."""
    error = failure.value
    if isinstance(error, RealizeError):
        return error
    if isinstance(error, CancelledError):
        return ConnectionFailed(f"{doing} was cancelled")
    if isinstance(error, MemoryError):
        return Busy(f"{doing}: that machine is short of memory")
    return log_unexpected(log, failure, doing)


def to_remote(error: RealizeError) -> amp.RemoteAmpError:
    """The form in which AMP sends an error, with its text bounded."""
    return amp.RemoteAmpError(error.wire_code, cut(str(error), MAX_ERROR_TEXT_BYTES).decode())


def from_remote(failure: Failure, command: str) -> RealizeError:
    """The error that an answer stands for, or why there is none."""
    error = failure.value
    if isinstance(error, RealizeError):
        text = str(error)
        return error if text.isprintable() else type(error)(harmless(text))
    if isinstance(error, amp.UnhandledCommand):
        return ProtocolError(f"the peer does not know the command {command}")
    if isinstance(error, amp.TooLong):
        return ProtocolError(f"{command} does not fit the protocol: {error}")
    if isinstance(error, UNDECLARED):
        return InternalError(harmless(f"{command}: {error}"))
    return ConnectionFailed(f"{command}: {failure.getErrorMessage()}")
