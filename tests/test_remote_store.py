"""A store at the other end of a connection."""

from functools import partial

import pytest
from blake3 import blake3
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.protocols import amp

from realize.concurrency.turns import Turns
from realize.config import Right
from realize.errors import (
    AccessDenied,
    BadName,
    Busy,
    Conflict,
    ConnectionFailed,
    InternalError,
    NoSpace,
    NotFound,
    NotKept,
    ProtocolError,
    SourceChanged,
    VerifyFailed,
    VersionMismatch,
)
from realize.extras import Extras
from realize.store import deltas
from realize.store.client.store import RemoteStore
from realize.store.server.responders import DirectoryResponders
from realize.store.server.streams import STREAM_IDLE_TIMEOUT_S, ServedRead
from realize.values import (
    BLOCK_BYTES,
    EXTRAS,
    Attributes,
    Committed,
    Compress,
    Entry,
    Expected,
    HardLink,
    Kind,
    OnConflict,
    Removal,
    Symlink,
    WhereKind,
)
from realize.wire import commands
from realize.wire.compression import capabilities
from realize.wire.greeting import Greeting
from realize.wire.inbound_stream import MAX_NARROW_BYTES, TAKE_BYTES
from realize.wire.windows import FIRST_WINDOW_BYTES
from tests.extras_contract import OURS
from tests.loopback import Pair
from tests.memory_store import MemoryStore
from tests.store_contract import MemoryBehind, StoreContract
from tests.store_helpers import LARGE_CONTENT, block_digests, how, listed, random_bytes, read_all, small_file

ALL = frozenset(Right)


class Served(Pair):
    """A pair whose server serves memory stores."""

    def __init__(self, clock, rights=None, **options):
        self.memory = MemoryStore()
        self.made = []
        turns = Turns(99, 2)
        self.responders = None
        rights = {"inbox": ALL} if rights is None else rights

        def make_store(directory, base, origin, _backup_dir):
            self.made.append((directory, base, origin))
            return self.memory

        def welcome(protocol, greeting):
            self.responders = DirectoryResponders(
                protocol,
                key=b"tester's key",
                rights=rights,
                make_store=make_store,
                turns_of=lambda directory: partial(turns.run, "tester"),
                log=self.log,
            )
            protocol.serve(self.responders)
            return "tester"

        super().__init__(clock, welcome=welcome, **options)

    def store(self, directory="inbox", base=b"", **options):
        """A store on the client's side."""
        return RemoteStore(self.client, directory, base, **options)

    def opened(self, directory="inbox", **options):
        """The same, opened; for a `Clock`."""
        store = self.store(directory, **options)
        opening = store.open(b"salt")
        self.flush()
        assert opening.called
        opening.addErrback(lambda failure: failure.raiseException())
        return store

    def result(self, waiting):
        """What a Deferred has come to, after all was delivered; an error is returned, not raised."""
        if not isinstance(waiting, Deferred):
            waiting = Deferred.fromCoroutine(waiting)
        results = []
        waiting.addCallbacks(results.append, lambda failure: results.append(failure.value))
        self.flush()
        assert results, "still waiting"
        return results[0]


@pytest.fixture
def served():
    """A connection that was introduced."""
    pair = Served(Clock()).introduced()
    yield pair
    if not pair.client.lost:
        pair.client.close()
        pair.flush()
    assert pair.server.lost
    assert 0 == pair.responders.open_count
    assert [] == pair.clock.getDelayedCalls()


class TestRemoteStore(StoreContract):
    """`RemoteStore` over a connection keeps the contract of all stores."""

    @pytest.fixture(autouse=True)
    def connections(self):
        """End the connections that a test has made."""
        self.pairs = []
        yield
        for pair in self.pairs:
            pair.client_wire.cut()
            assert 0 == pair.responders.open_count
            assert {"NO_SPACE"} >= {fields.get("code") for _, _, fields in pair.log.errors()}

    async def make_store(self):
        """A store at the other end, over chunks of odd size."""
        from twisted.internet import reactor

        pair = Served(reactor, chunk=10_007)
        self.pairs.append(pair)
        await pair.client.hello()
        return pair.store(), MemoryBehind(pair.memory)


