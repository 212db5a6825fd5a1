"""What one connection has open at the end with the stores: it is checked, bounded, and closed whatever else fails.

The store answers when the test lets it.
"""

import pytest
from blake3 import blake3
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from realize.config import Right
from realize.errors import AccessDenied, Busy, ConnectionFailed, NoSpace, ProtocolError, RealizeError, StorageError
from realize.extras import Extras
from realize.store.hooks import FileHooks, Saved
from realize.store.server import responders as served_module
from realize.tracing import transfer_id
from realize.values import (
    MAX_VALUE_BYTES,
    SLICE_BYTES,
    Attributes,
    Committed,
    Directory,
    Entry,
    Expected,
    HardLink,
    Kind,
    OnConflict,
    Preserve,
    Removal,
    Seen,
    Space,
    Stored,
    Symlink,
    Use,
    Vacant,
    Version,
    Where,
    WhereKind,
)
from realize.wire import commands
from realize.wire.connection import Greeting
from tests.faults import Quiet
from tests.store_helpers import small_file
from tests.test_remote_store import Served
from tests.test_served_streams import Late, kinds

HERE = Where(WhereKind.DIRECTORY, (b"here",), 77, 0o750)
BROKEN = StorageError("broken disk")
VERSION = Version(1, 2, 3, 4, 5)
KEPT = Attributes(1, 0o644)
FULL = NoSpace("full")


class Listing(Late):
    """A listing that answers late."""

    held = 0

    def __init__(self):
        super().__init__()
        self.now_ns = 99


class Store(Late):
    """A store that answers late, but closes at once; ``walked`` are its listings."""

    accepts = frozenset({Preserve.MODE, Preserve.TIMES, Preserve.OWNER})

    def __init__(self):
        super().__init__()
        self.walked = []
        self.walks = []
        self.ending = lambda: succeed(None)

    def walk(self, **options):
        """Another listing."""
        self.walks.append(options)
        self.walked.append(Listing())
        return self.walked[-1]

    def close(self):
        """Count, and end as the test wants."""
        self.closed += 1
        return self.ending()


class Watch(FileHooks):
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def committed(self, directory, outcome, files=1):
        """Keep."""
        self.told.append(("committed", directory, outcome, files))

    def removed(self, directory, files=1):
        """Keep, if it is anything."""
        if files:
            self.told.append(("removed", directory, files))

    def failed(self, directory, error):
        """Keep."""
        self.told.append(("failed", directory, type(error)))

    def saved(self, how, size):
        """Keep, if it is anything."""
        if size:
            self.told.append(("saved", how, size))


class Serving(Served):
    """A server of stores that answer late, and the commands of a client."""

    def __init__(self, **options):
        super().__init__(Clock(), client_greeting=Greeting("client", run="7-a"), **options)
        self.introduced()
        self.memory = Store()
        self.seen = self.responders._watch = Watch()

    def ask(self, command, **arguments):
        """Send a command; what it comes to is added to the list."""
        results = []
        self.client.call(command, **arguments).addCallbacks(
            results.append, lambda failure: results.append(failure.value)
        )
        self.flush()
        return results

    def open(self, handle=1, *, age=None, answer=HERE):
        """Open the directory."""
        results = self.ask(
            commands.OpenDirectory, handle=handle, directory="inbox", base=b"base", salt=b"salt", age=age
        )
        if answer is not None and not results:
            self.answer(answer)
        return results

    def answer(self, result=None, *, of=None):
        """Let the store, or what it opened, answer what it was asked first."""
        (of or self.memory).answer(result)
        self.flush()

    def walk(self, *, handle=1, listing=1, partials=False, avoid=b"", **given):
        """Ask for a page."""
        given = {"partials": partials, "avoid": avoid, "leave": None, **given}
        return self.ask(commands.Walk, handle=handle, listing=listing, **given)

    def writing(self, *, handle=1, have=0, **options):
        """Open a stream to write; the writer."""
        writer = Late(have=have)
        writer.number = self.client.streams.choose()
        self.client.streams.outbound(writer.number)
        given = {**EVERY[commands.OpenWrite][1], "size": 10, "stream": writer.number, **options}
        results = self.ask(commands.OpenWrite, handle=handle, **given)
        self.answer(writer)
        assert [{"have": have}] == results
        return writer

    def reading(self, *, handle=1, size=10, **options):
        """Open a stream to read; the reader."""
        reader = Late(size=size)
        reader.number = self.client.streams.choose()
        given = {**EVERY[commands.OpenRead][1], "stream": reader.number, **options}
        results = self.ask(commands.OpenRead, handle=handle, **given)
        self.answer(reader)
        assert [{"version": reader.version, "attributes": reader.attributes, "allocated": None}] == results
        return reader


