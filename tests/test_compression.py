"""Compression of content on its way: where, of what, with whom, and that the throttle counts what travels."""

import random
from itertools import pairwise
from types import SimpleNamespace

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from realize.concurrency.memory import Memory
from realize.errors import ConnectionFailed, ProtocolError
from realize.throttle.buckets import Bucket
from realize.throttle.scheduler import Scheduler
from realize.throttle.transport import ThrottledProtocol
from realize.values import MAX_VALUE_BYTES, Compress, Hole
from realize.wire import boxes, commands, frames
from realize.wire.boxes import CompressedBox, DataBox
from realize.wire.compression import (
    FASTER_TIMES,
    FIRST_PAUSE_BYTES,
    FIRST_SPEED_BPS,
    FIRST_STRIDE_BYTES,
    MAX_PAUSE_BYTES,
    MAX_STRIDE_BYTES,
    STEP_BYTES,
    Compression,
    Hope,
    beginning,
    capabilities,
    portions,
)
from realize.wire.connection import Greeting
from realize.wire.frames import shrink
from realize.wire.line_rate import FORGET_S, MEASURED_AFTER_S, WAITED_S, LineRate
from tests.loopback import Pair

TEXT = b"".join(b"%d: GET /index.html HTTP/1.1 200\n" % number for number in range(60_000))
NOISE = random.Random(1).randbytes(2 << 20)
SLOW_BPS = FIRST_SPEED_BPS // FASTER_TIMES


def greeting(compress):
    """What a peer says of itself with that choice."""
    return Greeting("peer", capabilities(compress))


@pytest.fixture(autouse=True)
def compresses_at_once(monkeypatch):
    """What compression takes is measured by a clock that stands, or it would make way for others on this machine."""
    monkeypatch.setattr(frames, "time", SimpleNamespace(perf_counter=lambda: 0.0))


class Transfer:
    """A stream from the client to the server of a connection."""

    def __init__(self, ours=Compress.ALWAYS, theirs=Compress.AUTO, limit=None, memory=None, clock=None):
        self.pair = Pair(clock or Clock(), client_greeting=greeting(ours), server_greeting=greeting(theirs))
        if limit is not None:
            self.pair.client_wire.share = limit
        self.pair.introduced()
        if memory is not None:
            self.pair.server.use_memory(memory)
        number = self.pair.client.streams.choose()
        self.pair.server.streams.accept(number)
        self.out = self.pair.client.streams.outbound(number)
        self.number = number
        self.before = self.pair.client.bytes_sent
        self.seen = []
        receive = self.pair.server.received
        self.pair.server.received = lambda box: (self.seen.append(type(box)), receive(box))[1]

    @property
    def travelled(self):
        """Bytes of boxes that were sent."""
        return self.pair.client.bytes_sent - self.before

    def send(self, pieces, apart=False):
        """Send the pieces, and return what arrives, holes among it."""
        self.incoming = self.pair.server.streams.inbound(self.number, sum(map(len, pieces)))
        self.incoming.start()
        failed = []
        Deferred.fromCoroutine(self.out.send(pieces, apart=apart)).addErrback(failed.append)
        found = []
        while self.incoming.arrived < self.incoming.limit or self.incoming._held:
            self.pair.flush()
            assert not failed
            arrived = []
            self.incoming.read().addBoth(arrived.append)
            self.pair.flush()
            found += arrived[0]
        return found


def joined(pieces):
    """The content of pieces without holes."""
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("ours", "theirs", "limit", "compressed"),
    [
        (Compress.AUTO, Compress.AUTO, None, False),
        (Compress.AUTO, Compress.AUTO, SLOW_BPS - 1, True),
        (Compress.AUTO, Compress.AUTO, SLOW_BPS + 1, False),
        (Compress.ALWAYS, Compress.AUTO, None, True),
        (Compress.AUTO, Compress.ALWAYS, None, True),
        (Compress.NEVER, Compress.ALWAYS, 1000, False),
        (Compress.ALWAYS, Compress.NEVER, 1000, False),
    ],
)
def test_both_ends_have_a_say(ours, theirs, limit, compressed):
    """Never at one end is never; always at one end is always; else it is a matter of the line."""
    transfer = Transfer(ours, theirs, limit)

    assert TEXT == joined(transfer.send([TEXT]))
    assert compressed == (boxes.CompressedBox in transfer.seen)
    assert compressed == (transfer.travelled < len(TEXT) / 3)


