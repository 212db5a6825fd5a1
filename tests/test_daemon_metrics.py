"""What the daemon counts, and what of that it shows, without processes."""

from __future__ import annotations

import os
import threading
import time

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from realize.concurrency.memory import Memory
from realize.concurrency.thread_pool import ThreadPool
from realize.config import Config, DirectoryConfig, PeerConfig, Right, ThrottleConfig
from realize.daemon.expiry import EXPIRY_INTERVAL_S, FIRST_EXPIRY_S, Housekeeping
from realize.daemon.looks import look_at
from realize.daemon.metrics.counters import Metrics
from realize.daemon.metrics.null_hooks import EventHooks
from realize.daemon.metrics.space import DiskSpaces
from realize.daemon.served import serve_directories
from realize.daemon.service import RealizedService
from realize.errors import AccessDenied, Conflict, ConnectionFailed, NoSpace, NotFound, StorageError, VerifyFailed
from realize.keys import generate_identity
from realize.store import deltas
from realize.store.hooks import CommitHooks, Saved, Sync
from realize.store.local.promised_space import Ledger
from realize.store.server.responders import DirectoryResponders
from realize.telemetry.metrics.lag import LAG_PROBE_INTERVAL_S as PROBED_EVERY
from realize.telemetry.metrics.lag import LagProbe
from realize.units import Reserve
from realize.values import BLOCK_BYTES, Committed, Expected, OnConflict, Removal
from realize.wire import commands
from realize.wire.server import Refusal
from realize.wire.traffic import Traffic
from tests.leftovers import leave_partial
from tests.loopback import Log, Pair
from tests.store_helpers import LARGE_CONTENT, block_digests, small_file
from tests.test_remote_store import Served


class Seen(EventHooks):
    """Remembers what it was told of files."""

    def __init__(self):
        self.told = []

    def committed(self, directory, outcome, files=1):
        self.told.extend([(directory, outcome)] * files)

    def removed(self, directory, files=1):
        self.told.extend([(directory, "removed")] * files)

    def failed(self, directory, error):
        self.told.append((directory, type(error)))

    def saved(self, how, size):
        if size:
            self.told.append((how, size))


@pytest.fixture
def seen(monkeypatch):
    """What every directory that is served tells."""
    seen = Seen()
    original = DirectoryResponders.__init__
    monkeypatch.setattr(
        DirectoryResponders, "__init__", lambda self, *args, **more: original(self, *args, watch=seen, **more)
    )
    return seen


@pytest.fixture
def served(seen):
    """A connection to a served memory store."""
    pair = Served(Clock()).introduced()
    yield pair
    pair.client_wire.cut()


def write(served, store, path, content, *, policy=OnConflict.REPLACE, sent=None, digest=None):
    """Send a file as a stream; what it came to."""

    async def run():
        writer = await store.open_writer(path, len(content), policy)
        have = writer.have
        matched = await writer.match(block_digests(content[:have]), have) if have else 0
        await writer.write([content[matched:] if sent is None else sent])
        return await writer.commit(small_file(path, content).digest if digest is None else digest, None)

    return served.result(run())


def test_files_are_told_of(served, seen):
    """Each file that arrives, is found to be there already, or is removed, with the directory it is in."""
    store = served.opened()
    file = small_file(b"a", b"content")
    served.result(store.put_small([file, small_file(b"b", b"")], OnConflict.REPLACE))
    served.result(store.put_small([file], OnConflict.REPLACE))
    write(served, store, b"large", LARGE_CONTENT)
    assert [
        ("inbox", Committed.CREATED),
        ("inbox", Committed.CREATED),
        ("inbox", Committed.REPLACED),
        ("inbox", Committed.CREATED),
    ] == seen.told
    seen.told.clear()

    served.result(store.settle([Expected(b"a", 7, file.digest), Expected(b"b", 7, file.digest)]))
    served.result(store.match_final(b"large", len(LARGE_CONTENT), 0, block_digests(LARGE_CONTENT)))
    served.result(store.match_final(b"a", 7, 0, block_digests(b"another")))

    assert [(Saved.ALREADY_THERE, 7), (Saved.ALREADY_THERE, len(LARGE_CONTENT))] == seen.told
    seen.told.clear()
    [fetched] = served.result(store.read_small([b"a"]))
    served.result(store.remove([Removal(b"a", fetched.version)]))

    assert [("inbox", "removed")] == seen.told


