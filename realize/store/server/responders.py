"""The server half of `realize.store.client.store`: answers the commands of one peer from stores.

Owns what one connection has open: directories, listings and streams.

Invariants:

* a peer that may not read a directory gets a store that compares only content which came from that peer;
* every command that names a directory is checked against the rights of the peer there, and a directory that does not
  exist is answered like one without rights;
* names go to the store unchanged, which validates them in one place;
* when the connection ends, everything that it had open is closed, and partials are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import define, evolve
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.logger import Logger as TwistedLogger
from twisted.protocols import amp
from twisted.python.failure import Failure

from realize.concurrency.memory import Claim
from realize.concurrency.turns import Turn
from realize.config import Right
from realize.errors import (
    Busy,
    Conflict,
    ConnectionFailed,
    NotFound,
    ProtocolError,
    RealizeError,
    StorageError,
)
from realize.leaving import rules_fit
from realize.logger import Logger
from realize.store.hooks import FileHooks, Saved
from realize.store.interfaces import IListing, IStore
from realize.store.server.audit import AuditLog
from realize.store.server.listings import ServedListings
from realize.store.server.observers import ObservedRead, ObservedWrite, count_not_read
from realize.store.server.rights import PUT, DirectoryRights, rights_in
from realize.store.server.small_files import ServedBatches
from realize.store.server.streams import ServedRead, ServedWrite
from realize.tracing import run_of
from realize.units import display_name
from realize.values import (
    SLICE_BYTES,
    Attributes,
    Chunk,
    Directory,
    Expected,
    Fetched,
    FoundSymlink,
    HardLink,
    HardLinked,
    Linked,
    OnConflict,
    Removal,
    Seen,
    Sized,
    SmallFile,
    Stored,
    Symlink,
    Use,
    Vacant,
)
from realize.wire import commands, costs, packing
from realize.wire.connection import PeerProtocol
from realize.wire.error_answers import to_declared
from realize.wire.packing import FetchedHead, FoundTarget, SmallHead

if TYPE_CHECKING:
    from realize.extras import Extras

_T = TypeVar("_T")
_Extended = TypeVar("_Extended", Directory, Symlink)

_log = TwistedLogger()

_CLOSING: Final = commands.names(commands.AbandonStream, commands.CloseStream, commands.CommitStream)
"""Commands after which their stream is closed, even if they are refused."""

MakeStore = Callable[[str, bytes, bytes | None, bytes], IStore]
"""Makes the store for a location below a directory: ``make_store(directory, base, origin, backup_dir)``; may raise any
`RealizeError`."""

TurnsOf = Callable[[str], Turn]
"""Returns the turns of the peer in a directory, for commands that read much and answer little.

