"""A store at the other end, as it asks: which command, how much at a time, how long it waits, and what it believes.

The peer answers when, and what, the test says.
"""

import pytest
from twisted.internet.defer import Deferred

from realize.errors import BadName, Busy, ConnectionFailed, NoSpace, NotFound, ProtocolError, StorageError, Unanswered
from realize.extras import Extras
from realize.store.client import small_files as remote_small
from realize.store.client import streams as remote_streams
from realize.store.client.small_files import FIRST_BATCH_BYTES, SLOW_LINK_BATCH_BYTES
from realize.store.client.store import MAX_PACKS_IN_FLIGHT, RemoteStore
from realize.values import (
    BLOCK_BYTES,
    MAX_SMALL_BYTES,
    Attributes,
    Committed,
    Directory,
    Entry,
    Existing,
    Expected,
    Kind,
    OnConflict,
    Removal,
    Space,
    Stored,
    Symlink,
    Travelled,
    Use,
    Vacant,
    Version,
    Where,
    WhereKind,
)
from realize.wire import commands, packing
from realize.wire.greeting import Greeting
from realize.wire.packing import MAX_PACK_ITEMS, FetchedHead
from realize.wire.reply_timeouts import REPLY_TIMEOUT_S
from realize.wire.windows import RoundTrip
from tests.store_helpers import small_file
from tests.test_remote_streams import Asking, kinds

FURTHER = (commands.WALK_AHEAD,)
HERE = Where(WhereKind.DIRECTORY, (b"here", b"above"), 77, 0o750)
BROKEN = StorageError("broken disk")
DIGEST = bytes(32)
KEPT = Attributes(1, 0o644)
VERSION = Version(1, 2, 3, 4, 5)
CREATED = Stored(Committed.CREATED)
REMOVALS = [Removal(b"f", VERSION), Removal(b"g", VERSION)]
VACANT = [Vacant(b"d", None), Vacant(b"e", 5)]
DIRECTORIES = [Directory(b"d", 0o755), Directory(b"e", 0o700)]
EXPECTED = [Expected(b"f", 3, DIGEST, KEPT), Expected(b"g", 4, DIGEST, None)]


class Remote(Asking):
    """A store on a connection to a peer that answers as the test says."""

    def open(self, *, age=0, **options):
        """Make it, and open it."""
        self.store = RemoteStore(self.client, "inbox", b"base", **options)
        where = self.ask(self.store.open(b"salt", age))
        question = self.peer.asked.pop()
        self.answer(kind=HERE.kind, chain=list(HERE.identities), now=77, rights=["read", "write"], mode=0o750)
        self.where, self.handle = where, question[1]["handle"]
        return question

    def sent(self, number=0):
        """What the peer was asked at that place, without its handle and stream."""
        return self.asked()[number]


@pytest.fixture
def asking():
    """A connection with an open store; nothing of it is left in the end."""
    made = Remote()
    made.open()
    yield made
    made.client_wire.cut()
    made.flush()
    assert 0 == len(made.client.streams)
    assert [] == made.clock.getDelayedCalls()


@pytest.mark.parametrize("age", [0, 5])
def test_a_store_says_where_it_is(age):
    """And what may be done there; how old the run is, is said only if it is."""
    asking = Remote()
    command, question = asking.open(age=age)
    asking.client_wire.cut()

    given = {"directory": "inbox", "base": b"base", "salt": b"salt", "age": age or None, "origin": None, "backup": None}
    assert (commands.OpenDirectory, {**given, "handle": asking.handle}) == (command, question)
    assert ([HERE], ("read", "write")) == (asking.where, asking.store.rights)


def test_a_store_may_be_asked_ahead_where_it_is():
    """Once, if it is opened with that salt by a run that begins; with another one it is asked anew."""
    asking = Remote()
    asking.store = RemoteStore(asking.client, "inbox", b"base")
    asking.store.open_ahead(b"salt")
    first = asking.ask(asking.store.open(b"salt"))
    [(command, question)] = asking.peer.asked
    asking.answer(kind=HERE.kind, chain=list(HERE.identities), now=77, rights=["read", "write"], mode=0o750)

    assert (commands.OpenDirectory, b"salt", [HERE]) == (command, question["salt"], first)
    asking.peer.asked.clear()
    for salt, age in ((b"other", 0), (b"salt", 5)):
        asking.store.open_ahead(b"salt")
        asking.ask(asking.store.open(salt, age))
        assert [b"salt", salt] == [question["salt"] for _, question in asking.peer.asked]
        asking.peer.asked.clear()
    asking.client_wire.cut()
    asking.flush()


