"""`DirectoryEvents`: what the kernel tells of directories that are watched, by inotify(7), for all sources.

One instance serves them all: a user may have no more than 128 by default, and a daemon may have more sources than that.
The system calls are those of `inotify_simple`, which adds nothing to them.
The reactor says when there is something to read; never more than `EVENTS_READ_BYTES` are read before it gets its turn.

Watches are added in threads, since that looks up a directory, and are of use at once.
So there may be events of a watch before the source knows that it is its own; a source that is adding watches
(`Listener.adding`) is given the events of all of them, and sorts them out when it knows.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from attrs import frozen
from inotify_simple import INotify, flags, parse_events
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from realize.by_value import ByValue
from realize.concurrency.reactor import IReadingReactor

EVENTS_READ_BYTES: Final = 64 << 10
"""Bytes of events that are read at a time: some 2,000 of them."""

GATHER_EVENTS_S: Final = 0.02
"""For this long after something was read, nothing is: at 1,000 events per second, 50 reads are cheaper than 1,000.

The kernel keeps 16,384 events by default.
"""

WATCH_FLAGS: Final = int(
    flags.CREATE
    | flags.CLOSE_WRITE
    | flags.ATTRIB
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.DELETE
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
)
"""What is watched for.

Not each write: a file that is written to for an hour would cause millions of events, and is looked at anyway.
"""


_OVERFLOWS: Final = int(flags.Q_OVERFLOW)

_log = Logger()


@frozen(eq=False, repr=False)
class DirectoryEvent(ByValue):
    """Something has happened to a directory, or to ``name`` in it; see inotify(7).

    ``cookie`` is the same number in both events of one rename.
    """

    watch: int
    mask: int
    cookie: int
    name: bytes


class Listener(Protocol):
    """A source that is told what happens."""

    @property
    def adding(self) -> bool:
        """Whether it may have watches that it does not know yet: it gets all events."""

    def happened(self, event: DirectoryEvent) -> None:
        """Take an event of a watch that it may have."""

    def overflowed(self) -> None:
        """Events were lost, nobody knows which."""


@implementer(IReadDescriptor)
class DirectoryEvents:
    """An instance of inotify(7), which is open while there are listeners.

    All methods must be called in the reactor's thread, but for `add` and `remove`.
    """

    def __init__(self, reactor: IReadingReactor, opening: Callable[..., Any] = INotify) -> None:
        self._reactor = reactor
        self._opening = opening
        self._inotify: Any = None
        self._pause: IDelayedCall | None = None
        self._listeners: list[Listener] = []
        self._users: dict[int, list[Listener]] = {}

    def listen(self, listener: Listener) -> None:
        """Tell this one what happens; raises `OSError` if the user has no more instances."""
        if self._inotify is None:
            self._inotify = self._opening(nonblocking=True)
            self._reactor.addReader(self)
        if listener not in self._listeners:
            self._listeners.append(listener)

    def ignore(self, listener: Listener) -> None:
        """Tell this one nothing any more, once it adds no more watches; it has forgotten all that it had."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        if not self._listeners and self._inotify is not None:
            self._reactor.removeReader(self)
            if self._pause is not None:
                self._pause.cancel()
                self._pause = None
            inotify, self._inotify = self._inotify, None
            inotify.close()

    def add(self, directory_fd: int) -> int:
        """Watch an open directory, and return the number of the watch; raises `OSError`, such as ENOSPC.

        May be called in any thread, between `listen` and `ignore`.
        """
        return int(self._inotify.add_watch(b"/proc/self/fd/%d" % directory_fd, WATCH_FLAGS))

    def claim(self, listener: Listener, watch: int) -> None:
        """This listener wants the events of that watch."""
        users = self._users.setdefault(watch, [])
        if listener not in users:
            users.append(listener)

    def unclaim(self, listener: Listener, watches: Iterable[int]) -> list[int]:
        """This listener has no use for these watches any more; return those that nobody has, for `remove`."""
        unused: list[int] = []
        for watch in watches:
            users = self._users.get(watch, [])
            if listener in users:
                users.remove(listener)
            if not users:
                self._users.pop(watch, None)
                unused.append(watch)
        return unused

    def remove(self, watches: Iterable[int]) -> None:
        """Watch these directories no longer; may be called in any thread, between `listen` and `ignore`."""
        for watch in watches:
            with contextlib.suppress(OSError):  # the kernel has removed it, since the directory is gone
                self._inotify.rm_watch(watch)

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return -1 if self._inotify is None else int(self._inotify.fileno())

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "directory events"

    def connectionLost(self, reason: Failure) -> None:
        """See `IReadDescriptor`: the reactor has ended, or there is no instance any more."""

    def doRead(self) -> None:
        """Read some events, and tell the listeners."""
        try:
            content = os.read(self.fileno(), EVENTS_READ_BYTES)
        except BlockingIOError:
            return
        self._reactor.removeReader(self)
        self._pause = self._reactor.callLater(GATHER_EVENTS_S, self._go_on)
        for watch, mask, cookie, name in parse_events(content):
            if mask & _OVERFLOWS:
                for listener in tuple(self._listeners):
                    listener.overflowed()
            else:
                try:
                    self._tell(DirectoryEvent(watch, mask, cookie, os.fsencode(name)))
                except Exception:  # noqa: BLE001 -- the reactor would read no more events, for any source
                    _log.failure("while a source was told of an event")

    def _go_on(self) -> None:
        self._pause = None
        self._reactor.addReader(self)

    def _tell(self, event: DirectoryEvent) -> None:
        users = self._users.get(event.watch, ())
        for listener in tuple(users):
            listener.happened(event)
        for listener in self._listeners:
            if listener.adding and listener not in users:
                listener.happened(event)