@pytest.fixture
def serving():
    """A directory that may be opened; in the end nothing is."""
    made = Serving()
    yield made
    made.client_wire.cut()
    made.flush()
    assert 0 == made.responders.open_count
    assert [] == made.clock.getDelayedCalls()


# Directories.


@pytest.mark.parametrize("age", [None, 5])
def test_an_open_directory_says_where_it_is(serving, age):
    """And what may be done there, in the order of the alphabet."""
    answers = serving.open(age=age)

    rights = ["create", "prune", "read", "remove", "write"]
    assert [
        {"kind": HERE.kind, "chain": [b"here"], "now": 77, "rights": rights, "mode": 0o750, "accepts": 7}
    ] == answers
    assert ([("open", b"salt", age or 0)], [("inbox", b"base", None)]) == (serving.memory.asked, serving.made)
    assert 1 == serving.responders.open_count


@pytest.mark.parametrize("closes", [True, False])
def test_a_directory_that_cannot_be_opened_keeps_nothing(serving, closes):
    """However often it is tried: the handle is free again, and the store is closed, or the log says that it is not."""
    serving.memory.ending = lambda: succeed(None) if closes else fail(BROKEN)
    for _ in range(3):
        assert [StorageError] == kinds(serving.open(answer=BROKEN))
        assert 0 == serving.responders.open_count
    closed = serving.memory.closed
    serving.memory.ending = lambda: succeed(None)
    serving.open()

    assert (3, 1) == (closed, serving.responders.open_count)
    logged = [(line["doing"], line["error"]) for line in serving.log.named("close_failed")]
    assert [("closing", "broken disk")] * (0 if closes else 3) == logged
    refused = [(line["dir"], line["path"], line["doing"]) for line in serving.log.named("storage_failed")]
    assert [("inbox", "base", "open")] * 3 == refused


def test_a_directory_that_cannot_be_listed_is_logged(serving):
    """Else nobody at the daemon would learn of it, when all who want it fail."""
    serving.open()
    results = serving.walk()
    (listing,) = serving.memory.walked
    serving.answer(BROKEN, of=listing)

    assert [StorageError] == kinds(results)
    (line,) = serving.log.named("storage_failed")
    assert ("inbox", "base", "list", "broken disk") == (line["dir"], line["path"], line["doing"], line["error"])


def test_a_store_that_cannot_be_made_keeps_nothing(serving):
    """There is nothing to close either."""
    real = serving.responders._make_store

    def broken(*_):
        raise BROKEN

    serving.responders._make_store = broken
    assert [StorageError] == kinds(serving.open())
    serving.responders._make_store = real
    serving.open()

    assert (0, 1) == (serving.memory.closed, serving.responders.open_count)


def test_a_directory_that_opens_too_late_is_closed(serving):
    """The connection has ended meanwhile."""
    serving.open(answer=None)
    serving.client_wire.cut()
    serving.answer(HERE)

    assert (1, 0) == (serving.memory.closed, serving.responders.open_count)


def test_so_many_directories_may_be_open(serving, monkeypatch):
    """For one more, no store is made; one that is closed makes room."""
    monkeypatch.setattr(commands, "MAX_HANDLES", 2)
    results = [serving.open(handle) for handle in (1, 2, 3)]
    made = len(serving.made)
    serving.ask(commands.CloseDirectory, handle=1)
    again = serving.open(4)

    assert ([dict, dict, Busy], 2) == ([kind for each in results for kind in kinds(each)], made)
    assert [dict] == kinds(again)


