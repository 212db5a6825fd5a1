"""One file as a stream, at the end that has the store: what becomes of each command, in whatever order they come.

The store answers when the test lets it, which is where the order is decided.
"""

from collections import deque

import pytest
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.task import Clock

from realize.errors import (
    ConnectionFailed,
    InternalError,
    NoSpace,
    ProtocolError,
    SourceChanged,
    StorageError,
    VerifyFailed,
)
from realize.store.server.streams import LAST_WRITES_TIMEOUT_S, ServedRead, ServedWrite
from realize.values import BLOCK_BYTES, MAX_HOLE_BYTES, SPANS_AHEAD, Attributes, Committed, Hole, Stored, Version
from realize.wire import packing
from tests.loopback import Pair

DIGEST = bytes(32)
CREATED = Stored(Committed.CREATED)
TEN = [(4, bytes(16)), (6, bytes(16))]


class Late:
    """A reader or writer that remembers what it is asked, and answers when it is told to."""

    def __init__(self, *, have=0, size=0):
        self.have = have
        self.version = Version(1, 2, size, 4, 5)
        self.attributes = Attributes(1, 0o644)
        self.allocated = None
        self.asked = []
        self.closed = 0
        self._waiting = deque()

    def __getattr__(self, name):
        def ask(*arguments, **options):
            self.asked.append((name, *arguments, *options.values()))
            self._waiting.append(Deferred())
            return self._waiting[-1]

        return ask

    def close(self):
        """Count."""
        self.closed += 1

    def names(self):
        """What it was asked so far."""
        return [name for name, *_ in self.asked]

    def answer(self, result=None):
        """To what it was asked first, of what is not answered yet."""
        waiting = self._waiting.popleft()
        if isinstance(result, Exception):
            waiting.errback(result)
        else:
            waiting.callback(result)


class Said:
    """Keeps what is said of a file: the trail, and whoever counts."""

    shown = "inbox/f"

    def __init__(self):
        self.all = []
        self.broken = None

    def __getattr__(self, name):
        def say(*arguments, **options):
            self.all.append((name, *arguments, *options.values()))
            if name == self.broken:
                raise ZeroDivisionError(name)

        return say

    def named(self, name):
        """What was said under that name."""
        return [tuple(rest) for said, *rest in self.all if said == name]


class Streaming:
    """A stream of which this is the end with the store; ``said`` is what is told, ``sent`` how the peer sees it."""

    def __init__(self):
        self.pair = Pair(Clock()).introduced()
        self.said = Said()
        self.turns = DeferredSemaphore(2)
        self.number = self.pair.client.streams.choose()
        self.pair.server.streams.accept(self.number)
        self.opening = None
        self.served = None

    def write(self, size, *, have=0, opened=True):
        """A file that arrives."""
        self.there = self.pair.client.streams.outbound(self.number)
        self.here = self.pair.server.streams.inbound(self.number, size)
        self.store = Late(have=have)
        self.served = ServedWrite(self.pair.server, self.here, size, self.said, self.said, self.turns.run)
        return self._opened(opened=opened)

    def read(self, size, *, opened=True):
        """A file that is sent."""
        self.there = self.pair.client.streams.inbound(self.number, size)
        self.here = self.pair.server.streams.outbound(self.number)
        self.store = Late(size=size)
        self.served = ServedRead(self.pair.server, self.here, self.said.shown, self.said, self.turns.run)
        return self._opened(opened=opened)

    def _opened(self, *, opened):
        self.opening = Deferred()
        self.opened = self.ask(self.served.open(self.opening))
        if opened:
            self.opening.callback(self.store)
            self.pair.flush()
        return self.served

    def ask(self, coroutine):
        """Begin; what it ends with, an error too, comes into the list."""
        results = []
        Deferred.fromCoroutine(coroutine).addCallbacks(results.append, lambda failure: results.append(failure.value))
        self.pair.flush()
        return results

    def arrive(self, content):
        """The peer has sent content."""
        self.pair.server.streams.receive(self.number, content)
        self.pair.server.streams.delivered()
        self.pair.flush()

    def answer(self, result=None):
        """Let the store answer what it was asked first."""
        self.store.answer(result)
        self.pair.flush()


