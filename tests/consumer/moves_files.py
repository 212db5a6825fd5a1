"""A program that moves files, as somebody who uses Realize would write it."""

from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from realize.api import (
    Compress,
    Config,
    ConfigError,
    ConnectionFailed,
    Direction,
    DirectoryConfig,
    Entry,
    ExitCode,
    Finding,
    Identity,
    Kind,
    Links,
    MetricsTargets,
    MoveOptions,
    OnConflict,
    Order,
    PeerConfig,
    PeerLimit,
    Place,
    Preserve,
    PublicKey,
    RealizeError,
    Result,
    Right,
    Scope,
    Steering,
    Summary,
    UsageError,
    asyncio_reactor,
    blocking,
    check,
    copy,
    generate_identity,
    in_asyncio,
    limits,
    list_files,
    load_identity,
    move,
    parse_public_key,
    read_config,
    set_limit,
    standing_moves,
    status,
    steer_move,
)
from realize.api.events import (
    Action,
    End,
    Event,
    Failed,
    Finished,
    Found,
    HeldBack,
    How,
    Left,
    Listed,
    NoHardLinks,
    NoRoom,
    NotCompressed,
    NotPreserved,
    OlderDestination,
    PartialGone,
    Planned,
    Postponed,
    Progressed,
    Pruned,
    Retrying,
    SourceStarted,
    Started,
    Stopped,
    UnderWay,
    Unknown,
)
from realize.schedule.timetable import parse_timetable


def known(own: Identity, theirs: PublicKey) -> Config:
    """A configuration of values."""
    peer = PeerConfig(theirs, address="nas.example:9771", rights={"inbox": {Right.READ}})
    return Config(key=own, peers={"nas": peer}, directories={"inbox": DirectoryConfig("inbox", links=Links.NONE)})


def told(event: Event) -> str:
    """Every kind of event."""
    match event:
        case SourceStarted(source, destination):
            return source + destination
        case Found(files, size) | NoRoom(files, size):
            return str(files + size)
        case Planned(path, size, action, stored_as):
            return f"{path!r} {size} {action is Action.SEND} {stored_as!r}"
        case Progressed(path, amount, found):
            return f"{path!r} {amount} {found}"
        case Finished(path, size, sent, how, digest, removed, stored_as):
            return f"{path!r} {size} {sent} {how is How.CREATED} {digest.hex()} {removed} {stored_as!r}"
        case Failed(path, end, error) | Postponed(path, end, error):
            return f"{path!r} {end is End.SOURCE} {error}"
        case (
            Started(path)
            | Stopped(path)
            | Unknown(path)
            | Left(path)
            | HeldBack(path)
            | Pruned(path)
            | PartialGone(path)
        ):
            return repr(path)
        case Retrying(error, delay):
            return f"{error} {delay}"
        case NotPreserved(_, kind, why):
            return f"{kind} {why}"
        case Listed() | UnderWay() | NoHardLinks() | OlderDestination() | NotCompressed():
            return ""
    return "an event of a later version"


def options(manifest: Path) -> MoveOptions:
    """All of them."""
    return MoveOptions(
        on_conflict=OnConflict.SKIP,
        order=Order.NEWEST,
        compress=Compress.NEVER,
        preserve={Preserve.MODE},
        jobs=2,
        rules=[("exclude", "*.tmp"), ("include", "a.tmp")],
        min_age_s=1,
        dry_run=False,
        links=True,
        prune_age_s=3600,
        up_bps=1 << 20,
        down_bps=parse_timetable("08:00,512k 18:00,off"),
        max_duration_s=60,
        grace_s=5,
        retry=False,
        manifest=manifest,
        trust_source=True,
        metrics=MetricsTargets(textfile="realize.prom", job="nightly"),
    )


async def deliver(reactor: Any, places: list[Place]) -> int:
    """What a program does with all of it."""
    config = known(generate_identity(), parse_public_key("MCowBQYDK2VwAyEA..."))
    try:
        summary: Summary = await move(
            reactor, places, Path("in"), config=config, options=options(Path("manifest")), on_event=print
        )
    except (ConfigError, ConnectionFailed, UsageError) as error:
        raise SystemExit(str(error)) from error
    except RealizeError:
        return 1
    except CancelledError:
        return 20
    entries: list[Entry] = await list_files(reactor, "nas::inbox", config="realize.toml")
    files = [entry for entry in entries if entry.kind is Kind.FILE]
    report: dict[str, Any] = await status(reactor, "nas")
    rows: list[PeerLimit] = await limits(reactor, "nas")
    await set_limit(reactor, "nas", 1 << 20, scope=Scope.PEER, name="x", direction=Direction.BOTH, for_s=60.0)
    for each in await standing_moves(reactor):
        moved: dict[str, Any] = await steer_move(reactor, each["name"], Steering.RUN, "nas")
        assert moved["name"] == each["name"]
    findings: list[Finding] = await check(reactor, "nas::inbox")
    failed = any(finding.result is Result.FAILED for finding in findings)
    done = summary.exit_code is ExitCode.DONE and summary.arrived == len(files)
    return int(done and not failed and bool(report) and rows[0].limit_bps is None)


async def in_another_loop() -> int:
    """With asyncio."""
    async with asyncio_reactor() as reactor:
        summary = await in_asyncio(copy(reactor, "out", "in"))
    return summary.created


def without_a_loop() -> int:
    """In a script."""
    config = read_config("realize.toml")
    identity: Identity = load_identity("camera.key")
    work: Deferred[Summary] | None = None
    assert work is None
    return blocking(move, ["out"], "nas::inbox", config=config).created + len(str(identity.public_key))
