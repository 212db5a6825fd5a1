"""A destination that is too small for everything at once: what fits one by one arrives, and nothing is sent in vain."""

import errno
import os
import stat

import pytest
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock

from realize.errors import Busy, NoSpace, StorageError
from realize.fs.descriptors import release
from realize.fs.names import partial_name
from realize.store.local import headroom as headroom_module
from realize.store.local import writer as writer_module
from realize.store.local.headroom import Headroom
from realize.store.local.leftovers import gained_ns
from realize.store.local.promised_space import LEDGER_POLL_S, METADATA_BYTES, STALLED_AFTER_S, Ledger
from realize.store.local.store import LocalStore, root_identity
from realize.units import Reserve
from realize.values import Committed, Hole, OnConflict, Stored
from tests.leftovers import leave_partial, partial_at
from tests.local_stores import at_once
from tests.store_helpers import block_digests, digest, failure, small_file
from tests.test_remote_store import Served

MIB = 1 << 20
REPLACE = OnConflict.REPLACE
SALT = b"0123456789abcdef"


class Disk:
    """A file system of 20 MiB that a directory is all of, and a quota that nothing but writing tells of."""

    def __init__(self, path):
        self.path = path
        self.size = 20 * MIB
        self.quota = 1 << 60
        self.held = 0
        """Bytes of files that have no name any more, but are open."""

    @property
    def used(self):
        """What all files have together."""
        return sum(os.stat(os.path.join(top, name)).st_size for top, _, names in os.walk(self.path) for name in names)

    def statvfs(self, _fd):
        """What fstatvfs(2) says."""
        blocks = max(0, self.size - self.used - self.held) // 512
        return os.statvfs_result((512, 512, self.size // 512, blocks, blocks, 0, 0, 0, 0, 255))

    def check(self, fd, length, end):
        """How much write(2) would write, at least a byte."""
        growth = min(length, max(0, end - os.fstat(fd).st_size))
        room = min(self.quota, self.size) - self.used
        if growth <= room:
            return length
        if length - growth + room > 0:
            return length - growth + room
        error = errno.EDQUOT if self.quota < self.size else errno.ENOSPC
        raise OSError(error, os.strerror(error))

    def names(self):
        """All files."""
        return {name for _, _, names in os.walk(self.path) for name in names}


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """The disk."""
    disk = Disk(tmp_path)
    pwrite, write = os.pwrite, os.write

    def pwrite_(fd, data, offset):
        return pwrite(fd, data[: disk.check(fd, len(data), offset + len(data))], offset)

    def write_(fd, data):
        if not stat.S_ISREG(os.fstat(fd).st_mode):  # the reactor wakes itself up by a pipe
            return write(fd, data)
        return write(fd, data[: disk.check(fd, len(data), os.lseek(fd, 0, os.SEEK_CUR) + len(data))])

    monkeypatch.setattr(os, "fstatvfs", disk.statvfs)
    monkeypatch.setattr(os, "pwrite", pwrite_)
    monkeypatch.setattr(os, "write", write_)
    monkeypatch.setattr("realize.store.local.known_partials.MIN_LOOK_AGE_S", 0)
    return disk


@pytest.fixture
def clock():
    """The reactor's clock, which has run for long."""
    clock = Clock()
    clock.advance(10 * headroom_module.MAX_WAIT_S)
    return clock


@pytest.fixture
def headroom(clock):
    """The room of the directory."""
    return Headroom(at_once, Ledger(clock))


@pytest.fixture
def store(disk, headroom):
    """The directory, opened."""
    return opened(disk, headroom)


def opened(disk, headroom):
    """One more store of the directory."""
    store = LocalStore(str(disk.path), run_in_thread=at_once, headroom=headroom, root_identity=root_identity(disk.path))
    store.open(SALT)
    return store


async def finish(writing, size, content=b"x"):
    """Write and commit."""
    await writing.write([content * size])
    return (await writing.commit(digest(content * size), None)).how


async def test_what_does_not_fit_beside_others_waits_for_them(store):
    """Of three files of 8 MiB two are begun; the third waits, and has its turn when one of them is given up."""
    first = await store.open_writer(b"0", 8 * MIB, REPLACE)
    second = await store.open_writer(b"1", 8 * MIB, REPLACE)
    third = store.open_writer(b"2", 8 * MIB, REPLACE)
    assert not third.called

    assert await finish(first, 8 * MIB) is Committed.CREATED
    assert not third.called
    await second.abandon(keep=False)

    assert await finish(await third, 8 * MIB) is Committed.CREATED


async def test_what_does_not_fit_when_the_others_are_done_is_refused(store, disk):
    """It is refused before anything is sent, with the figures, and leaves nothing behind."""
    first = await store.open_writer(b"0", 8 * MIB, REPLACE)
    second = await store.open_writer(b"1", 8 * MIB, REPLACE)
    third = store.open_writer(b"d/2", 8 * MIB, REPLACE)

    await finish(first, 8 * MIB)
    await finish(second, 8 * MIB)

    error = await failure(third)
    assert isinstance(error, NoSpace)
    assert "d/2: No space left on device: 8 MiB are needed, 4 MiB are free, 4 MiB are missing" == str(error)
    assert {"0", "1"} == disk.names()


async def test_what_can_never_fit_is_refused_at_once(store, disk):
    """Also while others are on their way; what is smaller goes on."""
    writing = await store.open_writer(b"0", 8 * MIB, REPLACE)

    assert isinstance(await failure(store.open_writer(b"1", 21 * MIB, REPLACE)), NoSpace)
    assert isinstance(await failure(store.open_writer(b"2", 1 << 62, REPLACE)), NoSpace)

    await finish(await store.open_writer(b"3", 4 * MIB, REPLACE), 4 * MIB)
    await finish(writing, 8 * MIB)
    assert {"0", "3"} == disk.names()


async def test_a_file_that_will_be_replaced_is_worth_waiting_for(store, disk):
    """Its room is free when its new version has its name."""
    (disk.path / "old").write_bytes(b"o" * 12 * MIB)
    await store.describe([b"old"])
    writing = await store.open_writer(b"old", 6 * MIB, REPLACE)
    other = store.open_writer(b"1", 8 * MIB, REPLACE)
    assert not other.called

    assert await finish(writing, 6 * MIB) is Committed.REPLACED

    await finish(await other, 8 * MIB)


async def test_a_replaced_file_has_its_room_until_it_is_closed(disk, clock):
    """What its chunks were taken from is closed in a thread: whoever waits is not refused before that is done."""
    closing = []

    def slow(job, *arguments):
        if job is not release:
            return at_once(job, *arguments)
        closing.append((Deferred(), *arguments))
        return closing[-1][0]

    store = LocalStore(str(disk.path), run_in_thread=slow, headroom=Headroom(slow, Ledger(clock)))
    store.open(SALT)
    (disk.path / "old").write_bytes(b"o" * 12 * MIB)
    await store.describe([b"old"])
    writing = await store.open_writer(b"old", 6 * MIB, REPLACE)
    await writing.offer([(1000, bytes(16))])
    disk.held = 12 * MIB
    other = store.open_writer(b"1", 8 * MIB, REPLACE)
    await finish(writing, 6 * MIB)
    assert not other.called

    disk.held = 0
    for closed, fd in closing:
        release(fd)
        closed.callback(None)
    await finish(await other, 8 * MIB)


async def test_directories_of_one_file_system_share_its_room(disk, clock):
    """What a peer is promised in one directory is not promised to another one in the next."""
    ledger = Ledger(clock)
    stores = [opened(disk, Headroom(at_once, ledger)) for _ in range(2)]
    writing = await stores[0].open_writer(b"0", 12 * MIB, REPLACE)
    other = stores[1].open_writer(b"1", 12 * MIB, REPLACE)
    assert not other.called

    await writing.abandon(keep=True)

    await (await other).abandon(keep=True)


# Partials that stand in the way


def aged(path, seconds):
    """Make a partial older."""
    ns = os.stat(path).st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(ns, ns))
    return path


async def test_partials_that_stand_in_the_way_go(store, disk):
    """Those that have gained nothing for longest, and no more than are needed; the file's own serves it."""
    oldest = aged(leave_partial(disk.path, "a", b"p" * 4 * MIB), 300)
    own = aged(leave_partial(disk.path, "f", b"x" * 2 * MIB), 400)
    needless = aged(leave_partial(disk.path, "b", b"p" * MIB), 200)
    (disk.path / "d").mkdir()
    younger = aged(leave_partial(disk.path / "d", "c", b"p" * 5 * MIB), 100)
    youngest = leave_partial(disk.path, "g", b"p" * 5 * MIB)

    writing = await store.open_writer(b"f", 11 * MIB, REPLACE)

    assert [False, True, True, False, True] == [path.exists() for path in (oldest, own, needless, younger, youngest)]
    assert 2 * MIB == writing.have
    await finish(writing, 11 * MIB)


class Late:
    """A pool whose threads work at once, and whose results come when they are let, in their order."""

    def __init__(self):
        self.results = []

    def run(self, job, *arguments):
        """Work; the answer comes later."""
        answer = Deferred()
        self.results.append((answer, maybeDeferred(job, *arguments)))
        return answer

    def let(self):
        """Let all results come, and those of what is done because of them."""
        while self.results:
            answer, result = self.results.pop(0)
            result.addBoth(lambda outcome, answer=answer: answer.callback(outcome))


@pytest.fixture
def late(disk, clock):
    """Threads that are late, and a store that uses them."""
    threads = Late()
    store = LocalStore(
        str(disk.path),
        run_in_thread=threads.run,
        headroom=Headroom(threads.run, Ledger(clock)),
        root_identity=root_identity(disk.path),
    )
    store.open(SALT)
    threads.let()
    yield threads, store
    store.close()
    threads.let()


async def test_way_that_is_made_for_one_is_made_for_others_too(late, disk):
    """Two files found no room before a partial went because of the first of them: the second one fits as well."""
    threads, store = late
    path = leave_partial(disk.path, "left", b"p" * 15 * MIB)
    waiting = [store.open_writer(b"%d" % number, 8 * MIB, REPLACE) for number in range(2)]

    threads.let()

    assert not path.exists()
    assert [True, True] == [each.called for each in waiting]
    for each in waiting:
        assert not hasattr(await each, "value")


async def test_way_that_is_made_for_a_large_file_is_made_for_small_ones_too(late, disk):
    """And for what is in the middle of a file."""
    threads, store = late
    writing = store.open_writer(b"begun", 8 * MIB, REPLACE)
    threads.let()
    path = leave_partial(disk.path, "left", b"p" * 20 * MIB)
    answers = [
        store.open_writer(b"large", 6 * MIB, REPLACE),
        store.put_small([small_file(b"small", b"x" * 600)], REPLACE),
        (await writing).write([b"x" * 8 * MIB]),
    ]

    threads.let()

    assert not path.exists()
    assert [True] * 3 == [each.called for each in answers]
    await answers[0]
    assert [Committed.CREATED] == [each.how for each in await answers[1]]
    assert await answers[2] is None


async def test_nothing_goes_in_vain(store, disk):
    """Who announces more than there could ever be makes no partial go, and a partial alone is no reason to fail."""
    path = leave_partial(disk.path, "a", b"p" * 15 * MIB)

    assert isinstance(await failure(store.open_writer(b"f", 21 * MIB, REPLACE)), NoSpace)
    assert path.exists()
    await finish(await store.open_writer(b"a", 20 * MIB, REPLACE), 20 * MIB)


async def test_only_what_is_ours_and_idle_goes(store, disk):
    """Neither a user's file of such a name, nor a partial that is being written."""
    foreign = partial_at(disk.path, "u")
    foreign.write_bytes(b"u" * 8 * MIB)
    writing = await store.open_writer(b"w", 9 * MIB, REPLACE)
    await writing.write([b"w" * 9 * MIB])

    other = store.open_writer(b"f", 8 * MIB, REPLACE)
    assert not other.called
    await writing.abandon(keep=True)

    assert foreign.exists()
    assert not partial_at(disk.path, "w").exists()
    await (await other).abandon(keep=False)


async def test_who_is_told_of_partials_that_went(disk, clock):
    """For the log: the path from the directory's start, and the size."""
    told = []
    (disk.path / "d").mkdir()
    leave_partial(disk.path / "d", "a", b"p" * 15 * MIB)
    store = opened(disk, Headroom(at_once, Ledger(clock), freed=lambda *what: told.append(what)))

    await (await store.open_writer(b"f", 8 * MIB, REPLACE)).abandon(keep=False)

    assert [(b"d/" + partial_name(b"a"), 15 * MIB)] == told


async def test_a_local_location_is_not_left(disk, clock):
    """Where a command writes, partials beside the location are none of its business."""
    beside = leave_partial(disk.path, "a", b"p" * 15 * MIB)
    store = LocalStore(str(disk.path / "new"), run_in_thread=at_once, headroom=Headroom(at_once, Ledger(clock)))
    store.open(SALT)

    assert isinstance(await failure(store.open_writer(b"f", 8 * MIB, REPLACE)), NoSpace)
    assert beside.exists()


@pytest.mark.parametrize("quota", [True, False], ids=["quota", "others"])
async def test_a_file_makes_way_for_itself_in_the_middle(store, disk, quota):
    """Also where nobody could know: there is a quota, or somebody else filled the disk."""
    path = leave_partial(disk.path, "a", b"p" * 9 * MIB)
    writing = await store.open_writer(b"f", 10 * MIB, REPLACE)
    await writing.write([b"x" * MIB])
    if quota:
        disk.quota = 12 * MIB
    else:
        (disk.path / "theirs").write_bytes(b"t" * 9 * MIB)
    await writing.write([b"x" * 4 * MIB, b"x" * MIB])
    await writing.write([b"x" * 4 * MIB])

    assert (await writing.commit(digest(b"x" * 10 * MIB), None)).how is Committed.CREATED
    assert not path.exists()


async def test_a_file_that_fails_in_the_middle_is_not_shut_out_by_its_own_partial(store, disk):
    """What it has counts, and what stands in its way may go later."""
    disk.quota = 12 * MIB
    first = await store.open_writer(b"0", 8 * MIB, REPLACE)
    second = await store.open_writer(b"1", 8 * MIB, REPLACE)
    await first.write([b"0" * 7 * MIB])
    await second.write([b"1" * 5 * MIB])
    assert isinstance(await failure(second.write([b"1" * MIB])), NoSpace)
    assert isinstance(await failure(first.write([b"0" * MIB])), NoSpace)
    await second.abandon(keep=True)
    await first.abandon(keep=True)

    again = await store.open_writer(b"0", 8 * MIB, REPLACE)
    assert 7 * MIB == again.have
    await again.match(block_digests(b"0" * 7 * MIB), 7 * MIB)
    await again.write([b"0" * MIB])
    assert (await again.commit(digest(b"0" * 8 * MIB), None)).how is Committed.CREATED


# Small files


async def test_small_files_make_way_for_themselves(store, disk):
    """Before they fail, partials that stand in their way go."""
    path = leave_partial(disk.path, "a", b"p" * (20 * MIB - 1000))

    answers = await store.put_small([small_file(b"%d" % number, b"x" * 600) for number in range(5)], REPLACE)

    assert [Committed.CREATED] * 5 == [answer.how for answer in answers]
    assert not path.exists()


async def test_small_files_that_do_not_fit_fail_alone(store, disk):
    """Those that fit arrive, and no partial goes in vain."""
    (disk.path / "full").write_bytes(b"x" * (20 * MIB - 2000))
    path = leave_partial(disk.path, "a", b"p" * 500)

    files = [small_file(b"%d" % number, b"x" * size) for number, size in enumerate((3000, 1000, 600, 400))]
    answers = await store.put_small(files, REPLACE)

    assert [NoSpace, Stored, NoSpace, Stored] == [type(answer) for answer in answers]
    assert path.exists()


async def test_small_files_wait_for_large_ones(store, disk):
    """They are promised nothing, but what is being written may end, and leave room for them."""
    writing = await store.open_writer(b"large", 20 * MIB, REPLACE)
    await writing.write([b"x" * 20 * MIB])
    putting = store.put_small([small_file(b"f", b"x" * 1000)], REPLACE)
    assert not putting.called

    await writing.abandon(keep=True)

    assert [Committed.CREATED] == [answer.how for answer in await putting]
    assert {"f"} == disk.names()


async def test_small_files_do_not_wait_for_ever(store, clock):
    """At some time it is better to say that there is no room."""
    writing = await store.open_writer(b"large", 20 * MIB, REPLACE)
    await writing.write([b"x" * 19 * MIB])
    putting = store.put_small([small_file(b"f", b"x" * 2 * MIB)], REPLACE)
    for number in range(16):
        await writing.write([b"x" * METADATA_BYTES])
        clock.pump([LEDGER_POLL_S] * 8)
        assert putting.called is (number > 14)
    assert [NoSpace] == [type(each) for each in await putting]
    await writing.abandon(keep=False)


# Nobody waits for ever, and nothing is kept for nobody


async def test_who_gives_up_waits_no_more(store, headroom, clock):
    """Whoever waits for room can be cancelled; nothing is kept for him."""
    first = await store.open_writer(b"0", 12 * MIB, REPLACE)
    waiting = store.open_writer(b"1", 12 * MIB, REPLACE)
    waiting.cancel()
    waiting.addErrback(lambda given_up: given_up.trap(CancelledError) and None)
    assert not clock.getDelayedCalls()
    await first.abandon(keep=False)

    second = await store.open_writer(b"1", 12 * MIB, REPLACE)
    await second.abandon(keep=False)
    assert not clock.getDelayedCalls()


async def test_a_store_that_is_closed_waits_no_more(store, headroom, disk):
    """Those who wait are told, those who come later too, and nothing is promised any more."""
    other = opened(disk, headroom)
    await store.open_writer(b"0", 12 * MIB, REPLACE)
    waiting = other.open_writer(b"1", 12 * MIB, REPLACE)
    await other.close()

    assert isinstance(await failure(waiting), StorageError)
    assert isinstance(await failure(other.open_writer(b"1", 12 * MIB, REPLACE)), StorageError)
    await store.close()
    await (await opened(disk, headroom).open_writer(b"2", 20 * MIB, REPLACE)).abandon(keep=False)


async def test_nothing_is_kept_for_who_does_not_send(store, disk, clock):
    """Who announces a file and sends nothing, or next to nothing, keeps nobody out for long."""
    idle = await store.open_writer(b"0", 12 * MIB, REPLACE)
    waiting = store.open_writer(b"1", 12 * MIB, REPLACE)
    clock.pump([LEDGER_POLL_S] * int(STALLED_AFTER_S / LEDGER_POLL_S))
    await idle.write([b"x"])
    assert not waiting.called
    clock.advance(LEDGER_POLL_S)

    assert await finish(await waiting, 12 * MIB) is Committed.CREATED
    await idle.abandon(keep=False)


async def test_something_is_kept_for_who_sends(store, clock):
    """However long it takes; whoever waits is put aside after a time, so that his connection does not count as dead."""
    slow = await store.open_writer(b"0", 12 * MIB, REPLACE)
    waiting = store.open_writer(b"1", 12 * MIB, REPLACE)
    seconds = 0.0
    while not waiting.called:
        await slow.write([b"x" * METADATA_BYTES])
        clock.advance(LEDGER_POLL_S)
        seconds += LEDGER_POLL_S

    assert headroom_module.MAX_WAIT_S < seconds < headroom_module.MAX_WAIT_S + 2 * LEDGER_POLL_S
    assert isinstance(await failure(waiting), Busy)
    await slow.abandon(keep=False)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "broken")])
