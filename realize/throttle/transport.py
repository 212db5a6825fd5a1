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
from typing import Any, Final, cast

from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IConsumer,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    INegotiated,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IPullProducer,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITransport,
)
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import Interface, alsoProvides, directlyProvides, implementer, providedBy

from realize.throttle.backlog import Backlog
from realize.throttle.producers import ProducerCallbacks, PulledProducer, RegulatedProducer
from realize.throttle.receiving import Receiving
from realize.throttle.scheduler import Flow
from realize.throttle.states import (
    CloseState,
    SendState,
    TLSState,
    TransportEvent,
    next_close_state,
    next_send_state,
    next_tls_state,
)
from realize.throttle.tls_records import TLS_RECORD_OVERHEAD_BYTES, payload_that_fits, wire_size
from realize.throttle.write_path import WritePath
from realize.values import MAX_VALUE_BYTES

QUEUE_S: Final = 0.05
"""The high-water mark of the backlog, above which the producer is paused, in seconds at the expected rate."""

_MIN_QUEUE_BYTES: Final = 512
_MAX_QUEUE_BYTES: Final = 1 << 20
_COUNT_STEP_BYTES: Final = 1 << 16
_PASSING, _SHAPING, _CLOSED = SendState.PASSING, SendState.SHAPING, SendState.CLOSED
_DISCONNECTING: Final = (CloseState.CLOSING, CloseState.CLOSED)
_FORWARDED: Final = (IHalfCloseableProtocol, IHandshakeListener)


