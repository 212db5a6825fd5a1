"""One file as a stream, at the end without the store: what is asked of the peer, and what is made of its answers.

The peer answers when, and what, the test says.
"""

from collections import deque

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.protocols import amp

from realize.errors import ConnectionFailed, InternalError, NoSpace, NotFound, ProtocolError, SourceChanged
from realize.store.client import streams as remote_streams
from realize.store.client.streams import ABANDON_TIMEOUT_S, RemoteReader, RemoteWriter
from realize.store.client.transit import Transit
from realize.values import BLOCK_BYTES, SPAN_BYTES, Attributes, Committed, OnConflict, Seen, Stored, Version, extent
from realize.wire import commands, packing
from realize.wire.boxes import data_head, data_tail
from realize.wire.commands import HOLE_CREDIT_BYTES
from realize.wire.reply_timeouts import REPLY_TIMEOUT_S
from tests.loopback import Pair

DIGEST = bytes(32)
KEPT = Attributes(1, 0o644)
CREATED = Stored(Committed.CREATED)
TEN = [(4, bytes(16)), (6, bytes(16))]
KINDS = {command.commandName: command for command in commands.every_command()}


class Peer(amp.CommandLocator):
    """Opens and closes streams as it is asked, remembers that, and answers when it is told to."""

    def __init__(self, streams):
        self.asked = []
        self._streams = streams
        self._waiting = deque()

    def locateResponder(self, name):
        """Any command at all."""
        command = KINDS[name]

        def respond(box):
            arguments = command.parseArguments(box, None)
            self.asked.append((command, arguments))
            self._follow(command, **arguments)
            waiting = Deferred()
            self._waiting.append(waiting)
            return waiting.addCallback(command.makeResponse, None)

        return respond

    def _follow(self, command, stream=0, size=0, heads=(), **_):
        if command in {commands.OpenRead, commands.OpenWrite, commands.PutSmall}:
            self._streams.accept(stream)
        if command is commands.OpenRead:
            self._streams.outbound(stream)
        if command is commands.OpenWrite:
            self._streams.inbound(stream, size).start()
        if command is commands.PutSmall:
            self._streams.inbound(stream, sum(head.size for head in heads)).promised()
        if command in {commands.CloseStream, commands.AbandonStream}:
            self._streams.close(stream)

    def transfers(self):
        """None that it knows of."""
        return []

    def failed(self, box):
        """Nothing was to be closed."""

    def answer(self, result):
        """To what it was asked first, of what is not answered yet; an error, or what the answer holds."""
        waiting = self._waiting.popleft()
        if isinstance(result, Exception):
            waiting.errback(result)
        else:
            waiting.callback(result)


class Asking(Pair):
    """A connection to a peer that answers as the test says."""

    def __init__(self):
        clock = Clock()
        clock.advance(1000)
        super().__init__(clock, chunk=1 << 20)
        self.peer = Peer(self.server.streams)
        self.introduced()
        self.server.serve(self.peer)

    def ask(self, waiting):
        """Begin; what it ends with, an error too, comes into the list."""
        results = []
        waiting = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        waiting.addCallbacks(results.append, lambda failure: results.append(failure.value))
        self.flush()
        return results

    def answer(self, result=None, **answer):
        """Let the peer answer what it was asked first."""
        self.peer.answer(result or answer)
        self.flush()

    def asked(self):
        """What the peer was asked since the last look: the command, and what matters of its arguments."""
        asked, self.peer.asked[:] = list(self.peer.asked), []
        return [
            (command, {name: value for name, value in arguments.items() if name not in {"handle", "stream"}})
            for command, arguments in asked
        ]

    def names(self):
        """The commands that the peer was asked since the last look."""
        return [command for command, _ in self.asked()]

    def reading(self, size=10, *, opened=True, removing=False):
        """Open a file to read."""
        self.version = Version(1, 2, size, 4, 5)
        self.opening = Deferred.fromCoroutine(RemoteReader.open(self.client, 7, b"f", Transit(), removing=removing))
        self.reader = self.ask(self.opening)
        if opened:
            self.answer(version=self.version, attributes=KEPT)
            self.peer.asked.clear()
            (self.reader,) = self.reader
        return self.reader

    def writing(self, size=10, *, opened=True, have=0, replaces=None):
        """Open a file to write."""
        self.told = []
        opening = RemoteWriter.open(
            self.client,
            7,
            b"f",
            size,
            OnConflict.FAIL,
            lambda *how: self.told.append(how),
            True,
            replaces,
            0,
            None,
            Transit(),
        )
        self.opening = Deferred.fromCoroutine(opening)
        self.writer = self.ask(self.opening)
        if opened:
            self.answer(have=have)
            self.peer.asked.clear()
            (self.writer,) = self.writer
        return self.writer

    def send(self, content, *, stream=1):
        """The peer sends content."""
        self.server.write(data_head(len(content)) + content + data_tail(stream))
        self.flush()


