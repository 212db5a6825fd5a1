"""What a client that vanishes leaves behind in the daemon: nothing.

A real daemon and real sockets, because descriptors, resets and locks are only real there; the time until a silent peer
is noticed is tested with a clock.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import struct
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols.amp import parseString

from realize.errors import Silence
from realize.keys import load_identity
from realize.wire import commands
from realize.wire.boxes import data_head, data_tail, encode
from realize.wire.packing import SMALL_HEADS, SmallHead
from realize.wire.reading import MAX_BOXES_PER_TURN
from tests.loopback import Pair, Raw
from tests.processes import Site, plant

CLIENTS = 200
HELLO = {"major": b"%d" % commands.MAJOR, "minor": b"0", "software": b"killed", "capabilities": b"", "run": b""}
OPEN = {"handle": b"1", "directory": b"inbox", "base": b"", "salt": b"s"}


def box(command, ask=None, **arguments):
    """A command, with a tag if an answer is wanted."""
    head = {b"_command": command.encode(), **({b"_ask": b"%d" % ask} if ask else {})}
    return encode({**head, **{name.encode(): value for name, value in arguments.items()}})


def tls(site):
    """TLS as the command of a site speaks it."""
    identity = load_identity(str(site.folder / "command.key"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    certificate, key = site.folder / "certificate.pem", site.folder / "key.pem"
    certificate.write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context.load_cert_chain(certificate, key)
    return context


def reading(rng):
    """Requests for files and for a listing, with more credit than will ever be used."""
    steps = [box("Walk", 10, handle=b"1", listing=b"1", partials=b"True", avoid=b"")]
    for number in range(rng.randrange(1, 6)):
        stream = b"%d" % (2 * number + 1)
        steps += [
            box("OpenRead", 20 + number, handle=b"1", stream=stream, path=b"large %d" % rng.randrange(3)),
            box("BlockDigests", 30 + number, stream=stream, length=b"1048576"),
            box("StartRead", 40 + number, stream=stream),
            box("EndRead", 50 + number, stream=stream),
            box("Credit", stream=stream, amount=b"%d" % (1 << 26)),
        ]
    return [*steps, box("Walk", 11, handle=b"1", listing=b"1", partials=b"True", avoid=b"")]


def writing(rng):
    """Files on their way, two clients at one name now and then, and content for them."""
    batch = SMALL_HEADS.pack([SmallHead(b"s", 60_000, bytes(32), None)])
    steps = [box("PutSmall", 9, handle=b"1", stream=b"1", policy=b"replace", heads=batch)]
    if rng.random() < 0.7:
        steps.append(data_head(60_000) + bytes(60_000) + data_tail(1))
    for number in range(rng.randrange(1, 6)):
        stream = 2 * number + 3
        name = b"new/%d" % rng.randrange(40)
        steps.append(
            box(
                "OpenWrite", 60 + number, handle=b"1", stream=b"%d" % stream, path=name, size=b"3000000", policy=b"skip"
            )
        )
        # Without having waited for credit: for some it has come already, for the others it is a violation.
        steps += [data_head(60_000) + bytes(60_000) + data_tail(stream)] * rng.randrange(3)
        if rng.random() < 0.3:
            steps.append(box("CommitStream", 80 + number, stream=b"%d" % stream, digest=bytes(32), attributes=b"\0"))
    return steps


async def killed(site, context, seed):
    """A client that does some of its work and whose connection is then reset, without a word."""
    rng = random.Random(seed)
    reset = struct.pack("ii", 1, 0)
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        plain.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(plain, ("127.0.0.1", site.port))
        if rng.random() < 0.1:
            await loop.sock_sendall(plain, rng.randbytes(rng.randrange(3)))
            return
        reader, writer = await asyncio.open_connection(sock=plain, ssl=context, server_hostname="any")
        steps = [box("Hello", 1, **HELLO), box("OpenDirectory", 2, **OPEN), *rng.choice([reading, writing])(rng)]
        with contextlib.suppress(OSError):
            for step in steps[: rng.randrange(len(steps) + 1)]:
                writer.write(step[: rng.randrange(len(step))] if rng.random() < 0.03 else step)
                if rng.random() < 0.6:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1 << 16), rng.random() * 0.05)
        writer.transport.abort()


async def kill_many(site, context):
    """All of them, some at a time."""
    gate = asyncio.Semaphore(24)

    async def one(seed):
        async with gate:
            with contextlib.suppress(OSError):
                await killed(site, context, seed)

    await asyncio.gather(*(one(seed) for seed in range(CLIENTS)))


class Observer:
    """A well-behaved client, by hand."""

    def __init__(self, site, context):
        self._socket = context.wrap_socket(socket.create_connection(("127.0.0.1", site.port), timeout=30))
        self._asked = 0
        self.ask("Hello", **HELLO)
        self.ask("OpenDirectory", **OPEN)

    def ask(self, command, **arguments):
        """Ask, and wait for the answer."""
        self._asked += 1
        self._socket.sendall(box(command, self._asked, **arguments))
        received = b""
        while True:
            received += self._socket.recv(1 << 16)
            with contextlib.suppress(Exception):
                for answer in parseString(received):
                    if b"%d" % self._asked in {answer.get(b"_answer"), answer.get(b"_error")}:
                        return answer

    def close(self):
        """End."""
        self._socket.close()

    def status(self):
        """The daemon's report."""
        return json.loads(self.ask("Status")[b"report"])