def test_resumed_bytes_are_told_of(served, seen):
    """What a partial has, or the reader of a file says it has, needs no sending."""
    store = served.opened()

    async def half():
        writer = await store.open_writer(b"large", len(LARGE_CONTENT), OnConflict.REPLACE)
        await writer.write([LARGE_CONTENT[: 2 * BLOCK_BYTES]])
        await writer.abandon(keep=True)

    served.result(half())
    write(served, store, b"large", LARGE_CONTENT)

    async def read(skipped):
        reader = await store.open_reader(b"large")
        await reader.skip(skipped)
        while await reader.read():
            pass
        await reader.finish()
        reader.close()

    served.result(read(BLOCK_BYTES))
    served.result(read(len(LARGE_CONTENT)))

    assert [
        (Saved.RESUME, 2 * BLOCK_BYTES),
        ("inbox", Committed.CREATED),
        (Saved.CLAIMED, BLOCK_BYTES),
        (Saved.CLAIMED, len(LARGE_CONTENT)),
    ] == seen.told


def test_bytes_that_a_delta_saves_are_told_of(served, seen):
    """What the earlier version of a file has needs no sending, neither to the peer nor from it."""
    store = served.opened()
    served.result(store.put_small([small_file(b"f", LARGE_CONTENT[:100_000])], OnConflict.REPLACE))
    seen.told.clear()
    chunks = deltas.cut(LARGE_CONTENT[:100_000])
    there = sum(length for length, _ in chunks)

    async def put():
        await store.describe([b"f"])
        writer = await store.open_writer(b"f", there + 1, OnConflict.REPLACE)
        assert not any(await writer.offer(chunks))
        await writer.write([b"!"])
        await writer.abandon(keep=False)

    async def get():
        reader = await store.open_reader(b"f")
        await reader.pick([False] * len(await reader.cut()))
        await reader.finish()
        reader.close()

    served.result(put())
    served.result(get())

    assert [(Saved.DELTA, there), (Saved.CLAIMED, there)] == seen.told


def test_failures_are_told_of_once(served, seen):
    """Whatever goes wrong with a file counts once, under the code of its error."""
    store = served.opened()
    write(served, store, b"a", b"content")
    seen.told.clear()

    served.result(store.put_small([small_file(b"a", b"x")], OnConflict.FAIL))
    served.result(store.read_small([b"absent"]))
    served.result(store.open_reader(b"absent"))
    write(served, store, b"a", b"x", policy=OnConflict.FAIL)
    write(served, store, b"b", LARGE_CONTENT, digest=bytes(32))
    write(served, store, b"c", LARGE_CONTENT, sent=LARGE_CONTENT[:-1])
    served.memory.fail_next["write", b"d"] = NoSpace("full")
    write(served, store, b"d", LARGE_CONTENT)

    async def read():
        reader = await store.open_reader(b"a")
        await reader.read()

    served.memory.fail_next["read", b"a"] = StorageError("broken")
    served.result(read())

    assert [
        ("inbox", Conflict),
        ("inbox", NotFound),
        ("inbox", NotFound),
        ("inbox", Conflict),
        ("inbox", VerifyFailed),
        ("inbox", VerifyFailed),
        ("inbox", NoSpace),
        ("inbox", StorageError),
    ] == seen.told