@pytest.fixture
def asking():
    """A connection; nothing of it is left in the end."""
    made = Asking()
    yield made
    made.client_wire.cut()
    made.flush()
    assert 0 == len(made.client.streams)
    assert [] == made.clock.getDelayedCalls()


def kinds(results):
    """The classes of what something ended with."""
    return [type(result) for result in results]


# Reading.


@pytest.mark.parametrize("removing", [True, False])
def test_a_file_is_opened_to_be_read(asking, removing):
    """It is as large as the peer says."""
    opened = asking.reading(opened=False, removing=removing)
    before = asking.asked()
    asking.answer(version=asking.version, attributes=KEPT)
    (reader,) = opened

    assert [(commands.OpenRead, {"path": b"f", "removing": removing})] == before
    assert (asking.version, KEPT, True) == (reader.version, reader.attributes, reader.deltas)


@pytest.mark.parametrize("writing", [True, False], ids=["write", "read"])
def test_a_file_that_cannot_be_opened_leaves_no_stream(asking, writing):
    """The peer has closed its end."""
    results = asking.writing(opened=False) if writing else asking.reading(opened=False)
    asking.answer(NotFound("no"))

    assert [NotFound] == kinds(results)
    assert (1, 0) == (len(asking.names()), len(asking.client.streams))


@pytest.mark.parametrize("writing", [True, False], ids=["write", "read"])
def test_opening_may_be_cancelled(asking, writing):
    """The peer, which may have opened it in the meantime, is told; what was there of it stays."""
    results = asking.writing(opened=False) if writing else asking.reading(opened=False)
    asking.opening.cancel()
    asking.flush()
    asking.answer(**({"have": 0} if writing else {"version": asking.version, "attributes": KEPT}))
    asking.answer(NotFound("there is no such stream"))

    assert [CancelledError] == kinds(results)
    told = (commands.AbandonStream, {"keep": True}) if writing else (commands.CloseStream, {})
    assert told == asking.asked()[1]
    assert (0, False) == (len(asking.client.streams), asking.client.lost)


@pytest.mark.parametrize(
    ("length", "count", "kind"),
    [
        (2 * BLOCK_BYTES + 1, 3, list),
        (2 * BLOCK_BYTES + 1, 2, ProtocolError),
        (2 * BLOCK_BYTES, 3, ProtocolError),
        (0, 0, list),
    ],
)
def test_there_is_a_digest_for_each_block(asking, length, count, kind):
    """Also for the last one that is none; a peer that has others has broken its word."""
    reader = asking.reading(2 * BLOCK_BYTES + 1)
    digests = asking.ask(reader.block_digests(length))
    asking.answer(digests=[DIGEST] * count)

    assert [(commands.BlockDigests, {"length": length})] == asking.asked()
    assert [kind] == kinds(digests)