def descriptors(site):
    """What the daemon has open."""
    folder = f"/proc/{site.daemon.pid}/fd"
    found = []
    for number in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"{folder}/{number}").partition(":[")[0])
    return sorted(found)


def wait_until(expected, look, seconds=30):
    """The last of what ``look`` answers until it is what is expected."""
    end = time.monotonic() + seconds
    while (seen := look()) != expected and time.monotonic() < end:
        time.sleep(0.05)
    return seen


def test_clients_that_are_killed_leave_nothing_behind(tmp_path):
    """Descriptors, connections, streams and locks are those of an idle daemon again, and its log has no fault."""
    site = Site(tmp_path)
    plant(site.inbox, 5, small=300, large=3, large_size=4 << 20)
    site.start()
    try:
        context = tls(site)
        observer = Observer(site, context)
        before = descriptors(site)
        asyncio.run(kill_many(site, context))

        assert 1 == wait_until(1, lambda: len(observer.status()["connections"]))
        assert [] == wait_until([], lambda: observer.status()["transfers"])
        assert before == wait_until(before, lambda: descriptors(site))
        for number in range(40):
            name = b"new/%d" % number
            stream = b"%d" % (2 * number + 1)
            answer = observer.ask(
                "OpenWrite", handle=b"1", stream=stream, path=name, size=b"3000000", policy=b"replace"
            )
            assert b"_answer" in answer, answer
            observer.ask("AbandonStream", stream=stream, keep=b"False")
        assert not [record for record in site.records() if record.get("level") in {"error", "critical"}]
        assert "Traceback" not in site.log.read_text()
        observer.close()
        site.stop()
        # So many that some are left out of the log, and counted.
        records = site.records()
        accepted = sum(record["event"] == "peer_accepted" for record in records)
        left_out = sum(record["count"] for record in records if record.get("left_out") == "peer_accepted")
        assert accepted + left_out > CLIENTS / 2
    finally:
        site.stop()


@pytest.mark.parametrize(("side", "other"), [("client", "server"), ("server", "client")])
@pytest.mark.parametrize(("waits", "most_s"), [(True, 60), (False, 80)])
def test_a_peer_that_vanishes_is_noticed(side, other, waits, most_s):
    """Nothing arrives any more, no reset, no end: whoever waits is told in a minute, and no timer stays."""
    clock = Clock()
    pair = Pair(clock).introduced()
    lost = []
    getattr(pair, side).when_lost().addCallback(lost.append)
    if waits:
        getattr(pair, other).serve(Mute())
        getattr(pair, side).call(commands.Status).addErrback(lambda _: None)
        pair.flush()
    pair.client_wire.stalled = pair.server_wire.stalled = True
    getattr(pair, other)._keepalive.stop()  # which is gone, and gives up nobody
    since = clock.seconds()
    while not lost and clock.seconds() < since + 200:
        clock.advance(1)

    assert isinstance(lost[0], Silence)
    assert clock.seconds() - since <= most_s
    clock.advance(30)
    assert [] == clock.getDelayedCalls()


class Mute:
    """Takes every command and never answers."""

    def locateResponder(self, name):
        """A responder that is never done."""
        return lambda box: Deferred()


def test_a_peer_that_pings_and_does_not_answer_is_noticed_too():
    """Pings are a sign of life and none of work: an ordinary question has its answer within a minute, or fails."""
    clock = Clock()
    pair = Pair(clock).introduced()
    pair.server.serve(Mute())
    failed = []
    pair.client.call(commands.Status).addErrback(lambda failure: failed.append(failure.value))
    while not failed and clock.seconds() < 200:
        clock.advance(1)

    assert isinstance(failed[0], Silence)
    assert "Status" in str(failed[0])
    assert clock.seconds() <= 61


def test_a_flood_of_small_boxes_takes_turns():
    """So many boxes are done, and what came behind them waits until the others had their turn; nothing is lost."""
    clock = Clock()
    raw = Raw(clock)
    raw.send(box("Hello", 1, **HELLO))
    raw.received.clear()
    for start in (100, 400):
        raw.server.dataReceived(b"".join(box("Nope", number) for number in range(start, start + 300)))
    first = len(parseString(bytes(raw.received))) or raw.server_wire.backlog.count(b"_error_code")
    deaf = raw.server_wire.deaf
    raw.flush()

    assert MAX_BOXES_PER_TURN == first
    assert deaf
    assert not raw.server_wire.deaf
    assert 600 == len(parseString(bytes(raw.received)))


def test_what_waited_for_its_turn_counts_when_the_connection_ends():
    """A Goodbye behind a flood still says why."""
    clock = Clock()
    raw = Raw(clock)
    raw.send(box("Hello", 1, **HELLO))
    raw.server.dataReceived(box("Ping") * 300)
    raw.server.dataReceived(box("Goodbye", reason=b"deadline"))
    raw.wire.cut()

    assert commands.Reason.DEADLINE is raw.server.goodbye
    raw.flush()
    assert [] == clock.getDelayedCalls()
