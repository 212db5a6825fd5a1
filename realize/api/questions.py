"""What other programs may ask of a location, and of a daemon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred

from realize.api.access import ConfigOrFile, credentials_of, location_text, loggers_or_twisted
from realize.api.cancelling import cancellable_anywhere
from realize.api.moves import Place
from realize.by_value import ByValue
from realize.concurrency.reactor import IReactor
from realize.errors import ProtocolError, UsageError
from realize.logger import LoggerOf
from realize.runs.asking import Change, ask_limits, ask_moves, ask_status, list_location
from realize.runs.check_findings import Finding
from realize.runs.checking import Checking
from realize.runs.reports import is_number
from realize.runs.session import Session
from realize.throttle.rates import check_rate
from realize.throttle.tree import Scope
from realize.values import Entry, Kind
from realize.wire.commands import Direction, Steering

T = TypeVar("T")


@frozen(kw_only=True, eq=False, repr=False)
class PeerLimit(ByValue):
    """A limit of a daemon, as it says itself; None is unknown, or none."""

    scope: str
    """``service``, ``peer`` or ``connection``."""
    name: str
    """The name of the peer, or the id of the connection; empty for the service."""
    direction: str
    """``send`` or ``receive``, seen from the daemon."""
    limit_bps: float | None
    """The limit in bytes per second."""
    rate_bps: float | None
    """The present rate."""
    lasts_s: float | None
    """Seconds until the limit gives way to the former one."""
    timetable: str
    """The timetable that holds for good; empty if there is none."""
    changes_in_s: float | None
    """Seconds until the limit becomes another one by itself; None: it does not."""
    changes_to_bps: float | None
    """That other one, None is unlimited."""


def list_files(
    reactor: IReactor,
    location: Place,
    *,
    config: ConfigOrFile = None,
    on_page: Callable[[Sequence[Entry]], object] | None = None,
    logger_of: LoggerOf | None = None,
) -> Deferred[list[Entry]]:
    """List what is at a location: files, partials, what is never moved, and what could not be read.

    With ``on_page`` nothing is collected: it is called with each page as it arrives, and the list is empty.
    Fails with `RealizeError`, whose text names the location.
    """
    found: list[Entry] = []

    def take(page: Sequence[Entry]) -> None:
        entries = [entry for entry in page if entry.kind is not Kind.DIRECTORY]
        if on_page is None:
            found.extend(entries)
        else:
            on_page(entries)

    async def ask(session: Session) -> list[Entry]:
        await list_location(session, location_text(location), take)
        return found

    return _asked(reactor, config, logger_of, ask)


def status(
    reactor: IReactor, peer: str | None = None, *, config: ConfigOrFile = None, logger_of: LoggerOf | None = None
) -> Deferred[dict[str, Any]]:
    """Ask the daemon at a peer what it is doing; `docs/scripting.md` describes the report of `realize status --json`.

    Here and below, None is the daemon of this machine, at its control socket: for its own user, and root.

    A daemon of another version may say more, or less.
    """
    return _asked(reactor, config, logger_of, lambda session: ask_status(session, peer))


def limits(
    reactor: IReactor, peer: str | None = None, *, config: ConfigOrFile = None, logger_of: LoggerOf | None = None
) -> Deferred[list[PeerLimit]]:
    """Ask the daemon at a peer for its limits, as far as we may see them."""
    return _asked(reactor, config, logger_of, lambda session: _limits(session, peer, None))


def set_limit(
    reactor: IReactor,
    peer: str | None,
    rate_bps: int | None,
    *,
    scope: Scope = Scope.SERVICE,
    name: str = "",
    direction: Direction = Direction.SEND,
    for_s: float | None = None,
    config: ConfigOrFile = None,
    logger_of: LoggerOf | None = None,
) -> Deferred[list[PeerLimit]]:
    """Set a limit of the daemon at a peer, None to lift it, and fire with those then in force.

    ``scope`` and ``name`` say of what: the service, a peer by its name there, or a connection by its id.
    ``for_s`` seconds later the former limit is back; by default the new one stays.
    Fails with `AccessDenied` if that is not for us to change.
    """
    check_rate(rate_bps)
    if for_s is not None and not for_s > 0:
        raise UsageError("for_s: expected a number of seconds above zero")
    change = Change(scope.value, name, direction.value, rate_bps, for_s)
    return _asked(reactor, config, logger_of, lambda session: _limits(session, peer, change))


def standing_moves(
    reactor: IReactor,
    peer: str | None = None,
    *,
    name: str | None = None,
    config: ConfigOrFile = None,
    logger_of: LoggerOf | None = None,
) -> Deferred[list[dict[str, Any]]]:
    """Ask the daemon at a peer for its standing moves, or for the one of that name: an object for each.

    `docs/protocol.md` describes them; a daemon of another version may say more, or less.
    Fails with `AccessDenied` if we are no admin there, and with `NotFound` if no move has that name.
    """
    return _asked(reactor, config, logger_of, lambda session: _moves(session, peer, name, None))


def steer_move(
    reactor: IReactor,
    name: str,
    action: Steering,
    peer: str | None = None,
    *,
    config: ConfigOrFile = None,
    logger_of: LoggerOf | None = None,
) -> Deferred[dict[str, Any]]:
    """Run, pause or resume a standing move of the daemon at a peer, and fire with what it says of it then.

    Fails as `standing_moves`, and with `Conflict` if a move is to run that is paused.
    """

    async def steer(session: Session) -> dict[str, Any]:
        [move] = await _moves(session, peer, name, action)
        return move

    return _asked(reactor, config, logger_of, steer)


def check(
    reactor: IReactor,
    target: str,
    *,
    config: ConfigOrFile = None,
    on_finding: Callable[[Finding], object] = lambda _finding: None,
    logger_of: LoggerOf | None = None,
) -> Deferred[list[Finding]]:
    """Try the way to ``PEER`` or ``PEER::DIRECTORY`` step by step, and fire with what each step found.

    ``on_finding`` is called with each as it is made; what is wrong is a finding too, and not an error.
    """
    findings: list[Finding] = []

    def take(finding: Finding) -> None:
        findings.append(finding)
        on_finding(finding)

    async def look() -> list[Finding]:
        await Checking(reactor, take, loggers_or_twisted(logger_of)).run(target, lambda: credentials_of(config))
        return findings

    return cancellable_anywhere(reactor, look())


def _asked(
    reactor: IReactor,
    config: ConfigOrFile,
    logger_of: LoggerOf | None,
    ask: Callable[[Session], Awaitable[T]],
) -> Deferred[T]:
    async def asking() -> T:
        async with Session(reactor, credentials_of(config), loggers_or_twisted(logger_of)) as session:
            return await ask(session)

    return cancellable_anywhere(reactor, asking())


async def _moves(session: Session, peer: str | None, name: str | None, action: Steering | None) -> list[dict[str, Any]]:
    moves: list[dict[str, Any]] = (await ask_moves(session, peer, name, action))["moves"]
    if name is not None and len(moves) != 1:
        raise ProtocolError("the daemon's report is not about the move that was named")
    return moves


async def _limits(session: Session, peer: str | None, change: Change | None) -> list[PeerLimit]:
    return [_limit(row) for row in await ask_limits(session, peer, change)]


def _limit(row: Mapping[str, Any]) -> PeerLimit:
    def number(name: str) -> float | None:
        value = row.get(name)
        return value if is_number(value) else None

    return PeerLimit(
        scope=str(row.get("scope")),
        name=str(row.get("name") or ""),
        direction=str(row.get("direction")),
        limit_bps=number("limit"),
        rate_bps=number("rate"),
        lasts_s=number("lasts"),
        timetable=str(row.get("timetable") or ""),
        changes_in_s=number("changes_in"),
        changes_to_bps=number("changes_to"),
    )
