"""What a peer may send that ours never would.

Each ends in a declared error or a closed connection, never in a traceback.
"""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols.amp import parseString

from realize.concurrency.turns import Turns
from realize.config import Right
from realize.store.server.responders import DirectoryResponders
from realize.values import SPAN_BYTES, SPANS_AHEAD, Version
from realize.wire import commands, packing
from realize.wire.boxes import data_head, data_tail, encode
from realize.wire.inbound_stream import MAX_NARROW_BYTES
from realize.wire.send_queue import MAX_UNSENT_BYTES
from tests.loopback import Raw
from tests.memory_store import MemoryStore

VERSION = packing.VERSIONS.pack([Version(1, 2, 3, 4, 5)])
HOSTILE_NAMES = [
    b"",
    b"/etc/passwd",
    b"..",
    b"../x",
    b"a/../../x",
    b"a/./b",
    b"a//b",
    b"a/",
    b"a\0b",
    b"x" * 5000,
    b"/" * 300,
]
HELLO = {b"major": b"%d" % commands.MAJOR, b"minor": b"0", b"software": b"evil", b"capabilities": b"", b"run": b""}


MOST_READING = 2


class Evil(Raw):
    """A hand-made client of a server with one directory."""

    def __init__(self, rights=frozenset(Right)):
        self.memory = MemoryStore({b"f": b"12345", b"g": b"x" * 100_000})
        self.turns = Turns(99, MOST_READING)
        self.responders = None
        self.asked = 0

        def welcome(protocol, greeting):
            self.responders = DirectoryResponders(
                protocol,
                key=b"evil's key",
                rights={"inbox": rights},
                make_store=lambda directory, base, origin, backup_dir: self.memory,
                turns_of=lambda directory: partial(self.turns.run, "evil"),
                log=self.log,
            )
            protocol.serve(self.responders)
            return "evil"

        super().__init__(Clock(), welcome=welcome)

    def ask(self, command, **arguments):
        """Send a command of any form; its answer, or None if the connection ended."""
        self.asked += 1
        tag = b"%d" % self.asked
        box = {b"_command": command.encode(), b"_ask": tag, **{key.encode(): value for key, value in arguments.items()}}
        self.received.clear()
        self.send(encode(box))
        for answer in parseString(bytes(self.received)):
            if tag in {answer.get(b"_answer"), answer.get(b"_error")}:
                return answer
        return None

    def code(self, command, **arguments):
        """The error code of the answer, "ok", or "closed"."""
        answer = self.ask(command, **arguments)
        if answer is None:
            return "closed" if self.lost is not None else "nothing"
        return answer[b"_error_code"].decode() if b"_error" in answer else "ok"

    def hello(self):
        """Get in."""
        assert "ok" == self.code("Hello", **{key.decode(): value for key, value in HELLO.items()})
        return self

    def opened(self):
        """Get in, and open the directory as handle 1."""
        self.hello()
        assert "ok" == self.code("OpenDirectory", handle=b"1", directory=b"inbox", base=b"", salt=b"s")
        return self

    def open_write(self, stream=b"1", size=b"10", path=b"new"):
        """Open a stream to write."""
        return self.code("OpenWrite", handle=b"1", stream=stream, path=path, size=size, policy=b"replace")

    def still_answered(self):
        """What becomes of a command that anybody may send, and that changes nothing."""
        return self.code("EndWalk", listing=b"0")

    def check(self):
        """The end of every test: nothing is an error of ours, nothing is left."""
        if self.lost is None:
            self.wire.cut()
        self.flush()
        assert [] == self.log.errors()
        assert 0 == (self.responders.open_count if self.responders else 0)
        assert [] == self.clock.getDelayedCalls()


@pytest.fixture
def evil():
    """A client that is in."""
    made = Evil().opened()
    yield made
    made.check()


@pytest.fixture
def stranger():
    """A client that has not said Hello."""
    made = Evil()
    yield made
    made.check()


