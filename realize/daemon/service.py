"""The daemon as a service of any Twisted application: listen, serve, take over a new configuration, and stop in order.

It touches nothing that belongs to the process: no signal handlers, no limits, no log.
What ``twistd realized`` does to its process is in `realize.daemon.twistd_service`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import twisted
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, succeed
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from realize import __version__
from realize.concurrency.loading_ahead import load_ahead
from realize.concurrency.memory import Memory
from realize.concurrency.reactor import IReactor
from realize.concurrency.thread_pool import ThreadPool, ThreadPools, when_ended
from realize.concurrency.turns import Turns
from realize.config import Config, DirectoryConfig, Right
from realize.config.values import check_daemon_needs
from realize.daemon.activity import activity_line
from realize.daemon.availability import CHANGED, Availability, is_unmounted, may_be_mounted
from realize.daemon.control import ControlSocket, may_steer
from realize.daemon.exclusive import ExclusiveDirectories
from realize.daemon.expiry import Housekeeping
from realize.daemon.listeners import Listeners
from realize.daemon.looks import FoundDirectory, Sight, look_at, look_later, note_own_files
from realize.daemon.metrics.null_hooks import EventHooks
from realize.daemon.move_reports import short_rows
from realize.daemon.peer_changes import by_key, by_origin, to_disconnect, with_other_origin
from realize.daemon.rates import RateSampler
from realize.daemon.reloading import ControlResponders, Reloaded, ReloadResponder
from realize.daemon.responders import DaemonResponders
from realize.daemon.served import THREADS, ServedDirectory, serve_directories
from realize.daemon.status import report, sample
from realize.daemon.steering import Asker, SteeringResponders
from realize.daemon.throttling import Throttling
from realize.errors import ConfigError, ConnectionFailed, RealizeError
from realize.keys import PublicKey
from realize.logger import LogSource
from realize.moves.plan import plans_of
from realize.moves.standing_moves import StandingMoves
from realize.runs import move_run
from realize.schedule.timetable import logged_as
from realize.store.local.location import unavailable
from realize.store.local.permissions import lacking_of
from realize.store.local.promised_space import Ledger
from realize.store.server.responders import DirectoryResponders
from realize.telemetry.logging.twisted_events import TwistedEvents
from realize.tracing import run_of
from realize.units import display_name
from realize.wire.commands import Reason
from realize.wire.compression import capabilities
from realize.wire.connection import Greeting
from realize.wire.control import ControlFactory, LocalUser
from realize.wire.server import AcceptedProtocol, PeerServerFactory
from realize.wire.throttling import pacing

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from realize.daemon.metrics.counters import Metrics
    from realize.daemon.metrics.endpoint import MetricsEndpoint
    from realize.daemon.metrics.gauges import Gauges

_NEEDS: Final = {right: {os.R_OK} if right is Right.READ else {os.W_OK} for right in Right}
"""The permissions of the daemon on a directory without which each right is useless."""

LOADED_AHEAD: Final = (
    *move_run.LOADED_AHEAD,
    *move_run.KEEPING_AHEAD,
    *move_run.BEGINNING_AHEAD,
    "fractions",
    "pathspec.pattern",
    "pathspec.patterns.gitignore.spec",
    "realize.config.reading_moves",
    "realize.mover.named",
    "realize.mover.ordered",
    "realize.preserving",
)
"""What peers, moves and reloads may need at any time."""

COMPRESSION_THREADS: Final = 2
"""Threads in which the content of all peers is compressed and expanded: one piece at a time for each of them."""

FIXED_KEYS: Final = ("key", "former_keys", "listen", "limits", "metrics", "page_file_names", "state", "control")
"""The keys of the configuration that a reload cannot change."""


class RealizedService(Service):
    """Serves the directories of a configuration to its peers, once: to serve again, make another one.

    ``metrics`` of the configuration are counted in a registry of this service; ``registry``, if given, has them as well
    while it runs.
    ``logs`` gives the loggers; by default records are events of Twisted's log.
    ``reload`` reads the configuration again, for users at the control socket; without it they cannot ask for that.
    ``source`` says in the log where the configuration comes from.
    ``reactor`` is the one that runs the program.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        *,
        registry: CollectorRegistry | None = None,
        logs: LogSource | None = None,
        source: str = "this program",
        reload: Callable[[], Deferred[Reloaded]] | None = None,
    ) -> None:
        """Raises `ConfigError` if the key file cannot be used; opens nothing."""
        self.restart_keys: tuple[str, ...] = ()
        """The keys that the last reload gave values that need another service; whoever runs this adds its own."""
        self._began = 0.0
        self._config = config
        self._identities = config.identities()
        self._reactor: IReactor = reactor
        self._logs = TwistedEvents() if logs is None else logs
        self._source = source
        self._log = self._logs.of("daemon")
        self._pools = ThreadPools(reactor, THREADS, "disk")
        """By directory path."""
        self._reader = ThreadPool(reactor, 1, "configuration")
        self._compressing = ThreadPool(reactor, COMPRESSION_THREADS, "compression")
        self._compression_turns = Turns(COMPRESSION_THREADS, 1)
        self._reloading = DeferredLock()
        self._availability = Availability(reactor, self._log, partial(look_later, reactor), self._take_up)
        self._ledger = Ledger(reactor)
        self._memory = Memory(config.limits.memory_bytes, config.limits.peer_memory_bytes)
        self._keys: dict[PublicKey, str] = by_key(config.peers)
        self._exclusive = ExclusiveDirectories()
        self._directories: dict[str, ServedDirectory] = {}
        self._listeners = Listeners(reactor, self._log)
        self._closing: set[Deferred[None]] = set()
        """Each fires when everything that a connection had open is closed, which needs threads."""
        self._not_ahead: Callable[[], None] = lambda: None
        """Gives up loading what is not needed yet."""
        self._ended: Deferred[None] | None = None
        """Fires when all is closed; None before that begins."""
        counted = config.metrics is not None or registry is not None
        metrics = _metrics(of_process=registry is None) if counted else None
        self._events = EventHooks() if metrics is None else metrics
        self._factory = PeerServerFactory(
            clock=reactor,
            log=self._logs.of("wire"),
            identities=self._identities,
            greeting=_greeting(config),
            known=lambda: self._keys,
            welcome=self._welcome,
            on_refusal=self._events.refused,
            watch=None if metrics is None else metrics.command,
        )
        self._control = ControlSocket(
            reactor,
            ControlFactory(
                clock=reactor,
                log=self._logs.of("wire"),
                greeting=Greeting(f"realized {__version__}"),
                is_let_in=may_steer,
                serve=partial(self._controlled, reload),
                memory_of=lambda user: self._memory.of(user.name),
                watch=None if metrics is None else metrics.command,
            ),
        )
        self._throttling = Throttling(
            reactor, self._logs.of("throttle"), lambda carried: sample(self._rates, self._factory, carried=carried)
        )
        self._rates = RateSampler(reactor)
        self._housekeeping = Housekeeping(reactor, self._log)
        self._moves = StandingMoves(
            self._with_identity(config),
            reactor,
            self._logs.of,
            within=self._throttling.of_runs(lambda key: self._keys.get(key, key.fingerprint)),
        )
        self._metrics_endpoint = None if metrics is None else self._make_metrics_endpoint(metrics, registry)

    @property
    def config(self) -> Config:
        """The configuration that is in force, or to be."""
        return self._config

    @property
    def addresses(self) -> list[IAddress]:
        """Where it listens now, such as `twisted.internet.address.IPv4Address`; tells which ports 0 has become."""
        return self._listeners.addresses

    @property
    def moves(self) -> StandingMoves:
        """What it moves by itself, to be looked at and steered."""
        return self._moves

    @property
    def activity(self) -> str:
        """What it does, in one line, without names of files."""
        return activity_line(
            served=len(self._config.directories) - len(self._availability.absent),
            directories=len(self._config.directories),
            peers=len(self._config.peers),
            connections=len(list(self._factory)),
            moves=self._moves.statuses(),
        )

    @property
    def held_bytes(self) -> int:
        """How much memory is held for peers."""
        return self._memory.held

    def startService(self) -> None:
        """Start to serve; raises `ConfigError`, and leaves nothing open, if that is not possible.

        A disk that hangs holds this up for a few seconds.
        A directory that is not there, or whose disk does not answer, is served once it is.
        """
        if self.running or self._ended is not None:
            raise RuntimeError("this service was started before: make another one to serve again")
        super().startService()
        try:
            self._start()
        except BaseException:
            self._exclusive.keep(())
            self._end(self._close())
            raise

    def _start(self) -> None:
        self._began = self._reactor.seconds()
        self._events.started(time.time())
        check_daemon_needs(self._config)
        plans = plans_of(self._config)
        note_own_files(self._config)
        seen = look_at(self._config.directories)
        found = _found(seen)
        self._exclusive.take(found, self._config.directories)
        self._directories = self._serve(self._config, found)
        self._watch(seen)
        self._take_over(self._config)
        self._log.info(
            "started",
            version=__version__,
            python=platform.python_version(),
            twisted=twisted.__version__,
            config=self._source,
            fingerprint=self._identities[0].public_key.fingerprint,
            former=[identity.public_key.fingerprint for identity in self._identities[1:]],
            dirs=sorted(self._directories),
            peers=sorted(self._config.peers),
            moves=sorted(plans),
        )
        throttle = self._config.throttle
        self._log.info(
            "limits_in_force",
            service=logged_as(throttle.service_bps),
            peers={name: logged_as(rate) for name, rate in throttle.peers_bps.items() if rate is not None},
            connection=logged_as(throttle.connection_bps),
        )
        if self._metrics_endpoint is not None:
            self._metrics_endpoint.start()
        for description in self._config.listen:
            secured = self._factory.secured(pacing(self._reactor))
            self._listeners.open("listen", description, secured, self._opened)
        if self._config.control is not None:
            self.open_control(self._config.control)
        self._housekeeping.start(self._directories, self._config.partial_max_age_s)
        self._look_what_is_forbidden(found)
        self._moves.start(plans)
        self._not_ahead = load_ahead(self._reactor, LOADED_AHEAD)

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let running commands finish within the drain time, then close everything.

        Fires when all is closed, and all threads have ended; also if the start failed.
        """
        if self.running:
            self._end(self._stop())
        if self._ended is None:
            return succeed(None)
        stopped: Deferred[None] = Deferred()

        def tell(result: Failure | None) -> None:
            stopped.callback(result)

        self._ended.addBoth(tell)
        return stopped

    def _end(self, closing: Coroutine[Deferred[Any], Any, None]) -> None:
        super().stopService()
        self._ended = Deferred.fromCoroutine(closing)

    @property
    def uptime(self) -> float:
        """Seconds since the service was started."""
        since: float = self._reactor.seconds() - self._began
        return since

    def reload(self, config: Config) -> Deferred[tuple[str, ...]]:
        """Take over another configuration; peers that lose something by it are disconnected.

        Fires with the keys whose new values need another service, when all others are in force.
        Fails with `ConfigError`, and changes nothing, if a daemon cannot do with that configuration.
        File access that may hang is done in another thread.
        """
        return self._reloading.run(lambda: Deferred.fromCoroutine(self._reload(config)))

    async def _reload(self, config: Config) -> tuple[str, ...]:
        check_daemon_needs(config)
        plans = plans_of(config)
        if self.running:
            await self._reader.run(note_own_files, config)
            seen = await self._reader.run(look_at, config.directories)
            seen = {name: self._unless_unmounted(name, config, sight) for name, sight in seen.items()}
            found = _found(seen)
        if not self.running:
            raise ConfigError("the service is not running, so it cannot reload its configuration")
        kept = {name: getattr(self._config, name) for name in FIXED_KEYS}
        changed = tuple(name for name, value in kept.items() if getattr(config, name) != value)
        config = attrs.evolve(config, **kept)
        self._exclusive.take(found, config.directories)
        directories = self._serve(config, found)
        other_origin = with_other_origin(self._config.peers, config.peers)
        directories |= self._kept_absent(config, config.directories.keys() - found.keys())
        ending = to_disconnect(self._config, config, _moved(self._directories, directories))
        for name, now in directories.items():
            before = self._directories.get(name)
            if before is not None and (before.path, before.identity) == (now.path, now.identity):
                before.configure(config.directories[name])
                directories[name] = before
        self._config, self._directories, self._keys = config, directories, by_key(config.peers)
        self._exclusive.keep([directory.identity for directory in directories.values()])
        self._watch(seen)
        self._pools.keep([directory.path for directory in config.directories.values()])
        try:
            self._take_over(config)
            self._factory.greeting = _greeting(config)
            self._housekeeping.start(directories, config.partial_max_age_s)
            self._look_what_is_forbidden(found)
            self._moves.reload(self._with_identity(config), plans)
            self._log.info(
                "reloaded",
                config=self._source,
                dirs=sorted(directories),
                peers=sorted(config.peers),
                moves=sorted(plans),
            )
            for name in other_origin:
                self._log.warning("origin_changed", peer=name)
        finally:
            # Whatever else fails, no connection may keep a right that its peer has lost.
            # Nor may it learn what comes from an origin that another peer has now.
            origins = by_origin(config.peers)
            for connection in self._factory:
                name_now = None if connection.key is None else self._keys.get(connection.key)
                of_origin = connection.name if connection.origin is None else origins.get(connection.origin, name_now)
                if connection.name in ending or not connection.name == name_now == of_origin:
                    self._withdraw(connection)
        self.restart_keys = changed
        return changed

    def _serve(self, config: Config, found: Mapping[str, FoundDirectory]) -> dict[str, ServedDirectory]:
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

    def _unless_unmounted(self, name: str, config: Config, sight: Sight) -> Sight:
        """What a reload takes for the directory: not the mount point below a disk that is gone."""
        served = self._served_at(name, config.directories[name])
        if served is not None and isinstance(sight, FoundDirectory) and is_unmounted(served.found, sight):
            return CHANGED
        return sight

    def _kept_absent(self, config: Config, names: Iterable[str]) -> dict[str, ServedDirectory]:
        """Those of these directories, which are not there now, that were served: known by what they were."""
        kept = {}
        for name in names:
            wanted = config.directories[name]
            known = self._served_at(name, wanted)
            if known is None:
                continue
            is_same_mount = self._config.directories[known.name].mount == wanted.mount
            if is_same_mount or may_be_mounted(known.found, wanted):
                kept[name] = known if known.name == name else self._serve(config, {name: known.found})[name]
                kept[name].configure(wanted)
        return kept

    def _served_at(self, name: str, directory: DirectoryConfig) -> ServedDirectory | None:
        """What was served at the path of a directory, by that name or, if it had none of that path, by another one."""
        there = {each.name: each for each in self._directories.values() if each.path == directory.path}
        return there.get(name) or next(iter(there.values()), None)

    def _watch(self, seen: Mapping[str, Sight]) -> None:
        served = {name: directory.found for name, directory in self._directories.items()}
        self._availability.watch(self._config.directories, served, seen)

    def _take_up(self, name: str, directory: FoundDirectory) -> None:
        """Serve a directory that has come; raises `ConfigError` if another service has it."""
        found = {name: directory}
        self._exclusive.take(found, self._config.directories)
        self._directories |= self._serve(self._config, found)
        self._exclusive.keep([directory.identity for directory in self._directories.values()])
        self._housekeeping.start(self._directories, self._config.partial_max_age_s)
        self._look_what_is_forbidden(found)

    def _withdraw(self, connection: AcceptedProtocol) -> None:
        """Close a connection whose peer has lost rights; if closing in order fails, abort it."""
        try:
            self._log.warning(
                "rights_withdrawn", peer=connection.name, conn=connection.number, address=connection.address
            )
            connection.close(Reason.REFUSED)
        except Exception:  # noqa: BLE001 -- the other connections have to be closed too
            connection.abort(ConnectionFailed("rights were withdrawn"))

    def _freed(self, name: str, path: bytes, size: int) -> None:
        self._log.info("partial_freed", dir=name, path=display_name(path), size=size)

    def _take_over(self, config: Config) -> None:
        self._events.expect(config.directories, config.peers)
        self._factory.forget_all_but(config.peers)
        for directory in self._directories.values():
            directory.forget_all_but(config.peers)
        throttle = config.throttle
        peers = {name: throttle.peers_bps.get(name) for name in config.peers}
        self._throttling.configure(throttle.service_bps, peers, throttle.connection_bps)

    def _look_what_is_forbidden(self, names: Iterable[str]) -> None:
        for name in names:
            Deferred.fromCoroutine(self._say_what_is_forbidden(name, self._directories[name]))

    async def _say_what_is_forbidden(self, name: str, directory: ServedDirectory) -> None:
        """Log the rights of peers in a directory that are useless, because the daemon itself lacks the permission."""
        with contextlib.suppress(RealizeError):
            lacking = await directory.run_in_thread(lacking_of, directory.path)
            given = set().union(*(peer.rights.get(name, frozenset()) for peer in self._config.peers.values()))
            forbidden = sorted(right.value for right in given if _NEEDS[right] & lacking)
            if forbidden:
                self._log.warning("directory_forbidden", dir=name, path=directory.path, rights=forbidden)

    async def _stop(self) -> None:
        self._log.info("draining", connections=len(list(self._factory)), seconds=self._config.drain_s)
        await self._close()
        self._log.info("stopped")

    async def _close(self) -> None:
        self._not_ahead()
        self._housekeeping.stop()
        self._availability.stop()
        moves_ended = self._moves.stop(self._config.drain_s)
        await self._listeners.close()
        try:
            await self._factory.stop(self._config.drain_s)
            await DeferredList(list(self._closing))
            self._throttling.close()
            await moves_ended
        finally:
            # What threads do cannot be cut short; the reactor goes on meanwhile.
            await when_ended(self._reactor, [*self._reader.retire(), *self._compressing.retire()])
            await self._pools.ended()
            self._exclusive.keep(())
        # Last, so that draining can be observed.
        await self._control.close()
        if self._metrics_endpoint is not None:
            await self._metrics_endpoint.stop()

    def _opened(self, endpoint: str, address: str, port: int | None) -> None:
        self._log.info("listening", endpoint=endpoint, address=address, port=port)

    def _welcome(self, connection: AcceptedProtocol, name: str, greeting: Greeting) -> None:
        peer = self._config.peers[name]
        number = str(connection.number)
        connection.use_memory(self._memory.of(name))
        connection.in_thread = self._compression_turns.threads_of(name, self._compressing.run)
        self._throttling.joined(connection, name, number)
        connection.origin = peer.origin_key
        directories = DirectoryResponders(
            connection,
            key=connection.origin.spki,
            rights=peer.rights,
            make_store=partial(self._make_store, name, peer.rights),
            turns_of=lambda directory: self._directories[directory].turns_of(name),
            log=self._logs.of("store").bind(peer=name, conn=connection.number, run=run_of(greeting.run)),
            watch=self._events,
        )
        self._closing.add(directories.closed)
        directories.closed.addBoth(lambda _: self._closing.discard(directories.closed))
        steering = self._steering(Asker(name=name, is_admin=peer.admin, connection=number))
        connection.serve(DaemonResponders(directories, steering))
        self._events.accepted(name)
        if connection.key != peer.pins[-1]:
            self._events.former_key(name, "peer")
        if connection.shown != self._identities[0].public_key:
            self._events.former_key(name, "daemon")

    def _steering(self, asker: Asker) -> SteeringResponders:
        return SteeringResponders(
            asker,
            throttling=self._throttling,
            moves=self._moves,
            report=partial(self._report, asker),
            steering_log=self._log,
            wall_clock=time.time,
            is_running=lambda: bool(self.running),
        )

    def _controlled(self, reload: Callable[[], Deferred[Reloaded]] | None, user: LocalUser) -> ControlResponders:
        steering = self._steering(Asker(name=user.name, is_admin=True))
        return ControlResponders(
            steering, ReloadResponder(user.name, reload, self._log, is_running=lambda: bool(self.running))
        )

    def open_control(self, path: str) -> None:
        """Let the user of this process, and root, steer the daemon at a Unix socket until it stops.

        ``path`` is absolute.
        Raises `ConfigError` if there can be no socket, or another daemon has it.
        """
        self._control.open(path)
        self._log.info("control_listening", path=path)

    def _with_identity(self, config: Config) -> Config:
        """The configuration with our key pairs in it, so that nobody reads their files again."""
        return attrs.evolve(config, key=self._identities[0], former_keys=self._identities[1:])

    def _gauges(self) -> Gauges:
        from realize.daemon.metrics.gauges import Gauges  # as for `_metrics`
        from realize.daemon.metrics.space import DiskSpaces

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
            available=lambda: {name: name not in self._availability.absent for name in self._config.directories},
            peers=lambda: list(self._config.peers),
            restart_keys=lambda: self.restart_keys,
        )

    def _make_metrics_endpoint(self, metrics: Metrics, registry: CollectorRegistry | None) -> MetricsEndpoint:
        from realize.daemon.metrics.endpoint import MetricsEndpoint  # as for `_metrics`
        from realize.daemon.metrics.moves import MoveMetrics
        from realize.daemon.page.collecting import PageCollector
        from realize.daemon.page.contents import ShownAbsence
        from realize.daemon.page.resource import StatusPage

        def shown_absences() -> list[ShownAbsence]:
            now, absent = self._reactor.seconds(), self._availability.absent
            return [ShownAbsence(name, now - each.since, each.why) for name, each in sorted(absent.items())]

        collector = PageCollector(
            clock=self._reactor,
            factory=self._factory,
            throttling=self._throttling,
            rates=self._rates,
            absent=shown_absences,
            moves=self._moves.statuses,
            uptime_s=lambda: self.uptime,
            is_running=lambda: bool(self.running),
            names_allowed=self._config.page_file_names,
        )
        return MetricsEndpoint(
            self._config.metrics,
            registry,
            reactor=self._reactor,
            log=self._log,
            metrics=metrics,
            gauges=self._gauges(),
            moves=MoveMetrics(self._moves.statuses),
            health=self._health,
            page=StatusPage(collector.collect, self._reactor, self._log),
            sampler=collector.sampler,
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
        backup_dir: bytes,
    ) -> Any:
        if (why := self._availability.why_refused(directory)) is not None:
            raise unavailable(directory.encode(), why)
        return self._directories[directory].store(base, peer, rights[directory], origin, backup_dir)

    def _report(self, asker: Asker) -> dict[str, Any]:
        limits = self._throttling.report(asker.name, is_admin=asker.is_admin, own=asker.connection)
        moves = short_rows(self._moves.statuses(), time.time())
        keys = [identity.public_key for identity in self._identities]
        peer = self._config.peers.get(asker.name)
        rights = {} if peer is None else peer.rights
        named = [each for each in self._config.directories if asker.is_admin or rights.get(each)]
        directories = self._availability.rows(named)
        return report(
            self, self._factory, self._rates, directories, limits, moves, keys, asker.name, is_admin=asker.is_admin
        )


def _greeting(config: Config) -> Greeting:
    return Greeting(f"realized {__version__}", capabilities(config.compress))


def _found(seen: Mapping[str, Sight]) -> dict[str, FoundDirectory]:
    return {name: sight for name, sight in seen.items() if isinstance(sight, FoundDirectory)}


def _moved(before: Mapping[str, ServedDirectory], after: Mapping[str, ServedDirectory]) -> set[str]:
    """The names of directories that are no longer served, or are other ones now."""
    return {
        name
        for name, directory in before.items()
        if name not in after or (directory.path, directory.identity) != (after[name].path, after[name].identity)
    }


def _metrics(*, of_process: bool) -> Metrics:
    # A daemon that is not asked for metrics loads nothing of them, of their page, or of what writes HTTP: a tenth of
    # its start. Whether it is asked does not change as long as it runs.
    from realize.daemon.metrics.counters import Metrics

    return Metrics(of_process=of_process)