@pytest.fixture
def streaming():
    """A stream; nothing of it is left when the connection ends, and the end was told once."""
    made = Streaming()
    yield made
    made.pair.client_wire.cut()
    made.pair.flush()
    if isinstance(made.served, ServedWrite):
        made.ask(made.served.abandon(keep=True))
    assert 1 >= len(made.said.named("forget"))
    assert [] == made.pair.clock.getDelayedCalls()


def kinds(results):
    """The classes of what something ended with."""
    return [type(result) for result in results]


def begun(length):
    """The digests that belong to a length."""
    return [DIGEST] * -(-length // BLOCK_BYTES)


# Writing.


def test_a_file_that_arrives(streaming):
    """It is announced, shown as it grows, written, committed, counted, and forgotten once."""
    served = streaming.write(10, have=3)
    before = served.describe()
    granted = streaming.there.credit
    streaming.arrive(b"12345")
    during = served.describe()
    streaming.answer()
    streaming.arrive(b"67890")
    streaming.answer()
    committed = streaming.ask(served.commit(DIGEST, None))
    told_early = streaming.said.named("count_committed")
    streaming.answer(CREATED)

    shown = {"path": "inbox/f", "direction": "receive", "size": 10, "compressed": False}
    assert [{**shown, "done": 0}, {**shown, "done": 5}] == [before, during]
    assert ([3], 10) == (streaming.opened, granted)
    assert [("write", [b"12345"]), ("write", [b"67890"]), ("commit", DIGEST, None)] == streaming.store.asked
    assert ([], [CREATED]) == (told_early, committed)
    assert [
        ("started", 3),
        ("forget",),
        ("count_committed", Committed.CREATED),
        ("ended", DIGEST, CREATED),
    ] == streaming.said.all
    assert 0 == len(streaming.pair.server.streams)


@pytest.mark.parametrize("error", [NoSpace("full"), VerifyFailed("other content")], ids=["disk", "digest"])
def test_a_commit_that_fails_is_told(streaming, error):
    """To the peer, to whoever counts, and in the trail."""
    served = streaming.write(0)
    committed = streaming.ask(served.commit(DIGEST, None))
    streaming.answer(error)

    assert [error] == committed
    assert ([(error,)], [(DIGEST, error)]) == (streaming.said.named("count_failed"), streaming.said.named("ended"))
    assert [] == streaming.said.named("count_committed")


@pytest.mark.parametrize("error", [NoSpace("full"), ZeroDivisionError("ours")], ids=["declared", "ours"])
def test_a_file_that_cannot_be_opened(streaming, error):
    """It is counted and logged if it is no fault of ours, its stream is closed, and nothing that follows works."""
    served = streaming.write(10, opened=False)
    waiting = streaming.ask(served.match([], 0))
    streaming.opening.errback(error)
    streaming.pair.flush()

    assert ([error], [ProtocolError]) == (streaming.opened, kinds(waiting))
    told = [(error,)] if isinstance(error, StorageError) else []
    assert (told, told) == (streaming.said.named("count_failed"), streaming.said.named("failed"))
    assert [()] == streaming.said.named("forget")
    assert 0 == len(streaming.pair.server.streams)


def test_what_comes_while_a_file_is_opened_waits(streaming):
    """It is done once it is open."""
    served = streaming.write(10, have=5, opened=False)
    matched = streaming.ask(served.match(begun(5), 5))
    before = list(streaming.store.asked)
    streaming.opening.callback(streaming.store)
    streaming.pair.flush()
    streaming.answer(5)

    assert ([], [("match", [DIGEST], 5)], [5]) == (before, streaming.store.asked, matched)


def test_a_store_may_give_up_opening(streaming):
    """Then the stream is closed: its peer was told that it is not open."""
    streaming.write(10, opened=False)
    streaming.opening.cancel()

    assert ([ConnectionFailed], [("forget",)]) == (kinds(streaming.opened), streaming.said.all)
    assert 0 == len(streaming.pair.server.streams)


def test_opening_is_given_up_with_the_stream(streaming):
    """It need not wait for room any more, and that is no failure of the file."""
    served = streaming.write(10, opened=False)
    abandoned = streaming.ask(served.abandon(keep=False))

    assert ([None], [ConnectionFailed]) == (abandoned, kinds(streaming.opened))
    assert [("forget",)] == streaming.said.all


@pytest.mark.parametrize("keep", [True, False])
def test_a_file_that_was_opened_all_the_same_keeps_what_is_there(streaming, keep):
    """Nobody writes to it any more: others may."""
    served = streaming.write(10, opened=False)
    late = streaming.store
    streaming.opening._canceller = lambda opening: opening.callback(late)
    streaming.ask(served.abandon(keep=keep))
    still_open = list(streaming.opened)
    streaming.answer()

    assert ([], ("abandon", True), {"abandon"}) == (still_open, late.asked[0], set(late.names()))
    assert [ConnectionFailed] == kinds(streaming.opened)


def test_a_file_that_was_opened_in_vain_is_closed_again(streaming):
    """Its peer was told that it is not open, and would never close it."""
    streaming.said.broken = "started"
    streaming.write(10)
    streaming.answer()

    assert ([ZeroDivisionError], [("abandon", True)]) == (kinds(streaming.opened), streaming.store.asked)
    assert [()] == streaming.said.named("forget")
    assert 0 == len(streaming.pair.server.streams)


def test_a_partial_is_matched_piece_by_piece(streaming):
    """Each piece goes on where the last one ended, within what is there of the file, and counts as done."""
    served = streaming.write(10, have=8)
    first = streaming.ask(served.match(begun(3), 3))
    streaming.answer(3)
    beyond = streaming.ask(served.match(begun(6), 6))
    rest = streaming.ask(served.match(begun(5), 5))
    streaming.answer(2)

    assert ([3], [ProtocolError], [2]) == (first, kinds(beyond), rest)
    assert (5, 5) == (served.describe()["done"], streaming.here.limit)


def test_no_more_is_matched_than_the_file_has(streaming):
    """A partial of something longer has the same name."""
    served = streaming.write(10, have=20)

    assert [ProtocolError] == kinds(streaming.ask(served.match(begun(11), 11)))
    streaming.ask(served.match(begun(10), 10))
    assert [("match", [DIGEST], 10)] == streaming.store.asked


@pytest.mark.parametrize("digests", [0, 2, 4])
def test_digests_belong_to_a_length(streaming, digests):
    """One for each block, also for the last one that is none, and no others."""
    length = 2 * BLOCK_BYTES + 1
    served = streaming.write(length, have=length)

    assert [ProtocolError] == kinds(streaming.ask(served.match([DIGEST] * digests, length)))
    assert [] == streaming.store.asked


def test_only_what_was_not_begun_is_matched(streaming):
    """Behind content, or an offer, nobody knows any more where a match would belong."""
    served = streaming.write(20, have=10)
    streaming.ask(served.offer(TEN))
    assert [ProtocolError] == kinds(streaming.ask(served.match(begun(1), 1)))
    streaming.answer([True, True])

    other = Streaming()
    served = other.write(20, have=10)
    other.arrive(b"x")
    other.answer()
    assert [ProtocolError] == kinds(other.ask(served.match(begun(1), 1)))
    other.pair.client_wire.cut()


def test_a_match_behind_the_end_is_refused(streaming):
    """It waited for its turn, and meanwhile the stream was abandoned."""
    served = streaming.write(10, have=10)
    first = streaming.ask(served.match(begun(5), 5))
    second = streaming.ask(served.match(begun(5), 5))
    streaming.ask(served.abandon(keep=True))
    streaming.answer(0)

    assert ([0], [ProtocolError]) == (first, kinds(second))
    assert 1 == streaming.store.names().count("match")


def test_offers_go_on_without_waiting_and_add_up(streaming):
    """What is wanted is to come, and what is not is done."""
    served = streaming.write(30, have=10)
    matched = streaming.ask(served.match(begun(10), 10))
    first = streaming.ask(served.offer(TEN))
    early = streaming.store.names()
    streaming.answer(10)
    second = streaming.ask(served.offer(TEN))
    streaming.answer([True, False])
    streaming.answer([False, True])

    assert (["match"], ["match", "offer", "offer"]) == (early, streaming.store.names())
    assert [("offer", TEN)] * 2 == streaming.store.asked[1:]
    assert ([10], [packing.pack_bits([True, False])], [packing.pack_bits([False, True])]) == (matched, first, second)
    assert [(6,), (4,)] == streaming.said.named("found")
    assert (20, 10) == (served.describe()["done"], streaming.here.limit)


def test_offers_end_with_the_file(streaming):
    """To the last byte, counting what was matched and what was offered before."""
    served = streaming.write(24, have=4)
    streaming.ask(served.match(begun(4), 4))
    streaming.answer(4)

    assert [ProtocolError] == kinds(streaming.ask(served.offer([*TEN, (11, bytes(16))])))
    streaming.ask(served.offer(TEN))
    assert [ProtocolError] == kinds(streaming.ask(served.offer([*TEN, (1, bytes(16))])))
    streaming.ask(served.offer(TEN))
    assert [ProtocolError] == kinds(streaming.ask(served.offer([(1, bytes(16))])))
    assert ["match", "offer", "offer"] == streaming.store.names()


def test_so_many_offers_wait_at_once(streaming):
    """Each that is answered makes room for one more."""
    served = streaming.write(10_000)
    streaming.turns = served._turns = DeferredSemaphore(100)
    answers = [streaming.ask(served.offer(TEN)) for _ in range(SPANS_AHEAD)]
    too_many = streaming.ask(served.offer(TEN))
    streaming.answer([True, True])
    next_ones = [streaming.ask(served.offer(TEN)) for _ in range(2)]

    assert [[packing.pack_bits([True, True])], *[[]] * (SPANS_AHEAD - 1)] == answers
    assert [ProtocolError] == kinds(too_many)
    assert [[], [ProtocolError]] == list(map(kinds, next_ones))


def test_offers_wait_for_their_turn(streaming):
    """Others of the same connection want to read the directory too."""
    served = streaming.write(100)
    for _ in range(3):
        streaming.ask(served.offer(TEN))
    before = streaming.store.names()
    streaming.answer([True, True])

    assert (["offer"] * 2, ["offer"] * 3) == (before, streaming.store.names())


def test_nothing_is_offered_behind_content_that_nobody_wanted(streaming):
    """Content is either announced by offers, or all that follows."""
    served = streaming.write(40)
    streaming.ask(served.offer(TEN))
    streaming.answer([True, False])
    streaming.arrive(b"1234")
    streaming.answer()
    wanted = streaming.ask(served.offer(TEN))
    streaming.answer([False, False])
    streaming.arrive(b"x")
    streaming.answer()

    assert [packing.pack_bits([False, False])] == wanted
    assert [ProtocolError] == kinds(streaming.ask(served.offer(TEN)))


def test_nothing_is_offered_behind_the_end(streaming):
    """The writer is not asked any more."""
    served = streaming.write(40)
    streaming.ask(served.offer(TEN))
    streaming.answer([True, True])
    streaming.ask(served.abandon(keep=True))

    assert [ProtocolError] == kinds(streaming.ask(served.offer(TEN)))
    assert ["offer", "abandon"] == streaming.store.names()


@pytest.mark.parametrize("error", [StorageError("broken disk"), ProtocolError("no")], ids=["disk", "peer"])
@pytest.mark.parametrize("command", ["match", "offer"])
def test_a_comparison_that_fails_is_counted(streaming, command, error):
    """Once for each file, and logged if the disk is at fault."""
    served = streaming.write(40, have=10)

    def compare():
        return served.match(begun(5), 5) if command == "match" else served.offer(TEN)

    first = streaming.ask(compare())
    streaming.answer(error)
    second = streaming.ask(compare())
    streaming.answer(error)

    assert ([error], [error]) == (first, second)
    assert [(error,)] == streaming.said.named("count_failed")
    assert ([(error,)] if isinstance(error, StorageError) else []) == streaming.said.named("failed")


def test_content_that_cannot_be_written_ends_the_file(streaming):
    """The peer is told at once, what still comes is dropped, what is there is kept, and the commit says why."""
    served = streaming.write(30, have=5)
    streaming.ask(served.match(begun(5), 5))
    streaming.answer(5)
    streaming.arrive(b"12345")
    error = NoSpace("full")
    streaming.answer(error)
    stopped = streaming.there._error
    dropped = streaming.ask(_read(streaming.here))
    committed = streaming.ask(served.commit(DIGEST, None))
    streaming.answer(8)

    assert (NoSpace, "full") == (type(stopped), str(stopped))
    assert ([error], [error]) == (dropped, committed)
    assert [("match", [DIGEST], 5), ("write", [b"12345"]), ("abandon", True)] == streaming.store.asked
    assert [(8, True)] == streaming.said.named("stopped")
    assert ([(error,)], [(error,)]) == (streaming.said.named("count_failed"), streaming.said.named("failed"))


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), ProtocolError("odd")], ids=["ours", "declared"])
def test_a_fault_of_ours_while_writing_is_told(streaming, error):
    """The log has the details, which the peer does not learn; the disk is not said to be at fault."""
    served = streaming.write(10)
    streaming.arrive(b"12345")
    streaming.answer(error)
    committed = streaming.ask(served.commit(DIGEST, None))
    streaming.answer()

    ours = isinstance(error, ZeroDivisionError)
    assert [InternalError if ours else ProtocolError] == kinds(committed) == kinds([streaming.there._error])
    assert ["writing"] * ours == [line["doing"] for line in streaming.pair.log.named("internal_error")]
    assert [] == streaming.said.named("failed")


