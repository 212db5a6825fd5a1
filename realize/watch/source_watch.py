"""`SourceWatch`: a directory of this machine from which files are moved as they settle.

Puts together what the kernel tells (`realize.watch.events`), what walks find (`realize.watch.walking`), and what is
known of the files (`realize.watch.settling`).
All methods are called in the reactor's thread; whatever needs the disk is done in other ones, one look and one piece of
a walk at a time.
"""

from __future__ import annotations

import enum
import errno
import random as random_module
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen
from inotify_simple import flags
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from realize.by_value import ByValue
from realize.concurrency.shielded import RunInThread
from realize.errors import BadName
from realize.leaving import Leaving
from realize.logger import Logger
from realize.store.local.location import RootedLocation
from realize.store.local.looks import FileLook, Looking
from realize.units import display_name
from realize.values import Entry, Kind
from realize.watch.directories import WatchedDirectories
from realize.watch.events import DirectoryEvent, DirectoryEvents
from realize.watch.jobs import SourceJobs
from realize.watch.settling import (
    FIRST_FILE_DELAY_S,
    MAX_FILE_DELAY_S,
    MAX_KNOWN_FILES,
    FailedFile,
    SettlingFiles,
)
from realize.watch.walking import Walking, pause_after_s
from realize.watch.walks import Situation, SourceWalk, WalkPage, locate_source

SLOW_WALK_S: Final = 3_600.0
"""How long after a walk the next one begins, for whatever was missed."""

LIMITED_WALK_S: Final = 60.0
"""The same, if not every directory can be watched."""

POLLED_WALK_S: Final = 30.0
"""The same, where the file system tells nothing."""

CHECK_S: Final = 10.0
"""How often it is checked that the source is the same directory, with the same file systems mounted below."""

GATHER_S: Final = 0.05
"""How long files that are due wait for others, to be looked at together."""

ARRIVES_WITHIN_S: Final = 1.0
"""A directory that was moved away and is nowhere in the source after this has left it."""

MAX_EARLY_EVENTS: Final = 10_000
"""Events that are kept until it is known whose they are; if there are more, everything is walked again."""

FIRST_RETRY_S: Final = 1.0
"""After how long a source is looked for again that is not there; each time twice as long."""

MAX_RETRY_S: Final = 5.0
"""That costs next to nothing, and files may wait there."""

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


