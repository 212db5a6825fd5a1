"""The store at the other end of a connection: `IStore` as commands.

Lists are split into packs that fit a command, and the packs are in flight together.
`realize.store.server.responders` is the other half.

Nothing here has a timeout of its own: the connection has one, for replies (`realize.wire.reply_timeouts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, fail, gatherResults, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from realize.concurrency.shielded import cancellable, shielded
from realize.errors import ProtocolError, RealizeError, VersionMismatch, ignore_expected
from realize.store.client.small_files import RemoteBatches, extras_of, if_any, listed
from realize.store.client.transit import Transit
from realize.store.client.unanswered import call_lasting
from realize.store.interfaces import Examined, IListing, IReader, IStore, IWriter
from realize.values import (
    BLOCK_BYTES,
    MAX_SMALL_BYTES,
    OWNERS,
    USUALLY_PRESERVED,
    Attributes,
    Directory,
    Entry,
    Existing,
    Expected,
    Fetched,
    FoundSymlink,
    HardLink,
    HardLinked,
    Linked,
    OnConflict,
    Preserve,
    Removal,
    Seen,
    Siblings,
    Sized,
    SmallFile,
    Space,
    Stored,
    Symlink,
    Travelled,
    Use,
    Vacant,
    Where,
)
from realize.wire import commands, packing
from realize.wire.connection import PeerProtocol

if TYPE_CHECKING:
    from realize.extras import Extras, FoundExtras, WantedExtras

T = TypeVar("T")
R = TypeVar("R")

MAX_PACKS_IN_FLIGHT: Final = 32
"""Packs of one store that are in flight at once; others wait for their turn."""


@implementer(IStore)
class RemoteStore:
    """The location ``base`` in the directory named ``directory`` of the peer at the other end of ``protocol``.

    The connection belongs to the caller: `close` gives up the directory, and leaves the connection open.
    ``after_reconnect`` says that a connection was lost before, so batches begin small: less is lost with this one.
    ``origin`` is as for a `realize.store.local.store.LocalStore`, for a directory that we may read; so is
    ``backup_dir``, which a peer of an older version does not know.
    """

    def __init__(
        self,
        protocol: PeerProtocol,
        directory: str,
        base: bytes = b"",
        *,
        after_reconnect: bool = False,
        origin: bytes | None = None,
        backup_dir: bytes = b"",
    ) -> None:
        self.rights: tuple[str, ...] = ()
        """Our rights in the directory; known once `open` has answered."""
        self.accepts = USUALLY_PRESERVED
        """See `IStore`."""
        self._protocol = protocol
        self._directory = directory
        self._base = base
        self._origin = origin
        self._backup_dir = backup_dir
        self._handle = 0
        self._ahead: tuple[bytes, Deferred[Where]] | None = None
        """What `open_ahead` has asked, by its salt."""
        self._turns = DeferredSemaphore(MAX_PACKS_IN_FLIGHT)
        self._transit = Transit()
        self._batches = RemoteBatches(protocol, self._opened, self._transit, after_reconnect=after_reconnect)

    @property
    def replaces(self) -> bool:
        """See `IStore`."""
        return "write" in self.rights

    @property
    def tells(self) -> frozenset[Preserve]:
        """See `IStore`: older peers know nothing beyond mode and times."""
        return frozenset(Preserve) if self._has(commands.EXTRA_ATTRIBUTES) else USUALLY_PRESERVED

    @property
    def links(self) -> bool:
        """See `IStore`: older peers cannot."""
        return self._has(commands.LINKS)

    @property
    def hard_links(self) -> bool:
        """See `IStore`: older peers cannot."""
        return self._has(commands.HARD_LINKS)

    @property
    def takes_directories(self) -> bool:
        """See `IStore`: older peers do not, and are asked to make them before."""
        return self._has(commands.PUT_DIRECTORIES)

    def open_ahead(self, salt: bytes) -> None:
        """Ask already for what `open` will be asked with this salt, while Hello is not answered yet.

        A directory for backups is only asked for where the peer is known to understand that.
        """
        if not self._backup_dir:
            self._ahead = salt, self._open(salt, 0)

    def open(self, salt: bytes, run_age_ns: int = 0) -> Deferred[Where]:
        """See `IStore`."""
        if self._ahead is not None and (self._ahead[0], 0) == (salt, run_age_ns):
            (_, answer), self._ahead = self._ahead, None
            return answer
        self._forget_ahead()
        return self._open(salt, run_age_ns)

    def _forget_ahead(self) -> None:
        """Let what `open_ahead` has asked fail unheard; the end of the connection closes what it opens."""
        if self._ahead is not None:
            (_, answer), self._ahead = self._ahead, None
            answer.addErrback(ignore_expected)

    def _open(self, salt: bytes, run_age_ns: int) -> Deferred[Where]:
        if self._backup_dir:
            try:
                self._require(commands.BACKUPS, "keep backups")
            except VersionMismatch:
                return fail()
        handle = self._protocol.choose_handle()

        def opened(answer: dict[str, Any]) -> Where:
            self._handle = handle
            # So that it is known when the first files go.
            self._protocol.round_trip.look()
            self.rights = tuple(answer["rights"])
            self.accepts = packing.kinds_of(answer.get("accepts") or packing.bits_of(USUALLY_PRESERVED))
            return Where(answer["kind"], tuple(answer["chain"]), answer["now"], answer.get("mode"))

        asked = self._protocol.call(
            commands.OpenDirectory,
            handle=handle,
            directory=self._directory,
            base=self._base,
            salt=salt,
            age=run_age_ns or None,
            origin=self._origin,
            backup=self._backup_dir or None,
        )
        return asked.addCallback(opened)

    def space(self) -> Deferred[Space]:
        """See `IStore`."""
        asked = self._call(commands.MeasureSpace)
        return asked.addCallback(lambda answer: Space(answer["free"], answer["total"], answer.get("files")))

    def try_write(self) -> Deferred[int]:
        """See `IStore`."""
        asked = self._call(commands.TryWrite, patient=True)
        return asked.addCallback(lambda answer: int(answer["nanoseconds"]))

    def walk(
        self,
        *,
        partials: bool = False,
        avoid: bytes = b"",
        leave: Sequence[bytes] = (),
        one_file_system: bool = False,
        links: bool = False,
        hard_links: bool = False,
    ) -> IListing:
        """See `IStore`."""
        if one_file_system:
            self._require(commands.ONE_FILE_SYSTEM, "stay on one file system")
        # Loaded only for those who move from a peer.
        from realize.store.client.listing import RemoteListing

        return RemoteListing(
            self._protocol,
            self._opened(),
            partials=partials,
            avoid=avoid,
            leave=leave,
            one_file_system=one_file_system,
            links=links,
            hard_links=hard_links,
        )

    @cancellable
    async def examine(self, paths: Sequence[bytes], *, links: bool = False, hard_links: bool = False) -> Examined:
        """See `IStore`."""
        self._require(commands.EXAMINE, "look up files by their names")
        times: list[int] = []

        def ask(pack: list[bytes]) -> Deferred[list[Entry | RealizeError]]:
            asked = self._call(commands.Examine, paths=pack, links=links or None, hard_links=hard_links or None)
            return asked.addCallback(noted).addCallback(listed, "examined", len(pack))

        def noted(answer: dict[str, Any]) -> dict[str, Any]:
            times.append(answer["now"])
            return answer

        entries = await self._packed(paths, packing.measure_examined, ask)
        if not hard_links and any(isinstance(entry, Entry) and entry.identity for entry in entries):
            from realize.store.client.listing import UNASKED_IDENTITIES

            raise ProtocolError(UNASKED_IDENTITIES)
        return Examined(entries, min(times))

    def describe(self, paths: Sequence[bytes]) -> Deferred[list[Existing | RealizeError]]:
        """See `IStore`."""

        def ask(pack: list[bytes]) -> Deferred[list[Existing | RealizeError]]:
            return self._call(commands.Describe, paths=pack).addCallback(listed, "found", len(pack))

        return self._packed(paths, packing.measure_path, ask)

    def keeps_both(self) -> bool:
        """See `IStore`."""
        return self._has(commands.KEEP_BOTH)

    def _has(self, capability: str) -> bool:
        theirs = self._protocol.theirs
        return theirs is not None and capability in theirs.capabilities

    def siblings(self, files: Sequence[Sized]) -> Deferred[list[Siblings | RealizeError]]:
        """See `IStore`."""

        def ask(pack: list[Sized]) -> Deferred[list[Siblings | RealizeError]]:
            return self._call(commands.FindSiblings, files=pack).addCallback(listed, "siblings", len(pack))

        return self._packed(files, packing.measure_named, ask)

    def forbidden(self, paths: Sequence[bytes], use: Use) -> Deferred[list[RealizeError | None]]:
        """See `IStore`."""

        def ask(pack: list[bytes]) -> Deferred[list[RealizeError | None]]:
            return self._call(commands.Forbidden, paths=pack, use=use).addCallback(listed, "forbidden", len(pack))

        return self._packed(paths, packing.measure_path, ask)

    @shielded
    async def read_small(
        self,
        paths: Sequence[bytes],
        *,
        removing: bool = False,
        wanted: WantedExtras | None = None,  # noqa: ARG002 -- of `IStore`
    ) -> list[Fetched | RealizeError]:
        """See `IStore`; nothing that is ``wanted`` comes along."""

        def ask(pack: list[bytes]) -> Deferred[list[Fetched | RealizeError]]:
            return self._turns.run(self._batches.read, pack, removing=removing)

        return await self._packed(paths, packing.measure_path, ask)

    def put_small(
        self, files: Sequence[SmallFile], policy: OnConflict, directories: Sequence[Directory] = ()
    ) -> Deferred[list[Stored | RealizeError]]:
        """See `IStore`."""
        if not files and {"write", "create"} & set(self.rights):
            return succeed([])
        if directories and not (self.takes_directories and _fit_one_pack(directories)):
            return self.make_directories(directories).addCallback(lambda _: self.put_small(files, policy))

        def ask(pack: list[SmallFile]) -> Deferred[list[Stored | RealizeError]]:
            return self._turns.run(self._batches.put, pack, policy, directories)

        return self._packed(files, packing.measure_file, ask, weigh=_weigh_small)

    def reads_at_once(self) -> int:
        """See `IStore`."""
        return self._batches.reads_at_once()

    def takes_at_once(self) -> int:
        """See `IStore`."""
        return self._batches.takes_at_once()

    def round_trip(self) -> float:
        """See `IStore`; by the shortest answer of late."""
        return self._protocol.round_trip.look() or 0.0

    @shielded
    async def read_links(
        self,
        paths: Sequence[bytes],
        *,
        wanted: WantedExtras | None = None,  # noqa: ARG002 -- of `IStore`
    ) -> list[FoundSymlink | RealizeError]:
        """See `IStore`; nothing that is ``wanted`` comes along."""

        async def ask(pack: list[bytes]) -> list[FoundSymlink | RealizeError]:
            links: list[FoundSymlink | RealizeError] = []
            while True:
                rest = pack[len(links) :]
                found = (await self._call(commands.ReadLinks, paths=rest))["links"]
                if len(found) > len(rest) or (rest and not found):
                    raise ProtocolError(f"{len(found)} answers about {len(rest)} symlinks")
                links += [
                    each if isinstance(each, RealizeError) else each.link(path)
                    for path, each in zip(rest, found, strict=False)
                ]
                if len(links) == len(pack):
                    return links

        return await self._packed(paths, packing.measure_path, lambda pack: Deferred.fromCoroutine(ask(pack)))

    def put_links(
        self, links: Sequence[Symlink], policy: OnConflict, *, trial: bool = False
    ) -> Deferred[list[Linked | RealizeError]]:
        """See `IStore`."""

        def ask(pack: list[Symlink]) -> Deferred[list[Linked | RealizeError]]:
            given = {"trial": trial or None, "extras": if_any([link.extras for link in pack])}
            arguments = {"handle": self._opened(), "policy": policy, "links": pack, **given}
            asked: Deferred[dict[str, Any]] = self._turns.run(
                lambda: call_lasting(self._protocol, commands.PutLinks, **arguments)
            )
            return asked.addCallback(listed, "outcomes", len(pack))

        return self._packed(links, packing.measure_link, ask)

    @shielded
    async def read_extras(
        self,
        paths: Sequence[bytes],
        wanted: frozenset[Preserve],
        *,
        numeric: bool = False,
        lenient: frozenset[Preserve],
    ) -> list[FoundExtras | RealizeError]:
        """See `IStore`."""
        asked = {"wanted": packing.bits_of(wanted), "lenient": packing.bits_of(lenient), "numeric": numeric}
        some = next(packing.fit(paths, packing.measure_path))
        answer = await self._call(commands.ReadExtras, patient=True, paths=some, **asked)
        found: list[FoundExtras | RealizeError] = answer["found"]
        if not 0 < len(found) <= len(some):
            raise ProtocolError(f"{len(found)} answers about {len(some)} files")
        return found

    def foresee(self, paths: Sequence[bytes], extras: Sequence[Extras]) -> Deferred[list[RealizeError | None]]:
        """See `IStore`."""

        def ask(pack: list[tuple[bytes, Extras]]) -> Deferred[list[RealizeError | None]]:
            asked = self._call(commands.Foresee, paths=[path for path, _ in pack], extras=[each for _, each in pack])
            return asked.addCallback(listed, "foreseen", len(pack))

        return self._packed(list(zip(paths, extras, strict=True)), packing.measure_foreseen, ask)

    def link_files(self, links: Sequence[HardLink]) -> Deferred[list[HardLinked | RealizeError]]:
        """See `IStore`."""

        def ask(pack: list[HardLink]) -> Deferred[list[HardLinked | RealizeError]]:
            arguments = {"handle": self._opened(), "links": pack}
            asked: Deferred[dict[str, Any]] = self._turns.run(
                lambda: call_lasting(self._protocol, commands.LinkFiles, **arguments)
            )
            return asked.addCallback(listed, "outcomes", len(pack))

        return self._packed(links, packing.measure_hard_link, ask)

    def settle(self, expected: Sequence[Expected]) -> Deferred[list[bool | RealizeError]]:
        """See `IStore`."""

        def ask(pack: list[Expected]) -> Deferred[list[bool | RealizeError]]:
            attributes = [each.attributes for each in pack]
            asked = self._call(
                commands.Settle, patient=True, expected=pack, attributes=attributes, extras=extras_of(attributes)
            )
            return asked.addCallback(listed, "settled", len(pack))

        return self._packed(expected, packing.measure_file, ask)

    @cancellable
    async def match_final(
        self, path: bytes, size: int, offset: int, digests: Sequence[bytes], attributes: Attributes | None = None
    ) -> int:
        """See `IStore`."""
        # Loaded only for those who have larger files than fit a batch.
        from realize.store.client.streams import BLOCKS_PER_COMMAND

        matched = 0
        for first in range(0, len(digests) or 1, BLOCKS_PER_COMMAND):
            answer = await self._call(
                commands.MatchFinal,
                patient=True,
                path=path,
                size=size,
                offset=offset + matched,
                digests=list(digests[first : first + BLOCKS_PER_COMMAND]),
                attributes=attributes,
                extras=None if attributes is None else attributes.extras,
            )
            if answer["matched"] > min(BLOCKS_PER_COMMAND * BLOCK_BYTES, size - offset - matched):
                raise ProtocolError("the peer matched more than it was asked about")
            matched += answer["matched"]
            if answer["matched"] < BLOCKS_PER_COMMAND * BLOCK_BYTES:
                break
        return matched

    def open_reader(self, path: bytes, *, removing: bool = False) -> Deferred[IReader]:
        """See `IStore`."""
        from realize.store.client.streams import RemoteReader

        return Deferred.fromCoroutine(
            RemoteReader.open(self._protocol, self._opened(), path, self._transit, removing=removing)
        )

    def make_directories(self, directories: Sequence[Directory]) -> Deferred[list[RealizeError | None]]:
        """See `IStore`; in order, as with `prune`."""
        return self._in_order(directories, packing.measure_directory, _directories_of, commands.MakeDirectories, "made")

    @cancellable
    async def set_directories(self, directories: Sequence[Directory]) -> list[bool | RealizeError]:
        """See `IStore`; in order, as with `prune`, only those that may keep their owner from what is below them.

        All others come first, and together: there may be thousands, and each pack would take a round trip.
        """

        def in_order(some: Sequence[Directory]) -> Deferred[list[bool | RealizeError]]:
            return self._in_order(some, packing.measure_directory, _directories_of, commands.SetDirectories, "done")

        are_open = [each.extras is None and each.mode & OWNERS == OWNERS for each in directories]
        open_ones = list(compress(directories, are_open))
        if not open_ones:
            return await in_order(directories)
        answers = iter(await self._packed(open_ones, packing.measure_directory, in_order))
        others = [each for each, is_open in zip(directories, are_open, strict=True) if not is_open]
        later = iter(await in_order(others) if others else ())
        return [next(answers if is_open else later) for is_open in are_open]

    @cancellable
    async def _in_order(
        self,
        items: Sequence[T],
        measure: Callable[[T], int],
        question: Callable[[list[T]], dict[str, Any]],
        command: type,
        answer: str,
    ) -> list[Any]:
        """Ask about all items in order, one pack after the other."""
        answers: list[Any] = []
        for pack in list(packing.fit(items, measure)) or [[]]:
            answers += listed(await self._call(command, patient=True, **question(pack)), answer, len(pack))
        return answers

    def open_writer(
        self,
        path: bytes,
        size: int,
        policy: OnConflict,
        *,
        preserve: bool = True,
        replaces: Seen | None = None,
        number: int = 0,
        allocated: int | None = None,
    ) -> Deferred[IWriter]:
        """See `IStore`."""
        from realize.store.client.streams import RemoteWriter

        arrived = self._batches.arrived
        return Deferred.fromCoroutine(
            RemoteWriter.open(
                self._protocol,
                self._opened(),
                path,
                size,
                policy,
                arrived,
                preserve,
                replaces,
                number,
                allocated,
                self._transit,
            )
        )

    def remove(self, removals: Sequence[Removal]) -> Deferred[list[RealizeError | None]]:
        """See `IStore`."""
        if not removals and "remove" in self.rights:
            return succeed([])

        def ask(pack: list[Removal]) -> Deferred[list[RealizeError | None]]:
            asked: Deferred[dict[str, Any]] = self._turns.run(
                lambda: call_lasting(self._protocol, commands.Remove, handle=self._opened(), removals=pack)
            )
            return asked.addCallback(listed, "removed", len(pack))

        return self._packed(removals, packing.measure_named, ask)

    def prune(self, vacant: Sequence[Vacant]) -> Deferred[list[bool | RealizeError]]:
        """See `IStore`; packs are sent one after the other, to keep the order."""
        return self._in_order(vacant, packing.measure_named, lambda pack: {"vacant": pack}, commands.Prune, "pruned")

    def in_transit(self) -> list[Travelled]:
        """See `IStore`."""
        return self._transit.travelled()

    def close(self) -> Deferred[None]:
        """See `IStore`; if the connection has ended, the directory is closed already."""
        self._forget_ahead()
        handle, self._handle = self._handle, 0
        if not handle or self._protocol.lost:
            return succeed(None)
        # Not patient: a hanging disk must not keep us from ending; the peer keeps partials in any case.
        asked = self._protocol.call(commands.CloseDirectory, handle=handle)
        return asked.addCallbacks(_nothing, ignore_expected)

    def _require(self, capability: str, what: str) -> None:
        """Raise `VersionMismatch` if the peer lacks a capability; without it, it would do something else."""
        if not self._has(capability):
            theirs = self._protocol.theirs
            software = "an older version" if theirs is None else theirs.software
            raise VersionMismatch(f"the daemon there runs {software}, which cannot {what}: upgrade it")

    def _opened(self) -> int:
        if not self._handle:
            raise ProtocolError("the directory is not open")
        return self._handle

    def _call(self, command: type, *, patient: bool = False, **arguments: Any) -> Deferred[dict[str, Any]]:
        return self._turns.run(
            lambda: self._protocol.call(command, patient=patient, handle=self._opened(), **arguments),
        )

    def _packed(
        self,
        items: Sequence[T],
        measure: Callable[[T], int],
        ask: Callable[[list[T]], Deferred[list[R]]],
        weigh: Callable[[T], int] | None = None,
    ) -> Deferred[list[R]]:
        """Ask about all items in packs, concurrently, and join the answers."""
        try:
            packs = list(packing.fit(items, measure, weigh=weigh, load=MAX_SMALL_BYTES))
            packs = packs or [[]]  # an empty list asks whether it is allowed; the peer logs it if it is not
        except RealizeError:
            # An item that can never be sent makes the whole call fail, like any argument of the wrong type.
            failed: Deferred[list[R]] = Deferred()
            failed.errback()
            return failed
        answers = gatherResults([ask(pack) for pack in packs], consumeErrors=True)
        return answers.addCallbacks(_joined, _first)


def _nothing(_: object) -> None:
    return None


def _fit_one_pack(directories: Sequence[Directory]) -> bool:
    return len(list(packing.fit(directories, packing.measure_directory))) == 1


def _directories_of(pack: list[Directory]) -> dict[str, Any]:
    return {"directories": pack, "extras": if_any([each.extras for each in pack])}


def _weigh_small(file: SmallFile) -> int:
    size = len(file.content)
    if size > MAX_SMALL_BYTES:
        raise ProtocolError(f"{size} bytes are not a small file")
    return size


def _joined(lists: Iterable[list[R]]) -> list[R]:
    return [item for items in lists for item in items]


def _first(failure: Failure) -> Failure:
    error = failure.value
    return error.subFailure if isinstance(error, FirstError) else failure
