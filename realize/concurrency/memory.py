"""`Memory`: how many bytes the peers may make us hold, all of them together and each one, on all its connections.

Whatever a peer can make us read, buffer or keep is claimed before that is done: when there is no room, it waits, so
things get slower and not larger.
Pure: counts, and says when somebody's turn has come.

Nobody waits for ever for what others keep to themselves:

* a peer that holds nothing always gets what it asks for, and a few MiB (`MIN_PEER_BYTES`) whatever all others hold;
* what only makes things faster (read ahead, wide windows) takes at most half of what a peer may hold;
* who waits is served in order, the peers in turns;
* each `Claim` gives back once, whatever happens to it.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Final

from twisted.internet.defer import Deferred, fail, succeed

from realize.errors import Busy

MIN_PEER_BYTES: Final = 4 << 20
"""Bytes that a peer may hold however much all others do."""


class Memory:
    """What all peers may hold together, ``most`` bytes, and each of them, ``most_each``."""

    def __init__(self, most: int, most_each: int) -> None:
        self.most = most
        self.most_each = most_each
        self.held = 0
        """Bytes that are claimed."""
        self._shares: dict[str, Share] = {}
        self._hungry: dict[Share, None] = {}
        """Those of whom somebody waits; who is next comes first."""
        self._serving = False

    def of(self, peer: str) -> Share:
        """The share of a peer."""
        return self._shares.setdefault(peer, Share(self))

    @property
    def waiting(self) -> int:
        """How many wait for memory."""
        return sum(share.waiting for share in self._hungry)

    def hungry(self, share: Share) -> None:
        """Somebody waits."""
        self._hungry[share] = None

    def freed(self) -> None:
        """Let those who wait have what there is now."""
        # In a loop: who is served may give back at once.
        if self._serving:
            return
        self._serving = True
        try:
            served = True
            while served:
                served = False
                for share in list(self._hungry):
                    served = share.serve_one() or served
                    if not share.waiting:
                        self._hungry.pop(share, None)
        finally:
            self._serving = False


class Share:
    """What one peer holds, on all its connections."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.held = 0
        """Bytes that are claimed."""
        self._waiting: deque[tuple[Claim, int, Deferred[None]]] = deque()

    def claim(self) -> Claim:
        """A claim to nothing yet."""
        return Claim(self)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def overdrawn(self) -> bool:
        """Whether more is held than may be, since not everything could wait."""
        return not self.has_room(0)

    def has_room(self, size: int) -> bool:
        """Whether so much may be claimed now."""
        held, memory = self.held + size, self.memory
        return (
            not self.held or held <= MIN_PEER_BYTES or (held <= memory.most_each and memory.held + size <= memory.most)
        )

    def has_plenty(self, size: int) -> bool:
        """Whether so much may be claimed by what only makes things faster."""
        held, memory = self.held + size, self.memory
        return not self._waiting and 2 * held <= memory.most_each and memory.held + size <= memory.most

    def add(self, size: int) -> None:
        """Count what is claimed, or given back."""
        self.held += size
        self.memory.held += size
        if size < 0:
            self.memory.freed()

    def wait(self, claim: Claim, size: int) -> Deferred[None]:
        """Fires when so much has been claimed."""
        waiter: Deferred[None] = Deferred(lambda _: self.forget(claim))
        self._waiting.append((claim, size, waiter))
        self.memory.hungry(self)
        return waiter

    def forget(self, claim: Claim) -> None:
        """A claim does not wait any more."""
        kept = [each for each in self._waiting if each[0] is not claim]
        if len(kept) < len(self._waiting):
            self._waiting = deque(kept)
            self.memory.freed()

    def serve_one(self) -> bool:
        """Let the first who waits have what it waits for, if there is room."""
        if not self._waiting:
            return False
        claim, size, waiter = self._waiting[0]
        if not self.has_room(size):
            return False
        self._waiting.popleft()
        claim.force(size)
        waiter.callback(None)
        return True


class Claim:
    """Some bytes of the share of a peer."""

    def __init__(self, share: Share) -> None:
        self.size = 0
        """Bytes that are claimed."""
        self._share = share
        self._waiter: Deferred[None] | None = None
        self._released = False

    def grow(self, size: int) -> Deferred[None]:
        """Claim more; fires when there is room for it, and fails with `Busy` if `release` is called before.

        One call at a time; cancelled, nothing was claimed.
        """
        if self._released:
            return fail(Busy("memory was wanted for what has ended"))
        if self.grow_now(size):
            return succeed(None)
        self._waiter = self._share.wait(self, size)
        self._waiter.addBoth(self._waited)
        return self._waiter

    def grow_now(self, size: int) -> bool:
        """The same if there is no need to wait, and nothing else."""
        if self._released or self._share.waiting or not self._share.has_room(size):
            return False
        self.force(size)
        return True

    def try_grow(self, size: int) -> bool:
        """Claim more for what only makes things faster, if there is plenty."""
        if self._released or not self._share.has_plenty(size):
            return False
        self.force(size)
        return True

    def force(self, size: int) -> None:
        """Claim what is held already, whether there is room or not."""
        if not self._released:
            self.size += size
            self._share.add(size)

    def become(self, size: int) -> None:
        """Claim just so much, which is held already, whether there is room or not."""
        if size > self.size:
            self.force(size - self.size)
        else:
            self.shrink(self.size - size)

    def shrink(self, size: int) -> None:
        """Give back some."""
        size = min(size, self.size)
        if size:
            self.size -= size
            self._share.add(-size)

    def release(self) -> None:
        """Give back all, and wait for no more; may be called more than once."""
        self._released = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._share.forget(self)
            waiter.errback(Busy("memory was wanted for what has ended"))
        self.shrink(self.size)

    def _waited(self, outcome: object) -> object:
        self._waiter = None
        return outcome


UNBOUNDED: Final = Memory(sys.maxsize, sys.maxsize)
"""For connections whose other end is asked, and not served."""