async def test_what_fails_gives_back_what_it_was_promised(store, monkeypatch, error):
    """A file that cannot be opened after all keeps no room."""

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "Handle", fail)
        await failure(store.open_writer(b"0", 20 * MIB, REPLACE))

    await (await store.open_writer(b"1", 20 * MIB, REPLACE)).abandon(keep=False)


def test_a_connection_that_is_lost_gives_back_what_it_was_promised(disk, clock, headroom):
    """The file that is under way and the one that waits; the next peer finds all of it."""
    served = Served(clock).introduced()
    served.memory = LocalStore(str(disk.path), run_in_thread=at_once, headroom=headroom)
    remote = served.opened()
    served.result(remote.open_writer(b"0", 12 * MIB, REPLACE))
    waiting = remote.open_writer(b"1", 12 * MIB, REPLACE)
    waiting.addErrback(lambda _: None)
    served.flush()
    assert not waiting.called

    served.client_wire.cut()
    served.flush()

    file_system = headroom.ledger.on(os.stat(disk.path).st_dev)
    assert not file_system.promises
    assert not file_system.busy
    assert not disk.names()
    assert not clock.getDelayedCalls()


def test_a_peer_that_closes_a_file_that_waits_is_answered(disk, clock, headroom):
    """It need not wait for its turn to be told, and its turn never comes."""
    served = Served(clock).introduced()
    served.memory = LocalStore(str(disk.path), run_in_thread=at_once, headroom=headroom)
    remote = served.opened()
    served.result(remote.open_writer(b"0", 12 * MIB, REPLACE))
    waiting = remote.open_writer(b"1", 12 * MIB, REPLACE)
    waiting.addErrback(lambda _: None)
    served.flush()
    waiting.cancel()
    served.flush()

    assert 1 == len(served.responders._writes)
    served.client_wire.cut()
    served.flush()


