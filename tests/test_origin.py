"""Comparing for somebody who may not read: what he finds out is what he has sent himself, whatever he asks for."""

import contextlib
import errno
import gc
import os
import random
import threading
import tracemalloc
from functools import partial
from types import SimpleNamespace

import pytest
from twisted.internet.threads import deferToThread
from xxhash import xxh3_128_digest

from realize.concurrency.turns import Turns
from realize.config import Right
from realize.errors import NotFound, ProtocolError, RealizeError, VerifyFailed
from realize.fs.names import is_partial
from realize.store import origin
from realize.store.client.store import RemoteStore
from realize.store.deltas import cut
from realize.store.local import existing as finals
from realize.store.local import old_version
from realize.store.local.store import LocalStore
from realize.store.local.versions import Clock
from realize.store.origin import ORIGIN_ATTRIBUTE, digest_from, note_origin, origin_of
from realize.store.server.responders import DirectoryResponders
from realize.values import BLOCK_BYTES, Attributes, Committed, Expected, OnConflict
from realize.wire import costs
from tests.leftovers import leave_partial
from tests.local_stores import at_once, root
from tests.loopback import Pair
from tests.store_helpers import block_digests, digest, failure, random_bytes, small_file

__all__ = ["root"]

REPLACE = OnConflict.REPLACE
EVIL, OTHER = b"evil's key", b"other's key"
SECRET = random_bytes(3 * BLOCK_BYTES + 1000, seed=9)
SHORT = b"the secret of somebody else"
GUESSED = random_bytes(len(SECRET), seed=10)
GUESSES = (
    SECRET,
    GUESSED,
    GUESSED[:-1] + b"!",
    SECRET[:5000] + GUESSED[5000:9000] + SECRET[9000:],
    SHORT,
)
UNKNOWN = [(BLOCK_BYTES // 32, b"?" * 16)] * 32


class Connected(Pair):
    """A connection to a daemon that serves one directory to a peer with that key and these rights."""

    def __init__(self, reactor, root, key, rights):
        turns = Turns(2, 2)

        def welcome(protocol, _greeting):
            self.responders = DirectoryResponders(
                protocol,
                key=key,
                rights={"inbox": rights},
                make_store=lambda _directory, base, whose, _backup_dir: LocalStore(
                    root, base, run_in_thread=at_once, origin=whose
                ),
                turns_of=lambda _: partial(turns.run, "evil"),
                log=self.log,
            )
            protocol.serve(self.responders)
            return "evil"

        super().__init__(reactor, welcome=welcome, chunk=1 << 20)


class Ways:
    """The ways in which somebody who may not read reaches a directory."""

    def __init__(self, root):
        self.root = root
        self.pairs = []

    async def here(self, key):
        """By way of a command, which pulls from him into a directory of its machine."""
        return LocalStore(self.root, run_in_thread=at_once, origin=origin_of(key))

    async def drop_box(self, key):
        """By pushing to a daemon that lets him write only."""
        return RemoteStore(await self.connected(key, {Right.WRITE}), "inbox")

    async def relayed(self, key):
        """By way of a command, which pulls from him, and may read where it pushes to."""
        return RemoteStore(await self.connected(b"a command's key", Right), "inbox", origin=origin_of(key))

    async def connected(self, key, rights):
        """A connection to a daemon that serves the directory to whoever has that key."""
        from twisted.internet import reactor

        pair = Connected(reactor, self.root, key, frozenset(rights))
        self.pairs.append(pair)
        await pair.client.hello()
        return pair.client

    def cut(self):
        """End all connections."""
        for pair in self.pairs:
            pair.client_wire.cut()
            assert [] == pair.log.errors()


@pytest.fixture(params=["here", "drop_box", "relayed"])
def reach(request, root):
    """Opens a store for somebody who may not read, as if nothing had been before."""
    ways = Ways(root)

    async def opened(key=EVIL):
        store = await getattr(ways, request.param)(key)
        await store.open(b"salt")
        return store

    yield opened
    ways.cut()


async def opened(root, whose=None):
    """A store for somebody who may read, or for an origin."""
    store = LocalStore(root, run_in_thread=at_once, origin=whose)
    await store.open(b"salt")
    return store


def plant(root, name, content):
    """Put a file there that comes from nobody."""
    with open(os.path.join(root, name), "wb") as file:
        file.write(content)


async def put(store, name, content):
    """Send a small file."""
    [answer] = await store.put_small([small_file(name, content)], REPLACE)
    return answer.how


async def send(store, name, content, *, commit=True):
    """Send a large file, all of it; or as much as becomes a partial."""
    writer = await store.open_writer(name, len(content) + (not commit), REPLACE)
    await writer.write([content])
    if not commit:
        await writer.abandon(keep=True)
        return None
    return (await writer.commit(digest(content), None)).how


async def settled(store, name, content):
    """Whether it is said that a final file has that content."""
    [answer] = await store.settle([Expected(name, len(content), digest(content))])
    return answer


async def matched(store, name, content):
    """What each comparison of two blocks is told, up to the end."""
    told = []
    digests = block_digests(content)
    for first in range(0, max(1, len(digests)), 2):
        told.append(await store.match_final(name, len(content), first * BLOCK_BYTES, digests[first : first + 2]))
        if not told[-1]:
            break
    return told


async def found(store, name, chunks):
    """Which of the chunks are said to be in the final file."""
    writer = await store.open_writer(name, 1 << 24, REPLACE)
    try:
        return [not wanted for wanted in await writer.offer(chunks)]
    finally:
        await writer.abandon(keep=False)


async def all_that_is_told(store, name, content):
    """What comes out of every comparison with all of that content."""
    pieces = [*UNKNOWN, (5000, xxh3_128_digest(content[BLOCK_BYTES : BLOCK_BYTES + 5000]))]
    return [
        await settled(store, name, content),
        await matched(store, name, content),
        any(await found(store, name, cut(content))),
        any(await found(store, name, pieces)),
    ]


NOTHING = [False, [0], False, False]


async def test_what_others_have_put_there_is_compared_with_nothing(reach, root):
    """Not even all of the content, guessed, is confirmed: of a local file, of a peer that may read, of another one."""
    plant(root, b"local", SECRET)
    await send(await opened(root), b"reader", SECRET)
    await send(await reach(OTHER), b"other", SECRET)
    evil = await reach()

    for name in (b"local", b"reader", b"other"):
        assert await all_that_is_told(evil, name, SECRET) == NOTHING


async def test_what_is_compared_with_nothing_stays_in_the_cache(root, monkeypatch):
    """Others read it, and an origin that could have it dropped again and again would make their disk slow."""
    plant(root, b"local", SECRET)
    store = await opened(root, origin_of(EVIL))
    monkeypatch.setattr(finals, "drop_cache", lambda _fd: pytest.fail("dropped"))

    assert await all_that_is_told(store, b"local", SECRET) == NOTHING


async def test_who_may_read_has_everything_compared(root):
    """There it costs nothing to learn, and saves sending it."""
    plant(root, b"local", SECRET)
    await send(await opened(root, origin_of(OTHER)), b"other", SECRET)
    reader = await opened(root)

    for name in (b"local", b"other"):
        assert await all_that_is_told(reader, name, SECRET) == [True, [2 * BLOCK_BYTES, BLOCK_BYTES + 1000], True, True]


async def test_what_came_from_there_is_compared(reach):
    """Whoever comes back, after a restart of everything, need not send again what has arrived."""
    await send(await reach(), b"f", SECRET)
    await put(await reach(), b"short", SHORT)
    again = await reach()

    assert await settled(again, b"short", SHORT) is True
    assert [2 * BLOCK_BYTES, BLOCK_BYTES + 1000] == await matched(again, b"f", SECRET)
    assert all(await found(again, b"f", cut(SECRET)[:-1]))


async def test_an_empty_file_is_compared_like_any_other(reach, root):
    """The one that came from there is recognised, the one of somebody else is not."""
    await send(await reach(), b"mine", b"")
    plant(root, b"local", b"")
    evil = await reach()

    assert 0 == await evil.match_final(b"mine", 0, 0, [])
    assert isinstance(await failure(evil.match_final(b"local", 0, 0, [])), NotFound)
    assert [True, False] == [await settled(evil, name, b"") for name in (b"mine", b"local")]


async def test_a_difference_shows_at_the_end_only(reach):
    """Which block differs is told to nobody: each may have been changed by somebody else."""
    await send(await reach(), b"f", SECRET)
    evil = await reach()

    for changed in (0, BLOCK_BYTES, len(SECRET) - 1):
        other = SECRET[:changed] + bytes([SECRET[changed] ^ 1]) + SECRET[changed + 1 :]
        assert [2 * BLOCK_BYTES, 0] == await matched(evil, b"f", other)


async def test_files_that_are_half_compared_take_bounded_memory(root, monkeypatch):
    """What is asked about last goes on; of the others there is no telling any more, so they are other files."""
    monkeypatch.setattr(finals, "_MAX_COMPARISONS", 2)
    store = await opened(root, origin_of(EVIL))
    digests = block_digests(SECRET)
    for name in (b"a", b"b", b"c"):
        await send(store, name, SECRET)
        await store.match_final(name, len(SECRET), 0, digests[:1])

    told = [await store.match_final(name, len(SECRET), BLOCK_BYTES, digests[1:]) for name in (b"a", b"b", b"c")]

    assert [0, len(SECRET) - BLOCK_BYTES, len(SECRET) - BLOCK_BYTES] == told


async def test_what_half_compared_files_take_counts_with_the_directory(root):
    """However long their names are: a peer may open many directories, and compare in each."""
    above = b"/".join([b"d" * 250] * 15)
    paths = [b"%s/%d" % (above, number) for number in range(40)]
    store = await opened(root, origin_of(EVIL))
    digests = block_digests(SECRET)
    for path in paths:
        await send(store, path, SECRET)

    tracemalloc.start()
    try:
        for path in list(paths):
            await store.match_final(bytes(bytearray(path)), len(SECRET), 0, digests[:1])
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 32 * 1024 < held < costs.DIRECTORY_BYTES


@pytest.mark.parametrize("after", [SECRET[:-1] + b"!", b"!" + SECRET[1:]], ids=["end", "beginning"])
async def test_what_was_changed_in_place_is_compared_with_nothing(reach, root, after):
    """A local program has written to what came from there; that size and time are as before does not matter."""
    await send(await reach(), b"f", SECRET)
    path = os.path.join(root, b"f")
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.write(after)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    evil = await reach()

    for content in (SECRET, after):
        told = await all_that_is_told(evil, b"f", content)
        assert told == [False, [2 * BLOCK_BYTES, 0], False, False]


async def test_a_copy_of_the_attribute_proves_nothing(reach, root):
    """With the attribute of a file of his, the file of somebody else is still somebody else's."""
    await send(await reach(), b"mine", bytes(len(SECRET)))
    plant(root, b"f", SECRET)
    os.setxattr(os.path.join(root, b"f"), ORIGIN_ATTRIBUTE, os.getxattr(os.path.join(root, b"mine"), ORIGIN_ATTRIBUTE))
    evil = await reach()

    for content in (SECRET, bytes(len(SECRET))):
        told = await all_that_is_told(evil, b"f", content)
        assert told == [False, [2 * BLOCK_BYTES, 0], False, False]


async def test_partials_of_others_do_not_exist(reach, root):
    """How much there is of them is not told, nor is any of it compared, or lost to who writes the same file."""
    leave_partial(root, b"f", SECRET)
    await send(await reach(OTHER), b"f", SECRET, commit=False)
    before = sorted(os.listdir(root))
    evil = await reach()

    [existing] = await evil.describe([b"f"])
    writer = await evil.open_writer(b"f", len(SECRET), REPLACE)
    length = 0
    with contextlib.suppress(ProtocolError):
        length = await writer.match(block_digests(SECRET)[:1], BLOCK_BYTES)
    await writer.write([bytes(10)])
    await writer.abandon(keep=True)
    await put(evil, b"f", SHORT)

    assert existing.partial_size is None
    assert 0 == writer.have == length
    assert 2 == len(before)
    assert set(before) < set(os.listdir(root))


async def test_his_own_partial_is_gone_on_with(reach, root):
    """After a restart of everything it is known how much there is, and that it is the same."""
    await send(await reach(), b"f", SECRET, commit=False)
    again = await reach()

    [existing] = await again.describe([b"f"])
    writer = await again.open_writer(b"f", len(SECRET) + 5, REPLACE)
    length = await writer.match(block_digests(SECRET), len(SECRET))
    await writer.write([b"12345"])
    stored = await writer.commit(digest(SECRET + b"12345"), None)

    assert len(SECRET) == existing.partial_size == writer.have == length
    assert Committed.CREATED is stored.how
    assert [b"f"] == os.listdir(root)


async def test_two_who_may_not_read_write_the_same_file(reach):
    """Neither waits for the other, sees what the other sends, or finds it in the way; the last to commit is final."""
    one, two = await reach(), await reach(OTHER)
    first = await one.open_writer(b"f", 5, REPLACE)
    second = await two.open_writer(b"f", 5, REPLACE)
    for writer in (first, second):
        await writer.write([b"12345"])

    assert Committed.CREATED is (await first.commit(digest(b"12345"), None)).how
    assert Committed.REPLACED is (await second.commit(digest(b"12345"), None)).how
    assert [False, True] == [await settled(store, b"f", b"12345") for store in (one, two)]


async def test_rights_that_change_open_no_hole(root):
    """Who could read once has left his part of a file where who cannot does not look, and the other way round."""
    reader, drop_box = await opened(root), await opened(root, origin_of(EVIL))
    await send(reader, b"read", SECRET, commit=False)
    await send(drop_box, b"written", SECRET, commit=False)

    for store, sizes in ((reader, [len(SECRET), None]), (drop_box, [None, len(SECRET)])):
        assert sizes == [each.partial_size for each in await store.describe([b"read", b"written"])]


async def test_a_peer_cannot_pass_for_another_origin(root):
    """What a peer says that it passes on counts for itself only, whether it may read or not."""
    ways = Ways(root)
    claimed = origin_of(OTHER)
    store = await ways.drop_box(OTHER)
    await store.open(b"salt")
    await send(store, b"f", SECRET)

    for rights in ({Right.WRITE}, Right):
        store = RemoteStore(await ways.connected(EVIL, rights), "inbox", origin=claimed)
        await store.open(b"salt")
        assert await all_that_is_told(store, b"f", SECRET) == NOTHING
    ways.cut()


async def test_where_no_attributes_are_kept_nothing_is_compared(reach, monkeypatch):
    """Files arrive there all the same; whose they are is not known."""

    def refused(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(origin.os, "setxattr", refused)
    store = await reach()

    assert Committed.CREATED is await put(store, b"short", SHORT)
    assert Committed.CREATED is await send(store, b"f", SECRET)
    assert await all_that_is_told(store, b"f", SECRET) == NOTHING
    assert await settled(store, b"short", SHORT) is False
    assert Committed.REPLACED is await send(store, b"f", SECRET)


@pytest.mark.parametrize("way", [put, send])
async def test_it_is_durable_whose_a_file_is(root, monkeypatch, way):
    """The attribute is there when the content is made durable, before the file gets its name and its permissions."""
    seen, fsync = [], os.fsync

    def noted(fd):
        if is_partial(os.path.basename(os.fsencode(os.readlink(f"/proc/self/fd/{fd}")))):
            seen.append(digest_from(fd, origin_of(EVIL)))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    await way(await opened(root, origin_of(EVIL)), b"f", SHORT)

    assert [digest(SHORT)] == seen


async def test_only_files_of_who_may_not_read_have_the_attribute(root):
    """All others are written as ever."""
    store = await opened(root)
    await put(store, b"short", SHORT)
    await send(store, b"f", SECRET)

    assert [] == [name for name in os.listdir(root) if os.listxattr(os.path.join(root, name))]


async def test_the_attribute_does_not_show_the_key(root):
    """Nor does it take more than an inode has to spare: 256 bytes, of which ext4 uses 160 itself."""
    await put(await opened(root, origin_of(EVIL)), b"f", SHORT)
    value = os.getxattr(os.path.join(root, b"f"), ORIGIN_ATTRIBUTE)

    assert EVIL not in value
    assert value.endswith(digest(SHORT))
    assert 4 + 16 + len(ORIGIN_ATTRIBUTE) - len("user.") + len(value) + 4 <= 256 - 160


async def test_a_damaged_attribute_says_nothing(root):
    """Whatever somebody has made of it."""
    await put(await opened(root, origin_of(EVIL)), b"f", SHORT)
    path = os.path.join(root, b"f")
    value = os.getxattr(path, ORIGIN_ATTRIBUTE)

    for damaged in (b"", value[:-1], value + b"!", b"\x02" + value[1:]):
        os.setxattr(path, ORIGIN_ATTRIBUTE, damaged)
        with open(path, "rb") as file:
            assert digest_from(file.fileno(), origin_of(EVIL)) is None


async def test_a_file_that_may_not_be_written_to_says_whose_it_is(root):
    """The attribute comes before the permissions."""
    store = await opened(root, origin_of(EVIL))
    await store.put_small([small_file(b"f", SHORT, Attributes(5, 0o400))], REPLACE)

    assert await settled(store, b"f", SHORT) is True


# Whatever is asked


QUESTIONS = ["settle", "match", "describe", "put", "open", "blocks", "offer", "write", "end", "change"]


class World:
    """A directory with files of others that hold ``secret``, which somebody asks about who may not read it."""

    names = (b"local", b"reader", b"mine", b"changed", b"new")

    def __init__(self, path, secret):
        os.mkdir(path)
        self.root = os.fsencode(path)
        self.secret = secret
        self.store = None
        self.writers = {}

    async def fill(self):
        """Put the secret there in all ways, and beside it what he has sent himself, part of which is overwritten."""
        plant(self.root, b"local", self.secret)
        reader = await opened(self.root)
        await send(reader, b"reader", self.secret)
        for name in self.names:
            await send(reader, name, self.secret[:BLOCK_BYTES], commit=False)
        self.store = await opened(self.root, origin_of(EVIL))
        for name in (b"mine", b"changed"):
            await send(self.store, name, SECRET)
        self.overwrite()

    def overwrite(self):
        """A local program writes some of the secret into a file of his, wherever that may be by now."""
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self.root, b"changed"), "r+b") as file:
            file.seek(5000)
            file.write(self.secret[5000:9000])

    async def answer(self, rng):
        """What one question is answered, without what tells the files of the two worlds apart by their very being."""
        try:
            return await self._answer(rng)
        except RealizeError as error:
            return type(error)

    async def _answer(self, rng):
        name, guess = rng.choice(self.names), rng.choice(GUESSES)
        match rng.choice([*QUESTIONS, "blocks", "offer", "offer"]):
            case "settle":
                return await settled(self.store, name, guess)
            case "match":
                return await matched(self.store, name, guess)
            case "describe":
                [found] = await self.store.describe([name])
                return found.final_size, found.partial_size
            case "put":
                [stored] = await self.store.put_small(
                    [small_file(b"short", guess[:BLOCK_BYTES])], rng.choice(list(OnConflict))
                )
                return getattr(stored, "how", type(stored))
            case "open" if name not in self.writers:
                self.writers[name] = await self.store.open_writer(name, len(guess) + rng.choice([0, 7]), REPLACE)
                return self.writers[name].have
            case "blocks" if name in self.writers:
                length = rng.choice([BLOCK_BYTES, 2 * BLOCK_BYTES, len(guess)])
                return await self.writers[name].match(block_digests(guess[:length]), length)
            case "offer" if name in self.writers:
                first = rng.choice([0, 77, BLOCK_BYTES])
                return await self.writers[name].offer(cut(guess[first : first + BLOCK_BYTES]))
            case "write" if name in self.writers:
                return await self.writers[name].write([guess[: rng.choice([100, BLOCK_BYTES])]])
            case "end" if name in self.writers:
                writer = self.writers.pop(name)
                if rng.random() < 0.5:
                    return (await writer.commit(digest(guess), None)).how
                return await writer.abandon(keep=rng.random() < 0.7)
            case "change":
                self.overwrite()
        return None


@pytest.mark.parametrize("seed", range(8))
async def test_two_worlds_cannot_be_told_apart(tmp_path, monkeypatch, seed):
    """Where only the content of others' files differs, the same questions get the same answers, in whatever order."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)  # which takes its time, and changes nothing here
    worlds = [World(tmp_path / "guessed", GUESSED), World(tmp_path / "other", random_bytes(len(SECRET), seed=11))]
    for world in worlds:
        await world.fill()
    told = []
    for number in range(200):
        told.append([await world.answer(random.Random(f"{seed} {number}")) for world in worlds])
        assert told[-1][0] == told[-1][1], (number, told[-1])
    for world in worlds:
        await world.store.close()

    assert 5 < len({repr(answer) for answer, _ in told})


# While it is compared


async def replacing(root):
    """A file that came from there, and a store that is about to replace it by a longer version."""
    await send(await opened(root, origin_of(EVIL)), b"f", SECRET)
    store = await opened(root, origin_of(EVIL))
    return await store.open_writer(b"f", len(SECRET) + 1, REPLACE)


def change(root):
    """A local program writes to the file in place, and makes it look as old as before."""
    path = os.path.join(root, b"f")
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def test_a_change_after_the_proof_is_not_found(root):
    """What is offered after the old version was proven is compared only as long as it is that version."""
    writer = await replacing(root)
    await writer.offer(UNKNOWN)
    change(root)
    wanted = await writer.offer(cut(SECRET[BLOCK_BYTES:]))
    await writer.abandon(keep=False)

    assert {True} == set(wanted)


async def test_a_change_before_it_is_copied_makes_the_transfer_fail(root, monkeypatch):
    """What was found is taken from nothing but the proven version: else who guesses the digest would learn of it."""
    writer = await replacing(root)
    plan = writer._partial.plan

    def changed(runs):
        change(root)
        plan(runs)

    monkeypatch.setattr(writer._partial, "plan", changed)

    assert isinstance(await failure(writer.offer(cut(SECRET))), VerifyFailed)
    await writer.abandon(keep=True)


async def test_what_a_program_may_be_writing_is_not_found(root):
    """Stores through a mapping need not show: a file that is open for writing is compared with nothing."""
    writer = await replacing(root)
    with open(os.path.join(root, b"f"), "r+b"):
        wanted = await writer.offer(cut(SECRET))
    await writer.abandon(keep=False)

    assert {True} == set(wanted)


async def test_what_is_found_while_other_parts_are_copied_counts(root, monkeypatch):
    """Both ask, in two threads, whether a program may be writing to the file, and neither is taken for that program."""
    writer = await replacing(root)
    await writer.offer(UNKNOWN)
    old, asked = writer._partial._old, []
    both = threading.Event()

    def asking(fd):
        asked.append(fd)
        if len(asked) - asked.count(None) > 1:
            both.set()
        both.wait(0.2)
        asked[asked.index(fd)] = None
        return False

    monkeypatch.setattr(old_version, "is_open_for_writing", asking)
    reads = [deferToThread(old.read, number * 100, memoryview(bytearray(100))) for number in range(2)]

    assert [100, 100] == [await each for each in reads]
    assert not both.is_set()
    await writer.abandon(keep=False)


async def test_a_long_proof_goes_in_slices(root, monkeypatch):
    """Others may use the thread in between."""
    monkeypatch.setattr(old_version, "SLICE_BYTES", BLOCK_BYTES)
    writer = await replacing(root)
    slices = []
    monkeypatch.setattr(old_version, "blocks", lambda fd, *where: (slices.append(where), finals.blocks(fd, *where))[1])
    wanted = await writer.offer(cut(SECRET)[:-1])
    await writer.abandon(keep=False)

    assert {False} == set(wanted)
    assert [
        (BLOCK_BYTES, 0),
        (BLOCK_BYTES, BLOCK_BYTES),
        (BLOCK_BYTES, 2 * BLOCK_BYTES),
        (1000, 3 * BLOCK_BYTES),
    ] == slices


@pytest.mark.parametrize("sent", [BLOCK_BYTES, 0])
@pytest.mark.parametrize("ended", ["by a writer", "by the clock"])
async def test_a_proof_that_is_cut_short_proves_nothing(root, monkeypatch, sent, ended):
    """What was read until then is all that was sent, but somebody else has appended to the file since."""
    await send(await opened(root, origin_of(EVIL)), b"f", GUESSED[:sent])
    with open(os.path.join(root, b"f"), "ab") as file:
        file.write(SECRET)
    monkeypatch.setattr(old_version, "SLICE_BYTES", BLOCK_BYTES)
    if ended == "by the clock":
        clock = SimpleNamespace(monotonic=iter([0.0] + [0.0] * bool(sent) + [1000.0] * 9).__next__)
        monkeypatch.setattr(old_version, "time", clock)
    store = await opened(root, origin_of(EVIL))
    writer = await store.open_writer(b"f", 8 * BLOCK_BYTES, REPLACE)
    with open(os.path.join(root, b"f"), "ab") if ended == "by a writer" else contextlib.nullcontext():
        await writer.offer(UNKNOWN)
    wanted = await writer.offer(cut(SECRET))
    await writer.abandon(keep=False)

    assert {True} == set(wanted)


@pytest.mark.parametrize("key", [None, EVIL])
async def test_only_what_is_to_be_proven_has_to_settle(root, key):
    """Who may read does not wait: what is taken from the file is a guess, and the digest of the whole proves it."""
    await send(await opened(root, origin_of(EVIL)), b"f", SECRET)
    now, slept = [os.stat(os.path.join(root, b"f")).st_ctime_ns], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += round(seconds * 1e9)

    whose = None if key is None else origin_of(key)
    clock = Clock(now_ns=lambda: now[0], sleep=sleep)
    store = LocalStore(root, run_in_thread=at_once, origin=whose, clock=clock)
    await store.open(b"salt")
    writer = await store.open_writer(b"f", len(SECRET), REPLACE)
    wanted = await writer.offer(cut(SECRET))
    await writer.abandon(keep=False)

    assert {False} == set(wanted)
    assert (key is not None) == bool(slept)


@pytest.mark.parametrize("what", ["Search", "digest_from"])
async def test_an_old_version_that_cannot_be_looked_at_is_closed(root, monkeypatch, what):
    """There was no memory for what looks for chunks in it."""
    writer = await replacing(root)

    def fails(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr(old_version, what, fails)
    with pytest.raises(MemoryError):
        await writer.offer(cut(SECRET))
    await writer.abandon(keep=False)


@pytest.mark.parametrize(
    ("there", "places"),
    [(0, [0]), (1, [0, 1]), (BLOCK_BYTES + 5, [0, BLOCK_BYTES, BLOCK_BYTES + 5])],
    ids=["none", "byte", "more"],
)
async def test_a_proof_ends_where_the_content_does(root, monkeypatch, there, places):
    """Whatever the size says, which some mounts make too large: nobody reads nothing for minutes."""
    monkeypatch.setattr(old_version, "SLICE_BYTES", BLOCK_BYTES)
    writer = await replacing(root)
    asked = []

    def ends(fd, length, offset):
        assert len(asked) < 9
        asked.append(offset)
        return finals.blocks(fd, max(0, min(length, there - offset)), offset)

    monkeypatch.setattr(old_version, "blocks", ends)
    wanted = await writer.offer(cut(SECRET))
    await writer.abandon(keep=False)

    assert {True} == set(wanted)
    assert places == asked


async def test_a_proof_has_an_end(root, monkeypatch):
    """Where it takes too long all is sent, for the sender waits."""
    monkeypatch.setattr(old_version, "PROOF_TIMEOUT_S", -1.0)
    writer = await replacing(root)
    wanted = await writer.offer(cut(SECRET))
    await writer.abandon(keep=False)

    assert {True} == set(wanted)


def test_who_stands_behind_whom_counts():
    """Keys and origins are not to be run together."""
    parts = [(), (b"",), (b"a",), (b"a", b""), (b"", b"a"), (b"a", b"b"), (b"ab",), (b"b", b"a")]

    assert len(parts) == len({origin_of(*each) for each in parts})
    assert {32} == {len(origin_of(*each)) for each in parts}


def test_nobody_needs_an_attribute_who_may_read(tmp_path):
    """Nothing is set without an origin."""
    with open(tmp_path / "f", "wb") as file:
        note_origin(file.fileno(), None, bytes(32))
        assert [] == os.listxattr(file.fileno())