def test_less_than_was_announced_is_for_the_store_to_refuse(streaming):
    """A commit that comes too early ends the file, whatever the store says of it."""
    served = streaming.write(10)
    streaming.arrive(b"12345")
    streaming.answer()
    committed = streaming.ask(served.commit(DIGEST, None))
    streaming.answer(VerifyFailed("short"))

    assert [VerifyFailed] == kinds(committed)
    assert ["write", "commit"] == streaming.store.names()


def test_a_commit_waits_for_what_is_being_written(streaming):
    """Of two, one is done."""
    served = streaming.write(5)
    streaming.arrive(b"12345")
    commits = [streaming.ask(served.commit(DIGEST, None)) for _ in range(2)]
    before = streaming.store.names()
    streaming.answer()
    streaming.answer(CREATED)
    late = streaming.ask(served.commit(DIGEST, None))

    assert (["write"], ["write", "commit"]) == (before, streaming.store.names())
    assert {Stored, ProtocolError} == {kind for results in commits for kind in kinds(results)}
    assert [ProtocolError] == kinds(late)


def test_a_commit_waits_for_what_is_still_to_be_written(streaming):
    """All of it, in order, before the file has its name."""
    served = streaming.write(10)
    streaming.arrive(b"12345")
    streaming.arrive(b"67890")
    committed = streaming.ask(served.commit(DIGEST, None))
    streaming.answer()
    streaming.answer()
    streaming.answer(CREATED)

    assert [("write", [b"12345"]), ("write", [b"67890"]), ("commit", DIGEST, None)] == streaming.store.asked
    assert [CREATED] == committed