def test_nothing_is_asked_beyond_the_end(asking):
    """What was skipped is behind us."""
    reader = asking.reading(10)
    skipped = asking.ask(reader.skip(4))
    asking.answer()
    before = asking.asked()
    for method in (reader.skip, reader.block_digests):
        assert [ProtocolError] == kinds(asking.ask(method(7)))
    asked = asking.names()
    asking.ask(reader.skip(6))
    asking.answer()

    assert ([None], [(commands.SkipBlocks, {"length": 4})], []) == (skipped, before, asked)
    assert [(commands.SkipBlocks, {"length": 6})] == asking.asked()
    assert [[]] == asking.ask(reader.read())


def test_nothing_is_asked_of_a_reader_that_is_closed(asking):
    """It is closed once, and whoever waits for its end is told."""
    reader = asking.reading(0)
    finished = asking.ask(reader.finish())
    asking.peer.asked.clear()
    reader.close()
    reader.close()
    asking.flush()
    results = [
        asking.ask(ask()) for ask in (lambda: reader.skip(0), reader.cut, lambda: reader.pick([True]), reader.read)
    ]

    assert [ConnectionFailed] == kinds(finished)
    assert [[ProtocolError]] * 4 == list(map(kinds, results))
    assert [commands.CloseStream] == asking.names()
    assert [ConnectionFailed] == kinds(asking.ask(reader.finish()))


def test_a_reader_is_closed_in_silence_when_the_connection_is_lost(asking):
    """There is nobody to tell."""
    reader = asking.reading(0)
    asking.client_wire.cut()
    reader.close()

    assert [] == asking.names()


def test_a_span_is_cut_within_the_file(asking):
    """With all that was skipped and cut before; a cut that failed, or found nothing, counts for nothing."""
    reader = asking.reading(24)
    asking.ask(reader.skip(4))
    asking.answer()
    failed = asking.ask(reader.cut())
    asking.answer(NotFound("no"))
    cut = asking.ask(reader.cut())
    asking.answer(chunks=TEN)
    picked = asking.ask(reader.pick([False, False]))
    asking.answer()
    asking.ask(reader.cut())
    asking.answer(chunks=TEN)
    empty = asking.ask(reader.cut())
    asking.answer(chunks=[])
    beyond = asking.ask(reader.cut())
    asking.answer(chunks=[(1, bytes(16))])

    assert ([NotFound], [TEN], [[]], [[]]) == (kinds(failed), cut, picked, empty)
    assert [ProtocolError] == kinds(beyond)


def test_a_span_is_cut_no_longer_than_spans_are(asking):
    """Who waits for it has no more room."""
    reader = asking.reading(2 * SPAN_BYTES)
    chunks = [(1 << 15, bytes(16))] * (SPAN_BYTES >> 15)
    answers = [asking.ask(reader.cut()) for _ in range(2)]
    asking.answer(chunks=chunks)
    asking.answer(chunks=[*chunks, (1, bytes(16))])

    assert ([chunks], [ProtocolError]) == (answers[0], kinds(answers[1]))
    assert SPAN_BYTES == extent(chunks)


def test_what_was_picked_comes_in_order(asking):
    """Content of the next pick may come together with that of the first, and content that flows behind both."""
    reader = asking.reading(25)
    for _ in range(2):
        asking.ask(reader.cut())
        asking.answer(chunks=TEN)
    wrong = [asking.ask(reader.pick(wanted)) for wanted in ([], [True], [True] * 3)]
    asking.peer.asked.clear()
    picks = [asking.ask(reader.pick([True, False])), asking.ask(reader.pick([False, True]))]
    asked = asking.asked()
    asking.send(b"1234567890")
    for _ in picks:
        asking.answer()
    read = asking.ask(reader.read())
    asking.send(b"abcde")
    finished = asking.ask(reader.finish())
    asking.answer()
    asking.answer(digest=DIGEST)

    assert [[ProtocolError]] * 3 == list(map(kinds, wrong))
    bits = [packing.pack_bits(wanted) for wanted in ([True, False], [False, True])]
    assert [(commands.PickChunks, {"wanted": each}) for each in bits] == asked
    assert [b"1234", b"567890", b"abcde"] == [b"".join(*each) for each in (*picks, read)]
    assert [DIGEST] == finished
    assert [ProtocolError] == kinds(asking.ask(reader.cut()))