def data(stream, content):
    """A Data box."""
    return data_head(len(content)) + content + data_tail(stream)


STRICT = {"lenient": b"0", "numeric": b"False"}


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: repr(name[:20]))
def test_hostile_names_are_refused_by_every_command(evil, name):
    """No command does anything with a name that may not be."""
    paths = packing.PATHS.pack([name])
    head = packing.SMALL_HEADS.pack([packing.SmallHead(name, 0, bytes(32), None)])
    link = packing.SYMLINKS.pack([packing.Symlink(name, b"x", None)])
    expected = packing.EXPECTED_FILES.pack([packing.Expected(name, 0, bytes(32))])
    removal = packing.REMOVALS.pack([packing.Removal(name, Version(1, 2, 3, 4, 5))])
    before = dict(evil.memory.files)

    for command, answer, codec, arguments in (
        ("Describe", b"found", packing.FOUND, {"paths": paths}),
        ("Forbidden", b"forbidden", packing.FORBIDDEN_FILES, {"paths": paths, "use": b"put"}),
        ("ReadSmall", b"heads", packing.FETCHED, {"stream": b"1", "paths": paths}),
        ("PutSmall", b"outcomes", packing.OUTCOMES, {"stream": b"3", "policy": b"replace", "heads": head}),
        ("ReadLinks", b"links", packing.FOUND_LINKS, {"paths": paths}),
        ("ReadExtras", b"found", packing.FOUND_EXTRAS, {"paths": paths, "wanted": b"4", **STRICT}),
        ("PutLinks", b"outcomes", packing.LINK_OUTCOMES, {"policy": b"replace", "links": link}),
        ("Settle", b"settled", packing.SETTLED, {"expected": expected}),
        ("Remove", b"removed", packing.REMOVED, {"removals": removal}),
    ):
        (item,) = codec.unpack(evil.ask(command, handle=b"1", **arguments)[answer])
        assert b"BAD_NAME" == item.wire_code
    assert "BAD_NAME" == evil.code("MatchFinal", handle=b"1", path=name, size=b"1", offset=b"0", digests=bytes(32))
    assert "BAD_NAME" == evil.open_write(stream=b"5", path=name)
    assert "BAD_NAME" == evil.code("OpenRead", handle=b"1", stream=b"7", path=name)
    assert before == evil.memory.files
    assert 0 == len(evil.server.streams)


@pytest.mark.parametrize(
    "command", [command.__name__ for command in commands.every_command() if command is not commands.Hello]
)
def test_nothing_is_answered_before_hello(stranger, command):
    """Any other command closes the connection."""
    assert "closed" == stranger.code(command)
    assert 1 == len(stranger.log.named("protocol_violation"))


@pytest.mark.parametrize(
    "raw",
    [
        b"\0\0",
        b"\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        encode({b"_answer": b"1"}),
        encode({b"_error": b"1"}),
        encode({b"_error": b"1", b"_error_code": b"X", b"_error_description": b"x"}),
        encode({b"x": b"y"}),
        encode({b"_command": b"Hello", **HELLO}),
        data(1, b"x"),
        encode({b"k": bytes(9000)}),
    ],
    ids=["empty", "key", "http", "answer", "bare error", "error", "none", "one-way hello", "data", "big"],
)
def test_strangers_who_send_rubbish_are_cut_off(stranger, raw):
    """Malformed, unexpected or big boxes end the connection before Hello."""
    stranger.send(raw)

    assert stranger.lost is not None
    assert 1 == len(stranger.log.named("protocol_violation"))


