"""Commands with a lasting effect: when the connection is lost before the answer, the peer may have carried them out."""

from __future__ import annotations

from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from realize.concurrency.shielded import steady
from realize.errors import ConnectionFailed, Unanswered
from realize.wire.connection import PeerProtocol


def call_lasting(protocol: PeerProtocol, command: type, **arguments: Any) -> Deferred[dict[str, Any]]:
    """Send such a command; its answer is `steady`, and `Unanswered` if the connection is lost after it was sent."""
    asked = protocol.call(command, patient=True, **arguments)
    return asked if protocol.ending() else steady(asked).addErrback(_unanswered)


def _unanswered(failure: Failure) -> Failure:
    error = failure.value
    if isinstance(error, ConnectionFailed) and not isinstance(error, Unanswered):
        unanswered(error)
    return failure


def unanswered(error: ConnectionFailed) -> NoReturn:
    """Raise `Unanswered` with ``error`` as its cause."""
    raise Unanswered(str(error)) from error
