"""The daemon's metrics of its state, read at the time of a scrape, so that they cost nothing otherwise.

``docs/metrics.md`` lists them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from attrs import frozen
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from realize.concurrency.memory import Memory
from realize.concurrency.thread_pool import ThreadPools
from realize.daemon.expiry import Housekeeping
from realize.daemon.metrics.counters import UNKNOWN_PEER
from realize.daemon.metrics.space import DiskSpaces
from realize.daemon.throttling import Throttling
from realize.throttle.tree import Scope
from realize.units import Reserve
from realize.wire.commands import Direction
from realize.wire.server import PeerServerFactory
from realize.wire.traffic import Traffic

Family = CounterMetricFamily | GaugeMetricFamily

# Family, name without _total, help, labels.
_FAMILIES: Final[tuple[tuple[type[Family], str, str, tuple[str, ...]], ...]] = (
    (GaugeMetricFamily, "realize_restart_needed", "1 if the last reload found changes that need a restart.", ()),
    (GaugeMetricFamily, "realize_connections", "Open connections.", ("peer",)),
    (
        CounterMetricFamily,
        "realize_transferred_bytes",
        "Bytes sent and received, inside TLS.",
        ("peer", "direction", "kind"),
    ),
    (
        CounterMetricFamily,
        "realize_compression_saved_bytes",
        "Bytes of content that compression saved.",
        ("peer", "direction"),
    ),
    (
        GaugeMetricFamily,
        "realize_throttle_limit_bytes_per_second",
        "Rate limits in force; +Inf is unlimited.",
        ("scope", "peer", "direction"),
    ),
    (
        CounterMetricFamily,
        "realize_throttle_wait_seconds",
        "Time that connections waited for a rate limit, summed over connections.",
        ("scope", "peer"),
    ),
    (CounterMetricFamily, "realize_log_records", "Log records.", ("level",)),
    (GaugeMetricFamily, "realize_disk_threads", "Threads for disk work.", ()),
    (GaugeMetricFamily, "realize_disk_threads_busy", "Threads that are doing disk work now.", ()),
    (GaugeMetricFamily, "realize_disk_queue_length", "Disk jobs that wait for a turn or a thread.", ()),
    (GaugeMetricFamily, "realize_memory_held_bytes", "Memory that is reserved for what peers send and ask for.", ()),
    (GaugeMetricFamily, "realize_memory_limit_bytes", "Memory that all peers together may take.", ()),
    (GaugeMetricFamily, "realize_memory_waiting", "Commands and streams that wait for memory.", ()),
    (GaugeMetricFamily, "realize_partials", "Partials at the last count.", ("dir",)),
    (GaugeMetricFamily, "realize_partials_bytes", "Bytes of the partials at the last count.", ("dir",)),
    (
        GaugeMetricFamily,
        "realize_partials_counted_timestamp_seconds",
        "When the last count of partials ended.",
        ("dir",),
    ),
    (CounterMetricFamily, "realize_partials_expired", "Partials that were removed because of their age.", ("dir",)),
    (
        CounterMetricFamily,
        "realize_partials_expired_bytes",
        "Bytes of partials that were removed because of their age.",
        ("dir",),
    ),
    (GaugeMetricFamily, "realize_directory_available", "1 if the directory is there and served, else 0.", ("dir",)),
    (GaugeMetricFamily, "realize_directory_size_bytes", "Size of the file system of the directory.", ("dir",)),
    (GaugeMetricFamily, "realize_directory_reserve_bytes", "Bytes that peers must leave free.", ("dir",)),
    (GaugeMetricFamily, "realize_directory_free_bytes", "Free bytes for users other than root.", ("dir",)),
    (GaugeMetricFamily, "realize_directory_inodes", "Inodes of the file system.", ("dir",)),
    (GaugeMetricFamily, "realize_directory_free_inodes", "Free inodes of the file system.", ("dir",)),
    (
        GaugeMetricFamily,
        "realize_directory_checked_timestamp_seconds",
        "When the file system last answered.",
        ("dir",),
    ),
)


@frozen(eq=False, repr=False)
class Gauges(Collector):
    """Reads the state of one daemon.

    ``paths`` returns the paths of the directories that are served now, by name; ``peers`` the names of all peers.
    """

    factory: PeerServerFactory
    throttling: Throttling
    housekeeping: Housekeeping
    pool: ThreadPools
    memory: Memory
    queued: Callable[[], int]
    """How many disk jobs wait for their peer's turn, before they are queued for a thread."""
    spaces: DiskSpaces
    records: Mapping[str, int]
    """Log records so far by level; a live view."""
    paths: Callable[[], Mapping[str, str]]
    reserves: Callable[[], Mapping[str, Reserve]]
    """The space to keep free in each of these directories."""
    available: Callable[[], Mapping[str, bool]]
    """Whether each directory of the configuration is there."""
    peers: Callable[[], list[str]]
    restart_keys: Callable[[], Collection[str]]
    """The keys of the configuration whose values in the file need a restart."""

    def prepare(self) -> None:
        """Start measuring the disks, so that the first scrape has results."""
        self.spaces.known(self.paths())

    def describe(self) -> Iterator[Family]:
        """The metric families without values."""
        for family, name, meaning, labels in _FAMILIES:
            yield family(name, meaning, labels=labels)

    def collect(self) -> Iterator[Family]:
        """The metric families with their values now."""
        families = {family.name: family for family in self.describe()}

        def add(name: str, value: float, *labels: str) -> None:
            families[name].add_metric(labels, value)

        add("realize_restart_needed", int(bool(self.restart_keys())))
        self._network(add)
        self._throttle(add)
        add("realize_disk_threads", self.pool.size)
        add("realize_disk_threads_busy", self.pool.busy)
        add("realize_disk_queue_length", self.pool.waiting + self.queued())
        add("realize_memory_held_bytes", self.memory.held)
        add("realize_memory_limit_bytes", self.memory.most)
        add("realize_memory_waiting", self.memory.waiting)
        for level, count in self.records.items():
            add("realize_log_records", count, level)
        self._disks(add)
        yield from families.values()

    def _network(self, add: Callable[..., None]) -> None:
        configured = self.peers()
        traffic = self.factory.traffic()
        add("realize_connections", self.factory.unauthenticated, UNKNOWN_PEER)
        for peer in configured:
            add("realize_connections", len(self.factory.connections.get(peer, ())), peer)
        for name in dict.fromkeys(["", *configured, *traffic]):
            carried = traffic.get(name) or Traffic()
            peer = name or UNKNOWN_PEER
            for direction, total, content, saved in (
                ("send", carried.sent, carried.content_sent, carried.saved_sent),
                ("receive", carried.received, carried.content_received, carried.saved_received),
            ):
                add("realize_transferred_bytes", content, peer, direction, "content")
                add("realize_transferred_bytes", total - content, peer, direction, "other")
                add("realize_compression_saved_bytes", saved, peer, direction)

    def _throttle(self, add: Callable[..., None]) -> None:
        rows: list[dict[str, Any]] = self.throttling.report("", is_admin=True, with_connections=False)
        receiving = {row["peer"]: row["limit"] for row in rows if _is(row, Scope.PEER, Direction.RECEIVE)}
        for row in rows:
            for scope in (Scope.SERVICE, Scope.PEER):
                if _is(row, scope, Direction.SEND):
                    where = (scope.value, row["peer"])
                    add("realize_throttle_limit_bytes_per_second", _limit(row["limit"]), *where, "send")
                    add("realize_throttle_wait_seconds", row["waited"], *where)
            if _is(row, Scope.PEER, Direction.SEND):
                limit = _limit(receiving.get(row["peer"]))
                add("realize_throttle_limit_bytes_per_second", limit, "peer", row["peer"], "receive")

    def _disks(self, add: Callable[..., None]) -> None:
        paths, reserves, available = self.paths(), self.reserves(), self.available()
        for name, is_there in available.items():
            add("realize_directory_available", int(is_there), name)
        for name in paths:
            partials = self.housekeeping.partials.get(name)
            add("realize_partials_expired", partials.expired if partials else 0, name)
            add("realize_partials_expired_bytes", partials.expired_size if partials else 0, name)
            if partials is not None and partials.counted_at is not None:
                add("realize_partials", partials.files, name)
                add("realize_partials_bytes", partials.size, name)
                add("realize_partials_counted_timestamp_seconds", partials.counted_at, name)
        there = {name: path for name, path in paths.items() if available.get(name, False)}
        for name, space in self.spaces.known(there).items():
            add("realize_directory_size_bytes", space.size, name)
            add("realize_directory_reserve_bytes", reserves[name].of(space.size), name)
            add("realize_directory_free_bytes", space.free, name)
            if space.files:
                add("realize_directory_inodes", space.files, name)
                add("realize_directory_free_inodes", space.free_files, name)
            add("realize_directory_checked_timestamp_seconds", space.seen_at, name)


def _is(row: Mapping[str, Any], scope: Scope, direction: Direction) -> bool:
    return (row["scope"], row["direction"]) == (scope.value, direction.value)


def _limit(rate: float | None) -> float:
    return math.inf if rate is None else rate