def test_a_pick_that_fails_ends_the_file(asking):
    """Its content will not come."""
    reader = asking.reading(10)
    asking.ask(reader.cut())
    asking.answer(chunks=TEN)
    picked = asking.ask(reader.pick([True, True]))
    asking.answer(SourceChanged("it shrank"))

    assert [SourceChanged] == kinds(picked)
    assert [SourceChanged] == kinds(asking.ask(reader.read()))


def test_a_pick_of_less_than_was_sent_fails(asking):
    """A peer that answers before its content came never sends it; nobody waits for it."""
    reader = asking.reading(10)
    asking.ask(reader.cut())
    asking.answer(chunks=TEN)
    picked = asking.ask(reader.pick([True, True]))
    asking.send(b"123456789")
    asking.answer()

    assert [ProtocolError] == kinds(picked)


def test_a_file_is_read_to_its_end(asking):
    """And not called finished before; nor is anything asked twice."""
    reader = asking.reading(10)
    early = asking.ask(reader.finish())
    pieces = [asking.ask(reader.read())]
    asking.send(b"12345")
    still_early = asking.ask(reader.finish())
    pieces.append(asking.ask(reader.read()))
    asking.send(b"67890")
    finished = [asking.ask(reader.finish())]
    asking.answer()
    waits = [list(each) for each in finished]
    asking.answer(digest=DIGEST)
    finished.append(asking.ask(reader.finish()))

    assert [ProtocolError] * 2 == kinds(early + still_early)
    assert ([b"12345", b"67890"], [[]]) == ([b"".join(*each) for each in pieces], waits)
    assert [[DIGEST], [DIGEST]] == finished
    assert [commands.StartRead, commands.EndRead] == asking.names()


@pytest.mark.parametrize("answer", [{"digest": DIGEST}, SourceChanged("it shrank")], ids=["too early", "error"])
def test_a_file_that_ends_early_is_not_whole(asking, answer):
    """Whoever reads it is told, and whoever waits for its end."""
    reader = asking.reading(10)
    read = asking.ask(reader.read())
    asking.answer()
    asking.answer(answer)
    again = asking.ask(reader.read())
    finished = asking.ask(reader.finish())

    kind = ProtocolError if isinstance(answer, dict) else SourceChanged
    assert [[kind]] * 3 == list(map(kinds, (read, again, finished)))


@pytest.mark.parametrize("step", [0, 1], ids=["start", "end"])
def test_an_error_behind_the_content_fails_the_end(asking, step):
    """All of it has come, and is not what it was; what has come may still be read."""
    reader = asking.reading(5)
    asking.ask(reader.read())
    asking.send(b"12345")
    finished = [asking.ask(reader.finish()) for _ in range(2)]
    if step:
        asking.answer()
    asking.answer(SourceChanged("it was changed"))

    assert [[SourceChanged]] * 2 == list(map(kinds, finished))
    assert [[]] == asking.ask(reader.read())


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "stopped"])
def test_what_has_come_is_read_before_the_end(asking, lost):
    """Before the reason: the next run need not have it sent again."""
    reader = asking.reading(10)
    read = [asking.ask(reader.read())]
    asking.send(b"123")
    asking.send(b"456")
    asking.client_wire.cut() if lost else reader.stop()
    asking.flush()
    if not lost:
        asking.send(b"789")
    read += [asking.ask(reader.read()) for _ in range(2)]
    reader.close()

    assert [[[b"123"]], [[b"456"]], [ConnectionFailed]] == [*read[:2], kinds(read[2])]


def test_a_reader_that_is_stopped_before_content_flows_asks_for_none(asking):
    """It is closed."""
    reader = asking.reading(10)
    reader.stop()

    assert [ProtocolError] == kinds(asking.ask(reader.read()))
    assert [commands.CloseStream] == asking.names()