def test_a_directory_is_closed_with_all_that_is_open_in_it(serving):
    """And with nothing else."""
    for handle in (1, 2):
        serving.open(handle)
        serving.walk(handle=handle, listing=handle)
    reader, other = serving.reading(), serving.reading(handle=2)
    writer, another = serving.writing(), serving.writing(handle=2)
    before = serving.responders.open_count
    closed = serving.ask(commands.CloseDirectory, handle=1)
    unfinished = list(closed)
    serving.answer(of=writer)

    assert (8, [], [{}], 4) == (before, unfinished, closed, serving.responders.open_count)
    assert [1, 0] == [listing.closed for listing in serving.memory.walked]
    assert (1, 0) == (reader.closed, other.closed)
    assert ([("abandon", True)], []) == (writer.asked, another.asked)
    assert 1 == serving.memory.closed
    assert [ProtocolError] == kinds(serving.ask(commands.CloseDirectory, handle=1))


@pytest.mark.parametrize("broken", ["listing", "reader", "writer", "store", "nothing"])
def test_whatever_cannot_be_closed_the_rest_is(serving, monkeypatch, broken):
    """When the connection ends, and whoever waits for that is told."""
    serving.open(1)
    serving.open(2)
    serving.walk()
    reader, writer = serving.reading(), serving.writing()
    (listing,) = serving.memory.walked

    def fail():
        raise BROKEN

    if broken == "listing":
        listing.close = fail
    if broken == "reader":
        reader.close = fail
    if broken == "store":
        serving.memory.ending = fail
    logged = []
    monkeypatch.setattr(served_module, "_log", Quiet(logged))
    closed = []
    serving.responders.closed.addCallback(closed.append)
    serving.client_wire.cut()
    before = list(closed)
    serving.answer(BROKEN if broken == "writer" else None, of=writer)

    assert ([], [None]) == (before, closed)
    assert [StorageError] * (broken in {"listing", "reader"}) == logged
    assert (2, [("abandon", True)]) == (serving.memory.closed, writer.asked)
    assert (broken != "reader", broken != "listing") == (reader.closed == 1, listing.closed == 1)
    failed = {"writer": ["abandoning"], "store": ["closing"] * 2}.get(broken, [])
    assert failed == [line["doing"] for line in serving.log.named("close_failed")]


# What needs which right.


EVERY = {
    commands.MeasureSpace: ("space", {}),
    commands.TryWrite: ("try_write", {}),
    commands.Describe: ("describe", {"paths": [b"f"]}),
    commands.Forbidden: ("forbidden", {"paths": [b"f"], "use": Use.PUT}),
    commands.Settle: ("settle", {"expected": [Expected(b"f", 3, bytes(32))], "attributes": None}),
    commands.MatchFinal: (
        "match_final",
        {"path": b"f", "size": 3, "offset": 0, "digests": [bytes(32)], "attributes": None},
    ),
    commands.ReadLinks: ("read_links", {"paths": [b"f"]}),
    commands.ReadExtras: ("read_extras", {"paths": [b"f"], "wanted": 28, "lenient": 0, "numeric": False}),
    commands.Foresee: ("foresee", {"paths": [b"f"], "extras": [Extras()]}),
    commands.PutLinks: (
        "put_links",
        {"links": [Symlink(b"f", b"x", None)], "policy": OnConflict.FAIL, "trial": None},
    ),
    commands.LinkFiles: ("link_files", {"links": [HardLink(b"f", b"g", bytes(32))]}),
    commands.Remove: ("remove", {"removals": [Removal(b"f", VERSION)]}),
    commands.Prune: ("prune", {"vacant": [Vacant(b"d", None)]}),
    commands.MakeDirectories: ("make_directories", {"directories": [Directory(b"d", 0o755)]}),
    commands.SetDirectories: ("set_directories", {"directories": [Directory(b"d", 0o755)]}),
    commands.OpenWrite: (
        "open_writer",
        {"stream": 1, "path": b"f", "size": 1, "policy": OnConflict.FAIL, "preserve": None, "replaces": None},
    ),
    commands.OpenRead: ("open_reader", {"stream": 1, "path": b"f", "removing": None}),
    commands.ReadSmall: ("read_small", {"stream": 1, "paths": [b"f"], "removing": None}),
    commands.Walk: ("walk", {"listing": 1, "partials": False, "avoid": b"", "leave": None}),
}
"""What the store is asked for each command that names a directory."""

