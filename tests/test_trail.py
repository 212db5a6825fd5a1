"""What the daemon logs of a file that could not be dealt with: once, wherever the store fails."""

from __future__ import annotations

import tracemalloc

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from realize.concurrency.memory import Memory
from realize.errors import Busy, NoSpace, NotFound, StorageError
from realize.store import deltas
from realize.store.hooks import Saved
from realize.store.server import audit as trail_module
from realize.store.server.audit import BYTES_PER_FILE, FILES_PER_CLAIM, AuditLog
from realize.tracing import transfer_id
from realize.values import BLOCK_BYTES, Committed, Expected, OnConflict, Removal, Stored, Version
from tests.loopback import Log
from tests.store_helpers import LARGE_CONTENT, block_digests, small_file
from tests.test_daemon_metrics import seen, served

__all__ = ["seen", "served"]

FULL = NoSpace("f: No space left on device")


def told(served, seen):
    """What was logged of files that failed, and how often a failure was counted."""
    logged = [
        (event, fields["path"], fields["doing"], fields["code"])
        for _, event, fields in served.log.events
        if event in {"storage_failed", "file_refused"}
    ]
    return logged, [what for what in seen.told if what[0] == "inbox"]


async def opened_writer(store):
    return await store.open_writer(b"f", len(LARGE_CONTENT), OnConflict.REPLACE)


@pytest.mark.parametrize("method", ["match", "offer", "write"])
def test_a_full_disk_is_logged_wherever_it_is_noticed(served, seen, method):
    """What a partial, an earlier version or the peer has of a file: if it cannot be written, somebody must act."""
    store = served.opened()
    served.memory.plant_partial(b"f", LARGE_CONTENT[:BLOCK_BYTES])
    served.memory.fail_next[method, b"f"] = FULL

    async def put():
        writer = await opened_writer(store)
        try:
            if method == "match":
                await writer.match(block_digests(LARGE_CONTENT[:BLOCK_BYTES]), BLOCK_BYTES)
            elif method == "offer":
                await writer.offer(deltas.cut(LARGE_CONTENT[:100_000]))
            else:
                await writer.write([LARGE_CONTENT])
                await writer.commit(bytes(32), None)
        finally:
            await writer.abandon(keep=True)

    assert isinstance(served.result(put()), NoSpace)
    assert ([("storage_failed", "f", "write", "NO_SPACE")], [("inbox", NoSpace)]) == told(served, seen)
    assert [True] == [fields["kept"] for fields in served.log.named("transfer_stopped")]


def test_offers_that_fail_for_one_reason_are_one_failure(served, seen):
    """Several are under way at once when the disk is full."""
    store = served.opened()
    gates = [Deferred(), Deferred()]

    async def put():
        writer = await opened_writer(store)
        (inner,) = served.memory._writers
        waiting = iter(gates)
        inner.offer = lambda *_, **__: next(waiting)
        chunks = deltas.cut(LARGE_CONTENT[:100_000])
        offers = [writer.offer(chunks), writer.offer(chunks)]
        served.flush()
        for gate in gates:
            gate.errback(FULL)
        for offer in offers:
            with pytest.raises(NoSpace):
                await offer
        await writer.abandon(keep=True)

    served.result(put())

    assert ([("storage_failed", "f", "write", "NO_SPACE")], [("inbox", NoSpace)]) == told(served, seen)


@pytest.mark.parametrize(("error", "event"), [(FULL, "storage_failed"), (Busy("f: is being written"), "file_refused")])
def test_a_file_that_cannot_be_opened_for_writing_is_logged(served, seen, error, event):
    """At the level that the reason asks for."""
    store = served.opened()
    served.memory.fail_next["open_writer", b"f"] = error

    served.result(opened_writer(store))

    assert ([(event, "f", "write", error.wire_code.decode())], [("inbox", type(error))]) == told(served, seen)


@pytest.mark.parametrize("method", ["block_digests", "skip", "cut", "pick", "read", "finish"])
def test_a_disk_that_does_not_read_is_logged(served, seen, method):
    """Whatever was wanted of the file."""
    store = served.opened()
    served.memory.plant(b"f", LARGE_CONTENT)
    served.memory.fail_next[method, b"f"] = StorageError("f: Input/output error")

    async def get():
        reader = await store.open_reader(b"f")
        try:
            await reader.block_digests(BLOCK_BYTES)
            await reader.skip(BLOCK_BYTES)
            await reader.pick([True] * len(await reader.cut()))
            while await reader.read():
                pass
            await reader.finish()
        finally:
            reader.close()

    served.result(get())

    assert ([("storage_failed", "f", "read", "STORAGE")], [("inbox", StorageError)]) == told(served, seen)