@pytest.mark.parametrize("most", [None, 5], ids=["all", "some"])
def test_a_peer_need_not_send_what_is_not_wanted(asking, most):
    """It is given no credit for that, but for a hole that may come next."""
    reader = asking.reading(1 << 20)
    if most is not None:
        reader.at_most(most)
    asking.ask(reader.read())

    assert (1 << 20 if most is None else most + HOLE_CREDIT_BYTES) == reader._content.stream._granted


def test_to_look_again_behind_content_takes_another_stream(asking):
    """The peer skips there what we have; what it says of the first one concerns nobody any more."""
    reader = asking.reading(10, removing=True)
    asking.ask(reader.read())
    asking.send(b"12345")
    asking.peer.asked.clear()
    digests = asking.ask(reader.block_digests(5))
    asking.answer()
    asking.answer(SourceChanged("of the first stream"))
    asking.answer()
    asking.answer(version=asking.version, attributes=KEPT)
    asking.answer()
    asking.answer(digests=[DIGEST])
    read = asking.ask(reader.read())
    asking.send(b"67890", stream=3)
    asking.answer()
    asking.answer(digest=DIGEST)

    assert [
        (commands.CloseStream, {}),
        (commands.OpenRead, {"path": b"f", "removing": True}),
        (commands.SkipBlocks, {"length": 5}),
        (commands.BlockDigests, {"length": 5}),
    ] == asking.asked()[:4]
    assert ([[DIGEST]], [b"67890"]) == (digests, [b"".join(*read)])
    assert [DIGEST] == asking.ask(reader.finish())
    assert 1 == len(asking.client.streams)


def test_picks_on_another_stream_count_from_its_start(asking):
    """What was picked on the first one has not come on this one."""
    reader = asking.reading(40)
    asking.ask(reader.cut())
    asking.answer(chunks=TEN)
    asking.ask(reader.pick([True, True]))
    asking.send(b"1234567890")
    asking.answer()
    asking.ask(reader.read())
    asking.send(b"x" * 10)
    asking.ask(reader.skip(0))
    for _ in range(3):
        asking.answer()
    asking.answer(version=asking.version, attributes=KEPT)
    for _ in range(2):
        asking.answer()
    asking.ask(reader.cut())
    asking.answer(chunks=TEN)
    picked = asking.ask(reader.pick([True, True]))
    asking.send(b"abcdefghij", stream=3)
    asking.answer()
    read = asking.ask(reader.read())
    asking.send(b"y" * 10, stream=3)

    assert [b"abcdefghij", b"y" * 10] == [b"".join(*each) for each in (picked, read)]


def test_what_comes_together_is_picked_apart(asking):
    """Wherever the pieces that arrive end."""
    reader = asking.reading(40_000)
    content = b"a" * 10_000 + b"b" * 10_000 + b"c" * 20_000
    for length in (10_000, 30_000):
        asking.ask(reader.cut())
        asking.answer(chunks=[(length, bytes(16))])
    picks = [asking.ask(reader.pick([True])) for _ in range(2)]
    asking.server.write(
        b"".join(data_head(20_000) + part + data_tail(1) for part in (content[:20_000], content[20_000:]))
    )
    asking.flush()

    assert [content[:10_000], content[10_000:]] == [b"".join(*picked) for picked in picks]


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "changed"])
def test_another_stream_may_show_another_file(asking, closed):
    """Then all is over; so it is when the reader is closed before it is open, and nothing stays open."""
    reader = asking.reading(10)
    asking.ask(reader.read())
    asking.send(b"12345")
    skipped = asking.ask(reader.skip(5))
    for _ in range(3):
        asking.answer()
    asking.peer.asked.clear()
    if closed:
        reader.close()
    asking.answer(version=asking.version if closed else Version(1, 2, 10, 4, 6), attributes=KEPT)
    if not closed:
        reader.close()
        asking.flush()

    assert [ProtocolError if closed else SourceChanged] == kinds(skipped)
    assert commands.CloseStream in asking.names()
    assert 0 == len(asking.client.streams)