@pytest.mark.parametrize(
    "raw",
    [
        encode({b"_answer": b"1"}),
        encode({b"_error": b"1"}),
        encode({b"x": b"y"}),
        b"\0\0",
        b"\1\1",
        data(1, b"x"),
        data(2, b"x"),
        data(0, b"x"),
        encode({b"_command": b"Credit", b"stream": b"1", b"amount": b"0"}),
        encode({b"_command": b"Credit", b"stream": b"99", b"amount": b"5"}),
        encode({b"_command": b"Credit", b"stream": b"99"}),
        encode({b"_command": b"Goodbye", b"reason": b"bored"}),
        encode({b"_command": b"StopStream", b"stream": b"1", b"code": b"X", b"description": b"\xff"}),
        b"".join(encode({b"%d" % key: bytes(65_535)})[:-2] for key in range(5)),
    ],
)
def test_peers_who_break_the_protocol_are_cut_off(evil, raw):
    """A box that cannot be answered ends the connection."""
    evil.send(raw)

    assert evil.lost is not None
    assert 1 == len(evil.log.named("protocol_violation"))


@pytest.mark.parametrize("name", ["StartTLS", "Nothing", "amp_", "_hello", "\x00", "ProtocolSwitch"])
def test_unknown_commands_are_answered(evil, name):
    """Also those that AMP itself would know."""
    assert "UNHANDLED" == evil.code(name)
    assert "ok" == evil.still_answered()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("OpenDirectory", {"handle": b"-1", "directory": b"inbox", "base": b"", "salt": b""}),
        ("OpenDirectory", {"handle": b"9" * 4000, "directory": b"inbox", "base": b"", "salt": b""}),
        ("OpenDirectory", {"handle": b"4294967296", "directory": b"inbox", "base": b"", "salt": b""}),
        ("OpenDirectory", {"handle": b"2", "directory": b"\xff", "base": b"", "salt": b""}),
        ("OpenDirectory", {"handle": b"2", "directory": b"inbox", "base": bytes(5000), "salt": b""}),
        ("OpenDirectory", {"handle": b"1", "directory": b"inbox", "base": b"", "salt": b""}),
        ("OpenDirectory", {"handle": b"2"}),
        ("Describe", {"handle": b"7", "paths": b""}),
        ("Describe", {"handle": b"1", "paths": b"\xff"}),
        ("Describe", {"handle": b"1", "paths": b"\0\0" * 300}),
        ("PutSmall", {"handle": b"1", "stream": b"2", "policy": b"replace", "heads": b""}),
        ("PutSmall", {"handle": b"1", "stream": b"1", "policy": b"destroy", "heads": b""}),
        ("PutSmall", {"handle": b"9", "stream": b"1", "policy": b"replace", "heads": b""}),
        ("ReadSmall", {"handle": b"1", "stream": b"0", "paths": b""}),
        ("ReadLinks", {"handle": b"1", "paths": b"\xff"}),
        ("ReadExtras", {"handle": b"1", "paths": b"\0\1f", "wanted": b"64", **STRICT}),
        ("Foresee", {"handle": b"1", "paths": b"\0\1f", "extras": b"\0"}),
        ("Foresee", {"handle": b"1", "paths": b"\0\1f", "extras": b""}),
        ("Foresee", {"handle": b"1", "paths": b"\0\1f", "extras": b"\1\0\0"}),
        ("Foresee", {"handle": b"1", "paths": b"\0\1f", "extras": b"\x20\x40\0"}),
        ("Foresee", {"handle": b"1", "paths": b"\0\1f", "extras": b"\x22\0\0\xff\xff" + bytes(9)}),
        ("MakeDirectories", {"handle": b"1", "directories": b"", "extras": b"\x20\0\0"}),
        ("Settle", {"handle": b"1", "expected": b"", "attributes": b"", "extras": b"\x20\0\0"}),
        ("PutLinks", {"handle": b"1", "policy": b"replace", "links": b"\0\x10\0" + b"x" * 4096 + b"\0\1l"}),
        ("PutLinks", {"handle": b"1", "policy": b"replace", "links": b"\2"}),
        ("PutLinks", {"handle": b"1", "policy": b"replace", "links": b"\0\0\1x\0\1l" * 257}),
        ("OpenWrite", {"handle": b"1", "stream": b"1", "path": b"f", "size": b"-5", "policy": b"replace"}),
        ("OpenWrite", {"handle": b"1", "stream": b"1", "path": b"f", "size": b"1" * 20, "policy": b"replace"}),
        ("OpenWrite", {"handle": b"1", "stream": b"2", "path": b"f", "size": b"5", "policy": b"replace"}),
        ("OpenRead", {"handle": b"1", "stream": b"0", "path": b"f"}),
        ("Walk", {"handle": b"1", "listing": b"1", "partials": b"maybe", "avoid": b""}),
        ("MatchFinal", {"handle": b"1", "path": b"f", "size": b"1", "offset": b"2", "digests": b""}),
        ("MatchFinal", {"handle": b"1", "path": b"f", "size": b"1", "offset": b"0", "digests": b"short"}),
        ("MatchPartial", {"stream": b"5", "digests": b"", "length": b"0"}),
        ("OfferChunks", {"stream": b"5", "chunks": b""}),
        ("CutSpan", {"stream": b"5"}),
        ("PickChunks", {"stream": b"5", "wanted": b""}),
        ("CommitStream", {"stream": b"5", "digest": bytes(32), "attributes": b"\0"}),
        ("CommitStream", {"stream": b"5", "digest": b"short", "attributes": b"\0"}),
        ("BlockDigests", {"stream": b"5", "length": b"0"}),
        ("SkipBlocks", {"stream": b"5", "length": b"0"}),
        ("StartRead", {"stream": b"5"}),
        ("EndRead", {"stream": b"5"}),
        ("CloseDirectory", {"handle": b"9"}),
        ("Hello", {key.decode(): value for key, value in HELLO.items()}),
    ],
)
def test_wrong_arguments_are_answered(evil, command, arguments):
    """Numbers, texts, packs, handles and streams that may not be are a declared error; the connection stays."""
    assert "PROTOCOL" == evil.code(command, **arguments)
    assert [command] == [line["command"] for line in evil.log.named("command_wrong")]
    assert "ok" == evil.still_answered()


