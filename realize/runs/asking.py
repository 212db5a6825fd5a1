"""Questions to a daemon: what it is doing, what its limits are, and what there is at a location."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen

from realize.by_value import ByValue
from realize.errors import NotFound, ProtocolError, RealizeError, next_step
from realize.runs.peers import naming, naming_address
from realize.runs.reports import parse, parse_limits, parse_moves, parse_reload
from realize.runs.session import Session
from realize.throttle.tree import Scope
from realize.units import display_text
from realize.values import Entry, WhereKind
from realize.wire.commands import (
    MOVES_SINCE_MINOR,
    Direction,
    GetThrottle,
    Moves,
    Reload,
    SetThrottle,
    Status,
    Steering,
    SteerMove,
)
from realize.wire.connection import PeerProtocol


@frozen(eq=False, repr=False)
class Change(ByValue):
    """A limit to set: ``rate`` in bytes per second, None to lift it; for ``seconds``, or for good."""

    scope: str
    name: str
    direction: str
    rate: int | None
    seconds: float | None

    def arguments(self) -> dict[str, Any]:
        """The arguments of the command on the wire."""
        arguments: dict[str, Any] = {
            "scope": Scope(self.scope),
            "name": self.name,
            "direction": Direction(self.direction),
        }
        if self.rate is not None:
            arguments["rate"] = self.rate
        if self.seconds is not None:
            arguments["milliseconds"] = max(1, round(self.seconds * 1000))
        return arguments


async def ask_status(session: Session, text: str | None) -> dict[str, Any]:
    """What the daemon at the peer ``text`` says that it is doing; nothing in it is to be trusted.

    Here and below, None is the daemon of this machine, at its control socket.
    """
    async with _daemon(session, text) as connection:
        return parse((await connection.call(Status))["report"])


async def ask_limits(session: Session, text: str | None, change: Change | None = None) -> list[dict[str, Any]]:
    """The limits in force at the daemon of the peer ``text``, after a change if one is given."""
    async with _daemon(session, text) as connection:
        if change is not None:
            await connection.call(SetThrottle, **change.arguments())
        return parse_limits((await connection.call(GetThrottle))["report"])


async def ask_moves(
    session: Session, text: str | None, name: str | None = None, steering: Steering | None = None
) -> dict[str, Any]:
    """What the daemon at the peer ``text`` says of its standing moves, or of the one of that ``name``.

    That one is run, paused or resumed before, if that is asked for.
    """
    async with _daemon(session, text) as connection:
        theirs = connection.theirs
        if theirs is not None and theirs.minor < MOVES_SINCE_MINOR:
            raise ProtocolError(f"{display_text(theirs.software)} is too old for standing moves: upgrade it")
        if steering is not None:
            await connection.call(SteerMove, name=name, action=steering)
        return parse_moves((await connection.call(Moves, name=name))["report"])


async def ask_reload(session: Session) -> dict[str, Any]:
    """What the daemon of this machine says of a reload, for which it is asked."""
    async with _daemon(session, None) as connection:
        return parse_reload((await connection.call(Reload, patient=True))["report"])


@asynccontextmanager
async def _daemon(session: Session, text: str | None) -> AsyncIterator[PeerProtocol]:
    """The connection to a daemon, in a context in which errors name it."""
    if text is None:
        connection = await session.connected_here(session.this_machine())
        with naming_address(connection.label):
            yield connection
    else:
        peer = session.resolve_peer(text)
        connection = await session.connected(peer)
        with naming(peer):
            yield connection


async def list_location(session: Session, text: str, take: Callable[[Sequence[Entry]], object]) -> None:
    """Call ``take`` with each page of the entries at a location as it arrives, so that memory does not grow with them.

    Raises `RealizeError`, whose text names the location.
    """
    (location,) = session.resolve(text)
    try:
        store = await session.store(location)
        if (await store.open(os.urandom(16))).kind is WhereKind.ABSENT:
            raise NotFound("no such file or directory")
        listing = store.walk(partials=True)
        try:
            while page := await listing.next_page():
                take(page)
        finally:
            listing.close()
    except RealizeError as error:
        raise type(error)(f"{location}: {error}{next_step(error, str(location))}") from error
