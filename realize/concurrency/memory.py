"""`Memory`: how many bytes the peers may make us hold, all together and each of them on all its connections.

Whatever a peer can make us read, buffer or keep is claimed first: when there is no memory left, it waits, so things get
slower and not larger.
Pure: it only counts, and says whose turn it is.

No peer waits for ever for memory that others keep:

* a peer that holds nothing always gets what it asks for, and any peer up to `MIN_PEER_BYTES`, whatever others hold;
* what only makes things faster (read-ahead, wide windows) takes at most half of what a peer may hold;
* wide windows of streams take what nobody else wants: at most half of what all peers may hold, nothing while a claim
  waits for what others hold, and they leave room for what was wanted in vain;
* the waiting claims of a peer are served in order, and peers take turns;
* each `Claim` gives back what it holds exactly once, whatever happens to it.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Final
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, fail, succeed

from realize.errors import Busy

MIN_PEER_BYTES: Final = 4 << 20
"""A peer may always hold this much, whatever all others hold."""


class Memory:
    """A budget of ``most`` bytes for all peers together, and ``most_each`` for each of them.

    ``most_wide`` is how much all may hold when a window becomes wide: half of ``most`` unless it is given.
    """

    def __init__(self, most: int, most_each: int, most_wide: int | None = None) -> None:
        self.most = most
        self.most_each = most_each
        self.most_wide = most // 2 if most_wide is None else most_wide
        self.missed = 0
        """The most bytes that anybody wanted in vain, to be faster, since there was as much for somebody."""
        self.held = 0
        """Bytes claimed by all peers."""
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()
        """Those that a connection, or a claim, still has."""
        self._waiting_shares: dict[Share, None] = {}
        """The shares with waiting claims, in the order of their turns."""
        self._serving = False

    def of(self, peer: str) -> Share:
        """Return the share of a peer."""
        share = self._shares.get(peer)
        if share is None:
            share = self._shares[peer] = Share(self)
        return share

    @property
    def waiting(self) -> int:
        """Number of claims that wait for memory."""
        return sum(share.waiting for share in self._waiting_shares)

    @property
    def short(self) -> bool:
        """Whether a claim waits for what other peers hold, and not for what its own peer does."""
        return any(share.short for share in self._waiting_shares)

    def add_waiting(self, share: Share) -> None:
        """Note that a claim of this share waits."""
        self._waiting_shares[share] = None

    def freed(self) -> None:
        """Serve waiting claims from the memory that is free now."""
        # A loop instead of recursion: a claim that is served may give back at once.
        if self._serving:
            return
        self._serving = True
        try:
            served = True
            while served:
                served = False
                for share in list(self._waiting_shares):
                    served = share.serve_one() or served
                    if not share.waiting:
                        self._waiting_shares.pop(share, None)
        finally:
            self._serving = False


class Share:
    """The memory of one peer, on all its connections."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.held = 0
        """Bytes claimed by this peer."""
        self.missed = 0
        """As for `Memory`, of this peer."""
        self._waiting: deque[tuple[Claim, int, Deferred[None]]] | None = None
        """None while none does: an empty deque takes 760 bytes, for every peer."""

    def claim(self) -> Claim:
        """Return a new claim, of 0 bytes."""
        return Claim(self)

    @property
    def waiting(self) -> int:
        """Number of claims of this peer that wait."""
        return len(self._waiting or ())

    @property
    def short(self) -> bool:
        """Whether a claim of this peer waits that its own limit allows."""
        return self._waiting is not None and self.held + self._waiting[0][1] <= self.memory.most_each

    @property
    def overdrawn(self) -> bool:
        """Whether the peer holds more than it may; see `Claim.force`."""
        return not self.has_room(0)

    def has_room(self, size: int) -> bool:
        """Return whether ``size`` more bytes may be claimed now."""
        held, memory = self.held + size, self.memory
        return (
            not self.held or held <= MIN_PEER_BYTES or (held <= memory.most_each and memory.held + size <= memory.most)
        )

    def has_plenty(self, size: int) -> bool:
        """Return whether ``size`` more bytes may be claimed for what only makes things faster."""
        held, memory = self.held + size, self.memory
        return not self._waiting and 2 * held <= memory.most_each and memory.held + size <= memory.most

    def spare(self) -> int:
        """Return how many bytes may be claimed for a wide window: what nobody else wants."""
        memory = self.memory
        if self._waiting or memory.short:
            return 0
        own = memory.most_each // 2 - self.held - self.missed
        return max(0, min(own, memory.most_wide - memory.held - memory.missed))

    def tried(self, size: int, *, given: bool) -> None:
        """Note whether there were ``size`` bytes for what only makes things faster."""
        for each in (self, self.memory):
            if not given:
                each.missed = max(each.missed, size)
            elif size >= each.missed:
                each.missed = 0

    def add(self, size: int) -> None:
        """Count ``size`` more bytes as claimed; a negative ``size`` gives back."""
        for each in (self, self.memory):
            each.held += size
            if not each.held:
                each.missed = 0
        if size < 0:
            self.memory.freed()

    def wait(self, claim: Claim, size: int) -> Deferred[None]:
        """Return a Deferred that fires once ``size`` more bytes have been claimed; may be cancelled."""
        waiter: Deferred[None] = Deferred(lambda _: self.forget(claim))
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append((claim, size, waiter))
        self.memory.add_waiting(self)
        return waiter

    def forget(self, claim: Claim) -> None:
        """Stop waiting for a claim."""
        kept = [each for each in self._waiting or () if each[0] is not claim]
        if len(kept) < self.waiting:
            self._waiting = deque(kept) or None
            self.memory.freed()

    def serve_one(self) -> bool:
        """Serve the first waiting claim if there is memory for it; return whether that was done."""
        if self._waiting is None:
            return False
        claim, size, waiter = self._waiting[0]
        if not self.has_room(size):
            return False
        self._waiting.popleft()
        self._waiting = self._waiting or None
        claim.force(size)
        waiter.callback(None)
        return True


