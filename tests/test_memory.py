"""The memory that peers may make the daemon hold: a budget for all, and one for each."""

from __future__ import annotations

import gc
import random
import socket
import weakref

import pytest
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed

from realize.concurrency.memory import MIN_PEER_BYTES, UNBOUNDED, Memory
from realize.errors import Busy
from realize.store.local import walker
from realize.store.local.reader import READ_PIECE_BYTES
from realize.store.local.store import LocalStore
from realize.values import MAX_SMALL_BYTES, Fetched, SmallFile, Version
from realize.wire import boxes, costs, packing, tls
from realize.wire import connection as protocol
from realize.wire.admission import MEMORY_TIMEOUT_S, UNQUEUED_COMMAND_BYTES, WAITER_CHECK_S
from realize.wire.inbound_stream import MAX_NARROW_BYTES, MIN_GRANT_BYTES, InboundStream
from tests import memory_store
from tests.store_helpers import random_bytes
from tests.test_hostile_peer import MOST_READING, Evil, data
from tests.test_streams import FakeLink

MIB = 1 << 20


def done(deferred):
    """Whether it has fired."""
    return deferred.called


def test_a_claim_waits_until_there_is_room():
    """For what its peer holds too much, and for what all hold too much; who came first is first."""
    memory = Memory(32 * MIB, 16 * MIB)
    first, second, third = (memory.of("a").claim() for _ in range(3))
    waits = [first.grow(14 * MIB), second.grow(4 * MIB), third.grow(1 * MIB)]
    at_first = [done(each) for each in waits]
    first.shrink(4 * MIB)

    assert [True, False, False] == at_first
    assert [True, True, True] == [done(each) for each in waits]
    assert 15 * MIB == memory.held == memory.of("a").held


def test_whoever_holds_nothing_gets_what_it_asks_for():
    """And a little more whatever all others hold, so that nobody can keep another one out."""
    memory = Memory(32 * MIB, 16 * MIB)
    for greedy in ("a", "b"):
        memory.of(greedy).claim().force(16 * MIB)
    modest = memory.of("c").claim()

    assert done(modest.grow(MIN_PEER_BYTES))
    assert not modest.try_grow(1)
    assert not done(modest.grow(1))
    modest.shrink(MIN_PEER_BYTES)
    assert done(memory.of("d").claim().grow(20 * MIB))


def test_a_peer_may_hold_just_as_much_as_it_is_given():
    """Its share of what there is, or, when all is gone, the least that each may have; beyond that it is overdrawn."""
    memory = Memory(32 * MIB, 16 * MIB)
    share, other = memory.of("a"), memory.of("b")
    claims = [share.claim(), other.claim(), memory.of("c").claim()]
    claims[0].force(16 * MIB)
    at_first = share.overdrawn
    claims[0].force(1)
    claims[1].force(16 * MIB)
    claims[2].force(MIN_PEER_BYTES - 1)

    assert (False, True) == (at_first, share.overdrawn)
    assert [True, False] == [claims[2].grow_now(1) for _ in range(2)]


def test_what_only_makes_things_faster_takes_half():
    """The rest is for those who could not go on without it."""
    claim = Memory(32 * MIB, 16 * MIB).of("a").claim()

    assert claim.try_grow(8 * MIB)
    assert not claim.try_grow(1)
    assert claim.grow_now(8 * MIB)
    assert not claim.grow_now(1)


def test_whoever_waits_for_what_he_holds_himself_takes_no_wide_window_from_others():
    """A peer that fills its own share and wants more; only a claim that waits for what others hold counts."""
    memory = Memory(64 * MIB, 16 * MIB)
    greedy, other = memory.of("a").claim(), memory.of("b")
    greedy.force(16 * MIB)
    greedy.grow(MIB)
    given = other.claim().widen(4 * MIB, 1)
    for name in ("c", "d", "e"):
        memory.of(name).claim().force(14 * MIB)
    short = memory.of("f").claim()
    short.force(MIN_PEER_BYTES)
    short.grow(MIB)
    memory.most_wide = memory.most * 2

    assert (4 * MIB, 2) == (given, memory.waiting)
    assert 0 == memory.of("g").claim().widen(MIB, 1)