NEEDS = {
    commands.MeasureSpace: {Right.READ, Right.WRITE, Right.REMOVE},
    commands.Describe: {Right.READ, Right.WRITE},
    commands.Remove: {Right.REMOVE},
    commands.Prune: {Right.REMOVE},
    commands.OpenRead: {Right.READ},
    commands.ReadLinks: {Right.READ},
    commands.ReadExtras: {Right.READ},
    commands.ReadSmall: {Right.READ},
    commands.Walk: {Right.READ},
}
"""Any of these; ``write`` for all others."""


@pytest.mark.parametrize("right", [Right.READ, Right.WRITE, Right.REMOVE], ids=lambda right: right.value)
def test_without_the_right_no_store_is_asked(right):
    """The refusal is logged with the right that is missing."""
    serving = Serving(rights={"inbox": frozenset({right})})
    serving.open()
    serving.memory.asked.clear()
    for number, (command, (_, arguments)) in enumerate(EVERY.items()):
        if right not in NEEDS.get(command, {Right.WRITE}):
            given = {**arguments, "stream": 2 * number + 1} if "stream" in arguments else arguments
            assert [AccessDenied] == kinds(serving.ask(command, handle=1, **given))
    serving.client_wire.cut()

    missing = {Right.READ, Right.WRITE, Right.REMOVE} - {right}
    assert ([], []) == (serving.memory.asked, serving.memory.walked)
    assert {each.value for each in missing} >= {line["right"] for line in serving.log.named("access_denied")}
    assert {"inbox"} == {line["dir"] for line in serving.log.named("access_denied")}


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.__name__)
def test_what_a_store_fails_with_reaches_who_asked(serving, command):
    """However often; nothing stays open of it, and the next command works."""
    serving.open()
    name, arguments = EVERY[command]
    for number in range(3):
        given = {**arguments, "stream": 2 * number + 1} if "stream" in arguments else arguments
        results = serving.ask(command, handle=1, **given)
        serving.answer(BROKEN, of=serving.memory.walked[-1] if name == "walk" else None)
        assert [(StorageError, "broken disk")] == [(type(error), str(error)) for error in results]
        assert (1, 0) == (serving.responders.open_count, len(serving.server.streams))

    assert [1] * (3 if name == "walk" else 0) == [listing.closed for listing in serving.memory.walked]


# Listings.


def test_a_listing_is_closed_when_it_ends(serving):
    """Its number is free for another one."""
    serving.open()
    entry = Entry(b"f", Kind.FILE, 3)
    pages = [serving.walk(partials=True, avoid=b"place"), None]
    (listing,) = serving.memory.walked
    serving.answer([entry], of=listing)
    pages[1] = serving.walk()
    serving.answer([], of=listing)
    open_before = serving.responders.open_count
    serving.walk()

    assert [{"entries": [entry], "more": True, "now": 99}] == pages[0]
    assert [{"entries": [], "more": False, "now": 99}] == pages[1]
    assert (1, 1, 2) == (open_before, listing.closed, serving.responders.open_count)
    first = {"partials": True, "avoid": b"place", "leave": (), "one_file_system": False}
    first |= {"links": False, "hard_links": False}
    assert [first, {**first, "partials": False, "avoid": b""}] == serving.memory.walks


def test_a_listing_belongs_to_one_directory_and_one_question(serving):
    """Others are refused, and do it no harm."""
    serving.open(1)
    serving.open(2)
    page = serving.walk()
    refused = serving.walk()
    elsewhere = serving.walk(handle=2)
    (listing,) = serving.memory.walked
    serving.answer([Entry(b"f", Kind.FILE, 3)], of=listing)
    later = serving.walk(handle=2)

    assert [ProtocolError] * 3 == kinds(refused + elsewhere + later)
    assert ([dict], 0) == (kinds(page), listing.closed)