# The age of a partial


async def test_a_partial_that_gains_nothing_grows_old(store, disk, monkeypatch):
    """To try again and again does not make it younger; a byte more does."""
    path = aged(leave_partial(disk.path, "f", b"x" * MIB), 1000)
    before = gained_ns(path.stat())

    for content in (b"", b"y" * 1000, b"x" * MIB):
        writing = await store.open_writer(b"f", 2 * MIB, REPLACE)
        if content:
            await writing.write([content])
        await writing.abandon(keep=True)
        assert before == gained_ns(path.stat())
        path.write_bytes(b"x" * MIB)
        os.utime(path, ns=(before, before))

    writing = await store.open_writer(b"f", 2 * MIB, REPLACE)
    await writing.write([b"x" * (MIB + 1)])
    await writing.abandon(keep=True)
    assert before < gained_ns(path.stat())


# The reserve


async def test_nobody_fills_the_reserve(disk, clock):
    """Neither with large files, nor with small ones, nor by both together."""
    headroom = Headroom(at_once, Ledger(clock), Reserve(4 * MIB))
    store = opened(disk, headroom)
    assert 16 * MIB == (await store.space()).free

    assert isinstance(await failure(store.open_writer(b"0", 17 * MIB, REPLACE)), NoSpace)
    await finish(await store.open_writer(b"1", 14 * MIB, REPLACE), 14 * MIB)
    answers = await store.put_small([small_file(b"s%d" % number, b"x" * MIB) for number in range(4)], REPLACE)

    assert [Stored, Stored, NoSpace, NoSpace] == [type(answer) for answer in answers]
    assert "reserve" in str(answers[3])
    assert 0 == (await store.space()).free