def test_a_claim_gives_back_once():
    """Whatever is done to it afterwards; who still waits is told."""
    memory = Memory(32 * MIB, 16 * MIB)
    kept, claim = memory.of("a").claim(), memory.of("a").claim()
    kept.force(10 * MIB)
    claim.force(2 * MIB)
    errors = []
    claim.grow(8 * MIB).addErrback(lambda failure: errors.append(failure.type))
    for _ in range(2):
        claim.release()
    claim.force(1)
    claim.shrink(1)
    claim.grow(1).addErrback(lambda failure: errors.append(failure.type))

    assert not claim.try_grow(1)
    assert [Busy, Busy] == errors
    assert 10 * MIB == memory.held
    assert 0 == memory.waiting


def test_whoever_does_not_want_to_wait_any_more_lets_others_go():
    """What is cancelled has claimed nothing."""
    memory = Memory(32 * MIB, 16 * MIB)
    share, errors = memory.of("a"), []
    share.claim().force(12 * MIB)
    large = share.claim().grow(8 * MIB)
    large.addErrback(lambda failure: errors.append(failure.type))
    small = share.claim().grow(1 * MIB)
    before = done(small)
    large.cancel()

    assert (False, True) == (before, done(small))
    assert [CancelledError] == errors
    assert 13 * MIB == memory.held


@pytest.mark.parametrize("seed", range(20))
def test_never_too_much_nobody_is_forgotten_and_all_comes_back(seed):
    """Whatever is claimed, given back and given up in whatever order."""
    choose = random.Random(seed)
    memory = Memory(40 * MIB, 16 * MIB)
    claims, waiting = [], []
    for _ in range(2000):
        step = choose.random()
        if step < 0.45:
            claim = memory.of(choose.choice("abcde")).claim()
            claims.append(claim)
            waiting.append((claim, claim.grow(choose.randrange(1, 6 * MIB)).addErrback(lambda _: None)))
        elif step < 0.6 and claims:
            choose.choice(claims).try_grow(choose.randrange(1, 6 * MIB))
        elif step < 0.8 and claims:
            choose.choice(claims).shrink(choose.randrange(1, 6 * MIB))
        elif claims:
            claims.pop(choose.randrange(len(claims))).release()
        shares = [memory.of(peer) for peer in "abcde"]
        # A first claim may be larger than the rest of what there is; everything else is within.
        assert all(share.held <= 16 * MIB for share in shares)
        assert memory.held <= 40 * MIB + 5 * 6 * MIB
        assert memory.held == sum(share.held for share in shares) == sum(claim.size for claim in claims)
        assert all(share.held for share in shares if share.waiting)
    while claims:
        granted = [claim for claim in claims if claim.size]
        assert granted or not memory.waiting, "all wait for each other"
        claims.remove(ended := (granted or claims)[0])
        ended.release()

    assert all(done(deferred) for _, deferred in waiting)
    assert (0, 0) == (memory.held, memory.waiting)


class ShortLink(FakeLink):
    """A link to a peer that may hold so much."""

    def __init__(self, most):
        super().__init__()
        self.memory = Memory(most, most).of("peer")


def test_credit_is_given_as_far_as_there_is_memory():
    """The first streams get wide windows, all others a narrow one, and one that would get nothing gets it in turn."""
    link = ShortLink(40 * MIB)
    streams = [InboundStream(number, 100 * MIB, link) for number in range(40)]
    for stream in streams:
        stream.start()
    given = list(link.granted)
    streams[0].fail(Busy("abandoned"))

    assert [MAX_NARROW_BYTES, MAX_NARROW_BYTES] == given[:2]
    assert {MIN_GRANT_BYTES} == set(given[2:])
    assert 40 * MIB == sum(given)
    assert MAX_NARROW_BYTES == sum(link.granted) - sum(given)
    assert 40 * MIB == link.memory.held
    for stream in streams:
        stream.fail(Busy("abandoned"))
    assert 0 == link.memory.held


