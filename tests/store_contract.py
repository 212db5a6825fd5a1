"""The contract that every store keeps.

`StoreContract` is a collection of tests: subclass it, define how to make a store and how to look behind it, and pytest
(with pytest-twisted) runs the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from realize.errors import (
    BadName,
    Busy,
    Conflict,
    NoSpace,
    NotFound,
    NotRegular,
    ProtocolError,
    RealizeError,
    SourceChanged,
    VerifyFailed,
)
from realize.fs.syscalls import read_umask
from realize.store import deltas
from realize.store.interfaces import IListing, IReader, IStore, IWriter
from realize.store.local.partial_marks import NOTE
from realize.values import (
    BLOCK_BYTES,
    MAX_SMALL_BYTES,
    SPAN_BYTES,
    ZERO_BLOCK,
    Attributes,
    Chunk,
    Committed,
    Directory,
    Entry,
    Existing,
    Expected,
    Fetched,
    Hole,
    Kind,
    OnConflict,
    Removal,
    Seen,
    Siblings,
    Sized,
    Stored,
    Use,
    Vacant,
    Version,
    WhereKind,
)
from tests.extras_contract import ExtrasContract
from tests.link_contract import LinkContract
from tests.memory_store import MemoryStore
from tests.store_helpers import (
    BAD_NAMES,
    LARGE_CONTENT,
    ODD_NAMES,
    block_digests,
    digest,
    failure,
    filled,
    how,
    listed,
    listed_files,
    partial_path,
    random_bytes,
    read_all,
    read_to_end,
    small_file,
)

_T = TypeVar("_T")


class Behind:
    """What `StoreContract` uses to put things behind a store and to look at them, without the store."""

    def plant(self, path: bytes, content: bytes) -> None:
        """Put a final file there, with its directories, replacing an existing one."""
        raise NotImplementedError

    def plant_sparse(self, path: bytes, content: bytes) -> None:
        """Put a final file there whose blocks of zeros are holes."""
        raise NotImplementedError

    def plant_partial(self, path: bytes, content: bytes) -> None:
        """Put a partial of a large file there, as an interrupted transfer leaves it."""
        raise NotImplementedError

    def plant_directory(self, path: bytes, attributes: Attributes) -> None:
        """Make a directory and its missing parents; or change the attributes of an existing one."""
        raise NotImplementedError

    def writing(self, path: bytes) -> AbstractContextManager[object]:
        """Within this context, a program has the final file open for writing."""
        raise NotImplementedError

    def content(self, path: bytes) -> bytes | None:
        """The content of the final file; None if there is none."""
        raise NotImplementedError

    def attributes(self, path: bytes) -> Attributes | None:
        """The attributes of a final file or a directory; None if there is none."""
        raise NotImplementedError

    def partial(self, path: bytes) -> bytes | None:
        """The content of the partial of a large file; None if there is none."""
        raise NotImplementedError

    def plant_link(self, path: bytes, target: bytes) -> None:
        """Put a symlink there, with its directories."""
        raise NotImplementedError

    def target(self, path: bytes) -> bytes | None:
        """The target of a symlink; None if there is none."""
        raise NotImplementedError


@define
class MemoryBehind(Behind):
    """What is behind a `MemoryStore`."""

    store: MemoryStore = field()

    def plant(self, path: bytes, content: bytes) -> None:
        """Put a final file there."""
        self.store.plant(path, content)

    def plant_sparse(self, path: bytes, content: bytes) -> None:
        """Put a final file there, and remember that it has holes."""
        self.store.plant(path, content)
        self.store.sparse.add(path)

    def plant_partial(self, path: bytes, content: bytes) -> None:
        """Put a partial there."""
        self.store.plant_partial(path, content)

    def plant_directory(self, path: bytes, attributes: Attributes) -> None:
        """Make a directory, or change it."""
        self.store.plant_directory(path, attributes)

    def attributes(self, path: bytes) -> Attributes | None:
        """The attributes of a final file or a directory."""
        file = self.store.files.get(path)
        return self.store.directories.get(path) if file is None else file.attributes

    @contextmanager
    def writing(self, path: bytes) -> Iterator[None]:
        """Note that the file is open for writing."""
        self.store.written.add(path)
        yield
        self.store.written.remove(path)

    def content(self, path: bytes) -> bytes | None:
        """The content of the final file."""
        file = self.store.files.get(path)
        return None if file is None else file.content

    def partial(self, path: bytes) -> bytes | None:
        """The content of the partial."""
        return self.store.partials.get(path)

    def plant_link(self, path: bytes, target: bytes) -> None:
        """Put a symlink there."""
        self.store.plant_link(path, target)

    def target(self, path: bytes) -> bytes | None:
        """The target of a symlink."""
        link = self.store.symlinks.get(path)
        return None if link is None else link.target


def _wanted(content: bytes, chunks: Sequence[Chunk], wanted: Sequence[bool]) -> list[bytes]:
    pieces, position = list[bytes](), 0
    for (length, _), want in zip(chunks, wanted, strict=True):
        if want:
            pieces.append(content[position : position + length])
        position += length
    return pieces


async def _send_delta(writer: IWriter, content: bytes) -> int:
    """Offer all of the content, ahead of what is wanted of it, and write the wanted part; returns how many bytes."""
    spans = [content[start : start + SPAN_BYTES] for start in range(0, len(content), SPAN_BYTES)]
    offers = [writer.offer(deltas.cut(span)) for span in spans]
    sent = 0
    for span, offer in zip(spans, offers, strict=True):
        pieces = _wanted(span, deltas.cut(span), await offer)
        if pieces:
            await writer.write(pieces)
        sent += sum(map(len, pieces))
    return sent


async def _described(store: IStore, path: bytes, times: int) -> list[Existing]:
    """What the store says about a name, asked that many times."""
    answers = [(await store.describe([path]))[0] for _ in range(times)]
    return [answer for answer in answers if isinstance(answer, Existing)]


async def _replace(
    store: IStore, path: bytes, content: bytes, replaces: Seen | None, *, large: bool
) -> Stored | RealizeError:
    """Send a file that may replace that version only."""
    if not large:
        file = evolve(small_file(path, content), replaces=replaces)
        [answer] = await store.put_small([file], OnConflict.REPLACE)
        return answer
    writer = await store.open_writer(path, len(content), OnConflict.REPLACE, replaces=replaces)
    await writer.write([content])
    try:
        return await writer.commit(digest(content), None)
    except Busy as busy:
        return busy


async def _keep_both(
    store: IStore, path: bytes, content: bytes, number: int = 0, *, large: bool
) -> Stored | RealizeError:
    """Send a file that gets a numbered name if its own is taken."""
    if not large:
        file = evolve(small_file(path, content), number=number)
        [answer] = await store.put_small([file], OnConflict.RENAME)
        return answer
    writer = await store.open_writer(path, len(content), OnConflict.RENAME, number=number)
    await writer.write([content])
    try:
        return await writer.commit(digest(content), None)
    except Busy as busy:
        return busy


def _mode(behind: Behind, path: bytes) -> int | None:
    """The permission bits of a file or directory."""
    attributes = behind.attributes(path)
    return None if attributes is None else attributes.mode


async def _all(waiting: Sequence[Deferred[_T]]) -> list[_T]:
    return [await each for each in waiting]


_DATA = random_bytes(100_000, seed=7)
_FULL = bytes(BLOCK_BYTES - len(_DATA))
SPARSE_CONTENT = ZERO_BLOCK + _DATA + _FULL + 2 * ZERO_BLOCK + _FULL + _DATA + 2 * ZERO_BLOCK
"""Content that begins and ends with a hole, and has one in the middle."""

SPARSE_PIECES = (Hole(BLOCK_BYTES), _DATA, _FULL, Hole(2 * BLOCK_BYTES), _FULL, _DATA, Hole(2 * BLOCK_BYTES))
"""The same in pieces."""


class StoreContract(LinkContract, ExtrasContract):
    """Tests that every store passes; a subclass defines `make_store`."""

    async def make_store(self) -> tuple[IStore, Behind]:
        """A store of an empty directory, not opened yet, and what is behind it."""
        raise NotImplementedError

    async def opened(self) -> tuple[IStore, Behind]:
        """A store, opened."""
        store, behind = await self.make_store()
        await store.open(b"salt")
        return store, behind

    async def test_provides_the_interfaces(self) -> None:
        """The store, its listings, readers and writers have the methods that their interfaces name."""
        store, behind = await self.opened()
        behind.plant(b"f", b"content")
        listing = store.walk()
        reader = await store.open_reader(b"f")
        writer = await store.open_writer(b"w", 1, OnConflict.REPLACE)

        assert verifyObject(IStore, store)
        assert verifyObject(IListing, listing)
        assert verifyObject(IReader, reader)
        assert verifyObject(IWriter, writer)
        listing.close()
        reader.close()
        await store.close()

    @pytest.mark.parametrize("content", [SPARSE_CONTENT, 3 * ZERO_BLOCK])
    async def test_a_file_with_holes_is_read_like_any_other(self, content: bytes) -> None:
        """Its holes are zeros, in the content, in the digest and in the digests of blocks."""
        store, behind = await self.opened()
        behind.plant_sparse(b"f", content)
        reader = await store.open_reader(b"f")
        digests = await reader.block_digests(len(content))
        read = await read_all(reader)

        assert block_digests(content) == digests
        assert (True, digest(content)) == (content == read, await reader.finish())
        reader.close()
        await store.close()

    async def test_holes_are_written(self) -> None:
        """What is there is what had no holes; one at the end belongs to the file, too."""
        store, behind = await self.opened()
        size = len(SPARSE_CONTENT)
        writer = await store.open_writer(b"f", size, OnConflict.FAIL, allocated=2 * BLOCK_BYTES)
        await writer.write(SPARSE_PIECES[:3])
        await writer.write(SPARSE_PIECES[3:])
        stored = await writer.commit(digest(SPARSE_CONTENT), None)

        assert Committed.CREATED is stored.how
        assert SPARSE_CONTENT == behind.content(b"f")
        await store.close()

    async def test_a_partial_that_ends_with_a_hole_is_gone_on_with(self) -> None:
        """The hole counts as what is there; more of it may follow."""
        store, behind = await self.opened()
        size = len(SPARSE_CONTENT)
        writer = await store.open_writer(b"f", size, OnConflict.FAIL)
        await writer.write(SPARSE_PIECES[:4])
        have = 4 * BLOCK_BYTES
        kept = await writer.abandon(keep=True)
        writer = await store.open_writer(b"f", size, OnConflict.FAIL)
        digests = block_digests(SPARSE_CONTENT[:have])
        matched = await writer.match(digests, have)
        await writer.write([*SPARSE_PIECES[4:]])

        assert [have] * 3 == [kept, writer.have, matched]
        assert Committed.CREATED is (await writer.commit(digest(SPARSE_CONTENT), None)).how
        assert SPARSE_CONTENT == behind.content(b"f")
        await store.close()

    async def test_a_hole_takes_the_place_of_what_the_partial_has_there(self) -> None:
        """What an earlier attempt has left, of another version, does not show through."""
        store, behind = await self.opened()
        behind.plant_partial(b"f", b"!" * 3 * BLOCK_BYTES)
        writer = await store.open_writer(b"f", 2 * BLOCK_BYTES, OnConflict.FAIL)
        await writer.write([Hole(2 * BLOCK_BYTES)])
        await writer.commit(digest(2 * ZERO_BLOCK), None)

        assert 2 * ZERO_BLOCK == behind.content(b"f")
        await store.close()

    async def test_holes_are_part_of_a_delta(self) -> None:
        """They are not sent, wherever the old version has its own."""
        store, behind = await self.opened()
        behind.plant_sparse(b"f", 3 * ZERO_BLOCK + _DATA + 5 * ZERO_BLOCK)
        new = 4 * ZERO_BLOCK + _DATA + 9 * ZERO_BLOCK
        writer = await store.open_writer(b"f", len(new), OnConflict.REPLACE)
        sent = await _send_delta(writer, new)

        assert Committed.REPLACED is (await writer.commit(digest(new), None)).how
        assert new == behind.content(b"f")
        assert sent < 2 * len(_DATA)
        await store.close()

    async def test_a_sparse_file_is_read_in_spans(self) -> None:
        """What is wanted of them comes, whether it is a hole or not; the rest after that."""
        store, behind = await self.opened()
        content = 5 * ZERO_BLOCK + SPARSE_CONTENT + _DATA
        behind.plant_sparse(b"f", content)
        reader = await store.open_reader(b"f")
        spans = [await reader.cut(), await reader.cut()]
        first = filled(await reader.pick([True] * len(spans[0])))
        second = filled(await reader.pick([True] * len(spans[1])))

        assert content == b"".join([*first, *second, await read_all(reader)])
        assert digest(content) == await reader.finish()
        reader.close()
        await store.close()

    async def test_a_final_file_with_holes_is_compared(self) -> None:
        """With a source that has the same, with or without holes, and with one that has not."""
        store, behind = await self.opened()
        behind.plant_sparse(b"f", SPARSE_CONTENT)
        size, digests = len(SPARSE_CONTENT), block_digests(SPARSE_CONTENT)
        other = [*digests[:-1], digest(_DATA)]

        assert size == await store.match_final(b"f", size, 0, digests)
        assert size - BLOCK_BYTES == await store.match_final(b"f", size, 0, other)
        await store.close()

    async def test_nothing_is_on_its_way_that_nobody_asked_for(self) -> None:
        """When everything has arrived, or was abandoned, nothing travels any more."""
        store, behind = await self.opened()
        behind.plant(b"f", b"content")
        reader = await store.open_reader(b"f")
        writer = await store.open_writer(b"w", 2, OnConflict.REPLACE)
        given_up = await store.open_writer(b"x", 2, OnConflict.REPLACE)
        await read_all(reader)
        await writer.write([b"12"])
        await given_up.write([b"1"])

        under_way = store.in_transit()
        reader.close()
        await writer.commit(digest(b"12"), None)
        await given_up.abandon(keep=False)
        await store.put_small([small_file(b"s", b"small")], OnConflict.REPLACE)
        await store.read_small([b"s"])

        sizes = {b"f": 7, b"w": 2, b"x": 1}
        if under_way is not None:
            assert sizes.keys() == {path for travelled in under_way for path in travelled.paths}
            assert all(travelled.amount <= sizes[travelled.paths[0]] for travelled in under_way)
        assert not store.in_transit()
        await store.close()

    async def test_says_where_it_is(self) -> None:
        """A directory says that it is one, and has an identity."""
        store, _ = await self.make_store()

        where = await store.open(b"salt")

        assert where.kind is WhereKind.DIRECTORY
        assert where.identities
        assert where.now_ns > 0
        await store.close()

    async def test_the_place_depends_on_the_salt(self) -> None:
        """Identities are meaningless without the salt."""
        store, _ = await self.make_store()

        one, other = await store.open(b"salt"), await store.open(b"pepper")

        assert one.identities[0] != other.identities[0]
        await store.close()

    async def test_measures_its_space(self) -> None:
        """The free space is a part of the whole."""
        store, _ = await self.opened()

        space = await store.space()

        assert 0 <= space.free <= space.size
        assert space.size > 0
        await store.close()

    async def test_what_can_never_fit_is_refused_before_it_is_sent(self) -> None:
        """Nothing of such a file is written, and one that fits goes on."""
        store, behind = await self.opened()
        behind.plant_partial(b"other", b"kept")

        error = await failure(store.open_writer(b"f", 1 << 61, OnConflict.REPLACE))

        assert isinstance(error, NoSpace)
        assert behind.partial(b"f") is None
        assert behind.partial(b"other") == b"kept"
        writing = await store.open_writer(b"g", 3, OnConflict.REPLACE)
        await writing.write([b"123"])
        assert (await writing.commit(digest(b"123"), None)).how is Committed.CREATED
        await store.close()

    async def test_a_written_trial_leaves_nothing_behind(self) -> None:
        """Trying whether writing works leaves no visible change."""
        store, behind = await self.opened()
        behind.plant(b"f", b"content")

        assert await store.try_write() >= 0
        assert [entry.path for entry in await listed(store.walk(partials=True))] == [b"f"]
        assert behind.content(b"f") == b"content"
        await store.close()

    async def test_lists_files_in_path_order(self) -> None:
        """A listing names each file once, with its size, in the order of the paths as bytes, and then ends."""
        store, behind = await self.opened()
        paths = [b"a.txt", b"a/x", b"a/y", b"b", b"c/d/e"]
        for path in reversed(paths):
            behind.plant(path, path)

        entries = await listed_files(store.walk())

        assert paths == [entry.path for entry in entries]
        assert {Kind.FILE} == {entry.kind for entry in entries}
        assert [len(path) for path in paths] == [entry.size for entry in entries]
        await store.close()

    async def test_lists_directories_before_what_is_in_them(self) -> None:
        """Each directory is an entry with its modification time and permission bits, also an empty one."""
        store, behind = await self.opened()
        behind.plant(b"d/e/f", b"content")
        behind.plant(b"d.txt", b"content")
        behind.plant_directory(b"d/e", Attributes(1_000_000_000, 0o750))
        behind.plant_directory(b"empty", Attributes(2_000_000_000, 0o705))

        entries = {entry.path: entry for entry in await listed(store.walk())}

        assert list(entries) == [b"d.txt", b"d", b"d/e", b"d/e/f", b"empty"]
        assert entries[b"d/e"] == Entry(b"d/e", Kind.DIRECTORY, mtime_ns=1_000_000_000, mode=0o750)
        assert entries[b"empty"] == Entry(b"empty", Kind.DIRECTORY, mtime_ns=2_000_000_000, mode=0o705)
        await store.close()

    async def test_lists_nothing_after_close(self) -> None:
        """A listing that was closed is at its end."""
        store, behind = await self.opened()
        behind.plant(b"a", b"")
        listing = store.walk()
        listing.close()

        assert await listing.next_page() == []
        await store.close()

    async def test_lists_partials_only_if_asked(self) -> None:
        """A partial is listed under its final name, with its size, if partials are wanted; otherwise it is left out."""
        store, behind = await self.opened()
        behind.plant_partial(b"d/f", b"1234")

        assert await listed_files(store.walk()) == [Entry(partial_path(b"d/f"), Kind.LEFT, note=NOTE)]
        [entry] = await listed_files(store.walk(partials=True))
        assert (entry.path, entry.kind, entry.size) == (b"d/f", Kind.PARTIAL, 4)
        await store.close()

    async def test_describes_what_is_there(self) -> None:
        """Finals, partials, directories and absent names are told apart, in the order of the question."""
        store, behind = await self.opened()
        behind.plant(b"final", b"12345")
        behind.plant_partial(b"partial", b"123")
        behind.plant(b"directory/f", b"")

        final, partial, directory, absent, deep = await store.describe(
            [b"final", b"partial", b"directory", b"absent", b"no/such/directory"]
        )

        assert isinstance(final, Existing)
        assert (final.final_size, final.partial_size, final.obstacle) == (5, None, "")
        assert final.identity
        assert final.ctime_ns > 0
        assert partial == Existing(partial_size=3)
        assert directory == Existing(obstacle="directory")
        assert absent == Existing()
        assert deep == Existing()
        await store.close()

    async def test_says_what_has_come_since_the_run_began(self) -> None:
        """Recent is whatever came since the run started, also for a caller that connects again."""
        store, behind = await self.opened()
        behind.plant(b"theirs", b"1")
        await store.put_small([small_file(b"ours", b"2")], OnConflict.REPLACE)

        first = await store.describe([b"theirs", b"ours", b"absent"])
        await store.open(b"salt", 3600 * 10**9)
        again = await store.describe([b"theirs", b"ours", b"absent"])

        for answers in (first, again):
            assert [isinstance(each, Existing) and each.recent for each in answers] == [True, True, False]
        await store.close()

    async def test_a_listing_says_what_time_it_is(self) -> None:
        """The time is by the clock of the store's machine, taken when the page was read."""
        store, behind = await self.opened()
        behind.plant(b"f", b"1")
        before = (await store.open(b"salt")).now_ns
        listing = store.walk()

        await listing.next_page()

        assert before <= listing.now_ns
        listing.close()
        await store.close()

    async def test_refuses_bad_names_everywhere(self) -> None:
        """A name that leads elsewhere is an error of its item, or of a call with only one name."""
        store, behind = await self.opened()
        behind.plant(b"good", b"")
        zero = Version(0, 0, 0, 0, 0)
        for bad in BAD_NAMES:
            answers: list[object] = []
            answers += await store.describe([bad])
            answers += await store.read_small([bad])
            answers += await store.put_small([small_file(bad, b"")], OnConflict.REPLACE)
            answers += await store.settle([Expected(bad, 0, digest(b""))])
            answers += await store.remove([Removal(bad, zero)])
            answers += await store.prune([Vacant(bad, None)])
            if bad:
                answers += await store.make_directories([Directory(bad, 0o755)])
            answers += await store.set_directories([Directory(bad, 0o755, 1)])
            answers.append(await failure(store.match_final(bad, 1, 0, [digest(b"")])))
            answers.append(await failure(store.open_reader(bad)))
            answers.append(await failure(store.open_writer(bad, 0, OnConflict.REPLACE)))

            assert [BadName] * (11 if bad else 10) == [type(answer) for answer in answers], bad
        await store.close()

    async def test_odd_names_survive(self) -> None:
        """Names with colons, newlines and bytes that are not UTF-8 come back as they went in."""
        store, behind = await self.opened()

        for name in ODD_NAMES:
            [created] = await store.put_small([small_file(name, name)], OnConflict.REPLACE)
            assert how(created) is Committed.CREATED
            assert name == behind.content(name)
            [fetched] = await store.read_small([name])
            assert isinstance(fetched, Fetched)
            assert name == fetched.file.content
        assert sorted(ODD_NAMES) == [entry.path for entry in await listed_files(store.walk())]
        await store.close()

    async def test_reads_small_files(self) -> None:
        """Content, digest and version come back; a file that is missing is an error of its own."""
        store, behind = await self.opened()
        behind.plant(b"a", b"content")
        behind.plant(b"empty", b"")

        a, missing, empty = await store.read_small([b"a", b"missing", b"empty"])

        assert isinstance(a, Fetched)
        assert (b"a", b"content", digest(b"content")) == (a.file.path, a.file.content, a.file.digest)
        assert a.version.size == 7
        assert isinstance(missing, NotFound)
        assert isinstance(empty, Fetched)
        assert empty.file.content == b""
        await store.close()

    async def test_puts_off_what_is_open_for_writing(self) -> None:
        """Such a file is neither read for a move nor removed; for a copy it is read."""
        store, behind = await self.opened()
        behind.plant(b"f", b"content")
        [read] = await store.read_small([b"f"], removing=True)
        assert isinstance(read, Fetched)

        with behind.writing(b"f"):
            [small] = await store.read_small([b"f"], removing=True)
            large = await failure(store.open_reader(b"f", removing=True))
            [removed] = await store.remove([Removal(b"f", read.version)])
            [copied] = await store.read_small([b"f"])
            (await store.open_reader(b"f")).close()

        for each in (small, large, removed):
            assert isinstance(each, SourceChanged)
            assert str(each) == "f: is open for writing by another program"
        assert isinstance(copied, Fetched)
        assert behind.content(b"f") == b"content"
        assert await store.remove([Removal(b"f", read.version)]) == [None]
        await store.close()

    async def test_reads_no_more_than_fits(self) -> None:
        """Files that make a batch too large are refused; those that fit are answered."""
        store, behind = await self.opened()
        behind.plant(b"a", b"a" * MAX_SMALL_BYTES)
        behind.plant(b"b", b"b")
        behind.plant(b"large", b"c" * (MAX_SMALL_BYTES + 1))

        a, b = await store.read_small([b"a", b"b"])
        [large] = await store.read_small([b"large"])

        assert isinstance(a, Fetched)
        assert isinstance(b, SourceChanged)
        assert isinstance(large, SourceChanged)
        await store.close()

    async def test_puts_small_files(self) -> None:
        """Many files at once arrive with their content, in directories that are created for them."""
        store, behind = await self.opened()
        files = [small_file(b"d%d/f%d" % (number % 3, number), b"%d" % number) for number in range(20)]

        created = await store.put_small(files, OnConflict.REPLACE)
        replaced = await store.put_small([small_file(b"d0/f0", b"new")], OnConflict.REPLACE)

        assert list(map(how, created)) == [Committed.CREATED] * 20
        assert list(map(how, replaced)) == [Committed.REPLACED]
        assert behind.content(b"d1/f1") == b"1"
        assert behind.content(b"d0/f0") == b"new"
        await store.close()

    async def test_goes_on_with_what_may_be_done_anyhow(self) -> None:
        """If cancelled while files are made durable, or removed, the caller gets the answer, and may end with it."""
        store, behind = await self.opened()
        putting = store.put_small([small_file(b"f", b"1")], OnConflict.REPLACE)
        putting.cancel()
        created = await putting
        [fetched] = await store.read_small([b"f"])
        assert isinstance(fetched, Fetched)
        removing = store.remove([Removal(b"f", fetched.version)])
        removing.cancel()
        removed = await removing
        writer = await store.open_writer(b"g", 1, OnConflict.REPLACE)
        await writer.write([b"1"])
        committing = writer.commit(digest(b"1"), None)
        committing.cancel()
        committed = await committing

        assert list(map(how, created)) == [Committed.CREATED]
        assert removed == [None]
        assert how(committed) is Committed.CREATED
        assert (behind.content(b"f"), behind.content(b"g")) == (None, b"1")
        await store.close()

    async def test_carries_attributes(self) -> None:
        """Modification time and permission bits are those that the writer is given."""
        store, _ = await self.opened()
        attributes = Attributes(1_234_567_890_123_456_789, 0o640)

        await store.put_small([small_file(b"small", b"x", attributes)], OnConflict.REPLACE)
        writer = await store.open_writer(b"large", 1, OnConflict.REPLACE)
        await writer.write([b"x"])
        await writer.commit(digest(b"x"), attributes)

        for fetched in await store.read_small([b"small", b"large"]):
            assert isinstance(fetched, Fetched)
            assert attributes == fetched.file.attributes
        await store.close()

    async def test_puts_nothing_with_a_wrong_digest(self) -> None:
        """Content that was damaged on its way is refused; the other files of the batch arrive."""
        store, behind = await self.opened()
        damaged = evolve(small_file(b"damaged", b"good"), content=b"evil")

        first, second = await store.put_small([damaged, small_file(b"fine", b"fine")], OnConflict.REPLACE)

        assert isinstance(first, VerifyFailed)
        assert how(second) is Committed.CREATED
        assert behind.content(b"damaged") is None
        await store.close()

    async def test_same_name_twice_in_a_batch(self) -> None:
        """Of two files with one name, the first is final, or the second in its place; they are never mixed."""
        store, behind = await self.opened()

        first, second = await store.put_small([small_file(b"f", b"one"), small_file(b"f", b"two!")], OnConflict.REPLACE)

        assert how(first) is Committed.CREATED
        assert how(second) is Committed.REPLACED or isinstance(second, Busy)
        assert behind.content(b"f") == (b"one" if isinstance(second, Busy) else b"two!")
        await store.close()

    async def test_policies_for_small_files(self) -> None:
        """SKIP and FAIL leave an existing file alone; the one reports it, the other fails."""
        store, behind = await self.opened()
        behind.plant(b"f", b"old")

        [skipped] = await store.put_small([small_file(b"f", b"new")], OnConflict.SKIP)
        [failed] = await store.put_small([small_file(b"f", b"new")], OnConflict.FAIL)

        assert how(skipped) is Committed.SKIPPED
        assert isinstance(failed, Conflict)
        assert behind.content(b"f") == b"old"
        assert [entry.path for entry in await listed(store.walk(partials=True))] == [b"f"]
        await store.close()

    async def test_policies_for_large_files(self) -> None:
        """If the file exists, SKIP and FAIL refuse to begin; if it appears meanwhile, they leave it alone."""
        store, behind = await self.opened()
        behind.plant(b"f", b"old")
        for policy in (OnConflict.SKIP, OnConflict.FAIL):
            assert isinstance(await failure(store.open_writer(b"f", 3, policy)), Conflict)

        skipping = await store.open_writer(b"s", 3, OnConflict.SKIP)
        failing = await store.open_writer(b"t", 3, OnConflict.FAIL)
        for path, writer in ((b"s", skipping), (b"t", failing)):
            await writer.write([b"new"])
            behind.plant(path, b"old")

        assert how(await skipping.commit(digest(b"new"), None)) is Committed.SKIPPED
        assert isinstance(await failure(failing.commit(digest(b"new"), None)), Conflict)
        assert (behind.content(b"s"), behind.content(b"t")) == (b"old", b"old")
        assert behind.partial(b"s") is None
        await store.close()

    async def test_a_directory_is_an_obstacle(self) -> None:
        """A directory is never replaced by a file, nor a file by a directory."""
        store, behind = await self.opened()
        behind.plant(b"directory/f", b"kept")
        behind.plant(b"file", b"kept")

        on_directory, below_file, fine = await store.put_small(
            [small_file(b"directory", b"x"), small_file(b"file/x", b"x"), small_file(b"fine", b"x")],
            OnConflict.REPLACE,
        )

        assert isinstance(on_directory, Conflict)
        assert isinstance(below_file, Conflict)
        assert how(fine) is Committed.CREATED
        assert isinstance(await failure(store.open_writer(b"directory", 1, OnConflict.REPLACE)), Conflict)
        assert isinstance(await failure(store.open_writer(b"file/x", 1, OnConflict.REPLACE)), Conflict)
        assert (behind.content(b"directory/f"), behind.content(b"file")) == (b"kept", b"kept")
        await store.close()

    async def test_settles_only_the_same_content(self) -> None:
        """Only a file of that size and digest counts as identical."""
        store, behind = await self.opened()
        behind.plant(b"same", b"12345")
        behind.plant(b"other", b"54321")
        behind.plant(b"directory/f", b"")

        answers = await store.settle(
            [Expected(path, 5, digest(b"12345")) for path in (b"same", b"other", b"missing", b"directory", b"no/where")]
        )

        assert answers == [True, False, False, False, False]
        await store.close()

    async def test_says_which_version_it_has_made(self) -> None:
        """The version that a commit returns is the one that is described, until the file is replaced or relied upon.

        Also if that happens at once, the file has another change time.
        """
        store, _ = await self.opened()

        async def put() -> Stored:
            [stored] = await store.put_small([small_file(b"f", b"x")], OnConflict.REPLACE)
            assert isinstance(stored, Stored)
            return stored

        async def send() -> Stored:
            writer = await store.open_writer(b"f", 1, OnConflict.REPLACE)
            await writer.write([b"x"])
            return await writer.commit(digest(b"x"), Attributes(1, 0o600))

        async def is_there(stored: Stored) -> bool:
            [existing] = await store.describe([b"f"])
            assert isinstance(existing, Existing)
            return stored.is_still(existing)

        for _ in range(3):
            for make in (put, send):
                stored = await make()
                assert await is_there(stored)
                newer = await make()
                assert not await is_there(stored)
                assert await store.settle([Expected(b"f", 1, digest(b"x"))]) == [True]
                assert not await is_there(newer)
                newest = await make()
                assert await store.match_final(b"f", 1, 0, [digest(b"x")]) == 1
                assert not await is_there(newest)
        await store.close()

    async def test_does_not_vouch_for_what_is_open_for_writing(self) -> None:
        """Identical content that may change any moment is busy; a difference is reported as always."""
        store, behind = await self.opened()
        behind.plant(b"f", LARGE_CONTENT)
        behind.plant(b"empty", b"")
        digests = block_digests(LARGE_CONTENT)
        same = [Expected(b"f", len(LARGE_CONTENT), digest(LARGE_CONTENT)), Expected(b"empty", 0, digest(b""))]

        with behind.writing(b"f"), behind.writing(b"empty"):
            answers = await store.settle([*same, Expected(b"f", len(LARGE_CONTENT), digest(b"other"))])
            matched = await failure(store.match_final(b"f", len(LARGE_CONTENT), 0, digests))
            empty = await failure(store.match_final(b"empty", 0, 0, []))
            other = await store.match_final(b"f", len(LARGE_CONTENT), 0, [digests[0], b"?" * 32, digests[2]])

        assert answers[2] is False
        assert other == BLOCK_BYTES
        for each in (*answers[:2], matched, empty):
            assert isinstance(each, Busy)
            assert "has the same content, but is open for writing by another program" in str(each)
        assert await store.settle(same) == [True, True]
        assert await store.match_final(b"f", len(LARGE_CONTENT), 0, digests) == len(LARGE_CONTENT)
        await store.close()

    async def test_matches_finals_block_by_block(self) -> None:
        """Comparing tells how far a final file is identical, over several calls."""
        store, behind = await self.opened()
        behind.plant(b"f", LARGE_CONTENT)
        digests = block_digests(LARGE_CONTENT)

        assert await store.match_final(b"f", len(LARGE_CONTENT), 0, digests) == len(LARGE_CONTENT)
        assert await store.match_final(b"f", len(LARGE_CONTENT), 0, digests[:1]) == BLOCK_BYTES
        assert (
            await store.match_final(b"f", len(LARGE_CONTENT), BLOCK_BYTES, digests[1:])
            == len(LARGE_CONTENT) - BLOCK_BYTES
        )
        assert await store.match_final(b"f", len(LARGE_CONTENT), 0, [digests[0], b"?" * 32, digests[2]]) == BLOCK_BYTES
        assert await store.match_final(b"f", len(LARGE_CONTENT) + 1, 0, digests) == 0
        await store.close()

    async def test_what_is_there_already_gets_the_attributes_of_the_source(self) -> None:
        """Mode and time are set, small or large, as if the file had been sent; without attributes it keeps its own."""
        store, behind = await self.opened()
        private = Attributes(1_500_000_000_000_000_000, 0o600)
        names = (b"small", b"large", b"kept small", b"kept large")
        for name in names:
            behind.plant(name, LARGE_CONTENT if b"large" in name else b"content")
        own = behind.attributes(b"kept small"), behind.attributes(b"kept large")
        small, digests = digest(b"content"), block_digests(LARGE_CONTENT)

        settled = await store.settle([Expected(b"small", 7, small, private), Expected(b"kept small", 7, small)])
        matched = await store.match_final(b"large", len(LARGE_CONTENT), 0, digests[:1], private)
        halfway = behind.attributes(b"large")
        matched += await store.match_final(b"large", len(LARGE_CONTENT), BLOCK_BYTES, digests[1:], private)
        kept = await store.match_final(b"kept large", len(LARGE_CONTENT), 0, digests)

        assert settled == [True, True]
        assert (matched, kept) == (len(LARGE_CONTENT), len(LARGE_CONTENT))
        assert halfway != private
        assert [behind.attributes(name) for name in names] == [private, private, *own]
        await store.close()

    async def test_other_content_keeps_its_attributes(self) -> None:
        """A comparison with the answer no changes nothing, whatever attributes came with it."""
        store, behind = await self.opened()
        behind.plant(b"f", b"other!!")
        own = behind.attributes(b"f")
        given = Attributes(1_500_000_000_000_000_000, 0o600)

        assert await store.settle([Expected(b"f", 7, digest(b"content"), given)]) == [False]
        assert await store.match_final(b"f", 7, 0, [digest(b"content")], given) == 0
        assert own == behind.attributes(b"f")
        await store.close()

    async def test_a_final_that_changes_between_two_comparisons_matches_nothing(self) -> None:
        """The start of one version and the end of another do not count as an identical file."""
        store, behind = await self.opened()
        behind.plant(b"f", LARGE_CONTENT)
        digests = block_digests(LARGE_CONTENT)
        await store.match_final(b"f", len(LARGE_CONTENT), 0, digests[:1])

        behind.plant(b"f", b"!" + LARGE_CONTENT[1:])

        assert await store.match_final(b"f", len(LARGE_CONTENT), BLOCK_BYTES, digests[1:]) == 0
        await store.close()

    async def test_an_empty_final_matches_only_an_empty_one(self) -> None:
        """Zero bytes match only if there is an empty file."""
        store, behind = await self.opened()
        behind.plant(b"empty", b"")
        behind.plant(b"full", b"x")

        assert await store.match_final(b"empty", 0, 0, []) == 0
        assert isinstance(await failure(store.match_final(b"full", 0, 0, [])), NotFound)
        assert isinstance(await failure(store.match_final(b"missing", 0, 0, [])), NotFound)
        await store.close()

    async def test_reads_large_files(self) -> None:
        """Pieces come in order up to the end, then the digest of the whole file."""
        store, behind = await self.opened()
        behind.plant(b"f", LARGE_CONTENT)
        reader = await store.open_reader(b"f")

        content = await read_all(reader)

        assert content == LARGE_CONTENT
        assert digest(LARGE_CONTENT) == await reader.finish()
        assert len(LARGE_CONTENT) == reader.version.size
        reader.close()
        reader.close()
        await store.close()

    async def test_skips_what_the_other_side_has(self) -> None:
        """Asking for digests does not move the position; skipped bytes count towards the digest of the whole file."""
        store, behind = await self.opened()
        behind.plant(b"f", LARGE_CONTENT)
        reader = await store.open_reader(b"f")

        digests = await reader.block_digests(len(LARGE_CONTENT))
        await reader.skip(BLOCK_BYTES)
        rest = await reader.block_digests(BLOCK_BYTES)
        await reader.skip(BLOCK_BYTES)
        content = await read_all(reader)

        assert block_digests(LARGE_CONTENT) == digests
        assert digests[1:2] == rest
        assert LARGE_CONTENT[2 * BLOCK_BYTES :] == content
        assert digest(LARGE_CONTENT) == await reader.finish()
        reader.close()
        await store.close()

    async def test_looks_again_between_pieces(self) -> None:
        """Comparing and skipping work at any position, also after the first piece was read."""
        store, behind = await self.opened()
        behind.plant(b"f", LARGE_CONTENT)
        reader = await store.open_reader(b"f")
        first = b"".join(await reader.read())

        left = len(LARGE_CONTENT) - len(first)
        digests = await reader.block_digests(left)
        await reader.skip(left)

        assert block_digests(LARGE_CONTENT[len(first) :]) == digests
        assert await reader.read() == []
        assert digest(LARGE_CONTENT) == await reader.finish()
        reader.close()
        await store.close()

    async def test_refuses_to_look_beyond_the_end(self) -> None:
        """More bytes than the file has cannot be compared or skipped, and a file can be finished only at its end."""
        store, behind = await self.opened()
        behind.plant(b"f", b"12345")
        reader = await store.open_reader(b"f")

        assert isinstance(await failure(reader.block_digests(6)), ProtocolError)
        assert isinstance(await failure(reader.skip(6)), ProtocolError)
        assert isinstance(await failure(reader.finish()), ProtocolError)
        reader.close()
        await store.close()

    async def test_picks_chunks_of_what_it_cut(self) -> None:
        """Spans are cut ahead and picked in order, they count towards the digest, and the rest can be read as usual."""
        store, behind = await self.opened()
        content = random_bytes(2 * SPAN_BYTES + 100_000)
        behind.plant(b"f", content)
        reader = await store.open_reader(b"f")

        spans = await _all([reader.cut(), reader.cut()])
        wanted = [[bool(number % 3) for number in range(len(chunks))] for chunks in spans]
        picked = await _all([reader.pick(each) for each in wanted])
        rest = await read_all(reader)

        position, expected = 0, []
        for chunks, each in zip(spans, wanted, strict=True):
            assert sum(length for length, _ in chunks) == SPAN_BYTES
            assert deltas.cut(content[position : position + SPAN_BYTES]) == chunks
            pieces = []
            for (length, _), want in zip(chunks, each, strict=True):
                pieces += [content[position : position + length]] if want else []
                position += length
            expected.append(b"".join(pieces))
        assert expected == [b"".join(pieces) for pieces in picked]
        assert content[position:] == rest
        assert await reader.finish() == digest(content)
        reader.close()
        await store.close()

    async def test_cuts_to_the_end(self) -> None:
        """After the last span there are no more chunks, and the digest is available once all spans were picked."""
        store, behind = await self.opened()
        behind.plant(b"f", LARGE_CONTENT)
        reader = await store.open_reader(b"f")

        chunks = await reader.cut()
        nothing = await reader.cut()
        picked = await reader.pick([False] * len(chunks))

        assert sum(length for length, _ in chunks) == len(LARGE_CONTENT)
        assert nothing == []
        assert picked == []
        assert await reader.finish() == digest(LARGE_CONTENT)
        reader.close()
        await store.close()

    async def test_reads_what_was_cut_and_not_picked(self) -> None:
        """A caller that gives up on deltas reads everything from where the last span was picked."""
        store, behind = await self.opened()
        content = random_bytes(SPAN_BYTES + 100_000)
        behind.plant(b"f", content)
        reader = await store.open_reader(b"f")
        first, _ = await reader.cut(), await reader.cut()
        await reader.pick([False] * len(first))

        rest = await read_all(reader)

        assert content[SPAN_BYTES:] == rest
        assert await reader.finish() == digest(content)
        reader.close()
        await store.close()

    async def test_refuses_picks_that_do_not_fit(self) -> None:
        """Only spans that were cut can be picked, with one answer for each chunk."""
        store, behind = await self.opened()
        behind.plant(b"f", LARGE_CONTENT)
        reader = await store.open_reader(b"f")

        assert isinstance(await failure(reader.pick([True])), ProtocolError)
        chunks = await reader.cut()
        assert isinstance(await failure(reader.pick([True] * (len(chunks) + 1))), ProtocolError)
        reader.close()
        await store.close()

    async def test_notices_that_a_source_changed(self) -> None:
        """A file that was replaced while it was read has no digest."""
        store, behind = await self.opened()
        behind.plant(b"f", LARGE_CONTENT * 3)
        reader = await store.open_reader(b"f")
        await reader.read()
        behind.plant(b"f", LARGE_CONTENT * 3)

        assert isinstance(await failure(read_to_end(reader)), SourceChanged)
        reader.close()
        await store.close()

    async def test_opens_no_reader_for_what_is_missing(self) -> None:
        """A missing file is `NotFound`."""
        store, _ = await self.opened()

        assert isinstance(await failure(store.open_reader(b"missing")), NotFound)
        assert isinstance(await failure(store.open_reader(b"no/where")), NotFound)
        await store.close()

    async def test_writes_large_files(self) -> None:
        """A file that arrives in pieces is final after the commit, and not before."""
        store, behind = await self.opened()
        writer = await store.open_writer(b"d/f", len(LARGE_CONTENT), OnConflict.REPLACE)

        await writer.write([LARGE_CONTENT[:10], LARGE_CONTENT[10:BLOCK_BYTES]])
        await writer.write([LARGE_CONTENT[BLOCK_BYTES:]])
        before = behind.content(b"d/f")
        committed = await writer.commit(digest(LARGE_CONTENT), None)

        assert writer.have == 0
        assert before is None
        assert how(committed) is Committed.CREATED
        assert behind.content(b"d/f") == LARGE_CONTENT
        assert behind.partial(b"d/f") is None
        await store.close()

    async def test_writes_an_empty_file(self) -> None:
        """An empty file needs no write."""
        store, behind = await self.opened()
        behind.plant_partial(b"f", b"leftover")
        writer = await store.open_writer(b"f", 0, OnConflict.REPLACE)

        assert how(await writer.commit(digest(b""), None)) is Committed.CREATED
        assert behind.content(b"f") == b""
        await store.close()

    async def test_replaces_only_the_version_that_was_seen(self) -> None:
        """A later writer with the same view does not replace the earlier one's file, whatever was described since."""
        store, behind = await self.opened()
        for path, large in ((b"small", False), (b"large", True)):
            behind.plant(path, b"old")
            seen = [existing.seen for existing in await _described(store, path, 2)]
            first = await _replace(store, path, b"1", seen[0], large=large)
            await store.describe([path])
            second = await _replace(store, path, b"2", seen[1], large=large)
            [now] = await _described(store, path, 1)

            assert isinstance(first, Stored)
            assert isinstance(second, Busy)
            assert behind.content(path) == b"1"
            assert isinstance(await _replace(store, path, b"3", now.seen, large=large), Stored)
            assert isinstance(await _replace(store, path, b"4", None, large=large), Stored)
        await store.close()

    async def test_replaces_a_final_only_at_the_commit(self) -> None:
        """The existing file stays complete and readable until the new one takes its place."""
        store, behind = await self.opened()
        behind.plant(b"f", b"old")
        writer = await store.open_writer(b"f", 3, OnConflict.REPLACE)

        await writer.write([b"new"])
        before = behind.content(b"f")

        assert before == b"old"
        assert how(await writer.commit(digest(b"new"), None)) is Committed.REPLACED
        assert behind.content(b"f") == b"new"
        await store.close()

    async def test_resumes_a_partial(self) -> None:
        """What an abandoned writer kept is found and compared, and need not be sent again."""
        store, behind = await self.opened()
        writer = await store.open_writer(b"f", len(LARGE_CONTENT), OnConflict.REPLACE)
        await writer.write([LARGE_CONTENT[: BLOCK_BYTES + 5]])
        await writer.abandon(keep=True)
        await writer.abandon(keep=True)

        resumed = await store.open_writer(b"f", len(LARGE_CONTENT), OnConflict.REPLACE)
        matched = await resumed.match(
            [digest(LARGE_CONTENT[:BLOCK_BYTES]), digest(LARGE_CONTENT[BLOCK_BYTES : BLOCK_BYTES + 5])], BLOCK_BYTES + 5
        )
        await resumed.write([LARGE_CONTENT[matched:]])

        assert resumed.have == BLOCK_BYTES + 5
        assert matched == BLOCK_BYTES + 5
        assert how(await resumed.commit(digest(LARGE_CONTENT), None)) is Committed.CREATED
        assert behind.content(b"f") == LARGE_CONTENT
        await store.close()

    async def test_a_partial_is_no_file(self) -> None:
        """Under its own name a partial is not read, described, settled, replaced or removed."""
        store, behind = await self.opened()
        behind.plant_partial(b"d/f", b"1234")
        path = partial_path(b"d/f")

        [described] = await store.describe([path])
        [read] = await store.read_small([path])
        [settled] = await store.settle([Expected(path, 4, digest(b"1234"))])
        [removed] = await store.remove([Removal(path, Version(1, 1, 4, 1, 1))])
        puts = [
            answer
            for policy in (OnConflict.REPLACE, OnConflict.FAIL)
            for answer in await store.put_small([small_file(path, b"new")], policy)
        ]

        assert described == Existing(obstacle=NOTE)
        assert settled is False
        assert [NotRegular] * 4 == [
            type(read),
            type(removed),
            type(await failure(store.open_reader(path))),
            type(await failure(store.match_final(path, 4, 0, [digest(b"1234")]))),
        ]
        assert [Conflict] * 3 == [
            *map(type, puts),
            type(await failure(store.open_writer(path, 3, OnConflict.REPLACE))),
        ]
        assert behind.partial(b"d/f") == b"1234"
        assert [entry.kind for entry in await listed_files(store.walk(partials=True))] == [Kind.PARTIAL]
        await store.close()

    async def test_a_file_with_the_name_of_a_partial_is_a_file(self) -> None:
        """Such a name does not make a file a partial: it is listed, read and removed like any other."""
        store, behind = await self.opened()
        path = partial_path(b"f")
        behind.plant(path, b"precious")

        await store.put_small([small_file(b"f", b"small")], OnConflict.REPLACE)
        await store.describe([b"f"])
        writer = await store.open_writer(b"f", 5, OnConflict.REPLACE)
        await writer.write([b"la"])
        await writer.abandon(keep=True)
        [partly] = await store.describe([b"f"])
        writer = await store.open_writer(b"f", 5, OnConflict.REPLACE)
        assert await writer.match([digest(b"la")], 2) == 2
        await writer.write([b"rge"])
        await writer.commit(digest(b"large"), None)

        assert partly.partial_size == 2 if isinstance(partly, Existing) else False
        assert (behind.content(path), behind.content(b"f")) == (b"precious", b"large")
        assert [(path, Kind.FILE), (b"f", Kind.FILE)] == [
            (entry.path, entry.kind) for entry in await listed(store.walk())
        ]
        [fetched] = await store.read_small([path])
        assert isinstance(fetched, Fetched)
        assert await store.remove([Removal(path, fetched.version)]) == [None]
        assert behind.content(path) is None
        await store.close()

    async def test_a_damaged_partial_is_used_up_to_the_damage(self) -> None:
        """Blocks that differ, and everything after them, are dropped at the first write."""
        store, behind = await self.opened()
        behind.plant_partial(b"f", LARGE_CONTENT[:BLOCK_BYTES] + b"!" * BLOCK_BYTES + b"more than there ever was")
        writer = await store.open_writer(b"f", len(LARGE_CONTENT), OnConflict.REPLACE)

        matched = await writer.match(block_digests(LARGE_CONTENT[: 2 * BLOCK_BYTES]), 2 * BLOCK_BYTES)
        await writer.write([LARGE_CONTENT[matched:]])

        assert matched == BLOCK_BYTES
        assert how(await writer.commit(digest(LARGE_CONTENT), None)) is Committed.CREATED
        assert behind.content(b"f") == LARGE_CONTENT
        await store.close()

    async def test_a_partial_larger_than_the_file_counts_only_so_far(self) -> None:
        """``have`` is never more than the file will have, and any surplus is cut off."""
        store, behind = await self.opened()
        behind.plant_partial(b"f", b"12345 and more")
        writer = await store.open_writer(b"f", 5, OnConflict.REPLACE)

        matched = await writer.match([digest(b"12345")], 5)

        assert (writer.have, matched) == (5, 5)
        assert how(await writer.commit(digest(b"12345"), None)) is Committed.CREATED
        assert behind.content(b"f") == b"12345"
        await store.close()

    async def test_takes_from_the_old_version_what_it_has(self) -> None:
        """Of the offered chunks, only those are wanted that the final file does not contain."""
        store, behind = await self.opened()
        old = random_bytes(2 * SPAN_BYTES)
        new = old[100_000:300_000] + b"inserted" + old[:100_000] + old[300_000:1_000_000] + old[1_200_000:] + b"end"
        behind.plant(b"f", old)
        await store.describe([b"f"])
        writer = await store.open_writer(b"f", len(new), OnConflict.REPLACE)

        sent = await _send_delta(writer, new)

        assert how(await writer.commit(digest(new), None)) is Committed.REPLACED
        assert behind.content(b"f") == new
        assert sent < 200_000
        await store.close()

    async def test_wants_everything_where_there_is_no_old_version(self) -> None:
        """Chunks may be offered for any file; without a final one, all are wanted."""
        store, behind = await self.opened()
        writer = await store.open_writer(b"f", len(LARGE_CONTENT), OnConflict.REPLACE)

        sent = await _send_delta(writer, LARGE_CONTENT)

        assert how(await writer.commit(digest(LARGE_CONTENT), None)) is Committed.CREATED
        assert behind.content(b"f") == LARGE_CONTENT
        assert len(LARGE_CONTENT) == sent
        await store.close()

    async def test_goes_on_behind_a_partial_and_without_offers(self) -> None:
        """A partial is matched first, then chunks are offered, then the rest may come as usual."""
        store, behind = await self.opened()
        old = random_bytes(4 * BLOCK_BYTES)
        new = old[:-BLOCK_BYTES] + b"other" + old[-BLOCK_BYTES:] + b"end"
        behind.plant(b"f", old)
        behind.plant_partial(b"f", new[: BLOCK_BYTES + 5])
        await store.describe([b"f"])
        writer = await store.open_writer(b"f", len(new), OnConflict.REPLACE)

        matched = await writer.match(
            [digest(new[:BLOCK_BYTES]), digest(new[BLOCK_BYTES : BLOCK_BYTES + 5])], BLOCK_BYTES + 5
        )
        sent = await _send_delta(writer, new[matched : 3 * BLOCK_BYTES + 100_000])
        await writer.write([new[3 * BLOCK_BYTES + 100_000 :]])

        assert matched == BLOCK_BYTES + 5
        assert sent < 100_000
        assert how(await writer.commit(digest(new), None)) is Committed.REPLACED
        assert behind.content(b"f") == new
        await store.close()

    async def test_keeps_what_came_together(self) -> None:
        """Stopping in the middle leaves a partial up to the first byte that has not arrived."""
        store, behind = await self.opened()
        old = random_bytes(BLOCK_BYTES)
        new = old[:500_000] + random_bytes(200_000, seed=2) + old[500_000:]
        behind.plant(b"f", old)
        await store.describe([b"f"])
        writer = await store.open_writer(b"f", len(new), OnConflict.REPLACE)
        chunks = deltas.cut(new)
        wanted = await writer.offer(chunks)
        await writer.write([b"".join(_wanted(new, chunks, wanted))[:100_000]])
        await writer.abandon(keep=True)

        partial = behind.partial(b"f")

        assert partial is not None
        assert new[: len(partial)] == partial
        assert 500_000 + 80_000 < len(partial) < 500_000 + 200_000
        assert behind.content(b"f") == old
        await store.close()

    async def test_a_chunk_that_is_none_is_not_committed(self) -> None:
        """A chunk with the right digest in the old version proves nothing: the whole file is verified all the same."""
        store, behind = await self.opened()
        behind.plant(b"f", LARGE_CONTENT)
        await store.describe([b"f"])
        writer = await store.open_writer(b"f", len(LARGE_CONTENT), OnConflict.REPLACE)
        await _send_delta(writer, LARGE_CONTENT)

        assert isinstance(await failure(writer.commit(digest(b"another"), None)), VerifyFailed)
        assert behind.content(b"f") == LARGE_CONTENT
        assert behind.partial(b"f") is None
        await store.close()

    async def test_refuses_offers_that_do_not_fit(self) -> None:
        """No more may be offered than the file will have, and nothing after content that came without being offered."""
        store, _ = await self.opened()
        writer = await store.open_writer(b"f", 100_000, OnConflict.REPLACE)

        assert isinstance(await failure(writer.offer([(65_000, b"1" * 16), (65_000, b"2" * 16)])), ProtocolError)
        await writer.write([b"some"])
        assert isinstance(await failure(writer.offer([(5_000, b"1" * 16)])), ProtocolError)
        await writer.abandon(keep=False)
        await store.close()

    async def test_writers_exclude_each_other(self) -> None:
        """While a file is being written, a second writer is told that it is busy; after that it may write."""
        store, _ = await self.opened()
        first = await store.open_writer(b"f", 3, OnConflict.REPLACE)

        assert isinstance(await failure(store.open_writer(b"f", 3, OnConflict.REPLACE)), Busy)
        await first.abandon(keep=False)
        second = await store.open_writer(b"f", 3, OnConflict.REPLACE)
        await second.abandon(keep=False)
        await store.close()

    async def test_refuses_more_than_announced(self) -> None:
        """Nothing beyond the announced size is written."""
        store, behind = await self.opened()
        writer = await store.open_writer(b"f", 3, OnConflict.REPLACE)

        assert isinstance(await failure(writer.write([b"12", b"34"])), ProtocolError)
        await writer.abandon(keep=True)
        assert behind.partial(b"f") is None
        await store.close()

    async def test_compares_only_before_writing(self) -> None:
        """Once bytes are written there is nothing left to compare."""
        store, behind = await self.opened()
        behind.plant_partial(b"f", b"123")
        writer = await store.open_writer(b"f", 3, OnConflict.REPLACE)
        await writer.write([b"1"])

        assert isinstance(await failure(writer.match([digest(b"23")], 2)), ProtocolError)
        await writer.abandon(keep=False)
        await store.close()

    async def test_a_wrong_digest_discards_the_partial(self) -> None:
        """Content that does not verify does not become final, and is not kept, since it would fail again."""
        store, behind = await self.opened()
        writer = await store.open_writer(b"f", 3, OnConflict.REPLACE)
        await writer.write([b"123"])

        assert isinstance(await failure(writer.commit(digest(b"321"), None)), VerifyFailed)
        assert behind.content(b"f") is None
        assert behind.partial(b"f") is None
        await store.close()

    async def test_a_short_file_is_not_committed(self) -> None:
        """Fewer bytes than announced do not verify, whatever their digest is."""
        store, behind = await self.opened()
        writer = await store.open_writer(b"f", 3, OnConflict.REPLACE)
        await writer.write([b"12"])

        assert isinstance(await failure(writer.commit(digest(b"12"), None)), VerifyFailed)
        assert behind.content(b"f") is None
        await store.close()

    async def test_a_closed_writer_writes_nothing(self) -> None:
        """After a commit or abandon, a writer refuses further calls, and abandoning it again does no harm."""
        store, behind = await self.opened()
        writer = await store.open_writer(b"f", 1, OnConflict.REPLACE)
        await writer.write([b"1"])
        await writer.commit(digest(b"1"), None)

        assert isinstance(await failure(writer.write([])), RealizeError)
        assert isinstance(await failure(writer.commit(digest(b"1"), None)), RealizeError)
        await writer.abandon(keep=False)
        assert behind.content(b"f") == b"1"
        await store.close()

    async def test_abandoning_discards_or_keeps(self) -> None:
        """A partial is kept or removed as asked, and its size is returned; an empty one is never kept."""
        store, behind = await self.opened()
        kept = await store.open_writer(b"kept", 3, OnConflict.REPLACE)
        await kept.write([b"12"])
        reached = [await kept.abandon(keep=True), await kept.abandon(keep=True)]
        dropped = await store.open_writer(b"dropped", 3, OnConflict.REPLACE)
        await dropped.write([b"12"])
        reached.append(await dropped.abandon(keep=False))
        empty = await store.open_writer(b"empty", 3, OnConflict.REPLACE)
        reached.append(await empty.abandon(keep=True))

        assert reached == [2, None, 0, 0]
        assert behind.partial(b"kept") == b"12"
        assert behind.partial(b"dropped") is None
        assert behind.partial(b"empty") is None
        await store.close()

    async def test_closing_the_store_keeps_partials(self) -> None:
        """What is being written when the store is closed is kept as a partial."""
        store, behind = await self.opened()
        writer = await store.open_writer(b"f", 3, OnConflict.REPLACE)
        await writer.write([b"12"])

        await store.close()

        assert behind.partial(b"f") == b"12"

    async def test_removes_the_version_that_was_read(self) -> None:
        """A file that is still the version that was read is removed; for a missing one, the answer says so."""
        store, behind = await self.opened()
        behind.plant(b"d/e/f", b"content")
        behind.plant(b"g", b"content")
        fetched = await store.read_small([b"d/e/f", b"g"])
        removals = [Removal(each.file.path, each.version) for each in fetched if isinstance(each, Fetched)]

        first = await store.remove(removals)
        again = await store.remove(removals)

        assert first == [None, None]
        assert [type(answer) for answer in again] == [NotFound, NotFound]
        assert await listed_files(store.walk()) == []
        await store.close()

    async def test_makes_directories_that_take_files(self) -> None:
        """They get their permissions, and all that their owner needs; an existing one too, unless it is read-only."""
        store, behind = await self.opened()
        behind.plant_directory(b"there", Attributes(1_000_000_000, 0o705))
        behind.plant_directory(b"locked", Attributes(1_000_000_000, 0o555))
        wanted = [
            (b"private", 0o700),
            (b"private/f", 0o555),
            (b"open", 0o777),
            (b"there", 0o770),
            (b"locked", 0o777),
            (b"no/parent", 0o755),
        ]
        behind.plant(b"file", b"")

        made = await store.make_directories([Directory(path, mode) for path, mode in wanted])
        [refused] = await store.make_directories([Directory(b"file", 0o755)])

        assert made == [None] * 6
        assert [_mode(behind, path) for path, _ in wanted] == [0o700, 0o755, 0o777, 0o770, 0o555, 0o755]
        assert _mode(behind, b"no") == 0o700
        assert refused is None or isinstance(refused, Conflict)
        assert behind.content(b"file") == b""
        await store.close()

    async def test_small_files_may_bring_their_directories(self) -> None:
        """These are made before; one that cannot be made keeps only what belongs into it from arriving."""
        store, behind = await self.opened()
        behind.plant(b"file", b"")
        files = [small_file(path, b"x", Attributes(1_000_000_000, 0o640)) for path in (b"d/e/f", b"file/f", b"g")]
        directories = [Directory(b"d", 0o750), Directory(b"d/e", 0o711), Directory(b"file", 0o700)]

        outcomes = await store.put_small(files, OnConflict.FAIL, directories)

        assert [how(outcomes[0]), how(outcomes[2])] == [Committed.CREATED] * 2
        assert isinstance(outcomes[1], RealizeError)
        assert [_mode(behind, path) for path in (b"d", b"d/e")] == [0o750, 0o711]
        assert [behind.content(path) for path in (b"d/e/f", b"file", b"g")] == [b"x", b"", b"x"]
        await store.close()

    async def test_sets_directories_for_good(self) -> None:
        """Permissions and time are set, deepest first; where no file was put in, only surplus permissions go."""
        store, behind = await self.opened()
        await store.make_directories([Directory(b"d", 0o555), Directory(b"d/e", 0o500), Directory(b"f", 0o755)])
        behind.plant_directory(b"private", Attributes(1_000_000_000, 0o700))
        final = [
            Directory(b"f", 0o555),
            Directory(b"private", 0o755),
            Directory(b"missing", 0o755, 3_000_000_000),
            Directory(b"d/e", 0o500, 1_000_000_000),
            Directory(b"d", 0o555, 2_000_000_000),
        ]

        answers = await store.set_directories(final)

        assert answers == [True, True, False, True, True]
        assert behind.attributes(b"d") == Attributes(2_000_000_000, 0o555)
        assert behind.attributes(b"d/e") == Attributes(1_000_000_000, 0o500)
        assert _mode(behind, b"f") == 0o555
        assert behind.attributes(b"private") == Attributes(1_000_000_000, 0o700)
        await store.close()

    async def test_a_directory_that_was_set_takes_files_again(self) -> None:
        """A directory with its final, read-only permissions is opened up for its owner, and for nobody else."""
        store, behind = await self.opened()
        for final in (Directory(b"d", 0o555, 1_000_000_000), Directory(b"e", 0o500, 1_000_000_000)):
            await store.make_directories([final])
            await store.set_directories([final])

        await store.make_directories([Directory(b"d", 0o555), Directory(b"e", 0o555)])

        assert [_mode(behind, path) for path in (b"d", b"e")] == [0o755, 0o500]
        await store.close()

    async def test_directories_made_on_demand_are_private_if_their_files_bring_attributes(self) -> None:
        """It is not known yet who may read them; without attributes they are like any other new directory."""
        store, behind = await self.opened()
        kept = Attributes(1_000_000_000, 0o644)
        await store.put_small([small_file(b"small/below/f", b"", kept)], OnConflict.REPLACE)
        await store.put_small([small_file(b"plain/below/f", b"")], OnConflict.REPLACE)
        for path, preserve in ((b"large/below/f", True), (b"plain large/below/f", False)):
            writer = await store.open_writer(path, 0, OnConflict.REPLACE, preserve=preserve)
            await writer.commit(digest(b""), kept if preserve else None)

        assert {0o700} == {_mode(behind, path) for path in (b"small", b"small/below", b"large", b"large/below")}
        plain = {_mode(behind, path) for path in (b"plain", b"plain/below", b"plain large", b"plain large/below")}
        assert plain <= {0o755, 0o777 & ~read_umask()}
        await store.close()

    async def test_directories_stay_when_their_files_are_removed(self) -> None:
        """A program that writes into the directory would lose its next file if it were removed with the last one."""
        store, behind = await self.opened()
        behind.plant(b"d/e/f", b"content")
        [fetched] = await store.read_small([b"d/e/f"])
        assert isinstance(fetched, Fetched)

        assert await store.remove([Removal(b"d/e/f", fetched.version)]) == [None]

        assert [entry.path for entry in await listed(store.walk())] == [b"d", b"d/e"]
        await store.close()

    async def test_names_are_examined_as_a_listing_would_list_them(self) -> None:
        """Files, directories without what is in them, and what there is not."""
        store, behind = await self.opened()
        behind.plant(b"d/f", b"content")
        behind.plant_partial(b"g", b"part")
        everything = {entry.path: entry for entry in await listed(store.walk())}

        examined = await store.examine([*everything, b"d/none", b"d/f/none", b"../up"])

        found = examined.entries[: len(everything)]
        assert {b"d", b"d/f", partial_path(b"g")} == set(everything)
        assert list(everything.values()) == found
        assert [NotFound, NotFound, BadName] == [type(each) for each in examined.entries[len(everything) :]]
        assert examined.now_ns > 0
        await store.close()

    async def test_directories_that_are_left_out_are_not_entered(self) -> None:
        """Such directories are listed themselves; so is one that one rule leaves out and a later rule enters."""
        store, behind = await self.opened()
        for path in (b"a/cache/f", b"cache/keep/f", b"cache/other/f", b"top/f", b"a/top/f"):
            behind.plant(path, b"x")

        entries = await listed(store.walk(leave=[b"-cache", b"+/cache/keep", b"-/t?p"]))

        assert [entry.path for entry in entries] == [
            b"a",
            b"a/cache",
            b"a/top",
            b"a/top/f",
            b"cache",
            b"cache/keep",
            b"cache/keep/f",
            b"cache/other",
            b"top",
        ]
        await store.close()

    async def test_what_nothing_is_against_is_not_forbidden(self) -> None:
        """Missing names are allowed too; a bad name is refused on its own; and nothing is changed by asking."""
        store, behind = await self.opened()
        behind.plant(b"d/f", b"content")
        before = await listed(store.walk(partials=True))

        for use in Use:
            plain, gone, bad = await store.forbidden([b"d/f", b"new/d/f", b"../f"], use)

            assert (None, None, BadName) == (plain, gone, type(bad)), use
            assert await store.forbidden([], use) == []
        assert before == await listed(store.walk(partials=True))
        await store.close()

    async def test_prunes_empty_directories(self) -> None:
        """Directories are removed in the order given, so a parent that has only such directories may follow them."""
        store, behind = await self.opened()
        behind.plant_directory(b"a/b", Attributes(1_000_000_000, 0o755))
        behind.plant_directory(b"c", Attributes(2_000_000_000, 0o755))

        pruned = await store.prune([Vacant(b"a/b", 1_000_000_000), Vacant(b"a", None), Vacant(b"c", 2_000_000_000)])

        assert pruned == [True, True, True]
        assert await listed(store.walk()) == []
        await store.close()

    async def test_prunes_nothing_else(self) -> None:
        """A directory that is not empty, has changed, is none or is missing stays, and so does everything in it."""
        store, behind = await self.opened()
        behind.plant(b"file/f", b"content")
        behind.plant_partial(b"partial/f", b"con")
        behind.plant_directory(b"directory/d", Attributes(1_000_000_000, 0o755))
        behind.plant_directory(b"changed", Attributes(1_000_000_000, 0o755))
        before = await listed(store.walk(partials=True))
        names = [b"file", b"partial", b"directory", b"file/f", b"missing", b"missing/too"]

        pruned = await store.prune([*(Vacant(name, None) for name in names), Vacant(b"changed", 999_999_999)])

        assert pruned == [False] * 7
        assert before == await listed(store.walk(partials=True))
        await store.close()

    @pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
    async def test_keeps_both(self, large: bool) -> None:
        """Under the policy to rename, a newcomer gets its own name if that is free, else the next free number."""
        store, behind = await self.opened()
        behind.plant(b"d/app.log", b"old")

        stored = [await _keep_both(store, b"d/app.log", content, large=large) for content in (b"new", b"newer")]
        free = await _keep_both(store, b"d/other.log", b"other", large=large)

        assert store.keeps_both()
        assert [how(each) for each in [*stored, free]] == [Committed.RENAMED] * 2 + [Committed.CREATED]
        assert [each.number for each in [*stored, free] if isinstance(each, Stored)] == [1, 2, 0]
        assert [behind.content(b"d/app" + end) for end in (b".log", b".1.log", b".2.log")] == [b"old", b"new", b"newer"]
        assert behind.partial(b"d/app.log") is None
        [first] = await store.describe([b"d/app.1.log"])
        assert isinstance(first, Existing)
        assert isinstance(stored[0], Stored)
        assert stored[0].is_still(first)
        await store.close()

    @pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
    async def test_keeps_both_beside_what_is_no_file(self, large: bool) -> None:
        """A directory has the name, and another one the first number: neither is touched."""
        store, behind = await self.opened()
        behind.plant(b"x/f", b"1")
        behind.plant(b"x.1/f", b"2")

        stored = await _keep_both(store, b"x", b"new", large=large)

        assert isinstance(stored, Stored)
        assert (stored.how, stored.number) == (Committed.RENAMED, 2)
        assert [behind.content(path) for path in (b"x/f", b"x.1/f", b"x.2")] == [b"1", b"2", b"new"]
        await store.close()

    @pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
    async def test_a_number_that_was_taken_meanwhile_is_busy(self, large: bool) -> None:
        """Who names a number has looked at what was there, and must look again: it may be the same file."""
        store, behind = await self.opened()
        behind.plant(b"f", b"old")
        [seen] = await store.siblings([Sized(b"f", 3)])
        behind.plant(b"f.1", b"new")

        assert seen == Siblings(1)
        assert isinstance(await _keep_both(store, b"f", b"new", 1, large=large), Busy)
        assert await store.siblings([Sized(b"f", 3)]) == [Siblings(2, (1,))]
        assert how(await _keep_both(store, b"f", b"two", 2, large=large)) is Committed.RENAMED
        assert [behind.content(path) for path in (b"f", b"f.1", b"f.2")] == [b"old", b"new", b"two"]
        await store.close()

    async def test_two_newcomers_at_once_get_different_names(self) -> None:
        """Of the same name, in one batch or on the way side by side, none replaces another one."""
        store, behind = await self.opened()
        behind.plant(b"f", b"old")
        contents = [b"%d" % number for number in range(30)]
        sending = [store.put_small([small_file(b"f", content)], OnConflict.RENAME) for content in contents]

        answers = [answer for [answer] in await _all(sending)]
        stored = [each for each in answers if isinstance(each, Stored)]
        busy = [each for each in answers if isinstance(each, Busy)]

        assert len(stored) + len(busy) == 30
        assert stored
        assert len({each.number for each in stored}) == len(stored)
        there = [behind.content(b"f.%d" % each.number) for each in stored]
        assert set(there) == {content for content, each in zip(contents, answers, strict=True) if each in stored}
        assert behind.content(b"f") == b"old"
        await store.close()

    async def test_the_numbered_names_of_the_same_size(self) -> None:
        """The latest come first, and not more than eight; those of other names and sizes do not count."""
        store, behind = await self.opened()
        for number in range(1, 12):
            behind.plant(b"a.%d.log" % number, b"123" if number != 5 else b"other")
        behind.plant(b"b.1.log", b"123")

        [found, none, nowhere, bad] = await store.siblings(
            [Sized(b"a.log", 3), Sized(b"none", 3), Sized(b"no/such", 3), Sized(b"../a", 3)]
        )

        assert isinstance(found, Siblings)
        assert found.free == 12
        assert len(found.alike) == 8
        assert set(found.alike) <= set(range(1, 12)) - {5}
        assert (none, nowhere) == (Siblings(1), Siblings(1))
        assert isinstance(bad, BadName)
        await store.close()

    async def test_keeps_both_goes_on_with_a_partial(self) -> None:
        """The partial has the name that was asked for; what it holds need not be sent again."""
        store, behind = await self.opened()
        behind.plant(b"f", b"old")
        behind.plant_partial(b"f", LARGE_CONTENT[: 2 * BLOCK_BYTES])
        digests = block_digests(LARGE_CONTENT[: 2 * BLOCK_BYTES])

        writer = await store.open_writer(b"f", len(LARGE_CONTENT), OnConflict.RENAME)
        matched = await writer.match(digests, 2 * BLOCK_BYTES)
        await writer.write([LARGE_CONTENT[matched:]])
        stored = await writer.commit(digest(LARGE_CONTENT), None)

        assert (matched, stored.how) == (2 * BLOCK_BYTES, Committed.RENAMED)
        assert behind.content(b"f.1") == LARGE_CONTENT
        assert behind.content(b"f") == b"old"
        await store.close()

    async def test_keeps_both_takes_from_the_old_one_what_it_has(self) -> None:
        """A delta works as for a replacement, and leaves the old file as it is."""
        store, behind = await self.opened()
        old = random_bytes(3 << 20)
        new = old[: 1 << 20] + b"changed" + old[1 << 20 :]
        behind.plant(b"f", old)

        writer = await store.open_writer(b"f", len(new), OnConflict.RENAME)
        sent = await _send_delta(writer, new)
        stored = await writer.commit(digest(new), None)

        assert sent < 1 << 20
        assert stored.how is Committed.RENAMED
        assert (behind.content(b"f"), behind.content(b"f.1")) == (old, new)
        await store.close()

    async def test_prunes_many(self) -> None:
        """Any number of directories can be asked about at once, also more than fit one command."""
        store, behind = await self.opened()
        paths = [b"%03d" % number for number in range(600)]
        for path in paths:
            behind.plant_directory(path, Attributes(1_000_000_000, 0o755))

        assert await store.prune([Vacant(path, 1_000_000_000) for path in paths]) == [True] * 600
        assert await listed(store.walk()) == []
        await store.close()

    async def test_keeps_a_source_that_changed(self) -> None:
        """A file that was replaced after it was read is not removed."""
        store, behind = await self.opened()
        behind.plant(b"f", b"old")
        [fetched] = await store.read_small([b"f"])
        assert isinstance(fetched, Fetched)
        behind.plant(b"f", b"new")

        [answer] = await store.remove([Removal(b"f", fetched.version)])

        assert isinstance(answer, SourceChanged)
        assert behind.content(b"f") == b"new"
        await store.close()

    async def test_no_items_no_answers(self) -> None:
        """An empty question has an empty answer."""
        store, _ = await self.opened()

        assert await store.describe([]) == []
        assert await store.read_small([]) == []
        assert await store.put_small([], OnConflict.REPLACE) == []
        assert await store.settle([]) == []
        assert await store.remove([]) == []
        assert await store.prune([]) == []
        assert await store.make_directories([]) == []
        assert await store.set_directories([]) == []
        await store.close()