def test_what_the_rights_allow_is_not_asked_for_again(served):
    """Whether files may be put and removed is told with the directory: a question would cost a round trip."""
    store = served.opened()
    sent = served.client.bytes_sent

    assert ([], []) == (served.result(store.put_small([], OnConflict.FAIL)), served.result(store.remove([])))
    assert sent == served.client.bytes_sent


def test_what_the_rights_do_not_allow_is_refused_by_the_peer():
    """It logs that somebody wanted it."""
    served = Served(Clock(), {"inbox": frozenset({Right.READ})}).introduced()
    store = served.opened()
    sent = served.client.bytes_sent
    refusals = [served.result(store.put_small([], OnConflict.FAIL)), served.result(store.remove([]))]

    assert [AccessDenied, AccessDenied] == [type(each) for each in refusals]
    assert served.client.bytes_sent > sent
    served.client_wire.cut()


WITHOUT_HOLES = tuple(each for each in commands.CAPABILITIES if each != commands.HOLES)


class TestPeerWithoutHoles(TestRemoteStore):
    """One that knows no holes gets their zeros, and sends zeros."""

    async def make_store(self):
        """A store of a peer that does not say that it knows them, for one that does."""
        from twisted.internet import reactor

        pair = Served(reactor, chunk=100_003, server_greeting=Greeting("server", WITHOUT_HOLES))
        self.pairs.append(pair)
        await pair.client.hello()
        return pair.store(), MemoryBehind(pair.memory)


class TestPeerOfOneWithoutHoles(TestRemoteStore):
    """The same the other way round."""

    async def make_store(self):
        """A store of a peer that knows them, for one that does not say so."""
        from twisted.internet import reactor

        pair = Served(reactor, chunk=100_003, client_greeting=Greeting("client", WITHOUT_HOLES))
        self.pairs.append(pair)
        await pair.client.hello()
        return pair.store(), MemoryBehind(pair.memory)


class TestCompressingStore(TestRemoteStore):
    """One whose content is compressed as far as it shrinks."""

    async def make_store(self):
        """A store of a peer with which all is compressed."""
        from twisted.internet import reactor

        pair = Served(reactor, chunk=10_007, client_greeting=Greeting("client", capabilities(Compress.ALWAYS)))
        self.pairs.append(pair)
        await pair.client.hello()
        return pair.store(), MemoryBehind(pair.memory)


def test_the_place_is_chosen_by_directory_and_base(served):
    """Directory and base reach the server as they were given."""
    store = served.store("inbox", b"2024/\xff")
    served.result(store.open(b"salt"))

    assert [("inbox", b"2024/\xff", None)] == served.made
    assert ("create", "prune", "read", "remove", "write") == store.rights
    assert store.replaces
    assert not Served(Clock(), {"inbox": frozenset({Right.CREATE})}).introduced().opened().replaces


def test_nothing_is_asked_of_a_store_that_is_not_open(served):
    """Forgetting to open a store is an error, not a question about handle 0."""
    error = served.result(served.store().describe([b"f"]))

    assert isinstance(error, ProtocolError)


def test_long_lists_are_split_and_put_together(served):
    """Thousands of items keep their order and their errors."""
    store = served.opened()
    served.memory.fail_next["put_small", b"f7"] = NoSpace("full")
    files = [small_file(b"f%d" % number, b"%d" % number * 50) for number in range(2000)]

    outcomes = served.result(store.put_small(files, OnConflict.REPLACE))

    assert 2000 == len(outcomes)
    assert NoSpace is type(outcomes[7])
    assert {Committed.CREATED} == {how(outcome) for number, outcome in enumerate(outcomes) if number != 7}
    assert {file.path for file in files} - {b"f7"} == set(served.memory.files)


@pytest.mark.parametrize("rights", [{Right.CREATE}, {Right.WRITE}], ids=["create", "write"])
@pytest.mark.parametrize("lenient", [frozenset(), EXTRAS], ids=["strict", "lenient"])
def test_who_may_only_create_changes_no_attributes(rights, lenient):
    """A file that is there already, with the same content, stays at its source unless its attributes do not matter."""
    served = Served(Clock(), {"inbox": frozenset(rights)}).introduced()
    store, kept = served.opened(), Attributes(1, 0o600, Extras(OURS, lenient=lenient))
    for path in (b"f", b"g"):
        served.memory.plant(path, b"1")

    settled = served.result(
        store.settle([Expected(b"f", 1, blake3(b"1").digest(), kept), Expected(b"g", 1, bytes(32), kept)])
    )
    matched = served.result(store.match_final(b"f", 1, 0, block_digests(b"1"), kept))
    other = served.result(store.match_final(b"g", 1, 0, [bytes(32)], kept))

    refused = rights == {Right.CREATE} and not lenient
    assert [NotKept if refused else bool, bool] == [type(each) for each in settled]
    assert (NotKept if refused else int, 0) == (type(matched), other)
    assert (1 if Right.WRITE in rights else None) == (
        1 if served.memory.files[b"f"].attributes.extras is not None else None
    )