def test_what_the_consumer_works_on_is_held():
    """It is given back when the consumer asks for more, and new credit is given then."""
    link = ShortLink(4 * MIB)
    stream = InboundStream(1, 100 * MIB, link)
    stream.start()
    stream.receive(bytes(MIN_GRANT_BYTES))
    stream.delivered()
    taken = stream.read()
    while_at_work = list(link.granted), link.memory.held
    stream.read()

    assert done(taken)
    assert sum(while_at_work[0]) <= while_at_work[1] <= 4 * MIB
    assert sum(link.granted) - MIN_GRANT_BYTES <= link.memory.held <= 4 * MIB


def test_what_need_not_be_sent_is_not_held():
    """Of a file that is there already, as far as credit was given for it."""
    link = ShortLink(64 * MIB)
    stream = InboundStream(1, 3 * MIB, link)
    stream.start()
    stream.matched(2 * MIB)

    assert 1 * MIB == link.memory.held


class Greedy(Evil):
    """A client that may make the server hold a few MiB."""

    def __init__(self):
        super().__init__()
        self.budget = Memory(16 * MIB, 16 * MIB)
        self.writing = []
        self.memory.put_small = self.write
        self.opened()
        self.server.use_memory(self.budget.of("evil"))

    def write(self, *_):
        """A disk that takes its time."""
        self.writing.append(Deferred())
        return self.writing[-1]

    def put(self, stream):
        """A batch of 2 MiB."""
        head = packed_head(b"f%d" % stream)
        box = {b"_command": b"PutSmall", b"_ask": b"p%d" % stream, b"handle": b"1", b"stream": b"%d" % stream}
        self.send(boxes.encode({**box, b"policy": b"replace", b"heads": head}))
        self.send(b"".join(data(stream, bytes(MIB // 32)) for _ in range(MAX_SMALL_BYTES // (MIB // 32))))

    def answers(self):
        """Tags of the answers so far, and whether each is an error."""
        return {
            box.get(b"_answer") or box.get(b"_error"): box.get(b"_error_code", b"ok")
            for box in boxes.BoxParser().feed(bytes(self.received))
            if isinstance(box, dict) and (b"_answer" in box or b"_error" in box)
        }


def packed_head(path, size=MAX_SMALL_BYTES):
    """What `PutSmall` says of one file."""
    return size.to_bytes(4, "big") + bytes(32) + b"\0\0" + len(path).to_bytes(2, "big") + path


@pytest.fixture
def greedy():
    """Such a client, which has gone in the end."""
    made = Greedy()
    yield made
    made.wire.cut()
    for written in made.writing:
        if not written.called:
            written.callback([Busy("over")])
    made.check()
    assert 0 == made.budget.held + made.budget.waiting


def test_a_connection_is_not_read_while_there_is_no_memory_for_its_command(greedy):
    """What the peer may hold is reached, and then it waits."""
    for stream in range(1, 40, 2):
        greedy.put(stream)
    held = greedy.budget.held

    assert held <= 16 * MIB + UNQUEUED_COMMAND_BYTES
    assert greedy.server_wire.deaf
    assert 1 == greedy.budget.waiting


def test_whoever_waits_too_long_for_memory_is_refused_and_the_next_is_read(greedy):
    """What the peer itself holds may wait for what it has not sent; what came for the refused stream is ignored."""
    late = 2 * (16 * MIB // MAX_SMALL_BYTES) + 1
    for stream in range(1, late, 2):
        greedy.put(stream)
    before = greedy.answers()
    for _ in range(int(MEMORY_TIMEOUT_S / WAITER_CHECK_S) + 1):
        greedy.clock.advance(WAITER_CHECK_S)
    greedy.flush()

    assert b"BUSY" in set(greedy.answers().values()) - set(before.values())
    assert greedy.lost is None
    assert not greedy.server.lost


@pytest.mark.parametrize("stream", [b"1", b"-1", b"2", None])
def test_whoever_gets_no_memory_is_told_whatever_the_stream_is_called(greedy, stream):
    """A number that is taken, malformed or missing is no reason to hang up."""
    late = 2 * (16 * MIB // MAX_SMALL_BYTES) + 1
    for number in range(1, late, 2):
        greedy.put(number)
    box = {b"_command": b"PutSmall", b"_ask": b"late", b"handle": b"1", b"policy": b"replace", b"heads": b""}
    greedy.send(boxes.encode(box if stream is None else {**box, b"stream": stream}))
    greedy.clock.pump([WAITER_CHECK_S] * 2 * (int(MEMORY_TIMEOUT_S / WAITER_CHECK_S) + 1))
    greedy.flush()

    assert (b"BUSY", None) == (greedy.answers().get(b"late"), greedy.lost)


def test_whoever_has_gone_is_noticed_though_nothing_is_read(greedy, monkeypatch):
    """What its connection holds may be what all its connections wait for."""
    gone = []
    monkeypatch.setattr(protocol, "hung_up", lambda _: bool(gone))
    for stream in range(1, 20, 2):
        greedy.put(stream)
    greedy.clock.advance(WAITER_CHECK_S)
    before = greedy.server.lost
    gone.append(True)
    greedy.clock.advance(WAITER_CHECK_S)
    greedy.flush()

    assert (False, True) == (before, greedy.server.lost)


def test_long_work_is_not_begun_for_somebody_who_has_gone(greedy, monkeypatch):
    """Though what it has sent before has not been looked at, and so the end of its connection has not been seen."""
    begun = []
    greedy.memory.settle = lambda expected: begun.append(Deferred()) or begun[-1]
    ask = {b"_command": b"Settle", b"handle": b"1", b"expected": b""}
    for number in range(4):
        greedy.send(boxes.encode({**ask, b"_ask": b"s%d" % number}))
    at_work = len(begun)
    monkeypatch.setattr(protocol, "hung_up", lambda _: True)
    greedy.send(boxes.encode({**ask, b"_ask": b"late"}))
    for settled in begun[:]:
        settled.callback([])

    assert (MOST_READING, MOST_READING) == (at_work, len(begun))


def test_questions_of_somebody_who_has_gone_are_not_even_read(greedy, monkeypatch):
    """There may be many MiB of them under way; what he has sent counts, so files in the midst of them arrive."""
    asked = []
    greedy.memory.settle = lambda expected: asked.append(expected) or succeed([])
    question = boxes.encode({b"_command": b"Settle", b"handle": b"1", b"expected": b"", b"_ask": b"q"})
    greedy.send(question)
    before = len(asked)
    monkeypatch.setattr(protocol, "hung_up", lambda _: True)
    greedy.send(question)
    greedy.put(1)
    greedy.send(question)

    assert (1, 1, 1) == (before, len(asked), len(greedy.writing))


def test_a_socket_tells_that_the_other_end_is_closed():
    """Also if there is something left that nobody has read; what is no socket tells nothing."""
    here, there = socket.socketpair()
    with here, there:
        open_ = tls.hung_up(here)
        there.send(b"unread")
        unread = tls.hung_up(here)
        there.close()

        assert (False, False, True) == (open_, unread, tls.hung_up(here))
    assert tls.hung_up(here)
    assert not tls.hung_up(object())


def test_what_waited_goes_on_when_there_is_memory(greedy):
    """In order, with what came behind it."""
    for stream in range(1, 20, 2):
        greedy.put(stream)
    waited = greedy.budget.waiting
    for written in list(greedy.writing):
        written.callback([Busy("over")])
    greedy.flush()

    assert (1, 0) == (waited, greedy.budget.waiting)
    assert not greedy.server_wire.deaf


def test_a_connection_that_is_lost_while_it_waits_holds_nothing(greedy):
    """What it has begun counts until it has ended, and what was to come behind that is not done."""
    for stream in range(1, 40, 2):
        greedy.put(stream)
    greedy.wire.cut()
    greedy.flush()
    while_writing = greedy.budget.held, greedy.budget.waiting
    for written in greedy.writing:
        written.callback([Busy("over")])

    assert 16 * MIB - 2 * MAX_SMALL_BYTES < while_writing[0] < 16 * MIB
    assert (0, 0, 0) == (while_writing[1], greedy.budget.held, greedy.budget.waiting)


def test_what_a_command_held_goes_with_it_when_the_connection_is_lost(greedy):
    """The error that ended the connection is kept for a while, and does not keep the content of batches."""
    gc.collect()
    gc.disable()
    try:
        kept = []

        async def read(paths, *, removing):
            file = SmallFile(paths[0], b"x" * 1000, bytes(32), None)
            kept.append(weakref.ref(file))
            return [Fetched(file, Version(1, 1, 1000, 1, 1))]

        greedy.memory.read_small = lambda *args, **options: Deferred.fromCoroutine(read(*args, **options))
        greedy.server_wire.stalled = True
        ask = {b"_command": b"ReadSmall", b"handle": b"1", b"paths": packing.PATHS.pack([b"f"])}
        for number in range(3):
            greedy.server.sending.full = True
            greedy.send(boxes.encode({**ask, b"_ask": b"r%d" % number, b"stream": b"%d" % (2 * number + 1)}))
        before = [file() is not None for file in kept]
        greedy.wire.cut()
        greedy.flush()
    finally:
        gc.enable()

    assert [True] * 3 == before
    assert [None] * 3 == [file() for file in kept]


def test_what_arrived_before_the_end_is_done_as_far_as_there_is_memory(greedy):
    """Thousands of commands that came just before a peer left do not take what they could not have before."""
    ask = {b"_command": b"PutSmall", b"_ask": b"p", b"handle": b"1", b"policy": b"replace"}
    heads = packed_head(b"f", 0)
    many = [boxes.encode({**ask, b"stream": b"%d" % stream, b"heads": heads}) for stream in range(1, 100, 2)]
    greedy.server.reading._turn = greedy.clock.callLater(1000, lambda: None)
    greedy.send(b"".join(many))
    greedy.wire.cut()

    assert 16 * MIB // (MAX_SMALL_BYTES + MAX_SMALL_BYTES // 8) <= len(greedy.writing) <= 16 * MIB // MAX_SMALL_BYTES


def test_the_content_of_one_batch_comes_behind_that_of_another(greedy):
    """A connection that is not read, for want of memory, keeps no other batch from becoming complete."""
    ask = {b"_command": b"PutSmall", b"handle": b"1", b"policy": b"replace"}
    for stream in (1, 3):
        box = {**ask, b"_ask": b"p%d" % stream, b"stream": b"%d" % stream, b"heads": packed_head(b"f%d" % stream)}
        greedy.send(boxes.encode(box))

    assert {b"p3": b"PROTOCOL"} == {tag: code for tag, code in greedy.answers().items() if tag.startswith(b"p")}


def test_small_commands_go_on_whatever_is_held(greedy):
    """Others may wait for what they bring; only few of them at once."""
    others = greedy.budget.of("evil").claim()
    others.force(16 * MIB)

    assert "ok" == greedy.code("CloseStream", stream=b"1")
    others.release()


def test_costs_follow_from_the_box():
    """What is announced or asked for is more than what is said."""
    box = {b"_command": b"CloseStream", b"stream": b"1"}

    assert costs.COMMAND_BYTES < costs.of(box) < costs.COMMAND_BYTES + 100
    assert costs.of({**box, b"_command": b"PutSmall"}) > MAX_SMALL_BYTES
    assert costs.of({**box, b"more": bytes(1000)}) > costs.of(box) + 1000


def test_who_is_asked_and_not_served_is_not_bounded():
    """The connecting side decides by itself what it asks for."""
    claim = UNBOUNDED.of("").claim()

    assert claim.try_grow(1 << 40)
    claim.release()


def test_nothing_is_read_before_there_is_credit_for_it(greedy, monkeypatch):
    """Who opens many files, and wants no content, makes nobody hold any."""
    read, seen = memory_store._MemoryReader.read, []
    monkeypatch.setattr(memory_store._MemoryReader, "read", lambda reader: seen.append(1) or read(reader))
    greedy.code("OpenRead", handle=b"1", stream=b"1", path=b"g")
    greedy.code("StartRead", stream=b"1")
    before = len(seen)
    greedy.send(boxes.credit(1, 1 << 20))

    assert (0, True) == (before, len(seen) > 0)
    assert b"x" * 100 in bytes(greedy.received)


def test_where_there_is_no_memory_to_look_for_chunks_all_are_wanted(greedy):
    """As where there is no final file: it costs time, and nobody waits."""
    others = greedy.budget.of("evil").claim()
    others.force(16 * MIB)
    greedy.open_write(size=b"100000", path=b"g")
    chunks = packing.CHUNKS.pack([(8192, bytes(16))] * 9)
    answer = greedy.ask("OfferChunks", stream=b"1", chunks=chunks)
    others.release()

    assert bytes([0b11111111, 0b10000000]) == answer[b"wanted"]


@pytest.fixture
def large(tmp_path):
    """A store with a file of four pieces, for a peer that may hold 8 MiB."""
    (tmp_path / "f").write_bytes(random_bytes(4 * READ_PIECE_BYTES - 1))
    share = Memory(8 * MIB, 8 * MIB).of("peer")
    return LocalStore(bytes(tmp_path), run_in_thread=maybeDeferred, memory=share), share


async def test_pieces_are_read_ahead_if_there_is_plenty_and_given_back(large):
    """One that the caller has and one ahead; then only the one, and others wait for theirs."""
    store, share = large
    await store.open(b"salt")
    readers = [await store.open_reader(b"f") for _ in range(4)]
    held = []
    for reader in readers[:3]:
        await reader.read()
        held.append(share.held)
    last = readers[3].read()
    waits = not done(last)
    readers[0].close()
    goes_on = done(last)
    for reader in readers:
        reader.close()
    await store.close()

    assert [2 * READ_PIECE_BYTES, 3 * READ_PIECE_BYTES, 4 * READ_PIECE_BYTES] == held
    assert (True, True) == (waits, goes_on)
    assert 0 == share.held


async def test_all_is_read_whatever_is_held(large):
    """With nothing read ahead it is the same content, and nothing is held in the end."""
    store, share = large
    await store.open(b"salt")
    other = share.claim()
    other.force(5 * MIB)
    reader = await store.open_reader(b"f")
    pieces = []
    while read := await reader.read():
        assert share.held <= 5 * MIB + READ_PIECE_BYTES
        pieces += read
    await reader.finish()
    reader.close()
    await store.close()

    assert random_bytes(4 * READ_PIECE_BYTES - 1) == b"".join(pieces)
    assert 5 * MIB == share.held


@pytest.mark.parametrize("turn", ["skip", "cut", "block_digests"])
async def test_what_was_read_ahead_in_vain_is_given_back(large, turn):
    """Whoever goes on another way holds the piece that the caller is busy with, and no more."""
    store, share = large
    await store.open(b"salt")
    reader = await store.open_reader(b"f")
    await reader.read()
    before = share.held
    await getattr(reader, turn)(*([] if turn == "cut" else [READ_PIECE_BYTES]))
    after = share.held
    reader.close()
    await store.close()

    assert (2 * READ_PIECE_BYTES, READ_PIECE_BYTES, 0) == (before, after, share.held)


async def test_a_listing_tells_what_it_remembers(tmp_path):
    """The names of directories on the way down, which are not read all in one page."""
    folder = tmp_path
    for _ in range(4):
        folder /= "a"
        folder.mkdir()
        for number in range(walker.MAX_SORTED_NAMES // 2):
            (folder / f"{number:05}").touch()
    store = LocalStore(bytes(tmp_path), run_in_thread=maybeDeferred)
    await store.open(b"salt")
    listing = store.walk()
    most, count = 0, 0
    while page := await listing.next_page():
        count += len(page)
        most = max(most, listing.held)
    await store.close()

    assert 4 * (walker.MAX_SORTED_NAMES // 2 + 1) == count
    assert most > 3 * walker.MAX_SORTED_NAMES
    assert 0 == listing.held