def test_a_store_with_backups_is_not_asked_ahead():
    """The peer may be too old to keep them."""
    asking = Remote()
    asking.store = RemoteStore(asking.client, "inbox", b"base", backup_dir=b"old")

    asking.store.open_ahead(b"salt")

    assert [] == asking.peer.asked
    asking.client_wire.cut()


def test_what_was_asked_ahead_may_fail_unheard():
    """When the run ends before it opens the store."""
    asking = Remote()
    asking.store = RemoteStore(asking.client, "inbox", b"base")
    asking.store.open_ahead(b"salt")

    closed = asking.ask(asking.store.close())
    asking.client_wire.cut()

    assert [None] == closed


def test_nothing_is_asked_of_a_store_that_was_closed(asking):
    """Or that was not opened."""
    closed = asking.ask(asking.store.close())
    asking.answer()
    again = asking.ask(asking.store.close())
    (asked,) = asking.asked()

    assert ([None], [None], commands.CloseDirectory) == (closed, again, asked[0])
    for store in (asking.store, RemoteStore(asking.client, "inbox")):
        with pytest.raises(ProtocolError):
            store.walk()
        for call in (store.space(), store.describe([b"f"])):
            assert [ProtocolError] == kinds(asking.ask(call))
        assert [None] == asking.ask(store.close())
    assert [] == asking.asked()


def test_closing_waits_for_nobody_for_ever(asking):
    """A disk that hangs holds up no one who wants to end: the peer keeps partials anyway."""
    closed = asking.ask(asking.store.close())
    asking.clock.pump([1] * int(2 * REPLY_TIMEOUT_S))

    assert ([None], True) == (closed, asking.client.lost)


@pytest.mark.parametrize("lost", [True, False])
def test_closing_does_not_fail(asking, lost):
    """Whatever the peer says of it, or if it is gone."""
    if lost:
        asking.client_wire.cut()
    closed = asking.ask(asking.store.close())
    if not lost:
        asking.answer(BROKEN)

    assert [None] == closed
    assert (not lost) == bool(asking.asked())


CALLS = {
    "space": (
        lambda store: store.space(),
        (commands.MeasureSpace, {}),
        {"free": 5, "total": 10, "files": 3},
        Space(5, 10, 3),
    ),
    "uncounted": (lambda store: store.space(), (commands.MeasureSpace, {}), {"free": 5, "total": 10}, Space(5, 10)),
    "try_write": (lambda store: store.try_write(), (commands.TryWrite, {}), {"nanoseconds": 7}, 7),
    "describe": (
        lambda store: store.describe([b"f", b"g"]),
        (commands.Describe, {"paths": [b"f", b"g"]}),
        {"found": [Existing(3), Existing()]},
        [Existing(3), Existing()],
    ),
    "forbidden": (
        lambda store: store.forbidden([b"f", b"g"], Use.MOVE),
        (commands.Forbidden, {"paths": [b"f", b"g"], "use": Use.MOVE}),
        {"forbidden": [None, None]},
        [None, None],
    ),
    "settle": (
        lambda store: store.settle(EXPECTED),
        (
            commands.Settle,
            {
                "expected": [Expected(b"f", 3, DIGEST), Expected(b"g", 4, DIGEST)],
                "attributes": [KEPT, None],
                "extras": None,
            },
        ),
        {"settled": [True, False]},
        [True, False],
    ),
    "remove": (
        lambda store: store.remove(REMOVALS),
        (commands.Remove, {"removals": REMOVALS}),
        {"removed": [None, None]},
        [None, None],
    ),
    "prune": (
        lambda store: store.prune(VACANT),
        (commands.Prune, {"vacant": VACANT}),
        {"pruned": [True, False]},
        [True, False],
    ),
    "make_directories": (
        lambda store: store.make_directories(DIRECTORIES),
        (commands.MakeDirectories, {"directories": DIRECTORIES, "extras": None}),
        {"made": [None, None]},
        [None, None],
    ),
    "set_directories": (
        lambda store: store.set_directories(DIRECTORIES),
        (commands.SetDirectories, {"directories": DIRECTORIES, "extras": None}),
        {"done": [True, False]},
        [True, False],
    ),
    "match_final": (
        lambda store: store.match_final(b"f", 9, 2, [DIGEST], KEPT),
        (
            commands.MatchFinal,
            {"path": b"f", "size": 9, "offset": 2, "digests": [DIGEST], "attributes": KEPT, "extras": None},
        ),
        {"matched": 7},
        7,
    ),
    "match_final without blocks": (
        lambda store: store.match_final(b"f", 0, 0, []),
        (
            commands.MatchFinal,
            {"path": b"f", "size": 0, "offset": 0, "digests": [], "attributes": None, "extras": None},
        ),
        {"matched": 0},
        0,
    ),
}
"""What a store is asked, what that becomes on the way, what the peer answers, and what that is."""
IMPATIENT = {"forbidden", "space", "uncounted", "describe"}