def test_a_file_that_was_abandoned_is_not_committed(streaming):
    """The commit waited for the disk when the peer changed its mind."""
    served = streaming.write(5)
    streaming.arrive(b"12345")
    committed = streaming.ask(served.commit(DIGEST, None))
    abandoned = streaming.ask(served.abandon(keep=False))
    streaming.answer()
    streaming.answer()

    assert ([ProtocolError], [None]) == (kinds(committed), abandoned)
    assert [("write", [b"12345"]), ("abandon", False)] == streaming.store.asked


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "asked"])
def test_what_came_before_the_end_is_written(streaming, lost):
    """All of it, and then the file is kept, once: trail and peer are told how much is there; until then it is shown."""
    served = streaming.write(30, have=5)
    streaming.ask(served.match(begun(5), 5))
    streaming.answer(5)
    streaming.arrive(b"123")
    streaming.arrive(b"45")
    streaming.here.receive(b"678")
    if lost:
        streaming.pair.server_wire.cut()
        streaming.pair.flush()
    abandoned = [streaming.ask(served.abandon(keep=True)) for _ in range(2)]
    streaming.answer()
    unfinished = [list(each) for each in abandoned]
    shown = len(streaming.said.named("forget"))
    streaming.answer()
    streaming.answer(13)

    assert [("write", [b"123"]), ("write", [b"45678"]), ("abandon", True)] == streaming.store.asked[1:]
    assert ([[], []], 0, [[13], [None]]) == (unfinished, shown, abandoned)
    assert ([(13, True)], []) == (streaming.said.named("stopped"), streaming.said.named("count_failed"))
    assert 0 == streaming.served._claim.size == streaming.here._claim.size


