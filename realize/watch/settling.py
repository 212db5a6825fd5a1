"""`SettlingFiles`: what is known of the files of a source that are not moved yet, and which of them have settled; pure.

A file is

* settling, until it was looked at some time after its last change and had not changed again;
* looked at, while a thread does that;
* settled, until it is taken;
* in flight, until whoever has taken it says what became of it;
* failed, until its own delay is over; then it settles again.

Any change makes it settling again; one that happens in flight does so when the file comes back.
At most `MAX_KNOWN_FILES` files are known; whether there are more is remembered, and no more of them.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Final

from attrs import define, frozen

from realize.by_value import ByValue
from realize.store.local.looks import FileLook
from realize.values import Entry, Kind

MAX_KNOWN_FILES: Final = 65_536
"""Files of one source that are known by name at most: some 40 MB."""

MAX_FAILED_FILES: Final = 16_384
"""Those of them that failed at most, so that there is room for others; further ones come back with a later walk."""

MAX_LOOKS: Final = 1_000
"""Files that are looked at in one go in a thread."""

FIRST_FILE_DELAY_S: Final = 1.0
"""How long a file waits that failed for the first time; each time it fails again, twice as long."""

MAX_FILE_DELAY_S: Final = 3_600.0
"""How long a file that failed waits at most."""

WRITTEN_AGAIN_S: Final = 5.0
"""After how many seconds at least a file that was open for writing is looked at again, unless its writer closes it."""

_DELAY_JITTER_FRACTION: Final = 0.25
_MAX_DOUBLINGS: Final = 20
_SLACK_ENTRIES: Final = 1_024
"""How many outdated entries a queue may have beside twice as many as there are files."""


class _State(enum.Enum):
    SETTLING = enum.auto()
    LOOKED_AT = enum.auto()
    SETTLED = enum.auto()
    IN_FLIGHT = enum.auto()
    FAILED = enum.auto()


@frozen(eq=False, repr=False)
class FailedFile(ByValue):
    """A file that could not be moved: since when (seconds since the epoch), and how many times in a row."""

    path: bytes
    since: float
    attempts: int


@frozen(eq=False, repr=False)
class FoundFile(ByValue):
    """A file that a walk has found; ``since`` is when it last changed, in seconds since the epoch, None if unknown.

    ``version`` and ``unchanged_s`` are those of a `FileLook`.
    """

    path: bytes
    size: int
    version: int
    unchanged_s: float = 0.0
    since: float | None = None


@define(eq=False, repr=False)
class _KnownFile:
    """A file that is not moved yet.

    ``since`` is when it last changed (seconds since the epoch); ``due_s`` and ``seen_s`` are by the monotonic clock:
    when to look at it, and since when it was seen to be ``version``.
    ``queued_s`` is the time of its valid entry among those that are due; infinite if it has none.
    """

    path: bytes
    since: float
    due_s: float
    state: _State = _State.SETTLING
    queued_s: float = math.inf
    version: int = 0
    seen_s: float = 0.0
    size: int = 0
    mtime_ns: int = 0
    kind: Kind = Kind.FILE
    note: str = ""
    above: tuple[Entry, ...] = ()
    changed: bool = False
    attempts: int = 0
    failing_since: float | None = None

    @property
    def entry(self) -> Entry:
        """As a listing has it."""
        if self.note:
            return Entry(self.path, Kind.UNREADABLE, note=self.note)
        return Entry(self.path, self.kind, self.size, self.mtime_ns)


class SettlingFiles:
    """The files of one source.

    ``now`` is the monotonic clock in seconds, ``epoch`` the time of day in seconds since the epoch.
    """

    def __init__(
        self,
        settle_s: float,
        *,
        now: Callable[[], float],
        epoch: Callable[[], float],
        jitter: Callable[[], float],
        max_known: int = MAX_KNOWN_FILES,
        max_failed: int = MAX_FAILED_FILES,
    ) -> None:
        self._settle_s = settle_s
        self._now = now
        self._epoch = epoch
        self._jitter = jitter
        self.max_known = max_known
        self._max_failed = max_failed
        self._files: dict[bytes, _KnownFile] = {}
        self._failing: dict[bytes, _KnownFile] = {}
        """Those that have failed and were not moved since."""
        self._parents: dict[bytes, int] = {}
        """How many files are known of each directory that has some."""
        self._bytes = 0
        self._number = count()
        self._due: list[tuple[float, int, _KnownFile]] = []
        self._oldest: list[tuple[float, int, _KnownFile]] = []
        self._settled: deque[_KnownFile] = deque()
        self._settled_files = 0
        self.missed = False
        """Whether there was no room for a file that changed."""
        self.forgotten = False
        """Whether there was no room for a file that failed: it may come back with a walk, but none is made for it."""

    def __len__(self) -> int:
        """How many files are known."""
        return len(self._files)

    def __contains__(self, path: bytes) -> bool:
        """Whether a file is known."""
        return path in self._files

    @property
    def size(self) -> int:
        """Bytes of all that is known, as far as it was looked at."""
        return self._bytes

    @property
    def settled(self) -> int:
        """How many files can be taken."""
        return self._settled_files

    @property
    def waiting(self) -> int:
        """How many files are known that have not failed."""
        return len(self._files) - len(self._failing)

    @property
    def oldest(self) -> float | None:
        """Since when the file has been waiting that has been for longest, in seconds since the epoch."""
        while self._oldest:
            since, _, file = self._oldest[0]
            if self._has(file):
                if since == file.since:
                    return since
                heapq.heapreplace(self._oldest, (file.since, next(self._number), file))
            else:
                heapq.heappop(self._oldest)
        return None

    def changed(self, path: bytes) -> None:
        """Somebody has created or changed that file, or given it that name."""
        file = self._files.get(path)
        if file is None:
            self._add(path, self._settle_s)
        elif file.state in {_State.IN_FLIGHT, _State.LOOKED_AT}:
            file.changed = True
            file.since = self._epoch()
        else:
            self._begin(file)

    def gone(self, path: bytes) -> None:
        """There is no file of that name any more."""
        file = self._files.get(path)
        if file is None:
            return
        if file.state is _State.IN_FLIGHT:
            file.changed = False
            file.version = 0  # whatever a walk finds under this name from now on has come since
        else:
            self._drop(file)

    def gone_below(self, directory: bytes) -> None:
        """There is no directory of that name any more."""
        inside = directory + b"/"
        if not any(parent == directory or parent.startswith(inside) for parent in self._parents):
            return
        for path in [path for path in self._files if path.startswith(inside)]:
            self.gone(path)

    def found(self, each: FoundFile) -> bool:
        """Take in a file that a walk has found; return False if there is no room for it."""
        file = self._files.get(each.path)
        if file is not None:
            unknown = file.version == 0 and file.state is not _State.IN_FLIGHT
            if file.version != each.version and not unknown:
                self.changed(each.path)
            return True
        file = self._add(each.path, max(0.0, self._settle_s - each.unchanged_s), each.since)
        if file is None:
            return False
        file.version, file.seen_s = each.version, self._now()
        self._resize(file, each.size)
        return True

    def unreadable(self, path: bytes, note: str) -> None:
        """A walk has found something that cannot be looked at, or into; ``note`` says why."""
        file = self._files.get(path) or self._add(path, 0.0)
        if file is not None and file.state is _State.SETTLING:
            file.note = note
            self._settle(file)

    def next_due_s(self) -> float | None:
        """Return when, by the monotonic clock, a file is to be looked at; None if none is."""
        while self._due:
            at_s, _, file = self._due[0]
            if file.queued_s == at_s and self._has(file):
                return at_s
            heapq.heappop(self._due)
        return None

    def due(self) -> list[bytes]:
        """Return up to `MAX_LOOKS` files that are to be looked at now, for `looked`."""
        now_s, paths = self._now(), list[bytes]()
        while len(paths) < MAX_LOOKS and (at_s := self.next_due_s()) is not None and at_s <= now_s:
            _, _, file = heapq.heappop(self._due)
            file.queued_s = math.inf
            if file.due_s > now_s:
                self._queue(file)
            else:
                file.state = _State.LOOKED_AT
                file.changed = False
                paths.append(file.path)
        return sorted(paths)

    def looked(self, looks: Sequence[FileLook]) -> list[bytes]:
        """Take in what was seen of files that were due; return those that turned out to be directories, to be walked.

        These remain until the walk calls `gone`, having entered them, or `unreadable`.
        """
        directories: list[bytes] = []
        for look in looks:
            file = self._files.get(look.path)
            if file is None or file.state is not _State.LOOKED_AT:
                continue
            if file.changed:
                self._begin(file)
            elif look.entry is None:
                self._drop(file)
            elif look.entry.kind is Kind.DIRECTORY:
                directories.append(file.path)
                self._settle_again(file, MAX_FILE_DELAY_S)
            else:
                self._judge(file, look, look.entry)
        return directories

    def not_looked(self, paths: Iterable[bytes]) -> None:
        """These could not be looked at, because the source as a whole could not."""
        for path in paths:
            file = self._files.get(path)
            if file is not None and file.state is _State.LOOKED_AT:
                self._settle_again(file, 0.0)

    def _judge(self, file: _KnownFile, look: FileLook, entry: Entry) -> None:
        now_s = self._now()
        file.note, file.above = entry.note, look.above
        if entry.kind not in {Kind.FILE, Kind.LINK}:
            self._settle(file)
            return
        file.kind = entry.kind
        if look.version != file.version:
            file.version, file.seen_s = look.version, now_s
            file.since = max(file.since, self._epoch() - look.unchanged_s)
        file.mtime_ns = entry.mtime_ns
        self._resize(file, entry.size)
        if look.written:
            file.since = self._epoch()
            self._settle_again(file, max(self._settle_s, WRITTEN_AGAIN_S))
            return
        left_s = self._settle_s - max(look.unchanged_s, now_s - file.seen_s)
        if left_s <= 0:
            self._settle(file)
        else:
            self._settle_again(file, left_s)

    def take(self, most: int) -> list[Entry]:
        """Return up to ``most`` files that have settled, those that did first, and mark them as in flight.

        They come in path order, each directory that they are in before the first one in it.
        """
        taken: list[_KnownFile] = []
        while self._settled and len(taken) < most:
            file = self._settled.popleft()
            if file.state is _State.SETTLED and self._has(file):
                file.state = _State.IN_FLIGHT
                file.changed = False
                self._settled_files -= 1
                taken.append(file)
        taken.sort(key=lambda file: file.path)
        entries, announced = list[Entry](), set[bytes]()
        for file in taken:
            for directory in file.above:
                if directory.path not in announced:
                    announced.add(directory.path)
                    entries.append(directory)
            entries.append(file.entry)
        return entries

    def moved(self, path: bytes) -> None:
        """A file that was in flight is done with; if it changed meanwhile, it is new."""
        file = self._files.get(path)
        if file is not None and file.state is _State.IN_FLIGHT:
            self._forgive(file)
            if file.changed:
                self._begin(file)
            else:
                self._drop(file)

    def failed(
        self, path: bytes, first_delay_s: float = FIRST_FILE_DELAY_S, max_delay_s: float = MAX_FILE_DELAY_S
    ) -> float:
        """A file that was in flight could not be moved; return after how many seconds it comes back.

        ``first_delay_s`` is the delay after the first failure in a row, ``max_delay_s`` the longest one.
        """
        file = self._files.get(path)
        if file is None or file.state is not _State.IN_FLIGHT:
            return first_delay_s
        if file.changed:
            self._begin(file)
            return self._settle_s
        if file.failing_since is None:
            if len(self._failing) >= self._max_failed:
                self._drop(file)
                self.forgotten = True
                return MAX_FILE_DELAY_S
            file.failing_since = self._epoch()
            self._failing[path] = file
        delay_s: float = min(max_delay_s, first_delay_s * 2 ** min(file.attempts, _MAX_DOUBLINGS))
        delay_s *= 1 - _DELAY_JITTER_FRACTION * self._jitter()
        file.attempts += 1
        file.state = _State.FAILED
        file.due_s = self._now() + delay_s
        self._queue(file)
        return delay_s

    def untouched(self, paths: Iterable[bytes]) -> None:
        """Nobody came to these files, which were in flight: they are settled as before, and the first to be taken."""
        for path in sorted(paths, reverse=True):
            file = self._files.get(path)
            if file is not None and file.state is _State.IN_FLIGHT:
                if file.changed:
                    self._begin(file)
                else:
                    self._settle(file, first=True)

    def retry_now(self) -> None:
        """Forget the delays of all that failed."""
        for file in self._failing.values():
            file.attempts = 0
            if file.state is _State.FAILED:
                self._settle_again(file, 0.0)

    @property
    def failures(self) -> Iterator[FailedFile]:
        """What has failed and was not moved since."""
        for file in list(self._failing.values()):
            yield FailedFile(file.path, file.failing_since or 0.0, file.attempts)

    def restore(self, failures: Iterable[FailedFile]) -> None:
        """Take in what `failures` had before a restart: looked at soon, it waits for as long if it fails again."""
        for each in failures:
            if len(self._failing) >= self._max_failed:
                return
            file = self._files.get(each.path) or self._add(each.path, self._settle_s, each.since)
            if file is None:
                return
            file.attempts, file.failing_since = each.attempts, each.since
            self._failing[file.path] = file

    def doubt(self) -> None:
        """Have all files but those in flight looked at again before they are taken: nobody saw what became of them."""
        for file in self._files.values():
            if file.state is not _State.IN_FLIGHT:
                self._settle_again(file, 0.0)

    def _add(self, path: bytes, due_in_s: float, since: float | None = None) -> _KnownFile | None:
        if len(self._files) >= self.max_known:
            self.missed = True
            return None
        now = self._epoch()
        file = _KnownFile(path, now if since is None else min(since, now), self._now() + due_in_s)
        self._files[path] = file
        parent = _parent(path)
        self._parents[parent] = self._parents.get(parent, 0) + 1
        heapq.heappush(self._oldest, (file.since, next(self._number), file))
        self._oldest = self._compacted(self._oldest, lambda file: file.since)
        self._queue(file)
        return file

    def _drop(self, file: _KnownFile) -> None:
        self._resize(file, 0)
        self._unsettle(file)
        self._failing.pop(file.path, None)
        del self._files[file.path]
        parent = _parent(file.path)
        self._parents[parent] -= 1
        if not self._parents[parent]:
            del self._parents[parent]

    def _resize(self, file: _KnownFile, size: int) -> None:
        self._bytes += size - file.size
        file.size = size

    def _forgive(self, file: _KnownFile) -> None:
        self._failing.pop(file.path, None)
        file.attempts, file.failing_since = 0, None

    def _begin(self, file: _KnownFile) -> None:
        """Let a file settle that has changed."""
        file.changed = False
        file.attempts = 0
        file.since = self._epoch()
        self._settle_again(file, self._settle_s)

    def _settle_again(self, file: _KnownFile, due_in_s: float) -> None:
        self._unsettle(file)
        file.state = _State.SETTLING
        file.due_s = self._now() + due_in_s
        if file.queued_s > file.due_s:
            self._queue(file)

    def _queue(self, file: _KnownFile) -> None:
        file.queued_s = file.due_s
        heapq.heappush(self._due, (file.due_s, next(self._number), file))
        self._due = self._compacted(self._due, lambda file: file.queued_s)

    def _settle(self, file: _KnownFile, *, first: bool = False) -> None:
        file.state = _State.SETTLED
        file.queued_s = math.inf
        self._settled_files += 1
        if first:
            self._settled.appendleft(file)
        else:
            self._settled.append(file)
        if len(self._settled) > 2 * self._settled_files + _SLACK_ENTRIES:
            self._settled = deque(
                dict.fromkeys(each for each in self._settled if each.state is _State.SETTLED and self._has(each))
            )

    def _unsettle(self, file: _KnownFile) -> None:
        if file.state is _State.SETTLED:
            self._settled_files -= 1

    def _has(self, file: _KnownFile) -> bool:
        return self._files.get(file.path) is file

    def _compacted(
        self, queue: list[tuple[float, int, _KnownFile]], at: Callable[[_KnownFile], float]
    ) -> list[tuple[float, int, _KnownFile]]:
        """Return a queue without what is outdated, if that is most of it."""
        if len(queue) <= 2 * len(self._files) + _SLACK_ENTRIES:
            return queue
        kept = {id(file): (at(file), number, file) for _, number, file in queue if self._has(file)}
        compact = [each for each in kept.values() if each[0] < math.inf]
        heapq.heapify(compact)
        return compact


def _parent(path: bytes) -> bytes:
    """Return the directory that a file is in; empty for the source itself."""
    return path.rpartition(b"/")[0]