@pytest.mark.parametrize("name", CALLS)
def test_a_question_reaches_the_peer_and_its_answer_us(asking, name):
    """As the interface of all stores says it."""
    call, question, answer, result = CALLS[name]
    results = asking.ask(call(asking.store))
    asking.answer(**answer)

    assert ([question], [result]) == (asking.asked(), results)


@pytest.mark.parametrize("name", CALLS)
def test_what_the_peer_fails_with_reaches_us(asking, name):
    """As it is; the next question is answered."""
    call, _, answer, result = CALLS[name]
    failed = asking.ask(call(asking.store))
    asking.answer(BROKEN)
    results = asking.ask(call(asking.store))
    asking.answer(**answer)

    assert [(StorageError, "broken disk")] == [(type(error), str(error)) for error in failed]
    assert [result] == results


@pytest.mark.parametrize("name", CALLS)
def test_a_disk_may_take_its_time(asking, name):
    """Whoever asks for what it does waits longer than for what is known."""
    results = asking.ask(CALLS[name][0](asking.store))
    asking.clock.pump([1] * int(2 * REPLY_TIMEOUT_S))

    assert (name in IMPATIENT) == asking.client.lost == bool(results)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize(
    "name", ["describe", "settle", "remove", "prune", "make_directories", "set_directories"], ids=str
)
def test_there_is_an_answer_for_each_question(asking, name, count):
    """A peer that has more or fewer has broken its word: nobody knows which belongs to which."""
    call, _, answer, _ = CALLS[name]
    results = asking.ask(call(asking.store))
    asking.answer(**{key: (values * 2)[:count] for key, values in answer.items()})

    assert [ProtocolError] == kinds(results)


@pytest.mark.parametrize("count", [1, MAX_PACK_ITEMS + 1])
@pytest.mark.parametrize("able", [True, False])
def test_directories_go_with_files_if_that_is_possible(asking, able, count):
    """An older peer, and one that is told of more than fit, is asked to make them before."""
    if not able:
        asking.client.theirs = Greeting("older", ())
    directories = [Directory(b"%05d" % number, 0o700) for number in range(count)]
    results = asking.ask(asking.store.put_small([small_file(b"00000/f", b"")], OnConflict.FAIL, directories))
    made = 0
    while asking.peer.asked[0][0] is commands.MakeDirectories:
        [(_, question)] = asking.asked()
        made += len(question["directories"])
        asking.answer(made=[None] * len(question["directories"]))
    [(_, question)] = asking.asked()
    asking.answer(outcomes=[CREATED])

    along = able and count == 1
    assert (0 if along else count, directories if along else None) == (made, question["directories"])
    assert [[CREATED]] == results


def test_directories_that_keep_nobody_out_are_set_together(asking):
    """Those that might keep their owner from what is below them come after all others, in order."""
    names = [b"%05d" % number for number in range(3 * MAX_PACK_ITEMS)]
    narrow = {names[1]: {"mode": 0o500}, names[2]: {"mode": 0o755, "extras": Extras(acl=b"")}, names[-1]: {"mode": 0}}
    results = asking.ask(
        asking.store.set_directories([Directory(name, **narrow.get(name, {"mode": 0o755})) for name in names])
    )
    first = [[each.path for each in arguments["directories"]] for _, arguments in asking.asked()]
    for pack in first:
        asking.answer(done=[path[-1:] == b"7" for path in pack])
    [(_, last)] = asking.asked()
    asking.answer(done=[True, False, True])

    assert [name for name in names if name not in narrow] == [path for pack in first for path in pack]
    assert list(narrow) == [each.path for each in last["directories"]]
    given = dict(zip(narrow, [True, False, True], strict=True))
    [answers] = results
    assert [given.get(name, name[-1:] == b"7") for name in names] == answers