def test_commits_and_removals_are_audited(served):
    """Every final file that appears or goes has one line at level info."""
    store = served.opened()
    served.result(store.put_small([small_file(b"a\nb", b"1")], OnConflict.REPLACE))
    fetched = served.result(store.read_small([b"a\nb"]))[0]
    served.result(store.remove([Removal(b"a\nb", fetched.version)]))

    digest = blake3(b"1").hexdigest()
    expected = {"dir": "inbox", "path": "a\\nb", "size": 1, "digest": digest, "transfer": ""}
    assert [{**expected, "replaced": False, "beside": None, "backup": None}] == served.log.named("file_committed")
    assert [expected] == served.log.named("file_removed")


def test_a_large_file_is_audited(served):
    """The commit of a stream is logged like that of a small file."""
    store = served.opened()
    writer = served.result(store.open_writer(b"f", len(LARGE_CONTENT), OnConflict.REPLACE))
    served.result(writer.write([LARGE_CONTENT]))
    served.result(writer.commit(blake3(LARGE_CONTENT).digest(), Attributes(5, 0o640)))

    assert [(len(LARGE_CONTENT), False)] == [
        (line["size"], line["replaced"]) for line in served.log.named("file_committed")
    ]


def test_what_is_asked_for_again_is_recorded_once(served):
    """A peer cannot fill the log with a symlink or a hard link that is there, and what it changes is recorded."""
    store = served.opened()
    served.result(store.put_small([small_file(b"f", b"1")], OnConflict.REPLACE))
    hard_link = HardLink(b"g", b"f", blake3(b"1").digest())

    for target in (b"f", b"f", b"f", b"x", b"x"):
        if target == b"x":
            served.memory.plant_link(b"l", b"x", 5)
        served.result(store.put_links([Symlink(b"l", target, 5)], OnConflict.REPLACE))
        served.result(store.link_files([hard_link]))
    for other in (b"f2", b"f"):
        served.result(store.link_files([HardLink(b"g", other, blake3(b"1").digest())]))
        served.result(store.settle([Expected(b"g", 1, blake3(b"1").digest(), Attributes(5, 0o640))]))

    made = [(line["target"], line["how"]) for line in served.log.named("link_committed")]
    assert [("f", "created"), ("f", "already_there"), ("x", "already_there")] == made
    assert ["created", "already_there"] == [line["how"] for line in served.log.named("file_linked")]
    assert [] == served.log.named("file_already_there")


@pytest.mark.parametrize(
    ("rights", "allowed"),
    [
        ({Right.READ}, {"walk", "describe", "read_small", "open_reader"}),
        ({Right.WRITE}, {"describe", "put_small", "settle", "match_final", "open_writer"}),
        ({Right.CREATE}, {"describe", "put_small", "settle", "match_final", "open_writer"}),
        ({Right.REMOVE}, {"remove", "prune"}),
        ({Right.PRUNE}, {"prune"}),
    ],
    ids=["read", "write", "create", "remove", "prune"],
)
def test_every_command_needs_its_right(rights, allowed):
    """A right opens its own commands and no others."""
    pair = Served(Clock(), {"inbox": frozenset(rights)}).introduced()
    store = pair.opened()
    calls = {
        "walk": lambda: store.walk().next_page(),
        "read_small": lambda: store.read_small([b"f"]),
        "open_reader": lambda: store.open_reader(b"f"),
        "describe": lambda: store.describe([b"f"]),
        "put_small": lambda: store.put_small([small_file(b"f", b"")], OnConflict.REPLACE),
        "settle": lambda: store.settle([]),
        "match_final": lambda: store.match_final(b"f", 0, 0, []),
        "open_writer": lambda: store.open_writer(b"f", 0, OnConflict.REPLACE),
        "remove": lambda: store.remove([]),
        "prune": lambda: store.prune([]),
    }
    denied = {name for name, call in calls.items() if isinstance(pair.result(call()), AccessDenied)}
    pair.client_wire.cut()
    pair.flush()

    assert calls.keys() - allowed == denied