def test_pages_may_be_asked_for_behind_each_other(serving):
    """Each gets the next one; what is behind the last one, or behind the end of the listing, finds no page."""
    serving.open()
    entries = [Entry(name, Kind.FILE, 3) for name in (b"a", b"b")]
    pages = [serving.walk(), *(serving.walk(further=True) for _ in range(4))]
    (listing,) = serving.memory.walked
    for answer in ([entries[0]], [entries[1]], []):
        serving.answer(answer, of=listing)
    late = serving.walk(further=True)

    assert [[entries[0]], [entries[1]], [], [], []] == [page["entries"] for [page] in pages]
    assert [True, True, False, False, False] == [page["more"] for [page] in pages]
    assert ([], False) == (late[0]["entries"], late[0]["more"])
    assert (1, 1, 1) == (len(serving.memory.walked), listing.closed, serving.responders.open_count)


def test_who_waits_for_a_page_of_a_listing_that_fails_gets_none(serving):
    """Nor does who waits behind; the listing is not begun anew."""
    serving.open()
    pages = [serving.walk(), serving.walk(further=True)]
    serving.ask(commands.EndWalk, listing=1)

    assert [ConnectionFailed] == kinds(pages[0])
    assert [{"entries": [], "more": False, "now": 0}] == pages[1]
    assert 1 == len(serving.memory.walked)


def test_a_listing_that_is_given_up_is_closed(serving):
    """Whoever waits for its page is told; to give it up once more is no error."""
    serving.open()
    page = serving.walk()
    given_up = [serving.ask(commands.EndWalk, listing=1) for _ in range(2)]

    assert ([ConnectionFailed], [[{}], [{}]]) == (kinds(page), given_up)
    assert (1, 1) == (serving.memory.walked[0].closed, serving.responders.open_count)


def test_so_many_listings_may_be_open(serving):
    """One more is BUSY, and one that has ended makes room."""
    serving.open()
    results = [kinds(serving.walk(listing=number)) for number in range(1, commands.MAX_LISTINGS + 2)]
    serving.ask(commands.EndWalk, listing=1)
    more = serving.walk(listing=100)

    assert [[]] * commands.MAX_LISTINGS + [[Busy]] == results
    assert ([], commands.MAX_LISTINGS + 1) == (more, len(serving.memory.walked))


def test_an_answer_holds_many_small_entries(serving):
    """As many as fit it, and the rest with the next one."""
    serving.open()
    entries = [Entry(b"%05d" % number, Kind.FILE, 3) for number in range(5000)]
    got = []
    answers = serving.walk()
    serving.answer(entries, of=serving.memory.walked[0])
    while answers and answers[0]["entries"]:
        got.append(answers[0]["entries"])
        if sum(map(len, got)) == len(entries):
            break
        answers = serving.walk()

    assert entries == [entry for page in got for entry in page]
    assert len(got) < 5000 * 60 // MAX_VALUE_BYTES + 2


# Answers about files.


def test_space_is_told_with_files_if_they_are_counted(serving):
    """Otherwise there is no number."""
    serving.open()
    told = []
    for space in (Space(5, 10), Space(5, 10, free_files=3)):
        told.append(serving.ask(commands.MeasureSpace, handle=1))
        serving.answer(space)

    common = {"free": 5, "total": 10}
    assert [[{**common, "files": None}], [{**common, "files": 3}]] == told


def test_what_a_file_is_to_have_belongs_to_it(serving):
    """One for each, in order; or all keep what they have."""
    serving.open()
    expected = [Expected(b"f", 3, bytes(32)), Expected(b"g", 4, bytes(32))]
    wrong = serving.ask(commands.Settle, handle=1, expected=expected, attributes=[KEPT])
    asked = serving.ask(commands.Settle, handle=1, expected=expected, attributes=[None, KEPT])
    serving.answer([True, FULL])

    assert [ProtocolError] == kinds(wrong)
    ((_, [first, second]),) = serving.memory.asked[1:]
    assert (None, KEPT) == (first.attributes, second.attributes)
    (answer,) = asked
    assert [True, "full"] == [each if each is True else str(each) for each in answer["settled"]]
    assert [("saved", Saved.ALREADY_THERE, 3), ("failed", "inbox", NoSpace)] == serving.seen.told


