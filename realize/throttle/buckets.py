"""A tree of token buckets: how many bytes may leave now, whose turn it is, and how long to wait otherwise.

Pure: no I/O, no Twisted, no clock; ``now`` is a float in seconds.
It should never go backwards; if it does (Twisted's reactor tells wall-clock time), nothing is given for that moment.
A byte that a leaf sends takes a token from the leaf and from every node above it.
A node without a rate has tokens without end.

Invariants, each of which has a property test:

* in any interval of t seconds a node passes at most ``rate * t + burst`` bytes;
* a node that is not used saves up ``burst`` and no more;
* when `Bucket.serve` returns, no leaf that still waits could have been given anything (work is conserved), and
  `Bucket.delay` says when one can;
* leaves that wait all the time below one node receive the same number of bytes, to within one turn (start-time fair
  queueing, Goyal, Vin and Cheng, SIGCOMM 1996).

Tokens are kept as bytes, not as a time at which the bucket is free: at 10 TiB/s a byte is 10**-13 s, which is lost when
it is added to the uptime of a machine, so that small writes would cost nothing.
"""

# The nodes of a tree see into each other.
# ruff: noqa: SLF001

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from typing import Final

from realize.throttle.meter import Meter

QUANTUM_S: Final = 0.003
"""Seconds' worth of bytes that are let go at a time, and as much again that a late timer may catch up on."""

MIN_QUANTUM_BYTES: Final = 1024
"""A slice has at least this many bytes, because a TLS record costs 22 and a packet 40 or more."""

MAX_QUANTUM_S: Final = 0.5
"""Seconds: a slice is smaller than `MIN_QUANTUM_BYTES` if it would take longer than this to collect."""

FAIR_QUANTUM_BYTES: Final = 4096
"""Bytes that one child gets before it is the turn of the next one, if there is not enough to give each of them more."""

UNLIMITED_BYTES: Final = 1 << 62
"""More than any demand; what a node without a rate has to give."""

_ROUNDING_S: Final = 1e-6
"""Seconds added to every delay, so that rounding never makes a waiter come just too early."""


def slice_of(rate: float) -> int:
    """The number of bytes that are let go at a time at ``rate``: 3 ms' worth, more at low rates, at least one byte."""
    return max(1, int(max(rate * QUANTUM_S, min(MIN_QUANTUM_BYTES, rate * MAX_QUANTUM_S))))


def burst_of(rate: float) -> float:
    """The burst that goes with ``rate`` if none is asked for: a slice, and what a timer may be late."""
    return slice_of(rate) + rate * QUANTUM_S