def test_a_peer_that_does_not_know_it_gets_plain_content():
    """An older version, which announces nothing of it, is sent what it understands."""
    older = Greeting("older", tuple(each for each in commands.CAPABILITIES if each != commands.ZSTD))
    pair = Pair(Clock(), client_greeting=greeting(Compress.ALWAYS), server_greeting=older).introduced()

    assert (None, None) == (pair.client.compression, pair.server.compression)


@pytest.mark.parametrize("apart", [False, True])
def test_what_arrives_is_what_was_sent(apart):
    """Content that shrinks, content that does not, what is short, and holes keep their order."""
    pieces = [TEXT[:100], TEXT, NOISE[:300_000], Hole(1 << 20), TEXT[:70_000], NOISE[:10], TEXT[:300]]
    transfer = Transfer()

    found = transfer.send(pieces, apart=apart)

    hole = next(index for index, piece in enumerate(found) if isinstance(piece, Hole))
    assert joined(pieces[:3]) == joined(found[:hole])
    assert joined(pieces[4:]) == joined(found[hole + 1 :])
    assert 1 << 20 == len(found[hole])
    assert transfer.out.saved == transfer.incoming.saved > len(TEXT) * 2 // 3
    assert sum(map(len, pieces)) - (1 << 20) == transfer.out.content == transfer.incoming.content


def test_small_files_do_not_share_a_frame():
    """How much a file shrinks depends on no other one: whoever sees lengths learns nothing of what is beside it."""
    first, second = TEXT[:2000], TEXT[:2000]
    alone, together = Transfer(), Transfer()
    alone.send([first], apart=True)
    together.send([first, second], apart=True)

    assert 2 * alone.out.saved == together.out.saved > 0


def test_what_does_not_shrink_is_given_up():
    """Of a film, less than a sixteenth is tried, and it travels as it is, with less than 0.1 % on top."""
    transfer = Transfer()
    tried = []
    shrinking = transfer.pair.client.compression.shrink
    transfer.pair.client.compression.shrink = lambda contents, **options: (
        tried.append(sum(map(len, contents))),
        shrinking(contents, **options),
    )[1]
    film = [NOISE] * 8

    assert joined(film) == joined(transfer.send(film))
    assert sum(tried) < 16 * len(NOISE) / 2 / 16
    assert len(NOISE) * 8 < transfer.travelled < len(NOISE) * 8 * 1.001


def test_a_file_that_begins_to_shrink_is_noticed():
    """Behind what does not shrink, content is tried again."""
    transfer = Transfer()
    pieces = [NOISE[: 1 << 20], TEXT, TEXT]

    assert joined(pieces) == joined(transfer.send(pieces))
    assert len(TEXT) < transfer.out.saved


def test_credit_and_memory_count_content():
    """What takes little on the line is promised, and claimed, as long as it will be."""
    memory = Memory(64 << 20, 4 << 20)
    share = memory.of("peer")
    transfer = Transfer(memory=share)
    transfer.incoming = transfer.pair.server.streams.inbound(transfer.number, 16 << 20)
    transfer.incoming.start()
    Deferred.fromCoroutine(transfer.out.send([bytes(16 << 20)]))
    transfer.pair.flush()

    assert transfer.travelled < 100_000
    assert transfer.out.content <= 4 << 20
    assert transfer.incoming.arrived <= memory.held <= 4 << 20