def test_spans_that_were_not_picked_are_forgotten_when_content_flows(asking):
    """It is all that is left of the file."""
    reader = asking.reading(10)
    asking.ask(reader.cut())
    asking.answer(chunks=TEN)
    asking.ask(reader.read())
    asking.send(b"1234567890")

    assert [ProtocolError] == kinds(asking.ask(reader.pick([True, True])))
    assert [[]] == asking.ask(reader.read())


def test_a_fault_of_ours_while_reading_ends_the_connection(asking, monkeypatch):
    """Whoever waits for the end of the file would not be told of it otherwise."""
    reader = asking.reading(0)
    finished = asking.ask(reader.finish())
    content = reader._content
    real = content.settle
    faults = [ZeroDivisionError("ours")]

    def settled(outcome):
        if faults:
            raise faults.pop()
        real(outcome)

    monkeypatch.setattr(content, "settle", settled)
    asking.answer()
    asking.answer(digest=DIGEST)

    assert ([InternalError], True) == (kinds(finished), asking.client.lost)
    assert ["reading"] == [line["doing"] for line in asking.log.named("internal_error")]


# Writing.


@pytest.mark.parametrize("replaces", [None, Seen(b"place", 5)])
def test_a_file_is_opened_to_be_written(asking, replaces):
    """As it was asked; the peer says what it has of it."""
    opened = asking.writing(opened=False, replaces=replaces)
    before = asking.asked()
    asking.answer(have=4)

    given = {"path": b"f", "size": 10, "policy": OnConflict.FAIL, "preserve": True, "replaces": replaces}
    given |= {"number": None, "allocated": None}
    assert [(commands.OpenWrite, given)] == before
    assert ([4], True) == ([writer.have for writer in opened], opened[0].deltas)


def test_a_partial_is_matched_to_where_it_differs(asking, monkeypatch):
    """As many blocks at a time as a command holds, and none behind that."""
    monkeypatch.setattr(remote_streams, "BLOCKS_PER_COMMAND", 2)
    writer = asking.writing(9 * BLOCK_BYTES)
    matched = asking.ask(writer.match([DIGEST] * 7, 6 * BLOCK_BYTES + 5))
    asking.answer(matched=2 * BLOCK_BYTES)
    asking.answer(matched=2 * BLOCK_BYTES - 1)
    lengths = [(len(arguments["digests"]), arguments["length"]) for _, arguments in asking.asked()]
    whole = asking.ask(writer.match([DIGEST] * 3, 2 * BLOCK_BYTES + 5))
    asking.answer(matched=2 * BLOCK_BYTES)
    asking.answer(matched=5)

    assert ([4 * BLOCK_BYTES - 1], [2 * BLOCK_BYTES + 5]) == (matched, whole)
    assert [(2, 2 * BLOCK_BYTES), (2, 2 * BLOCK_BYTES)] == lengths
    assert [(2, 2 * BLOCK_BYTES), (1, 5)] == [(len(each["digests"]), each["length"]) for _, each in asking.asked()]


def test_a_peer_does_not_match_more_than_it_was_asked(asking):
    """One that does has broken its word."""
    writer = asking.writing(10)
    matched = asking.ask(writer.match([DIGEST], 5))
    asking.answer(matched=6)

    assert [ProtocolError] == kinds(matched)


def test_no_more_is_written_than_is_left(asking):
    """Of what was matched, found in an old version, and written before."""
    writer = asking.writing(30)
    asking.ask(writer.match([DIGEST], 5))
    asking.answer(matched=5)
    wanted = asking.ask(writer.offer(TEN))
    asking.answer(wanted=packing.pack_bits([False, True]))
    for length, kind in (
        (22, ProtocolError),
        (6, type(None)),
        (16, ProtocolError),
        (15, type(None)),
        (1, ProtocolError),
    ):
        assert [kind] == kinds(asking.ask(writer.write([bytes(length)])))

    assert [[False, True]] == wanted