def test_a_stream_on_which_nothing_comes_is_put_aside():
    """After ten minutes its partial is kept, and nobody holds it any more; what comes in time keeps it open."""
    pair = Served(Clock()).introduced()
    store = pair.opened()
    writers = []
    Deferred.fromCoroutine(_opened_writer(store, writers))
    pair.flush()
    pair.result(writers[0].write([LARGE_CONTENT[:BLOCK_BYTES]]))
    for _ in range(3):
        _pass_time(pair, STREAM_IDLE_TIMEOUT_S * 0.9)
        pair.result(writers[0].write([LARGE_CONTENT[:10]]))
    still_open = len(pair.responders._writes)
    _pass_time(pair, 2 * STREAM_IDLE_TIMEOUT_S)

    assert (1, 0) == (still_open, len(pair.responders._writes))
    assert [True] == [fields["kept"] for fields in pair.log.named("transfer_stopped")]
    refused = pair.result(writers[0].write([LARGE_CONTENT[:10]]))
    assert isinstance(refused, Busy)
    assert "none of it came for 600 seconds" in str(refused)
    pair.client_wire.cut()
    pair.flush()
    assert [] == pair.clock.getDelayedCalls()


async def _opened_writer(store, writers):
    writers.append(await store.open_writer(b"f", len(LARGE_CONTENT), OnConflict.REPLACE))


def _pass_time(pair, seconds):
    """Let both ends live through it."""
    for _ in range(round(seconds / 5)):
        pair.clock.advance(5)
        pair.flush()


class Endless(amp.CommandLocator):
    """A daemon whose listings have no end."""

    def __init__(self, entries):
        self._entries = entries
        self.asked = 0

    @commands.OpenDirectory.responder
    def _open(self, **_):
        return {"kind": WhereKind.DIRECTORY, "chain": [], "now": 1, "rights": ["read"], "mode": 0o755}

    @commands.Walk.responder
    def _walk(self, **_):
        self.asked += 1
        return {"entries": self._entries, "more": True, "now": 1}

    @commands.EndWalk.responder
    def _end(self, **_):
        return {}

    def transfers(self):
        return []

    def failed(self, box):
        """Nothing was to be closed."""


@pytest.mark.parametrize("entries", [[], [Entry(b"f", Kind.FILE, 1, 1)]], ids=["empty pages", "one name for ever"])
def test_a_listing_without_an_end_ends(monkeypatch, entries):
    """In one sentence, and not asking for ever."""
    monkeypatch.setattr("realize.store.client.listing.MAX_LISTED_ENTRIES", 50)
    daemon = Endless(entries)

    def welcome(protocol, _):
        protocol.serve(daemon)
        return "tester"

    pair = Pair(Clock(), welcome=welcome).introduced()
    store = RemoteStore(pair.client, "inbox")
    pair.flush()
    opening = store.open(b"salt")
    pair.flush()
    assert opening.called
    ended = []
    Deferred.fromCoroutine(_to_the_end(store.walk())).addErrback(lambda failure: ended.append(failure.value))
    pair.flush()

    [error] = ended
    assert isinstance(error, ProtocolError)
    assert daemon.asked < 60
    pair.client_wire.cut()


async def _to_the_end(listing):
    while await listing.next_page():
        pass


def creating():
    """A connection of a peer that may create only, and its store."""
    pair = Served(Clock(), {"inbox": frozenset({Right.CREATE})}).introduced()
    return pair, pair.opened()


@pytest.mark.parametrize("policy", [OnConflict.REPLACE, OnConflict.FAIL])
def test_who_may_create_only_replaces_nothing(policy):
    """Whatever the client asks for: each file whose name is taken is refused, and it is said why; the others arrive."""
    pair, store = creating()
    pair.memory.plant(b"there", b"old")

    async def large():
        writer = await store.open_writer(b"there", len(LARGE_CONTENT), policy)
        await writer.abandon(keep=False)

    taken, new = pair.result(store.put_small([small_file(b"there", b"x"), small_file(b"new", b"x")], policy))
    streamed = pair.result(large())

    for refused in (taken, streamed):
        assert isinstance(refused, Conflict)
        assert str(refused) == "there: exists already; this peer may create files there, but not replace any"
    assert Committed.CREATED is new.how
    assert b"old" == pair.memory.files[b"there"].content
    pair.client_wire.cut()


