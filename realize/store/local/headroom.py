"""How much may still be written to a directory, and freeing space for it.

A large file is started only if all of it fits, beside what is promised to others (see `promised_space`).
If it does not, it waits while others are being written, as they may fail, or replace larger files; then partials that
nobody is writing are removed, if that makes it fit; and if it does not, the file is refused before anything is sent.

Small files get no promise: they are written at once, and free space only when that fails.

The free space of a file system is not the whole truth: there are quotas, other programs write too, and compressed
content takes less.
So a file may fail although it was started; then space is freed for it once more.

Space is freed for one file at a time: an attempt that failed before somebody else freed some is repeated.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, DeferredLock

from realize.concurrency.shielded import RunInThread
from realize.errors import Busy, NoSpace
from realize.fs.space import space_of
from realize.store.local.known_partials import KnownPartials
from realize.store.local.leftovers import in_the_way, remove_unlocked, unlocked
from realize.store.local.location import RootedLocation
from realize.store.local.promised_space import METADATA_BYTES, Crowded, FileSystem, Ledger, Promise
from realize.store.local.walker import WalkEntry
from realize.units import NO_RESERVE, Reserve, display_name, format_size

MAX_WAIT_S: Final = 600.0
"""How long to wait for others before the file fails with `realize.errors.Busy`, to be tried again later.

