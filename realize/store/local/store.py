"""`LocalStore`: a directory of this machine, or one file in it, as a store.

Between two calls it keeps nothing open but the files that are being read or written.
All disk work is done in threads, by the other modules of this package; this one only dispatches it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from realize.concurrency.memory import UNBOUNDED, Share
from realize.concurrency.shielded import RunInThread, shielded, shielded_opening, steadfast
from realize.errors import InternalError, NoSpace, NotFound, RealizeError, StorageError
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.tree import Inode, identity_of, refused_as_backups
from realize.store.interfaces import Examined, IListing, IReader, IStore, IWriter
from realize.store.local.acceptance import Acceptance
from realize.store.local.backups import is_within_backups, prepare
from realize.store.local.directories import make_directories, set_directories
from realize.store.local.existing import FinalMatches, Vouching, describe_batch, settle_batch
from realize.store.local.footprint import Footprint
from realize.store.local.group_commit import Committer
from realize.store.local.hard_links import HardLinks
from realize.store.local.headroom import Headroom, Waiting
from realize.store.local.known_files import KnownFiles
from realize.store.local.link_policy import LinkPolicy
from realize.store.local.listing import LocalListing
from realize.store.local.location import BackupPlace, Backups, RootedLocation, locate
from realize.store.local.promised_space import Crowded
from realize.store.local.removal import prune_batch, remove_batch
from realize.store.local.siblings import siblings_batch
from realize.store.local.small_files import WrittenBatch, read_batch, write_batch
from realize.store.local.versions import Clock
from realize.store.local.walker import Walker, examine_batch
from realize.units import display_name
from realize.values import (
    BLOCK_BYTES,
    MAX_SMALL_BYTES,
    SLICE_BYTES,
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
    Use,
    Vacant,
    Where,
)

if TYPE_CHECKING:
    from realize.extras import Extras, FoundExtras, WantedExtras
    from realize.store.local.reader import LocalReader
    from realize.store.local.writer import LocalWriter

_log = Logger()

MAX_SHORT_JOB_COMPONENTS: Final = 2048
"""Components of the names in one short job: each costs a system call, and one that is made costs more."""

_T = TypeVar("_T")
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")
_Named = TypeVar("_Named", Directory, HardLink, Removal, Sized, SmallFile, Symlink, Vacant)


def root_identity(root: bytes | str) -> Inode:
    """Return the identity of a directory to be served, for `LocalStore`; raises `OSError` if it cannot be reached."""
    return identity_of(os.stat(root))


def _release_reader(reader: IReader) -> None:
    reader.close()


def _release_writer(writer: IWriter) -> None:
    writer.abandon(keep=True).addErrback(_not_kept)


def _not_kept(failure: Failure) -> None:
    """Ignore that a partial could not be kept: nobody waits for it any more, and it will be sent again."""
    failure.trap(RealizeError)


@implementer(IStore)
class LocalStore:
    """The files below ``root``/``base``.

    ``root`` is a path given by the operator and may lead through symlinks; ``base`` may come from the wire and may not.
    ``root_identity`` is the identity that the root of a served directory must have; without it, any root is accepted at
    `open`, and made on demand if it is missing.
    All stores of a directory share a ``committer``, so that their files are committed together; ``headroom``, which
    divides the free space among them; ``run_briefly``, the threads for short jobs
    (`realize.concurrency.short_jobs.ShortJobs`); and ``run_in_turn``, those for jobs of many short calls that may have
    to wait (`realize.concurrency.one_at_work.OneAtWork`).
    ``origin`` is the sender of what is written here, if it may not read here but learns the answers of the store: then
    only content that came from there is compared (`realize.store.origin`).
    ``footprint`` holds the directories that the user of this store has made or emptied: without ``changes_all`` only
    these get permissions and times, and without ``prunes_all`` only these are removed.
    ``shown`` is what errors call the root instead of its path.
    ``memory`` is the budget for what is read ahead of files.
    ``owner`` is the name under which this store takes turns with others when files are committed.
    ``backups`` is where all that is replaced in a served directory goes, whoever replaces it; else it goes to
    ``backup_dir``, below the location, if that is given.
    ``link_policy`` says which symlinks may be moved away from here, and made here.
    ``acceptance`` says what may be set here beside modes and times.
    """

    links = True
    hard_links = True
    takes_directories = False
    replaces = True
    tells = frozenset(Preserve)

    def __init__(
        self,
        root: bytes | str,
        base: bytes = b"",
        *,
        run_in_thread: RunInThread,
        run_briefly: RunInThread | None = None,
        run_in_turn: RunInThread | None = None,
        root_identity: Inode | None = None,
        committer: Committer | None = None,
        headroom: Headroom | None = None,
        clock: Clock | None = None,
        origin: bytes | None = None,
        footprint: Footprint | None = None,
        changes_all: bool = True,
        prunes_all: bool = True,
        shown: bytes | None = None,
        memory: Share | None = None,
        owner: str = "",
        backups: Backups | None = None,
        backup_dir: bytes = b"",
        link_policy: LinkPolicy | None = None,
        acceptance: Acceptance | None = None,
    ) -> None:
        self._acceptance = Acceptance() if acceptance is None else acceptance
        self._backups = Backups() if backups is None else backups
        self._backup_dir = backup_dir
        self._link_policy = LinkPolicy() if link_policy is None else link_policy
        self._root = os.fsencode(root)
        self._base = base
        self._run_in_thread = run_in_thread
        self._run_briefly = run_in_thread if run_briefly is None else run_briefly
        self._run_in_turn = run_in_thread if run_in_turn is None else run_in_turn
        self._root_identity = root_identity
        self._shown = shown
        self._committer = Committer(run_in_thread) if committer is None else committer
        self._headroom = Headroom(run_in_thread) if headroom is None else headroom
        self._clock = Clock() if clock is None else clock
        self._memory = UNBOUNDED.of("") if memory is None else memory
        self._stamps = self._committer.stamps
        self._footprint = Footprint() if footprint is None else footprint
        self._changes_all = changes_all
        self._prunes_all = prunes_all
        self._owner = owner
        self._began_ns = 0
        self._salt = b""
        self._located: RootedLocation | None = None
        self._within_backups = False
        self._known = KnownFiles()
        self._vouching = Vouching(self._clock, self._known)
        self._origin = origin
        self._matches = FinalMatches(self._vouching, origin)
        self._hard_links = HardLinks()
        self._listings: set[LocalListing] = set()
        self._readers: set[LocalReader] = set()
        self._writers: set[LocalWriter] = set()
        self._waiting: set[Waiting] = set()
        self._closed = False

    @property
    def accepts(self) -> frozenset[Preserve]:
        """See `IStore`."""
        return self._acceptance.all_kinds

    @shielded
    async def open(self, salt: bytes, run_age_ns: int = 0) -> Where:
        """See `IStore`."""
        self._salt = salt
        self._began_ns = self._stamps.note() - run_age_ns
        located: RootedLocation = await self._run_briefly(
            locate, self._root, self._base, self._root_identity, self._shown
        )
        self._within_backups = await self._run_briefly(is_within_backups, located.root)
        where: Where = await self._run_briefly(located.where, salt, self._stamps.present().stamp_ns)
        if self._backup_dir:
            place = BackupPlace(located.base + names.judge(self._backup_dir), len(located.base))
            located.root.refuse_own(place.below)
            located = evolve(located, backups=place)
        self._located = located
        if self._backups.place is not None:
            await self._run_briefly(prepare, self._location)
        return where

    @shielded
    async def space(self) -> Space:
        """See `IStore`."""
        from realize.store.local.probe import measure_space

        space: Space = await self._run_briefly(measure_space, self._location, self._headroom.reserve)
        return space

    @shielded
    async def try_write(self) -> int:
        """See `IStore`."""
        from realize.store.local.probe import try_write

        self._refuse_within_backups()
        took: int = await self._run_in_thread(try_write, self._location)
        return took

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
        walker = Walker(
            self._location,
            salt=self._salt,
            partials=partials,
            avoid=avoid,
            leave=leave,
            one_file_system=one_file_system,
            links=links,
            hard_links=hard_links,
        )
        listing = LocalListing(walker, self._run_briefly, self._listings.discard, self._clock.now_ns)
        self._listings.add(listing)
        return listing

    @shielded
    async def examine(self, paths: Sequence[bytes], *, links: bool = False, hard_links: bool = False) -> Examined:
        """See `IStore`."""
        now_ns = self._clock.now_ns()
        salt = self._salt if hard_links else None
        entries: list[Entry | RealizeError] = await self._while_open(examine_batch, self._location, paths, links, salt)
        return Examined(entries, now_ns)

    @shielded
    async def describe(self, paths: Sequence[bytes]) -> list[Existing | RealizeError]:
        """See `IStore`."""
        answers: list[Existing | RealizeError] = await self._while_open(
            describe_batch, self._location, paths, self._salt, self._earliest_ns, self._origin
        )
        return answers

    def keeps_both(self) -> bool:
        """See `IStore`."""
        return True

    @shielded
    async def siblings(self, files: Sequence[Sized]) -> list[Siblings | RealizeError]:
        """See `IStore`."""
        return await self._in_parts(siblings_batch, files)

    @shielded
    async def forbidden(self, paths: Sequence[bytes], use: Use) -> list[RealizeError | None]:
        """See `IStore`."""
        # Loaded only for dry runs and those who have symlinks.
        from realize.store.local.permissions import forbidden_batch

        answers: list[RealizeError | None] = await self._run_briefly(forbidden_batch, self._location, paths, use)
        return answers

    def reads_at_once(self) -> int:
        """See `IStore`: the maximum, as no link is involved."""
        return MAX_SMALL_BYTES

    def takes_at_once(self) -> int:
        """See `IStore`: the maximum, as no link is involved."""
        return MAX_SMALL_BYTES

    def round_trip(self) -> float:
        """See `IStore`: nothing, as no link is involved."""
        return 0.0

    @shielded
    async def read_small(
        self, paths: Sequence[bytes], *, removing: bool = False, wanted: WantedExtras | None = None
    ) -> list[Fetched | RealizeError]:
        """See `IStore`."""
        answers: list[Fetched | RealizeError] = await self._while_open(
            read_batch, self._location, paths, self._clock, removing, wanted
        )
        return answers

    @steadfast
    async def put_small(
        self, files: Sequence[SmallFile], policy: OnConflict, directories: Sequence[Directory] = ()
    ) -> list[Stored | RealizeError]:
        """See `IStore`; of two files with the same name, the later one is final in the end."""
        self._refuse_within_backups()
        if directories:
            await self.make_directories(directories)
        if any(file.attributes is not None and file.attributes.extras is not None for file in files):
            return await self._put_with_extras(files, policy)
        return await self._put_small(files, policy)

    async def _put_with_extras(self, files: Sequence[SmallFile], policy: OnConflict) -> list[Stored | RealizeError]:
        """Write those files of which the directory accepts what they are to be given."""
        accepted = [self._acceptance.of(file) for file in files]
        return _beside(accepted, await self._put_small(_fit(accepted), policy))

    async def _put_small(self, files: Sequence[SmallFile], policy: OnConflict) -> list[Stored | RealizeError]:
        waiting = self._headroom.wait()
        answers = await self._put_batch(files, policy)
        if any(isinstance(answer, NoSpace) for answer in answers):
            await self._put_again(files, policy, answers, waiting)
        return answers

    async def _put_again(
        self,
        files: Sequence[SmallFile],
        policy: OnConflict,
        answers: list[Stored | RealizeError],
        waiting: Waiting,
    ) -> None:
        """Write the files again that did not fit, as long as space can be freed for them; updates ``answers``."""
        with self._until_closed(waiting):
            while short := [number for number, answer in enumerate(answers) if isinstance(answer, NoSpace)]:
                sizes = [files[number].size for number in short]
                if not await self._headroom.make_way_for_small(self._scope, sizes, waiting):
                    return
                again = await self._put_batch([files[number] for number in short], policy)
                for number, answer in zip(short, again, strict=True):
                    answers[number] = answer

    async def _put_batch(self, files: Sequence[SmallFile], policy: OnConflict) -> list[Stored | RealizeError]:
        answers: list[Stored | RealizeError] = []
        for some in _parts(files):
            answers += await self._put_part(some, policy)
        return answers

    async def _put_part(self, files: Sequence[SmallFile], policy: OnConflict) -> list[Stored | RealizeError]:
        await self._committer.slots.acquire(len(files), self._owner)
        try:
            batch: WrittenBatch = await self._while_open(
                write_batch,
                self._location,
                files,
                policy,
                self._salt,
                self._committer.watch,
                self._headroom,
                self._origin,
            )
            try:
                prepared = batch.prepared()
                outcomes = iter(await self._committer.commit(prepared, self._owner) if prepared else [])
            finally:
                batch.release()
        finally:
            self._committer.slots.release(len(files))
        answers = _beside(batch.items, outcomes)
        if self._known.noting:
            for file, answer in zip(files, answers, strict=True):
                if isinstance(answer, Stored):
                    self._known.stored(answer, file.digest)
        return answers

    @shielded
    async def read_links(
        self, paths: Sequence[bytes], *, wanted: WantedExtras | None = None
    ) -> list[FoundSymlink | RealizeError]:
        """See `IStore`."""
        # Loaded only for those who have symlinks, as what makes them.
        from realize.store.local.links import read_links

        answers: list[FoundSymlink | RealizeError] = await self._while_open(
            read_links, self._location, paths, self._clock, self._link_policy.gives, wanted
        )
        return answers

    @steadfast
    async def put_links(
        self, links: Sequence[Symlink], policy: OnConflict, *, trial: bool = False
    ) -> list[Linked | RealizeError]:
        """See `IStore`."""
        from realize.store.local.links import Placing

        self._refuse_within_backups()
        placing = Placing(
            self._location,
            policy,
            self._link_policy.takes,
            self._earliest_ns,
            self._origin,
            self._headroom,
            self._committer.watch,
            self._changes_all,
            self._acceptance,
        )
        if trial:
            return [answer for some in _parts(links) for answer in await self._while_open(placing.try_put, some)]
        answers: list[Linked | RealizeError] = []
        for some in _parts(links):
            self._check_open()
            self._stamps.note()
            answers += await self._run_in_turn(placing.put, some)
            self._stamps.note()
        return answers

    @steadfast
    async def link_files(self, links: Sequence[HardLink]) -> list[HardLinked | RealizeError]:
        """See `IStore`."""
        # Loaded only for those who keep hard links.
        from realize.store.local.linking import Linking

        self._refuse_within_backups()
        self._known.begin(self._salt)
        linking = Linking(self._location, self._vouching, self._committer.watch, self._headroom)
        answers: list[HardLinked | RealizeError] = []
        for some in _parts(links):
            self._check_open()
            self._stamps.note()
            answers += await self._run_in_turn(linking.link, some)
            self._stamps.note()
        return answers

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
        from realize.store.local.extras import read_extras

        # A directory service may be asked for names, which is not brief.
        answers: list[FoundExtras | RealizeError] = await self._run_in_turn(
            read_extras, self._location, paths, wanted, numeric, lenient
        )
        return answers

    @shielded
    async def foresee(self, paths: Sequence[bytes], extras: Sequence[Extras]) -> list[RealizeError | None]:
        """See `IStore`."""
        from realize.store.local.extras import foresee

        answers: list[RealizeError | None] = await self._run_in_turn(
            foresee, self._location, paths, extras, self._acceptance
        )
        return answers

    @shielded
    async def settle(self, expected: Sequence[Expected]) -> list[bool | RealizeError]:
        """See `IStore`."""
        accepted = [self._acceptance.of(each) for each in expected]
        answers: list[bool | RealizeError] = []
        for some in _slices(_fit(accepted)):
            self._check_open()
            answers += await self._run_in_thread(settle_batch, self._location, some, self._vouching, self._origin)
            self._stamps.note()
        return _beside(accepted, answers)

    @shielded
    async def match_final(
        self, path: bytes, size: int, offset: int, digests: Sequence[bytes], attributes: Attributes | None = None
    ) -> int:
        """See `IStore`."""
        accepted = self._acceptance.attributes(attributes, path)
        start, blocks = offset, SLICE_BYTES // BLOCK_BYTES
        for first in range(0, max(1, len(digests)), blocks):
            self._check_open()
            some = digests[first : first + blocks]
            matched: int | None = await self._run_in_thread(
                self._matches.match, self._location, path, size, offset, some, accepted
            )
            self._stamps.note()
            if matched is None:
                if not size:
                    # 0 would also mean that an empty file matches.
                    raise NotFound(f"{display_name(path)}: there is no empty file of that name")
                break
            offset += matched
            if matched < len(some) * BLOCK_BYTES or offset == size:
                break
        return offset - start

    @shielded_opening(_release_reader)
    async def open_reader(self, path: bytes, *, removing: bool = False) -> IReader:
        """See `IStore`."""
        # Loaded only for those who have larger files than fit a batch, as what writes them.
        from realize.store.local.reader import LocalReader, SourceFile

        source: SourceFile = await self._run_in_thread(
            SourceFile.open, self._location, path, self._clock, self._hard_links, removing
        )
        try:
            reader = LocalReader(source, self._run_in_thread, self._readers.discard, self._memory)
            self._readers.add(reader)
        except BaseException:
            source.handle.close()
            raise
        return reader

    @shielded
    async def make_directories(self, directories: Sequence[Directory]) -> list[RealizeError | None]:
        """See `IStore`."""
        self._refuse_within_backups()
        fit = _fit([self._acceptance.directory(each, strict=False) for each in directories])
        return await self._in_parts(make_directories, fit, self._footprint, not self._changes_all)

    @shielded
    async def set_directories(self, directories: Sequence[Directory]) -> list[bool | RealizeError]:
        """See `IStore`."""
        given = [self._acceptance.directory(each, strict=True) for each in directories]
        more = (self._footprint, not self._changes_all, self._committer.watch)
        answers: list[bool | RealizeError] = []
        for some in _parts(_fit(given)):
            # Not brief: it waits for the disk.
            answers += await self._run_in_turn(self._unless_closed, set_directories, self._location, some, *more)
        return _beside(given, answers)

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
        """See `IStore`; if it is cancelled, it stops waiting for space."""
        waiting = self._headroom.wait()

        def not_wanted(failure: Failure) -> Failure:
            waiting.give_up()
            return failure

        opened = self._open_writer(path, size, policy, preserve, replaces, number, allocated, waiting)
        return opened.addErrback(not_wanted)

    @shielded_opening(_release_writer)
    async def _open_writer(
        self,
        path: bytes,
        size: int,
        policy: OnConflict,
        preserve: bool,  # noqa: FBT001 -- see `open_writer`
        replaces: Seen | None,
        number: int,
        allocated: int | None,
        waiting: Waiting,
    ) -> IWriter:
        from realize.store.local.writer import LocalWriter, PartialFile

        self._refuse_within_backups()
        with self._until_closed(waiting):
            while True:
                try:
                    partial: PartialFile = await self._run_in_thread(
                        PartialFile,
                        self._location,
                        path,
                        size,
                        policy,
                        replaces,
                        number,
                        allocated,
                        self._salt,
                        self._headroom,
                        preserve,
                        self._origin,
                        self._clock,
                    )
                except Crowded as crowded:
                    await self._headroom.make_way(self._scope, path, crowded, waiting)
                else:
                    break
        try:
            writer = LocalWriter(
                partial,
                self._run_in_thread,
                self._committer,
                self._headroom,
                self._scope,
                self._writers.discard,
                self._owner,
                self._acceptance,
                self._known,
            )
            self._writers.add(writer)
        except BaseException:
            partial.close(release)
            partial.promise.release()
            raise
        return writer

    @contextlib.contextmanager
    def _until_closed(self, waiting: Waiting) -> Iterator[None]:
        """A context in which ``waiting`` is given up when the store is closed."""
        if self._closed:
            waiting.give_up()
        self._waiting.add(waiting)
        try:
            yield
        except CancelledError as error:
            raise StorageError("the directory was closed while a file waited for room") from error
        finally:
            self._waiting.discard(waiting)

    @steadfast
    async def remove(self, removals: Sequence[Removal]) -> list[RealizeError | None]:
        """See `IStore`."""
        return await self._in_parts(remove_batch, removals, self._hard_links, self._footprint)

    @shielded
    async def prune(self, vacant: Sequence[Vacant]) -> list[bool | RealizeError]:
        """See `IStore`."""
        return await self._in_parts(prune_batch, vacant, self._footprint, not self._prunes_all)

    def in_transit(self) -> None:
        """See `IStore`: nothing goes over a connection."""

    @shielded
    async def close(self) -> None:
        """See `IStore`; files that are being written are kept as partials."""
        self._closed = True
        for waiting in list(self._waiting):
            waiting.give_up()
        opened: list[LocalListing | LocalReader] = [*self._listings, *self._readers]
        for each in opened:
            with _log.failuresHandled("while something that was open in a directory was closed"):
                each.close()
        abandoned: list[Deferred[int | None]] = [writer.abandon(keep=True) for writer in list(self._writers)]
        first: BaseException | None = None
        for waited in abandoned:
            try:
                await waited
            except Exception as error:  # noqa: BLE001 -- raised when all have ended
                first = first or error
        if first is not None:
            raise first

    async def _in_parts(self, work: Callable[..., list[_T]], items: Sequence[_Named], *args: Any) -> list[_T]:
        """Do a short job for each part of ``items``, one after the other, while this is open; return all answers."""
        answers: list[_T] = []
        for some in _parts(items):
            answers += await self._while_open(work, self._location, some, *args)
        return answers

    def _while_open(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Run a short job, unless this is closed before its turn comes: then it fails with `StorageError`."""
        return self._run_briefly(self._unless_closed, work, *args)

    def _unless_closed(self, work: Callable[..., _T], *args: Any) -> _T:
        self._check_open()
        return work(*args)

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError("the directory was closed meanwhile")

    def _refuse_within_backups(self) -> None:
        """Raise `BadName` if nothing may be put here, since it would be taken for a backup."""
        if self._within_backups:
            raise refused_as_backups(self._location.root.shown)

    def _earliest_ns(self) -> int:
        """Return the earliest stamp of any file that was stamped since the run began."""
        return self._stamps.earliest_since(self._began_ns)

    @property
    def _scope(self) -> RootedLocation:
        """Where partials may be removed to free space: all of a served directory, else the location only."""
        return self._location if self._root_identity is None else RootedLocation(self._location.root, ())

    @property
    def _location(self) -> RootedLocation:
        if self._located is None:
            raise InternalError("a store is used before it was opened")
        place = self._backups.place
        return self._located if place is None else evolve(self._located, backups=place)