@pytest.mark.parametrize(
    ("length", "frame", "reason"),
    [
        (255, b"x", "255 bytes compressed"),
        (MAX_VALUE_BYTES + 1, b"x", "65536 bytes compressed"),
        (300, b"x" * 300, "compressed to 300"),
        (300, b"", "compressed to 0"),
        (2000, b"x", "more content than"),
    ],
)
def test_what_is_not_allowed_ends_the_connection(length, frame, reason):
    """A frame that is no shorter than its content, or has too little or too much of it, is a violation."""
    transfer = Transfer()
    transfer.pair.server.streams.inbound(transfer.number, 1000).promised()
    transfer.pair.client.write(b"".join(boxes.compressed(transfer.number, length, frame)))
    transfer.pair.flush()

    [violation] = transfer.pair.log.named("protocol_violation")
    assert reason in violation["reason"]


def test_frames_that_were_not_agreed_end_the_connection():
    """Whoever has announced nothing of it need not know Zstandard."""
    transfer = Transfer(theirs=Compress.NEVER)
    transfer.pair.server.streams.inbound(transfer.number, 1000).promised()
    transfer.pair.client.write(b"".join(boxes.compressed(transfer.number, 1000, b"x")))
    transfer.pair.flush()

    assert "not agreed" in transfer.pair.log.named("protocol_violation")[0]["reason"]


def test_what_cannot_be_expanded_ends_the_stream():
    """Who reads the stream is told why, then and later; the connection goes on."""
    transfer = Transfer()
    incoming = transfer.pair.server.streams.inbound(transfer.number, 2000)
    incoming.promised()
    told = []
    incoming.read().addErrback(lambda failure: told.append(failure.value))
    transfer.pair.client.write(b"".join(boxes.compressed(transfer.number, 1000, b"no frame")))
    transfer.pair.flush()
    incoming.read().addErrback(lambda failure: told.append(failure.value))

    assert ["compressed content is not a frame of Zstandard"] * 2 == [str(error) for error in told]
    assert all(isinstance(error, ProtocolError) for error in told)
    assert not transfer.pair.server.lost


@pytest.mark.parametrize("waits", [False, True])
def test_a_read_that_is_cancelled_leaves_what_is_expanded(waits):
    """Whoever reads on, to keep what has arrived, gets it in order; a connection that ends meanwhile takes nothing."""
    transfer, jobs = Transfer(), []

    def in_thread(work, *args, **options):
        jobs.append((work, args, options, Deferred()))
        return jobs[-1][-1]

    transfer.pair.server.compression._in_thread = in_thread
    incoming = transfer.pair.server.streams.inbound(transfer.number, len(TEXT))
    incoming.promised()
    cancelled = incoming.read() if waits else None
    Deferred.fromCoroutine(transfer.out.send([TEXT]))
    transfer.out.give(len(TEXT))
    transfer.pair.flush()
    cancelled = cancelled or incoming.read()
    cancelled.addErrback(lambda failure: failure.trap(CancelledError))
    cancelled.cancel()
    transfer.pair.server.streams.lost(ConnectionFailed("cut"))
    found, ended = [], []
    while not ended:
        incoming.read().addCallbacks(found.extend, ended.append)
        while jobs:
            work, args, options, result = jobs.pop()
            result.callback(work(*args, **options))

    assert TEXT == joined(found)
    assert "cut" == ended[0].getErrorMessage()
    assert not incoming.unread


def test_a_cancelled_read_of_what_cannot_be_expanded_is_quiet():
    """The next one is told; nothing is left to be reported as unhandled."""
    transfer, result = Transfer(), Deferred()
    transfer.pair.server.compression._in_thread = lambda *_args, **_options: result
    incoming = transfer.pair.server.streams.inbound(transfer.number, 2000)
    incoming.promised()
    cancelled = incoming.read().addErrback(lambda failure: failure.trap(CancelledError))
    transfer.pair.client.write(b"".join(boxes.compressed(transfer.number, 1000, b"no frame")))
    transfer.pair.flush()
    cancelled.cancel()
    told = []
    incoming.read().addErrback(lambda failure: told.append(failure.value))
    result.errback(ProtocolError("no frame"))
    incoming.read().addErrback(lambda failure: told.append(failure.value))

    assert ["no frame"] * 2 == [str(error) for error in told]