def test_content_is_told_from_the_rest():
    """Content is what files hold: in streams and in commands, also of streams that are closed."""
    pair = Served(Clock()).introduced()
    store = pair.opened()
    before = pair.server.traffic()
    pair.result(store.put_small([small_file(b"a", b"content"), small_file(b"b", b"more")], OnConflict.REPLACE))
    write(pair, store, b"large", LARGE_CONTENT)
    put = pair.server.traffic()

    async def read():
        reader = await store.open_reader(b"large")
        while await reader.read():
            pass
        await reader.finish()
        reader.close()

    pair.result(read())
    pair.result(store.read_small([b"a"]))
    read = pair.server.traffic()
    pair.client_wire.cut()

    assert (0, 0) == (before.content_received, before.content_sent)
    assert (len(LARGE_CONTENT) + 11, 0) == (put.content_received, put.content_sent)
    assert (len(LARGE_CONTENT) + 11, len(LARGE_CONTENT) + 7) == (read.content_received, read.content_sent)
    assert 0 < put.received - put.content_received < 0.05 * put.received
    assert 0 < read.sent - read.content_sent < 0.05 * read.sent
    assert read == pair.server.traffic()


def test_commands_are_watched():
    """Each command is told of when it comes and when it ends, with ``OK`` or the code of its error.

    The first ping asks how long a round trip takes.
    """
    seen = []

    def watch(name):
        return lambda outcome: seen.append((name, outcome))

    pair = Served(Clock())
    pair.server.watch = watch
    pair.introduced()
    store = pair.opened()
    pair.result(store.describe([b"a"]))
    pair.result(pair.store("other").open(b""))
    pair.client.callRemoteString(b"Nonsense\xff", requiresAnswer=False)
    pair.client.tell(commands.Ping)
    pair.flush()
    pair.client_wire.cut()

    assert [
        ("Hello", "OK"),
        ("OpenDirectory", "OK"),
        ("Ping", "OK"),
        ("Describe", "OK"),
        ("OpenDirectory", "DENIED"),
        (r"Nonsense\xff", "UNHANDLED"),
        ("Ping", "OK"),
    ] == seen


def value(metrics, name, **labels):
    """One number."""
    return metrics.registry.get_sample_value(name, labels)


def test_what_is_expected_is_shown_as_zero():
    """An alert on an increase needs the 0 before it."""
    metrics = Metrics()
    metrics.expect(["inbox"], ["camera"])

    assert 0 == value(metrics, "realize_files_committed_total", dir="inbox", how="created")
    assert 0 == value(metrics, "realize_file_failures_total", dir="inbox", reason="VERIFY")
    assert 0 == value(metrics, "realize_connections_accepted_total", peer="camera")
    assert 0 == value(metrics, "realize_refusals_total", reason="pin_unknown")
    assert 0 == value(metrics, "realize_commands_total", command="PutSmall", outcome="OK")
    assert 0 == value(metrics, "realize_saved_bytes_total", how="resume")
    assert 0 == value(metrics, "realize_sync_duration_seconds_count", dir="inbox", what="file")


def test_connections_with_former_keys_are_counted():
    """Both kinds are there from the start, so that a rate of 0 can be told from no daemon."""
    metrics = Metrics()
    metrics.expect([], ["camera"])
    metrics.former_key("camera", "daemon")

    assert 0 == value(metrics, "realize_former_key_connections_total", peer="camera", of="peer")
    assert 1 == value(metrics, "realize_former_key_connections_total", peer="camera", of="daemon")


def test_what_peers_send_is_no_label():
    """A command that does not exist is ``unknown``, whatever it calls itself."""
    metrics = Metrics()
    for name in ("a", "b", "PutSmall"):
        metrics.command(name)("OK" if name == "PutSmall" else "UNHANDLED")

    assert 2 == value(metrics, "realize_commands_total", command="unknown", outcome="UNHANDLED")
    assert 1 == value(metrics, "realize_command_duration_seconds_count", command="PutSmall")
    assert 3 == sum(
        sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "realize_commands_total"
    )


def test_refusals_by_reason():
    """At the door, for the version, and for a right that is missing."""
    metrics = Metrics()
    metrics.refused(Refusal("timeout", "192.0.2.1", ""))
    metrics.command("Hello")("VERSION")
    metrics.command("Remove")(AccessDenied.wire_code.decode())

    found = {
        reason: value(metrics, "realize_refusals_total", reason=reason) for reason in ("timeout", "version", "denied")
    }
    assert {"timeout": 1, "version": 1, "denied": 1} == found