@implementer(ITransport, IConsumer)
class ThrottledProtocol(Protocol):
    """Throttles what ``wrappedProtocol`` sends; whatever is not about sending goes to the transport below."""

    write: Callable[[bytes], None]
    """See `WritePath.write`."""

    def __init__(
        self, factory: ThrottledFactory, wrapped: IProtocol, make_flow: Callable[[], Flow] | None = None
    ) -> None:
        self.factory: ThrottledFactory = factory
        self.transport: Any = None
        self.wrappedProtocol: Any = wrapped
        self._path = WritePath(self._hold)
        self.write = self._path.write
        self._make_flow = make_flow
        self._receiving = Receiving(None)
        self._overhead = 0
        self._tls_state = TLSState.PLAIN
        self._start_tls: Callable[[], None] | None = None
        self._backlog = Backlog()
        self._unspent = 0
        self._high_water = float(_COUNT_STEP_BYTES)
        self._send_state = SendState.PASSING
        self._close_state = CloseState.OPEN
        self._refilling = False
        self._producer: RegulatedProducer | None = None
        self._below = ProducerCallbacks(self._pause, self._resume, self._stopped)
        self._below_paused = False
        self._registered: IPushProducer | None = None
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
        self._unspent = 0
        flow.waiter = self
        self._update()

    @property
    def suggested_chunk(self) -> int:
        """How many bytes to write at a time, so that a message behind them waits about 50 ms: 512 to 65,535."""
        share = None if self._flow is None else self._flow.share
        if share is None:
            return MAX_VALUE_BYTES
        return int(min(MAX_VALUE_BYTES, max(_MIN_QUEUE_BYTES, share * QUEUE_S)))

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
            self._unspent += amount
            self._spend()
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
        if self._close_state is CloseState.CLOSING and not self._overhead:
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
        start = self.transport.startTLS
        if self._start_tls is not None:
            raise RuntimeError("startTLS was called before, and waits for what was written before that")
        if self._send_state is _CLOSED:
            return
        self._start_tls = partial(start, context, normal)
        self._backlog.cut()
        self._tls_state = next_tls_state(self._tls_state, asked=True, ahead=self._backlog.ahead > 0)
        if self._tls_state is TLSState.STARTING:
            self._receiving.hold()
            alsoProvides(self, ISSLTransport)
        else:
            self._switch()
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
        if self._producer is not None:
            raise RuntimeError(f"cannot register {producer}: {self._producer.push} was never unregistered")
        if self._send_state is _CLOSED:
            producer.stopProducing()
            return
        push = (
            cast("IPushProducer", producer)
            if streaming
            else PulledProducer(cast("IPullProducer", producer), self.factory.clock, self._pull_failed)
        )
        # Who pushes is paused by its first write at the earliest: TLS above this layer is not ready for it here.
        self._producer = RegulatedProducer(push, paused=not streaming)
        self._register(self._producer if self._send_state is _PASSING else self._below)
        if not streaming and not self._full and self._producer is not None:
            self._producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Forget the producer, which has written all it had; a close that waited for it may go on."""
        producer, self._producer = self._producer, None
        if producer is not None and isinstance(producer.push, PulledProducer):
            producer.push.pauseProducing()
        if not self._backlog.size:
            self._register(None)
        self._update()

    def _pull_failed(self, pulled: PulledProducer) -> None:
        if self._producer is not None and self._producer.push is pulled:
            self.unregisterProducer()

    def __getattr__(self, name: str) -> Any:
        if name == "getPeerCertificate" and self._tls_state is TLSState.STARTING:
            # As between the start of a handshake and its end; the transport has no such function yet.
            return lambda: None
        return getattr(self.transport, name)

    # The protocol of the transport below

    def makeConnection(self, transport: ITransport) -> None:
        """Connect the wrapped protocol to this transport."""
        directlyProvides(self, providedBy(transport), *self._listens())
        if INegotiated.providedBy(transport) or ISSLTransport.providedBy(transport):
            self._tls_state = TLSState.SECURE
            self._overhead = TLS_RECORD_OVERHEAD_BYTES
        self.connected = 1
        self.transport = transport
        self._receiving = Receiving(transport)
        self._path.direct = transport.write
        if self._make_flow is not None:
            if hasattr(transport, "setTcpNoDelay"):
                # Nagle's algorithm would join what is let go piece by piece again; the application may switch it on.
                transport.setTcpNoDelay(True)
            self.use(self._make_flow())
        self.wrappedProtocol.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        """Forward what arrived, unless the application has closed the connection."""
        if self._tls_state is TLSState.STARTING:
            # From a transport that reads although it was paused: these bytes are in plain, and pass for encrypted ones.
            self.abortConnection()
        elif self._receiving.delivers:
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
            self._stopped()
        finally:
            # Even after an exception, because nobody else tells the application.
            self.connected = 0
            wrapped, self.wrappedProtocol = self.wrappedProtocol, None
            wrapped.connectionLost(reason)

    def logPrefix(self) -> str:
        """The wrapped protocol's prefix, marked as paced."""
        return _prefix(self.wrappedProtocol)

    # The producer of the transport below, through `ProducerCallbacks`

    def _pause(self) -> None:
        if not self._below_paused:
            self._below_paused = True
            self._ask()
            self._regulate()

    def _resume(self) -> None:
        self._below_paused = False
        self._update()

    def _stopped(self) -> None:
        self._registered = None
        self._drop()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    # What happens in each state

    @property
    def _flow(self) -> Flow | None:
        return self._path.flow

    def _hold(self, data: bytes) -> None:
        """Let ``data`` wait for grants."""
        if data and self._accepts():
            self._backlog.put(data)
            if self._registered is None:
                self._register(self._below)
            if not self._refilling:
                self._ask()
            if self._producer is not None and self._full:
                self._producer.wrote_too_much(len(data))

    def _update(self) -> None:
        """Do whatever the limits, the backlog and the transport allow now."""
        if self._send_state is _CLOSED:
            return
        limited = self._flow is not None and self._flow.limited
        if not limited and self._send_state is _SHAPING:
            self._flush()
        holding = self._below_paused and self._producer is not None
        state = next_send_state(self._send_state, limited=limited, waiting=self._backlog.size > 0, holding=holding)
        if state is not self._send_state:
            self._send_state = state
            if state is _SHAPING:
                self._path.direct = None
                self._step_between()
            else:
                self._step_aside()
        if self._send_state is _SHAPING:
            self._refill()
        self._finish()

    def _flush(self) -> None:
        """Send what waits although no limit applies any more, as far as the transport takes it."""
        while self._backlog.size and not self._below_paused:
            data = self._backlog.take(_COUNT_STEP_BYTES)
            if self._flow is not None:
                self._flow.passed += len(data)
            self._put(data)
        self._unspent = 0

    def _step_aside(self) -> None:
        """On the way to PASSING: stop asking for bytes, and leave the producer to the transport."""
        if self._flow is not None:
            self._flow.ask(0)
        self._path.direct = self.transport.write
        producer = self._producer
        if producer is None:
            self._register(None)
        else:
            self._register(producer)
            producer.resumeProducing()

    def _step_between(self) -> None:
        """On the way to SHAPING: take the place of the producer at the transport."""
        if self._producer is not None:
            self._register(self._below)

    def _refill(self) -> None:
        """While SHAPING: let the producer write up to the high-water mark, and ask for all of it in one go."""
        share = None if self._flow is None else self._flow.share
        self._high_water = (
            _COUNT_STEP_BYTES if share is None else min(_MAX_QUEUE_BYTES, max(_MIN_QUEUE_BYTES, share * QUEUE_S))
        )
        self._refilling = True
        try:
            self._regulate()
        finally:
            self._refilling = False
            self._ask()

    def _spend(self) -> None:
        """Send as much of the backlog as the grants pay for, TLS overhead included."""
        backlog = self._backlog
        while backlog.size and (fitting := payload_that_fits(self._unspent, self._overhead)):
            data = backlog.take(min(fitting, _COUNT_STEP_BYTES))
            self._unspent -= wire_size(len(data), self._overhead)
            self._put(data)

    def _put(self, data: bytes) -> None:
        """Give the transport what was taken from the backlog, and start TLS if that was the last before it."""
        self.transport.write(data)
        if self._start_tls is not None:
            self._tls_state = next_tls_state(self._tls_state, asked=False, ahead=self._backlog.ahead > 0)
            if self._tls_state is TLSState.SECURE:
                self._switch()
                self._receiving.release()

    def _switch(self) -> None:
        """Start TLS in the transport, whose producer finds out anew how much it may write."""
        start, self._start_tls = self._start_tls, None
        registered = self._registered
        self._register(None)
        if start is not None:
            start()
        self._overhead = TLS_RECORD_OVERHEAD_BYTES
        directlyProvides(self, providedBy(self.transport), *self._listens())
        self._register(registered)
        if self._producer is not None and registered is self._producer:
            # The transport had it paused, and begins anew.
            self._producer.resumeProducing()

    def _ask(self) -> None:
        flow = self._flow
        if flow is not None and self._send_state is not _CLOSED:
            waits = flow.limited and not self._below_paused
            flow.ask(wire_size(self._backlog.size, self._overhead) - self._unspent if waits else 0)

    def _regulate(self) -> None:
        producer = self._producer
        if producer is None:
            return
        if not producer.paused:
            if self._full:
                producer.pauseProducing()
        elif not self._below_paused and self._backlog.size <= self._high_water / 2:
            producer.resumeProducing()

    @property
    def _full(self) -> bool:
        """Whether the producer should write nothing now."""
        return self._below_paused or self._backlog.size > self._high_water

    def _end(self, event: TransportEvent) -> None:
        """Note the application's wish, and fulfil it now if nothing is left to send."""
        state = next_close_state(self._close_state, event)
        if state is not self._close_state:
            self._close_state = state
            self._finish()

    def _finish(self) -> None:
        """If nothing is left to send, unregister from the transport, and close it as the application wished."""
        if self._backlog.size or self._producer is not None or self._send_state is _CLOSED:
            return
        self._register(None)
        state = next_close_state(self._close_state, TransportEvent.DRAINED)
        if state is not self._close_state:
            self._close_state = state
            if state is CloseState.CLOSED:
                self.transport.loseConnection()
            else:
                self.transport.loseWriteConnection()

    def _accepts(self) -> bool:
        """Whether what is written now is sent; transports drop what comes after ``loseConnection``, too."""
        return self._send_state is not _CLOSED and (self._close_state is CloseState.OPEN or self._producer is not None)

    def _drop(self) -> None:
        self._backlog.clear()
        self._start_tls = None
        self._unspent = 0

    def _close(self) -> None:
        self._send_state = _CLOSED
        self._path.direct = None
        self._drop()
        flow, self._path.flow = self._flow, None
        if flow is not None:
            flow.leave()

    def _register(self, producer: IPushProducer | None) -> None:
        """Make ``producer``, or nobody, the transport's producer, in place of the one it has."""
        if producer is self._registered:
            return
        if self._registered is not None:
            self._registered = None
            self._below_paused = False
            self.transport.unregisterProducer()
        if producer is not None:
            self._registered = producer
            self.transport.registerProducer(producer, True)  # noqa: FBT003

    def _listens(self) -> list[type[Interface]]:
        return [interface for interface in _FORWARDED if interface.providedBy(self.wrappedProtocol)]