def _parts(items: Sequence[_Named]) -> Iterator[Sequence[_Named]]:
    """Yield parts of about `MAX_SHORT_JOB_COMPONENTS` components of names, so that others get turns in between."""
    if len(items) + b"".join([each.path for each in items]).count(b"/") <= MAX_SHORT_JOB_COMPONENTS:
        if items:
            yield items
        return
    first = depth = 0
    for number, each in enumerate(items, 1):
        depth += 1 + each.path.count(b"/")
        if depth >= MAX_SHORT_JOB_COMPONENTS or number == len(items):
            yield items[first:number]
            first, depth = number, 0


def _fit(items: Sequence[_Item | RealizeError]) -> list[_Item]:
    """Return the items in whose place there is no error."""
    return [each for each in items if not isinstance(each, RealizeError)]


def _beside(
    items: Sequence[object | RealizeError], answers: Iterable[_Answer | RealizeError]
) -> list[_Answer | RealizeError]:
    """Return the errors among the items, and between them the ``answers`` about all others, in order."""
    found = iter(answers)
    return [each if isinstance(each, RealizeError) else next(found) for each in items]


def _slices(expected: Sequence[Expected]) -> Iterator[Sequence[Expected]]:
    """Yield parts with about `SLICE_BYTES` bytes of content each."""
    first = size = 0
    for number, each in enumerate(expected, 1):
        size += each.size
        if size >= SLICE_BYTES or number == len(expected):
            yield expected[first:number]
            first, size = number, 0
