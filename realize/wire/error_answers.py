"""Turning errors into answers, and answers into errors.

Whatever a responder raises reaches the peer as a declared error: an unexpected exception is logged with its traceback
under a short random id, and the peer learns only the id.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.protocols import amp
from twisted.python.failure import Failure

from realize.errors import Busy, ConnectionFailed, InternalError, ProtocolError, RealizeError
from realize.logger import Logger
from realize.wire.packing import MAX_ERROR_TEXT_BYTES, cut, harmless

UNDECLARED: Final = (amp.UnknownRemoteError, amp.RemoteAmpError)


def log_unexpected(log: Logger, failure: Failure, doing: str) -> InternalError:
    """Log an unexpected exception, and return the error that the peer may see."""
    fault = secrets.token_hex(4)
    # Even if there is no memory for a record, the peer must get its answer.
    with contextlib.suppress(MemoryError):
        log.error(
            "internal_error",
            id=fault,
            doing=doing,
            error=failure.getErrorMessage(),
            exc=failure.getTraceback(),
        )
    return InternalError(f"internal error {fault}; the log of that machine has the details")


def to_declared(log: Logger, failure: Failure, doing: str) -> RealizeError:
    """Return the declared error for any failure; an unexpected one is logged. ``doing`` says what failed."""
    error = failure.value
    if isinstance(error, RealizeError):
        return error
    if isinstance(error, CancelledError):
        return ConnectionFailed(f"{doing} was cancelled")
    if isinstance(error, MemoryError):
        return Busy(f"{doing}: that machine is short of memory")
    return log_unexpected(log, failure, doing)


def to_remote(error: RealizeError) -> amp.RemoteAmpError:
    """Return an error in the form in which AMP sends it, with its text cut to `MAX_ERROR_TEXT_BYTES`."""
    return amp.RemoteAmpError(error.wire_code, cut(str(error), MAX_ERROR_TEXT_BYTES).decode())


def from_remote(failure: Failure, command: str) -> RealizeError:
    """Return the error that an answer to ``command`` stands for, or that explains why there is no answer."""
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