def test_only_a_file_that_was_removed_is_recorded_as_removed(served, seen):
    """One that never was, whatever version it is said to have had, makes no record, and counts nowhere."""
    store = served.opened()
    served.memory.plant(b"f", b"content")
    [fetched] = served.result(store.read_small([b"f"]))
    removals = [Removal(b"payroll", evolve(fetched.version, size=123_456_789)), Removal(b"f", fetched.version)]

    answers = served.result(store.remove(removals))

    assert [NotFound, type(None)] == [type(answer) for answer in answers]
    assert [("f", 7)] == [(record["path"], record["size"]) for record in served.log.named("file_removed")]
    assert [("inbox", "removed")] == seen.told


def test_to_ask_again_for_what_is_there_makes_no_new_record(served, seen):
    """A peer that goes on asking fills no log and no counter, until the file is another one."""
    store = served.opened()
    served.memory.plant(b"f", b"content")
    expected = Expected(b"f", 7, small_file(b"f", b"content").digest)

    for _ in range(3):
        assert [True] == served.result(store.settle([expected, expected]))[:1]
    assert 1 == len(served.log.named("file_already_there"))
    assert [(Saved.ALREADY_THERE, 7)] == seen.told
    served.result(store.put_small([small_file(b"f", b"content")], OnConflict.REPLACE))
    served.result(store.settle([expected]))

    assert 2 == len(served.log.named("file_already_there"))


def test_small_files_that_cannot_be_read_or_confirmed_are_logged(served, seen):
    """Each by its name."""
    store = served.opened()
    served.memory.plant(b"f", b"content")
    served.memory.fail_next["read_small", b"f"] = StorageError("f: Input/output error")
    served.memory.fail_next["settle", b"f"] = StorageError("f: Input/output error")
    served.memory.fail_next["match_final", b"f"] = StorageError("f: Input/output error")

    served.result(store.read_small([b"f"]))
    served.result(store.settle([Expected(b"f", 7, small_file(b"f", b"content").digest)]))
    served.result(store.match_final(b"f", 7, 0, block_digests(b"content")))

    logged, counted = told(served, seen)
    assert ["read", "commit", "read"] == [doing for _, _, doing, _ in logged]
    assert 3 * [("inbox", StorageError)] == counted


@pytest.mark.parametrize("what", ["read", "already there"])
def test_what_is_remembered_of_files_takes_bounded_memory(what):
    """However long their names are, and on however many handles: it counts, and gives way when there is not plenty."""
    share = Memory(8 << 20, 4 << 20).of("evil")
    log = Log()
    tracemalloc.start()
    trails = [AuditLog(log, "", "inbox", b"", share.claim()) for _ in range(8)]
    for trail in trails:
        for number in range(2000):
            path = b"%d" % number + b"n" * 3900
            if what == "read":
                trail.was_read(path, Version(1, 10_000 + number, 300, 1 << 60, 1 << 60), b"%032d" % number)
            else:
                trail.already_there(path, 300, b"%032d" % number)
        log.events.clear()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 0 < share.held <= 2 << 20
    assert taken < share.held + (1 << 18)


def test_what_was_read_last_is_remembered():
    """What gives way to it is the oldest."""
    log = Log()
    claim = Memory(1 << 20, 1 << 20).of("evil").claim()
    trail = AuditLog(log, "", "inbox", b"", claim)
    versions = [Version(1, number, 3, 1, 1) for number in range(2000)]
    for version in versions:
        trail.was_read(b"f", version, b"digest")
    claim.release()
    for version in (versions[0], versions[-1]):
        trail.removed(Removal(b"f", version), None)

    assert [None, b"digest".hex()] == [fields["digest"] for fields in log.named("file_removed")]


DIGEST = b"d" * 32
OTHER_DIGEST = bytes(32)
VERSION = Version(1, 2, 7, 4, 5)
STORAGE = {"code": "NO_SPACE", "error": "f: No space left on device"}
BUSY = {"code": "BUSY", "error": "f: is being written"}


@pytest.fixture
def trail():
    """The trail of a location below a directory, with plenty of memory."""
    return trail_of(Memory(1 << 20, 1 << 20))


def trail_of(memory):
    """One with that memory."""
    return AuditLog(Log(), "run1", "inbox", b"2024", memory.of("peer").claim())


