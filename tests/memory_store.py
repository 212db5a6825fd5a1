"""A store in memory that keeps the contract of `realize.store.interfaces`."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from attrs import define, evolve
from blake3 import blake3
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from realize.concurrency.shielded import shielded, steadfast
from realize.errors import (
    BadName,
    Busy,
    Conflict,
    InternalError,
    LinkRefused,
    NoSpace,
    NotFound,
    NotRegular,
    ProtocolError,
    RealizeError,
    SourceChanged,
    StorageError,
    VerifyFailed,
)
from realize.extras import Extras, FoundExtras, WantedExtras
from realize.fs import names
from realize.fs.identities import IDENTITY_BYTES
from realize.leaving import Leaving
from realize.numbered import numbered
from realize.store import deltas
from realize.store.interfaces import Examined, IListing, IReader, IStore, IWriter
from realize.store.local.partial_marks import NOTE
from realize.store.local.walker import OTHER_FILE_SYSTEM
from realize.store.transfer_state import ReadState, WriteState
from realize.units import display_name
from realize.values import (
    BLOCK_BYTES,
    MAX_ALIKE_FILES,
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
    FoundSymlink,
    HardLink,
    HardLinked,
    Hole,
    Kind,
    Linked,
    Links,
    OnConflict,
    Piece,
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
    Version,
    Where,
    WhereKind,
    extent,
)
from tests.store_helpers import block_digests, digest, partial_path, small_file

_T = TypeVar("_T")


@define
class MemoryFile:
    """A file of a `MemoryStore`; ``changed_at`` is on the scale of its modification time, whatever the clock says."""

    content: bytes
    attributes: Attributes
    version: Version
    changed_at: int = 0


@define
class MemoryLink:
    """A symlink of a `MemoryStore`; ``changed_at`` as for a `MemoryFile`."""

    target: bytes
    version: Version
    changed_at: int


_device = itertools.count(1)


@implementer(IStore)
class MemoryStore:
    """A store that keeps everything in dictionaries, for tests of code that uses stores.

    Its time is a counter, and ``clock_ahead`` says how far the clock that stamps files is ahead of that.
    Tests may read ``files``, ``partials`` and ``directories``; `plant`, `plant_partial` and `plant_directory` put
    things there; ``obstacles`` says what has a name instead of a file ("symlink", ...).
    ``mounted`` has the directories that another file system is mounted on.
    ``written`` has the files that a program has open for writing, ``sparse`` those whose blocks of zeros are holes.
    ``fail_next[method, path]`` is an error that the next such call fails with; ``path`` is that of the item or file, or
    ``b""`` for the whole call of a method that takes many items.
    Methods of readers and writers go under their own names.
    """

    def __init__(self, files: dict[bytes, bytes] | None = None, *, page: int = 3) -> None:
        self.files: dict[bytes, MemoryFile] = {}
        self.partials: dict[bytes, bytes] = {}
        self.directories: dict[bytes, Attributes] = {}
        self.obstacles: dict[bytes, str] = {}
        self.symlinks: dict[bytes, MemoryLink] = {}
        self.links = True
        self.hard_links = True
        self.takes_directories = False
        self.replaces = True
        self.tells = self.accepts = frozenset(Preserve)
        self.gives_links, self.takes_links = Links.ANY, Links.INSIDE
        self.fail_next: dict[tuple[str, bytes], RealizeError] = {}
        self.locked: set[bytes] = set()
        self.written: set[bytes] = set()
        self.mounted: set[bytes] = set()
        self.sparse: set[bytes] = set()
        self.closed = False
        self.can_keep_both = True
        self.room = Space(1 << 40, 1 << 41)
        self.page = page
        self.clock_ahead = 0
        self._began_at = 0
        self._device = next(_device)
        self._now = itertools.count(1)
        self._salt = b""
        self._progress: dict[bytes, tuple[Version, int]] = {}
        self._writers: list[_MemoryWriter] = []
        for path, content in (files or {}).items():
            self.plant(path, content)

    def plant(self, path: bytes, content: bytes, attributes: Attributes | None = None) -> None:
        """Put a final file there, as another program would."""
        now = next(self._now)
        stamp = now + self.clock_ahead
        kept = Attributes(stamp, 0o644) if attributes is None else attributes
        version = Version(self._device, now, len(content), kept.mtime_ns, stamp)
        self.files[path] = MemoryFile(content, kept, version, now)
        self._changed_in(path)

    def plant_link(self, path: bytes, target: bytes, mtime_ns: int | None = None) -> None:
        """Put a symlink there, as another program would."""
        now = next(self._now)
        stamp = now + self.clock_ahead
        version = Version(self._device, now, len(target), stamp if mtime_ns is None else mtime_ns, stamp)
        self.symlinks[path] = MemoryLink(target, version, now)
        self._changed_in(path)

    def plant_partial(self, path: bytes, content: bytes) -> None:
        """Put a partial there, as an interrupted transfer leaves it."""
        self.partials[path] = content
        self._changed_in(path)

    def plant_directory(self, path: bytes, attributes: Attributes | None = None) -> None:
        """Make a directory and its missing parents; or change the attributes of an existing one."""
        if path not in self.directories:
            self._changed_in(path)
        self.directories[path] = Attributes(self.now_ns(), 0o755) if attributes is None else attributes

    def _make_above(self, path: bytes) -> None:
        """Make the directories above ``path``; missing ones get permissions for their owner only."""
        components = path.split(b"/")
        for depth in range(1, len(components)):
            above = b"/".join(components[:depth])
            if above not in self.directories:
                self.plant_directory(above, Attributes(next(self._now), 0o700))

    def _changed_in(self, path: bytes) -> None:
        """Change the time of the directory above ``path``, as adding or removing a name does; create it if missing."""
        above = path.rpartition(b"/")[0]
        if above not in self.directories:
            if above:
                self.plant_directory(above)
        else:
            self.directories[above] = evolve(self.directories[above], mtime_ns=self.now_ns())

    def advance(self, ticks: int) -> None:
        """Let that many nanoseconds pass, by the clock of a store that counts calls."""
        self._now = itertools.count(next(self._now) + ticks)

    def take_fault(self, method: str, path: bytes) -> None:
        """Raise, once, the error that ``fail_next`` has for this call."""
        error = self.fail_next.pop((method, path), None)
        if error is not None:
            raise error

    def look_up(self, path: bytes) -> MemoryFile:
        """The final file of that name."""
        self._judge(path)
        self._refuse_partial(path)
        if path not in self.files:
            raise NotFound(f"{display_name(path)}: no such file")
        return self.files[path]

    def _is_partial(self, path: bytes) -> bool:
        """Whether there is a partial of that name."""
        return any(path == partial_path(final) for final in self.partials)

    def _refuse_partial(self, path: bytes) -> None:
        if self._is_partial(path):
            raise NotRegular(f"{display_name(path)}: is a {NOTE}")

    def obstacle(self, path: bytes) -> str:
        """What has this name instead of a regular file, or of a file that may be replaced; or an empty string."""
        if self._is_partial(path):
            return NOTE
        if path in self.symlinks:
            return "symlink"
        return self.obstacles.get(path, "directory" if path in self.directories else "")

    def check_policy(self, path: bytes, policy: OnConflict) -> None:
        """Raise `Conflict` for a file that must not be replaced."""
        if policy is OnConflict.RENAME:
            return
        if obstacle := self.obstacle(path):
            raise Conflict(f"{display_name(path)}: there is a {obstacle} of that name")
        if path in self.files and policy is not OnConflict.REPLACE:
            raise Conflict(f"{display_name(path)}: exists already")

    def make_final(self, file: SmallFile, policy: OnConflict) -> Stored:
        """Commit content that is complete and verified."""
        exists = file.path in self.files
        if policy is OnConflict.RENAME and (exists or self.obstacle(file.path)):
            return self._keep_both(file)
        if exists and policy is OnConflict.SKIP:
            return Stored(Committed.SKIPPED)
        self.check_policy(file.path, policy)
        if exists and file.replaces not in {None, self._describe(file.path).seen}:
            raise Busy(f"{display_name(file.path)}: has just arrived there")
        if file.attributes is not None:
            self._make_above(file.path)
        self.plant(file.path, file.content, file.attributes)
        version = self.files[file.path].version
        return Stored(Committed.REPLACED if exists else Committed.CREATED, self._place(version.inode), version.ctime_ns)

    def _keep_both(self, file: SmallFile) -> Stored:
        number = file.number or self._free_number(file.path)
        path = numbered(file.path, number)
        if self._is_taken(path):
            raise Busy(f"{display_name(file.path)}: other programs keep taking its numbered names")
        stored = self.make_final(evolve(file, path=path), OnConflict.FAIL)
        return evolve(stored, how=Committed.RENAMED, number=number)

    def _is_taken(self, path: bytes) -> bool:
        return path in self.files or bool(self.obstacle(path))

    def _free_number(self, path: bytes) -> int:
        return next(number for number in itertools.count(1) if not self._is_taken(numbered(path, number)))

    def released(self, writer: _MemoryWriter) -> None:
        """Note that a writer has closed."""
        self._writers.remove(writer)

    @shielded
    async def open(self, salt: bytes, run_age_ns: int = 0) -> Where:
        """Open the directory, as one on a machine of its own."""
        self.take_fault("open", b"")
        self._salt = salt
        now = next(self._now)
        if not run_age_ns:
            self._began_at = now
        return Where(WhereKind.DIRECTORY, (self._place(0),), now + self.clock_ahead)

    def now_ns(self) -> int:
        """The time by its clock."""
        return next(self._now) + self.clock_ahead

    @shielded
    async def space(self) -> Space:
        """The space that ``room`` allows."""
        self.take_fault("space", b"")
        return self.room

    @shielded
    async def try_write(self) -> int:
        """Do nothing: writing always works, and takes no time."""
        self.take_fault("try_write", b"")
        return 0

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
        """List everything, as it is now."""
        if avoid == self._place(0):
            raise InternalError("a memory store has no directory to avoid but itself")
        entries = self._entries(partials=partials, links=links, hard_links=hard_links)
        left_out = Leaving(leave)
        if one_file_system:
            inside = {each.path for each in entries if not self.mounted.isdisjoint(_above(each.path))}
            entries = [
                Entry(each.path, Kind.LEFT, note=OTHER_FILE_SYSTEM) if each.path in self.mounted else each
                for each in entries
                if each.path not in inside
            ]
        entered = [entry for entry in entries if not any(map(left_out, _above(entry.path)))]
        return _MemoryListing(self, sorted(entered, key=_order))

    def _entries(self, *, partials: bool = False, links: bool = False, hard_links: bool = False) -> list[Entry]:
        several = Counter(map(id, self.files.values())) if hard_links else Counter[int]()
        entries = [
            Entry(
                path,
                Kind.FILE,
                len(file.content),
                file.attributes.mtime_ns,
                identity=b"%016d" % file.version.inode if several[id(file)] > 1 else b"",
            )
            for path, file in self.files.items()
        ]
        entries += [
            Entry(path, Kind.DIRECTORY, mtime_ns=directory.mtime_ns, mode=directory.mode)
            for path, directory in self.directories.items()
        ]
        entries += [Entry(path, Kind.LEFT, note=what) for path, what in self.obstacles.items() if what != "directory"]
        entries += [
            Entry(path, Kind.LINK, mtime_ns=link.version.mtime_ns) if links else Entry(path, Kind.LEFT, note="symlink")
            for path, link in self.symlinks.items()
        ]
        if partials:
            entries += [Entry(path, Kind.PARTIAL, len(content)) for path, content in self.partials.items()]
        else:
            entries += [Entry(partial_path(path), Kind.LEFT, note=NOTE) for path in self.partials]
        return entries

    @shielded
    async def examine(self, paths: Sequence[bytes], *, links: bool = False, hard_links: bool = False) -> Examined:
        """Say what a listing has."""
        self.take_fault("examine", b"")
        there = {entry.path: entry for entry in self._entries(links=links, hard_links=hard_links)}
        answers = [self._one("examine", path, self._examine, path, there) for path in paths]
        found = [NotFound(str(each)) if isinstance(each, Conflict) else each for each in answers]
        return Examined(found, self.now_ns())

    def _examine(self, path: bytes, there: dict[bytes, Entry]) -> Entry:
        names.judge(path)
        if path not in there:
            raise NotFound(f"{display_name(path)}: there is no such file")
        return there[path]

    @shielded
    async def describe(self, paths: Sequence[bytes]) -> list[Existing | RealizeError]:
        """Describe what is there."""
        self.take_fault("describe", b"")
        return [self._one("describe", path, self._describe, path) for path in paths]

    def _describe(self, path: bytes) -> Existing:
        partial = self.partials.get(path)
        partial_size = None if partial is None else len(partial)
        file = self.files.get(path)
        if file is None:
            return Existing(partial_size=partial_size, obstacle=self.obstacle(path))
        version = file.version
        place = self._place(version.inode)
        recent = file.changed_at >= self._began_at
        return Existing(version.size, version.mtime_ns, version.ctime_ns, place, partial_size, recent=recent)

    def keeps_both(self) -> bool:
        """Whether it does, which tests may change."""
        return self.can_keep_both

    @shielded
    async def siblings(self, files: Sequence[Sized]) -> list[Siblings | RealizeError]:
        """Look at the numbered names of each."""
        self.take_fault("siblings", b"")
        return [self._one("siblings", each.path, self._siblings, each) for each in files]

    def _siblings(self, file: Sized) -> Siblings:
        self._judge(file.path)
        free = self._free_number(file.path)
        names = {numbered(file.path, number): number for number in range(1, len(self.files) + 2)}
        alike = [
            (found.changed_at, names[path])
            for path, found in self.files.items()
            if path in names and len(found.content) == file.size
        ]
        return Siblings(free, tuple(number for _, number in sorted(alike, reverse=True)[:MAX_ALIKE_FILES]))

    @shielded
    async def forbidden(self, paths: Sequence[bytes], use: Use) -> list[RealizeError | None]:
        """Refuse nothing, except for the calls that are to fail."""
        method = f"forbidden to {use.name.lower()}"
        self.take_fault(method, b"")
        return [self._one(method, path, lambda: None) for path in paths]

    def reads_at_once(self) -> int:
        """No limit."""
        return MAX_SMALL_BYTES

    def takes_at_once(self) -> int:
        """No limit."""
        return MAX_SMALL_BYTES

    def round_trip(self) -> float:
        """No distance."""
        return 0.0

    @shielded
    async def read_small(
        self, paths: Sequence[bytes], *, removing: bool = False, wanted: WantedExtras | None = None
    ) -> list[Fetched | RealizeError]:
        """Read small files; like a peer, without what is ``wanted``."""
        self.take_fault("read_small", b"")
        answers: list[Fetched | RealizeError] = []
        room = MAX_SMALL_BYTES
        for path in paths:
            fetched = self._one("read_small", path, self._fetch, path, room, removing)
            if isinstance(fetched, Fetched):
                room -= len(fetched.file.content)
            answers.append(fetched)
        return answers

    def _fetch(self, path: bytes, room: int, removing: bool) -> Fetched:
        file = self.look_up(path)
        if removing:
            self._refuse_written(path)
        if len(file.content) > room:
            raise SourceChanged(f"{display_name(path)}: does not fit")
        return Fetched(small_file(path, file.content, evolve(file.attributes, extras=None)), file.version)

    @steadfast
    async def put_small(
        self, files: Sequence[SmallFile], policy: OnConflict, directories: Sequence[Directory] = ()
    ) -> list[Stored | RealizeError]:
        """Verify and commit small files."""
        self.take_fault("put_small", b"")
        if directories:
            await self.make_directories(directories)
        return [self._one("put_small", file.path, self._put, file, policy) for file in files]

    def _put(self, file: SmallFile, policy: OnConflict) -> Stored:
        if len(file.content) > MAX_SMALL_BYTES:
            raise ProtocolError(f"{display_name(file.path)}: is not small")
        if digest(file.content) != file.digest:
            raise VerifyFailed(f"{display_name(file.path)}: the content has another digest")
        return self.make_final(file, policy)

    @shielded
    async def read_links(
        self, paths: Sequence[bytes], *, wanted: WantedExtras | None = None
    ) -> list[FoundSymlink | RealizeError]:
        """Read symlinks; like a peer, without what is ``wanted``."""
        self.take_fault("read_links", b"")
        return [self._one("read_links", path, self._read_link, path) for path in paths]

    def _read_link(self, path: bytes) -> FoundSymlink:
        link = self.symlinks.get(path)
        if link is None:
            if path in self.files or self.obstacle(path):
                raise SourceChanged(f"{display_name(path)}: is not a symlink any more")
            raise NotFound(f"{display_name(path)}: no such symlink")
        self._judge_link(path, link.target, self.gives_links)
        return FoundSymlink(Symlink(path, link.target, link.version.mtime_ns), link.version)

    def _judge_link(self, path: bytes, target: bytes, policy: Links) -> None:
        outside = policy is Links.INSIDE and names.leads_outside(target, path.count(b"/"))
        if policy is Links.NONE or outside:
            raise LinkRefused(f"{display_name(path)}: may lead outside")
        names.check_target(target)

    @shielded
    async def read_extras(
        self,
        paths: Sequence[bytes],
        wanted: frozenset[Preserve],
        *,
        numeric: bool = False,
        lenient: frozenset[Preserve],
    ) -> list[FoundExtras | RealizeError]:
        """Tell what files, and directories, were given."""
        self.take_fault("read_extras", b"")
        return [self._one("read_extras", path, self._read_extras, path) for path in paths]

    def _read_extras(self, path: bytes) -> FoundExtras:
        found = self.files.get(path)
        if found is not None:
            return FoundExtras(found.attributes.extras or Extras(), found.version)
        if path in self.symlinks:
            return FoundExtras(Extras(), self.symlinks[path].version)
        if path not in self.directories:
            raise NotFound(f"{display_name(path)}: no such file")
        return FoundExtras(self.directories[path].extras or Extras(), Version(0, 0, 0, 0, 0))

    @shielded
    async def foresee(self, paths: Sequence[bytes], extras: Sequence[Extras]) -> list[RealizeError | None]:
        """Expect nothing bad."""
        self.take_fault("foresee", b"")
        return [self._one("foresee", path, lambda: None) for path in paths]

    @steadfast
    async def link_files(self, links: Sequence[HardLink]) -> list[HardLinked | RealizeError]:
        """Give files other names; two names of one `MemoryFile` are hard links."""
        self.take_fault("link_files", b"")
        return [self._one("link_files", link.path, self._link_file, link) for link in links]

    def _link_file(self, link: HardLink) -> HardLinked:
        file = self.files.get(link.to)
        if file is None or blake3(file.content).digest() != link.digest:
            return HardLinked.NOT_LINKED
        if self.files.get(link.path) is file:
            return HardLinked.ALREADY_THERE
        if link.path in self.files or self.obstacle(link.path):
            return HardLinked.NOT_LINKED
        self.files[link.path] = file
        return HardLinked.CREATED

    @steadfast
    async def put_links(
        self, links: Sequence[Symlink], policy: OnConflict, *, trial: bool = False
    ) -> list[Linked | RealizeError]:
        """Make symlinks."""
        self.take_fault("put_links", b"")
        return [self._one("put_links", link.path, self._put_link, link, policy, trial) for link in links]

    def _put_link(self, link: Symlink, policy: OnConflict, trial: bool) -> Linked:
        self._judge_link(link.path, link.target, self.takes_links)
        there = self.symlinks.get(link.path)
        if there is None and (link.path in self.files or self.obstacle(link.path)):
            raise Conflict(f"{display_name(link.path)}: there is something else of that name")
        answer = Linked.CREATED
        if there is not None and there.target == link.target:
            answer = Linked.ALREADY_THERE
        elif there is not None and policy is OnConflict.SKIP:
            return Linked.SKIPPED
        elif there is not None:
            if policy is not OnConflict.REPLACE or there.changed_at >= self._began_at:
                raise Conflict(f"{display_name(link.path)}: there is another symlink of that name")
            answer = Linked.REPLACED
        if not trial:
            if link.mtime_ns is not None:
                self._make_above(link.path)
            self.plant_link(link.path, link.target, link.mtime_ns)
        return answer

    @shielded
    async def settle(self, expected: Sequence[Expected]) -> list[bool | RealizeError]:
        """Find out which finals have that content."""
        self.take_fault("settle", b"")
        return [self._one("settle", each.path, self._settle, each) for each in expected]

    def _settle(self, expected: Expected) -> bool:
        file = self.files.get(expected.path)
        if file is None or len(file.content) != expected.size or digest(file.content) != expected.digest:
            return False
        self._vouch_for(expected.path, file, expected.attributes)
        return True

    def _vouch_for(self, path: bytes, file: MemoryFile, attributes: Attributes | None) -> None:
        if path in self.written:
            raise Busy(f"{display_name(path)}: has the same content, but is open for writing by another program")
        if attributes is not None:
            file.attributes = attributes
        file.changed_at = next(self._now)
        stamp = file.changed_at + self.clock_ahead
        file.version = evolve(file.version, mtime_ns=file.attributes.mtime_ns, ctime_ns=stamp)

    @shielded
    async def match_final(
        self, path: bytes, size: int, offset: int, digests: Sequence[bytes], attributes: Attributes | None = None
    ) -> int:
        """Compare the blocks of one version of a final, from its start to its end."""
        self.take_fault("match_final", path)
        file = self.look_up(path)
        before = self._progress.pop(path, None)
        if len(file.content) != size or (offset and before != (file.version, offset)):
            if not size:
                raise NotFound(f"{display_name(path)}: there is no empty file of that name")
            return 0
        matched = _matched(file.content[offset:], digests)
        if offset + matched == size:
            self._vouch_for(path, file, attributes)
        self._progress[path] = (file.version, offset + matched)
        return matched

    @shielded
    async def open_reader(self, path: bytes, *, removing: bool = False) -> IReader:
        """Start reading a file."""
        self.take_fault("open_reader", path)
        file = self.look_up(path)
        if removing:
            self._refuse_written(path)
        return _MemoryReader(self, path, file)

    def _refuse_written(self, path: bytes) -> None:
        if path in self.written:
            raise SourceChanged(f"{display_name(path)}: is open for writing by another program")

    @shielded
    async def make_directories(self, directories: Sequence[Directory]) -> list[RealizeError | None]:
        """Make missing directories; the location itself exists."""
        self.take_fault("make_directories", b"")
        named = [each for each in directories if each.path]
        made = iter([self._one("make_directories", each.path, self._make, each) for each in named])
        return [next(made) if each.path else None for each in directories]

    def _make(self, directory: Directory) -> None:
        if directory.path in self.files or self.obstacle(directory.path) not in {"", "directory"}:
            raise Conflict(f"{display_name(directory.path)}: is not a directory")
        before = self.directories.get(directory.path)
        self._make_above(directory.path)
        if before is None:
            self.plant_directory(directory.path, Attributes(next(self._now), directory.mode | 0o700))
        elif before.mode == directory.mode or before.mode & 0o700 == 0o700:
            self.directories[directory.path] = evolve(before, mode=directory.mode | 0o700)

    @shielded
    async def set_directories(self, directories: Sequence[Directory]) -> list[bool | RealizeError]:
        """Set permissions and times of directories."""
        self.take_fault("set_directories", b"")
        return [self._one("set_directories", each.path, self._set, each) for each in directories]

    def _set(self, directory: Directory) -> bool:
        before = self.directories.get(directory.path)
        if before is None:
            return False
        if directory.mtime_ns is None:
            self.directories[directory.path] = evolve(before, mode=before.mode & directory.mode)
        else:
            self.directories[directory.path] = Attributes(directory.mtime_ns, directory.mode, directory.extras)
        return True

    @shielded
    async def open_writer(
        self,
        path: bytes,
        size: int,
        policy: OnConflict,
        *,
        preserve: bool = True,
        replaces: Seen | None = None,
        number: int = 0,
        allocated: int | None = None,
    ) -> IWriter:
        """Start, or continue, writing a file."""
        self.take_fault("open_writer", path)
        self._judge(path)
        self.check_policy(path, policy)
        if path in self.locked:
            raise Busy(f"{display_name(path)}: somebody else is writing it")
        if (size if allocated is None else allocated) > self.room.free:
            raise NoSpace(f"{display_name(path)}: No space left on device")
        if preserve:
            self._make_above(path)
        writer = _MemoryWriter(self, path, size, policy, replaces, number)
        self._writers.append(writer)
        return writer

    @steadfast
    async def remove(self, removals: Sequence[Removal]) -> list[RealizeError | None]:
        """Remove files that are still the version named."""
        self.take_fault("remove", b"")
        return [self._one("remove", removal.path, self._remove, removal) for removal in removals]

    def _remove(self, removal: Removal) -> None:
        self._refuse_partial(removal.path)
        file: MemoryFile | MemoryLink | None = self.files.get(removal.path) or self.symlinks.get(removal.path)
        if file is None:
            raise NotFound(f"{display_name(removal.path)}: no such file")
        self._refuse_written(removal.path)
        if file.version != removal.version:
            raise SourceChanged(f"{display_name(removal.path)}: changed after it was read, so it was kept")
        self.files.pop(removal.path, None)
        self.symlinks.pop(removal.path, None)
        self._changed_in(removal.path)

    @shielded
    async def prune(self, vacant: Sequence[Vacant]) -> list[bool | RealizeError]:
        """Remove directories that are empty."""
        self.take_fault("prune", b"")
        return [self._one("prune", each.path, self._prune, each) for each in vacant]

    def _prune(self, vacant: Vacant) -> bool:
        directory, below = self.directories.get(vacant.path), vacant.path + b"/"
        if directory is None or vacant.mtime_ns not in {None, directory.mtime_ns}:
            return False
        everything = itertools.chain(self.files, self.symlinks, self.partials, self.directories, self.obstacles)
        if any(path.startswith(below) for path in everything):
            return False
        del self.directories[vacant.path]
        self._changed_in(vacant.path)
        return True

    def in_transit(self) -> None:
        """See `IStore`: nothing travels."""

    @shielded
    async def close(self) -> None:
        """Keep files that are being written as partials."""
        for writer in list(self._writers):
            await writer.abandon(keep=True)
        self.closed = True

    def _one(self, method: str, path: bytes, job: Callable[..., _T], *arguments: object) -> _T | RealizeError:
        try:
            self.take_fault(method, path)
            self._judge(path)
            return job(*arguments)
        except RealizeError as error:
            return error

    def _judge(self, path: bytes) -> None:
        components = names.judge(path)
        for depth in range(1, len(components)):
            above = names.join(components[:depth])
            if above in self.symlinks:
                raise BadName(f"{display_name(above)}: is a symlink, and symlinks are not followed")
            if above in self.files or self.obstacles.get(above, "directory") != "directory":
                raise Conflict(f"{display_name(above)}: is not a directory")

    def _place(self, inode: int) -> bytes:
        return blake3(self._salt + b"%d %d" % (self._device, inode)).digest()[:IDENTITY_BYTES]


def _above(path: bytes) -> Iterator[bytes]:
    """The directories above a file."""
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _order(entry: Entry) -> bytes:
    """The sort key of the entries of a listing, by which a directory comes right before its contents."""
    return entry.path + b"/" if entry.kind is Kind.DIRECTORY else entry.path


def _matched(content: bytes, digests: Sequence[bytes]) -> int:
    """How many bytes of the content match these digests, block by block."""
    matched = 0
    for start, each in zip(range(0, len(content), BLOCK_BYTES), digests, strict=False):
        block = content[start : start + BLOCK_BYTES]
        if digest(block) != each:
            break
        matched += len(block)
    return matched


@implementer(IListing)
class _MemoryListing:
    held = 0

    def __init__(self, store: MemoryStore, entries: list[Entry]) -> None:
        self.now_ns = 0
        self._store = store
        self._entries = entries

    @shielded
    async def next_page(self) -> list[Entry]:
        self._store.take_fault("walk", b"")
        self.now_ns = self._store.now_ns()
        page, self._entries = self._entries[: self._store.page], self._entries[self._store.page :]
        return page

    def close(self) -> None:
        self._entries = []


@implementer(IReader)
class _MemoryReader:
    deltas = True
    allocated: int | None = None

    def __init__(self, store: MemoryStore, path: bytes, file: MemoryFile) -> None:
        self.version = file.version
        self.attributes = file.attributes
        self._store = store
        self._path = path
        self._content = file.content
        self._order = ReadState(len(file.content), path)
        self._sparse = path in store.sparse
        if self._sparse:
            self.allocated = BLOCK_BYTES * sum(block != digest(ZERO_BLOCK) for block in block_digests(file.content))

    def block_digests(self, length: int) -> Deferred[list[bytes]]:
        try:
            self._store.take_fault("block_digests", self._path)
            self._order.look(length)
        except RealizeError as error:
            return fail(error)
        self._order.stand()
        return succeed(block_digests(self._next(length)))

    def skip(self, length: int) -> Deferred[None]:
        try:
            self._store.take_fault("skip", self._path)
            self._order.look(length)
        except RealizeError as error:
            return fail(error)
        self._order.stand()
        self._order.position += length
        return succeed(None)

    def at_most(self, size: int) -> None:
        pass

    def stop(self) -> None:
        self._order.end()

    @shielded
    async def cut(self) -> list[Chunk]:
        self._store.take_fault("cut", self._path)
        self._order.stand()
        self._order.make_way()
        start = self._order.reached
        chunks = deltas.cut(self._content[start : start + SPAN_BYTES]) if start < len(self._content) else []
        self._order.was_cut([length for length, _ in chunks])
        return chunks

    @shielded
    async def pick(self, wanted: Sequence[bool]) -> list[Piece]:
        self._store.take_fault("pick", self._path)
        return [self._content[start : start + length] for start, length in self._order.pick(wanted).parts]

    @shielded
    async def read(self) -> list[Piece]:
        self._store.take_fault("read", self._path)
        self._order.flow()
        piece = self._next(BLOCK_BYTES)
        self._order.position += len(piece)
        if self._sparse and piece == ZERO_BLOCK:
            return [Hole(len(piece))]
        return [piece] if piece else []

    @shielded
    async def finish(self) -> bytes:
        self._store.take_fault("finish", self._path)
        self._order.finish()
        file = self._store.files.get(self._path)
        if file is None or file.version != self.version:
            raise SourceChanged(f"{display_name(self._path)}: changed while it was read")
        return digest(self._content)

    def close(self) -> None:
        pass

    def _next(self, length: int) -> bytes:
        return self._content[self._order.position : self._order.position + length]


@implementer(IWriter)
class _MemoryWriter:
    deltas = True
    takes_holes = True
    near = True

    def __init__(
        self, store: MemoryStore, path: bytes, size: int, policy: OnConflict, replaces: Seen | None, number: int
    ) -> None:
        self._replaces = replaces
        self._number = number
        self._store = store
        self._path = path
        self._size = size
        self._policy = policy
        self._partial = store.partials.get(path, b"")
        self._order = WriteState(size, path)
        self._position = 0
        self._search: deltas.Search | None = None
        self._old = b""
        self._assembly = deltas.Assembly()
        self._closed = False
        self.have = min(len(self._partial), size)
        store.locked.add(path)

    @shielded
    async def match(self, digests: Sequence[bytes], length: int) -> int:
        self._check("match")
        self._order.match(len(digests), length)
        end = min(self._position + length, self.have)
        matched = _matched(self._partial[self._position : end], digests)
        self._position += matched
        self._order.matched(matched)
        return matched

    @shielded
    async def offer(self, chunks: Sequence[Chunk]) -> list[bool]:
        self._check("offer")
        length = extent(chunks)
        self._order.offer(length)
        if self._search is None:
            found = self._store.files.get(self._path)
            self._old = found.content if found is not None else b""
            self._search = deltas.Search(len(self._old), self._look, position=self._position)
        places = self._search.find(chunks)
        self._assembly.add(deltas.merged(chunks, places))
        self._append(b"")
        wanted = [place is None for place in places]
        self._order.answered(length, extent(chunks, wanted))
        return wanted

    def _look(self, place: int, view: memoryview) -> int:
        piece = self._old[place : place + len(view)]
        view[: len(piece)] = piece
        return len(piece)

    @shielded
    async def write(self, pieces: Sequence[Piece]) -> None:
        self._check("write")
        self._order.write(sum(map(len, pieces)))
        for piece in pieces:
            self._append(piece)

    def _append(self, content: Piece) -> None:
        self._partial = self._partial[: self._position]
        for piece in self._assembly.written(content, self._look):
            self._partial += bytes(len(piece)) if isinstance(piece, Hole) else piece
        self._position = len(self._partial)

    @steadfast
    async def commit(self, digest: bytes, attributes: Attributes | None) -> Stored:
        try:
            self._check("commit")
        except RealizeError:
            self._close(keep=True)
            raise
        content = self._partial[: self._position]
        if len(content) != self._size or blake3(content).digest() != digest:
            self._close(keep=False)
            raise VerifyFailed(f"{display_name(self._path)}: what arrived has another digest")
        try:
            committed = self._store.make_final(
                SmallFile(self._path, content, digest, attributes, self._replaces, self._number), self._policy
            )
        except RealizeError:
            self._close(keep=True)
            raise
        self._close(keep=False)
        return committed

    @shielded
    async def abandon(self, *, keep: bool) -> int | None:
        if self._closed:
            return None
        self._close(keep=keep)
        return len(self._store.partials.get(self._path, b""))

    def _check(self, method: str) -> None:
        self._store.take_fault(method, self._path)
        if self._closed:
            raise StorageError(f"{display_name(self._path)}: is not being written any more")

    def _close(self, *, keep: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._store.locked.discard(self._path)
        self._store.released(self)
        if keep and self._partial:
            self._store.partials[self._path] = self._partial
        else:
            self._store.partials.pop(self._path, None)
