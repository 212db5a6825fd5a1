"""What may still be written to a directory, and making way for it.

A large file is begun only if there is room for all of it, beside what others are promised
(`realize.store.local.ledger`).
If there is not, it waits as long as others are being written, for they may fail, or replace what is larger; then
partials are removed that nobody is writing, if that makes it fit; and then it is refused, before anything is sent.

Small files are promised nothing: they are written at once, and make way for themselves when that fails.

How much a file system has free is not the whole truth: there are quotas, other programs write too, and what is
compressed takes less.
So a file may fail although it was begun; then it makes way for itself once more.

Way is made for one at a time: who found no room before somebody else made some tries again instead of failing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, DeferredLock

from realize.concurrency.shielded import RunInThread
from realize.errors import Busy, NoSpace
from realize.store.local.known_partials import KnownPartials
from realize.store.local.ledger import Crowded, FileSystem, Ledger, Promise
from realize.store.local.leftovers import in_the_way, remove_unlocked, unlocked
from realize.store.local.location import Location
from realize.store.local.walker import WalkEntry
from realize.units import NO_RESERVE, Reserve, display_name, format_size

MAX_WAIT_S: Final = 600.0
"""Seconds to wait for others; then the file is put aside by `realize.errors.Busy`, and may be tried again.

The peer waits for an answer, and a connection on which nothing comes for longer counts as dead.
"""

Freed = Callable[[bytes, int], object]
"""Is told the path, relative to the root, and the size of a partial that was removed to make room."""


class Waiting:
    """One caller who may have to wait for room, and can give that up at any time."""

    def __init__(self, began: float, made: int) -> None:
        self.began = began
        self.made = made
        """What `Headroom.made` was before the last attempt."""
        self._given_up = False
        self._change: Deferred[None] | None = None

    async def for_change(self, file_system: FileSystem, seen: int) -> None:
        """Wait until something has changed there; fails with CancelledError if it was given up."""
        if self._given_up:
            raise CancelledError
        self._change = file_system.change(seen)
        try:
            await self._change
        finally:
            self._change = None

    def give_up(self) -> None:
        """Wait no more, now or later."""
        self._given_up = True
        if self._change is not None:
            self._change.cancel()


@define(eq=False)
class Headroom:
    """The room of one directory; to be shared by all stores of it.

    ``location``, where it is asked for, is what is searched for partials that may go.
    """

    _run_in_thread: RunInThread
    ledger: Ledger = field(factory=Ledger)
    reserve: Reserve = NO_RESERVE
    """May be changed at any time."""
    freed: Freed = lambda _path, _size: None
    partials: KnownPartials = field(init=False)
    made: int = field(default=0, init=False)
    """How many times way was made: an attempt that began before the last time is worth another one."""
    _making: DeferredLock = field(factory=DeferredLock, init=False)

    def __attrs_post_init__(self) -> None:
        """Nothing is known of the directory yet."""
        self.partials = KnownPartials(self._run_in_thread)

    def wait(self) -> Waiting:
        """For whoever may have to wait from now on; to be had before the first attempt."""
        return Waiting(self.ledger.now, self.made)

    # For threads.

    def free(self, fd: int) -> int | None:
        """Bytes that may be written to the file system of a descriptor, less than 0 if the reserve has been touched.

        None if the file system does not say.
        """
        found = os.fstatvfs(fd)
        if not found.f_blocks:
            return None
        return found.f_bavail * found.f_frsize - self.reserve.of(found.f_blocks * found.f_frsize)

    def promise(self, fd: int, status: os.stat_result, *, size: int, replaced: int) -> Promise:
        """Room for the rest of a large file, whose partial that is; fails with `Crowded`."""
        file_system = self.ledger.on(status.st_dev)
        return file_system.promise(size, status.st_size, replaced, lambda: self.free(fd))

    def _measure(self, location: Location) -> tuple[int, int | None]:
        """Device, and bytes that may be written, where the location is or would be made."""
        with location.tree() as tree:
            fd, _ = tree.nearest(location.base)
            return os.fstat(fd).st_dev, self.free(fd)

    # For the reactor.

    async def make_way(self, location: Location, path: bytes, crowded: Crowded, waiting: Waiting) -> None:
        """Make it worth another attempt to begin a large file, or raise what it fails with."""
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

    async def go_on(self, location: Location, promise: Promise, free: int | None, made: int) -> bool:
        """Whether room was made for the rest of a file that could not be written although it was promised room.

        ``made`` is what `made` was before the attempt.
        """
        # If there seems to be enough, something else, such as a quota, says that there is none.
        missing = promise.left if free is None or free >= promise.left else promise.left - free
        return await self._make(location, promise.file_system.device, missing, made)

    async def make_way_for_small(self, location: Location, sizes: Sequence[int], waiting: Waiting) -> bool:
        """Whether it is worth another attempt to write small files of these sizes, for which there was no room."""
        made, waiting.made = waiting.made, self.made
        device: int
        free: int | None
        device, free = await self._run_in_thread(self._measure, location)
        file_system = self.ledger.on(device)
        seen = file_system.seen
        free = 0 if free is None or free >= sum(sizes) else max(0, free)
        most = free + sum(each.size for each in await self.partials.on(location, device))
        # As many of them as fit when all partials are gone; they are written in this order.
        need = 0
        for size in sizes:
            if need + size <= most:
                need += size
        # What was made for others since the last attempt may be all that is needed: then nothing seems to be missing.
        if self.made != made or (need > free and await self._make(location, device, need - free, made)):
            return True
        if not file_system.busy or self.ledger.now - waiting.began > MAX_WAIT_S:
            return False
        await waiting.for_change(file_system, seen)
        return True

    async def _make(self, location: Location, device: int, missing: int, made: int, own: bytes = b"") -> bool:
        """Whether way was made for so many bytes, now or since `made` was so much."""
        await self._making.acquire()
        try:
            if self.made != made:
                return True
            removed = await self._remove(location, device, missing, own)
            self.made += removed
            return removed
        finally:
            self._making.release()

    async def _remove(self, location: Location, device: int, missing: int, own: bytes = b"") -> bool:
        """Whether partials that stood in the way of so many bytes are gone."""
        known = [each for each in await self.partials.on(location, device) if each.from_root != own]
        # Nothing goes in vain: what is being written does not count, and does not go.
        idle: list[WalkEntry] = await self._run_in_thread(unlocked, location, known) if known else []
        chosen = in_the_way(idle, missing)
        if not chosen:
            return False
        self.partials.forget(chosen)
        removed: list[WalkEntry] = await self._run_in_thread(remove_unlocked, location, chosen)
        for each in removed:
            self.freed(each.from_root, each.size)
        return bool(removed)