async def test_a_reserve_that_others_touch_ends_a_file(disk, clock, monkeypatch):
    """It is looked at now and then while a large file is written."""
    monkeypatch.setattr(writer_module, "_WRITEBACK_STEP_BYTES", MIB)
    store = opened(disk, Headroom(at_once, Ledger(clock), Reserve(4 * MIB)))
    writing = await store.open_writer(b"0", 14 * MIB, REPLACE)
    await writing.write([b"x" * MIB])
    (disk.path / "theirs").write_bytes(b"t" * 10 * MIB)

    await writing.write([b"x" * 4 * MIB])
    assert isinstance(await failure(writing.write([b"x" * 4 * MIB])), NoSpace)
    await writing.abandon(keep=True)


async def test_holes_that_a_file_system_fills_are_none_of_the_reserve(disk, clock, monkeypatch):
    """FAT writes zeros where a file has holes: a file whose hole reaches into the reserve ends, without that hole."""
    monkeypatch.setattr(writer_module, "holes_are_sure", lambda _fd: False)
    store = opened(disk, Headroom(at_once, Ledger(clock), Reserve(4 * MIB)))
    writing = await store.open_writer(b"0", 64 * MIB, REPLACE, allocated=MIB)
    await writing.write([Hole(15 * MIB)])

    assert isinstance(await failure(writing.write([Hole(2 * MIB)])), NoSpace)
    assert 15 * MIB == await writing.abandon(keep=True)


async def test_a_part_of_the_disk_may_be_the_reserve(disk, clock):
    """It follows the size of the file system, and may change at any time."""
    headroom = Headroom(at_once, Ledger(clock))
    store = opened(disk, headroom)
    headroom.reserve = Reserve(part=0.5)

    assert (10 * MIB, 20 * MIB) == ((await store.space()).free, (await store.space()).size)
    assert isinstance(await failure(store.open_writer(b"0", 11 * MIB, REPLACE)), NoSpace)


async def test_a_file_system_that_does_not_say_has_room(store, disk, monkeypatch):
    """Some network and FUSE file systems answer nothing but zeros: then writing will tell."""
    monkeypatch.setattr(os, "fstatvfs", lambda _: os.statvfs_result((0,) * 10))

    await (await store.open_writer(b"0", 1 << 50, REPLACE)).abandon(keep=False)
