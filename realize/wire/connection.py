"""One connection between two peers, above TLS: boxes in, boxes out, and what becomes of both when it ends.

`PeerProtocol` owns the transport, the streams and the timers of one connection.
It answers the commands that concern the connection itself; all others go to the locator that it is given once the peer
is known (`realize.store.server.responders`).
`BoxReader` reads what arrives, `SendQueue` decides who may send content next, `ConnectionState` says how far the
connection has come.

Invariants:

* before Hello, nothing else is answered;
* whatever a peer sends ends in a declared error or a closed connection, and is logged once, without a traceback;
* everything that waits for the peer fails with the reason when the connection ends;
* what is queued for a peer that does not read is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger as TwistedLogger
from twisted.protocols import amp
from twisted.python.failure import Failure

from realize.concurrency.memory import UNBOUNDED, Share
from realize.concurrency.shielded import RunInThread
from realize.errors import Busy, ConnectionFailed, ProtocolError, RealizeError, Silence
from realize.logger import Logger
from realize.values import MAX_VALUE_BYTES
from realize.wire import boxes, commands
from realize.wire.coarse_timers import Timers
from realize.wire.commands import Reason
from realize.wire.compression import Compression
from realize.wire.error_answers import from_remote, log_unexpected
from realize.wire.greeting import Greeting, Role, from_arguments, mismatch
from realize.wire.keepalive import Keepalive
from realize.wire.lifecycle import ConnectionState
from realize.wire.outbound_stream import WRITE_BATCH_BYTES
from realize.wire.packing import error_of
from realize.wire.reading import AnyBox, BoxReader
from realize.wire.reply_timeouts import REPLY_TIMEOUT_S, SLOW_REPLY_TIMEOUT_S, ReplyTimeouts
from realize.wire.responding import AnsweringProtocol, error_box, shown_command
from realize.wire.send_queue import MAX_UNCLAIMED_BYTES, SEND_TURN_BYTES, SendQueue
from realize.wire.streams import StreamTable
from realize.wire.tls import hung_up
from realize.wire.tls_bulk import unacknowledged
from realize.wire.traffic import Traffic
from realize.wire.windows import RoundTrip

__all__ = ["Greeting", "PeerProtocol", "Role", "Welcome"]

_log = TwistedLogger()

CLOSE_TIMEOUT_S: Final = 5.0
"""Seconds that an orderly close may take before the connection is aborted."""

_OPENING: Final = commands.names(commands.OpenRead, commands.OpenWrite, commands.PutSmall, commands.ReadSmall)
"""Commands that use up the number of a stream even if they are refused."""

_QUESTIONS: Final = commands.names(
    commands.BlockDigests,
    commands.CutSpan,
    commands.Describe,
    commands.FindSiblings,
    commands.Forbidden,
    commands.GetThrottle,
    commands.MatchFinal,
    commands.MatchPartial,
    commands.MeasureSpace,
    commands.Moves,
    commands.OfferChunks,
    commands.ReadSmall,
    commands.Settle,
    commands.Status,
    commands.TryWrite,
    commands.Walk,
)
"""Commands that are not worth doing when nobody waits for the answer."""

_PING: Final = {amp.COMMAND: commands.Ping.commandName}
"""The only box that idle connections exchange; AMP takes several times as long for it as we do."""

_PING_DATA: Final = boxes.encode(_PING)

Welcome = Callable[["PeerProtocol", Greeting], str]
"""Called on the accepting side when Hello arrives, to call `PeerProtocol.serve` and return the name of the peer.

