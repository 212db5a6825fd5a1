"""`SourceWatch`: a directory of this machine from which files are moved as they settle.

Puts together what the kernel tells (`realize.watch.events`), what walks find (`realize.watch.walks`), and what is known
of the files (`realize.watch.settling`).
All methods are called in the reactor's thread; whatever needs the disk is done in other ones, one look and one piece of
a walk at a time.
"""

from __future__ import annotations

import enum
import errno
import random as random_module
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from inotify_simple import flags
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from realize.concurrency.shielded import RunInThread
from realize.errors import BadName
from realize.leaving import Leaving
from realize.logger import Logger
from realize.store.local.location import RootedLocation
from realize.store.local.looks import FileLook, Looking
from realize.store.local.walker import PAGE_ENTRIES
from realize.units import display_name
from realize.values import Entry
from realize.watch.directories import WatchedDirectories
from realize.watch.events import DirectoryEvent, DirectoryEvents
from realize.watch.settling import FIRST_FILE_DELAY_S, MAX_KNOWN_FILES, FailedFile, SettlingFiles
from realize.watch.walks import Situation, SourceWalk, WalkPage, locate_source, read_page

SLOW_WALK_S: Final = 3_600.0
"""How long after a walk the next one begins, for whatever was missed."""

LIMITED_WALK_S: Final = 60.0
"""The same, if not every directory can be watched."""

POLLED_WALK_S: Final = 30.0
"""The same, where the file system tells nothing."""

CHECK_S: Final = 60.0
"""How often it is checked that the source is the same directory, with the same file systems mounted below."""

GATHER_S: Final = 0.05
"""How long files that are due wait for others, to be looked at together."""

HANGS_AFTER_S: Final = 30.0
"""A piece of work of the disk that takes longer than this hangs."""

ARRIVES_WITHIN_S: Final = 1.0
"""A directory that was moved away and is nowhere in the source after this has left it."""

MAX_EARLY_EVENTS: Final = 10_000
"""Events that are kept until it is known whose they are; if there are more, everything is walked again."""

MAX_NEW_DIRECTORIES: Final = 10_000
"""New directories that wait to be walked one by one; if there are more, everything is."""

FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0

_DUTY_FRACTION: Final = 0.2
"""The part of its time that a slow walk works."""

_MIN_WALK_GAP_S: Final = 1.0
_REFILL_FRACTION: Final = 0.25
"""When fewer of the files are known than this part of the most that may be, others are looked for."""

_CHANGES: Final = int(flags.CREATE | flags.CLOSE_WRITE | flags.ATTRIB | flags.MOVED_TO)
_DEPARTURES: Final = int(flags.DELETE | flags.MOVED_FROM)
_ENDS: Final = int(flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT | flags.IGNORED)
_FOR_DIRECTORIES: Final = int(flags.ISDIR)

_SYSCTLS: Final = {errno.ENOSPC: "fs.inotify.max_user_watches", errno.EMFILE: "fs.inotify.max_user_instances"}


class WatchMode(enum.Enum):
    """How a source is watched."""

    EVENTS = "events"
    """The kernel tells what happens."""
    LIMITED = "limited"
    """Not all of its directories can be watched, since the user has no more watches: it is walked every minute."""
    POLLED = "polled"
    """Its file system tells nothing, so it is walked every half a minute."""
    ABSENT = "absent"
    """It is not there, or does not answer."""


@frozen
class SourceBacklog:
    """What is known of a source and not moved: files, their bytes, and since when the oldest has waited.

    ``oldest`` is in seconds since the epoch, None if there is nothing; ``at_least`` says that there is more.
    """

    files: int
    bytes: int
    oldest: float | None
    at_least: bool


