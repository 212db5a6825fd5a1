"""Tries the way to a peer step by step, and says what each step found.

Nothing is tried twice, each step has a time limit, and a step that needs one that failed is skipped.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NoReturn, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorFromThreads

from realize import __version__
from realize.concurrency.reactor import IReactor
from realize.errors import AccessDenied, ConfigError, ConnectionFailed, RealizeError, Unavailable
from realize.keys import PublicKey
from realize.locations import RemoteLocation
from realize.logger import LoggerOf
from realize.pasting import right, table
from realize.runs.check_findings import (
    Finding,
    Result,
    durable,
    key_change,
    limits,
    not_recognised,
    not_welcome,
    rights,
    room,
    skew,
    split_advice,
    their_keys,
    unreachable,
)
from realize.runs.credentials import Credentials
from realize.runs.peers import Peer
from realize.runs.reports import lowest, parse, parse_limits
from realize.runs.session import Session
from realize.store.client.store import RemoteStore
from realize.units import display_text
from realize.values import WhereKind
from realize.wire.client import ConnectingProtocol
from realize.wire.commands import MAJOR, MINOR, GetThrottle, Status
from realize.wire.connection import PeerProtocol

T = TypeVar("T")

STEP_TIMEOUT_S: Final = 10.0
"""The longest that a step may take, in seconds."""

ROUND_TRIPS: Final = 3
"""How many round trips are measured; the shortest one counts."""

OF_THE_WAY: Final = ("config", "own key", "name", "port", "their key", "known there", "versions")
OF_THE_PEER: Final = ("round trip", "limits", "connections", "key change")
OF_THE_DIRECTORY: Final = ("directory", "rights", "clock", "space", "durable write")


class _StepFailed(Exception):
    """A step failed, and later steps need it."""


class Checking:
    """One check; ``show`` is called with each finding as it is made."""

    def __init__(
        self,
        reactor: IReactor,
        show: Callable[[Finding], object],
        logger_of: LoggerOf,
    ) -> None:
        self._reactor = reactor
        self._show = show
        self._logger_of = logger_of
        self._findings: list[Finding] = []
        self._their_keys: list[PublicKey] = []
        """The keys that the daemon says it has."""

    def count(self, result: Result) -> int:
        """How many steps ended with this result."""
        return sum(finding.result is result for finding in self._findings)

    async def run(self, target: str, credentials: Callable[[], Credentials]) -> None:
        """Check everything that can be checked; raises `UsageError` if ``target`` is not a target.

        ``credentials`` makes them, which is the first step.
        """
        try:
            await self._check(target, credentials)
        except _StepFailed:
            done = {finding.step for finding in self._findings}
            for step in (*OF_THE_WAY, *OF_THE_PEER, *OF_THE_DIRECTORY):
                if step not in done:
                    self._note(step, "needs the step that failed above", result=Result.SKIPPED)

    async def _check(self, target: str, credentials: Callable[[], Credentials]) -> None:
        try:
            session = Session(self._reactor, credentials(), self._logger_of)
        except ConfigError as error:
            self._fail("config", *split_advice(error))
        async with session:
            try:
                name, peer, location = session.resolve_remote(target)
            except ConfigError as error:
                self._fail("config", *split_advice(error))
            of_file = f"{table(name or '')} of {display_text(session.credentials.config_name)}"
            told = session.credentials.peer_key_name if name is None else of_file
            self._note("config", f"{peer.address}, known by {told}")
            try:
                own, *former = [identity.public_key for identity in session.credentials.identities()]
            except ConfigError as error:
                self._fail("own key", *split_advice(error))
            and_former = f"; {len(former)} former" if former else ""
            of_key = f"in {display_text(session.credentials.key_name)}, for nobody else to read"
            self._note("own key", f"{own.fingerprint} {of_key}{and_former}")
            await self._look_up(peer.host)
            protocol = await self._connect(session, peer, name)
            await self.examine_peer(protocol)
            self._look_at_keys(protocol, peer, (own, *former), None if name is None else of_file)
            if location is None:
                for step in OF_THE_DIRECTORY:
                    self._note(step, "no directory was named: PEER::DIR checks it too", result=Result.SKIPPED)
            else:
                await self.examine_directory(protocol, location)

    async def _look_up(self, host: str) -> None:
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            pass
        else:
            self._note("name", f"{host} is an address")
            return
        try:
            addresses = await self._within(_addresses(self._reactor, host))
        except (OSError, UnicodeError, RealizeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            advice = "is the name right? An address of the machine does as well, as does a line in /etc/hosts"
            self._fail("name", f"{display_text(host)} cannot be looked up: {reason}", [advice])
        self._note("name", f"{display_text(host)} is {', '.join(addresses)}")

    async def _connect(self, session: Session, peer: Peer, name: str | None) -> ConnectingProtocol:
        error: RealizeError | None = None
        try:
            protocol = await self._within(Deferred.fromCoroutine(session.connected(peer)))
        except RealizeError as failed:
            error = failed
        attempt = session.attempt
        if error is not None and (attempt is None or not attempt.reached):
            self._fail_with(unreachable(error))
        self._note("port", f"{peer.address} accepts connections")
        if error is not None and attempt is not None and not attempt.recognised:
            self._fail_with(not_recognised(error, name, session.credentials.config_name))
        shown = None if attempt is None else attempt.their_key
        of_several = f", one of {len(peer.pins)} that are" if len(peer.pins) > 1 else ", as"
        self._note("their key", f"{(shown or peer.pins[-1]).fingerprint}{of_several} pinned")
        if error is not None:
            *others, last = not_welcome(error, session.credentials.identities()[0].public_key)
            for finding in others:
                self._add(finding)
            self._fail_with(last)
        self._note("known there", f"as {display_text(protocol.name)}")
        if theirs := protocol.theirs:
            there = f"{display_text(theirs.software)} with protocol {theirs.major}.{theirs.minor}"
            self._note("versions", f"realize {__version__} with protocol {MAJOR}.{MINOR} here, {there} there")
        return protocol

    def _look_at_keys(
        self, protocol: ConnectingProtocol, peer: Peer, ours: Sequence[PublicKey], where: str | None
    ) -> None:
        """Whether one of the ends changes its key; what the daemon says of its keys came with its report."""
        self._add(key_change(where, self._their_keys, peer.pins, peer.origin, ours, protocol.own_key or ours[0]))

    async def examine_peer(self, protocol: PeerProtocol) -> None:
        """What the peer as a whole says of itself."""

        async def trips() -> str:
            times = []
            for _ in range(ROUND_TRIPS):
                began = time.monotonic()
                answer = await protocol.call(GetThrottle)
                times.append(time.monotonic() - began)
            self._note("round trip", f"{min(times) * 1000:.1f} ms")
            return str(answer["report"])

        report = await self._step("round trip", trips())
        if report is None:
            self._note("limits", "needs the step that failed above", result=Result.SKIPPED)
        else:
            await self._step("limits", self._limits(report))
        await self._step("connections", self._connections(protocol))

    async def _limits(self, report: str) -> None:
        rows = parse_limits(report)
        self._add(limits(lowest(rows, "send"), lowest(rows, "receive")))

    async def _connections(self, protocol: PeerProtocol) -> None:
        report = parse((await protocol.call(Status))["report"])
        self._their_keys = their_keys(report)
        shown, transfers = report.get("connections"), report.get("transfers")
        if isinstance(shown, list) and isinstance(transfers, list):
            self._note("connections", f"{len(shown)} visible to us, including this one; {len(transfers)} transfers")
        else:
            self._note("connections", "this daemon does not tell", result=Result.SKIPPED)

    async def examine_directory(self, protocol: PeerProtocol, location: RemoteLocation) -> None:
        """What can be done in a directory of the peer; nothing is left behind there."""
        store = RemoteStore(protocol, location.directory, location.path)
        before_ns = time.time_ns()
        try:
            where = await self._within(store.open(os.urandom(16)))
        except AccessDenied as error:
            self._fail("directory", str(error), right(protocol.name, location.directory))
        except Unavailable as error:
            advice = [
                "mount its disk, or make the directory, on the machine of the daemon; the daemon notices by itself"
            ]
            self._fail("directory", str(error), advice)
        except RealizeError as error:
            self._fail("directory", str(error), ["look at that directory on the machine of the daemon"])
        after_ns = time.time_ns()
        missing = "is not there yet, and would be made" if where.kind is WhereKind.ABSENT else "is there"
        self._note("directory", f"{location} {missing}")
        self._add(rights(store.rights, protocol.name))
        self._add(skew(where.now_ns, before_ns, after_ns))
        await self._step("space", self._space(store))
        if {"write", "create"} & set(store.rights):
            await self._step("durable write", self._durable_write(store))
        else:
            self._note("durable write", "this peer has no right to write there", result=Result.SKIPPED)
        try:
            await self._within(store.close())
        except RealizeError:
            return  # it is closed with the connection

    async def _space(self, store: RemoteStore) -> None:
        self._add(room(await store.space()))

    async def _durable_write(self, store: RemoteStore) -> None:
        self._add(durable(await store.try_write()))

    async def _step(self, step: str, work: Coroutine[Any, Any, T]) -> T | None:
        """Await a step on which no other depends; None if it failed, which is noted."""
        try:
            return await self._within(Deferred.fromCoroutine(work))
        except RealizeError as error:
            self._add(Finding(step, Result.FAILED, str(error), ["see to that on the machine of the daemon"]))
            return None

    async def _within(self, work: Deferred[T]) -> T:
        try:
            return await work.addTimeout(STEP_TIMEOUT_S, self._reactor)
        except DeferredTimeout as error:
            raise ConnectionFailed(f"no answer within {STEP_TIMEOUT_S:g} seconds") from error

    def _note(self, step: str, found: str, *, result: Result = Result.OK) -> None:
        self._add(Finding(step, result, found))

    def _fail(self, step: str, found: str, mend: Sequence[str]) -> NoReturn:
        self._fail_with(Finding(step, Result.FAILED, found, mend))

    def _fail_with(self, finding: Finding) -> NoReturn:
        self._add(finding)
        raise _StepFailed

    def _add(self, finding: Finding) -> None:
        self._findings.append(finding)
        self._show(finding)


def _addresses(reactor: IReactorFromThreads, host: str) -> Deferred[list[str]]:
    """Look up the addresses of a host, in a daemon thread: a name server may hang, and must not delay our exit."""
    found: Deferred[list[str]] = Deferred()

    def answer(result: list[str] | BaseException) -> None:
        if isinstance(result, BaseException):
            found.errback(result)
        else:
            found.callback(result)

    def look_up() -> None:
        result: list[str] | BaseException
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            result = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except (OSError, UnicodeError) as error:
            result = error
        reactor.callFromThread(answer, result)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    return found