class ThrottledFactory(ClientFactory):
    """Puts a `ThrottledProtocol` around every protocol of ``wrapped``, a factory of clients or of servers.

    ``flow`` makes the flow of a connection once it is made: of the protocols that are built, some never are connected.
    Without it, a connection has no limit until `ThrottledProtocol.use`.
    """

    noisy = False

    def __init__(self, wrapped: IProtocolFactory, clock: IReactorTime, flow: Callable[[], Flow] | None = None) -> None:
        self.wrappedFactory: Any = wrapped
        self.clock = clock
        self._flow = flow
        if IProtocolNegotiationFactory.providedBy(wrapped):
            alsoProvides(self, IProtocolNegotiationFactory)

    def buildProtocol(self, addr: IAddress | None) -> ThrottledProtocol | None:  # type: ignore[override]
        """A throttled protocol, or None if the wrapped factory refuses the connection."""
        protocol = self.wrappedFactory.buildProtocol(addr)
        if protocol is None:
            return None
        return ThrottledProtocol(self, protocol, self._flow)

    def acceptableProtocols(self) -> list[bytes]:
        """The ALPN protocols of the wrapped factory."""
        return self.wrappedFactory.acceptableProtocols()  # type: ignore[no-any-return]

    def doStart(self) -> None:
        """Forward that the factory is in use."""
        self.wrappedFactory.doStart()
        super().doStart()

    def doStop(self) -> None:
        """Forward that the factory is no longer in use."""
        self.wrappedFactory.doStop()
        super().doStop()

    def startedConnecting(self, connector: IConnector) -> None:
        """Forward that a client connects."""
        self.wrappedFactory.startedConnecting(connector)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Forward that a client could not connect."""
        self.wrappedFactory.clientConnectionFailed(connector, reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        """Forward that a client was disconnected."""
        self.wrappedFactory.clientConnectionLost(connector, reason)

    def logPrefix(self) -> str:
        """The wrapped factory's prefix, marked as paced."""
        return _prefix(self.wrappedFactory)


def _prefix(wrapped: Any) -> str:
    name = wrapped.logPrefix() if ILoggingContext.providedBy(wrapped) else type(wrapped).__name__
    return f"{name} (paced)"