@pytest.mark.parametrize(
    ("happened", "level", "event", "fields"),
    [
        (
            lambda trail: trail.ended(b"f", 7, DIGEST, Stored(Committed.CREATED)),
            "info",
            "file_committed",
            {"size": 7, "digest": DIGEST.hex(), "replaced": False, "beside": None, "backup": None},
        ),
        (
            lambda trail: trail.put(small_file(b"f", b"content"), Stored(Committed.REPLACED)),
            "info",
            "file_committed",
            {
                "size": 7,
                "digest": small_file(b"f", b"content").digest.hex(),
                "replaced": True,
                "beside": None,
                "backup": None,
            },
        ),
        (
            lambda trail: trail.already_there(b"f", 7, DIGEST),
            "info",
            "file_already_there",
            {"size": 7, "digest": DIGEST.hex()},
        ),
        (lambda trail: trail.already_there(b"f", 7, None), "info", "file_already_there", {"size": 7, "digest": None}),
        (
            lambda trail: trail.removed(Removal(b"f", VERSION), None),
            "info",
            "file_removed",
            {"size": 7, "digest": None},
        ),
        (
            lambda trail: trail.removed(Removal(b"f", VERSION), Busy("f: is being written")),
            "warning",
            "file_refused",
            {"doing": "remove", **BUSY},
        ),
        (
            lambda trail: trail.ended(b"f", 7, DIGEST, FULL),
            "error",
            "storage_failed",
            {"doing": "commit", **STORAGE},
        ),
        (
            lambda trail: trail.settled(Expected(b"f", 7, DIGEST), FULL),
            "error",
            "storage_failed",
            {"doing": "commit", **STORAGE},
        ),
        (
            lambda trail: trail.file(b"f", 7).ended(DIGEST, Busy("f: is being written")),
            "warning",
            "file_refused",
            {"doing": "commit", **BUSY},
        ),
        (lambda trail: trail.file(b"f", 7).failed(FULL), "error", "storage_failed", {"doing": "write", **STORAGE}),
        (lambda trail: trail.file(b"f", 7).started(3), "debug", "transfer_started", {"size": 7, "have": 3}),
        (
            lambda trail: trail.file(b"f", 7).stopped(5, kept=True),
            "info",
            "transfer_stopped",
            {"size": 7, "done": 5, "kept": True},
        ),
        (
            lambda trail: trail.file(b"f", 7).stopped(None, kept=False),
            "info",
            "transfer_stopped",
            {"size": 7, "done": None, "kept": False},
        ),
    ],
)
def test_a_record_says_what_became_of_which_file(trail, happened, level, event, fields):
    """With the directory, the name from its own start, and the transfer that the peer knows it by."""
    happened(trail)

    whole = {"dir": "inbox", "path": "2024/f", "transfer": transfer_id("run1", b"f"), **fields}
    assert [(level, event, whole)] == trail.log.events


def test_a_directory_that_is_gone_is_recorded(trail):
    """By its name alone."""
    trail.pruned(b"d")

    assert [("info", "directory_removed", {"dir": "inbox", "path": "2024/d"})] == trail.log.events


@pytest.mark.parametrize("answer", [False, Busy("f: is being written")])
def test_what_is_not_there_already_is_no_news(trail, answer):
    """Nor is what could not be looked at for no fault of the disk."""
    assert 0 == trail.settled(Expected(b"f", 7, DIGEST), answer)
    assert [] == trail.log.events


def test_each_file_is_remembered_by_itself(trail):
    """What was said of one is news of another; of one that was removed, too, and of one that is another one now."""
    news = [
        trail.already_there(b"f", 7, DIGEST),
        trail.already_there(b"g", 7, DIGEST),
        trail.already_there(b"f", 7, DIGEST),
        trail.already_there(b"f", 8, OTHER_DIGEST),
    ]
    trail.removed(Removal(b"g", VERSION), None)
    news += [trail.already_there(b"f", 8, OTHER_DIGEST), trail.already_there(b"g", 7, DIGEST)]

    news += [trail.already_there(b"f", size, None) for size in (8, 8, 9)]

    assert [7, 7, 0, 8, 0, 7, 8, 0, 9] == news


def test_memory_is_claimed_for_many_at_a_time():
    """Before they are remembered, and no more often."""
    memory = Memory(1 << 20, 1 << 20)
    trail = trail_of(memory)
    held = []
    for number in range(2 * FILES_PER_CLAIM + 1):
        trail.already_there(b"%d" % number, 7, DIGEST)
        held.append(memory.held // (FILES_PER_CLAIM * BYTES_PER_FILE))

    assert [1] * FILES_PER_CLAIM + [2] * FILES_PER_CLAIM + [3] == held
    assert [0] * (2 * FILES_PER_CLAIM + 1) == [
        trail.already_there(b"%d" % number, 7, DIGEST) for number in range(len(held))
    ]


def test_no_more_is_remembered_than_that(trail, monkeypatch):
    """However much memory there is, the oldest makes way."""
    monkeypatch.setattr(trail_module, "MAX_REMEMBERED_FILES", 2)
    for name in (b"a", b"b", b"c"):
        trail.already_there(name, 7, DIGEST)

    assert [0, 0, 7] == [trail.already_there(name, 7, DIGEST) for name in (b"b", b"c", b"a")]
