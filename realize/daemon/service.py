"""The daemon as a Twisted service: listen, serve, reload, and stop in order.

SIGTERM and SIGINT are handled by the reactor, which stops this service; `Realized.startService` adds SIGQUIT, which
does the same, and SIGHUP, which reloads the configuration.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import twisted
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.python.failure import Failure

from realize import __version__
from realize.concurrency.memory import Memory
from realize.concurrency.reactor import IReactor
from realize.concurrency.thread_pool import ThreadPool, ThreadPools
from realize.config import Config, DirectoryConfig, PeerConfig, Right, read_config, with_backlog
from realize.daemon.heap import Heap, bound_heaps
from realize.daemon.housekeeping import Housekeeping
from realize.daemon.logs import DaemonLogs, complain
from realize.daemon.metrics.counters import Metrics
from realize.daemon.metrics.endpoint import MetricsEndpoint
from realize.daemon.metrics.event_hooks import EventHooks
from realize.daemon.metrics.gauges import Gauges
from realize.daemon.metrics.space import DiskSpaces
from realize.daemon.peer_changes import by_key, withdrawn
from realize.daemon.rates import RateSampler
from realize.daemon.responders import DaemonResponders
from realize.daemon.served import THREADS, ServedDirectory, look_at, serve_directories
from realize.daemon.signal_handlers import STOPPING, SignalHandlers
from realize.daemon.status import report, totals
from realize.daemon.throttling import Throttling
from realize.errors import ConfigError, ConnectionFailed, RealizeError, StorageError, WrongPeer
from realize.fs.tree import Inode
from realize.keys import Identity, PublicKey
from realize.logger import Logger
from realize.process import allow_many_files
from realize.store.local.ledger import Ledger
from realize.store.local.permissions import lacking_of
from realize.telemetry import structlog
from realize.tracing import run_of
from realize.units import display_name, display_text
from realize.wire.commands import Reason
from realize.wire.connection import Greeting
from realize.wire.server import AcceptedProtocol, PeerServerFactory
from realize.wire.throttling import pacing

DRAIN_KILL_AFTER_S: Final = 15.0
"""A stopping daemon is killed this long after its drain time."""

_NEEDS: Final = {right: {os.R_OK} if right is Right.READ else {os.W_OK} for right in Right}
"""The permissions of the daemon on a directory without which each right is useless."""

DIRECTORY_RETRY_S: Final = 60.0
"""Delay before another look at a directory that did not answer."""


class Realized(Service):
    """Serves the directories of a configuration to its peers."""

    name = "realized"

    def __init__(
        self,
        path: str,
        config: Config,
        identity: Identity,
        reactor: IReactor,
        *,
        logs: DaemonLogs,
        drain: float | None = None,
        metrics: str | None = None,
    ) -> None:
        """``drain`` (seconds) and ``metrics`` (an endpoint string), if given, override the configuration."""
        self._began = 0.0
        self._drain = drain
        self._path = path
        self._config = config
        self._identity = identity
        self._reactor = reactor
        self._logs = logs
        self._log: Logger = structlog.get_logger(component="daemon").bind()
        self._pools = ThreadPools(reactor, THREADS, "disk")
        """By directory path."""
        self._reader = ThreadPool(reactor, 1, "configuration")
        self._reloading = DeferredLock()
        self._looking_again: IDelayedCall | None = None
        self._hanging: list[str] = []
        """Names of the directories that did not answer at the last look."""
        self._ledger = Ledger(reactor)
        self._memory = Memory(config.limits.memory_bytes, config.limits.peer_memory_bytes)
        self._keys: dict[PublicKey, str] = by_key(config.peers)
        self._directories: dict[str, ServedDirectory] = {}
        self._ports: list[IListeningPort] = []
        self._closing: set[Deferred[None]] = set()
        """Each fires when everything that a connection had open is closed, which needs threads."""
        self._signals = SignalHandlers()
        metrics_at = config.metrics if metrics is None else metrics
        self._fixed = ("key", "listen", "limits", *(() if metrics is not None else ("metrics",)))
        """The configuration keys that a reload cannot change."""
        counted = None if metrics_at is None else Metrics()
        self._events = EventHooks() if counted is None else counted
        self._factory = PeerServerFactory(
            clock=reactor,
            log=structlog.get_logger(component="wire").bind(),
            identity=identity,
            greeting=Greeting(f"realized {__version__}"),
            is_known=lambda key: key in self._keys,
            welcome=self._welcome,
            on_refusal=self._events.refused,
            watch=None if counted is None else counted.command,
        )
        self._throttling = Throttling(
            reactor, structlog.get_logger(component="throttle").bind(), lambda: self._rates.look(totals(self._factory))
        )
        self._rates = RateSampler(reactor)
        self._heap = Heap(reactor, lambda: self._memory.held, bound_heaps())
        self._housekeeping = Housekeeping(reactor, self._log)
        self._metrics_endpoint: MetricsEndpoint | None = None
        if metrics_at is not None and counted is not None:
            setting = f"{path}: metrics" if metrics is None else "--metrics-addr"
            self._metrics_endpoint = MetricsEndpoint(
                metrics_at,
                setting,
                reactor=reactor,
                log=self._log,
                metrics=counted,
                gauges=self._gauges(),
                health=self._health,
            )

    def setServiceParent(self, parent: Any) -> None:
        """Join an application, and take over its log unless that was set otherwise."""
        self._logs.attach(parent)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start to serve; raises SystemExit if the log cannot be opened or a port cannot be listened on."""
        super().startService()
        self._start_log()
        self._began = self._reactor.seconds()
        allow_many_files()
        self._events.started(time.time())
        found = look_at(self._config.directories)
        self._directories = self._serve(self._config, found)
        self._say_who_hangs(found)
        self._take_over(self._config)
        self._signals.on(signal.SIGHUP, lambda: self._reactor.callFromThread(self.reload))
        self._signals.on(signal.SIGQUIT, lambda: self._reactor.callFromThread(self._reactor.stop))
        self._log.info(
            "started",
            version=__version__,
            python=platform.python_version(),
            twisted=twisted.__version__,
            config=self._path,
            fingerprint=self._identity.public_key.fingerprint,
            dirs=sorted(self._directories),
            peers=sorted(self._config.peers),
        )
        throttle = self._config.throttle
        self._log.info(
            "limits_in_force",
            service=throttle.service_bps,
            peers={name: rate for name, rate in throttle.peers_bps.items() if rate is not None},
            connection=throttle.connection_bps,
        )
        try:
            if self._metrics_endpoint is not None:
                self._metrics_endpoint.start()
            for description in self._config.listen:
                self._listen(description)
        except ConfigError as error:
            # Any other exception would be shown with a traceback, which tells an operator nothing.
            self._log.error("cannot_listen", error=str(error))
            raise SystemExit(1) from error
        self._housekeeping.start(self._directories, self._config.partial_max_age_s)
        self._heap.start()
        self._look_what_is_forbidden()

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let running commands finish within the drain time, then close everything."""
        return Deferred.fromCoroutine(self._stop())

    @property
    def uptime(self) -> float:
        """Seconds since the service was started."""
        since: float = self._reactor.seconds() - self._began
        return since

    def reload(self) -> Deferred[None]:
        """Read the configuration again and apply it; an invalid one is logged and changes nothing.

        Fires when done; file access that may hang is done in another thread.
        """
        return self._reloading.run(lambda: Deferred.fromCoroutine(self._reload()))

    async def _reload(self) -> None:
        try:
            config, found = await self._reader.run(self._read)
        except (RealizeError, MemoryError) as error:
            self._log.error("reload_failed", config=self._path, error=str(error) or "not enough memory")
            return
        if not self.running:
            return
        directories = self._serve(config, found)
        for name, identity in found.items():
            before = self._directories.get(name)
            if identity is None and before is not None and before.path == config.directories[name].path:
                before.headroom.reserve = config.directories[name].reserve
                directories[name] = before
        ending = withdrawn(self._config.peers, config.peers) | self._moved(directories)
        for name, now in directories.items():
            before = self._directories.get(name)
            if before is not None and (before.path, before.identity) == (now.path, now.identity):
                before.headroom.reserve = now.headroom.reserve
                directories[name] = before
        kept = [name for name in self._fixed if getattr(config, name) != getattr(self._config, name)]
        if self._logs.reload(config.logs):
            kept.append("logs")
        if kept:
            self._log.warning("restart_needed", config=self._path, keys=kept)
        self._config, self._directories, self._keys = config, directories, by_key(config.peers)
        self._say_who_hangs(found)
        self._pools.keep([directory.path for directory in config.directories.values()])
        try:
            self._take_over(config)
            self._housekeeping.start(directories, config.partial_max_age_s)
            self._look_what_is_forbidden()
            self._log.info("reloaded", config=self._path, dirs=sorted(directories), peers=sorted(config.peers))
        finally:
            # Whatever else fails, no connection may keep a right that its peer has lost.
            for connection in self._factory:
                if connection.name in ending:
                    self._withdraw(connection)

    def _read(self) -> tuple[Config, dict[str, Inode | None]]:
        config = read_config(self._path, for_daemon=True)
        return config, look_at(config.directories)

    def _serve(self, config: Config, found: dict[str, Inode | None]) -> dict[str, ServedDirectory]:
        return serve_directories(
            config.directories,
            found,
            lambda path: self._pools.of(path).run,
            self._reactor,
            self._events.commits,
            self._ledger,
            self._freed,
            self._memory,
        )

    def _say_who_hangs(self, found: dict[str, Inode | None]) -> None:
        """Log which directories do not answer, and look at them again later; the others are served meanwhile."""
        self._look_no_more()
        self._hanging = [name for name, identity in found.items() if identity is None]
        for name in self._hanging:
            self._log.error("directory_hangs", dir=name, served=name in self._directories)
            if self._looking_again is None:
                self._looking_again = self._reactor.callLater(DIRECTORY_RETRY_S, self._look_again)

    def _look_again(self) -> Deferred[None]:
        """Look again at the directories that did not answer; the configuration is not read again for this."""
        return self._reloading.run(lambda: Deferred.fromCoroutine(self._look_at_hanging()))

    async def _look_at_hanging(self) -> None:
        config, hanging = self._config, self._hanging
        try:
            found = await self._reader.run(_look_at_each, {name: config.directories[name] for name in hanging})
        except (RealizeError, MemoryError):
            found = dict.fromkeys(hanging)
        if not self.running:
            return
        for name, directory in self._serve(config, found).items():
            self._log.info("directory_answers", dir=name)
            # Keep one that was served before: its stores themselves refuse if it is another directory by now.
            self._directories.setdefault(name, directory)
        self._housekeeping.start(self._directories, config.partial_max_age_s)
        self._say_who_hangs(found)

    def _look_no_more(self) -> None:
        again, self._looking_again = self._looking_again, None
        if again is not None and again.active():
            again.cancel()

    def _withdraw(self, connection: AcceptedProtocol) -> None:
        """Close a connection whose peer has lost rights; if closing in order fails, abort it."""
        try:
            self._log.warning(
                "rights_withdrawn", peer=connection.name, conn=connection.number, address=connection.address
            )
            connection.close(Reason.REFUSED)
        except Exception:  # noqa: BLE001 -- the other connections have to be closed too
            connection.abort(ConnectionFailed("rights were withdrawn"))

    def _start_log(self) -> None:
        try:
            self._logs.start(self._reactor)
        except ConfigError as error:
            complain(error)
            raise SystemExit(error.exit_code) from error

    def _freed(self, name: str, path: bytes, size: int) -> None:
        self._log.info("partial_freed", dir=name, path=display_name(path), size=size)

    def _take_over(self, config: Config) -> None:
        self._events.expect(config.directories, config.peers)
        throttle = config.throttle
        peers = {name: throttle.peers_bps.get(name) for name in config.peers}
        self._throttling.configure(throttle.service_bps, peers, throttle.connection_bps)

    def _look_what_is_forbidden(self) -> None:
        for name, directory in self._directories.items():
            Deferred.fromCoroutine(self._say_what_is_forbidden(name, directory))

    async def _say_what_is_forbidden(self, name: str, directory: ServedDirectory) -> None:
        """Log the rights of peers in a directory that are useless, because the daemon itself lacks the permission."""
        with contextlib.suppress(RealizeError):
            lacking = await directory.run_in_thread(lacking_of, directory.path)
            given = set().union(*(peer.rights.get(name, frozenset()) for peer in self._config.peers.values()))
            forbidden = sorted(right.value for right in given if _NEEDS[right] & lacking)
            if forbidden:
                self._log.warning("directory_forbidden", dir=name, path=directory.path, rights=forbidden)

    def _moved(self, directories: dict[str, ServedDirectory]) -> set[str]:
        """The names of peers with rights in a directory that is no longer served, or is another one now."""
        changed = {
            name
            for name, before in self._directories.items()
            if name not in directories
            or (before.path, before.identity) != (directories[name].path, directories[name].identity)
        }
        return {name for name, peer in self._config.peers.items() if changed & set(peer.rights)}

    async def _stop(self) -> None:
        await maybeDeferred(super().stopService)
        stopping = time.monotonic()

        def stop_at_once() -> None:
            # In a thread, because the signal may have interrupted code that is using the log.
            threading.Thread(target=lambda: self._force(time.monotonic() - stopping), daemon=True).start()

        self._signals.on(signal.SIGHUP, lambda: None)
        for number in STOPPING:
            self._signals.on(number, stop_at_once)
        self._heap.stop()
        self._housekeeping.stop()
        self._look_no_more()
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        drain = self._config.drain_s if self._drain is None else self._drain
        self._log.info("draining", connections=len(list(self._factory)), seconds=drain)
        # From here on, stopping may have to wait for threads, which cannot be stopped themselves.
        forced = threading.Timer(drain + DRAIN_KILL_AFTER_S, self._force, [drain + DRAIN_KILL_AFTER_S])
        forced.daemon = True
        forced.start()
        try:
            await self._factory.stop(drain)
            await DeferredList(list(self._closing))
            self._throttling.close()
        finally:
            self._pools.stop()
            self._reader.stop()
            forced.cancel()
        if self._metrics_endpoint is not None:
            # Last, so that draining can be observed.
            await self._metrics_endpoint.stop()
        self._log.info("stopped")
        self._logs.stop()
        self._signals.restore()

    def _force(self, seconds: float) -> None:
        """End the process at once, from another thread: after a second signal, or if something hangs, such as a disk.

        ``seconds`` is for how long it has tried to stop in order.
        """
        self._log.error("stop_forced", seconds=round(seconds, 3))
        self._logs.flush(1.0)
        os._exit(1)

    def _listen(self, description: str) -> None:
        try:
            endpoint = serverFromString(self._reactor, with_backlog(description))
        except ValueError as error:
            raise ConfigError(f"{self._path}: listen: {description}: {error}") from error
        failures: list[Failure] = []
        listening = endpoint.listen(self._factory.secured(pacing(self._reactor)))
        listening.addCallbacks(partial(self._listening, description), failures.append)
        if failures:
            raise ConfigError(f"{self._path}: listen: {description}: {failures[0].getErrorMessage()}")

    def _listening(self, description: str, port: IListeningPort) -> None:
        self._ports.append(port)
        address = port.getHost()
        self._log.info(
            "listening",
            endpoint=description,
            address=getattr(address, "host", str(address)),
            port=getattr(address, "port", None),
        )

    def _welcome(self, connection: AcceptedProtocol, key: PublicKey, greeting: Greeting) -> str:
        name = self._keys.get(key)
        if name is None:
            raise WrongPeer(f"the key {key.fingerprint} is not known")
        peer = self._config.peers[name]
        number = str(connection.number)
        connection.use_memory(self._memory.of(name))
        self._throttling.joined(connection, name, number)
        responders = DaemonResponders(
            connection,
            throttling=self._throttling,
            number=number,
            is_admin=peer.admin,
            name=name,
            key=key.spki,
            rights=peer.rights,
            make_store=partial(self._make_store, name, peer.rights),
            turns_of=lambda directory: self._directories[directory].turns_of(name),
            log=structlog.get_logger(
                component="store", peer=name, conn=connection.number, run=run_of(greeting.run)
            ).bind(),
            report=partial(self._report, name, peer, number),
            watch=self._events,
        )
        self._closing.add(responders.closed)
        responders.closed.addBoth(lambda _: self._closing.discard(responders.closed))
        connection.serve(responders)
        self._events.accepted(name)
        return name

    def _gauges(self) -> Gauges:
        return Gauges(
            factory=self._factory,
            throttling=self._throttling,
            housekeeping=self._housekeeping,
            pool=self._pools,
            memory=self._memory,
            queued=lambda: sum(directory.waiting for directory in self._directories.values()),
            spaces=DiskSpaces(),
            records=self._logs.counts,
            paths=lambda: {name: directory.path for name, directory in self._directories.items()},
            reserves=lambda: {name: directory.headroom.reserve for name, directory in self._directories.items()},
            peers=lambda: list(self._config.peers),
        )

    def _health(self) -> tuple[bool, str]:
        return (True, "ready") if self.running else (False, "draining")

    def _make_store(
        self,
        peer: str,
        rights: Mapping[str, frozenset[Right]],
        directory: str,
        base: bytes,
        origin: bytes | None,
    ) -> Any:
        served = self._directories.get(directory)
        if served is None:
            raise StorageError(f"directory {display_text(directory)} is not served: its disk does not answer")
        return served.store(base, peer, rights[directory], origin)

    def _report(self, name: str, peer: PeerConfig, number: str) -> dict[str, Any]:
        limits = self._throttling.report(name, is_admin=peer.admin, own=number)
        return {**report(self, self._factory, self._rates, name, is_admin=peer.admin), "limits": limits}


def _look_at_each(directories: Mapping[str, DirectoryConfig]) -> dict[str, Inode | None]:
    """`look_at` for each directory separately; one that cannot be reached counts as one that does not answer."""
    found: dict[str, Inode | None] = {}
    for name, directory in directories.items():
        found[name] = None
        with contextlib.suppress(StorageError):
            found |= look_at({name: directory})
    return found