Raises a `RealizeError` for a peer that is not let in; it is told, and the connection closed.
"""


class PeerProtocol(AnsweringProtocol):
    """A connection to a peer.

    ``label`` names the other end in messages.
    ``welcome`` is needed on the accepting side only.
    ``timers`` make the calls of the keepalive, unless that is left to the clock.
    """

    transport: Any  # TLS, or a throttle above it: no interface of Twisted has all that both offer
    own = commands.names(commands.Hello, commands.Ping, commands.Goodbye, commands.StopStream)

    def __init__(
        self,
        *,
        clock: IReactorTime,
        log: Logger,
        greeting: Greeting,
        role: Role,
        label: str = "the peer",
        welcome: Welcome | None = None,
        timers: Timers | None = None,
    ) -> None:
        super().__init__(log, clock)
        self.label = label
        self.greeting = greeting
        self.role = role
        self.theirs: Greeting | None = None
        """What the peer said of itself; None until Hello is over."""
        self.name = ""
        """On the connecting side, the name under which the peer knows us; on the accepting side, the peer's name."""
        self.goodbye: Reason | None = None
        """Why the peer is about to close the connection; None unless it has said so."""
        self.streams = StreamTable(self, connecting=role is Role.CONNECTING)
        self.bytes_received = 0
        self.bytes_sent = 0
        self._welcome = welcome
        self._turned_away = False
        """Whether the peer was refused, and the answer to its Hello says why."""
        self.in_thread: RunInThread = maybeDeferred
        """Compresses and expands content; here, unless whoever has threads gives it some before Hello is over."""
        self.compression: Compression | None = None
        """Compresses and expands content, once it is known that both ends do."""
        self.memory: Share = UNBOUNDED.of("")
        """What the peer may make us hold."""
        self._replies = ReplyTimeouts(clock)
        self._keepalive = Keepalive(
            clock,
            self._replies,
            ping=self._ping,
            silent=self._silent,
            may_rest=self._may_rest,
            first=role is Role.ACCEPTING,
            timers=timers,
        )
        self.reading = BoxReader(clock, self, self._keepalive)
        """Reads what comes, in turns with other connections, and not ahead of memory."""
        self._claim = self.reading.admission.claim
        """For commands in progress, and for what `sending` could not hand over."""
        self.sending = SendQueue(clock, self.memory, self._claim, held_up=self._replies.held_up)
        """Decides who may send content next; what is short is written without asking."""
        self.round_trip = RoundTrip(clock, self._echo)
        """How long an answer of the other end takes, as far as it has answered."""
        self._both_rest = False
        """Whether both ends have the capability to rest."""
        self._handles = 0
        self._listings = 0
        self._idle: list[Deferred[None]] = []
        self._state = ConnectionState.CONNECTING
        """To be changed by `_become` alone."""
        self._active = self._state.active
        """Kept beside it, because it is looked at several times for each box."""
        self._error: RealizeError | None = None
        """Why the connection is ending, or has ended; the first reason stays."""
        self._closing: IDelayedCall | None = None
        """Aborts a close that takes too long."""
        self._watchers: list[Deferred[RealizeError]] = []

    # What owners of the connection use.

    @property
    def lost(self) -> bool:
        """Whether the connection has ended."""
        return self._state is ConnectionState.LOST

    @property
    def has_gone(self) -> bool:
        """Whether the other end has closed the connection, even if not all that has arrived was read."""
        return self._state is ConnectionState.LOST or hung_up(self.transport)

    def use_memory(self, share: Share) -> None:
        """Claim what the peer makes us hold from ``share``.

        To be called before the peer can have made us hold anything.
        """
        self.memory = self.sending.share = share
        self._claim = self.sending.claim = self.reading.admission.use(share)

    def traffic(self) -> Traffic:
        """How many bytes this connection has carried so far."""
        traffic = Traffic(self.bytes_sent, self.bytes_received)
        self.streams.count(traffic)
        return traffic

    def choose_handle(self) -> int:
        """A new number for a directory that we open."""
        self._handles += 1
        return self._handles

    def choose_listing(self) -> int:
        """A new number for a listing that we start."""
        self._listings += 1
        return self._listings

    def hello(self) -> Deferred[Greeting]:
        """Introduce ourselves; returns what the peer says of itself. To be called once, on the connecting side.

        Fails like `call`, and with `realize.errors.VersionMismatch` if the major versions differ.
        """
        asked = self.call(commands.Hello, **self.greeting.as_arguments())
        return asked.addCallback(self._answered_hello)

    def _answered_hello(self, answer: Mapping[str, Any]) -> Greeting:
        theirs = from_arguments(answer)
        if theirs.major != self.greeting.major:
            error = mismatch(self.greeting, theirs)
            self.abort(error)
            raise error
        self.name = answer["name"]
        self._introduced(theirs)
        return theirs

    def call(
        self, command: type[amp.Command], *, patient: bool = False, **arguments: object
    ) -> Deferred[dict[str, Any]]:
        """Send a command and return its answer.

        Fails with a `RealizeError` and nothing else, unless it is cancelled: then the answer is dropped, and the peer
        goes on with the command.
        ``patient`` is for commands whose answer may take long; see `realize.wire.reply_timeouts`.
        """
        if self._error is not None:
            return fail(self._error)
        result = Deferred[dict[str, Any]]()
        ticket = self._keepalive.asked(command.__name__, SLOW_REPLY_TIMEOUT_S if patient else REPLY_TIMEOUT_S)
        asked = maybeDeferred(self.callRemote, command, **arguments)

        def done(answer: dict[str, Any]) -> None:
            self._replies.answered(ticket)
            if not result.called:
                result.callback(answer)

        def failed(failure: Failure) -> None:
            self._replies.answered(ticket)
            if not result.called:
                result.errback(from_remote(failure, command.__name__))

        def broken(failure: Failure) -> Failure:
            """Making a result of the answer failed: AMP ends the connection for it, but tells our caller nothing."""
            if not result.called:
                result.errback(ConnectionFailed(f"{command.__name__}: the answer could not be processed"))
            return failure

        # The result is a Deferred of its own: an error left in AMP's would end the connection.
        asked.addCallbacks(done, failed).addErrback(broken)
        return result

    def tell(self, command: type[amp.Command], **arguments: object) -> None:
        """Send a one-way command; does nothing when the connection is ending."""
        if self._error is None and self._state is not ConnectionState.CONNECTING:
            self.callRemote(command, **arguments)

    def when_lost(self) -> Deferred[RealizeError]:
        """Fires with the reason when the connection has ended; never fails."""
        watcher = Deferred[RealizeError]()
        if self._state is ConnectionState.LOST and self._error is not None:
            watcher.callback(self._error)
        else:
            self._watchers.append(watcher)
        return watcher

    def when_idle(self) -> Deferred[None]:
        """Fires when no command of the peer is running and no stream is open, or when the connection has ended."""
        waiter = Deferred[None]()
        self._idle.append(waiter)
        self._check_idle()
        return waiter

    def close(self, reason: Reason = Reason.DONE, within: float = CLOSE_TIMEOUT_S, *, alone: bool = False) -> None:
        """Say goodbye and close; abort after ``within`` seconds. Does nothing when the connection is ending.

        With ``alone``, for who needs nothing of the peer any more, it ends once that has left this process: a round
        trip earlier than if the peer had to close as well.
        """
        if self._error is None:
            self.tell(commands.Goodbye, reason=reason)
            close_alone = getattr(self.transport, "close_alone", None)
            if alone and close_alone is not None:
                close_alone()
            self._lose(ConnectionFailed(f"the connection to {self.label} was closed"), within)

    def abort(self, error: RealizeError) -> None:
        """End the connection now; everything that waits fails with ``error``, or with why it was ending already."""
        self._end(error)
        if self._active:
            self._become(ConnectionState.ABORTED)
            self._keepalive.stop()
            self.transport.abortConnection()

    def _become(self, state: ConnectionState) -> None:
        self._state = self._state.then(state)
        self._active = self.reading.open = self._state.active

    def _end(self, error: RealizeError) -> RealizeError:
        """Begin nothing more, because of ``error``; returns the error of the first call, which alone counts."""
        if self._error is None:
            self._error = error
            self.sending.close(error)
        return self._error

    def _lose(self, error: RealizeError, within: float = CLOSE_TIMEOUT_S) -> None:
        self._end(error)
        if self._state is ConnectionState.OPEN:
            self._become(ConnectionState.CLOSING)
            # A registered producer, and a peer that never answers TLS's close alert, would keep it open for ever.
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            self._closing = self.clock.callLater(within, self._overdue)

    def _overdue(self) -> None:
        self._closing = None
        self.abort(ConnectionFailed(f"the connection to {self.label} did not close in time"))

    # What streams use: `realize.wire.stream_link.Link`.

    def write(self, data: bytes) -> None:
        """Send whole boxes, or drop them when nobody would receive them."""
        if not self._active:
            return
        self._keepalive.sent()
        size = len(data)
        self.bytes_sent += size
        sending = self.sending
        sending.left -= size
        if sending.full:
            sending.backlog += size
            self._claim.force(size)
            if sending.backlog > MAX_UNCLAIMED_BYTES and sending.overfull():
                self.log.warning("peer_does_not_read", unsent=sending.backlog)
                self.abort(ConnectionFailed(f"{self.label} does not read the answers that it asked for"))
                return
        self.transport.write(data)

    def chunk(self) -> int:
        """Bytes of content to write at once: fewer under a low limit, so that answers wait less behind them."""
        suggested: int = getattr(self.transport, "suggested_chunk", MAX_VALUE_BYTES)
        return WRITE_BATCH_BYTES if suggested >= MAX_VALUE_BYTES else suggested

    def limit(self) -> float | None:
        """Bytes per second that the throttle leaves for this connection; None without a limit."""
        share: float | None = getattr(self.transport, "share", None)
        return share

    def now(self) -> float:
        """The time in seconds, by the connection's clock."""
        return self.clock.seconds()

    @property
    def takes_holes(self) -> bool:
        """Whether the peer understands what says that content is a hole."""
        return self.theirs is not None and commands.HOLES in self.theirs.capabilities

    def unsent(self) -> int:
        """Bytes sent that the machine at the other end has not confirmed, wherever they wait."""
        return int(getattr(self.transport, "queued", 0)) + unacknowledged(self.transport)

    def arriving(self, stream: int) -> int:
        """Bytes of content in an unfinished box, if the content before it was for ``stream``; else 0."""
        return self.reading.parser.unfinished_content if stream == self.streams.latest else 0

    def expect(self, what: str) -> int:
        """Abort unless ``what`` comes in time, or other work does; returns a ticket for `expected`."""
        return self._keepalive.asked(what, SLOW_REPLY_TIMEOUT_S)

    def expected(self, ticket: int) -> None:
        """It has come, or nobody waits for it any more."""
        self._replies.answered(ticket)

    def grant(self, stream: int, amount: int) -> None:
        """Send ``amount`` bytes of credit; does nothing when the connection is ending."""
        if self._error is None:
            self.write(boxes.credit(stream, amount))

    def stream_closed(self) -> None:
        """A stream was closed; perhaps that was the last thing in progress."""
        if self._idle:
            self.clock.callLater(0, self._check_idle)

    # What answering uses: `realize.wire.responding`.

    def ending(self) -> RealizeError | None:
        """Why the connection is ending; None if it is not."""
        return self._error

    def violated(self, error: ProtocolError) -> None:
        """The peer broke the protocol: log that once, and abort."""
        if self._state is not ConnectionState.ABORTED:
            self.log.warning("protocol_violation", reason=str(error))
            self.abort(ProtocolError(f"{self.label} broke the protocol: {error}"))

    def command_failed(self, box: Mapping[bytes, bytes]) -> None:
        """Use up the number of the stream that it was to open, since content may follow; tell who serves the peer."""
        if box[amp.COMMAND] in _OPENING:
            number = commands.stream_of(box)
            if number is not None:
                self.streams.use_up(number)
        elif self._served is not None:
            self._served.failed(box)

    def command_finished(self, box: Mapping[bytes, bytes]) -> None:
        """A command is done; give back its memory."""
        if box[amp.COMMAND] not in self.own:
            self.reading.admission.ended(box)
        self.stream_closed()

    # What the transport calls.

    def connectionMade(self) -> None:
        """The transport is connected; with TLS, the handshake is still to come."""
        super().connectionMade()
        self._become(ConnectionState.OPEN)
        self._keepalive.start()
        self.transport.registerProducer(self.sending, True)  # noqa: FBT003 -- Twisted's signature

    def dataReceived(self, data: bytes) -> None:
        """Read what has come: now, or later if the peer has had its turn or waits for memory."""
        if not self._active:
            return
        self._keepalive.heard()
        self.bytes_received += len(data)
        self.sending.left = SEND_TURN_BYTES
        if data == _PING_DATA and self.reading.is_at_rest and self._is_open_to_pings:
            # Nothing but this comes on an idle connection, and to read it as any box takes four times as long.
            self._got_ping()
        else:
            self.reading.feed(data)

    # What reading uses: `realize.wire.reading.Receiver`.

    def pause(self) -> None:
        """Let the transport deliver nothing more for now."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Let it deliver again."""
        self.transport.resumeProducing()

    def peer_has_gone(self) -> bool:
        """Whether the other end has closed the connection."""
        return hung_up(self.transport)

    def give_up(self) -> None:
        """End the connection, since the peer has gone."""
        self.abort(ConnectionFailed(f"{self.label} is gone"))

    def broken(self, failure: Failure) -> None:
        """End the connection after a fault of ours."""
        self.abort(log_unexpected(self.log, failure, "dispatching"))

    def delivered(self) -> None:
        """All boxes that came together were received."""
        self.streams.delivered()

    def is_question(self, box: boxes.Box) -> bool:
        """Whether a box is a command that is not worth doing when nobody waits for the answer."""
        return box.get(amp.COMMAND) in _QUESTIONS

    def needs_memory(self, box: boxes.Box) -> bool:
        """Whether a box is a command that takes memory of the peer's: an answer does not, nor what is not let in."""
        name = box.get(amp.COMMAND)
        if name is None or name in self.own or self.theirs is None:
            return False
        return amp.ANSWER not in box and amp.ERROR not in box

    def refuse(self, box: boxes.Box) -> None:
        """Answer `Busy` to a command that got no memory; content that follows for its stream is ignored."""
        error = Busy("this peer uses all the memory that it may have")
        self.watch(shown_command(box[amp.COMMAND]))(error.wire_code.decode())
        self.command_failed(box)
        if amp.ASK in box:
            self.write(error_box(box[amp.ASK], error))

    def received(self, box: AnyBox) -> None:
        """Handle a box; raises `ProtocolError` if it is a violation."""
        if self._turned_away:
            # It was sent ahead, behind Hello.
            return
        if isinstance(box, dict):
            if box == _PING and self._is_open_to_pings:
                self._got_ping()
            else:
                self.ampBoxReceived(box)
            return
        self._keepalive.worked()
        if self.theirs is None:
            raise ProtocolError("content, or credit for it, before Hello")
        if isinstance(box, boxes.DataBox):
            self.streams.receive(box.stream, box.content)
        elif isinstance(box, boxes.ZerosBox):
            self.streams.receive_hole(box.stream, box.length)
        elif isinstance(box, boxes.CompressedBox):
            self.streams.receive_compressed(box)
        else:
            self.streams.credited(box.stream, box.amount)

    @property
    def _is_open_to_pings(self) -> bool:
        return self.theirs is not None and self._error is None

    def _got_ping(self) -> None:
        self.needed_nothing(commands.Ping.__name__)
        self._keepalive.pinged()

    def ampBoxReceived(self, box: dict[bytes, bytes]) -> None:
        """Check what AMP does not, then let it dispatch the box; raises `ProtocolError`."""
        command = box.get(amp.COMMAND)
        if command != b"Ping":
            self._keepalive.worked()
        if amp.ANSWER in box or amp.ERROR in box:
            if amp.ERROR in box and not {amp.ERROR_CODE, amp.ERROR_DESCRIPTION} <= box.keys():
                raise ProtocolError("an error without code or description")
            asked = box[amp.ANSWER] if amp.ANSWER in box else box[amp.ERROR]
            if asked not in (self._outstandingRequests or {}):
                raise ProtocolError("an answer without a request")
        elif command is None:
            raise ProtocolError("a box that is neither command nor answer")
        elif self.theirs is None and not self._early(command, box):
            raise ProtocolError(f"{command[:40]!r} before Hello")
        super().ampBoxReceived(box)

    def _early(self, command: bytes, box: Mapping[bytes, bytes]) -> bool:
        if self.role is Role.ACCEPTING:
            return command == commands.Hello.commandName and amp.ASK in box
        return command in {commands.Ping.commandName, commands.Goodbye.commandName}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone: read what is left, then tell everybody who waits."""
        if self._state is ConnectionState.LOST:
            return
        self._become(ConnectionState.DISCONNECTED)
        for step in (self.reading.stop_turn, self.reading.take_the_rest):
            with _log.failuresHandled("while a connection ended"):
                step()
        error = self._end(self._why(reason))
        self._become(ConnectionState.LOST)
        for last in (
            self._stop_timers,
            partial(super().connectionLost, Failure(error)),
            partial(self.streams.lost, error),
            partial(self.sending.fail, error),
            partial(self._tell_watchers, error),
            self._check_idle,
        ):
            # Whatever one of them fails with, the others are told.
            with _log.failuresHandled("while a connection ended"):
                last()

    def _stop_timers(self) -> None:
        self.reading.stop_turn()
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.cancel()
        self._keepalive.stop()

    def _tell_watchers(self, error: RealizeError) -> None:
        while self._watchers:
            self._watchers.pop(0).callback(error)

    def _why(self, reason: Failure) -> RealizeError:
        if isinstance(reason.value, RealizeError):
            return reason.value
        if self.goodbye is not None:
            return ConnectionFailed(f"{self.label} {self.goodbye.value}")
        return ConnectionFailed(f"the connection to {self.label} was lost: {reason.getErrorMessage()}")

    # The commands that concern the connection itself.

    @commands.Hello.responder
    def _hello(self, **arguments: object) -> dict[str, Any]:
        if self.role is not Role.ACCEPTING or self._welcome is None or self.theirs is not None:
            raise ProtocolError("Hello was not expected")
        theirs = from_arguments(arguments)
        if theirs.major != self.greeting.major:
            self._end_after_answer()
            raise mismatch(theirs, self.greeting)
        try:
            self.name = self._welcome(self, theirs)
        except BaseException:
            self._end_after_answer()
            raise
        self._introduced(theirs)
        return {**self.greeting.as_arguments(), "name": self.name}

    @commands.Ping.responder
    def _pinged(self) -> dict[str, Any]:
        return {}

    @commands.Goodbye.responder
    def _said_goodbye(self, reason: Reason) -> dict[str, Any]:
        self.goodbye = reason
        return {}

    @commands.StopStream.responder
    def _stop_stream(self, stream: int, code: bytes, description: str) -> dict[str, Any]:
        self.streams.stopped(stream, error_of(code, description))
        return {}

    def _introduced(self, theirs: Greeting) -> None:
        self.theirs = theirs
        self.reading.parser.limit = boxes.MAX_BOX_BYTES
        ours, known = self.greeting.capabilities, theirs.capabilities
        self._both_rest = commands.REST in ours and commands.REST in known
        if commands.ZSTD in ours and commands.ZSTD in known:
            always = commands.ZSTD_ALWAYS in ours or commands.ZSTD_ALWAYS in known
            self.compression = Compression(self, self.in_thread, always=always)

    def _end_after_answer(self) -> None:
        self._turned_away = True
        self.clock.callLater(0, self._lose, ConnectionFailed(f"{self.label} was refused"))

    def _check_idle(self) -> None:
        if self._idle and (self._state is ConnectionState.LOST or (not self._running and not len(self.streams))):
            while self._idle:
                self._idle.pop(0).callback(None)

    def _ping(self) -> None:
        if self._error is None:
            self.write(_PING_DATA)

    def _echo(self) -> Deferred[object]:
        """Ask for an answer that takes the peer nothing; one that does not answer such questions is never asked."""
        if self._error is not None or self.theirs is None or commands.ECHO not in self.theirs.capabilities:
            return Deferred()
        asked: Deferred[object] = self._sendBoxCommand(commands.Ping.commandName, amp.Box())
        return asked

    def _may_rest(self) -> bool:
        """Whether both ends can, and nothing is under way, or waits to be read or to be sent."""
        return (
            self._both_rest
            and not self._replies.expected
            and not self._running
            and not len(self.streams)
            and self.reading.is_at_rest
            and not self.sending.full
        )

    def _silent(self, what: str) -> None:
        self.log.warning("peer_silent", reason=what)
        self.abort(Silence(f"{self.label} {what}"))