def test_a_removal_whose_answer_never_came_may_be_done(asking):
    """The reason is what ended the connection."""
    results = asking.ask(asking.store.remove(REMOVALS))
    asking.client_wire.cut()
    asking.flush()

    [error] = results
    assert Unanswered is type(error)
    assert ConnectionFailed is type(error.__cause__)
    assert str(error.__cause__) == str(error)


def test_a_removal_that_was_never_sent_is_not_done(asking):
    """Where the connection has ended already, nothing is open."""
    asking.client_wire.cut()
    asking.flush()

    assert [ConnectionFailed] == kinds(asking.ask(asking.store.remove(REMOVALS)))


def test_whoever_waits_no_more_for_a_removal_does_not_know_of_it(asking):
    """At the second time: at the first, the answer is waited for; nothing has happened to the connection."""
    waiting = asking.store.remove(REMOVALS)
    results = asking.ask(waiting)
    waiting.cancel()
    early = list(results)
    waiting.cancel()

    assert ([], [Unanswered]) == (early, kinds(results))
    assert results[0].__cause__ is None


def test_questions_are_under_way_together(asking):
    """So many of them; the others wait, and a failure of one is that of all."""
    paths = [b"%05d" % number for number in range((MAX_PACKS_IN_FLIGHT + 2) * MAX_PACK_ITEMS)]
    results = asking.ask(asking.store.describe(paths))
    asked = len(asking.peer.asked)
    asking.answer(found=[Existing()] * MAX_PACK_ITEMS)
    one_more = len(asking.peer.asked)
    for _ in range(MAX_PACKS_IN_FLIGHT):
        asking.answer(found=[Existing(3)] * MAX_PACK_ITEMS)
    early = list(results)
    asking.answer(found=[Existing(4)] * MAX_PACK_ITEMS)

    assert (MAX_PACKS_IN_FLIGHT, MAX_PACKS_IN_FLIGHT + 1, []) == (asked, one_more, early)
    assert [Existing(), Existing(3), Existing(4)] == [results[0][number] for number in (0, MAX_PACK_ITEMS, -1)]
    assert len(paths) == len(results[0])


@pytest.mark.parametrize("place", [0, 1])
def test_the_first_failure_is_that_of_the_whole_call(asking, place):
    """Whichever part it comes from; the others need not be answered."""
    results = asking.ask(asking.store.describe([b"%05d" % number for number in range(2 * MAX_PACK_ITEMS)]))
    if place:
        asking.answer(found=[Existing()] * MAX_PACK_ITEMS)
    asking.answer(BROKEN)

    assert [StorageError] == kinds(results)
    if not place:
        asking.answer(NoSpace("another"))


@pytest.mark.parametrize(("name", "item"), [("prune", VACANT[0]), ("make_directories", DIRECTORIES[0])])
def test_what_has_an_order_is_asked_one_after_the_other(asking, name, item):
    """The next part only when the last one is done."""
    results = asking.ask(getattr(asking.store, name)([item] * (MAX_PACK_ITEMS + 1)))
    asked = len(asking.peer.asked)
    key, value = ("pruned", True) if name == "prune" else ("made", None)
    asking.answer(**{key: [value] * MAX_PACK_ITEMS})
    then = len(asking.peer.asked)
    asking.answer(**{key: [value]})

    assert (1, 2, [[value] * (MAX_PACK_ITEMS + 1)]) == (asked, then, results)


def test_what_can_never_be_sent_spoils_the_call(asking):
    """Nothing of it is asked."""
    large = small_file(b"f", bytes(MAX_SMALL_BYTES + 1))
    calls = [
        asking.store.put_small([small_file(b"g", b""), large], OnConflict.FAIL),
        asking.store.describe([bytes(70_000)]),
    ]
    results = [asking.ask(call) for call in calls]

    assert [[ProtocolError], [BadName]] == list(map(kinds, results))
    assert [] == asking.asked()


