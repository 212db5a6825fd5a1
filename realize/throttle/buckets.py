"""A tree of token buckets: how many bytes may leave now, from which leaf, and otherwise how long to wait.

Pure: no I/O, no Twisted, no clock; ``now`` is a float in seconds.
It should never go backwards; if it does (Twisted's reactor tells wall-clock time), that step adds no tokens.
A byte that a leaf sends takes a token from the leaf and from every node above it.
A node without a rate never runs out of tokens.

Invariants, each of which has a property test:

* in any interval of t seconds a node passes at most ``rate * t + burst`` bytes;
* an idle node saves up ``burst`` bytes and no more;
* when `Bucket.serve` returns, no leaf that still waits could have been given anything (work is conserved), and
  `Bucket.delay` says when one can;
* leaves below one node that always have bytes waiting receive the same number of bytes, to within one allowance
  (start-time fair queueing, Goyal, Vin and Cheng, SIGCOMM 1996).

`Bucket._serve` defines the words of the algorithm.

Tokens are counted in bytes instead of being kept as the time at which the bucket is free: at 10 TiB/s a byte takes
10**-13 s, which vanishes when added to the uptime of a machine, so that small writes would cost nothing.
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
from realize.throttle.rates import burst_of, check_burst, check_rate, slice_of

FAIR_QUANTUM_BYTES: Final = 4096
"""The largest quantum of a visit, in bytes; see `Bucket._serve`."""

UNLIMITED_BYTES: Final = 1 << 62
"""More bytes than anybody asks for: the slice of a node without a rate, and the budget of the root."""

_ROUNDING_S: Final = 1e-6
"""Seconds added to every delay, so that rounding never ends it just too early."""


class Bucket:
    """A node of the tree; only leaves wait for bytes.

    ``rate`` is in bytes per second, None for no limit; ``burst`` is in bytes, None for `burst_of` the rate.
    A new bucket is full.
    Raises `UsageError` if there is no such limit, or the burst is too small for the rate.
    """

    __slots__ = (
        "_burst",
        "_children",
        "_finish_tag",
        "_last",
        "_numbers",
        "_order",
        "_rate",
        "_since",
        "_slice",
        "_tokens",
        "_virtual_time",
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
        """Bytes that this leaf has sent; in an inner node, those of leaves that have left it."""
        self._children: dict[Bucket, None] = {}
        self._waiting: dict[Bucket, None] = {}
        self._numbers = itertools.count()
        self._order = 0
        self._virtual_time = 0
        self._finish_tag = 0
        self._since = 0.0
        self._waited = 0.0
        self._last = -math.inf
        self._tokens = math.inf
        self._rate: float | None = None
        self._burst = math.inf
        self._slice = UNLIMITED_BYTES
        check_rate(rate)
        check_burst(burst, rate)
        self._limit(rate, burst)
        if parent is not None:
            self._order = next(parent._numbers)
            parent._children[self] = None

    # Limits

    @property
    def rate(self) -> float | None:
        """The limit of this node alone in bytes per second, or None."""
        return self._rate

    @property
    def burst(self) -> float:
        """Bytes that this node passes at once after a pause; infinite without a limit."""
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
        """The nodes directly below this one."""
        return tuple(self._children)

    def leaves(self) -> Iterator[Bucket]:
        """All leaves below this node, or the node itself if it is one."""
        if not self._children:
            yield self
        for child in tuple(self._children):
            yield from child.leaves()

    def share(self) -> float | None:
        """The rate in bytes per second that this leaf can expect while the same others wait; None without a limit."""
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
        """Pass ``rate`` bytes per second from ``now`` on; tokens beyond the new burst are lost.

        Raises `UsageError`, and changes nothing, if there is no such limit, or the burst is too small for the rate.
        """
        check_rate(rate)
        check_burst(burst, rate)
        self._refill(now)
        if self._rate is None:
            self._tokens, self._last = 0.0, now
        self._limit(rate, burst)

    def _limit(self, rate: float | None, burst: float | None) -> None:
        if rate is None:
            self._rate, self._burst, self._slice, self._tokens = None, math.inf, UNLIMITED_BYTES, math.inf
            return
        self._rate = float(rate)
        self._burst = burst_of(self._rate) if burst is None else float(burst)
        self._slice = slice_of(self._rate)
        self._tokens = min(self._tokens, self._burst)

    # Waiting and serving

    def wait_for(self, amount: int, now: float) -> None:
        """Let this leaf wait for ``amount`` bytes in total, in place of its demand so far; 0 stops waiting."""
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
        """Hand out the bytes that may leave at ``now``; return how many for each leaf. Call it on the root."""
        grants: dict[Bucket, int] = {}
        if self.demand and self._ready(now):
            self._serve(UNLIMITED_BYTES, FAIR_QUANTUM_BYTES, now, grants)
        return grants

    def delay(self, now: float) -> float | None:
        """Seconds until `serve` has something to hand out, or None if no leaf waits; call it on the root."""
        return self._delay(now) if self.demand else None

    def leave(self, now: float) -> None:
        """Remove this leaf from the tree; its parent takes over its counters."""
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
            # Also when the clock was set back: otherwise no tokens would come until it has caught up.
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

    def _serve(self, budget: int, quantum: int, now: float, grants: dict[Bucket, int]) -> int:
        """Hand out bytes to the leaves below this node, which is ready; return how many, and add each to ``grants``.

        This is start-time fair queueing, with a quantum as in deficit round robin: the node visits its ready children,
        always the one with the smallest tag, until it can give no more. All amounts are in bytes:

        * the *demand* of a node is what waits in it and below it;
        * the *budget* is what the parent lets this node hand out in this visit;
        * *available* is the budget, or the node's own tokens if they are fewer, less what was handed out since;
        * the *quantum* is the least that a visit to a child is worth: the smallest slice on the way down to this node,
          and at most `FAIR_QUANTUM_BYTES`;
        * the *allowance* is the most that a visit hands out: an equal part, for each ready child, of what was available
          at the start, or the quantum if that is more. It is the child's budget, unless less is available.

        Invariants:

        * a node hands out no more than its budget and its tokens;
        * a visit to a leaf hands out at least the smallest of its demand, its slice and the quantum;
        * between two children that are ready all the time, the bytes received differ by one allowance at most, because
          a visit raises the tag of a child by what it got;
        * on return, nothing can be given to any waiting child, or to the next one only less than both its demand and
          the quantum.
        """
        available = budget if self._rate is None else min(budget, int(self._tokens))
        quantum = min(quantum, self._slice)
        if self._waiting:
            total = self._serve_children(available, quantum, now, grants)
        else:
            total = min(self.demand, available)
            grants[self] = grants.get(self, 0) + total
            self.meter.count(total, now)
        self.demand -= total
        if self._rate is not None:
            self._tokens -= total
        if not self._children and not self.demand:
            self._waited += max(0.0, now - self._since)
        return total

    def _serve_children(self, available: int, quantum: int, now: float, grants: dict[Bucket, int]) -> int:
        # Tags count received bytes. A child that was away starts at the node's virtual time, level with the child that
        # was served last: it is not repaid for what it did not want.
        queue = [
            (max(child._finish_tag, self._virtual_time), child._order, child)
            for child in self._waiting
            if child._ready(now)
        ]
        if not queue:
            return 0
        heapq.heapify(queue)
        allowance = max(available // len(queue), quantum)
        total = 0
        while queue:
            start_tag, order, child = queue[0]
            if available < min(quantum, child.demand):
                break
            given = child._serve(min(allowance, available), quantum, now, grants)
            if not given:
                heapq.heappop(queue)
                continue
            available -= given
            total += given
            self._virtual_time = start_tag
            child._finish_tag = start_tag + given
            if not child.demand:
                del self._waiting[child]
            if child.demand and child._ready(now):
                heapq.heapreplace(queue, (child._finish_tag, order, child))
            else:
                heapq.heappop(queue)
        return total

    # Counters

    def current_rate(self, now: float) -> float:
        """Bytes per second that left through this node, over the last second."""
        return self.meter.rate(now) + sum(child.current_rate(now) for child in self._children)

    def sent(self) -> int:
        """All bytes that ever left through this node, those of removed leaves included."""
        return self.meter.total + sum(child.sent() for child in self._children)

    def waited(self, now: float) -> float:
        """Seconds that leaves at or below this node had bytes waiting, summed over leaves, removed ones included."""
        own = self._waited
        if self.demand and not self._children:
            own += max(0.0, now - self._since)
        return own + sum(child.waited(now) for child in self._children)