def test_a_name_that_is_taken_while_a_file_is_sent_is_not_replaced_by_who_may_create_only():
    """The commit decides, not the look before it."""
    pair, store = creating()

    async def put():
        writer = await store.open_writer(b"f", len(LARGE_CONTENT), OnConflict.REPLACE)
        await writer.write([LARGE_CONTENT])
        pair.memory.plant(b"f", b"of somebody else")
        return await writer.commit(small_file(b"f", LARGE_CONTENT).digest, None)

    assert isinstance(pair.result(put()), Conflict)
    assert b"of somebody else" == pair.memory.files[b"f"].content
    pair.client_wire.cut()


def test_what_is_there_already_keeps_its_attributes_if_they_may_not_be_changed():
    """A file that was sent before the connection was lost counts as arrived all the same."""
    pair, store = creating()
    pair.memory.plant(b"f", b"content", Attributes(1, 0o600))
    private = Attributes(2, 0o777)
    expected = Expected(b"f", 7, small_file(b"f", b"content").digest, private)

    assert [True] == pair.result(store.settle([expected]))
    assert 7 == pair.result(store.match_final(b"f", 7, 0, block_digests(b"content"), private))

    assert Attributes(1, 0o600) == pair.memory.files[b"f"].attributes
    pair.client_wire.cut()


def test_no_one_learns_which_directories_exist():
    """An unknown directory and one without rights are answered alike."""
    pair = Served(Clock(), {"secret": frozenset(), "open": ALL}).introduced()
    texts = [str(pair.result(pair.store(name).open(b""))).replace(name, "X") for name in ("secret", "nosuch")]
    pair.client_wire.cut()
    pair.flush()

    assert texts[0] == texts[1]
    assert [] == pair.made


def test_pages_are_asked_for_ahead(served):
    """While a page is looked at, the next is on its way; all entries come in order."""
    for number in range(500):
        served.memory.plant(b"%04d" % number, b"x")
    store = served.opened()
    listing = store.walk()
    first = served.result(listing.next_page())
    rest = served.result(listed(listing))

    assert [b"%04d" % number for number in range(500)] == [entry.path for entry in [*first, *rest]]


def test_a_page_that_does_not_fit_is_continued(served):
    """However many entries the store gives at once, each answer holds what fits."""
    entries = [Entry(b"%05d" % number + b"x" * 3000, Kind.FILE, number) for number in range(100)]
    store = served.opened()

    class Pages:
        def __init__(self):
            self.pages = [entries, []]
            self.now_ns = 1234
            self.held = 0

        def next_page(self):
            return succeed(self.pages.pop(0))

        def close(self):
            pass

    served.memory.walk = lambda **_: Pages()

    listing = store.walk()
    assert entries == served.result(listed(listing))
    assert 1234 == listing.now_ns


def test_a_listing_may_be_given_up(served):
    """Closing a listing frees its place at the server, whatever is under way."""
    for number in range(50):
        served.memory.plant(b"%04d" % number, b"x")
    store = served.opened()
    for _ in range(2 * commands.MAX_LISTINGS):
        listing = store.walk()
        assert not isinstance(served.result(listing.next_page()), Exception)
        listing.close()
        served.flush()

    assert 0 == len(served.responders._listings)
    assert [] == served.result(listing.next_page())


def test_reading_runs_ahead_by_a_window(served):
    """Without anybody taking content, no more than a window of it arrives."""
    content = bytes(3 * FIRST_WINDOW_BYTES)
    served.memory.plant(b"f", content)
    store = served.opened()
    reader = served.result(store.open_reader(b"f"))
    first = served.result(reader.read())
    ahead = reader._content.stream.arrived

    assert ahead <= MAX_NARROW_BYTES + TAKE_BYTES
    assert content == b"".join(first) + served.result(read_all(reader))
    assert blake3(content).digest() == served.result(reader.finish())
    reader.close()