def test_a_commit_ends_the_stream_and_says_how_long_it_took(asking):
    """From when it was opened; content alone counts."""
    writer = asking.writing(5)
    asking.ask(writer.write([b"12345"]))
    committed = asking.ask(writer.commit(DIGEST, KEPT))
    asking.clock.advance(3)
    asking.answer(outcome=CREATED)

    assert ([CREATED], [(5, 3.0)]) == (committed, asking.told)
    assert [(commands.CommitStream, {"digest": DIGEST, "attributes": KEPT, "extras": None})] == asking.asked()
    assert 0 == len(asking.client.streams)


def test_a_commit_that_fails_ends_the_stream_too(asking):
    """It tells nothing of how fast the link is, and the file is closed."""
    writer = asking.writing(0)
    committed = asking.ask(writer.commit(DIGEST, None))
    asking.answer(NoSpace("full"))

    assert ([NoSpace], [], 0) == (kinds(committed), asking.told, len(asking.client.streams))
    asking.peer.asked.clear()
    ends = [writer.commit(DIGEST, None), writer.offer([]), writer.write([b""])]
    assert [[ProtocolError]] * 3 == [kinds(asking.ask(each)) for each in ends]
    assert ([None], []) == (asking.ask(writer.abandon(keep=True)), asking.names())


@pytest.mark.parametrize("keep", [True, False])
def test_a_file_is_abandoned_once(asking, keep):
    """Whatever the peer says of that."""
    writer = asking.writing(5)
    abandoned = [asking.ask(writer.abandon(keep=keep)) for _ in range(2)]
    before = [list(each) for each in abandoned]
    asking.answer(NotFound("no"))

    assert ([[], [None]], [[None], [None]]) == (before, abandoned)
    assert [(commands.AbandonStream, {"keep": keep})] == asking.asked()
    assert 0 == len(asking.client.streams)


@pytest.mark.parametrize("answer", [{"kept": 3}, {}])
def test_how_much_is_kept_is_what_the_peer_says(asking, answer):
    """Of a stream that it has closed already it says nothing."""
    abandoned = asking.ask(asking.writing(5).abandon(keep=True))
    asking.answer(answer)

    assert [answer.get("kept")] == abandoned


def test_who_gives_up_does_not_wait_long(asking):
    """The peer does it all the same, whenever it can."""
    writer = asking.writing(5)
    abandoned = asking.ask(writer.abandon(keep=True))
    asking.clock.advance(ABANDON_TIMEOUT_S - 0.5)
    before = list(abandoned)
    asking.clock.advance(0.5)

    assert ([], [None]) == (before, abandoned)


def test_a_file_is_abandoned_in_silence_when_the_connection_is_lost(asking):
    """The peer keeps the partial by itself."""
    writer = asking.writing(5)
    asking.client_wire.cut()

    assert [None] == asking.ask(writer.abandon(keep=False))


@pytest.mark.parametrize("command", ["block_digests", "match", "commit", "open_writer"])
def test_a_disk_may_take_its_time(asking, command):
    """What reads or writes it is waited for longer than a mere question."""
    if command == "block_digests":
        asking.ask(asking.reading(5).block_digests(5))
    elif command == "open_writer":
        asking.writing(opened=False)
    elif command == "match":
        asking.ask(asking.writing(5).match([DIGEST], 5))
    else:
        asking.ask(asking.writing(5).commit(DIGEST, None))
    asking.clock.pump([1] * int(2 * REPLY_TIMEOUT_S))

    assert not asking.client.lost


def test_whoever_only_opens_a_file_to_read_does_not_wait_for_ever(asking):
    """A peer that answers nothing but pings has hung."""
    opened = asking.reading(opened=False)
    asking.clock.pump([1] * int(2 * REPLY_TIMEOUT_S))

    assert asking.client.lost
    assert 1 == len(opened)
