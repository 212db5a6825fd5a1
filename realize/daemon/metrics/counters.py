"""The daemon's metrics of events, counted as they happen, in a registry of its own.

The packages below report events through `realize.wire.responding.Watch` and `realize.store.hooks`.
Values that can be read at the time of a scrape are in `realize.daemon.metrics.gauges` instead.
``docs/metrics.md`` lists all metrics.

Invariants: every label has few values, known from the configuration and the code; what a peer sends is never one.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Final

import twisted
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.process_collector import ProcessCollector

from realize import __version__
from realize.daemon.metrics.null_hooks import EventHooks
from realize.errors import (
    AccessDenied,
    BadName,
    Busy,
    Conflict,
    ConnectionFailed,
    InternalError,
    NoSpace,
    NotFound,
    NotRegular,
    ProtocolError,
    RealizeError,
    SourceChanged,
    StorageError,
    VerifyFailed,
    VersionMismatch,
    WrongSize,
)
from realize.store.hooks import CommitHooks, Saved, Sync
from realize.telemetry.metrics.exposition import new_registry
from realize.values import Committed, HardLinked, Linked
from realize.wire.commands import Data, Hello, every_command
from realize.wire.responding import OK
from realize.wire.server import Refusal

UNKNOWN_PEER: Final = "unknown"
"""The label of a connection that has not said Hello, and of a command that does not exist."""

REFUSALS: Final = ("handshake", "pin_unknown", "timeout", "limit", "version", "denied")
"""Why a connection or a command was refused."""

FAILURES: Final = (
    BadName,
    Busy,
    Conflict,
    ConnectionFailed,
    InternalError,
    NoSpace,
    NotFound,
    NotRegular,
    ProtocolError,
    SourceChanged,
    StorageError,
    VerifyFailed,
    WrongSize,
)
"""The usual errors of files: exposed with 0 from the start, so that already the first one is an increase."""

_HOW: Final = {Committed.CREATED: "created", Committed.REPLACED: "replaced", Committed.RENAMED: "renamed"}
_HOW_LINKS: Final = {Linked.CREATED: "created", Linked.REPLACED: "replaced", Linked.ALREADY_THERE: "already_there"}
_HOW_HARD_LINKS: Final = {HardLinked.CREATED: "created", HardLinked.ALREADY_THERE: "already_there"}
_COMMAND_SECONDS: Final = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0)
_GROUP_FILES: Final = (1, 4, 16, 64, 256, 1024)
_SYNC_SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_LAG_SECONDS: Final = (0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0)


class Metrics(EventHooks):
    """Counts what happens in one daemon."""

    def __init__(self, *, of_process: bool = True) -> None:
        """With ``of_process``, there are also the metrics of the process, which only one registry of it should have."""
        self.registry = new_registry()
        gauge = partial(Gauge, registry=self.registry)
        count = partial(Counter, registry=self.registry)
        observe = partial(Histogram, registry=self.registry)
        build = gauge(
            "realize_build_info", "Always 1; the labels are the versions that run.", ["version", "python", "twisted"]
        )
        build.labels(__version__, platform.python_version(), twisted.__version__).set(1)
        self._start_time = gauge("realize_start_time_seconds", "When the service started.")
        self._refusals = count("realize_refusals", "Connections and commands that were refused, by reason.", ["reason"])
        self._commands = count(
            "realize_commands", "Commands of peers that were answered, by outcome.", ["command", "outcome"]
        )
        self._command_seconds = observe(
            "realize_command_duration_seconds",
            "Time from the arrival of a command to its answer.",
            ["command"],
            buckets=_COMMAND_SECONDS,
        )
        self._accepted = count("realize_connections_accepted", "Connections that were let in.", ["peer"])
        self._former_keys = count(
            "realize_former_key_connections",
            "Connections that used a former key, of the peer or of the daemon.",
            ["peer", "of"],
        )
        self._committed = count(
            "realize_files_committed", "Files that arrived and are on stable storage.", ["dir", "how"]
        )
        self._linked = count(
            "realize_links_committed", "Symlinks that arrived and are on stable storage.", ["dir", "how"]
        )
        self._hard_linked = count(
            "realize_hard_links_committed",
            "Hard links that arrived and are on stable storage.",
            ["dir", "how"],
        )
        self._removed = count(
            "realize_files_removed", "Files and symlinks that were removed because they were moved away.", ["dir"]
        )
        self._failed = count(
            "realize_file_failures",
            "Requests about one file that failed, also those that a retry fixes.",
            ["dir", "reason"],
        )
        self._saved = count("realize_saved_bytes", "Bytes of content that did not have to be sent.", ["how"])
        self._groups = observe(
            "realize_commit_group_files", "Files that were made durable together.", ["dir"], buckets=_GROUP_FILES
        )
        self._syncs = observe(
            "realize_sync_duration_seconds", "Time that fsync or syncfs took.", ["dir", "what"], buckets=_SYNC_SECONDS
        )
        self._lag = observe(
            "realize_reactor_lag_seconds", "How late a timer of the network thread was.", buckets=_LAG_SECONDS
        )
        if of_process:
            ProcessCollector(registry=self.registry)
        # Data is left out: it is not dispatched as a command, and there are too many boxes of it to count each.
        names = sorted(command.commandName.decode() for command in every_command() if command is not Data)
        for reason in REFUSALS:
            self._refusals.labels(reason)
        self._of_directories: dict[MetricWrapperBase, Sequence[str]] = {
            self._committed: ("dir", "how"),
            self._linked: ("dir", "how"),
            self._hard_linked: ("dir", "how"),
            self._removed: ("dir",),
            self._failed: ("dir", "reason"),
            self._groups: ("dir",),
            self._syncs: ("dir", "what"),
        }
        self._of_peers: dict[MetricWrapperBase, Sequence[str]] = {
            self._accepted: ("peer",),
            self._former_keys: ("peer", "of"),
        }
        self._directories: set[str] = set()
        self._peers: set[str] = set()
        # Frequent labels are looked up once, here.
        self._answered = {name: self._commands.labels(name, OK) for name in names}
        self._seconds: dict[str, Histogram] = {}
        self._arrived: dict[tuple[str, Committed], Counter] = {}
        for how in Saved:
            self._saved.labels(how.value)

    def started(self, at: float) -> None:
        """Set the start time."""
        self._start_time.set(at)

    def expect(self, directories: Iterable[str], peers: Iterable[str]) -> None:
        """Expose the metrics of these with 0 before anything has happened, and no longer those of any others."""
        directories, peers = set(directories), set(peers)
        gone, self._directories = self._directories - directories, directories
        if gone:
            self._arrived = {key: counter for key, counter in self._arrived.items() if key[0] not in gone}
            for metric, labels in self._of_directories.items():
                _forget(metric, labels, gone)
        gone, self._peers = self._peers - peers, peers
        if gone:
            for metric, labels in self._of_peers.items():
                _forget(metric, labels, gone)
        for directory in directories:
            for outcome, how in _HOW.items():
                self._arrived[directory, outcome] = self._committed.labels(directory, how)
            for how in _HOW_LINKS.values():
                self._linked.labels(directory, how)
            for how in _HOW_HARD_LINKS.values():
                self._hard_linked.labels(directory, how)
            self._removed.labels(directory)
            for error in FAILURES:
                self._failed.labels(directory, error.wire_code.decode())
            self._groups.labels(directory)
            for what in Sync:
                self._syncs.labels(directory, what.value)
        for peer in peers:
            self._accepted.labels(peer)
            for of in ("peer", "daemon"):
                self._former_keys.labels(peer, of)

    # Connections and commands.

    def former_key(self, peer: str, of: str) -> None:
        """Count a connection for which a former key was used."""
        self._former_keys.labels(peer, of).inc()

    def accepted(self, peer: str) -> None:
        """Count an accepted connection."""
        self._accepted.labels(peer).inc()

    def refused(self, refusal: Refusal) -> None:
        """Count a refused connection."""
        self._refusals.labels(refusal.reason).inc()

    def command(self, name: str) -> Callable[[str], None]:
        """Time a command; see `realize.wire.responding.Watch`."""
        started = time.perf_counter()
        name = name if name in self._answered else UNKNOWN_PEER

        def ended(outcome: str) -> None:
            took = time.perf_counter() - started
            if outcome == OK and name in self._answered:
                self._answered[name].inc()
            else:
                self._commands.labels(name, outcome).inc()
            seconds = self._seconds.get(name)
            if seconds is None:
                seconds = self._seconds[name] = self._command_seconds.labels(name)
            seconds.observe(took)
            if outcome == AccessDenied.wire_code.decode():
                self._refusals.labels("denied").inc()
            elif outcome == VersionMismatch.wire_code.decode() and name == Hello.commandName.decode():
                self._refusals.labels("version").inc()

        return ended

    def lagged(self, seconds: float) -> None:
        """Record that a timer was ``seconds`` late."""
        self._lag.observe(seconds)

    # Files: see `realize.store.hooks.FileHooks`.

    def committed(self, directory: str, outcome: Committed, files: int = 1) -> None:
        """Count files that arrived; skipped ones did not."""
        arrived = self._arrived.get((directory, outcome))
        if arrived is not None:
            arrived.inc(files)

    def linked(self, directory: str, outcome: Linked, links: int = 1) -> None:
        """Count symlinks that arrived; skipped ones did not."""
        if (how := _HOW_LINKS.get(outcome)) is not None:
            self._linked.labels(directory, how).inc(links)

    def hard_linked(self, directory: str, outcome: HardLinked, names: int = 1) -> None:
        """Count names that files got; the content of one that did not is counted when it arrives."""
        if (how := _HOW_HARD_LINKS.get(outcome)) is not None:
            self._hard_linked.labels(directory, how).inc(names)

    def removed(self, directory: str, files: int = 1) -> None:
        """Count files that were removed because they were moved away."""
        self._removed.labels(directory).inc(files)

    def failed(self, directory: str, error: RealizeError) -> None:
        """Count a request about one file that failed."""
        self._failed.labels(directory, error.wire_code.decode()).inc()

    def saved(self, how: Saved, size: int) -> None:
        """Count bytes of content that did not have to be sent."""
        self._saved.labels(how.value).inc(size)

    def commits(self, directory: str) -> CommitHooks:
        """The hooks that count for one directory; they are called from threads."""
        return _Commits(
            self._groups.labels(directory), {what: self._syncs.labels(directory, what.value) for what in Sync}
        )


def _forget(metric: MetricWrapperBase, labels: Sequence[str], gone: Collection[str]) -> None:
    """Let a metric with these labels have no values whose first label is one of those ``gone``."""
    samples = (sample for family in metric.collect() for sample in family.samples)
    for values in {tuple(sample.labels[each] for each in labels) for sample in samples}:
        if values[0] in gone:
            metric.remove(*values)


class _Commits(CommitHooks):
    def __init__(self, groups: Histogram, syncs: dict[Sync, Histogram]) -> None:
        self._groups = groups
        self._syncs = syncs

    def group(self, files: int) -> None:
        self._groups.observe(files)

    def synced(self, what: Sync, seconds: Sequence[float]) -> None:
        observe = self._syncs[what].observe
        for each in seconds:
            observe(each)