def test_an_error_midway_reaches_the_reader(served):
    """A source that becomes unreadable while it is sent ends the read with the server's error."""
    served.memory.plant(b"f", LARGE_CONTENT)
    store = served.opened()
    reader = served.result(store.open_reader(b"f"))
    served.memory.fail_next["read", b"f"] = SourceChanged("it shrank")
    error = served.result(reader.read())
    reader.close()

    assert (SourceChanged, "it shrank") == (type(error), str(error))


def test_an_error_midway_reaches_the_writer(served):
    """A writer without credit learns that the server cannot go on, and why."""
    store = served.opened()
    content = bytes(2 * FIRST_WINDOW_BYTES)
    writer = served.result(store.open_writer(b"f", len(content) + 1, OnConflict.REPLACE))
    served.memory.fail_next["write", b"f"] = NoSpace("no space left")
    error = served.result(writer.write([content]))
    again = served.result(writer.write([b"x"]))
    served.result(writer.abandon(keep=True))

    assert [(NoSpace, "no space left")] * 2 == [(type(error), str(error)), (type(again), str(again))]


def test_commit_tells_the_error_of_the_last_write(served):
    """An error that comes after everything was sent is the answer to the commit."""
    store = served.opened()
    writer = served.result(store.open_writer(b"f", 4, OnConflict.REPLACE))
    served.memory.fail_next["write", b"f"] = NoSpace("no space left")
    sent = writer.write([b"1234"])
    committed = writer.commit(blake3(b"1234").digest(), None)
    served.result(sent)

    assert NoSpace is type(served.result(committed))
    assert b"f" not in served.memory.files


def test_a_short_commit_is_refused(served):
    """Less content than announced is never committed."""
    store = served.opened()
    writer = served.result(store.open_writer(b"f", 4, OnConflict.REPLACE))
    served.result(writer.write([b"12"]))
    error = served.result(writer.commit(blake3(b"12").digest(), None))

    assert isinstance(error, VerifyFailed)
    assert b"f" not in served.memory.files


def test_an_unexpected_error_is_told_by_its_id(served):
    """A fault of the server is logged there with its traceback; the client learns the id."""
    store = served.opened()

    def broken(paths):
        raise ZeroDivisionError("secret detail")

    served.memory.describe = broken
    error = served.result(store.describe([b"f"]))
    logged = served.log.named("internal_error")[0]
    served.log.events.clear()

    assert InternalError is type(error)
    assert logged["id"] in str(error)
    assert "secret" not in str(error)
    assert "ZeroDivisionError" in logged["exc"]
    assert not served.client.lost


def test_losing_the_connection_keeps_partials(served):
    """What has arrived stays as a partial, nothing stays open, and all who wait are told."""
    store = served.opened()
    content = bytes(BLOCK_BYTES) + b"more"
    writer = served.result(store.open_writer(b"f", 2 * len(content), OnConflict.REPLACE))
    served.result(writer.write([content]))
    served.memory.plant(b"g", bytes(2 * FIRST_WINDOW_BYTES))
    reader = served.result(store.open_reader(b"g"))
    served.result(reader.read())
    listing = store.walk()
    served.result(listing.next_page())
    waiting = store.describe([b"f"])
    served.client_wire.cut()

    assert ConnectionFailed is type(served.result(waiting))
    assert ConnectionFailed is type(served.result(writer.write([b"x"])))
    while isinstance(read := served.result(reader.read()), list):
        assert read
    assert ConnectionFailed is type(read)
    assert ConnectionFailed is type(served.result(reader.finish()))
    assert content == served.memory.partials[b"f"]
    assert 0 == served.responders.open_count
    assert served.responders.closed.called
    reader.close()
    served.result(writer.abandon(keep=True))


def test_closing_a_store_keeps_its_partials(served):
    """Giving back a directory abandons its streams, and the connection stays."""
    store = served.opened()
    writer = served.result(store.open_writer(b"f", 4, OnConflict.REPLACE))
    served.result(writer.write([b"12"]))
    served.result(store.close())

    assert {b"f": b"12"} == served.memory.partials
    assert 0 == served.responders.open_count
    assert not served.client.lost