def test_what_is_to_be_dropped_is_not_written_before(streaming):
    """Only what is being written already is waited for."""
    served = streaming.write(30)
    streaming.arrive(b"12345")
    streaming.arrive(b"678")
    abandoned = streaming.ask(served.abandon(keep=False))
    streaming.answer()
    streaming.answer(0)

    assert ([("write", [b"12345"]), ("abandon", False)], [0]) == (streaming.store.asked, abandoned)


# Reading.


def test_a_file_that_is_sent(streaming):
    """It is shown as it goes, its digest follows, and whoever counts knows which version was read."""
    served = streaming.read(10, opened=False)
    before = served.describe()
    streaming.opening.callback(streaming.store)
    streaming.pair.flush()
    streaming.there.start()
    started = served.start()
    ended = streaming.ask(served.end())
    streaming.answer([b"1234567890"])
    during = served.describe()
    streaming.answer([])
    streaming.answer(DIGEST)

    shown = {"path": "inbox/f", "direction": "send", "compressed": False}
    assert [{**shown, "size": 0, "done": 0}, {**shown, "size": 10, "done": streaming.here.content}] == [before, during]
    assert ([streaming.store], 0, [DIGEST]) == (streaming.opened, started, ended)
    assert (["read", "read", "finish"], 10) == (streaming.store.names(), streaming.there.arrived)
    assert [("was_read", streaming.store.version, DIGEST)] == streaming.said.all


