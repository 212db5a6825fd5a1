"""From what the user wrote to stores: configuration, identity, pins, connections, and threads for disk work.

A `Session` lives as long as one command.
Locations are resolved first, so that what is wrong with any of them is said before anything is connected; each distinct
peer is connected to once, however many locations name it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from realize import __version__
from realize.cli.options import Access
from realize.config import Config, default_config_path, load_command_config
from realize.errors import ConfigError, Interrupted, RealizeError, UsageError
from realize.keys import Identity, PublicKey, load_identity, read_public_key
from realize.locations import LocalLocation, Location, RemoteLocation, format_address, parse_location, parse_peer
from realize.store.descriptors import allow_many_files
from realize.store.interfaces import IStore
from realize.store.local import LocalStore
from realize.units import display_text

if TYPE_CHECKING:
    from realize.wire.protocol import PeerProtocol

THREADS: Final = 4
"""Threads for disk work and hashing; more would only queue at the disk."""


@frozen
class Peer:
    """Whom to connect to: an address, and the only key that is accepted there."""

    host: str
    port: int
    pin: PublicKey


class Session:
    """What one command works with; leaving it ends all of it."""

    def __init__(self, reactor: Any, access: Access) -> None:
        self._reactor = reactor
        self._access = access
        self._loaded = load_command_config(access.config, os.environ) if access.config else None
        self._ad_hoc = None if access.peer_key is None else read_public_key(access.peer_key)
        self._ad_hoc_used = False
        self._identity: Identity | None = None
        self._connected: dict[Peer, PeerProtocol] = {}
        self._stores: list[IStore] = []
        self._pool = ThreadPool(minthreads=0, maxthreads=THREADS, name="realize disk")
        self._pool.start()
        allow_many_files()

    def resolve(self, *texts: str) -> list[Location]:
        """What the arguments stand for; every remote one has a pin."""
        locations = [self._location(text) for text in texts]
        for location in locations:
            if isinstance(location, RemoteLocation):
                self._peer(location.peer, location.host, location.port)
        self._check_ad_hoc()
        return locations

    def resolve_peer(self, text: str) -> Peer:
        """Whom the argument stands for."""
        peer = self._peer(*parse_peer(text, self._config.peers))
        self._check_ad_hoc()
        return peer

    async def store(self, location: Location) -> IStore:
        """The store at a location; connects if it must."""
        if isinstance(location, LocalLocation):
            store: IStore = LocalStore(location.path, run_in_thread=self._in_thread)
        else:
            # Without a remote end, nothing of the wire is loaded.
            from realize.store.remote import RemoteStore

            protocol = await self.connected(self._peer(location.peer, location.host, location.port))
            store = RemoteStore(protocol, location.directory, location.path)
        self._stores.append(store)
        return store

    async def connected(self, peer: Peer) -> PeerProtocol:
        """The connection to a peer."""
        protocol = self._connected.get(peer)
        if protocol is None:
            if self._identity is None:
                self._identity = load_identity(self._access.key or self._config.key)
            protocol = self._connected[peer] = await self._connect(peer, self._identity)
        return protocol

    async def __aenter__(self) -> Self:
        """Nothing more than the start; locations are connected to when they are needed."""
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Close the stores, the connections and the threads, in this order; tell peers if it is because of a signal."""
        try:
            for store in self._stores:
                with contextlib.suppress(RealizeError):
                    await store.close()
            await self._disconnect(interrupted=isinstance(error, Interrupted | CancelledError))
        finally:
            self._pool.stop()

    async def _connect(self, peer: Peer, identity: Identity) -> PeerProtocol:
        import structlog

        from realize.telemetry.logs import configure
        from realize.wire.endpoints import connect, connecting_protocol
        from realize.wire.protocol import Greeting

        # All that a user can help is in the error that ends the run; faults of ours are logged, with their traceback.
        configure("error", "auto")
        make = connecting_protocol(
            clock=self._reactor,
            log=structlog.get_logger(),
            greeting=Greeting(f"realize {__version__}", run=secrets.token_hex(8)),
        )
        with naming(peer):
            return await connect(self._reactor, peer.host, peer.port, identity, peer.pin, make_protocol=make)

    async def _disconnect(self, *, interrupted: bool) -> None:
        for protocol in self._connected.values():
            from realize.wire.commands import Reason

            protocol.close(Reason.INTERRUPTED if interrupted else Reason.DONE)
            await protocol.when_lost()

    @property
    def _config(self) -> Config:
        """The configuration; one that nobody named is looked for only if there is a remote end."""
        if self._loaded is None:
            self._loaded = load_command_config(None, os.environ)
        return self._loaded

    def _location(self, text: str) -> Location:
        location = parse_location(text, {})
        return location if isinstance(location, LocalLocation) else parse_location(text, self._config.peers)

    def _in_thread(self, work: Any, *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._pool, work, *args)

    def _peer(self, name: str | None, host: str, port: int) -> Peer:
        if name is not None:
            return Peer(host, port, self._config.peers[name].key)
        if self._ad_hoc is None:
            raise ConfigError(no_pin(host, port, self._access.config or default_config_path(os.environ)))
        self._ad_hoc_used = True
        return Peer(host, port, self._ad_hoc)

    def _check_ad_hoc(self) -> None:
        if self._ad_hoc is not None and not self._ad_hoc_used:
            raise UsageError("--peer-key is for a peer that the configuration does not name, and there is none here")


@contextlib.contextmanager
def naming(peer: Peer) -> Iterator[None]:
    """Errors in this block say which peer they are about, if they do not already."""
    address = format_address(peer.host, peer.port)
    try:
        yield
    except RealizeError as error:
        if address in str(error):
            raise
        raise type(error)(f"{address}: {error}") from error


def no_pin(host: str, port: int, config: str) -> str:
    """How to tell us the key of a peer, ready to paste."""
    address = format_address(host, port)
    name = host.partition(".")[0]
    return "\n".join(
        (
            f"{address}: the key of this peer is not known, so it cannot be told from an impostor.",
            "Give the public key that `realize keygen` printed there: either with --peer-key KEY,",
            f"or by these lines in {display_text(config)}:",
            f"[peers.{name if re.fullmatch('[A-Za-z][A-Za-z0-9-]*', name) else 'NAME'}]",
            f'address = "{address}"',
            'key = "MCowBQYDK2VwAyEA..."',
        )
    )