def test_saved_is_what_was_sent():
    """What waits for the line, and may never go, has saved nothing: else what travelled would shrink."""
    transfer = Transfer()
    client = transfer.pair.client
    client.sending.writable = Deferred
    Deferred.fromCoroutine(transfer.out.send([TEXT])).addErrback(lambda _: None)
    transfer.out.give(MAX_VALUE_BYTES)
    before = client.traffic()
    client.streams.close(transfer.number)
    after = client.traffic()

    assert [(0, 0)] * 2 == [(each.content_sent, each.saved_sent) for each in (before, after)]


def test_the_throttle_counts_what_travels():
    """At 100,000 bytes per second, so much is sent in each, and nearly twice as much content that shrinks to half."""
    clock = Clock()
    clock.pump([1000])
    root = Bucket(100_000)
    pacer = Scheduler(clock, root)
    pair = Pair(clock, wrap=lambda client: ThrottledProtocol(clock, client, lambda: pacer.flow(Bucket(parent=root))))
    arrived = []
    receive = pair.server.dataReceived
    pair.server.dataReceived = lambda data: (arrived.append(len(data)), receive(data))
    pair.introduced()
    number = pair.client.streams.choose()
    pair.server.streams.accept(number)
    digits = NOISE.hex().encode()
    incoming = pair.server.streams.inbound(number, len(digits))
    incoming.start()
    Deferred.fromCoroutine(pair.client.streams.outbound(number).send([digits]))
    clock.pump([0.001] * 1000)
    before, had = sum(arrived), incoming.arrived
    clock.pump([0.001] * 3000)

    assert 300_000 == pytest.approx(sum(arrived) - before, rel=0.1)
    assert 1.7 * 300_000 < incoming.arrived - had


@pytest.mark.parametrize(
    ("steps", "rate"),
    [
        # A line that is always full carries 100,000 bytes in a second.
        ([(0.0, 0, 0), (1.0, 300_000, 200_000)], 100_000),
        # One that has carried all that was written some time ago holds nobody up.
        ([(0.0, 0, 0), (1.0, 300_000, 0)], None),
        # It is looked at now and then only.
        ([(0.0, 0, 0), (MEASURED_AFTER_S / 2, 300_000, 200_000)], None),
        # When it is not full for a moment, its rate stays,
        ([(0.0, 0, 0), (1.0, 300_000, 200_000), (2.0, 300_000, 0)], 100_000),
        # and is forgotten after a while.
        ([(0.0, 0, 0), (1.0, 300_000, 200_000), (1.1 + FORGET_S, 300_000, 0)], None),
        # A line that becomes faster is noticed.
        ([(0.0, 0, 0), (1.0, 300_000, 200_000), (2.0, 9_300_000, 200_000)], 9_000_000),
    ],
)
def test_a_line_is_as_fast_as_what_it_takes_while_it_is_full(steps, rate):
    """The rate is known only while the line is what the sender waits for."""
    line = LineRate()
    for now, sent, unsent in steps:
        if line.is_due(now):
            line.look(now, sent, unsent)

    assert rate == line.rate_bps


def test_what_was_written_just_now_proves_nothing():
    """What other files have written a moment ago may not have left on the fastest line."""
    line = LineRate()
    line.look(0.0, 0, 0)
    line.wrote(1.0 - WAITED_S / 2, 50_000)
    line.look(1.0, 300_000, 250_000)

    assert line.rate_bps is None
    line.wrote(2.0 - WAITED_S, 250_000)
    line.look(2.0, 900_000, 800_000)
    assert 50_000 == line.rate_bps


class Line:
    """A line of one rate that is always full."""

    def __init__(self, rate):
        self.rate = rate
        self.time = 0.0
        self.bytes_sent = 0

    def now(self):
        """The time."""
        return self.time

    def unsent(self):
        """All that was not carried since the beginning."""
        return max(0, self.bytes_sent - int(self.rate * self.time))

    def limit(self):
        """None."""
        return