@pytest.mark.parametrize("error", [StorageError("broken disk"), ZeroDivisionError("ours")], ids=["declared", "ours"])
def test_a_file_that_cannot_be_opened_to_be_read(streaming, error):
    """It is counted if it is no fault of ours, and its stream is closed."""
    streaming.read(10, opened=False)
    streaming.opening.errback(error)

    assert [error] == streaming.opened
    assert ([(error,)] if isinstance(error, StorageError) else []) == streaming.said.named("count_failed")
    assert [()] == streaming.said.named("forget")
    assert 0 == len(streaming.pair.server.streams)


def test_a_file_that_was_closed_while_it_was_opened(streaming):
    """What has been opened is closed, and nothing can be read."""
    served = streaming.read(10, opened=False)
    served.close()
    streaming.opening.callback(streaming.store)

    assert ([ConnectionFailed], 1) == (kinds(streaming.opened), streaming.store.closed)
    assert [ProtocolError] == kinds(streaming.ask(served.skip(0)))


def test_a_file_is_closed_once(streaming):
    """However often it is said; nothing is read behind that."""
    served = streaming.read(10)
    served.close()
    served.close()
    for command in (served.skip(1), served.cut(), served.block_digests(1)):
        assert [ProtocolError] == kinds(streaming.ask(command))
    assert [] == streaming.store.asked

    assert (1, [("forget",)]) == (streaming.store.closed, streaming.said.all)
    assert 0 == len(streaming.pair.server.streams)


def test_as_many_digests_as_fit_an_answer(streaming):
    """One block more is refused; each is looked at in its turn."""
    most = packing.MAX_DIGESTS * BLOCK_BYTES
    served = streaming.read(2 * most)
    too_many = streaming.ask(served.block_digests(most + 1))
    first, second = streaming.ask(served.block_digests(most)), streaming.ask(served.block_digests(1))
    before = list(streaming.store.asked)
    streaming.answer((DIGEST,))
    streaming.answer([])

    assert ([("block_digests", most)], [ProtocolError]) == (before, kinds(too_many))
    assert ([[DIGEST]], [[]], 2) == (first, second, len(streaming.store.asked))


def test_what_is_skipped_counts_as_done(streaming):
    """In its turn, to the end of the file and no further; a read says how much of it was not sent."""
    served = streaming.read(10)
    first, second = streaming.ask(served.skip(4)), streaming.ask(served.skip(6))
    before = list(streaming.store.asked)
    streaming.answer()
    streaming.answer()
    beyond = streaming.ask(served.skip(1))

    assert ([("skip", 4)], [("skip", 4), ("skip", 6)]) == (before, streaming.store.asked)
    assert ([None], [None], [ProtocolError]) == (first, second, kinds(beyond))
    assert (10, 10) == (served.describe()["done"], served.start())