def test_skipped_files_have_not_arrived():
    """A file that was not put because there was one already is not counted as committed."""
    metrics = Metrics()
    metrics.expect(["inbox"], [])
    for outcome in Committed:
        metrics.committed("inbox", outcome)

    assert 1 == value(metrics, "realize_files_committed_total", dir="inbox", how="created")
    assert 1 == value(metrics, "realize_files_committed_total", dir="inbox", how="replaced")
    assert value(metrics, "realize_files_committed_total", dir="inbox", how="skipped") is None


def test_a_stream_that_is_cut_off_is_a_failure(served, seen):
    """A lost connection interrupts the file that is on its way; one that was given up on purpose is none."""
    store = served.opened()

    async def begin(path, *, abandon):
        writer = await store.open_writer(path, len(LARGE_CONTENT), OnConflict.REPLACE)
        await writer.write([LARGE_CONTENT[:BLOCK_BYTES]])
        if abandon:
            await writer.abandon(keep=True)

    served.result(begin(b"a", abandon=True))
    served.result(begin(b"b", abandon=False))
    served.client_wire.cut()
    served.flush()

    assert [("inbox", ConnectionFailed)] == seen.told


async def test_commits_are_measured(tmp_path):
    """A group with few files syncs each of them; with many, the file system once; and the directories in any case."""
    metrics = Metrics()
    inbox = directories_of({"inbox": DirectoryConfig(str(tmp_path))}, metrics.commits)["inbox"]
    store = inbox.store(b"", "camera", frozenset({Right.READ, Right.WRITE}), None)
    await store.open(b"salt")
    await store.put_small([small_file(b"%d" % number, b"x") for number in range(3)], OnConflict.REPLACE)
    writer = await store.open_writer(b"large", len(LARGE_CONTENT), OnConflict.REPLACE)
    await writer.write([LARGE_CONTENT])
    await writer.commit(small_file(b"", LARGE_CONTENT).digest, None)
    await store.close()

    assert 2 == value(metrics, "realize_commit_group_files_count", dir="inbox")
    assert 4 == value(metrics, "realize_commit_group_files_sum", dir="inbox")
    assert 4 == value(metrics, "realize_sync_duration_seconds_count", dir="inbox", what="file")
    assert 2 == value(metrics, "realize_sync_duration_seconds_count", dir="inbox", what="directories")
    assert 0 < value(metrics, "realize_sync_duration_seconds_sum", dir="inbox", what="file")


def test_a_sync_that_fails_is_measured():
    """A disk that takes long to fail is slow too."""
    told = []

    class Watch(CommitHooks):
        def synced(self, what, seconds):
            told.extend((what, each >= 0) for each in seconds)

    with pytest.raises(OSError, match="broken"), Watch().syncing(Sync.FILE_SYSTEM):
        raise OSError("broken")

    assert [(Sync.FILE_SYSTEM, True)] == told


def directories_of(configured, watch):
    """Directories that are served without threads."""
    found = look_at(configured)
    return serve_directories(
        configured, found, lambda _: _at_once, Clock(), watch, Ledger(), lambda *_: None, Memory(1 << 30, 1 << 30)
    )


def _at_once(job, *arguments):
    answer = Deferred()
    try:
        answer.callback(job(*arguments))
    except Exception:  # noqa: BLE001 -- as a thread would
        answer.errback()
    return answer


def test_lag_is_how_late_a_timer_goes_off():
    """A reactor that is busy for a while is seen to be late, once, and by how much."""
    clock, now, lags = Clock(), [100.0], []
    probe = LagProbe(clock, lags.append, now=lambda: now[0])
    probe.start()
    for late in (0.0, 0.75, 0.0):
        now[0] += PROBED_EVERY + late
        clock.advance(PROBED_EVERY)
    probe.stop()

    assert [0.0, 0.75, 0.0] == lags
    assert [] == clock.getDelayedCalls()
    assert PROBED_EVERY >= 1


class Disk:
    """Answers statvfs when it is let."""

    def __init__(self):
        self.answers = threading.Event()
        self.asked = 0

    def __call__(self, path):
        self.asked += 1
        self.answers.wait(20)
        return os.statvfs(path)