def test_streams_are_given_back(served):
    """Any number of files may follow each other on one connection."""
    store = served.opened()
    for number in range(3 * commands.MAX_STREAMS):
        writer = served.result(store.open_writer(b"f%d" % number, 1, OnConflict.REPLACE))
        served.result(writer.write([b"x"]))
        served.result(writer.commit(blake3(b"x").digest(), None))
        reader = served.result(store.open_reader(b"f%d" % number))
        assert b"x" == served.result(read_all(reader))
        reader.close()
        assert NotFound is type(served.result(store.open_reader(b"nothing")))
    served.flush()

    assert 0 == len(served.client.streams)
    assert 0 == len(served.server.streams)


def test_an_open_that_was_cancelled_leaves_nothing(served):
    """A file that nobody waits for any more is closed at the server."""
    store = served.opened()
    served.memory.plant(b"g", LARGE_CONTENT)
    for start in (lambda: store.open_writer(b"f", 4, OnConflict.REPLACE), lambda: store.open_reader(b"g")):
        opening = start()
        opening.addErrback(lambda _: None)
        opening.cancel()
        served.flush()

    assert {} == served.responders._writes
    assert {} == served.responders._reads
    assert 0 == len(served.client.streams)
    assert 0 == len(served.server.streams)


def test_a_partial_is_matched_over_several_commands(served, monkeypatch):
    """More blocks than one command carries are compared piece by piece."""
    monkeypatch.setattr("realize.store.client.streams.BLOCKS_PER_COMMAND", 1)
    served.memory.plant_partial(b"f", LARGE_CONTENT[:-3])
    served.memory.plant(b"g", LARGE_CONTENT)
    store = served.opened()
    writer = served.result(store.open_writer(b"f", len(LARGE_CONTENT), OnConflict.REPLACE))
    matched = served.result(writer.match(block_digests(LARGE_CONTENT[:-3]), len(LARGE_CONTENT) - 3))
    served.result(writer.write([LARGE_CONTENT[matched:]]))

    assert len(LARGE_CONTENT) - 3 == matched
    assert Committed.CREATED is how(served.result(writer.commit(blake3(LARGE_CONTENT).digest(), None)))
    assert len(LARGE_CONTENT) == served.result(
        store.match_final(b"g", len(LARGE_CONTENT), 0, block_digests(LARGE_CONTENT))
    )


def test_an_item_that_cannot_be_encoded_spoils_the_call(served):
    """A name beyond the protocol's limit is a BadName."""
    store = served.opened()

    assert BadName is type(served.result(store.describe([bytes(70_000)])))


def test_transfers_are_shown(served):
    """The server knows what is under way and how far it is."""
    store = served.opened()
    writer = served.result(store.open_writer(b"f", 4, OnConflict.REPLACE))
    served.result(writer.write([b"12"]))

    shown = {"dir": "inbox", "path": "f", "direction": "receive", "size": 4, "done": 2, "compressed": False}
    assert [shown] == served.server.transfers()


def test_a_peer_without_the_capability_is_not_asked_for_deltas():
    """Who does not say that it knows them gets and sends whole files."""
    pair = Served(Clock(), server_greeting=Greeting("older", ())).introduced()
    pair.memory.plant(b"f", LARGE_CONTENT)
    store = pair.opened()

    reader = pair.result(store.open_reader(b"f"))
    writer = pair.result(store.open_writer(b"g", 5, OnConflict.REPLACE))

    assert (False, False) == (reader.deltas, writer.deltas)
    pair.client_wire.cut()
    pair.flush()


def test_a_listing_may_stay_on_one_file_system():
    """The peer is told so once, at its beginning."""
    pair = Served(Clock()).introduced()
    pair.memory.plant(b"a/f", b"1")
    pair.memory.plant(b"b/f", b"2")
    pair.memory.mounted.add(b"b")
    store = pair.opened()

    for staying, left in ((True, [b"b"]), (False, [])):
        entries = pair.result(listed(store.walk(one_file_system=staying)))
        assert left == [entry.path for entry in entries if entry.kind is Kind.LEFT]
        assert staying is not (b"b/f" in [entry.path for entry in entries])


def test_a_peer_that_would_enter_every_file_system_is_not_asked():
    """It would list, and then lose, what was to stay."""
    pair = Served(Clock(), server_greeting=Greeting("Realize 0", ())).introduced()
    store = pair.opened()

    with pytest.raises(VersionMismatch, match=r"runs Realize 0, which cannot stay on one file system: upgrade it"):
        store.walk(one_file_system=True)
    assert [] == pair.result(listed(store.walk()))
    assert "cannot look up files by their names" in str(pair.result(store.examine([b"f"])))