class Claim:
    """Some bytes of a peer's share, held until they are given back."""

    def __init__(self, share: Share) -> None:
        self.size = 0
        """Bytes claimed."""
        self._share = share
        self._waiter: Deferred[None] | None = None
        self._released = False

    def grow(self, size: int) -> Deferred[None]:
        """Claim ``size`` more bytes; fires once there is memory, fails with `Busy` if `release` is called before.

        Only one call at a time; if it is cancelled, nothing was claimed.
        """
        if self._released:
            return fail(Busy("the connection that waited for memory has ended"))
        if self.grow_now(size):
            return succeed(None)
        self._waiter = self._share.wait(self, size)
        self._waiter.addBoth(self._waited)
        return self._waiter

    def grow_now(self, size: int) -> bool:
        """Claim ``size`` more bytes if that needs no waiting; return whether it was done."""
        if self._released or self._share.waiting or not self._share.has_room(size):
            return False
        self.force(size)
        return True

    def try_grow(self, size: int) -> bool:
        """Claim ``size`` more bytes for what only makes things faster; return whether there was enough memory."""
        if self._released:
            return False
        given = self._share.has_plenty(size)
        self._share.tried(size, given=given)
        if given:
            self.force(size)
        return given

    def widen(self, size: int, least: int) -> int:
        """Claim up to ``size`` more bytes that nobody else wants, or none if those are less than ``least``.

        Returns how many were claimed.
        """
        size = min(size, self._share.spare())
        if self._released or size < least:
            return 0
        self.force(size)
        return size

    def force(self, size: int) -> None:
        """Claim ``size`` more bytes that are held already, even beyond the limits."""
        if not self._released:
            self.size += size
            self._share.add(size)

    def become(self, size: int) -> None:
        """Make the claim exactly ``size`` bytes, which are held already, even beyond the limits."""
        if size > self.size:
            self.force(size - self.size)
        else:
            self.shrink(self.size - size)

    def shrink(self, size: int) -> None:
        """Give back ``size`` bytes, or all if there are fewer."""
        size = min(size, self.size)
        if size:
            self.size -= size
            self._share.add(-size)

    def release(self) -> None:
        """Give back everything, stop waiting, and claim nothing any more; may be called more than once."""
        self._released = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._share.forget(self)
            waiter.errback(Busy("the connection that waited for memory has ended"))
        self.shrink(self.size)

    def _waited(self, outcome: object) -> object:
        self._waiter = None
        return outcome


MAX_ASKED_BYTES: Final = 256 << 20
"""What may be held, where there is no limit, when a window becomes wide."""

UNBOUNDED: Final = Memory(sys.maxsize, sys.maxsize, MAX_ASKED_BYTES)
"""No limits but for wide windows: for connections on which we only ask, and serve nobody."""
