"""From what the user wrote to stores: pins, connections, and threads for disk work.

A `Session` lives as long as one run.
Locations are resolved first, so that what is wrong with any of them is said before anything is connected; each distinct
peer is connected to once, however many locations name it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure

from realize.concurrency.one_at_work import OneAtWork
from realize.concurrency.reactor import IReactor
from realize.concurrency.shielded import RunInThread
from realize.concurrency.short_jobs import ShortJobs
from realize.concurrency.thread_pool import ThreadPools
from realize.errors import ConfigError, DeadlineReached, Interrupted, RealizeError, UsageError
from realize.keys import PublicKey
from realize.locations import LocalLocation, Location, RemoteLocation, parse_location, parse_peer
from realize.logger import LoggerOf
from realize.mover.events import Event
from realize.runs.credentials import Credentials
from realize.runs.options import Rates
from realize.runs.peers import Peer, ThisMachine, no_pin
from realize.store.interfaces import IStore
from realize.store.local.group_commit import Committer
from realize.store.local.headroom import Freed, Headroom
from realize.store.local.promised_space import Ledger
from realize.store.local.store import LocalStore
from realize.store.origin import origin_of
from realize.values import Compress

if TYPE_CHECKING:
    from realize.runs.connections import Connections
    from realize.runs.expiry import Tidying
    from realize.runs.limit_tree import LimitTree
    from realize.wire.client import Ahead, ConnectingProtocol
    from realize.wire.connection import PeerProtocol

THREADS_PER_LOCATION: Final = 4
"""Threads for disk work and hashing at each location; more would only queue at the disk."""


_log = Logger()

STORE_CLOSE_TIMEOUT_S: Final = 2.0
"""Seconds to wait for a store to close."""


def _not_closed(failure: Failure) -> bool:
    """Whether nobody waits for it any more; the other stores, and the connections, are closed all the same."""
    if not failure.check(RealizeError, DeferredTimeout, CancelledError):
        _log.failure("while a store was closed", failure)
    return failure.check(DeferredTimeout, CancelledError) is not None


async def _any_true(answers: Sequence[Deferred[bool]]) -> bool:
    """Wait for all, and return whether any of them is true."""
    return any([await each for each in answers])


class Session:
    """Everything that one run works with; leaving the session closes it all.

    ``logger_of`` is called when the first connection is made.
    ``within`` has limits that its connections keep to with others of this process.
    ``compress`` outranks what the credentials say about that.
    """

    def __init__(
        self,
        reactor: IReactor,
        credentials: Credentials,
        logger_of: LoggerOf,
        rates: Rates = Rates(),  # noqa: B008 -- frozen
        within: LimitTree | None = None,
        *,
        compress: Compress | None = None,
    ) -> None:
        self.credentials = credentials
        self._reactor = reactor
        self._rates = rates
        self._within = within
        self._compress = compress
        self._logger_of = logger_of
        self._peer_key_used = False
        self._connections: Connections | None = None
        self._saved_before = 0
        """What compression saved on connections that were given up, in bytes."""
        self._reason = "DONE"
        self.run = secrets.token_hex(8)
        """Identifies this run in the logs of both ends."""
        self._stores: list[IStore] = []
        self._locals: dict[str, Callable[..., LocalStore]] = {}
        self._shown: dict[Peer, PublicKey] = {}
        """The key that each peer has shown."""
        self._after_reconnect = False
        """Whether a connection was given up to make another one."""
        self._pools = ThreadPools(reactor, THREADS_PER_LOCATION, "realize disk")
        self._one_at_work = OneAtWork(reactor)
        self.in_thread: RunInThread = self._pools.of("").run
        """Runs disk work that belongs to no location in a thread of ours."""
        self._threads_ended: Deferred[None] | None = None
        """What leaving waits for at the end."""
        self._threads_abandoned = False
        self._ledger = Ledger(reactor)
        self.on_freed: Freed = lambda _path, _size: None
        """Called for each partial that is removed at a local location to make room."""

    def tidying(self, destination: Location, told: Callable[[Event], object]) -> Tidying | None:
        """What removes old partials at a local destination; None for a remote one, which its daemon looks after."""
        if not isinstance(destination, LocalLocation):
            return None
        # Without a local destination, nothing that looks after it is loaded.
        from realize.runs.expiry import Tidying

        max_age = self.credentials.partial_max_age_s
        in_thread = self._pools.of(destination.path).run
        return Tidying(os.fsencode(destination.path), max_age, in_thread, self._reactor, told)

    def resolve(self, *texts: str) -> list[Location]:
        """The locations that the arguments name; for every remote one a pin is known.

        Raises `UsageError` for what is no location, and `ConfigError` if a pin is missing.
        """
        locations = [self._location(text) for text in texts]
        for location in locations:
            if isinstance(location, RemoteLocation):
                self._peer(location.peer, location.host, location.port)
        self._check_peer_key()
        if self._rates != Rates() and all(isinstance(location, LocalLocation) for location in locations):
            raise UsageError("a throttle limits connections, but source and destination are both on this machine")
        return locations

    def resolve_peer(self, text: str) -> Peer:
        """The peer that the argument names."""
        peer = self._peer(*parse_peer(text, self.credentials.config.peers))
        self._check_peer_key()
        return peer

    def this_machine(self) -> ThisMachine:
        """The daemon of this machine."""
        self._check_peer_key()
        return ThisMachine(self.credentials.control_paths, self.credentials.config_name)

    def peer_of(self, location: Location) -> Peer | None:
        """The peer at that location; None for a local one."""
        if isinstance(location, LocalLocation):
            return None
        return self._peer(location.peer, location.host, location.port)

    def key_of(self, location: Location) -> PublicKey | None:
        """The key that the peer at that location has shown, or before that is expected to; None for a local one."""
        peer = self.peer_of(location)
        return None if peer is None else self._shown.get(peer, peer.pins[-1])

    def resolve_remote(self, text: str) -> tuple[str | None, Peer, RemoteLocation | None]:
        """The name in the configuration, the peer, and the location, of ``PEER`` or ``PEER::DIRECTORY``."""
        location: RemoteLocation | None = None
        try:
            name, host, port = parse_peer(text, self.credentials.config.peers)
        except UsageError:
            parsed = parse_location(text, self.credentials.config.peers)
            if isinstance(parsed, LocalLocation):
                raise
            location, name, host, port = parsed, parsed.peer, parsed.host, parsed.port
        peer = self._peer(name, host, port)
        self._check_peer_key()
        return name, peer, location

    def origin(self, source: Location, destination: Location) -> bytes | None:
        """What stands for a source that may learn nothing of the destination; None if it may, or knows it anyhow."""
        peer, other = self.peer_of(source), self.peer_of(destination)
        if peer is None or (other is not None and peer.origin == other.origin):
            return None
        return origin_of(peer.origin.spki)

    async def store(
        self, location: Location, origin: bytes | None = None, backup_dir: bytes = b"", salt: bytes | None = None
    ) -> IStore:
        """The store at a location; connects if it must.

        ``origin`` is whom alone that comes from, and may be compared with, which is written there.
        What is replaced there goes to ``backup_dir``, below the location, if that is given.
        ``salt`` is with what the store will be opened first: a peer is asked ahead for that, but not where a connection
        was given up before. An older peer that refuses us may not say why if it is asked, and who comes back opens its
        stores with the age of its run.
        """
        if isinstance(location, LocalLocation):
            store: IStore = self._local(location.path)(origin=origin, backup_dir=backup_dir)
        else:
            store = await self._remote(location, origin, backup_dir, salt)
        self._stores.append(store)
        return store

    async def _remote(
        self, location: RemoteLocation, origin: bytes | None, backup_dir: bytes, salt: bytes | None
    ) -> IStore:
        from realize.store.client.store import RemoteStore

        stores: list[RemoteStore] = []

        def make(protocol: PeerProtocol) -> None:
            store = RemoteStore(
                protocol,
                location.directory,
                location.path,
                after_reconnect=self._after_reconnect,
                origin=origin,
                backup_dir=backup_dir,
            )
            stores.append(store)
            if salt is not None and not self._after_reconnect:
                store.open_ahead(salt)

        try:
            protocol = await self.connected(self._peer(location.peer, location.host, location.port), make)
        except BaseException:
            for store in stores:
                store.close()
            raise
        if not stores:
            make(protocol)
        return stores[0]

    def _local(self, path: str) -> Callable[..., LocalStore]:
        """Makes stores of this machine that have everything in common but where that comes from which is written."""
        if path not in self._locals:
            in_thread = self._pools.of(path).run
            in_turn = self._one_at_work.through(in_thread)
            self._locals[path] = partial(
                LocalStore,
                path,
                run_in_thread=in_thread,
                run_briefly=ShortJobs(in_turn, self._reactor).run,
                run_in_turn=in_turn,
                committer=Committer(in_turn),
                headroom=Headroom(in_thread, self._ledger, freed=self._freed),
            )
        return self._locals[path]

    async def connected(self, peer: Peer, ahead: Ahead | None = None) -> ConnectingProtocol:
        """The connection to a peer; ``ahead`` is called as for `realize.wire.client.connect`, if it is new."""
        connection = await self._all_connections().to(peer, self.credentials.identities(), ahead)
        if connection.their_key is not None:
            self._shown[peer] = connection.their_key
        return connection

    async def connected_here(self, here: ThisMachine) -> PeerProtocol:
        """The connection to the daemon of this machine; needs no key of ours."""
        return await self._all_connections().to_this_machine(here)

    def _all_connections(self) -> Connections:
        if self._connections is None:
            # Without a remote end, nothing of the wire is loaded.
            from realize.runs.connections import Connections

            self._connections = Connections(
                self._reactor,
                self._rates,
                self.run,
                self._logger_of,
                within=self._within,
                in_thread=self.in_thread,
                compress=self._compress or self.credentials.compress,
            )
        return self._connections

    def _freed(self, path: bytes, size: int) -> None:
        self.on_freed(path, size)

    @property
    def attempt(self) -> ConnectingProtocol | None:
        """The most recent attempt to connect, even if it failed; None before the first."""
        return None if self._connections is None else self._connections.attempt

    @property
    def uncompressed(self) -> list[str]:
        """The peers with which content should always be compressed, and never is."""
        return [] if self._connections is None else self._connections.uncompressed

    @property
    def compression_saved_bytes(self) -> int:
        """How many bytes of content did not travel so far, on all connections, since they were compressed."""
        return self._saved_before + (0 if self._connections is None else self._connections.compression_saved_bytes)

    async def limits(self) -> list[str]:
        """A sentence about the limits of each connection."""
        return [] if self._connections is None else await self._connections.limits()

    async def __aenter__(self) -> Self:
        """Enter; connections are made when they are first needed."""
        return self

    def ended_by(self, error: BaseException | None) -> None:
        """Remember what ended the run, so that peers are told why we disconnect."""
        if isinstance(error, DeadlineReached):
            self._reason = "DEADLINE"
        elif isinstance(error, Interrupted | CancelledError):
            self._reason = "INTERRUPTED"

    async def disconnect(self, *, done: bool = False) -> None:
        """Close the stores and the connections; they are made anew when they are needed again, and with more care.

        With ``done``, nothing is under way at the peers: they are told, and nobody waits for two answers more.
        """
        self._after_reconnect = True
        stores, self._stores = self._stores, []
        silent = False
        # A peer that does not answer any more must not keep us, for one store after the other.
        closing = [
            store.close().addTimeout(STORE_CLOSE_TIMEOUT_S, self._reactor).addCallbacks(lambda _: False, _not_closed)
            for store in stores
        ]
        try:
            if not done:
                silent = await _any_true(closing)
        finally:
            self._saved_before = self.compression_saved_bytes
            connections, self._connections = self._connections, None
            if connections is not None:
                await connections.close(self._reason, silent=silent, alone=done)
        if done:
            # The end of a connection has closed what is at its other end.
            await _any_true(closing)

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Close the stores, the connections and the threads, in this order."""
        self.ended_by(error)
        try:
            await self.disconnect(done=error is None)
        finally:
            await self._end_threads()

    def abandon_threads(self) -> None:
        """Let leaving not wait for threads: what hangs at a disk ends when that answers, and nobody waits for it."""
        self._threads_abandoned = True
        if self._threads_ended is not None:
            self._threads_ended.cancel()

    async def _end_threads(self) -> None:
        if self._threads_abandoned:
            self._pools.retire()
            return
        self._threads_ended = Deferred.fromCoroutine(self._pools.ended())
        try:
            await self._threads_ended
        except CancelledError:
            if not self._threads_abandoned:
                raise

    def _location(self, text: str) -> Location:
        location = parse_location(text, {})
        return location if isinstance(location, LocalLocation) else parse_location(text, self.credentials.config.peers)

    def _peer(self, name: str | None, host: str, port: int) -> Peer:
        if name is not None:
            known = self.credentials.config.peers[name]
            return Peer(host, port, known.pins, known.origin_key)
        pin = self.credentials.peer_key
        if pin is None:
            raise ConfigError(no_pin(host, port, self.credentials))
        self._peer_key_used = True
        return Peer(host, port, (pin,), pin)

    def _check_peer_key(self) -> None:
        if self.credentials.peer_key is not None and not self._peer_key_used:
            raise UsageError(
                f"{self.credentials.peer_key_name} is only for a peer that the configuration does not name; "
                "all peers here are in it"
            )
