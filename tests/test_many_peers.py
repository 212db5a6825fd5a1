"""A daemon with very many peers: one costs no more for the others, and those that are gone are forgotten."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import socket
from collections import deque

import pytest
from prometheus_client import generate_latest
from twisted.internet.task import Clock

from realize.concurrency.memory import Memory
from realize.daemon.expiry import Housekeeping, Partials
from realize.daemon.metrics.counters import Metrics
from realize.errors import NotFound
from realize.telemetry.logging.limiting import LIMIT_WINDOW_S, MIN_WINDOWS, Limiter, _Window
from realize.throttle.backlog import Backlog
from realize.throttle.scheduler import BUSY_BYTES, PINGS_BYTES
from realize.throttle.tree import Scope, ThrottleTree
from realize.values import Committed
from realize.wire import server
from realize.wire.boxes import encode
from realize.wire.commands import Ping
from realize.wire.connection import Greeting
from realize.wire.server import MIN_READ_BYTES, PeerServerFactory, turn
from realize.wire.traffic import Traffic
from tests.loopback import Log, Pair, Raw
from tests.processes import Site, wait_for


class Reading:
    """The turns of a connection; remembers what it was told."""

    def __init__(self):
        self.told = []

    @property
    def sharing(self):
        """The last that it was told."""
        return self.told[-1]

    @sharing.setter
    def sharing(self, connections):
        self.told.append(connections)


class Connection:
    """A connection that has said Hello."""

    goodbye = None
    bytes_received = bytes_sent = 0
    transport = None

    def __init__(self, name):
        self.name = name
        self.log = Log()
        self.reading = Reading()

    def traffic(self):
        """None so far."""
        return Traffic()


def test_a_ping_is_what_amp_would_send_and_is_counted_as_any_command():
    """Idle connections send and receive nothing else, so AMP has no part in it; before Hello it is still refused."""
    pair, raw, watched = Pair(Clock()).introduced(), Raw(Clock()), []
    pair.server.watch = lambda name: lambda outcome: watched.append((name, outcome))
    sent = []
    pair.client.transport.write = sent.append
    pair.client.tell(Ping)
    pair.client._ping()
    pair.server.dataReceived(b"".join(sent))
    raw.send(sent[0])

    assert sent[0] == sent[1]
    assert [("Ping", "OK")] * 2 == watched
    assert raw.lost is not None


def test_a_ping_is_one_wherever_the_wire_has_cut_it():
    """Alone, in two pieces, or two in one; what only looks like one, in the middle of another box, is none."""
    raw, watched = Raw(Clock()), []
    raw.server.theirs = raw.server.greeting
    raw.server.watch = lambda name: lambda outcome: watched.append((name, outcome))
    ping = encode({b"_command": b"Ping"})
    box = encode({b"_ask": b"7", b"_command": b"Ping", b"more": ping})
    start = box.index(ping)
    counts = []
    for pieces in ([ping], [ping[:5], ping[5:]], [ping * 2], [box[:start], ping, box[start + len(ping) :]]):
        for piece in pieces:
            raw.send(piece)
        counts.append(len(watched))

    assert [1, 2, 4, 5] == counts
    assert {("Ping", "OK")} == set(watched)
    assert encode({b"_answer": b"7"}) == bytes(raw.received)


def test_a_ping_with_more_in_it_is_no_violation():
    """A newer peer may add something; and one that wants an answer gets it, as of any command."""
    raw = Raw(Clock())
    raw.server.theirs = raw.server.greeting
    raw.send(encode({b"_command": b"Ping", b"more": b"1"}) + encode({b"_command": b"Ping", b"_ask": b"7"}))

    assert encode({b"_answer": b"7"}) == bytes(raw.received)


def test_an_idle_connection_has_no_queues():
    """An empty deque takes 760 bytes, of which each connection had six; none comes back after it was of use."""
    pair, memory, backlog = Pair(Clock()).introduced(), Memory(100, 100), Backlog()
    share = memory.of("camera")
    full, wanted = share.claim(), share.claim()
    full.force(100)
    wanted.grow(5 << 20)
    waiting = share.waiting
    full.release()
    backlog.put(b"12345")
    taken = backlog.take(5)

    assert (1, 0, b"12345", b"") == (waiting, share.waiting, taken, backlog.take(5))
    server = pair.server
    of_connection = (server.sending, server.reading, server.round_trip, server.compression, server.compression._rate)
    for each in (*of_connection, share, backlog):
        assert deque not in map(type, gc.get_referents(each))


@pytest.fixture
def factory():
    """The accepting side, with nobody connected."""
    return PeerServerFactory(
        clock=Clock(), log=Log(), identities=[], greeting=Greeting("d"), known=dict, welcome=lambda *_: None
    )


def admitted(factory, *names):
    """Connections of those peers, one after the other."""
    connections = [Connection(name) for name in names]
    for each in connections:
        factory.joined(each, each.name)
    return connections


def test_who_comes_or_goes_is_nothing_to_the_connections_of_others(factory):
    """Only those of the same peer have smaller and larger turns by it."""
    first, second, other = admitted(factory, "camera", "camera", "nas")
    factory.left(second)

    assert ([1, 2, 1], [2], [1]) == (first.reading.told, second.reading.told, other.reading.told)
    assert {"camera": {first}, "nas": {other}} == factory.connections


def test_many_connections_read_less_at_once(factory, monkeypatch):
    """All of them, also those that were there before; but no less than is worth while."""
    reads = {}
    monkeypatch.setattr(server, "read_at_once", lambda transport, amount: reads.update({transport: amount}))
    connections = admitted(factory, *map(str, range(200)))
    for number, each in enumerate(connections):
        each.transport = number
    for each in connections[:180]:
        factory.left(each)

    assert {turn(20)} == {reads[number] for number in range(180, 200)}
    assert MIN_READ_BYTES == turn(1000)


def test_the_traffic_of_peers_that_are_gone_is_forgotten(factory):
    """But not that of those that are still configured, nor of connections that never said who they were."""
    for each in admitted(factory, "camera", "nas"):
        factory.left(each)
    factory.left(Connection(""))
    factory.forget_all_but({"nas": None})

    assert {"nas", ""} == factory.traffic().keys()


def test_a_peer_that_a_configuration_names_no_more_has_no_limits():
    """Neither the configured one nor one for a time, whose timer goes along; the service keeps what it has counted."""
    clock = Clock()
    tree = ThrottleTree(clock, peers={"camera": 1000.0, "nas": None})
    flow = tree.attach("camera", "1")
    flow.passed = 500
    flow.leave()
    tree.set_rate(Scope.PEER, "camera", 5.0, 60.0)
    tree.configure(peers={"nas": None})

    assert [("", 500), ("nas", 0)] == [(each.peer, each.sent) for each in tree.snapshot()]
    with pytest.raises(NotFound):
        tree.rate(Scope.PEER, "camera")
    assert [] == clock.getDelayedCalls()


def test_connections_that_send_pings_alone_are_sampled_half_as_often():
    """Very many always have one that pings, and looking at all of them costs more than their pings."""
    clock, samples = Clock(), []
    tree = ThrottleTree(clock, sampled=lambda _: samples.append(clock.seconds()))
    flow = tree.attach("camera", "1")
    for amount in (27, BUSY_BYTES):
        for _ in range(40):
            flow.passed += amount
            clock.advance(0.25)

    quiet = [at for at in samples if at <= 10]
    assert (10, 20) == (len(quiet), len(samples) - len(quiet))
    flow.leave()


def test_a_sample_says_whether_anything_but_pings_was_carried():
    """Either way, and also by a flow that is new, or has a limit; what was counted between two samples is not lost."""
    clock, samples = Clock(), []
    tree = ThrottleTree(clock, sampled=samples.append)
    flow, limited = tree.attach("camera", "1"), tree.attach("nas", "2")
    tree.set_rate(Scope.PEER, "nas", 1000.0)
    for sent, received in ((0, 0), (27, 27), (0, PINGS_BYTES + 1), (PINGS_BYTES + 1, 0), (27, 0)):
        flow.passed += sent
        flow.received += received
        tree.snapshot()
        clock.advance(1)
    limited.ask(10)
    clock.advance(1)

    assert [True, False, True, True, False, True] == samples
    tree.close()


def test_a_peer_that_is_gone_keeps_its_limit_while_it_is_connected():
    """Its connections are about to be closed; the next configuration finds none any more."""
    tree = ThrottleTree(Clock(), peers={"camera": 1000.0, "nas": None})
    flow = tree.attach("camera", "1")
    tree.configure(peers={"nas": None})
    connected = {each.name for each in tree.snapshot()}
    flow.leave()
    tree.configure(peers={"nas": None})

    assert {"", "camera", "1", "nas"} == connected
    assert {"", "nas"} == {each.name for each in tree.snapshot()}


def test_a_peer_that_comes_back_to_the_configuration_is_as_new():
    """Also if one of its connections has seen it go and come."""
    tree = ThrottleTree(Clock(), peers={"camera": 1000.0})
    flow = tree.attach("camera", "1")
    tree.configure()
    tree.configure(peers={"camera": 7.0})
    flow.leave()
    tree.configure(peers={"camera": 7.0})

    assert 7.0 == tree.rate(Scope.PEER, "camera")


def test_the_memory_of_a_peer_is_counted_as_long_as_anything_is_held():
    """Whoever has its share, or a claim of it, finds the same; then the peer is forgotten."""
    memory = Memory(1000, 1000)
    claim = memory.of("camera").claim()
    claim.force(10)

    assert 10 == memory.of("camera").held
    claim.release()
    del claim
    gc.collect()
    assert 0 == memory.of("camera").held
    assert 0 == len(memory._shares)


def test_metrics_of_what_is_gone_are_gone():
    """Of peers and of directories alike; those of the others go on where they were."""
    metrics = Metrics(of_process=False)
    metrics.expect(["inbox", "old"], ["camera", "guest"])
    for peer in ("camera", "guest"):
        metrics.accepted(peer)
    for directory in ("inbox", "old"):
        metrics.committed(directory, Committed.CREATED)
    metrics.expect(["inbox"], ["camera"])
    metrics.committed("old", Committed.CREATED)
    text = generate_latest(metrics.registry).decode()

    assert "guest" not in text
    assert '"old"' not in text
    assert 'realize_connections_accepted_total{peer="camera"} 1.0' in text
    assert 'realize_files_committed_total{dir="inbox",how="created"} 1.0' in text


def test_partials_of_directories_that_are_gone_are_forgotten():
    """What was counted of the others stays."""
    housekeeping = Housekeeping(Clock(), Log())
    kept = Partials(files=3)
    housekeeping.partials |= {"inbox": kept, "old": Partials()}
    housekeeping.start({"inbox": None}, 1.0)
    housekeeping.stop()

    assert {"inbox": kept} == housekeeping.partials


def test_the_log_forgets_who_has_long_been_silent():
    """However many peers there were; but not how many records were left out."""
    clock, told = Clock(), []
    limiter = Limiter(clock.seconds, lambda *what: told.append(what), lambda: None)
    limiter._windows["noisy", "camera"] = _Window(LIMIT_WINDOW_S, left_out=9)
    for number in range(20 * MIN_WINDOWS):
        limiter(None, "info", {"event": "peer_accepted", "peer": f"p{number}"})
        clock.advance(LIMIT_WINDOW_S / 100)
    limiter.sweep()

    assert len(limiter._windows) <= MIN_WINDOWS
    assert [("noisy", "camera", 9)] == told


def test_a_daemon_without_a_free_descriptor_says_so_and_goes_on(tmp_path):
    """It closes those who come then; who comes when somebody has gone is let in."""
    site = Site(tmp_path)
    site.start()
    try:
        resource.prlimit(site.daemon.pid, resource.RLIMIT_NOFILE, (30, 30))
        held = [socket.create_connection(("127.0.0.1", site.port), 10) for _ in range(40)]
        with contextlib.suppress(ConnectionError):
            assert b"" == held[-1].recv(1)
        for each in held:
            each.close()
        wait_for(lambda: len(os.listdir(f"/proc/{site.daemon.pid}/fd")) < 25)  # it has noticed that they are gone
        answer = site.realize("status", "hostb")
    finally:
        site.stop()

    assert (0, "") == (answer.returncode, answer.stderr)
    said = [record for record in site.records() if record["event"] == "connection_not_accepted"]
    assert {("error", "all 30 file descriptors are in use")} == {
        (record["level"], record["error"].partition(";")[0]) for record in said
    }