def test_files_of_a_slice_are_compared_as_a_whole_and_no_larger_ones(serving):
    """Those that are left out are not there as far as anybody knows; the answers keep their order."""
    serving.open()
    expected = [Expected(b"%d" % size, size, bytes(32)) for size in (3, SLICE_BYTES + 1, SLICE_BYTES, 4)]
    settled = serving.ask(commands.Settle, handle=1, expected=expected, attributes=None)
    serving.answer([False, True, True])

    assert ("settle", [expected[0], *expected[2:]]) == serving.memory.asked[-1]
    assert [{"settled": [False, False, True, True]}] == settled


@pytest.mark.parametrize(("matched", "offset"), [(3, 2), (5, 0), (0, 5), (2, 2)])
def test_a_final_that_is_the_same_to_its_end_is_there_already(serving, matched, offset):
    """It is logged and counted then, and not before; what matched nothing counts for nothing."""
    serving.open()
    whole = {"path": b"f", "size": 5, "offset": offset, "digests": [bytes(32)], "attributes": KEPT}
    answers = serving.ask(commands.MatchFinal, handle=1, **whole)
    serving.answer(matched)

    there = bool(matched) and offset + matched == 5
    assert [{"matched": matched}] == answers
    assert [("match_final", b"f", 5, offset, [bytes(32)], KEPT)] == serving.memory.asked[1:]
    assert [("saved", Saved.ALREADY_THERE, 5)] * there == serving.seen.told
    logged = [(line["path"], line["size"], line["digest"]) for line in serving.log.named("file_already_there")]
    assert [("base/f", 5, None)] * there == logged


@pytest.mark.parametrize(("error", "event"), [(BROKEN, ["storage_failed"]), (Busy("later"), [])])
@pytest.mark.parametrize("command", [commands.MatchFinal, commands.OpenRead], ids=lambda each: each.__name__)
def test_a_file_that_cannot_be_read_is_logged_if_the_disk_is_at_fault(serving, command, error, event):
    """It is counted in any case."""
    serving.open()
    serving.ask(command, handle=1, **EVERY[command][1])
    serving.answer(error)

    assert [("failed", "inbox", type(error))] == serving.seen.told
    logged = [(name, fields["path"], fields["doing"]) for _, name, fields in serving.log.events if "dir" in fields]
    assert [(name, "base/f", "read") for name in event] == logged


def test_files_that_arrive_together_are_counted_by_what_became_of_them(serving):
    """And each is logged, under the name and the transfer that its sender knows."""
    serving.open()
    files = [small_file(b"%d" % number, b"x") for number in range(4)]
    stream = serving.client.streams.outbound(serving.client.streams.choose())
    stream.give(4)
    answers = serving.ask(commands.PutSmall, handle=1, stream=1, policy=OnConflict.SKIP, heads=files)
    Deferred.fromCoroutine(stream.send([b"xx", b"xx"]))
    serving.flush()
    created = Stored(Committed.CREATED)
    serving.answer([created, created, Stored(Committed.REPLACED), FULL])

    assert [("put_small", files, OnConflict.SKIP, ())] == serving.memory.asked[1:]
    # The command itself gave all the credit.
    assert 0 == stream.credit
    assert [created, created] == answers[0]["outcomes"][:2]
    assert [
        ("failed", "inbox", NoSpace),
        ("committed", "inbox", Committed.CREATED, 2),
        ("committed", "inbox", Committed.REPLACED, 1),
    ] == serving.seen.told
    logged = [(line["path"], line["transfer"], line["digest"]) for line in serving.log.named("file_committed")]
    x = blake3(b"x").hexdigest()
    assert [(f"base/{number}", transfer_id("7", b"%d" % number), x) for number in range(3)] == logged


def test_what_was_removed_is_counted(serving):
    """And what was not, as a failure."""
    serving.open()
    answers = serving.ask(commands.Remove, handle=1, removals=[Removal(b"f", VERSION), Removal(b"g", VERSION)])
    serving.answer([None, FULL])

    assert [None, "full"] == [each if each is None else str(each) for each in answers[0]["removed"]]
    assert [("failed", "inbox", NoSpace), ("removed", "inbox", 1)] == serving.seen.told


