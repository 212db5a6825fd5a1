"""Space promised to the large files that are being written, for each file system; logic without I/O.

Without it, files that would fit one by one could be started together, fill the file system, and none would arrive.
One ledger is shared by all stores of a process, so the promises of two directories on one file system add up.

Promises are made and updated in threads; waiting, and waking those who wait, happens in the reactor's thread.
The reactor's thread never takes the lock of a file system: it is held while the free space is measured, which may hang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

STALLED_AFTER_S: Final = 60.0
"""A promise lapses if the file does not grow by `METADATA_BYTES` within this time.

Otherwise a peer could keep others out of a file system by announcing a file and never sending it.
"""

METADATA_BYTES: Final = 64 << 10
"""Changes of size below this do not count as growth."""

LEDGER_POLL_S: Final = 5.0
"""How often those who wait look again: a promise may have stalled, and other programs free space, too."""


class Crowded(Exception):
    """There is no space at present for ``need`` bytes; never leaves the store.

    ``free`` is the number of bytes available, without the reserve and what is promised to others.
    ``waits`` says that there may be enough once the others are done; then pass ``seen`` to `FileSystem.change`.
    """

    def __init__(self, file_system: FileSystem, need: int, free: int, *, waits: bool, seen: int) -> None:
        super().__init__(need, free)
        self.file_system = file_system
        self.need = need
        self.free = free
        self.waits = waits
        self.seen = seen
        self.partial = b""
        """The file's own partial, relative to the root; not to be removed, since its content need not be sent again."""


class Promise:
    """Space promised to one file that is being written; sizes are in bytes, without holes."""

    def __init__(
        self, size: int, on_disk: int, replaced: int, file_system: FileSystem, now: Callable[[], float]
    ) -> None:
        self.size = size
        self.on_disk = on_disk
        self.replaced = replaced
        """Size of the file that it replaces, which becomes free at the end."""
        self.file_system = file_system
        self._now = now
        self._grown, self._grown_at = on_disk, now()

    @property
    def left(self) -> int:
        """Bytes still to be written."""
        return max(0, self.size - self.on_disk)

    @property
    def stalled(self) -> bool:
        """Whether it has not grown for longer than `STALLED_AFTER_S`, so that nothing is reserved for it any more."""
        return self._now() - self._grown_at > STALLED_AFTER_S

    def reached(self, on_disk: int, length: int | None = None) -> None:
        """Note that ``on_disk`` bytes of it are on disk now, and that it is ``length`` bytes long with its holes."""
        length = on_disk if length is None else length
        self.on_disk = on_disk
        if abs(length - self._grown) >= METADATA_BYTES:
            self._grown, self._grown_at = length, self._now()

    def release(self) -> None:
        """End the promise once the file is committed or abandoned; then call `FileSystem.changed`.

        May be called more than once.
        """
        self.file_system.promises.discard(self)


class FileSystem:
    """The promises made on one file system, and the callers that wait for space there."""

    def __init__(self, device: int, now: Callable[[], float], clock: IReactorTime | None) -> None:
        self.device = device
        self._now = now
        self._clock = clock
        self.promises: set[Promise] = set()
        self._lock = threading.Lock()
        self._changes = 0
        self._waiting: list[Deferred[None]] = []
        self._polling: IDelayedCall | None = None

    def promise(self, size: int, on_disk: int, replaced: int, measure: Callable[[], int | None]) -> Promise:
        """Promise space for the rest of a file, or raise `Crowded`; for a thread.

        ``measure`` returns the free bytes, or None if that is unknown: then the promise is always made.
        """
        with self._lock:
            # Read before anything is measured, so that a wait for a change after it misses none.
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
        """Whether any file is being written that has not stalled."""
        return any(not each.stalled for each in list(self.promises))

    @property
    def seen(self) -> int:
        """The number of changes so far; pass it to `change` to wait for the next one."""
        return self._changes

    def change(self, seen: int) -> Deferred[None]:
        """Return a Deferred that fires once there is a change after ``seen``; it may be cancelled."""
        changed: Deferred[None] = Deferred(self._given_up)
        if self._changes != seen:
            changed.callback(None)
            return changed
        self._waiting.append(changed)
        if self._polling is None and self._clock is not None:
            self._polling = self._clock.callLater(LEDGER_POLL_S, self.changed)
        return changed

    def changed(self) -> None:
        """Wake those who wait, in the order in which they came."""
        self._changes += 1
        waiting, self._waiting = self._waiting, []
        self._stop_polling()
        for each in waiting:
            # One that was woken may cancel another, which is in this list, and not in `_waiting` any more.
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
    """The file systems that are being written to, by device number."""

    def __init__(self, clock: IReactorTime | None = None) -> None:
        self._clock = clock
        self._now: Callable[[], float] = time.monotonic if clock is None else clock.seconds
        self._file_systems: dict[int, FileSystem] = {}
        self._lock = threading.Lock()

    @property
    def now(self) -> float:
        """The time in seconds, by its clock."""
        return self._now()

    def on(self, device: int) -> FileSystem:
        """Return the file system of that device; may be called in any thread."""
        with self._lock:
            found = self._file_systems.get(device)
            if found is None:
                found = self._file_systems[device] = FileSystem(device, self._now, self._clock)
            return found