class SourceWatch:
    """Watches one directory, from `start` to `stop`.

    ``path`` is the directory; ``settle_s`` is for how many seconds a file must be unchanged.
    ``accepts`` says whether a file of that path, relative to the directory, is of interest; threads call it, too.
    ``leave`` are rules of `realize.leaving` for directories that are not entered.
    ``random`` returns numbers from 0 to 1.
    """

    def __init__(
        self,
        path: bytes,
        *,
        settle_s: float,
        accepts: Callable[[bytes], bool],
        leave: Sequence[bytes] = (),
        reactor: IReactorTime,
        events: DirectoryEvents,
        run_in_thread: RunInThread,
        log: Logger,
        random: Callable[[], float] = random_module.random,  # noqa: S311 -- so that retries do not come at once
        epoch: Callable[[], float] = time.time,
        max_known: int = MAX_KNOWN_FILES,
    ) -> None:
        self._path = path
        self._accepts = accepts
        self._leave = leave
        self._leaving = Leaving(leave)
        self._reactor = reactor
        self._events = events
        self._run_in_thread = run_in_thread
        self._log = log.bind(source=display_name(path))
        self._random = random
        self._max_known = max_known
        self._files = SettlingFiles(settle_s, now=reactor.seconds, epoch=epoch, jitter=random, max_known=max_known)
        self._directories = WatchedDirectories()
        self.on_ready: Callable[[], object] = lambda: None
        """Called when there is something to take that was not before."""
        self._location: RootedLocation | None = None
        self._situation: Situation | None = None
        self._listening = False
        self._stopped = False
        self._said_absent = False
        self._retry_s = FIRST_RETRY_S
        self._limited = False
        self._refused = False
        """Whether the walk that is under way could not watch a directory."""
        self._polled: set[bytes] = set()
        """The topmost directories whose file systems tell nothing."""
        self._hanging = 0
        self._jobs: set[Deferred[Any]] = set()
        self._timers: dict[str, IDelayedCall] = {}
        self._looking = False
        self._reading: list[SourceWalk] | None = None
        """The walks that a thread reads from."""
        self._new: dict[bytes, None] = {}
        self._new_walks: list[SourceWalk] = []
        self._full: list[SourceWalk] = []
        self._full_wanted = False
        self._slowly = False
        self._walks = 0
        self._walk_ended_s = reactor.seconds() - SLOW_WALK_S
        self._walk_began_s = 0.0
        self._refill: list[SourceWalk] = []
        self._counted = [0, 0]
        self._beyond = [0, 0]
        """Files, and their bytes, that the last walk has found and there was no room for."""
        self._early: list[DirectoryEvent] = []

    def start(self) -> None:
        """Begin to watch, and to walk; if the directory is not there, try again until it is."""
        self._locate()

    def stop(self) -> Deferred[None]:
        """Stop; the Deferred fires when no timer, descriptor or thread is left."""
        self._stopped = True
        for name in list(self._timers):
            self._cancel(name)

        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        await self._idle()
        self._let_go()
        await self._idle()
        self._events.ignore(self)

    async def _idle(self) -> None:
        """Wait until no thread works for this source."""
        while self._jobs:
            await DeferredList(list(self._jobs))

    @property
    def mode(self) -> WatchMode:
        """How the source is watched now."""
        if self._location is None or self._hanging:
            return WatchMode.ABSENT
        if b"" in self._polled:
            return WatchMode.POLLED
        return WatchMode.LIMITED if self._limited else WatchMode.EVENTS

    @property
    def backlog(self) -> SourceBacklog:
        """What is known and not moved."""
        files = self._files
        beyond_files, beyond_bytes = self._beyond
        at_least = bool(beyond_files or files.missed)
        return SourceBacklog(len(files) + beyond_files, files.size + beyond_bytes, files.oldest, at_least)

    @property
    def ready(self) -> int:
        """How many files can be taken."""
        return self._files.settled

    @property
    def failures(self) -> Iterator[FailedFile]:
        """What has failed and was not moved since."""
        return self._files.failures

    def restore(self, failures: Iterable[FailedFile]) -> None:
        """Take in what `failures` had before a restart; to be called before `start`."""
        self._files.restore(failures)

    def take(self, most: int) -> list[Entry]:
        """See `SettlingFiles.take`."""
        return self._files.take(most)

    def moved(self, path: bytes) -> None:
        """See `SettlingFiles.moved`; also for a file that is gone, or is left where it is for good."""
        self._files.moved(path)
        self._go_on()

    def failed(self, path: bytes, *, first_delay_s: float = FIRST_FILE_DELAY_S) -> float:
        """See `SettlingFiles.failed`."""
        delay_s = self._files.failed(path, first_delay_s)
        self._go_on()
        return delay_s

    def untouched(self, paths: Iterable[bytes]) -> None:
        """See `SettlingFiles.untouched`; `on_ready` is not called."""
        self._files.untouched(paths)
        self._go_on()

    def retry_now(self) -> None:
        """Forget all delays: what has failed is ready again as soon as it was looked at."""
        self._files.retry_now()
        self._go_on()

    def walk_now(self) -> None:
        """Walk the whole source as soon as possible."""
        self._want_walk(slowly=False)

    # -- the source itself

    def _locate(self) -> None:
        self._in_thread(locate_source, self._path).addCallbacks(self._located, self._lost)

    def _located(self, found: tuple[RootedLocation, Situation]) -> None:
        if self._stopped:
            return
        self._location, self._situation = found
        self._retry_s = FIRST_RETRY_S
        if self._said_absent:
            self._said_absent = False
            self._log.info("source_is_back")
        self._later("check", CHECK_S, self._check)
        self._want_walk(slowly=False)
        self._look_when_due()

    def _lost(self, failure: Failure) -> None:
        """The source is not there, or not the directory that it was."""
        if self._stopped:
            return
        self._let_go()
        if not self._said_absent:
            self._said_absent = True
            self._log.warning("source_is_absent", reason=failure.getErrorMessage())
        self._later("locate", self._retry_s, self._locate)
        self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)

    def _let_go(self) -> None:
        """Forget what was known of the directories; the files are looked at again when the source is back."""
        self._location = self._situation = None
        for name in ("check", "walk", "gap", "poll", "look", "slowly"):
            self._cancel(name)
        for walks in (self._new_walks, self._full, self._refill):
            if walks is not self._reading:
                self._close(walks)
        self._new_walks, self._full, self._refill = [], [], []
        self._new.clear()
        self._early.clear()
        self._polled.clear()
        self._full_wanted = False
        self._remove(self._directories.clear())
        self._files.doubt()

    def _check(self) -> None:
        self._in_thread(locate_source, self._path).addCallbacks(self._checked, self._lost)

    def _checked(self, found: tuple[RootedLocation, Situation]) -> None:
        location, situation = found
        if self._location is None or self._stopped:
            return
        if location != self._location:
            self._let_go()
            self._located(found)
            return
        if situation != self._situation:
            self._situation = situation
            self.walk_now()
        self._later("check", CHECK_S, self._check)

    # -- events

    @property
    def adding(self) -> bool:
        """See `realize.watch.events.Listener`."""
        return self._reading is not None or bool(self._new or self._new_walks)

    def overflowed(self) -> None:
        """See `realize.watch.events.Listener`."""
        self._log.warning("watch_events_lost", sysctl="fs.inotify.max_queued_events")
        self._want_walk(slowly=False)

    def happened(self, event: DirectoryEvent) -> None:
        """See `realize.watch.events.Listener`."""
        if event.watch in self._directories:
            self._take_in(event)
        elif self.adding:
            if len(self._early) < MAX_EARLY_EVENTS:
                self._early.append(event)
            elif not self._full_wanted:
                self._want_walk(slowly=False)

    def _take_in(self, event: DirectoryEvent) -> None:
        mask = event.mask
        if not event.name:
            if mask & _ENDS:
                self._directory_ended(event)
            return
        path = self._directories.path(event.watch, event.name)
        if path is None:
            return
        if mask & _FOR_DIRECTORIES:
            self._directory_changed(event, path)
        elif mask & _DEPARTURES:
            self._files.gone(path)
        elif mask & _CHANGES and (path in self._files or self._accepts(path)):
            self._files.changed(path)
            self._look_when_due()

    def _directory_ended(self, event: DirectoryEvent) -> None:
        """A directory was removed or unmounted, or its watch was."""
        if self._directories.is_top(event.watch):
            self._let_go()
            self._locate()
        elif not event.mask & flags.MOVE_SELF:
            path = self._directories.path(event.watch)
            self._forget(self._directories.drop(event.watch))
            if path and not event.mask & flags.DELETE_SELF:
                self._walk_new(path)

    def _directory_changed(self, event: DirectoryEvent, path: bytes) -> None:
        mask, watch, name = event.mask, event.watch, event.name
        if mask & flags.MOVED_FROM:
            if self._directories.leave(watch, name, event.cookie):
                self._later("left", ARRIVES_WITHIN_S, self._directories_left)
            self._files.gone_below(path)
        elif mask & flags.DELETE:
            self._forget(self._directories.drop(watch, name))
            self._files.gone(path)
            self._files.gone_below(path)
        elif mask & flags.MOVED_TO:
            self._remove(self._directories.arrive(watch, name, event.cookie))
            if self._leaving(path):
                self._remove(self._directories.drop(watch, name))
            else:
                self._walk_new(path)
        elif mask & flags.CREATE:
            if not self._directories.has(watch, name) and not self._leaving(path):
                self._walk_new(path)
        elif path in self._files:  # it could not be read, and may have become readable
            self._files.changed(path)
            self._look_when_due()

    def _directories_left(self) -> None:
        self._remove(self._directories.left())

    def _remove(self, watches: list[int]) -> None:
        """Give up watches, unless one of these directories has turned up elsewhere."""
        unused = self._events.unclaim(self, [each for each in watches if each not in self._directories])
        if unused and self._listening:
            self._in_thread(self._events.remove, unused).addErrback(
                lambda _: None
            )  # no thread: their events are dropped

    def _forget(self, watches: list[int]) -> None:
        """Forget watches that the kernel has removed."""
        self._events.unclaim(self, watches)

    # -- walks

    def _want_walk(self, *, slowly: bool) -> None:
        self._full_wanted = True
        self._slowly = slowly
        self._cancel("slowly")
        self._go_on()

    def _walk_new(self, path: bytes) -> None:
        if len(self._new) < MAX_NEW_DIRECTORIES:
            self._new[path] = None
            self._go_on()
        elif not self._full_wanted:
            self._want_walk(slowly=False)

    def _go_on(self) -> None:
        """Begin the next piece of a walk, if there is one, and look at the files that are due."""
        self._look_when_due()
        if self._reading is not None or self._stopped or self._location is None:
            return
        if self._new and not self._new_walks:
            some = list(self._new)[:PAGE_ENTRIES]
            for path in some:
                del self._new[path]
            self._new_walks = [walk for path in some if (walk := self._walk(path)) is not None]
        if self._new_walks:
            self._read(self._new_walks, self._found_new)
        elif self._full:
            if "slowly" not in self._timers:
                self._read(self._full, self._found_in_all)
        elif self._full_wanted:
            self._begin_full()
        elif self._refill or self._wants_refill:
            self._refill_some()

    def _begin_full(self) -> None:
        wait_s = self._walk_ended_s + _MIN_WALK_GAP_S - self._reactor.seconds()
        if wait_s > 0:
            self._later("gap", wait_s, self._go_on)
            return
        self._cancel("walk")
        self._full_wanted = False
        self._listen()
        self._walks += 1
        self._walk_began_s = self._reactor.seconds()
        self._counted = [0, 0]
        self._files.missed = False
        self._close(self._refill)
        walk = self._walk(b"")
        assert walk is not None  # noqa: S101 -- for the type checker
        self._full = [walk]
        self._read(self._full, self._found_in_all)

    def _walk(self, start: bytes) -> SourceWalk | None:
        assert self._location is not None  # noqa: S101 -- for the type checker
        add = self._events.add if self._listening else None
        try:
            return SourceWalk(self._location, accepts=self._accepts, leave=self._leave, add=add, start=start)
        except BadName:  # too deep; whatever is above says so
            return None

    def _listen(self) -> None:
        if not self._listening:
            try:
                self._events.listen(self)
            except OSError as error:
                self._refuse(error)
            else:
                self._listening = True

    def _read(self, walks: list[SourceWalk], then: Callable[[WalkPage], None]) -> None:
        self._reading = walks
        began_s = self._reactor.seconds()

        def done(page: WalkPage | Failure) -> None:
            self._reading = None
            if self._stopped or not any(walks is each for each in (self._new_walks, self._full, self._refill)):
                self._close(walks)  # the source was lost meanwhile
                if isinstance(page, WalkPage):
                    self._remove([watch for _, watch in page.entered if watch is not None])
            elif isinstance(page, Failure):
                self._lost(page)
            else:
                self._take_in_page(page)
                if walks is self._full and self._slowly:
                    self._pause(self._reactor.seconds() - began_s)
                then(page)
            self._go_on()

        self._in_thread(read_page, walks).addBoth(done)

    def _close(self, walks: list[SourceWalk]) -> None:
        for walk in walks:
            walk.close()
        walks.clear()

    def _pause(self, worked_s: float) -> None:
        self._later("slowly", worked_s * (1 / _DUTY_FRACTION - 1), self._go_on)

    def _take_in_page(self, page: WalkPage) -> None:
        """Take in all but the files."""
        unused: list[int] = []
        elsewhere = set(page.elsewhere)
        for path, watch in page.entered:
            self._files.gone(path)
            if path not in elsewhere:
                self._polled.discard(path)
            if watch is not None:
                unused += self._directories.put(path, watch, self._walks)
                self._events.claim(self, watch)
        self._remove(unused)
        for path in page.elsewhere:
            self._poll(path)
        if page.refused is not None:
            self._refuse(page.refused)
        settled = self._files.settled
        for path, note in page.unreadable:
            self._files.unreadable(path, note)
        early, self._early = self._early, []
        for event in early:
            self.happened(event)
        if self._files.settled > settled:
            self.on_ready()

    def _found_new(self, page: WalkPage) -> None:
        for file in page.files:
            self._files.found(file)

    def _found_in_all(self, page: WalkPage) -> None:
        for file in page.files:
            if not self._files.found(file):
                self._counted[0] += 1
                self._counted[1] += file.size
        if self._full:
            return
        self._walk_ended_s = self._reactor.seconds()
        self._beyond = self._counted
        self._remove(self._directories.unseen(self._walks))
        if self._limited and not self._refused:
            self._limited = False
            self._log.info("watch_limit_over")
        self._refused = False
        period_s = SLOW_WALK_S
        if b"" in self._polled:
            period_s = POLLED_WALK_S
        elif self._limited:
            period_s = LIMITED_WALK_S
        self._later("walk", period_s, self._walk_again, period_s == SLOW_WALK_S)

    def _walk_again(self, slowly: bool) -> None:  # noqa: FBT001 -- what the reactor calls is called like this
        self._want_walk(slowly=slowly)

    @property
    def _wants_refill(self) -> bool:
        more = self._beyond[0] or self._files.missed
        return bool(more) and self._files.waiting < self._max_known * _REFILL_FRACTION

    def _refill_some(self) -> None:
        """FileLook for more files, as far as there is room for them."""
        if len(self._files) + PAGE_ENTRIES > self._max_known:
            return
        if not self._refill:
            self._files.missed = False
            walk = self._walk(b"")
            self._refill = [] if walk is None else [walk]
        self._read(self._refill, self._found_more)

    def _found_more(self, page: WalkPage) -> None:
        before = len(self._files)
        size = self._files.size
        self._found_new(page)
        self._beyond[0] = max(0, self._beyond[0] - len(self._files) + before)
        self._beyond[1] = max(0, self._beyond[1] - self._files.size + size)
        if not self._refill:
            self._beyond = [0, 0]

    def _poll(self, path: bytes) -> None:
        """Walk a directory by the clock, unless one that it is in is walked."""
        if path in self._polled or any(not each or path.startswith(each + b"/") for each in self._polled):
            return
        self._polled.add(path)
        self._log.info("source_is_polled", path=display_name(path or b"."), every_s=POLLED_WALK_S)
        if path and "poll" not in self._timers:
            self._later("poll", POLLED_WALK_S, self._poll_now)

    def _poll_now(self) -> None:
        for path in self._polled:
            if path:
                self._walk_new(path)
        if self._polled:
            self._later("poll", POLLED_WALK_S, self._poll_now)

    def _refuse(self, error: OSError) -> None:
        """A directory cannot be watched: walk more often instead."""
        self._refused = True
        if not self._limited:
            self._limited = True
            sysctl = _SYSCTLS.get(error.errno or 0, "")
            self._log.warning(
                "watch_limit_reached", reason=str(error), sysctl=sysctl, value=_value(sysctl), every_s=LIMITED_WALK_S
            )

    # -- looks

    def _look_when_due(self) -> None:
        if self._looking or self._stopped or self._location is None:
            return
        due_s = self._files.next_due_s()
        if due_s is None:
            return
        delay_s = max(0.0, due_s - self._reactor.seconds()) + GATHER_S
        timer = self._timers.get("look")
        if timer is None:
            self._later("look", delay_s, self._look)
        elif timer.getTime() > self._reactor.seconds() + delay_s:
            timer.reset(delay_s)

    def _look(self) -> None:
        paths = self._files.due()
        if not paths or self._location is None:
            self._look_when_due()
            return
        self._looking = True

        def done(looks: list[FileLook] | Failure) -> None:
            self._looking = False
            if isinstance(looks, Failure):
                self._files.not_looked(paths)
                self._lost(looks)
                return
            settled = self._files.settled
            for directory in self._files.looked(looks):
                self._walk_new(directory)
            if self._files.settled > settled:
                self.on_ready()
            self._go_on()

        self._in_thread(Looking(self._location).at, paths).addBoth(done)

    # -- threads and timers

    def _in_thread(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Do it in a thread; the Deferred does not fire after `stop`."""
        result: Deferred[Any] = Deferred()
        job = maybeDeferred(self._run_in_thread, work, *args)
        hanging = self._reactor.callLater(HANGS_AFTER_S, self._hang)

        def done(outcome: Any) -> None:
            if hanging.active():
                hanging.cancel()
            else:
                self._hanging -= 1
                if not self._hanging:
                    self._log.info("source_answers_again")
            self._jobs.discard(job)
            result.callback(outcome)

        self._jobs.add(job)
        job.addBoth(done)
        return result

    def _hang(self) -> None:
        self._hanging += 1
        if self._hanging == 1:
            self._log.warning("source_hangs", after_s=HANGS_AFTER_S)

    def _later(self, name: str, delay_s: float, work: Callable[..., None], *args: object) -> None:
        """Do it once, after that time; a timer that has the name goes on instead of this one."""
        if name in self._timers or self._stopped:
            return

        def now() -> None:
            del self._timers[name]
            work(*args)

        self._timers[name] = self._reactor.callLater(delay_s, now)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()


def _value(sysctl: str) -> int | None:
    """Return what a limit is set to; None if that is unknown."""
    try:
        return int(Path("/proc/sys", *sysctl.split(".")).read_text())
    except (OSError, ValueError):
        return None