Only called once a store was made for the directory.
"""


@define(eq=False, repr=False)
class _Opened:
    """A directory that the peer has opened."""

    store: IStore
    rights: DirectoryRights
    audit: AuditLog
    turn: Turn
    """For commands that read much; shared by all connections of the peer to the directory."""
    claim: Claim
    """The memory for it, and for what the audit log remembers of its files."""
    links_files: bool = False
    """Whether its store notes which files it may link."""


class DirectoryResponders(amp.CommandLocator):
    """Answers the commands that concern directories, for one peer on one connection."""

    def __init__(
        self,
        protocol: PeerProtocol,
        *,
        key: bytes,
        rights: Mapping[str, frozenset[Right]],
        make_store: MakeStore,
        turns_of: TurnsOf,
        log: Logger,
        watch: FileHooks | None = None,
    ) -> None:
        """``key`` is the public key of the peer."""
        self.closed: Deferred[None] = Deferred()
        """Fires when the connection has ended and everything it had open is closed."""
        self._protocol = protocol
        self._key = key
        self._rights = rights
        self._make_store = make_store
        self._turns_of = turns_of
        self._log = log
        self._watch = FileHooks() if watch is None else watch
        self._directories: dict[int, _Opened | None] = {}
        self._listings = ServedListings(protocol)
        self._writes: dict[int, tuple[int, ServedWrite]] = {}
        self._reads: dict[int, tuple[int, ServedRead]] = {}
        self._batches = ServedBatches(protocol)
        protocol.when_lost().addCallback(self._lost)

    @property
    def open_count(self) -> int:
        """Number of directories, listings and streams that are open."""
        return len(self._directories) + len(self._listings) + len(self._writes) + len(self._reads)

    def transfers(self) -> list[dict[str, Any]]:
        """See `realize.wire.responding.Served`."""
        if not self._writes and not self._reads:
            return []
        streams: list[tuple[int, ServedWrite | ServedRead]] = [*self._writes.values(), *self._reads.values()]
        opened = ((self._directories.get(handle), stream) for handle, stream in streams)
        return [{"dir": where.rights.directory, **stream.describe()} for where, stream in opened if where is not None]

    def failed(self, box: Mapping[bytes, bytes]) -> None:
        """See `realize.wire.responding.Served`: a stream is closed whatever its last command is answered."""
        number = commands.stream_of(box) if box[amp.COMMAND] in _CLOSING else None
        writing, reading = self._writes.get(number or 0), self._reads.get(number or 0)
        if writing is not None:
            Deferred.fromCoroutine(writing[1].abandon(keep=True)).addErrback(self._unexpected, "abandoning")
        if reading is not None:
            reading[1].close()

    # Directories.

    @commands.OpenDirectory.responder
    async def _open_directory(
        self,
        handle: int,
        directory: str,
        base: bytes,
        salt: bytes,
        age: int | None,
        origin: bytes | None,
        backup: bytes | None = None,
    ) -> dict[str, Any]:
        if handle in self._directories:
            raise ProtocolError(f"handle {handle} is in use")
        rights = rights_in(directory, self._rights, self._log)
        if len(self._directories) >= commands.MAX_HANDLES:
            raise Busy(f"this connection has {commands.MAX_HANDLES} directories open already")
        if backup is not None:
            rights.require(Right.WRITE)
        self._directories[handle] = None
        store = None
        try:
            store = self._make_store(directory, base, rights.origin(self._key, origin), backup or b"")
            turn = self._while_connected(self._turns_of(directory))
            where = await store.open(salt, age or 0)
        except BaseException as error:
            self._refused(error, directory, base, "open")
            self._directories.pop(handle, None)
            if store is not None:
                await Deferred.fromCoroutine(_closed(store)).addErrback(self._unexpected, "closing")
            raise
        if handle not in self._directories:
            await store.close()
            raise ProtocolError(f"handle {handle} was closed meanwhile")
        theirs = self._protocol.theirs
        claim = self._claimed(costs.DIRECTORY_BYTES)
        audit = AuditLog(self._log, run_of("" if theirs is None else theirs.run), directory, base, claim)
        self._directories[handle] = _Opened(store, rights, audit, turn, claim)
        return {
            "kind": where.kind,
            "chain": list(where.identities),
            "now": where.now_ns,
            "rights": sorted(right.value for right in rights.granted),
            "mode": where.mode,
            "accepts": packing.bits_of(store.accepts),
        }

    @commands.CloseDirectory.responder
    async def _close_directory(self, handle: int) -> dict[str, Any]:
        opened = self._opened(handle)
        del self._directories[handle]
        await self._release(opened, handle)
        return {}

    def _while_connected(self, turn: Turn) -> Turn:
        """Return ``turn``, except that work is not begun for a peer that has gone before its turn comes."""

        def begin(work: Callable[[], Deferred[Any]]) -> Deferred[Any]:
            return fail(ConnectionFailed("the peer has gone")) if self._protocol.has_gone else work()

        return lambda work: turn(partial(begin, work))

    def _claimed(self, size: int) -> Claim:
        """Claim the memory for what a command has opened; until now it was part of the command's claim."""
        claim = self._protocol.memory.claim()
        claim.force(size)
        return claim

    def _opened(self, handle: int) -> _Opened:
        """Return an open directory, whatever the peer may do there; raises `ProtocolError` if it is not open."""
        opened = self._directories.get(handle)
        if opened is None:
            raise ProtocolError(f"handle {handle} is not open")
        return opened

    def _directory(self, handle: int, *rights: Right) -> _Opened:
        """Return an open directory in which the peer has one of these rights.

        Raises `ProtocolError` if it is not open, `AccessDenied` without the rights.
        """
        opened = self._opened(handle)
        opened.rights.require(*rights)
        return opened

    @commands.MeasureSpace.responder
    async def _measure_space(self, handle: int) -> dict[str, Any]:
        opened = self._directory(handle, *Right)
        space = await opened.store.space()
        counted = {} if space.free_files is None else {"files": space.free_files}
        return {"free": space.free, "total": space.size, **counted}

    @commands.TryWrite.responder
    async def _try_write(self, handle: int) -> dict[str, Any]:
        opened = self._directory(handle, *PUT)
        return {"nanoseconds": await opened.turn(opened.store.try_write)}

    # Listings.

    @commands.Walk.responder
    async def _walk(
        self,
        handle: int,
        listing: int,
        partials: bool,  # noqa: FBT001 -- an argument of AMP
        avoid: bytes,
        leave: list[bytes] | None,
        one_file_system: bool | None = None,  # noqa: FBT001 -- an argument of AMP
        links: bool | None = None,  # noqa: FBT001 -- an argument of AMP
        hard_links: bool | None = None,  # noqa: FBT001 -- an argument of AMP
        further: bool | None = None,  # noqa: FBT001 -- an argument of AMP
    ) -> dict[str, Any]:
        opened = self._directory(handle, Right.READ)

        def begin() -> IListing:
            if leave is not None and not rules_fit(leave):
                raise ProtocolError("too many rules for a listing")
            return opened.store.walk(
                partials=partials,
                avoid=avoid,
                leave=leave or (),
                one_file_system=bool(one_file_system),
                links=bool(links),
                hard_links=bool(hard_links),
            )

        found = self._listings.find(listing, handle, begin, further=bool(further))
        try:
            page = await self._listings.next_page(found)
        except BaseException as error:
            self._refused(error, opened.rights.directory, opened.audit.base, "list")
            raise
        return {"entries": page.entries, "more": page.more, "now": page.now_ns}

    @commands.EndWalk.responder
    def _end_walk(self, listing: int) -> dict[str, Any]:
        self._listings.end(listing)
        return {}

    # Many files at once.

    @commands.Examine.responder
    async def _examine(
        self,
        handle: int,
        paths: list[bytes],
        links: bool | None = None,  # noqa: FBT001 -- an argument of AMP
        hard_links: bool | None = None,  # noqa: FBT001 -- an argument of AMP
    ) -> dict[str, Any]:
        opened = self._directory(handle, Right.READ)
        examined = await opened.store.examine(paths, links=bool(links), hard_links=bool(hard_links))
        return {"examined": examined.entries, "now": examined.now_ns}

    @commands.Describe.responder
    async def _describe(self, handle: int, paths: list[bytes]) -> dict[str, Any]:
        opened = self._directory(handle, *PUT, Right.READ)
        return {"found": self._count_failures(opened, await opened.store.describe(paths))}

    @commands.Forbidden.responder
    async def _forbidden(self, handle: int, paths: list[bytes], use: Use) -> dict[str, Any]:
        opened = self._opened(handle)
        opened.rights.require_for(use)
        return {"forbidden": self._count_failures(opened, await opened.store.forbidden(paths, use))}

    @commands.FindSiblings.responder
    async def _siblings(self, handle: int, files: list[Sized]) -> dict[str, Any]:
        opened = self._directory(handle, *PUT)
        return {"siblings": self._count_failures(opened, await opened.store.siblings(files))}

    @commands.ReadSmall.responder
    async def _read_small(
        self,
        handle: int,
        stream: int,
        paths: list[bytes],
        removing: bool | None = None,  # noqa: FBT001 -- an argument of AMP
    ) -> dict[str, Any]:
        async def sent() -> list[Fetched | RealizeError]:
            opened = self._directory(handle, Right.READ)
            answers = await opened.store.read_small(paths, removing=bool(removing))
            fetched: list[Fetched | RealizeError] = self._count_failures(opened, answers)
            read = [item for item in fetched if isinstance(item, Fetched)]
            for path, item in zip(paths, fetched, strict=True):
                if isinstance(item, StorageError):
                    opened.audit.refused(path, "read", item)
            for item in read:
                opened.audit.was_read(item.file.path, item.version, item.file.digest)
            await self._batches.send(stream, [item.file.content for item in read])
            return fetched

        with self._batches.on(stream):
            turns = self._batches.turns_of(self._directory(handle, Right.READ).rights.directory)
            fetched = await turns.run(lambda: Deferred.fromCoroutine(sent()))
        return {"heads": [item if isinstance(item, RealizeError) else _fetched_head(item) for item in fetched]}

    @commands.PutSmall.responder
    async def _put_small(
        self,
        handle: int,
        stream: int,
        policy: OnConflict,
        heads: list[SmallHead],
        extras: list[Extras | None] | None = None,
        directories: list[Directory] | None = None,
    ) -> dict[str, Any]:
        with self._batches.on(stream):
            self._directory(handle, *PUT)
            files = await self._batches.receive(stream, heads)
            if extras is not None:
                given = _with_extras([file.attributes for file in files], extras)
                files = [
                    SmallFile(file.path, file.content, file.digest, each, file.replaces, file.number)
                    for file, each in zip(files, given, strict=True)
                ]
            # The directory may have been closed while the content arrived.
            opened = self._directory(handle, *PUT)
            # The stream stays open meanwhile: the number of streams bounds how many batches are in memory.
            put = await opened.store.put_small(files, opened.rights.policy(policy), directories or ())
            outcomes = self._count_failures(opened, [opened.rights.said(outcome) for outcome in put])
        for file, outcome in zip(files, outcomes, strict=True):
            opened.audit.put(file, outcome)
        for how, count in Counter(each.how for each in outcomes if isinstance(each, Stored)).items():
            self._watch.committed(opened.rights.directory, how, count)
        return {"outcomes": outcomes}

    @commands.ReadLinks.responder
    async def _read_links(self, handle: int, paths: list[bytes]) -> dict[str, Any]:
        opened = self._directory(handle, Right.READ)
        found = [_found_target(each) for each in await opened.store.read_links(paths)]
        answers = next(packing.fit(found, packing.measure_found_link), [])
        for path, answer in zip(paths, self._count_failures(opened, answers), strict=False):
            if isinstance(answer, StorageError):
                opened.audit.refused(path, "read", answer)
            elif isinstance(answer, FoundTarget):
                opened.audit.link_was_read(answer.link(path).link)
        return {"links": answers}

    @commands.PutLinks.responder
    async def _put_links(
        self,
        handle: int,
        policy: OnConflict,
        links: list[Symlink],
        trial: bool | None = None,  # noqa: FBT001 -- an argument of AMP
        extras: list[Extras | None] | None = None,
    ) -> dict[str, Any]:
        opened = self._directory(handle, *PUT)
        if extras is not None:
            links = _each_with(links, extras, f"{len(extras)} owners for {len(links)} symlinks")
        put = await opened.store.put_links(links, opened.rights.policy(policy), trial=bool(trial))
        outcomes: list[Linked | RealizeError] = [opened.rights.said(outcome) for outcome in put]
        if trial:
            return {"outcomes": outcomes}
        self._count_failures(opened, outcomes)
        for link, outcome in zip(links, outcomes, strict=True):
            opened.audit.linked(link, outcome)
        made = Counter(outcome for outcome in outcomes if isinstance(outcome, Linked))
        for how, count in made.items():
            self._watch.linked(opened.rights.directory, how, count)
        return {"outcomes": outcomes}

    @commands.ReadExtras.responder
    async def _read_extras(
        self,
        handle: int,
        paths: list[bytes],
        wanted: int,
        lenient: int,
        numeric: bool,  # noqa: FBT001 -- an argument of AMP
    ) -> dict[str, Any]:
        opened = self._directory(handle, Right.READ)
        found = await opened.turn(
            lambda: self._directory(handle, Right.READ).store.read_extras(
                paths, packing.kinds_of(wanted), numeric=numeric, lenient=packing.kinds_of(lenient)
            )
        )
        answers = next(packing.fit(found, packing.measure_found_extras), [])
        for path, answer in zip(paths, self._count_failures(opened, answers), strict=False):
            if isinstance(answer, StorageError):
                opened.audit.refused(path, "read", answer)
        return {"found": answers}

    @commands.Foresee.responder
    async def _foresee(self, handle: int, paths: list[bytes], extras: list[Extras | None]) -> dict[str, Any]:
        opened = self._directory(handle, *PUT)
        asked = [each for each in extras if each is not None]
        if not len(paths) == len(extras) == len(asked):
            raise ProtocolError(f"{len(asked)} attributes for {len(paths)} files")
        foreseen = await opened.turn(lambda: self._directory(handle, *PUT).store.foresee(paths, asked))
        return {"foreseen": self._count_failures(opened, foreseen)}

    @commands.LinkFiles.responder
    async def _link_files(self, handle: int, links: list[HardLink]) -> dict[str, Any]:
        opened = self._directory(handle, *PUT)
        if not opened.links_files and not opened.claim.try_grow(costs.LINKABLE_FILES_BYTES):
            # Without room to note what is put, nothing could be linked.
            return {"outcomes": [HardLinked.NOT_LINKED] * len(links)}
        opened.links_files = True
        outcomes = self._count_failures(opened, await opened.store.link_files(links))
        for link, outcome in zip(links, outcomes, strict=True):
            opened.audit.hard_linked(link, outcome)
        for how, count in Counter(outcome for outcome in outcomes if isinstance(outcome, HardLinked)).items():
            self._watch.hard_linked(opened.rights.directory, how, count)
        return {"outcomes": outcomes}

    @commands.Settle.responder
    async def _settle(
        self,
        handle: int,
        expected: list[Expected],
        attributes: list[Attributes | None] | None,
        extras: list[Extras | None] | None = None,
    ) -> dict[str, Any]:
        opened = self._directory(handle, *PUT)
        if attributes is not None:
            if len(attributes) != len(expected):
                raise ProtocolError(f"{len(attributes)} attributes for {len(expected)} files")
            if extras is not None:
                attributes = _with_extras(attributes, extras)
            given = attributes if opened.rights.replaces else [None] * len(expected)
            expected = [evolve(each, attributes=its) for each, its in zip(expected, given, strict=True)]
        # Larger files, which would keep others waiting, are left to MatchFinal.
        small = [each for each in expected if each.size <= SLICE_BYTES]
        answers = iter(await opened.turn(lambda: self._directory(handle, *PUT).store.settle(small)))
        settled: list[bool | RealizeError] = [each.size <= SLICE_BYTES and next(answers) for each in expected]
        if extras is not None and attributes is not None:
            settled = [
                (opened.rights.not_kept(each.path, its) or answer) if answer is True else answer
                for each, its, answer in zip(expected, attributes, settled, strict=True)
            ]
        there = sum(opened.audit.settled(each, answer) for each, answer in zip(expected, settled, strict=True))
        self._watch.saved(Saved.ALREADY_THERE, there)
        return {"settled": self._count_failures(opened, settled)}

    @commands.MatchFinal.responder
    async def _match_final(
        self,
        handle: int,
        path: bytes,
        size: int,
        offset: int,
        digests: list[bytes],
        attributes: Attributes | None,
        extras: Extras | None = None,
    ) -> dict[str, Any]:
        opened = self._directory(handle, *PUT)
        if offset > size:
            raise ProtocolError("a match beyond the end of the file")
        if extras is not None:
            [attributes] = _with_extras([attributes], [extras])

        def match() -> Deferred[int]:
            # The directory may have been closed while this waited for its turn.
            store = self._directory(handle, *PUT).store
            return store.match_final(path, size, offset, digests, attributes if opened.rights.replaces else None)

        try:
            matched = await opened.turn(match)
        except RealizeError as error:
            count_not_read(self._watch, opened.audit, self._protocol, path, error)
            raise
        if offset + matched == size and (refused := opened.rights.not_kept(path, attributes)) is not None:
            raise refused
        if matched and offset + matched == size:
            self._watch.saved(Saved.ALREADY_THERE, opened.audit.already_there(path, size, None))
        return {"matched": matched}

    @commands.Remove.responder
    async def _remove(self, handle: int, removals: list[Removal]) -> dict[str, Any]:
        opened = self._directory(handle, Right.REMOVE)
        removed = await opened.store.remove(removals)
        self._count_failures(opened, [error for error in removed if not isinstance(error, NotFound)])
        for removal, error in zip(removals, removed, strict=True):
            opened.audit.removed(removal, error)
        self._watch.removed(opened.rights.directory, removed.count(None))
        return {"removed": removed}

    @commands.Prune.responder
    async def _prune(self, handle: int, vacant: list[Vacant]) -> dict[str, Any]:
        opened = self._directory(handle, Right.REMOVE, Right.PRUNE)
        pruned = await opened.store.prune(vacant)
        for each, answer in zip(vacant, pruned, strict=True):
            if answer is True:
                opened.audit.pruned(each.path)
        return {"pruned": pruned}

    @commands.MakeDirectories.responder
    async def _make_directories(
        self, handle: int, directories: list[Directory], extras: list[Extras | None] | None = None
    ) -> dict[str, Any]:
        given = _directories_with_extras(directories, extras)
        return {"made": await self._directory(handle, *PUT).store.make_directories(given)}

    @commands.SetDirectories.responder
    async def _set_directories(
        self, handle: int, directories: list[Directory], extras: list[Extras | None] | None = None
    ) -> dict[str, Any]:
        given = _directories_with_extras(directories, extras)
        return {"done": await self._directory(handle, *PUT).store.set_directories(given)}

    # One file, as a stream.

    @commands.OpenWrite.responder
    async def _open_write(
        self,
        handle: int,
        stream: int,
        path: bytes,
        size: int,
        policy: OnConflict,
        preserve: bool | None,  # noqa: FBT001 -- an argument of AMP
        replaces: Seen | None,
        number: int | None = None,
        allocated: int | None = None,
    ) -> dict[str, Any]:
        opened = self._directory(handle, *PUT)
        self._protocol.streams.accept(stream)
        inbound = self._protocol.streams.inbound(stream, size)
        served = ServedWrite(
            self._protocol,
            inbound,
            size,
            opened.audit.file(path, size),
            ObservedWrite(self._watch, opened.audit, self._writes, stream),
            opened.turn,
        )
        self._writes[stream] = (handle, served)
        opening = opened.store.open_writer(
            path,
            size,
            opened.rights.policy(policy),
            preserve=preserve is not False,
            replaces=replaces,
            number=number or 0,
            allocated=allocated,
        )
        opening.addErrback(_restated, opened)
        return {"have": await served.open(opening)}

    @commands.MatchPartial.responder
    async def _match_partial(self, stream: int, digests: list[bytes], length: int) -> dict[str, Any]:
        matched = await self._write(stream).match(digests, length)
        self._watch.saved(Saved.RESUME, matched)
        return {"matched": matched}

    @commands.OfferChunks.responder
    async def _offer_chunks(self, stream: int, chunks: list[Chunk]) -> dict[str, Any]:
        return {"wanted": await self._write(stream).offer(chunks)}

    @commands.CommitStream.responder
    async def _commit_stream(
        self, stream: int, digest: bytes, attributes: Attributes | None, extras: Extras | None = None
    ) -> dict[str, Any]:
        if extras is not None:
            [attributes] = _with_extras([attributes], [extras])
        return {"outcome": await self._write(stream).commit(digest, attributes)}

    @commands.AbandonStream.responder
    async def _abandon_stream(self, stream: int, keep: bool) -> dict[str, Any]:  # noqa: FBT001 -- an argument of AMP
        found = self._writes.get(stream)
        return {"kept": None if found is None else await found[1].abandon(keep=keep)}

    @commands.OpenRead.responder
    async def _open_read(
        self,
        handle: int,
        stream: int,
        path: bytes,
        removing: bool | None = None,  # noqa: FBT001 -- an argument of AMP
    ) -> dict[str, Any]:
        opened = self._directory(handle, Right.READ)
        self._protocol.streams.accept(stream)
        outbound = self._protocol.streams.outbound(stream)
        served = ServedRead(
            self._protocol,
            outbound,
            opened.audit.shown(path),
            ObservedRead(self._watch, opened.audit, self._reads, stream, path, self._protocol),
            opened.turn,
        )
        self._reads[stream] = (handle, served)
        reader = await served.open(opened.store.open_reader(path, removing=bool(removing)))
        told = {} if reader.allocated is None else {"allocated": reader.allocated}
        return {"version": reader.version, "attributes": reader.attributes, **told}

    @commands.BlockDigests.responder
    async def _block_digests(self, stream: int, length: int) -> dict[str, Any]:
        return {"digests": await self._read(stream).block_digests(length)}

    @commands.SkipBlocks.responder
    async def _skip_blocks(self, stream: int, length: int) -> dict[str, Any]:
        await self._read(stream).skip(length)
        return {}

    @commands.CutSpan.responder
    async def _cut_span(self, stream: int) -> dict[str, Any]:
        return {"chunks": await self._read(stream).cut()}

    @commands.PickChunks.responder
    async def _pick_chunks(self, stream: int, wanted: bytes) -> dict[str, Any]:
        await self._read(stream).pick(wanted)
        return {}

    @commands.StartRead.responder
    def _start_read(self, stream: int) -> dict[str, Any]:
        self._watch.saved(Saved.CLAIMED, self._read(stream).start())
        return {}

    @commands.EndRead.responder
    async def _end_read(self, stream: int) -> dict[str, Any]:
        return {"digest": await self._read(stream).end()}

    @commands.CloseStream.responder
    def _close_stream(self, stream: int) -> dict[str, Any]:
        found = self._reads.get(stream)
        if found is not None:
            found[1].close()
        return {}

    def _write(self, stream: int) -> ServedWrite:
        found = self._writes.get(stream)
        if found is None:
            raise ProtocolError(f"stream {stream} is not being written")
        return found[1]

    def _read(self, stream: int) -> ServedRead:
        found = self._reads.get(stream)
        if found is None:
            raise ProtocolError(f"stream {stream} is not being read")
        return found[1]

    # The rest.

    def _count_failures(self, opened: _Opened, answers: list[_T]) -> list[_T]:
        """Count the errors among answers about files, and return the answers."""
        for answer in answers:
            if isinstance(answer, RealizeError):
                self._watch.failed(opened.rights.directory, answer)
        return answers

    def _refused(self, error: BaseException, directory: str, base: bytes, doing: str) -> None:
        """Log an error of the disk that concerns a location as a whole."""
        if isinstance(error, StorageError):
            self._log.error(
                "storage_failed",
                dir=directory,
                path=display_name(base),
                doing=doing,
                code=error.wire_code.decode(),
                error=str(error),
            )

    def _lost(self, _: RealizeError) -> None:
        Deferred.fromCoroutine(self._close_all()).addErrback(self._unexpected, "closing").chainDeferred(self.closed)

    async def _close_all(self) -> None:
        directories, self._directories = self._directories, {}
        await _all(
            Deferred.fromCoroutine(self._release(opened, handle)).addErrback(self._unexpected, "closing")
            for handle, opened in directories.items()
            if opened is not None
        )

    async def _release(self, opened: _Opened, handle: int) -> None:
        for number in self._listings.numbers(handle):
            with _log.failuresHandled("while a listing was ended"):
                self._listings.end(number)
        for owner, reading in list(self._reads.values()):
            if owner == handle:
                with _log.failuresHandled("while a file was closed"):
                    reading.close()
        try:
            await _all(
                Deferred.fromCoroutine(writing.abandon(keep=True)).addErrback(self._unexpected, "abandoning")
                for owner, writing in list(self._writes.values())
                if owner == handle
            )
        finally:
            opened.claim.release()
            await opened.store.close()

    def _unexpected(self, failure: Failure, doing: str) -> None:
        error = to_declared(self._log, failure, doing)
        self._log.warning("close_failed", doing=doing, error=str(error))


