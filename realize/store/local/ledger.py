"""What the large files that are being written still need, for each file system; logic without I/O.

Without it, files that fit one by one are begun together, fill the file system, and none of them arrives.
One ledger is shared by all stores of a process: what two directories of one file system are promised counts together.

A promise is made and followed in threads; whoever waits, and is told, is in the reactor's.
Nothing here blocks the reactor: the lock is held while a file system is asked how much is free, which may hang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

STALLED_AFTER_S: Final = 60.0
"""Seconds after which what a file needs is not kept for it any more, if it has not grown by `METADATA_BYTES` meanwhile.

Else a peer could keep others out of a file system by announcing a file and never sending it.
"""

METADATA_BYTES: Final = 64 << 10

LEDGER_POLL_S: Final = 5.0
"""Seconds after which those who wait look again: a promise may have stalled, and others make room, too."""


class Crowded(Exception):
    """There is no room at present for ``need`` bytes; never leaves the store.

    ``free`` is what there is, without the reserve and what others were promised.
    ``waits`` says that there may be when the others are done; ``seen`` is then for `FileSystem.change`.
    """

    def __init__(self, file_system: FileSystem, need: int, free: int, *, waits: bool, seen: int) -> None:
        super().__init__(need, free)
        self.file_system = file_system
        self.need = need
        self.free = free
        self.waits = waits
        self.seen = seen
        self.partial = b""
        """The file's own partial, relative to the root: what it has need not be sent again."""


@define(eq=False)
class Promise:
    """Room for one file that is being written."""

    size: int
    on_disk: int
    replaced: int
    """Bytes of the file that it is to replace, which become free at the end."""
    file_system: FileSystem
    _now: Callable[[], float]
    _grown: int = field(init=False)
    _grown_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        """It counts from now on."""
        self._grown, self._grown_at = self.on_disk, self._now()

    @property
    def left(self) -> int:
        """Bytes that are still to be written."""
        return max(0, self.size - self.on_disk)

    @property
    def stalled(self) -> bool:
        """Whether it has not grown for so long that nothing is kept for it."""
        return self._now() - self._grown_at > STALLED_AFTER_S

    def reached(self, on_disk: int) -> None:
        """So many bytes of it are on the disk now."""
        self.on_disk = on_disk
        if abs(on_disk - self._grown) >= METADATA_BYTES:
            self._grown, self._grown_at = on_disk, self._now()

    def release(self) -> None:
        """The file is committed or abandoned; `FileSystem.changed` is to be called then. May be called again."""
        self.file_system.promises.discard(self)


@define(eq=False)
class FileSystem:
    """The promises made on one file system, and those who wait for room there."""

    device: int
    _now: Callable[[], float]
    _clock: IReactorTime | None
    promises: set[Promise] = field(factory=set, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _changes: int = field(default=0, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)
    _polling: IDelayedCall | None = field(default=None, init=False)

    def promise(self, size: int, on_disk: int, replaced: int, measure: Callable[[], int | None]) -> Promise:
        """Promise room for the rest of a file, or fail with `Crowded`; in a thread.

        ``measure`` answers how much is free, None if that cannot be known: then there is room.
        """
        with self._lock:
            # Before anything is looked at: who waits for a later change misses none.
            seen = self._changes
            free = measure()
            others = [each for each in list(self.promises) if not each.stalled]
            promise = Promise(size, on_disk, replaced, self, self._now)
            if free is not None:
                left = free - sum(each.left for each in others)
                if promise.left > left:
                    most = free + sum(each.on_disk + each.replaced for each in others)
                    waits = bool(others) and promise.left <= most
                    raise Crowded(self, promise.left, left, waits=waits, seen=seen)
            self.promises.add(promise)
        return promise

    @property
    def busy(self) -> bool:
        """Whether a file is being written that has not stalled."""
        return any(not each.stalled for each in list(self.promises))

    @property
    def seen(self) -> int:
        """For `change`: what has changed up to now does not count."""
        return self._changes

    def change(self, seen: int) -> Deferred[None]:
        """Fires when something has changed that was not ``seen``; may be cancelled."""
        changed: Deferred[None] = Deferred(self._given_up)
        if self._changes != seen:
            changed.callback(None)
            return changed
        self._waiting.append(changed)
        if self._polling is None and self._clock is not None:
            self._polling = self._clock.callLater(LEDGER_POLL_S, self.changed)
        return changed

    def changed(self) -> None:
        """Let those who wait look again, in order of coming."""
        self._changes += 1
        waiting, self._waiting = self._waiting, []
        self._stop_polling()
        for each in waiting:
            # What one of them does may cancel another, which is taken out of another list by now.
            if not each.called:
                each.callback(None)

    def _given_up(self, changed: Deferred[None]) -> None:
        if changed in self._waiting:
            self._waiting.remove(changed)
        if not self._waiting:
            self._stop_polling()

    def _stop_polling(self) -> None:
        polling, self._polling = self._polling, None
        if polling is not None and polling.active():
            polling.cancel()


class Ledger:
    """The file systems that are written to, by device number."""

    def __init__(self, clock: IReactorTime | None = None) -> None:
        self._clock = clock
        self._now: Callable[[], float] = time.monotonic if clock is None else clock.seconds
        self._file_systems: dict[int, FileSystem] = {}
        self._lock = threading.Lock()

    @property
    def now(self) -> float:
        """Seconds of its clock."""
        return self._now()

    def on(self, device: int) -> FileSystem:
        """That file system; in any thread."""
        with self._lock:
            found = self._file_systems.get(device)
            if found is None:
                found = self._file_systems[device] = FileSystem(device, self._now, self._clock)
            return found