def test_spans_are_cut_ahead_and_picked(streaming):
    """Each when the one before was; what is not wanted counts as found."""
    served = streaming.read(40)
    cuts = [streaming.ask(served.cut()) for _ in range(SPANS_AHEAD + 1)]
    before = streaming.store.names()
    for _ in range(SPANS_AHEAD):
        streaming.answer(TEN)
    streaming.there.start()
    picked = streaming.ask(served.pick(packing.pack_bits([False, True])))
    after = streaming.ask(served.cut())
    streaming.answer([b"123456"])
    streaming.answer([])

    assert (["cut"], [TEN] * SPANS_AHEAD) == (before, [chunks for (chunks,) in cuts[:-1]])
    assert ([ProtocolError], [[]], [None]) == (kinds(cuts[-1]), after, picked)
    assert ("pick", [False, True]) == streaming.store.asked[SPANS_AHEAD]
    assert ([(4,)], 6) == (streaming.said.named("found"), streaming.there.arrived)
    assert 4 + streaming.here.content == served.describe()["done"]


def test_at_the_end_there_is_nothing_left_to_cut(streaming):
    """That is an answer, and nothing that could be picked."""
    served = streaming.read(10)
    streaming.ask(served.skip(10))
    streaming.answer()
    chunks = streaming.ask(served.cut())
    streaming.answer([])

    assert [[]] == chunks
    assert [ProtocolError] == kinds(streaming.ask(served.pick(b"")))


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("command", ["block_digests", "skip", "cut", "pick", "end"])
def test_a_read_that_fails_is_counted_once(streaming, command, closed):
    """Unless the peer had closed it: then nobody wanted it any more."""
    served = streaming.read(10)
    error = SourceChanged("it shrank")
    if command == "end":
        streaming.there.start()
        served.start()
    if command == "pick":
        streaming.ask(served.cut())
        streaming.answer(TEN)
    arguments = {"block_digests": [1], "skip": [1], "pick": [packing.pack_bits([True, True])]}.get(command, [])
    results = streaming.ask(getattr(served, command)(*arguments))
    if closed:
        served.close()
    streaming.answer(error)

    assert [error] == results
    assert ([] if closed else [(error,)]) == streaming.said.named("count_failed")
    assert [] == streaming.said.named("was_read")


@pytest.mark.parametrize("step", [0, 1], ids=["read", "finish"])
def test_a_fault_of_ours_while_reading_is_told(streaming, step):
    """The log has the details, and the peer learns where they are."""
    served = streaming.read(0)
    served.start()
    ended = streaming.ask(served.end())
    for _ in range(step):
        streaming.answer([])
    streaming.answer(ZeroDivisionError("ours"))

    assert [InternalError] == kinds(ended)
    assert ["reading"] == [line["doing"] for line in streaming.pair.log.named("internal_error")]


def test_a_stream_that_is_closed_ends_the_read(streaming):
    """It waits for credit that nobody gives any more."""
    served = streaming.read(10)
    served.start()
    ended = streaming.ask(served.end())
    served.close()
    streaming.pair.flush()

    assert [ConnectionFailed] == kinds(ended)
    assert [] == streaming.said.named("count_failed")


async def _read(stream):
    """What comes next."""
    return await stream.read()


def test_holes_end_with_their_peer(streaming):
    """Of what still waits to be hashed nothing is begun any more after a moment, however much that is."""
    served = streaming.write(1 << 62)
    for _ in range(100):
        streaming.here.receive_hole(MAX_HOLE_BYTES)
    streaming.here.delivered()
    assert [("write", [Hole(MAX_HOLE_BYTES)])] == streaming.store.asked

    abandoned = streaming.ask(served.abandon(keep=True))
    streaming.answer()
    streaming.pair.clock.advance(LAST_WRITES_TIMEOUT_S)
    streaming.answer()
    streaming.answer(2 * MAX_HOLE_BYTES)

    assert (["write", "write", "abandon"], [2 * MAX_HOLE_BYTES]) == (streaming.store.names(), abandoned)
    assert [(MAX_HOLE_BYTES,)] * 2 == streaming.said.named("left_out")