def test_a_disk_that_hangs_holds_up_nobody(tmp_path):
    """Nobody waits for it, and only one thread does; when it answers, the next to ask gets the sizes."""
    disk, paths = Disk(), {"inbox": str(tmp_path)}
    spaces = DiskSpaces(disk)

    assert {} == spaces.known(paths)
    assert {} == spaces.known(paths)
    _until(lambda: disk.asked)
    assert 1 == disk.asked
    disk.answers.set()
    _until(lambda: spaces.known(paths))
    found = spaces.known(paths)["inbox"]

    assert os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize == found.size
    assert 0 < found.free <= found.size
    assert abs(time.time() - found.seen_at) < 60


def test_a_disk_that_is_gone_keeps_its_last_values(tmp_path):
    """Their time shows how old they are."""
    there = tmp_path / "there"
    there.mkdir()
    spaces = DiskSpaces()
    _until(lambda: spaces.known({"inbox": str(there)}))
    before = spaces.known({"inbox": str(there)})["inbox"]
    there.rmdir()
    _until(lambda: not any(thread.is_alive() for thread in spaces._looking.values()))
    last = spaces._found[str(there)]
    for _ in range(3):
        spaces.known({"inbox": str(there)})
        _until(lambda: not any(thread.is_alive() for thread in spaces._looking.values()))

    assert before.size == last.size
    assert last == spaces.known({"inbox": str(there)})["inbox"]


def _until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_partials_are_counted_soon_and_then_every_hour(tmp_path):
    """What is there, and what was removed since the start."""
    served = directories_of({"inbox": DirectoryConfig(str(tmp_path))}, lambda _: CommitHooks())
    clock, log = Clock(), Log()
    housekeeping = Housekeeping(clock, log)
    leave_partial(tmp_path, "a", b"1234")
    housekeeping.start(served, 7 * 86_400.0)
    before = dict(housekeeping.partials)
    clock.advance(FIRST_EXPIRY_S)
    [first] = [(each.files, each.size, each.counted_at is not None) for each in housekeeping.partials.values()]
    leave_partial(tmp_path, "b", b"1")
    clock.advance(EXPIRY_INTERVAL_S)
    then = housekeeping.partials["inbox"]
    housekeeping.stop()

    assert {} == before
    assert (1, 4, True) == first
    assert (2, 5, 0) == (then.files, then.size, then.expired)
    assert [] == clock.getDelayedCalls()


def test_expired_partials_are_counted(tmp_path):
    """Removed ones are no longer there, and are counted with their bytes."""
    served = directories_of({"inbox": DirectoryConfig(str(tmp_path))}, lambda _: CommitHooks())
    clock, log = Clock(), Log()
    housekeeping = Housekeeping(clock, log)
    leave_partial(tmp_path, "a", b"1234")
    time.sleep(0.02)
    housekeeping.start(served, 0.01)
    clock.advance(0.01)
    found = housekeeping.partials["inbox"]
    housekeeping.stop()

    assert (0, 0, 1, 4) == (found.files, found.size, found.expired, found.expired_size)
    assert ["inbox"] == [fields["dir"] for fields in log.named("partial_expired")]


