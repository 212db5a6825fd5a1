"""The layer between an application and its transport that sends no faster than a flow allows.

`ThrottledProtocol` is the transport of the application's protocol and the protocol of the transport below.
Below is usually TLS: then the handshake is never held back, and the limit counts what TLS adds to each record
(`TLS_RECORD_OVERHEAD_BYTES`).

The layer owns the bytes that wait.
It is the consumer of the application's producer and, under a limit and while there is such a producer or bytes wait,
the producer of the transport below: the application is paused by a limit and by a full transport alike.
It does not slow *reading*: ``pauseProducing`` and ``resumeProducing`` go to the transport (see `receiving`).

Without a limit, and with nothing waiting, it only counts what is written, and the transport drives the application's
producer itself; measured on a 64 KiB write, each call in between costs one percent.

``startTLS`` takes its place in the order of the writes: the transport is told when all bytes before it are sent, and
gets those behind it afterwards.

Its states are those of `realize.throttle.states`; ``docs/states.md`` draws them, and says what each event does.
There is no timer here: the flow's `realize.throttle.scheduler.Scheduler` has the only one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    INegotiated,
    IProducer,
    IProtocol,
    IReactorTime,
    ISSLTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import Interface, alsoProvides, directlyProvides, implementer, providedBy

from realize.throttle.backlog import Backlog
from realize.throttle.backpressure import MIN_QUEUE_BYTES, QUEUE_S, Backpressure
from realize.throttle.draining import Drain
from realize.throttle.receiving import Receiving
from realize.throttle.scheduler import Flow
from realize.throttle.starting_tls import TLSSwitch
from realize.throttle.states import (
    CloseState,
    SendState,
    TLSState,
    TransportEvent,
    next_close_state,
    next_send_state,
)
from realize.throttle.write_path import WritePath
from realize.values import MAX_VALUE_BYTES

_PASSING, _SHAPING, _CLOSED = SendState.PASSING, SendState.SHAPING, SendState.CLOSED
_DISCONNECTING: Final = (CloseState.CLOSING, CloseState.CLOSED)
_FORWARDED: Final = (IHalfCloseableProtocol, IHandshakeListener)


@implementer(ITransport, IConsumer)
class ThrottledProtocol(Protocol):
    """Throttles what ``wrappedProtocol`` sends; whatever is not about sending goes to the transport below."""

    write: Callable[[bytes], None]
    """See `WritePath.write`."""

    def __init__(self, clock: IReactorTime, wrapped: IProtocol, make_flow: Callable[[], Flow] | None = None) -> None:
        self._clock = clock
        self.transport: Any = None
        self.wrappedProtocol: Any = wrapped
        self._path = WritePath(self._hold)
        self.write = self._path.write
        self._make_flow = make_flow
        self._receiving = Receiving(None)
        self._backlog = Backlog()
        self._tls = TLSSwitch(self._backlog, self._switch)
        self._drain = Drain(self._backlog, self._tls)
        self._producers = Backpressure(self._backlog, self._ask, self._update, self._drop)
        self._send_state = SendState.PASSING
        self._close_state = CloseState.OPEN
        self._refilling = False
        # Twisted's endpoints look at the protocol before it is connected.
        alsoProvides(self, *self._listens())

    # Limits

    def use(self, flow: Flow) -> None:
        """Send through ``flow`` from now on, and leave the flow used so far; what waits moves along."""
        if self._send_state is _CLOSED:
            flow.leave()
            return
        if self._flow is not None:
            self._flow.leave()
        self._path.flow = flow
        self._drain.forget_grants()
        flow.waiter = self
        self._update()

    @property
    def share(self) -> float | None:
        """How many bytes per second the limits leave for this connection; None without a limit."""
        return None if self._flow is None else self._flow.share

    @property
    def suggested_chunk(self) -> int:
        """How many bytes to write at a time, so that a message behind them waits about 50 ms: 512 to 65,535."""
        share = self.share
        if share is None:
            return MAX_VALUE_BYTES
        return int(min(MAX_VALUE_BYTES, max(MIN_QUEUE_BYTES, share * QUEUE_S)))

    @property
    def queued(self) -> int:
        """The number of bytes that wait in the backlog."""
        return self._backlog.size

    def granted(self, amount: int) -> None:
        """Send up to ``amount`` bytes, which the flow grants, and what is left of earlier grants.

        Any exception aborts the connection and is raised again.
        """
        if not self._backlog.size:
            return
        try:
            self._drain.spend(amount)
            self._update()
        except BaseException:
            # What left the backlog may not have reached the transport, and the peer must not see a stream with a gap.
            self.transport.abortConnection()
            raise

    def limits_changed(self) -> None:
        """Wait by the new limits, or send everything if none is left."""
        self._update()

    # The transport of the application

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Write all of ``data`` as one."""
        self.write(b"".join(data))

    @property
    def disconnecting(self) -> bool:
        """Whether ``loseConnection`` or ``abortConnection`` was called."""
        return self._close_state in _DISCONNECTING

    def loseConnection(self) -> None:
        """Close once all that waits is sent, within the limit, and the producer is unregistered.

        Nothing is delivered to the protocol any more.
        """
        self._receiving.delivers = False
        self._end(TransportEvent.LOSE)
        if self._close_state is CloseState.CLOSING and self._tls.state is TLSState.PLAIN:
            self._receiving.stop()

    def loseWriteConnection(self) -> None:
        """Close the sending half once all that waits is sent, within the limit, and the producer is unregistered."""
        self._end(TransportEvent.LOSE_WRITE)

    def abortConnection(self) -> None:
        """Close now, and drop what waits."""
        self._receiving.delivers = False
        self._close_state = next_close_state(self._close_state, TransportEvent.ABORT)
        self._close()
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """Receive nothing until `resumeProducing`."""
        self._receiving.pause()

    def resumeProducing(self) -> None:
        """Receive again, unless the connection is closing."""
        self._receiving.resume()

    def stopProducing(self) -> None:
        """The same as `loseConnection`, as for every transport."""
        self.loseConnection()

    def stopConsuming(self) -> None:
        """Forget the producer, and close: for producers that give up by themselves."""
        self.unregisterProducer()
        self.loseConnection()

    def startTLS(self, context: Any, normal: bool = True) -> None:  # noqa: FBT001, FBT002 -- Twisted's signature
        """Let the transport encrypt what is written from now on, and decrypt what is received.

        Bytes that were written before leave in plain, in their turn; until then nothing is received.
        Raises `AttributeError` if the transport has no ``startTLS``, and `RuntimeError` if an earlier call still waits.
        """
        start = partial(self.transport.startTLS, context, normal)
        if self._send_state is _CLOSED:
            return
        self._tls.ask(start)
        if self._tls.state is TLSState.STARTING:
            self._receiving.hold()
            alsoProvides(self, ISSLTransport)
        else:
            self._update()

    def getPeer(self) -> IAddress:
        """The address of the other end."""
        return self.transport.getPeer()  # type: ignore[no-any-return]

    def getHost(self) -> IAddress:
        """The address of this end."""
        return self.transport.getHost()  # type: ignore[no-any-return]

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """Let ``producer`` write while neither the limit nor the transport holds it back.

        Raises `RuntimeError` if there is a producer already; stops it at once if the connection is closed.
        """
        if self._send_state is _CLOSED:
            producer.stopProducing()
            return
        self._producers.take(
            producer,
            streaming=streaming,
            clock=self._clock,
            failed=self.unregisterProducer,
            passing=self._send_state is _PASSING,
        )

    def unregisterProducer(self) -> None:
        """Forget the producer, which has written all it had; a close that waited for it may go on."""
        self._producers.release()
        if not self._backlog.size:
            self._producers.detach()
        self._update()

    def __getattr__(self, name: str) -> Any:
        if name == "getPeerCertificate" and self._tls.state is TLSState.STARTING:
            # As between the start of a handshake and its end; the transport has no such function yet.
            return lambda: None
        return getattr(self.transport, name)

    # The protocol of the transport below

    def makeConnection(self, transport: ITransport) -> None:
        """Connect the wrapped protocol to this transport."""
        directlyProvides(self, providedBy(transport), *self._listens())
        if INegotiated.providedBy(transport) or ISSLTransport.providedBy(transport):
            self._tls.is_secure()
        self.connected = 1
        self.transport = transport
        self._receiving = Receiving(transport)
        self._producers.onto(transport)
        self._drain.into(transport)
        self._path.direct = transport.write
        if self._make_flow is not None:
            if hasattr(transport, "setTcpNoDelay"):
                # Nagle's algorithm would join what is let go piece by piece again; the application may switch it on.
                transport.setTcpNoDelay(True)
            self.use(self._make_flow())
        self.wrappedProtocol.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        """Forward what arrived, unless the application has closed the connection."""
        if self._tls.state is TLSState.STARTING:
            # From a transport that reads although it was paused: these bytes are in plain, and pass for encrypted ones.
            self.abortConnection()
        elif self._receiving.delivers:
            flow = self._path.flow
            if flow is not None:
                flow.received += len(data)
            self.wrappedProtocol.dataReceived(data)

    def handshakeCompleted(self) -> None:
        """Forward that the TLS handshake is complete."""
        self.wrappedProtocol.handshakeCompleted()

    def readConnectionLost(self) -> None:
        """Forward that the other end has closed its sending half."""
        self.wrappedProtocol.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Drop what waits, and forward that nothing can be sent any more."""
        self._drop()
        self.wrappedProtocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Drop what waits, leave the flow, and tell the application."""
        try:
            self._close()
            self._producers.stopProducing()
        finally:
            # Even after an exception, because nobody else tells the application.
            self.connected = 0
            wrapped, self.wrappedProtocol = self.wrappedProtocol, None
            wrapped.connectionLost(reason)

    def logPrefix(self) -> str:
        """The wrapped protocol's prefix, marked as paced."""
        return log_prefix(self.wrappedProtocol)

    # What happens in each state

    @property
    def _flow(self) -> Flow | None:
        return self._path.flow

    def _hold(self, data: bytes) -> None:
        """Let ``data`` wait for grants."""
        if data and self._accepts():
            self._backlog.put(data)
            self._producers.attach()
            if not self._refilling:
                self._ask()
            self._producers.wrote(len(data))

    def _update(self) -> None:
        """Do whatever the limits, the backlog and the transport allow now."""
        if self._send_state is _CLOSED:
            return
        limited = self._flow is not None and self._flow.limited
        if not limited and self._send_state is _SHAPING:
            self._flush()
        holding = self._producers.full and self._producers.producer is not None
        state = next_send_state(self._send_state, limited=limited, waiting=self._backlog.size > 0, holding=holding)
        if state is not self._send_state:
            self._send_state = state
            if state is _SHAPING:
                self._path.direct = None
                self._producers.stand_between()
            else:
                self._step_aside()
        if self._send_state is _SHAPING:
            self._refill()
        self._finish()

    def _flush(self) -> None:
        """Send what waits although no limit applies any more, as far as the transport takes it."""
        self._drain.flush(lambda: self._producers.full, self._count)

    def _count(self, amount: int) -> None:
        if self._flow is not None:
            self._flow.passed += amount

    def _step_aside(self) -> None:
        """On the way to PASSING: stop asking for bytes, and leave the producer to the transport."""
        if self._flow is not None:
            self._flow.ask(0)
        self._path.direct = self.transport.write
        self._producers.stand_aside()

    def _refill(self) -> None:
        """While SHAPING: let the producer write up to the high-water mark, and ask for all of it in one go."""
        self._refilling = True
        try:
            self._producers.regulate(None if self._flow is None else self._flow.share)
        finally:
            self._refilling = False
            self._ask()

    def _switch(self, start: Callable[[], None]) -> None:
        """Start TLS in the transport, whose producer finds out anew how much it may write."""
        self._producers.anew(start)
        directlyProvides(self, providedBy(self.transport), *self._listens())
        self._receiving.release()

    def _ask(self) -> None:
        flow = self._flow
        if flow is not None and self._send_state is not _CLOSED:
            if self._producers.full:
                flow.hold()
            else:
                flow.ask(self._drain.wanted if flow.limited else 0)

    def _end(self, event: TransportEvent) -> None:
        """Note the application's wish, and fulfil it now if nothing is left to send."""
        state = next_close_state(self._close_state, event)
        if state is not self._close_state:
            self._close_state = state
            self._finish()

    def _finish(self) -> None:
        """If nothing is left to send, unregister from the transport, and close it as the application wished."""
        if self._backlog.size or self._producers.producer is not None or self._send_state is _CLOSED:
            return
        self._producers.detach()
        state = next_close_state(self._close_state, TransportEvent.DRAINED)
        if state is not self._close_state:
            self._close_state = state
            if state is CloseState.CLOSED:
                self.transport.loseConnection()
            else:
                self.transport.loseWriteConnection()

    def _accepts(self) -> bool:
        """Whether what is written now is sent; transports drop what comes after ``loseConnection``, too."""
        return self._send_state is not _CLOSED and (
            self._close_state is CloseState.OPEN or self._producers.producer is not None
        )

    def _drop(self) -> None:
        self._backlog.clear()
        self._tls.forget()
        self._drain.forget_grants()

    def _close(self) -> None:
        self._send_state = _CLOSED
        self._path.direct = None
        self._drop()
        flow, self._path.flow = self._flow, None
        if flow is not None:
            flow.leave()

    def _listens(self) -> list[type[Interface]]:
        return [interface for interface in _FORWARDED if interface.providedBy(self.wrappedProtocol)]


def log_prefix(wrapped: Any) -> str:
    """What the log calls ``wrapped``, marked as paced."""
    name = wrapped.logPrefix() if ILoggingContext.providedBy(wrapped) else type(wrapped).__name__
    return f"{name} (paced)"
