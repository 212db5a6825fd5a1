"""A program with the daemon in it, as somebody who uses Realize would write it."""

from pathlib import Path

from prometheus_client import CollectorRegistry
from twisted.application.service import Application, MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from realize.config import (
    Config,
    DirectoryConfig,
    LimitsConfig,
    LogsConfig,
    MoveConfig,
    PeerConfig,
    Right,
    ThrottleConfig,
    read_config,
)
from realize.daemon import RealizedService
from realize.daemon.reloading import Reloaded
from realize.errors import ConfigError, Conflict, NotFound, RealizeError
from realize.keys import (
    Identity,
    PublicKey,
    generate_identity,
    identity_of,
    load_identity,
    parse_identity,
    parse_public_key,
    read_public_key,
    write_identity,
)
from realize.moves.status import MoveStatus, Phase
from realize.schedule.timetable import RateTimetable, parse_timetable
from realize.units import parse_rate, parse_reserve
from realize.values import Links, OnConflict


def by_hand(folder: Path, pem: bytes) -> Config:
    """Everything as values."""
    identity: Identity = parse_identity(pem)
    by_day: RateTimetable = parse_timetable("08:00,512k 18:00,unlimited")
    camera: PublicKey = parse_public_key("MCowBQYDK2VwAyEA...")
    return Config(
        key=identity,
        listen=["127.0.0.1:0", "tcp:9771"],
        metrics=9772,
        directories={
            "inbox": DirectoryConfig(folder / "inbox", parse_reserve("5%")),
            "outbox": DirectoryConfig("outbox", links=Links.ANY),
        },
        peers={
            "camera": PeerConfig(camera, rights={"inbox": {Right.CREATE}, "outbox": [Right.READ, Right.REMOVE]}),
            "nas": PeerConfig(read_public_key("nas.pub"), address="nas.example:9771", admin=True),
        },
        moves={
            "out": MoveConfig(
                sources=["/store/out"],
                destination="nas::inbox",
                settle_s=5,
                on_conflict=OnConflict.FAIL,
                exclude=["*.tmp"],
            ),
        },
        state=folder / "state",
        throttle=ThrottleConfig(service_bps=parse_rate("20M"), peers_bps={"camera": by_day}, connection_bps=1 << 20),
        limits=LimitsConfig(memory_bytes=128 << 20, peer_memory_bytes=64 << 20),
        logs=LogsConfig(file=None),
        partial_max_age_s=86_400,
        drain_s=10,
    )


class Program(MultiService):
    """Serves, and takes over another configuration."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.registry = CollectorRegistry()
        self.daemon = RealizedService(config, reactor, registry=self.registry, reload=self.reload)
        self.daemon.setServiceParent(self)

    async def change(self, path: str) -> tuple[str, ...]:
        """The keys that need another service."""
        try:
            kept: tuple[str, ...] = await self.daemon.reload(read_config(path, for_daemon=True))
        except ConfigError as error:
            place, sentence = error.problems[0]
            raise SystemExit(f"{place[0]}: {sentence}") from error
        return kept

    def reload(self) -> Deferred[Reloaded]:
        """For `realize reload`."""
        return Deferred.fromCoroutine(self.reloaded())

    async def reloaded(self) -> Reloaded:
        """What it is told."""
        try:
            return Reloaded(restart_needed=await self.change("/etc/program.toml"))
        except SystemExit as error:
            return Reloaded(errors=[str(error)])

    def ends(self) -> Deferred[None]:
        """When it has ended."""
        return self.daemon.stopService()

    def go_on(self) -> list[MoveStatus]:
        """Resume what was paused, and start what fails."""
        for status in self.daemon.moves.statuses():
            try:
                if status.phase is Phase.PAUSED:
                    self.daemon.moves.resume(status.name)
                elif status.phase is Phase.FAILING:
                    self.daemon.moves.run(status.name)
            except (NotFound, Conflict):
                self.daemon.moves.pause(status.name)
        return self.daemon.moves.statuses()

    def where(self) -> list[IAddress]:
        """Its ports."""
        return self.daemon.addresses


def main() -> None:
    """Run it."""
    application = Application("program")
    try:
        config = by_hand(Path("/srv"), Path("key").read_bytes())
        assert load_identity("key") == config.identity() == identity_of(config.identity().private_key)
        write_identity("another.key", generate_identity())
        Program(config).setServiceParent(application)
    except RealizeError as error:
        raise SystemExit(str(error)) from error
