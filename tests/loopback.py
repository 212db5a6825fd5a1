"""Two connected `PeerProtocol`s in memory: bytes are really encoded, delivered in chunks, and parsed.

The transports push back like real ones: above `HIGH` bytes of backlog the producer is paused, at none it is resumed.
Whoever drives the clock drives the delivery; with the reactor as the clock it runs by itself.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from realize.wire.connection import Greeting, PeerProtocol, Role

HIGH = 64 * 1024


class Log:
    """Collects what is logged."""

    def __init__(self, events=None, bound=None):
        self.events = [] if events is None else events
        self._bound = bound or {}

    def bind(self, **fields):
        """A log that adds fields."""
        return Log(self.events, {**self._bound, **fields})

    def _add(self, level, event, fields):
        self.events.append((level, event, {**self._bound, **fields}))

    def debug(self, event, **fields):
        """Collect."""
        self._add("debug", event, fields)

    def info(self, event, **fields):
        """Collect."""
        self._add("info", event, fields)

    def warning(self, event, **fields):
        """Collect."""
        self._add("warning", event, fields)

    def error(self, event, **fields):
        """Collect."""
        self._add("error", event, fields)

    def named(self, event):
        """The fields of all events of that name."""
        return [fields for _, name, fields in self.events if name == event]

    def errors(self):
        """The events that somebody must act on."""
        return [event for event in self.events if event[0] == "error"]


class Wire:
    """One end of the connection, as a transport."""

    def __init__(self, clock, chunk):
        self.clock = clock
        self.chunk = chunk
        self.protocol = None
        self.other = None
        self.backlog = bytearray()
        self.stalled = False
        self.producer = None
        self.paused = False
        self.pauses = 0
        self.disconnecting = False
        self.closed = False
        self.deaf = False
        self._scheduled = False

    def write(self, data):
        """Queue."""
        if self.closed or self.disconnecting:
            return
        assert isinstance(data, bytes)
        self.backlog += data
        self.schedule()
        if self.producer is not None and len(self.backlog) > HIGH and not self.paused:
            self.paused = True
            self.pauses += 1
            self.producer.pauseProducing()

    @property
    def queued(self):
        """How much waits."""
        return len(self.backlog)

    def schedule(self):
        """Deliver soon."""
        if not self._scheduled and not self.stalled:
            self._scheduled = True
            self.clock.callLater(0, self.deliver)

    def deliver(self):
        """Bring one chunk to the other side."""
        self._scheduled = False
        if self.closed or self.stalled or self.other.deaf:
            return
        data = bytes(self.backlog[: self.chunk])
        del self.backlog[: self.chunk]
        if data and not self.other.closed:
            self.other.protocol.dataReceived(data)
        if self.closed:
            return
        if self.backlog:
            self.schedule()
        elif self.paused and self.producer is not None:
            self.paused = False
            self.producer.resumeProducing()
        elif self.disconnecting and self.producer is None:
            self._close(Failure(ConnectionDone()), Failure(ConnectionDone()))

    def loseConnection(self):
        """Close when all is delivered."""
        self.disconnecting = True
        self.schedule()

    def abortConnection(self):
        """Close now; what is queued is lost."""
        self.backlog.clear()
        self.clock.callLater(0, self._close, Failure(ConnectionAborted()), Failure(ConnectionLost()))

    def cut(self):
        """The link breaks."""
        self._close(Failure(ConnectionLost()), Failure(ConnectionLost()))

    def _close(self, here, there):
        if not self.closed:
            self.closed = True
            self.protocol.connectionLost(here)
            self.other._close(there, here)

    def registerProducer(self, producer, streaming):
        """Remember whom to push back."""
        assert streaming
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self):
        """Forget it."""
        self.producer = None
        if self.disconnecting:
            self.schedule()

    def pauseProducing(self):
        """Take nothing more from the other side for now."""
        self.deaf = True

    def resumeProducing(self):
        """Take it again."""
        self.deaf = False
        if self.other.backlog or self.other.disconnecting:
            self.other.schedule()

    def getPeer(self):
        """An address."""
        return IPv4Address("TCP", "192.0.2.1", 1)

    getHost = getPeer


class Pair:
    """A connected client and server."""

    def __init__(
        self,
        clock,
        *,
        chunk=16 * 1024,
        welcome=None,
        client_greeting=None,
        server_greeting=None,
        wrap=lambda client: client,
    ):
        """``wrap`` inserts a layer between the client and its transport."""
        self.clock = clock
        self.log = Log()
        self.client = PeerProtocol(
            clock=clock,
            log=self.log.bind(side="client"),
            greeting=client_greeting or Greeting("client"),
            role=Role.CONNECTING,
            label="server.example",
        )
        self.server = PeerProtocol(
            clock=clock,
            log=self.log.bind(side="server"),
            greeting=server_greeting or Greeting("server"),
            role=Role.ACCEPTING,
            label="client.example",
            welcome=welcome or (lambda protocol, greeting: "tester"),
        )
        self.client_wire = Wire(clock, chunk)
        self.server_wire = Wire(clock, chunk)
        self.client_wire.other, self.server_wire.other = self.server_wire, self.client_wire
        self.client_wire.protocol, self.server_wire.protocol = wrap(self.client), self.server
        self.server.makeConnection(self.server_wire)
        self.client_wire.protocol.makeConnection(self.client_wire)

    def flush(self, steps=10_000):
        """Deliver until nothing moves; for a `twisted.internet.task.Clock`."""
        for _ in range(steps):
            if not any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                return
            self.clock.advance(0)
        raise AssertionError("it never comes to rest")

    def introduced(self):
        """The same pair, after Hello."""
        self.client.hello()
        self.flush()
        assert self.client.theirs is not None
        return self


class Raw:
    """A hand-made client: sends any bytes, keeps what comes back."""

    def __init__(self, clock, *, welcome=None):
        self.clock = clock
        self.received = bytearray()
        self.lost = None
        self.log = Log()
        self.server = PeerProtocol(
            clock=clock,
            log=self.log,
            greeting=Greeting("server"),
            role=Role.ACCEPTING,
            label="client.example",
            welcome=welcome or (lambda protocol, greeting: "tester"),
        )
        self.wire, self.server_wire = Wire(clock, 1 << 20), Wire(clock, 1 << 20)
        self.wire.other, self.server_wire.other = self.server_wire, self.wire
        self.wire.protocol, self.server_wire.protocol = self, self.server
        self.server.makeConnection(self.server_wire)

    def dataReceived(self, data):
        """Keep."""
        self.received += data

    def connectionLost(self, reason):
        """Keep."""
        self.lost = reason

    def send(self, data):
        """Send, deliver, and deliver what comes back."""
        self.wire.write(data)
        self.flush()

    flush = Pair.flush