def test_streams_are_of_one_kind(evil):
    """A stream that is written cannot be read, nor the other way round."""
    assert "ok" == evil.open_write(stream=b"1")
    assert "ok" == evil.code("OpenRead", handle=b"1", stream=b"3", path=b"g")

    assert "PROTOCOL" == evil.code("StartRead", stream=b"1")
    assert "PROTOCOL" == evil.code("CommitStream", stream=b"3", digest=bytes(32), attributes=b"\0")
    assert "ok" == evil.code("AbandonStream", stream=b"3", keep=b"True")
    assert "ok" == evil.code("CloseStream", stream=b"1")
    assert "PROTOCOL" == evil.open_write(stream=b"1", path=b"other")


def heads(*sizes):
    """The heads of files of these sizes."""
    return packing.SMALL_HEADS.pack(
        [packing.SmallHead(b"s%d" % number, size, bytes(32), None) for number, size in enumerate(sizes)]
    )


OPENING = {
    "OpenRead": {"handle": b"1", "path": b"f"},
    "OpenWrite": {"handle": b"1", "path": b"new", "size": b"5", "policy": b"replace"},
    "PutSmall": {"handle": b"1", "policy": b"replace", "heads": heads(5)},
    "ReadSmall": {"handle": b"1", "paths": b"\0\1f"},
}


def spoilt(argument):
    """The commands that open a stream and have this argument, with a value that cannot be parsed."""
    return [(name, {**right, argument: b"?"}) for name, right in OPENING.items() if argument in right]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [*spoilt("handle"), *spoilt("size"), *spoilt("policy"), *spoilt("heads"), *spoilt("paths")]
    + [(name, {**right, "handle": b"9"}) for name, right in OPENING.items()]
    + [(name, {key: value for key, value in right.items() if key != "handle"}) for name, right in OPENING.items()],
)
def test_the_number_of_a_stream_is_used_up_whatever_is_wrong(evil, command, arguments):
    """What follows the command, before its sender can know that it was refused, belongs to a stream that is closed."""
    code = evil.code(command, stream=b"5", **arguments)
    evil.send(data(5, b"12345") + encode({b"_command": b"Credit", b"stream": b"5", b"amount": b"9"}))

    assert "PROTOCOL" == code
    assert evil.lost is None
    assert "PROTOCOL" == evil.code(command, stream=b"5", **OPENING[command])
    assert "ok" == evil.open_write(stream=b"7")