@frozen(eq=False, repr=False)
class SourceBacklog(ByValue):
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
    ``accepts`` says whether a file of that path, relative to the directory, is of interest, and ``accepts_unreadable``
    the same of what cannot be looked at, or into; ``accepts_size`` says it of a size in bytes.  Threads call them, too.
    ``leave`` are rules of `realize.leaving` for directories that are not entered; with ``one_file_system``, those on
    another file system are not either.
    ``links`` says whether symlinks are moved as they are.
    ``events`` is shared by all sources.
    ``random`` returns numbers from 0 to 1; ``epoch`` the time of day in seconds.
    At most ``max_known`` files are known by name.
    """

    def __init__(
        self,
        path: bytes,
        *,
        settle_s: float,
        accepts: Callable[[bytes], bool],
        accepts_size: Callable[[int], bool] = lambda _: True,
        accepts_unreadable: Callable[[bytes], bool] = lambda _: True,
        leave: Sequence[bytes] = (),
        one_file_system: bool = False,
        links: bool = False,
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
        self._accepts_size = accepts_size
        self._accepts_unreadable = accepts_unreadable
        self._leaving = Leaving(leave)
        self._one_file_system = one_file_system
        self._links = links
        self._reactor = reactor
        self._events = events
        self._log = log.bind(source=display_name(path))
        self._jobs = SourceJobs(reactor, run_in_thread, self._log, self._hang_changed)
        self._files = SettlingFiles(settle_s, now=reactor.seconds, epoch=epoch, jitter=random, max_known=max_known)
        self._directories = WatchedDirectories()
        self._walking = Walking(
            self._jobs,
            self._files,
            reactor,
            begin=self._walk,
            take_in=self._take_in_page,
            found=self._look_when_due,
            lost=self._lost,
            ended=self._walked_all,
        )
        self.on_ready: Callable[[], object] = lambda: None
        """Called when there is something to take that was not before."""
        self.on_hang: Callable[[], object] = lambda: None
        """Called when its disk has not answered for `realize.watch.jobs.HANGS_AFTER_S`: what works on it will wait."""
        self._location: RootedLocation | None = None
        self._situation: Situation | None = None
        self._listening = False
        self._said_absent = False
        self._retry_s = FIRST_RETRY_S
        self._limited = False
        self._refused = False
        """Whether the walk that is under way could not watch a directory."""
        self._polled: set[bytes] = set()
        """The topmost directories whose file systems tell nothing."""
        self._poll_began_s = 0.0
        self._looking = False
        self._early: list[DirectoryEvent] = []
        self._departed: set[bytes] = set()
        """The directories that have gone since a thread began to read: it may have found them before."""

    def start(self) -> None:
        """Begin to watch, and to walk; if the directory is not there, try again until it is."""
        self._locate()

    def stop(self) -> Deferred[None]:
        """Stop; the Deferred fires when no timer, descriptor or thread is left."""
        self._jobs.stop()
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        await self._jobs.idle()
        self._let_go()
        await self._jobs.idle()
        self._events.ignore(self)

    @property
    def mode(self) -> WatchMode:
        """How the source is watched now."""
        if self._location is None or self._jobs.hang:
            return WatchMode.ABSENT
        if b"" in self._polled:
            return WatchMode.POLLED
        return WatchMode.LIMITED if self._limited else WatchMode.EVENTS

    @property
    def backlog(self) -> SourceBacklog:
        """What is known and not moved."""
        files, (more, more_bytes) = self._files, self._walking.beyond
        return SourceBacklog(
            len(files) + more,
            files.size + more_bytes,
            files.oldest,
            at_least=bool(more or files.missed or files.forgotten),
        )

    @property
    def ready(self) -> int:
        """How many files can be taken; none while the disk does not answer."""
        return 0 if self._jobs.hang else self._files.settled

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

    def failed(
        self, path: bytes, *, first_delay_s: float = FIRST_FILE_DELAY_S, max_delay_s: float = MAX_FILE_DELAY_S
    ) -> float:
        """See `SettlingFiles.failed`."""
        delay_s = self._files.failed(path, first_delay_s, max_delay_s)
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
        if self._location is not None:
            self._walking.want()

    def _go_on(self) -> None:
        if self._location is not None:
            self._look_when_due()
            self._walking.go_on()

    # -- the source itself

    def _hang_changed(self) -> None:
        if self._jobs.hang:
            self.on_hang()
        elif self.ready:
            self.on_ready()

    def _locate(self) -> None:
        self._jobs.in_thread(locate_source, self._path).addCallbacks(self._located, self._lost)

    def _located(self, found: tuple[RootedLocation, Situation]) -> None:
        if self._jobs.stopped:
            return
        self._location, self._situation = found
        self._jobs.later("check", CHECK_S, self._check)
        self._walking.want()
        self._look_when_due()

    def _lost(self, failure: Failure) -> None:
        """The source is not there, or not the directory that it was."""
        if self._jobs.stopped:
            return
        self._let_go()
        if not self._said_absent:
            self._said_absent = True
            self._log.warning("source_is_absent", reason=failure.getErrorMessage())
        self._jobs.later("locate", self._retry_s, self._locate)
        self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)

    def _let_go(self) -> None:
        """Forget what was known of the directories; the files are looked at again when the source is back."""
        self._location = self._situation = None
        self._jobs.cancel("check", "poll", "look", "left")
        self._walking.abandon()
        self._early.clear()
        self._departed.clear()
        self._polled.clear()
        self._remove(self._directories.clear())
        self._files.doubt()

    def _check(self) -> None:
        self._jobs.in_thread(locate_source, self._path).addCallbacks(self._checked, self._lost)

    def _checked(self, found: tuple[RootedLocation, Situation]) -> None:
        location, situation = found
        if self._location is None or self._jobs.stopped:
            return
        if location != self._location:
            self._let_go()
            self._located(found)
            return
        if situation != self._situation:
            self._situation = situation
            self.walk_now()
        self._jobs.later("check", CHECK_S, self._check)

    # -- events

    @property
    def adding(self) -> bool:
        """See `realize.watch.events.Listener`."""
        return self._walking.adding

    def overflowed(self) -> None:
        """See `realize.watch.events.Listener`."""
        self._log.warning("watch_events_lost", sysctl="fs.inotify.max_queued_events")
        self.walk_now()

    def happened(self, event: DirectoryEvent) -> None:
        """See `realize.watch.events.Listener`."""
        path = self._directories.path(event.watch, event.name)
        if path is None:
            self._keep(event)
        elif not event.name:
            if event.mask & _ENDS:
                self._directory_ended(event, path)
        elif event.mask & _FOR_DIRECTORIES:
            self._directory_changed(event, path)
        elif event.mask & _DEPARTURES:
            self._files.gone(path)
        elif event.mask & _CHANGES and (path in self._files or self._accepts(path)):
            self._files.changed(path)
            self._look_when_due()

    def _keep(self, event: DirectoryEvent) -> None:
        """Keep an event until it is known which watches were added."""
        if not self._walking.adding or self._location is None:
            return
        self._early.append(event)
        if len(self._early) > MAX_EARLY_EVENTS:
            self._early.clear()
            self.walk_now()

    def _directory_ended(self, event: DirectoryEvent, path: bytes) -> None:
        """A directory was removed or unmounted, or its watch was."""
        if self._directories.is_top(event.watch):
            self._let_go()
            self._locate()
        elif not event.mask & flags.MOVE_SELF:
            self._forget(self._directories.drop(event.watch))
            if not event.mask & flags.DELETE_SELF:
                self._walking.visit(path)

    def _directory_changed(self, event: DirectoryEvent, path: bytes) -> None:
        mask, watch, name = event.mask, event.watch, event.name
        if mask & _DEPARTURES and self._walking.reading:
            self._departed.add(path)
        if mask & flags.MOVED_FROM:
            if self._directories.leave(watch, name, event.cookie):
                self._jobs.later("left", ARRIVES_WITHIN_S, self._directories_left)
            self._files.gone(path)
            self._files.gone_below(path)
        elif mask & flags.DELETE:  # it was empty: what was in it is gone already
            self._forget(self._directories.drop(watch, name))
            self._files.gone(path)
        elif mask & flags.MOVED_TO:
            self._remove(self._directories.arrive(watch, name, event.cookie))
            if self._leaving(path):
                self._remove(self._directories.drop(watch, name))
            else:
                self._walking.visit(path)
        elif mask & flags.CREATE:
            if not self._directories.has(watch, name) and not self._leaving(path):
                self._walking.visit(path)
        elif path in self._files:  # it could not be read, and may have become readable
            self._files.changed(path)
            self._look_when_due()

    def _directories_left(self) -> None:
        self._remove(self._directories.left())

    # -- walks

    def _walk(self, start: bytes) -> SourceWalk | None:
        assert self._location is not None  # noqa: S101 -- for the type checker
        if not start:
            self._listen()
        add = self._events.add if self._listening else None
        try:
            return SourceWalk(
                self._location,
                accepts=self._accepts,
                accepts_size=self._accepts_size,
                leave=self._leaving,
                one_file_system=self._one_file_system,
                add=add,
                start=start,
                links=self._links,
            )
        except BadName:  # too deep: the walk of what it is in says so
            return None

    def _listen(self) -> None:
        if not self._listening:
            try:
                self._events.listen(self)
            except OSError as error:
                self._refuse(error)
            else:
                self._listening = True

    def _take_in_page(self, page: WalkPage) -> None:
        """Take in all that a piece of a walk has found but the files."""
        watches = [(path, watch) for path, watch in page.entered if watch is not None]
        departed, self._departed = self._departed, set()
        if self._location is None or self._jobs.stopped:
            self._remove([watch for _, watch in watches])
            return
        elsewhere, unreadable = set(page.elsewhere), {path for path, _ in page.unreadable}
        for path, _ in page.entered:
            if path not in unreadable:
                self._files.gone(path)
            if path not in elsewhere:
                self._polled.discard(path)
        unused: list[int] = []
        for path, watch in watches:
            gone = _inside(path, departed) if departed else None
            if gone is None:
                unused += self._directories.put(path, watch, self._walking.number)
                self._events.claim(self, watch)
            else:  # where is it now? a removed one that is in use is watched as if nothing had happened
                unused.append(watch)
                self._walking.visit(gone)
        self._remove(unused)
        for path in page.elsewhere:
            self._poll(path)
        if page.refused is not None:
            self._refuse(page.refused)
        settled = self._files.settled
        for path, note in page.unreadable:
            if self._accepts_unreadable(path):
                self._files.unreadable(path, note)
            else:
                self._files.gone(path)
        early, self._early = self._early, []
        for event in early:
            self.happened(event)
        if self._files.settled > settled:
            self.on_ready()

    def _walked_all(self) -> tuple[float, bool]:
        # Not before: a directory may be opened whose names cannot be read.
        self._retry_s = FIRST_RETRY_S
        if self._said_absent:
            self._said_absent = False
            self._log.info("source_is_back")
        self._remove(self._directories.unseen(self._walking.number))
        if self._limited and not self._refused:
            self._limited = False
            self._log.info("watch_limit_over")
        self._refused = False
        if b"" in self._polled:
            return POLLED_WALK_S, False
        return (LIMITED_WALK_S, False) if self._limited else (SLOW_WALK_S, True)

    def _poll(self, path: bytes) -> None:
        """Walk a directory by the clock, unless one that it is in is walked."""
        if path in self._polled or any(not each or path.startswith(each + b"/") for each in self._polled):
            return
        self._polled.add(path)
        self._log.info("source_is_polled", path=display_name(path or b"."), every_s=POLLED_WALK_S)
        if path:
            self._jobs.later("poll", POLLED_WALK_S, self._poll_now)

    def _poll_now(self) -> None:
        self._poll_began_s = self._reactor.seconds()
        for path in self._polled:
            if path:
                self._walking.visit(path)
        self._poll_again()

    def _poll_again(self) -> None:
        """Wait until that is done, and then at least for four times as long."""
        if self._walking.visiting:
            self._jobs.later("poll", 1.0, self._poll_again)
        elif self._polled:
            pause_s = pause_after_s(self._reactor.seconds() - self._poll_began_s)
            self._jobs.later("poll", max(POLLED_WALK_S, pause_s), self._poll_now)

    def _refuse(self, error: OSError) -> None:
        """A directory cannot be watched: walk more often instead."""
        self._refused = True
        if not self._limited:
            self._limited = True
            self._walking.want_within(LIMITED_WALK_S)
            sysctl = _SYSCTLS.get(error.errno or 0, "")
            self._log.warning(
                "watch_limit_reached", reason=str(error), sysctl=sysctl, value=_value(sysctl), every_s=LIMITED_WALK_S
            )

    def _remove(self, watches: list[int]) -> None:
        """Give up watches, unless one of these directories has turned up elsewhere."""
        unused = self._events.unclaim(self, [each for each in watches if each not in self._directories])
        if unused and self._listening:
            self._jobs.in_thread(self._events.remove, unused).addErrback(lambda _: None)  # their events are dropped

    def _forget(self, watches: list[int]) -> None:
        """Forget watches that the kernel has removed."""
        self._events.unclaim(self, watches)

    # -- looks

    def _look_when_due(self) -> None:
        if self._looking or self._jobs.stopped or self._location is None:
            return
        due_s = self._files.next_due_s()
        if due_s is not None:
            self._jobs.sooner("look", max(0.0, due_s - self._reactor.seconds()) + GATHER_S, self._look)

    def _look(self) -> None:
        paths, location = self._files.due(), self._location
        if not paths or location is None:
            self._look_when_due()
            return
        self._looking = True

        def done(looks: list[FileLook] | Failure) -> None:
            self._looking = False
            if isinstance(looks, Failure):
                self._files.not_looked(paths)
                if self._location is location:
                    self._lost(looks)
                else:
                    self._go_on()
                return
            settled = self._files.settled
            for directory in self._files.looked(looks):
                self._walking.visit(directory)
            self._go_on()
            if self._files.settled > settled:
                self.on_ready()

        self._jobs.in_thread(self._looks_at, location, paths).addBoth(done)

    def _looks_at(self, location: RootedLocation, paths: Sequence[bytes]) -> list[FileLook]:
        """Look at files, in a thread; there is none of no interest, such as one that failed and is excluded by now."""
        looks = Looking(location, links=self._links).at(paths)
        return [look if self._is_meant(look) else FileLook(look.path, None) for look in looks]

    def _is_meant(self, look: FileLook) -> bool:
        match look.entry:
            case Entry(path, Kind.FILE, size):
                return self._accepts(path) and self._accepts_size(size)
            case Entry(path, Kind.FILE | Kind.LINK):
                return self._accepts(path)
            case Entry(path, Kind.UNREADABLE):
                return self._accepts_unreadable(path)
        return True


def _inside(path: bytes, directories: Collection[bytes]) -> bytes | None:
    """Return that one of these directories which a path is, or is in; None if it is in none."""
    while path and path not in directories:
        path = path.rpartition(b"/")[0]
    return path or None


def _value(sysctl: str) -> int | None:
    """Return what a limit is set to; None if that is unknown."""
    try:
        return int(Path("/proc/sys", *sysctl.split(".")).read_text())
    except (OSError, ValueError):
        return None
