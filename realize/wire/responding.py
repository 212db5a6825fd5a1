"""The answering half of a connection: which responder runs, and what becomes of what it returns or raises.

`AnsweringProtocol` stands between AMP's dispatch and the connection (`realize.wire.connection`), which it asks only to
write, to end, and to say that it is ending.

Invariants: whatever a responder does, the peer gets a declared error or nothing; at most
`realize.wire.commands.MAX_RUNNING_COMMANDS` commands run; AMP's own commands (StartTLS) are never answered.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.protocols import amp
from twisted.python.failure import Failure

from realize.errors import Busy, InternalError, ProtocolError, RealizeError
from realize.wire import boxes, commands
from realize.wire.answers import log_unexpected, to_declared, to_remote


class Served(Protocol):
    """Answers the commands that do not concern the connection itself."""

    def locateResponder(self, name: bytes) -> Any:
        """The responder for a command, or None; `twisted.protocols.amp.IResponderLocator`."""

    def transfers(self) -> list[dict[str, Any]]:
        """The streams in progress, for status reports."""


Watch = Callable[[str], Callable[[str], None]]
"""Called with the name of each command that comes; what it answers is called with how that ended: ``OK`` or a code."""

OK: Final = "OK"


def shown_command(name: bytes) -> str:
    """The name of a command, which may be anything, for logs and metrics."""
    return name[:40].decode("ascii", "backslashreplace")


def error_box(asked: bytes, error: RealizeError) -> bytes:
    """The answer to the command of that number, which fails."""
    answer = {amp.ERROR: asked, amp.ERROR_CODE: error.wire_code, amp.ERROR_DESCRIPTION: str(error).encode()}
    return boxes.encode(answer)


class AnsweringProtocol(amp.AMP):
    """Answers commands; a subclass owns the connection."""

    own: ClassVar[frozenset[bytes]] = frozenset()
    """The commands that the subclass answers itself; all others are for the locator."""

    def __init__(self, log: Any, clock: IReactorTime) -> None:
        super().__init__()
        self.log = log
        self.clock = clock
        self.watch: Watch = lambda _: lambda _: None
        self._served: Served | None = None
        self._running = 0

    @property
    def running(self) -> int:
        """How many commands of the peer are in progress."""
        return self._running

    def serve(self, locator: Served) -> None:
        """From now on, let ``locator`` answer the commands that do not concern the connection itself."""
        self._served = locator

    def transfers(self) -> list[dict[str, Any]]:
        """The streams that the peer has in progress, for status reports."""
        return self._served.transfers() if self._served is not None else []

    # What the connection provides.

    def ending(self) -> RealizeError | None:
        """Why the connection is ending, if it is."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send whole boxes."""
        raise NotImplementedError

    def abort(self, error: RealizeError) -> None:
        """End the connection now."""
        raise NotImplementedError

    def violated(self, error: ProtocolError) -> None:
        """The peer broke the protocol."""
        raise NotImplementedError

    def command_finished(self, box: Mapping[bytes, bytes]) -> None:
        """One command less is running, or waits to be: that of this box."""
        raise NotImplementedError

    # What AMP calls.

    def sendBox(self, box: amp.AmpBox) -> None:
        """Send one box; an answer that does not fit becomes an error, since its asker waits."""
        try:
            data = boxes.encode(box)
        except ProtocolError:
            if amp.ANSWER not in box:
                raise
            error = log_unexpected(self.log, Failure(), "answering")
            data = error_box(box[amp.ANSWER], error)
        self.write(data)

    def locateResponder(self, name: bytes) -> Callable[[Mapping[bytes, bytes]], Deferred[amp.Box]] | None:
        """Our own commands first, then those of the locator we were given; nothing else that AMP would answer."""
        if name in self.own:
            found = amp.CommandLocator.locateResponder(self, name)
        else:
            found = self._served.locateResponder(name) if self._served is not None else None
        return found  # type: ignore[no-any-return]

    def dispatchCommand(self, box: dict[bytes, bytes]) -> Deferred[amp.Box]:
        """Run a command; what it fails with becomes a declared error."""
        name = box[amp.COMMAND]
        shown = shown_command(name)
        ended = self.watch(shown)
        refusal: amp.RemoteAmpError | None = None
        responder = None
        ending = self.ending()
        if ending is not None:
            refusal = to_remote(ending)
        elif self._running >= commands.MAX_RUNNING_COMMANDS:
            refusal = to_remote(Busy(f"{self._running} commands are in progress"))
        else:
            responder = self.locateResponder(name)
            if responder is None:
                self.log.debug("command_unknown", command=shown)
                refusal = amp.RemoteAmpError(amp.UNHANDLED_ERROR_CODE, f"unknown command {shown}")
        if refusal is not None:
            ended(refusal.errorCode.decode())
        if responder is None:
            self.command_finished(box)
            # Who asked for no answer cannot be told.
            return fail(refusal) if amp.ASK in box else succeed(amp.AmpBox())
        self._running += 1
        began = self.clock.seconds()
        done: Deferred[amp.Box] = maybeDeferred(responder, box)
        done.addCallbacks(self._succeeded, self._failed, (shown, began, ended), {}, (shown, began, ended, box), {})
        return done.addBoth(self._finished, box)

    def _succeeded(self, answer: amp.Box, command: str, began: float, ended: Callable[[str], None]) -> amp.Box:
        ended(OK)
        self._tell(command, began, OK, "")
        return answer

    def _failed(
        self, failure: Failure, command: str, began: float, ended: Callable[[str], None], box: Mapping[bytes, bytes]
    ) -> amp.Box:
        raised: Any = failure.value
        error: RealizeError
        if isinstance(raised, amp.RemoteAmpError):
            # AMP's own conversion of a declared error; the original is in it.
            error = raised.local.value if raised.local is not None else InternalError(str(raised))
        else:
            error = to_declared(self.log, failure, command)
        # The connection keeps the error that ends it, and with it would keep all that the frames have held.
        traceback.clear_frames(error.__traceback__)
        ended(error.wire_code.decode())
        self._tell(command, began, error.wire_code.decode(), str(error))
        if amp.ASK not in box:
            # There is nobody to tell; a one-way command that is wrong in form is a violation like any other.
            if isinstance(error, ProtocolError):
                self.violated(error)
            return amp.AmpBox()
        if isinstance(error, ProtocolError):
            self.log.warning("command_wrong", command=command, error=str(error))
        raise to_remote(error)

    def _tell(self, command: str, began: float, code: str, error: str) -> None:
        seconds = round(self.clock.seconds() - began, 6)
        self.log.debug("command", command=command, code=code, error=error, seconds=seconds)

    def _finished(self, result: Any, box: Mapping[bytes, bytes]) -> Any:
        self._running -= 1
        self.command_finished(box)
        return result

    def unhandledError(self, failure: Failure) -> None:
        """AMP could not deliver an error to anybody: a fault of ours, unless the connection is going anyway."""
        if self.ending() is None:
            self.abort(log_unexpected(self.log, failure, "dispatching"))