The peer waits for an answer, and a connection that stays silent for longer counts as dead.
"""

Freed = Callable[[bytes, int], object]
"""Called with the path, relative to the root, and the size in bytes of a partial that was removed to free space."""


class Waiting:
    """One caller that may have to wait for space, and can give up at any time."""

    def __init__(self, began: float, made: int) -> None:
        self.began = began
        self.made = made
        """The value of `Headroom.made` before the last attempt."""
        self._given_up = False
        self._change: Deferred[None] | None = None

    async def for_change(self, file_system: FileSystem, seen: int) -> None:
        """Wait until something changes there after ``seen``; raises CancelledError if `give_up` was called."""
        if self._given_up:
            raise CancelledError
        self._change = file_system.change(seen)
        try:
            await self._change
        finally:
            self._change = None

    def give_up(self) -> None:
        """Stop waiting, and never wait again."""
        self._given_up = True
        if self._change is not None:
            self._change.cancel()


def refuse_reserve(path: bytes, free: int | None, needed: int) -> None:
    """Raise `NoSpace` if fewer bytes are free outside the reserve than are needed; None: there is no reserve."""
    if free is not None and free < needed:
        raise NoSpace(f"{display_name(path)}: {os.strerror(errno.ENOSPC)}: the free space belongs to the reserve")


class Headroom:
    """The space available in one directory; shared by all stores of it.

    Methods that take a ``location`` look there for partials that may be removed.
    """

    def __init__(
        self,
        run_in_thread: RunInThread,
        ledger: Ledger | None = None,
        reserve: Reserve = NO_RESERVE,
        freed: Freed = lambda _path, _size: None,
    ) -> None:
        self._run_in_thread = run_in_thread
        self.ledger = Ledger() if ledger is None else ledger
        self.reserve = reserve
        """May be changed at any time."""
        self.freed = freed
        self.partials = KnownPartials(run_in_thread)
        self.made = 0
        """How many times space was freed: an attempt that began before the last time is worth repeating."""
        self._making = DeferredLock()

    def wait(self) -> Waiting:
        """Return the waiting state of a caller; call it before the first attempt."""
        return Waiting(self.ledger.now, self.made)

    # For threads.

    def free(self, fd: int) -> int | None:
        """Return the bytes that may be written to the file system of ``fd``; negative if the reserve is in use.

        None if the file system does not report its size.
        """
        found = space_of(os.fstatvfs(fd))
        return found.free - self.reserve.of(found.size) if found.size else None

    def promise(self, fd: int, device: int, *, size: int, had: int, replaced: int) -> Promise:
        """Promise space for the rest of a large file, whose partial ``fd`` is; raises `Crowded` if there is too little.

        ``size`` is what the whole file takes, ``had`` what its partial does, ``replaced`` that of the file it replaces,
        in bytes.
        """
        return self.ledger.on(device).promise(size, had, replaced, lambda: self.free(fd))

    def _measure(self, location: RootedLocation) -> tuple[int, int | None]:
        """Return the device and the free bytes, as of `free`, where the location is or would be made."""
        with location.tree() as tree:
            fd, _ = tree.nearest(location.base)
            return os.fstat(fd).st_dev, self.free(fd)

    # For the reactor.

    async def make_way(self, location: RootedLocation, path: bytes, crowded: Crowded, waiting: Waiting) -> None:
        """Wait or free space until another attempt to start a large file is worthwhile.

        Raises `Busy` if that takes too long, `NoSpace` if it is hopeless.
        """
        if crowded.waits:
            if self.ledger.now - waiting.began > MAX_WAIT_S:
                raise Busy(f"{display_name(path)}: there is not enough room while other files are being written")
            await waiting.for_change(crowded.file_system, crowded.seen)
            return
        missing = crowded.need - crowded.free
        made, waiting.made = waiting.made, self.made
        if not await self._make(location, crowded.file_system.device, missing, made, crowded.partial):
            raise NoSpace(
                f"{display_name(path)}: No space left on device: {format_size(crowded.need)} are needed, "
                f"{format_size(max(0, crowded.free))} are free, {format_size(missing)} are missing"
            )

    async def go_on(self, location: RootedLocation, promise: Promise, free: int | None, made: int) -> bool:
        """Free space for the rest of a file that ran out of it in spite of its promise; return whether that was done.

        ``made`` is the value that `made` had before the attempt to write.
        """
        # If there seems to be enough, something else limits the space, such as a quota.
        # A file with holes may take more than was told.
        left = promise.left or METADATA_BYTES
        missing = left if free is None or free >= left else left - free
        return await self._make(location, promise.file_system.device, missing, made)

    async def make_way_for_small(self, location: RootedLocation, sizes: Sequence[int], waiting: Waiting) -> bool:
        """Free space or wait after small files of these sizes did not fit; return whether to try again."""
        made, waiting.made = waiting.made, self.made
        device: int
        free: int | None
        device, free = await self._run_in_thread(self._measure, location)
        file_system = self.ledger.on(device)
        seen = file_system.seen
        free = 0 if free is None or free >= sum(sizes) else max(0, free)
        most = free + sum(each.size for each in await self.partials.on(location, device))
        # As many as fit if all partials are removed; they are written in this order.
        need = 0
        for size in sizes:
            if need + size <= most:
                need += size
        # Space freed for others since the last attempt may be enough: then nothing seems to be missing.
        if self.made != made or (need > free and await self._make(location, device, need - free, made)):
            return True
        if not file_system.busy or self.ledger.now - waiting.began > MAX_WAIT_S:
            return False
        await waiting.for_change(file_system, seen)
        return True

    async def _make(self, location: RootedLocation, device: int, missing: int, made: int, own: bytes = b"") -> bool:
        """Free ``missing`` bytes, unless space was freed since `made` was ``made``; return whether any was freed."""
        await self._making.acquire()
        try:
            if self.made != made:
                return True
            removed = await self._remove(location, device, missing, own)
            self.made += removed
            return removed
        finally:
            self._making.release()

    async def _remove(self, location: RootedLocation, device: int, missing: int, own: bytes = b"") -> bool:
        """Remove idle partials to free ``missing`` bytes, if that is possible; return whether any were removed."""
        known = [each for each in await self.partials.on(location, device) if each.from_root != own]
        # Nothing is removed in vain: partials that are being written neither count nor go.
        idle: list[WalkEntry] = await self._run_in_thread(unlocked, location, known) if known else []
        chosen = in_the_way(idle, missing)
        if not chosen:
            return False
        self.partials.forget(chosen)
        removed: list[WalkEntry] = await self._run_in_thread(remove_unlocked, location, chosen)
        for each in removed:
            self.freed(each.from_root, each.size)
        return bool(removed)