def test_directories_that_were_removed_are_logged(serving):
    """Those that were not are not."""
    serving.open()
    vacant = [Vacant(b"d", None), Vacant(b"e", None), Vacant(b"g", None)]
    answers = serving.ask(commands.Prune, handle=1, vacant=vacant)
    serving.answer([True, False, FULL])

    assert [True, False] == answers[0]["pruned"][:2]
    assert ["base/d"] == [line["path"] for line in serving.log.named("directory_removed")]


# Streams.


@pytest.mark.parametrize(("preserve", "kept"), [(None, True), (True, True), (False, False)])
@pytest.mark.parametrize("replaces", [None, Seen(b"place", 3)])
def test_a_writer_is_opened_as_it_was_asked(serving, preserve, kept, replaces):
    """Who does not say that no attributes will come may bring some."""
    serving.open()
    serving.writing(preserve=preserve, replaces=replaces)

    assert [("open_writer", b"f", 10, OnConflict.FAIL, kept, replaces, 0, None)] == serving.memory.asked[1:]


@pytest.mark.parametrize("removing", [None, True, False])
@pytest.mark.parametrize("command", [commands.OpenRead, commands.ReadSmall], ids=lambda each: each.__name__)
def test_what_is_to_be_removed_is_read_with_care(serving, command, removing):
    """The store is told."""
    serving.open()
    serving.ask(command, handle=1, **{**EVERY[command][1], "removing": removing})

    assert bool(removing) is serving.memory.asked[1][-1]


@pytest.mark.parametrize("keep", [True, False])
def test_streams_are_shown_until_they_end(serving, keep):
    """To end one that has ended is no error."""
    serving.open()
    reader, writer = serving.reading(path=b"r", size=3), serving.writing(path=b"w")
    shown = serving.server.transfers()
    kept = serving.ask(commands.AbandonStream, stream=writer.number, keep=keep)
    serving.answer(7, of=writer)
    ends = [serving.ask(commands.AbandonStream, stream=writer.number, keep=keep)]
    ends += [serving.ask(commands.CloseStream, stream=reader.number) for _ in range(2)]

    assert [{"kept": 7}] == kept
    assert [[{"kept": None}], [{}], [{}]] == ends
    assert [
        {"dir": "inbox", "path": "base/w", "direction": "receive", "size": 10, "done": 0, "compressed": False},
        {"dir": "inbox", "path": "base/r", "direction": "send", "size": 3, "done": 0, "compressed": False},
    ] == shown
    assert ([("abandon", keep)], 1) == (writer.asked, reader.closed)
    assert [] == serving.server.transfers()


@pytest.mark.parametrize("skipped", [4, 10])
def test_what_need_not_be_sent_is_counted(serving, skipped):
    """As what the other end says that it has: nobody here knows."""
    serving.open()
    reader = serving.reading()
    serving.ask(commands.SkipBlocks, stream=reader.number, length=skipped)
    serving.answer(of=reader)
    started = serving.ask(commands.StartRead, stream=reader.number)

    assert ([{}], [("saved", Saved.CLAIMED, skipped)]) == (started, serving.seen.told)


def test_what_a_partial_had_is_counted(serving):
    """It was to be sent, and is not."""
    serving.open()
    writer = serving.writing(have=5)
    matched = serving.ask(commands.MatchPartial, stream=writer.number, digests=[bytes(32)], length=5)
    serving.answer(5, of=writer)

    assert [{"matched": 5}] == matched
    assert [("saved", Saved.RESUME, 5)] == serving.seen.told


def test_a_handle_that_is_not_open_is_an_error(serving):
    """Whatever is asked of it."""
    for number, (command, (_, arguments)) in enumerate(EVERY.items()):
        given = {**arguments, "stream": 2 * number + 1} if "stream" in arguments else arguments
        (error,) = serving.ask(command, handle=9, **given)
        assert isinstance(error, RealizeError)
        assert "handle 9 is not open" in str(error)