class Bucket:
    """A node of the tree; the nodes without children are the ones that wait for bytes.

    ``rate`` is in bytes per second, None for no limit; ``burst`` is in bytes, None for one that fits the rate.
    A new bucket is full.
    """

    __slots__ = (
        "_burst",
        "_children",
        "_finish",
        "_last",
        "_numbers",
        "_order",
        "_rate",
        "_since",
        "_slice",
        "_tokens",
        "_virtual",
        "_waited",
        "_waiting",
        "demand",
        "meter",
        "parent",
    )

    def __init__(self, rate: float | None = None, burst: float | None = None, parent: Bucket | None = None) -> None:
        self.parent = parent
        self.demand = 0
        """Bytes that wait in this node and below it."""
        self.meter = Meter()
        """Bytes that this leaf sent, or that leaves sent which have left this node."""
        self._children: dict[Bucket, None] = {}
        self._waiting: dict[Bucket, None] = {}
        self._numbers = itertools.count()
        self._order = 0
        self._virtual = 0
        self._finish = 0
        self._since = 0.0
        self._waited = 0.0
        self._last = -math.inf
        self._tokens = math.inf
        self._rate: float | None = None
        self._burst = math.inf
        self._slice = UNLIMITED_BYTES
        self._limit(rate, burst)
        if parent is not None:
            self._order = next(parent._numbers)
            parent._children[self] = None

    # What is allowed

    @property
    def rate(self) -> float | None:
        """The limit of this node alone in bytes per second, or None."""
        return self._rate

    @property
    def burst(self) -> float:
        """Bytes that this node may pass at once after a pause."""
        return self._burst

    @property
    def limited(self) -> bool:
        """Whether this node or one above it has a limit."""
        node: Bucket | None = self
        while node is not None:
            if node._rate is not None:
                return True
            node = node.parent
        return False

    @property
    def children(self) -> tuple[Bucket, ...]:
        """The nodes right below this one."""
        return tuple(self._children)

    def leaves(self) -> Iterator[Bucket]:
        """This node if it is a leaf, else all leaves below it."""
        if not self._children:
            yield self
        for child in tuple(self._children):
            yield from child.leaves()

    def share(self) -> float | None:
        """Bytes per second that this leaf may expect while as many others wait as now; None if nothing limits it."""
        share = self._rate
        others = 1
        node = self
        while node.parent is not None:
            waiting = len(node.parent._waiting)
            if node not in node.parent._waiting:
                waiting += 1
            others *= waiting
            node = node.parent
            if node._rate is not None and (share is None or node._rate / others < share):
                share = node._rate / others
        return share

    def set_rate(self, rate: float | None, now: float, burst: float | None = None) -> None:
        """From ``now`` on let ``rate`` bytes per second pass; what was saved beyond the new burst is lost."""
        self._refill(now)
        if self._rate is None:
            self._tokens, self._last = 0.0, now
        self._limit(rate, burst)

    def _limit(self, rate: float | None, burst: float | None) -> None:
        if rate is None:
            self._rate, self._burst, self._slice, self._tokens = None, math.inf, UNLIMITED_BYTES, math.inf
            return
        if not (rate > 0 and math.isfinite(rate)):
            raise ValueError(f"a rate is a number of bytes per second above 0, not {rate!r}")
        if burst is not None and not burst >= 1:
            raise ValueError(f"a burst is at least one byte, not {burst!r}")
        self._rate = float(rate)
        self._burst = burst_of(self._rate) if burst is None else float(burst)
        self._slice = min(slice_of(self._rate), int(min(self._burst, UNLIMITED_BYTES)))
        self._tokens = min(self._tokens, self._burst)

    # Waiting and being served

    def wait_for(self, amount: int, now: float) -> None:
        """Let this leaf wait for ``amount`` bytes in all, in place of what it waited for so far; 0 to give up."""
        more = amount - self.demand
        if not more:
            return
        if not self.demand:
            self._since = now
        elif not amount:
            self._waited += max(0.0, now - self._since)
        node: Bucket = self
        while True:
            node.demand += more
            parent = node.parent
            if parent is None:
                return
            if node.demand:
                parent._waiting.setdefault(node)
            else:
                parent._waiting.pop(node, None)
            node = parent

    def serve(self, now: float) -> dict[Bucket, int]:
        """Hand out what may leave at ``now`` and return how much each leaf got; to be called on the root."""
        grants: dict[Bucket, int] = {}
        if self.demand and self._ready(now):
            self._serve(UNLIMITED_BYTES, FAIR_QUANTUM_BYTES, now, grants)
        return grants

    def delay(self, now: float) -> float | None:
        """Seconds until `serve` will have something to hand out, or None if nobody waits; to be called on the root."""
        return self._delay(now) if self.demand else None

    def leave(self, now: float) -> None:
        """Take this leaf out of the tree; what it counted goes on being counted by its parent."""
        self.wait_for(0, now)
        parent = self.parent
        if parent is not None:
            self.parent = None
            del parent._children[self]
            parent.meter.absorb(self.meter, now)
            parent._waited += self._waited

    def _refill(self, now: float) -> None:
        if self._rate is not None:
            if now > self._last:
                self._tokens = min(self._burst, self._tokens + self._rate * (now - self._last))
            # A clock that was set back must not stop the flow until it has caught up.
            self._last = now

    def _ready(self, now: float) -> bool:
        if self._rate is None:
            return True
        self._refill(now)
        return self._tokens >= min(self.demand, self._slice)

    def _delay(self, now: float) -> float:
        own = 0.0
        if self._rate is not None and not self._ready(now):
            own = (min(self.demand, self._slice) - self._tokens) / self._rate + _ROUNDING_S
        if not self._waiting:
            return own
        soonest = math.inf
        for child in self._waiting:
            soonest = min(soonest, child._delay(now))
            if soonest <= own:
                return own
        return soonest

    def _serve(self, budget: int, turn: int, now: float, grants: dict[Bucket, int]) -> int:
        """Hand out up to ``budget`` bytes below this node, which is ready, and return how many it were.

        ``turn`` is the smallest turn on the way down: a child that wants more is not given less.
        """
        room = budget if self._rate is None else min(budget, int(self._tokens))
        turn = min(turn, self._slice)
        if self._waiting:
            total = self._serve_children(room, turn, now, grants)
        else:
            total = min(self.demand, room)
            grants[self] = grants.get(self, 0) + total
            self.meter.count(total, now)
        self.demand -= total
        if self._rate is not None:
            self._tokens -= total
        if not self._children and not self.demand:
            self._waited += max(0.0, now - self._since)
        return total

    def _serve_children(self, room: int, turn: int, now: float, grants: dict[Bucket, int]) -> int:
        # Whoever has received least goes first; who was away starts level with the one whose turn it is.
        queue = [
            (max(child._finish, self._virtual), child._order, child) for child in self._waiting if child._ready(now)
        ]
        if not queue:
            return 0
        heapq.heapify(queue)
        share = max(room // len(queue), turn)
        total = 0
        while queue:
            tag, order, child = queue[0]
            if room < min(turn, child.demand):
                break
            given = child._serve(min(share, room), turn, now, grants)
            if not given:
                heapq.heappop(queue)
                continue
            room -= given
            total += given
            self._virtual = tag
            child._finish = tag + given
            if not child.demand:
                del self._waiting[child]
            if child.demand and child._ready(now):
                heapq.heapreplace(queue, (child._finish, order, child))
            else:
                heapq.heappop(queue)
        return total

    # What happened

    def current_rate(self, now: float) -> float:
        """Bytes per second that this node and those below it sent during the last second."""
        return self.meter.rate(now) + sum(child.current_rate(now) for child in self._children)

    def sent(self) -> int:
        """Bytes that were ever sent by this node, those below it, and those that have left it."""
        return self.meter.total + sum(child.sent() for child in self._children)

    def waited(self, now: float) -> float:
        """Seconds during which leaves had bytes waiting, summed over this node, those below it and those that left."""
        own = self._waited
        if self.demand and not self._children:
            own += max(0.0, now - self._since)
        return own + sum(child.waited(now) for child in self._children)