@pytest.mark.parametrize(("rate", "wanted"), [(SLOW_BPS // 2, True), (SLOW_BPS * 2, False)])
def test_without_a_limit_the_line_decides(rate, wanted):
    """A full line that is slower than an eighth of compression is compressed for."""
    line = Line(rate)
    compression = Compression(line, lambda work, *args, **options: work(*args, **options), always=False)

    assert not compression.wanted()
    line.time, line.bytes_sent = 1.0, SLOW_BPS * 4
    assert wanted == compression.wanted()


def test_compression_that_is_slow_here_makes_way():
    """On a busy or slow machine, lines count as slow only below an eighth of what it compresses."""
    line = Line(SLOW_BPS // 2)
    slow = ([None] * 4, 4 * MAX_VALUE_BYTES / (SLOW_BPS / 10))
    compression = Compression(line, lambda *_args, **_options: slow, always=False)
    compression.wanted()
    line.time, line.bytes_sent = 1.0, SLOW_BPS * 4
    before = compression.wanted()
    for _ in range(20):
        compression.shrink([TEXT[:MAX_VALUE_BYTES]] * 4, sampled=False)

    assert (True, False) == (before, compression.wanted())


def test_the_line_is_looked_at_early_then_rarely():
    """Little is sent before a slow line is noticed, and a fast one costs nothing."""
    compression = Compression(Line(1), lambda *_: None, always=False)
    strides = [compression.stride() for _ in range(10)]

    assert FIRST_STRIDE_BYTES == strides[0]
    assert all(after in {2 * before, MAX_STRIDE_BYTES} for before, after in pairwise(strides))
    assert MAX_STRIDE_BYTES == strides[-1]


def test_hope_is_lost_and_found():
    """The first that does not shrink is short; pauses double, up to a limit, until something shrinks."""
    hope = Hope()
    pauses, steps = [], []
    for shrank in (False, False, True, False, *[False] * 12):
        steps.append(hope.step)
        hope.tried(shrank=shrank)
        pauses.append(hope.pause)
        hope.passed(hope.pause)

    assert [FIRST_PAUSE_BYTES, 2 * FIRST_PAUSE_BYTES, 0, FIRST_PAUSE_BYTES] == pauses[:4]
    assert MAX_PAUSE_BYTES == pauses[-1]
    assert [MAX_VALUE_BYTES, MAX_VALUE_BYTES, MAX_VALUE_BYTES, STEP_BYTES, MAX_VALUE_BYTES] == steps[:5]


@pytest.mark.parametrize(
    ("pieces", "most", "taken", "rest"),
    [
        ([b"abc", b"def"], 3, [b"abc"], [b"def"]),
        ([b"abc", b"def"], 4, [b"abc", b"d"], [b"ef"]),
        ([b"abc", b"def"], 7, [b"abc", b"def"], []),
        ([b"a", Hole(1 << 20), b"bc"], 2, [b"a", Hole(1 << 20), b"b"], [b"c"]),
    ],
)
def test_the_beginning_of_pieces(pieces, most, taken, rest):
    """Content is split where it must be, holes never."""
    first, others = beginning(pieces, most)

    assert (taken, rest) == ([*first], [*others])


@pytest.mark.parametrize(
    ("contents", "apart", "expected"),
    [
        ([b"abc", b"defgh"], False, [b"abcd", b"efgh"]),
        ([b"abc", b"defgh"], True, [b"abc", b"defg", b"h"]),
        ([b"abcde"], False, [b"abcd", b"e"]),
    ],
)
def test_portions(contents, apart, expected):
    """Pieces of one file are joined for a frame, files never."""
    assert expected == portions(contents, 4, apart=apart)


def test_a_box_is_written_as_amp_writes_it():
    """A frame is an ordinary box, which is recognised whatever the order of its keys."""
    [frame], _ = shrink([TEXT[:5000]], sampled=False)
    box = {b"_command": b"Compressed", b"stream": b"7", b"length": b"5000", b"content": frame}
    data = b"".join(boxes.compressed(7, 5000, frame))

    assert boxes.encode(box) == data
    assert [CompressedBox(7, 5000, frame), DataBox(7, b"x")] == list(
        boxes.BoxParser().feed(data + b"".join((boxes.data_head(1), b"x", boxes.data_tail(7))))
    )