@pytest.mark.parametrize("number", [b"-1", b"", b"9" * 19, b"4294967297", b"6"])
def test_a_number_that_may_not_be_is_not_used_up(evil, number):
    """It stands for no stream, and later ones can be opened."""
    assert "PROTOCOL" == evil.code("PutSmall", stream=number, **OPENING["PutSmall"])
    assert "ok" == evil.open_write(stream=b"1")


def test_the_content_of_a_batch_too_many_is_let_pass(evil):
    """As many commands are in progress as may be, so it is refused before it is looked at."""
    evil.memory.describe = lambda paths: Deferred()
    for _ in range(commands.MAX_RUNNING_COMMANDS):
        evil.code("Describe", handle=b"1", paths=b"")
    code = evil.code("PutSmall", stream=b"1", **OPENING["PutSmall"])
    evil.send(data(1, b"12345"))

    assert ("BUSY", None) == (code, evil.lost)


@pytest.mark.parametrize("end", ["CommitStream", "AbandonStream"])
def test_a_stream_is_closed_whatever_the_answer_to_its_last_command(evil, end):
    """What has arrived is kept, and may be gone on with at once."""
    assert "ok" == evil.open_write()
    evil.send(data(1, b"12345"))
    code = evil.code(end, stream=b"1", digest=b"short", keep=b"maybe", attributes=b"\0")

    assert "PROTOCOL" == code
    assert 0 == len(evil.server.streams)
    assert b"5" == evil.ask("OpenWrite", stream=b"3", **{**OPENING["OpenWrite"], "size": b"10"})[b"have"]


def test_a_stream_that_was_to_be_closed_is_closed_though_too_much_is_in_progress(evil):
    """Nobody has to ask again for what he no longer wants."""
    assert "ok" == evil.code("OpenRead", stream=b"1", **OPENING["OpenRead"])
    evil.memory.describe = lambda paths: Deferred()
    for _ in range(commands.MAX_RUNNING_COMMANDS):
        evil.code("Describe", handle=b"1", paths=b"")
    code = evil.code("CloseStream", stream=b"1")

    assert ("BUSY", 0) == (code, len(evil.server.streams))


def test_a_batch_that_is_too_large_is_refused(evil):
    """What it announces is not waited for, and content that was under way is let pass."""
    batch = heads(*[1 << 31] * 3)
    code = evil.code("PutSmall", handle=b"1", stream=b"1", policy=b"replace", heads=batch)
    evil.send(data(1, bytes(60_000)))

    assert "PROTOCOL" == code
    assert "ok" == evil.still_answered()
    assert 0 == len(evil.server.streams)


def test_the_content_of_a_batch_that_is_denied_is_let_pass():
    """It follows the command before anybody can know that the right is missing."""
    evil = Evil(frozenset({Right.READ})).opened()
    code = evil.code("PutSmall", handle=b"1", stream=b"1", policy=b"replace", heads=heads(5))
    evil.send(data(1, b"12345"))

    assert "DENIED" == code
    assert "ok" == evil.still_answered()
    evil.check()


def test_content_past_the_size_of_a_batch_is_cut_off(evil):
    """A batch is no more than its heads say."""
    assert "nothing" == evil.code("PutSmall", handle=b"1", stream=b"1", policy=b"replace", heads=heads(2, 1))
    evil.send(data(1, b"1234"))

    assert evil.lost is not None
    assert {b"f", b"g"} == set(evil.memory.files)