async def _closed(store: IStore) -> None:
    await store.close()


async def _all(work: Iterable[Deferred[Any]]) -> None:
    """Wait for work that handles its own failures."""
    await DeferredList(list(work))


def _restated(failure: Failure, opened: _Opened) -> Failure:
    return Failure(opened.rights.said(failure.value)) if failure.check(Conflict) else failure


def _with_extras(attributes: Sequence[Attributes | None], extras: Sequence[Extras | None]) -> list[Attributes | None]:
    """Return attributes with what else a file is to get; raises `ProtocolError` if they do not go together."""
    if len(attributes) != len(extras):
        raise ProtocolError(f"{len(extras)} further attributes for {len(attributes)} files")
    if any(more is not None and its is None for its, more in zip(attributes, extras, strict=True)):
        raise ProtocolError("further attributes for a file without any")
    return [
        None if its is None else Attributes(its.mtime_ns, its.mode, more)
        for its, more in zip(attributes, extras, strict=True)
    ]


def _directories_with_extras(
    directories: Sequence[Directory], extras: Sequence[Extras | None] | None
) -> Sequence[Directory]:
    """The same for directories."""
    if extras is None:
        return directories
    return _each_with(directories, extras, f"{len(extras)} further attributes for {len(directories)} directories")


def _each_with(items: Sequence[_Extended], extras: Sequence[Extras | None], mismatch: str) -> list[_Extended]:
    """Return the items, each with its extras; raises `ProtocolError` if there are more of one than of the other."""
    if len(items) != len(extras):
        raise ProtocolError(mismatch)
    return [evolve(each, extras=more) for each, more in zip(items, extras, strict=True)]


def _fetched_head(fetched: Fetched) -> FetchedHead:
    file = fetched.file
    return FetchedHead(len(file.content), file.digest, file.attributes, fetched.version)


def _found_target(found: FoundSymlink | RealizeError) -> FoundTarget | RealizeError:
    return found if isinstance(found, RealizeError) else FoundTarget(found.link.target, found.version)