def test_more_names_than_fit_a_command_are_examined():
    """In several, whose answers are joined."""
    pair = Served(Clock()).introduced()
    names = [b"%05d" % number + b"x" * 200 for number in range(1_000)]
    for name in names[::2]:
        pair.memory.plant(name, b"")
    examined = pair.result(pair.opened().examine(names))

    assert names[::2] == [each.path for each in examined.entries[::2]]
    assert {NotFound} == {type(each) for each in examined.entries[1::2]}


def test_offers_that_come_while_content_is_written_keep_their_order():
    """Offers wait for nothing but each other: the answers belong to the chunks that were asked about."""
    pair = Served(Clock()).introduced()
    old = random_bytes(1_000_000)
    new = old[:300_000] + b"other" * 2000 + old[300_000:]
    pair.memory.plant(b"f", old)
    store = pair.opened()
    pair.result(store.describe([b"f"]))
    writer = pair.result(store.open_writer(b"f", len(new), OnConflict.REPLACE))
    served = pair.responders._writes[1][1]
    inner = served._writer
    held, write = [], inner.write

    def hold(pieces):
        held.append(Deferred())
        return held[-1].addCallback(lambda _: write(pieces))

    spans = [new[start : start + 200_000] for start in range(0, len(new), 200_000)]
    inner.write = hold
    first = pair.result(writer.offer(deltas.cut(spans[0])))
    second = pair.result(writer.offer(deltas.cut(spans[1])))
    sent = _content(spans[0], first) + _content(spans[1], second)
    pair.result(writer.write([sent]))
    later = [writer.offer(deltas.cut(span)) for span in spans[2:]]
    pair.flush()
    inner.write = write
    held[0].callback(None)
    for span, offer in zip(spans[2:], later, strict=True):
        content = _content(span, pair.result(offer))
        if content:
            pair.result(writer.write([content]))

    assert Committed.REPLACED is how(pair.result(writer.commit(blake3(new).digest(), None)))
    assert new == pair.memory.files[b"f"].content
    pair.client_wire.cut()
    pair.flush()


def test_a_peer_that_does_not_send_what_was_picked_is_not_waited_for(served, monkeypatch):
    """The answer comes behind the content: who answers without it has broken its word."""
    served.memory.plant(b"f", LARGE_CONTENT)
    reader = served.result(served.opened().open_reader(b"f"))
    chunks = served.result(reader.cut())

    async def nothing(_self, _bits):
        """Answer, and send nothing."""

    monkeypatch.setattr(ServedRead, "pick", nothing)

    assert isinstance(served.result(reader.pick([True] * len(chunks))), ProtocolError)
    reader.close()


def test_a_peer_that_sends_what_was_not_picked_fails_the_file(served):
    """Whatever a peer does, a reader answers with a Deferred."""
    served.memory.plant(b"f", LARGE_CONTENT)
    reader = served.result(served.opened().open_reader(b"f"))
    chunks = served.result(reader.cut())
    reader._content.stream.start()
    reader._content.stream.receive(bytes(reader._content.stream.limit))

    assert isinstance(served.result(reader.pick([False] * len(chunks))), ProtocolError)
    reader.close()


def _content(span, wanted):
    """What is wanted of a span."""
    content, position = b"", 0
    for (length, _), want in zip(deltas.cut(span), wanted, strict=True):
        content += span[position : position + length] if want else b""
        position += length
    return content


def test_what_is_kept_beside_another_is_audited_under_its_own_name(served):
    """The record says where the file is, and which name it was sent for."""
    store = served.opened()
    served.memory.plant(b"d/f.log", b"old")

    served.result(store.put_small([small_file(b"d/f.log", b"new")], OnConflict.RENAME))

    [line] = served.log.named("file_committed")
    assert ("d/f.1.log", "d/f.log", False) == (line["path"], line["beside"], line["replaced"])


def test_a_peer_of_an_older_version_cannot_keep_both(served):
    """What it cannot do is known from its greeting, before anything is asked."""
    store = served.opened()

    assert store.keeps_both()
    served.client.theirs = Greeting("older", (commands.DELTAS,))
    assert not store.keeps_both()