def test_a_batch_whose_content_never_comes_ends_with_the_connection(evil):
    """Nothing of it is written, and nothing is left of it."""
    assert "nothing" == evil.code("PutSmall", handle=b"1", stream=b"1", policy=b"replace", heads=heads(20_000, 1))
    evil.send(data(1, bytes(20_000)))
    evil.wire.cut()
    evil.flush()

    assert {b"f", b"g"} == set(evil.memory.files)
    assert 0 == evil.server.running


def test_a_batch_for_a_directory_that_was_closed_meanwhile_is_not_written(evil):
    """Its content comes after the handle was given back."""
    assert "nothing" == evil.code("PutSmall", handle=b"1", stream=b"1", policy=b"replace", heads=heads(1))
    assert "ok" == evil.code("CloseDirectory", handle=b"1")
    evil.send(data(1, b"1"))

    assert {b"f", b"g"} == set(evil.memory.files)
    assert "ok" == evil.still_answered()


def test_content_past_the_size_is_cut_off(evil):
    """More than was announced never reaches the disk; what came before stays a partial."""
    assert "ok" == evil.open_write(size=b"3")
    evil.send(data(1, b"12") + data(1, b"34"))

    assert evil.lost is not None
    assert b"new" not in evil.memory.files


def test_content_past_the_credit_is_cut_off(evil):
    """More than was promised is not buffered."""
    stuck = Deferred()
    assert "ok" == evil.open_write(size=b"%d" % (10 * MAX_NARROW_BYTES))
    evil.responders._writes[1][1]._writer.write = lambda pieces: stuck
    for _ in range(MAX_NARROW_BYTES // 65_535):
        evil.send(data(1, bytes(65_535)))
    before = evil.lost
    evil.send(data(1, bytes(65_535)))
    stuck.callback(None)

    assert before is None
    assert evil.lost is not None


def test_content_for_a_stream_that_is_read_is_cut_off(evil):
    """Content flows one way."""
    assert "ok" == evil.code("OpenRead", handle=b"1", stream=b"1", path=b"g")
    evil.send(data(1, b"x"))

    assert evil.lost is not None


def test_matching_is_bounded(evil):
    """Digests must belong to the length, and the length to the partial."""
    evil.memory.plant_partial(b"new", b"12345")
    assert "ok" == evil.open_write(size=b"10")

    for digests, length in ((b"", b"5"), (bytes(64), b"5"), (bytes(32), b"6"), (bytes(32), b"9223372036854775807")):
        assert "PROTOCOL" == evil.code("MatchPartial", stream=b"1", digests=digests, length=length)
    evil.send(data(1, b"1234567890"))
    assert "PROTOCOL" == evil.code("MatchPartial", stream=b"1", digests=bytes(32), length=b"5")


def test_batches_that_wait_for_the_disk_are_bounded(evil):
    """A batch is in memory until it is answered, and so long its stream counts."""
    hanging = []

    def put_small(*_):
        hanging.append(Deferred())
        return hanging[-1]

    evil.memory.put_small = put_small

    def put(number):
        head = packing.SMALL_HEADS.pack([packing.SmallHead(b"f", 1, bytes(32), None)])
        code = evil.code("PutSmall", handle=b"1", stream=b"%d" % number, policy=b"replace", heads=head)
        evil.send(data(number, b"x"))
        return code

    codes = [put(2 * number + 1) for number in range(commands.MAX_STREAMS + 1)]

    assert ["nothing"] * commands.MAX_STREAMS + ["BUSY"] == codes


def test_offers_are_bounded(evil):
    """Chunks must be some, and fit the file together; none come behind content that nobody wanted."""
    assert "ok" == evil.open_write(size=b"10000")
    offer = (5000).to_bytes(2, "big") + bytes(16)

    for chunks in (bytes(18), offer[:-1], offer * 3, offer * 2049):
        assert "PROTOCOL" == evil.code("OfferChunks", stream=b"1", chunks=chunks)
    assert "ok" == evil.code("OfferChunks", stream=b"1", chunks=offer)
    assert "PROTOCOL" == evil.code("OfferChunks", stream=b"1", chunks=offer * 2)
    evil.send(data(1, bytes(5001)))
    assert "PROTOCOL" == evil.code("OfferChunks", stream=b"1", chunks=(4999).to_bytes(2, "big") + bytes(16))
    assert "PROTOCOL" == evil.code("MatchPartial", stream=b"1", digests=b"", length=b"0")


def test_cutting_is_bounded(evil):
    """A few spans ahead of what is picked, and none once content flows; picks must fit what was cut."""
    evil.memory.plant(b"large", bytes(SPAN_BYTES * 9))
    assert "ok" == evil.code("OpenRead", handle=b"1", stream=b"1", path=b"large")

    assert "PROTOCOL" == evil.code("PickChunks", stream=b"1", wanted=b"")
    for _ in range(SPANS_AHEAD):
        assert "ok" == evil.code("CutSpan", stream=b"1")
    assert "PROTOCOL" == evil.code("CutSpan", stream=b"1")
    assert "PROTOCOL" == evil.code("PickChunks", stream=b"1", wanted=b"\xff")
    assert "ok" == evil.code("StartRead", stream=b"1")
    assert "PROTOCOL" == evil.code("CutSpan", stream=b"1")
    assert "PROTOCOL" == evil.code("PickChunks", stream=b"1", wanted=b"")


def test_reading_is_bounded(evil):
    """Blocks beyond the end, and a second start or end, are refused."""
    assert "ok" == evil.code("OpenRead", handle=b"1", stream=b"1", path=b"f")

    assert "PROTOCOL" == evil.code("EndRead", stream=b"1")
    assert "PROTOCOL" == evil.code("BlockDigests", stream=b"1", length=b"6")
    assert "PROTOCOL" == evil.code("SkipBlocks", stream=b"1", length=b"6")
    assert "ok" == evil.code("StartRead", stream=b"1")
    assert "PROTOCOL" == evil.code("StartRead", stream=b"1")
    assert "nothing" == evil.code("EndRead", stream=b"1")
    assert "PROTOCOL" == evil.code("EndRead", stream=b"1")
    assert "PROTOCOL" == evil.code("SkipBlocks", stream=b"1", length=b"1")


def test_a_wrong_digest_leaves_nothing_that_looks_whole(evil):
    """Content that does not verify never gets its name."""
    assert "ok" == evil.open_write(size=b"3")
    evil.send(data(1, b"123"))

    assert "VERIFY" == evil.code("CommitStream", stream=b"1", digest=bytes(32), attributes=b"\0")
    assert b"new" not in evil.memory.files


def test_a_stream_is_committed_once(evil):
    """Two commits at once have one outcome."""
    assert "ok" == evil.open_write(size=b"0")
    commit = {b"_command": b"CommitStream", b"stream": b"1", b"digest": bytes(32), b"attributes": b"\0"}
    evil.received.clear()
    evil.send(encode({**commit, b"_ask": b"x"}) + encode({**commit, b"_ask": b"y"}))

    assert {b"x", b"y"} == {box[b"_error"] for box in parseString(bytes(evil.received)) if b"_error" in box}


@pytest.mark.parametrize(
    ("command", "limit"),
    [("OpenDirectory", commands.MAX_HANDLES), ("OpenRead", commands.MAX_STREAMS), ("Walk", commands.MAX_LISTINGS)],
)
def test_what_may_be_open_is_limited(evil, command, limit):
    """Beyond the limit the answer is BUSY."""
    common = {"handle": b"1", "path": b"g", "partials": b"False", "avoid": b"", "directory": b"inbox", "base": b""}
    codes = []
    for number in range(2, limit + 4):
        numbers = {"listing": b"%d" % number, "stream": b"%d" % (2 * number + 1), "salt": b""}
        if command == "OpenDirectory":
            numbers["handle"] = b"%d" % number
        codes.append(evil.code(command, **{**common, **numbers}))

    assert {"ok", "BUSY"} == set(codes)
    assert limit >= codes.count("ok") >= limit - 1


def test_who_does_not_read_answers_is_cut_off(evil):
    """A flood of commands cannot fill our memory with answers."""
    evil.server_wire.stalled = True
    big = packing.PATHS.pack([b"f"] * 200)
    ask = encode({b"_command": b"Describe", b"_ask": b"1", b"handle": b"1", b"paths": big})
    for _ in range(20 * MAX_UNSENT_BYTES // 15_000):
        if evil.server.lost:
            break
        evil.wire.write(ask)
        evil.flush()

    assert evil.server.lost
    assert len(evil.server_wire.backlog) < 2 * MAX_UNSENT_BYTES


def test_a_flood_of_comparisons_leaves_threads_to_others(evil):
    """Commands that read much take turns, two at a time; a stream that was closed meanwhile is not read any more."""
    begun = []

    def slow(expected):
        begun.append(Deferred())
        return begun[-1]

    evil.memory.settle = slow
    ask = {b"_command": b"Settle", b"handle": b"1", b"expected": b""}
    evil.send(b"".join(encode({**ask, b"_ask": b"s%d" % number}) for number in range(50)))
    at_once = len(begun)
    begun[0].callback([])
    evil.flush()
    after_one = len(begun)
    evil.wire.cut()
    for deferred in begun[1:]:
        deferred.callback([])
    evil.flush()

    assert MOST_READING == at_once
    assert MOST_READING + 1 == after_one == len(begun)


def test_a_handle_that_is_being_opened_cannot_be_closed(evil):
    """Nor can its number be used for another directory, which would lose the first."""
    opening = Deferred()
    real, evil.memory.open = evil.memory.open, lambda *_: opening
    ask = {b"_command": b"OpenDirectory", b"handle": b"2", b"directory": b"inbox", b"base": b"", b"salt": b""}
    evil.send(encode({**ask, b"_ask": b"slow"}))

    assert "PROTOCOL" == evil.code("CloseDirectory", handle=b"2")
    assert "PROTOCOL" == evil.code("OpenDirectory", handle=b"2", directory=b"inbox", base=b"", salt=b"")
    real(b"").chainDeferred(opening)
    evil.flush()
    assert "ok" == evil.code("CloseDirectory", handle=b"2")


def test_a_stream_that_was_refused_for_the_limit_has_existed(evil):
    """What still comes for it is late, not wrong."""
    codes = [
        evil.code("OpenRead", handle=b"1", stream=b"%d" % number, path=b"g")
        for number in range(1, 2 * commands.MAX_STREAMS + 2, 2)
    ]
    evil.send(encode({b"_command": b"Credit", b"stream": b"%d" % (2 * commands.MAX_STREAMS + 1), b"amount": b"5"}))

    assert "BUSY" == codes[-1]
    assert evil.lost is None
    assert "PROTOCOL" == evil.code("OpenRead", handle=b"1", stream=b"%d" % (2 * commands.MAX_STREAMS + 1), path=b"g")


def test_an_error_text_may_not_forge(evil):
    """What a peer sends appears escaped, wherever it is shown."""
    answer = evil.ask("OpenDirectory", handle=b"5", directory=b"x\nlevel=error forged", base=b"", salt=b"")

    assert b"\n" not in answer[b"_error_description"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([command.__name__ for command in commands.every_command()] + ["X"]),
            st.dictionaries(
                st.sampled_from(
                    sorted({name for command in commands.every_command() for name, _ in command.arguments})
                ),
                st.binary(max_size=40) | st.sampled_from([b"1", b"3", b"f", b"True", b"replace", bytes(32), VERSION]),
            ),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_any_sequence_of_commands_ends_well(sequence):
    """Random commands with random arguments, with and without a wish for an answer, are never our fault."""
    evil = Evil().opened()
    for number, (command, arguments, ask) in enumerate(sequence):
        box = {**arguments, b"_command": command.encode(), **({b"_ask": b"r%d" % number} if ask else {})}
        evil.send(encode(box))
    evil.check()