def test_as_much_as_a_batch_holds_is_sent_together(asking):
    """To the last byte, in however many files."""
    halves = [small_file(b"%d" % number, bytes(MAX_SMALL_BYTES // 2)) for number in range(2)]
    results = asking.ask(asking.store.put_small(halves, OnConflict.FAIL))
    asking.answer(outcomes=[CREATED] * 2)
    whole = asking.ask(asking.store.put_small([small_file(b"f", bytes(MAX_SMALL_BYTES))], OnConflict.FAIL))
    asking.answer(outcomes=[CREATED])

    assert ([[CREATED] * 2], [[CREATED]]) == (results, whole)


@pytest.mark.parametrize(
    ("answers", "offsets", "result"),
    [
        ([2 * BLOCK_BYTES, 2 * BLOCK_BYTES, 7], [9, 9 + 2 * BLOCK_BYTES, 9 + 4 * BLOCK_BYTES], 4 * BLOCK_BYTES + 7),
        ([2 * BLOCK_BYTES, BLOCK_BYTES], [9, 9 + 2 * BLOCK_BYTES], 3 * BLOCK_BYTES),
        ([2 * BLOCK_BYTES, 0], [9, 9 + 2 * BLOCK_BYTES], 2 * BLOCK_BYTES),
    ],
)
def test_a_final_is_matched_to_where_it_differs(asking, monkeypatch, answers, offsets, result):
    """As many blocks at a time as a command holds, and none behind that."""
    monkeypatch.setattr(remote_streams, "BLOCKS_PER_COMMAND", 2)
    matched = asking.ask(asking.store.match_final(b"f", 9 + 4 * BLOCK_BYTES + 7, 9, [DIGEST] * 5))
    for answer in answers:
        asking.answer(matched=answer)

    assert [result] == matched
    assert offsets == [arguments["offset"] for _, arguments in asking.asked()]


@pytest.mark.parametrize(
    ("size", "answers"),
    [(20, [12]), (20 * BLOCK_BYTES, [2 * BLOCK_BYTES + 1]), (2 * BLOCK_BYTES + 10, [2 * BLOCK_BYTES, 2])],
)
def test_a_peer_does_not_match_more_than_it_was_asked(asking, monkeypatch, size, answers):
    """Neither more than the file has, nor more than the blocks are."""
    monkeypatch.setattr(remote_streams, "BLOCKS_PER_COMMAND", 2)
    matched = asking.ask(asking.store.match_final(b"f", size, 9, [DIGEST] * 4))
    for answer in answers:
        asking.answer(matched=answer)

    assert [ProtocolError] == kinds(matched)


def test_what_is_on_its_way_is_known_until_it_has_arrived(asking):
    """Batches and single files, there and back, with as much of them as has gone over the connection."""
    batch = asking.ask(asking.store.put_small([small_file(b"a", b"12"), small_file(b"b", b"345")], OnConflict.FAIL))
    small = asking.store.in_transit()
    asking.answer(outcomes=[CREATED] * 2)
    fetching = asking.ask(asking.store.read_small([b"f", b"g"]))
    fetched = asking.store.in_transit()
    asking.answer(BROKEN)
    opening = asking.ask(asking.store.open_reader(b"f"))
    asking.answer(version=VERSION, attributes=KEPT)
    large = asking.store.in_transit()
    opening[0].close()
    asking.flush()
    asking.answer()
    opening = asking.ask(asking.store.open_writer(b"f", 5, OnConflict.FAIL))
    asking.answer(have=0)
    asking.ask(opening[0].write([b"123"]))
    larger = asking.store.in_transit()
    asking.ask(opening[0].abandon(keep=True))

    assert [[[CREATED] * 2], [StorageError]] == [batch, kinds(fetching)]
    assert [[Travelled([b"a", b"b"], 5)], [Travelled([b"f", b"g"], 0)]] == [small, fetched]
    assert [[Travelled([b"f"], 0)], [Travelled([b"f"], 3)]] == [large, larger]
    assert [] == asking.store.in_transit()


# Symlinks.


def test_the_rest_of_the_symlinks_is_asked_for_again(asking):
    """An answer has as many as fit."""
    targets = [packing.FoundTarget(b"x", Version(1, 2, 1, 7, 5)), NotFound("b"), packing.FoundTarget(b"y", VERSION)]
    answers = asking.ask(asking.store.read_links([b"a", b"b", b"c"]))
    asking.answer(links=targets[:2])
    asking.answer(links=targets[2:])

    [[first, second, third]] = answers
    assert (Symlink(b"a", b"x", 7), b"y") == (first.link, third.link.target)
    assert isinstance(second, NotFound)
    assert [[b"a", b"b", b"c"], [b"c"]] == [arguments["paths"] for _, arguments in asking.asked()]


@pytest.mark.parametrize("count", [0, 3])
def test_answers_about_no_symlinks_or_too_many_are_a_fault_of_the_peer(asking, count):
    """It could go on like that for ever."""
    answers = asking.ask(asking.store.read_links([b"a", b"b"]))
    asking.answer(links=[packing.FoundTarget(b"x", VERSION)] * count)

    assert [ProtocolError] == kinds(answers)


# Listings.


def page(*names, more=True, now=1):
    """A page of a listing."""
    return {"entries": [Entry(name, Kind.FILE, 3) for name in names], "more": more, "now": now}


def test_symlinks_that_nobody_asked_for_are_a_fault_of_the_peer(asking):
    """Who did not ask does not know what they are."""
    answers = asking.ask(asking.store.walk().next_page())
    asking.answer(entries=[Entry(b"l", Kind.LINK)], more=True, now=1)

    assert [ProtocolError] == kinds(answers)


def test_identities_that_nobody_asked_for_are_a_fault_of_the_peer(asking):
    """In a listing, and of a name that is looked up; else names would be linked in a run that keeps no hard links."""
    entry = Entry(b"a", Kind.FILE, 3, identity=b"place")
    walked = asking.ask(asking.store.walk().next_page())
    asking.answer(entries=[entry], more=True, now=1)
    asking.answer()  # that the listing is given up
    examined = asking.ask(asking.store.examine([b"a"]))
    asking.answer(examined=[entry], now=1)

    assert [ProtocolError] * 2 == kinds(walked) + kinds(examined)


@pytest.mark.parametrize("partials", [True, False])
def test_the_next_page_is_asked_for_ahead(asking, partials):
    """The time is that of the page that is looked at."""
    listing = asking.store.walk(partials=partials, avoid=b"place", leave=[b"-x"], links=True)
    first = asking.ask(listing.next_page())
    asking.answer(**page(b"a", now=5))
    asked, now = len(asking.peer.asked), listing.now_ns
    second = asking.ask(listing.next_page())
    asking.answer(**page(b"b", now=7))
    later = listing.now_ns
    asking.answer(**page(b"c", more=False, now=8))
    third, last = asking.ask(listing.next_page()), asking.ask(listing.next_page())
    listing.close()
    asking.flush()

    assert [[b"a"], [b"b"], [b"c"]] == [[entry.path for entry in each] for (each,) in (first, second, third)]
    assert ([[]], 2, 5, 7, 8) == (last, asked, now, later, listing.now_ns)
    question = {"listing": 1, "partials": partials, "avoid": b"place"}
    none = {"leave": None, "one_file_system": None, "links": None, "hard_links": None, "further": None}
    further = {**none, "further": True}
    first_only = [{**none, "leave": [b"-x"], "links": True}, further, further]
    assert [(commands.Walk, {**question, **each}) for each in first_only] == asking.asked()


@pytest.mark.parametrize(("seconds", "lacks", "ahead"), [(0.2, (), 3), (0.06, (), 2), (0.0, (), 1), (0.2, FURTHER, 1)])
def test_over_a_long_link_more_pages_are_asked_for_ahead(asking, seconds, lacks, ahead):
    """Of a peer that lets them wait; what is behind the last page is for nobody."""
    asking.client.round_trip = RoundTrip(asking.clock, Deferred)
    asking.client.round_trip._shortest = seconds
    asking.client.theirs = Greeting("peer", tuple(each for each in commands.CAPABILITIES if each not in lacks))
    listing = asking.store.walk()
    pages = [asking.ask(listing.next_page())]
    asking.answer(**page(b"a"))
    waiting = len(asking.peer.asked) - 1
    asking.answer(**page(b"b", more=False))
    pages += [asking.ask(listing.next_page()) for _ in range(2)]
    for _ in range(waiting - 1):
        asking.answer(BROKEN)

    assert [[b"a"], [b"b"], []] == [[entry.path for entry in entries] for [entries] in pages]
    assert ahead == waiting
    assert [commands.Walk] * (1 + ahead) == asking.names()


def test_a_listing_that_fails_has_ended(asking):
    """Also if it was a page that was asked for ahead."""
    listing = asking.store.walk()
    first = asking.ask(listing.next_page())
    asking.answer(**page(b"a"))
    asking.answer(BROKEN)
    failed, then = asking.ask(listing.next_page()), asking.ask(listing.next_page())
    listing.close()

    assert (1, [StorageError], [[]]) == (len(first), kinds(failed), then)
    assert [commands.Walk] * 2 == asking.names()


def test_a_listing_has_no_more_names_than_there_can_be(asking, monkeypatch):
    """As many as that are not too many yet."""
    monkeypatch.setattr("realize.store.client.listing.MAX_LISTED_ENTRIES", 2)
    listing = asking.store.walk()
    pages = [asking.ask(listing.next_page())]
    for name in (b"a", b"b", b"c"):
        asking.answer(**page(name))
        pages.append(asking.ask(listing.next_page()))

    assert [1, 1] == [len(entries) for [entries] in pages[:2]]
    assert [ProtocolError] == kinds(pages[2])
    assert [[]] == pages[3]
    assert [commands.Walk] * 3 + [commands.EndWalk] == asking.names()


def test_a_page_without_names_is_no_page(asking):
    """A listing that goes on like that has no end: it is given up, and the peer is told."""
    listing = asking.store.walk()
    first = asking.ask(listing.next_page())
    asking.answer(**page())
    then = asking.ask(listing.next_page())

    assert ([ProtocolError], [[]]) == (kinds(first), then)
    assert [commands.Walk, commands.EndWalk] == asking.names()


@pytest.mark.parametrize("when", ["before", "ahead", "asked", "lost", "twice"])
def test_a_listing_may_be_given_up(asking, when):
    """The peer is told once, if there is anything to give up; what still comes is for nobody."""
    listing = asking.store.walk()
    results = []
    if when != "before":
        results = asking.ask(listing.next_page())
    if when not in {"before", "asked"}:
        asking.answer(**page(b"a"))
    asking.peer.asked.clear()
    if when == "lost":
        asking.client_wire.cut()
    for _ in range(2 if when == "twice" else 1):
        listing.close()
    asking.flush()
    told = asking.asked()
    if when in {"ahead", "twice"}:
        asking.answer(BROKEN)
        asking.answer(BROKEN)
    if when == "asked":
        asking.answer(**page(b"a"))

    assert [(commands.EndWalk, {"listing": 1})] * (when not in {"before", "lost"}) == told
    assert (0 if when == "before" else 1) == len(results)
    assert [[]] == asking.ask(listing.next_page())
    assert [] == asking.names()


def test_a_page_is_waited_for_as_long_as_the_disk_takes(asking):
    """A directory may be large."""
    asking.ask(asking.store.walk().next_page())
    asking.clock.pump([1] * int(2 * REPLY_TIMEOUT_S))

    assert not asking.client.lost


# Batches.


def test_a_batch_is_put_with_patience(asking):
    """It is made durable before it is answered."""
    asking.ask(asking.store.put_small([small_file(b"f", b"")], OnConflict.FAIL))
    asking.clock.pump([1] * int(2 * REPLY_TIMEOUT_S))

    assert not asking.client.lost


def test_reading_a_batch_has_a_limit(asking):
    """A peer that answers nothing but pings has hung."""
    results = asking.ask(asking.store.read_small([b"f"]))
    asking.clock.pump([1] * int(2 * REPLY_TIMEOUT_S))

    assert ([ConnectionFailed], True) == ([each.__mro__[1] for each in kinds(results)], asking.client.lost)


@pytest.mark.parametrize("removing", [True, False])
@pytest.mark.parametrize("heads", [0, 2])
def test_there_is_a_head_for_each_file(asking, removing, heads):
    """And it is said whether they are to be removed; the stream is closed whatever comes."""
    results = asking.ask(asking.store.read_small([b"f"], removing=removing))
    asking.answer(heads=[FetchedHead(0, DIGEST, None, VERSION)] * heads)

    assert [ProtocolError] == kinds(results)
    assert [(commands.ReadSmall, {"paths": [b"f"], "removing": removing})] == asking.asked()
    assert 0 == len(asking.client.streams)


@pytest.mark.parametrize("outcomes", [0, 2])
def test_there_is_an_outcome_for_each_file(asking, outcomes):
    """The stream is closed whatever comes."""
    results = asking.ask(asking.store.put_small([small_file(b"f", b"")], OnConflict.SKIP))
    asking.answer(outcomes=[CREATED] * outcomes)
    asked = asking.sent()

    assert [ProtocolError] == kinds(results)
    assert (commands.PutSmall, OnConflict.SKIP) == (asked[0], asked[1]["policy"])
    assert 0 == len(asking.client.streams)


def test_a_batch_without_a_stream_disturbs_no_other(asking, monkeypatch):
    """There are only so many streams; the next batch may find one."""
    writer = asking.writing(5)
    choose = asking.client.streams.choose

    def busy():
        raise Busy("no more")

    monkeypatch.setattr(asking.client.streams, "choose", busy)
    refused = asking.ask(asking.store.put_small([small_file(b"f", b"x")], OnConflict.FAIL))
    monkeypatch.setattr(asking.client.streams, "choose", choose)
    later = asking.ask(asking.store.put_small([small_file(b"f", b"")], OnConflict.FAIL))
    asking.answer(outcomes=[CREATED])

    assert ([Busy], [[CREATED]]) == (kinds(refused), later)
    assert [None] == asking.ask(writer.write([b"12345"]))
    asking.ask(writer.abandon(keep=True))


def test_a_batch_that_cannot_be_sent_leaves_no_stream(asking, monkeypatch):
    """Nor does it stop the next one."""
    call = asking.client.call

    def broken(command, **arguments):
        if command is commands.PutSmall:
            raise ZeroDivisionError("ours")
        return call(command, **arguments)

    monkeypatch.setattr(asking.client, "call", broken)
    failed = asking.ask(asking.store.put_small([small_file(b"f", b"x")], OnConflict.FAIL))
    left = len(asking.client.streams)
    monkeypatch.setattr(asking.client, "call", call)
    later = asking.ask(asking.store.put_small([small_file(b"f", b"")], OnConflict.FAIL))
    asking.answer(outcomes=[CREATED])

    assert ([ZeroDivisionError], 0, [[CREATED]]) == (kinds(failed), left, later)


@pytest.mark.parametrize(
    ("size", "seconds", "fits"),
    [
        (SLOW_LINK_BATCH_BYTES // 4 - 1, 1000.0, FIRST_BATCH_BYTES),
        (SLOW_LINK_BATCH_BYTES // 4, 1000.0, SLOW_LINK_BATCH_BYTES),
        (MAX_SMALL_BYTES, 0.0, MAX_SMALL_BYTES),
        (MAX_SMALL_BYTES // 8, 5.0, MAX_SMALL_BYTES // 8),
        (MAX_SMALL_BYTES // 8, 1.25, MAX_SMALL_BYTES // 2),
    ],
)
def test_the_next_batch_takes_as_long_as_one_may(size, seconds, fits):
    """If the link is as fast as it was for the last one, and that was enough to tell."""
    assert fits == remote_small._fitting(size, seconds, FIRST_BATCH_BYTES)


@pytest.mark.parametrize(("after_reconnect", "first"), [(False, FIRST_BATCH_BYTES), (True, SLOW_LINK_BATCH_BYTES)])
def test_a_batch_that_took_long_makes_the_next_one_smaller(after_reconnect, first):
    """What comes first is small where a connection was lost before."""
    asking = Remote()
    asking.open(after_reconnect=after_reconnect)
    sizes = [asking.store.takes_at_once()]
    asking.ask(asking.store.put_small([small_file(b"f", bytes(MAX_SMALL_BYTES // 4))], OnConflict.FAIL))
    asking.clock.advance(10)
    asking.answer(outcomes=[CREATED])
    sizes.append(asking.store.takes_at_once())
    asking.client_wire.cut()

    assert [first, MAX_SMALL_BYTES // 8] == sizes
