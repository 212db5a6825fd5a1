"""The answering half of a connection: which responder runs, and what happens to its result or error.

`AnsweringProtocol` sits between AMP's dispatch and the connection (`realize.wire.connection`), which it asks only to
write, to end, and whether it is ending.

Invariants: however a responder fails, the peer gets a declared error or nothing; at most
`realize.wire.commands.MAX_RUNNING_COMMANDS` commands run; AMP's own commands (StartTLS) are never answered.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.protocols import amp
from twisted.python.failure import Failure

from realize.errors import Busy, InternalError, ProtocolError, RealizeError
from realize.logger import Logger
from realize.wire import boxes, commands
from realize.wire.error_answers import log_unexpected, to_declared, to_remote

_T = TypeVar("_T")

Responder = Callable[[Mapping[bytes, bytes]], Deferred[amp.Box]]
"""Answers the box of a command; may fail with any error."""


class Served(Protocol):
    """Answers the commands that do not concern the connection itself."""

    def locateResponder(self, name: bytes) -> Responder | None:
        """Return the responder for a command, or None; see `twisted.protocols.amp.IResponderLocator`."""

    def transfers(self) -> list[dict[str, Any]]:
        """Return the streams in progress, for status reports."""

    def failed(self, box: Mapping[bytes, bytes]) -> None:
        """A command was answered with an error, perhaps before it was looked at: close what it was to close."""


Watch = Callable[[str], Callable[[str], None]]
"""Called with the name of each command received; returns a function that is called with how it ended: ``OK`` or a
wire code."""

OK: Final = "OK"


def shown_command(name: bytes) -> str:
    """Return the name of a command, which may be arbitrary bytes, for logs and metrics."""
    return name[:40].decode("ascii", "backslashreplace")


def error_box(asked: bytes, error: RealizeError) -> bytes:
    """Return an error as the answer to the command with that number."""
    answer = {amp.ERROR: asked, amp.ERROR_CODE: error.wire_code, amp.ERROR_DESCRIPTION: str(error).encode()}
    return boxes.encode(answer)


class AnsweringProtocol(amp.AMP):
    """Answers commands; a subclass owns the connection."""

    own: ClassVar[frozenset[bytes]] = frozenset()
    """Names of the commands that the subclass answers itself; all others go to the locator."""

    def __init__(self, log: Logger, clock: IReactorTime) -> None:
        super().__init__()
        self.log = log
        self.clock = clock
        self.watch: Watch = lambda _: lambda _: None
        self._served: Served | None = None
        self._running = 0

    @property
    def running(self) -> int:
        """Number of the peer's commands in progress."""
        return self._running

    def serve(self, locator: Served) -> None:
        """Let ``locator`` answer the commands that do not concern the connection itself, from now on."""
        self._served = locator

    def transfers(self) -> list[dict[str, Any]]:
        """Return the streams that the peer has in progress, for status reports."""
        return self._served.transfers() if self._served is not None else []

    # Provided by the connection.

    def ending(self) -> RealizeError | None:
        """Return why the connection is ending, or None if it is not."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send complete boxes."""
        raise NotImplementedError

    def abort(self, error: RealizeError) -> None:
        """End the connection now."""
        raise NotImplementedError

    def violated(self, error: ProtocolError) -> None:
        """Handle a violation of the protocol by the peer."""
        raise NotImplementedError

    def command_failed(self, box: Mapping[bytes, bytes]) -> None:
        """Note that the command of this box failed, or was refused."""
        raise NotImplementedError

    def command_finished(self, box: Mapping[bytes, bytes]) -> None:
        """Note that the command of this box has ended, or was refused."""
        raise NotImplementedError

    # Called by AMP.

    def sendBox(self, box: amp.AmpBox) -> None:
        """Send one box; an answer that does not fit becomes an error, since the peer waits for one."""
        try:
            data = boxes.encode(box)
        except ProtocolError:
            if amp.ANSWER not in box:
                raise
            error = log_unexpected(self.log, Failure(), "answering")
            data = error_box(box[amp.ANSWER], error)
        self.write(data)

    def locateResponder(self, name: bytes) -> Responder | None:
        """Return the responder for our own commands or one of the locator's; nothing else that AMP would answer."""
        if name in self.own:
            found = amp.CommandLocator.locateResponder(self, name)
        else:
            found = self._served.locateResponder(name) if self._served is not None else None
        return found  # type: ignore[no-any-return]

    def dispatchCommand(self, box: dict[bytes, bytes]) -> Deferred[amp.Box]:
        """Run a command; any exception becomes a declared error."""
        name = box[amp.COMMAND]
        shown = shown_command(name)
        ended = self.watch(shown)
        refusal: amp.RemoteAmpError | None = None
        responder = None
        ending = self.ending()
        if ending is not None:
            refusal = to_remote(ending)
        elif self._running >= commands.MAX_RUNNING_COMMANDS:
            refusal = to_remote(Busy(f"{self._running} commands are in progress already"))
        else:
            responder = self.locateResponder(name)
            if responder is None:
                self.log.debug("command_unknown", command=shown)
                refusal = amp.RemoteAmpError(amp.UNHANDLED_ERROR_CODE, f"unknown command {shown}")
        if refusal is not None:
            ended(refusal.errorCode.decode())
        if responder is None:
            self.command_failed(box)
            self.command_finished(box)
            # A command that wants no answer cannot get an error either.
            return fail(refusal) if amp.ASK in box else succeed(amp.AmpBox())
        self._running += 1
        began = self.clock.seconds()
        done: Deferred[amp.Box] = maybeDeferred(responder, box)
        done.addCallbacks(self._succeeded, self._failed, (shown, began, ended), {}, (shown, began, ended, box), {})
        return done.addBoth(self._finished, box)

    def needed_nothing(self, command: str) -> None:
        """Count a command that wants no answer, and is done by having come."""
        self.watch(command)(OK)
        self.log.debug("command", command=command, code=OK, error="", seconds=0.0)

    def _succeeded(self, answer: amp.Box, command: str, began: float, ended: Callable[[str], None]) -> amp.Box:
        ended(OK)
        self._tell(command, began, OK, "")
        return answer

    def _failed(
        self, failure: Failure, command: str, began: float, ended: Callable[[str], None], box: Mapping[bytes, bytes]
    ) -> amp.Box:
        raised = failure.value
        error: RealizeError
        if isinstance(raised, amp.RemoteAmpError):
            # AMP has already converted a declared error; the original is inside.
            error = raised.local.value if raised.local is not None else InternalError(str(raised))
        else:
            error = to_declared(self.log, failure, command)
        # The connection keeps the error that ends it, and that would keep everything in its frames alive.
        traceback.clear_frames(error.__traceback__)
        ended(error.wire_code.decode())
        self._tell(command, began, error.wire_code.decode(), str(error))
        self.command_failed(box)
        if amp.ASK not in box:
            # No answer is wanted; a malformed one-way command is a violation like any other.
            if isinstance(error, ProtocolError):
                self.violated(error)
            return amp.AmpBox()
        if isinstance(error, ProtocolError):
            self.log.warning("command_wrong", command=command, error=str(error))
        raise to_remote(error)

    def _tell(self, command: str, began: float, code: str, error: str) -> None:
        seconds = round(self.clock.seconds() - began, 6)
        self.log.debug("command", command=command, code=code, error=error, seconds=seconds)

    def _finished(self, result: _T, box: Mapping[bytes, bytes]) -> _T:
        self._running -= 1
        self.command_finished(box)
        return result

    def unhandledError(self, failure: Failure) -> None:
        """Abort, since AMP has an error that nobody handles: a bug of ours, unless the connection is ending anyway."""
        if self.ending() is None:
            self.abort(log_unexpected(self.log, failure, "dispatching"))