def test_what_is_in_the_place_of_a_directory_is_left_alone(tmp_path):
    """Its disk is gone, and another one is there: the partials on that are those of somebody else."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    served = directories_of({"inbox": DirectoryConfig(str(inbox))}, lambda _: CommitHooks())
    clock, log = Clock(), Log()
    housekeeping = Housekeeping(clock, log)
    inbox.rename(tmp_path / "disk")
    inbox.mkdir()
    leave_partial(inbox, "a", b"1234")
    time.sleep(0.02)
    housekeeping.start(served, 0.01)
    clock.advance(0.01)
    found = housekeeping.partials["inbox"]
    housekeeping.stop()

    assert 1 == len(list(inbox.iterdir()))
    assert (0, None, 0) == (found.files, found.counted_at, found.expired)
    assert ["inbox"] == [fields["dir"] for fields in log.named("expiry_failed")]


def realized(config):
    """A daemon that is not started."""
    return RealizedService(config, MemoryReactorClock())


@pytest.fixture
def daemon(tmp_path):
    """A daemon with metrics that is not started."""
    (tmp_path / "inbox").mkdir()
    config = Config(
        key=generate_identity(),
        metrics="tcp:0",
        directories={"inbox": DirectoryConfig(str(tmp_path / "inbox"), Reserve(4096))},
        peers={"camera": PeerConfig(generate_identity().public_key, rights={"inbox": frozenset({Right.WRITE})})},
        throttle=ThrottleConfig(service_bps=1000, peers_bps={"camera": 500}),
    )
    return realized(config)


def test_state_is_read_when_somebody_asks(daemon, tmp_path):
    """Limits, threads, connections and bytes: all as they are at that moment."""
    gauges = daemon._gauges()
    daemon._directories = directories_of(daemon._config.directories, daemon._events.commits)
    daemon._take_over(daemon._config)
    registry = CollectorRegistry()
    registry.register(gauges)
    daemon._factory._ended = {"": Traffic(1, 2), "camera": Traffic(100, 200, 30, 40, 7, 8)}
    gauges.prepare()
    _until(lambda: gauges.spaces.known(gauges.paths()))

    def get(name, **labels):
        return registry.get_sample_value(f"realize_{name}", labels)

    assert 0 == get("connections", peer="camera")
    assert 0 == get("connections", peer="unknown")
    assert 30 == get("transferred_bytes_total", peer="camera", direction="send", kind="content")
    assert 70 == get("transferred_bytes_total", peer="camera", direction="send", kind="other")
    assert 40 == get("transferred_bytes_total", peer="camera", direction="receive", kind="content")
    assert 7 == get("compression_saved_bytes_total", peer="camera", direction="send")
    assert 8 == get("compression_saved_bytes_total", peer="camera", direction="receive")
    assert 2 == get("transferred_bytes_total", peer="unknown", direction="receive", kind="other")
    assert 1000 == get("throttle_limit_bytes_per_second", scope="service", peer="", direction="send")
    assert 500 == get("throttle_limit_bytes_per_second", scope="peer", peer="camera", direction="send")
    assert float("inf") == get("throttle_limit_bytes_per_second", scope="peer", peer="camera", direction="receive")
    assert 0 == get("throttle_wait_seconds_total", scope="peer", peer="camera")
    assert 0 == get("disk_queue_length")
    assert 0 == get("partials_expired_total", dir="inbox")
    assert get("partials", dir="inbox") is None
    assert get("directory_free_bytes", dir="inbox") > 0
    assert 4096 == get("directory_reserve_bytes", dir="inbox")
    assert get("directory_free_inodes", dir="inbox") is not None or not os.statvfs(tmp_path).f_files
    daemon._throttling.close()


def test_the_queue_of_the_disk_threads_is_seen(daemon):
    """Work that finds no free thread waits, and can be seen to."""
    pool = ThreadPool(reactor, 1, "test")
    gate, running = threading.Event(), threading.Event()
    daemon._pools._pools["inbox"] = pool
    registry = CollectorRegistry()
    registry.register(daemon._gauges())
    try:
        pool.run(lambda: (running.set(), gate.wait(20)))
        for _ in range(3):
            pool.run(gate.wait, 20)
        assert running.wait(20)
        found = [
            registry.get_sample_value(f"realize_disk_{name}") for name in ("threads", "threads_busy", "queue_length")
        ]
    finally:
        gate.set()
        pool.stop()

    assert [1, 1, 3] == found


def test_without_metrics_nothing_is_counted(tmp_path):
    """Off means off: no port, no probe, nobody who is told of commands."""
    (tmp_path / "inbox").mkdir()
    config = Config(key=generate_identity(), directories={"inbox": DirectoryConfig(str(tmp_path / "inbox"))})
    daemon = realized(config)

    assert daemon._metrics_endpoint is None
    assert EventHooks is type(daemon._events)
    assert daemon._factory._watch is None


def test_pairs_add_up():
    """The bytes of one end are those of the other."""
    pair = Pair(Clock()).introduced()
    here, there = pair.client.traffic(), pair.server.traffic()
    pair.client_wire.cut()

    assert (here.sent, here.received) == (there.received, there.sent)
    assert 0 < here.sent
