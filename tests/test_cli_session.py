"""From locations to stores and connections: `realize.runs.session`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from realize.cli.credentials import credentials_of
from realize.cli.logs import logger_of
from realize.cli.options import Access
from realize.errors import AccessDenied, ConfigError, Interrupted, UsageError
from realize.keys import Identity, generate_identity, write_identity
from realize.locations import LocalLocation, RemoteLocation
from realize.runs.connections import SILENT_CLOSE_TIMEOUT_S, Connections
from realize.runs.peers import Peer, naming
from realize.runs.session import STORE_CLOSE_TIMEOUT_S, Session
from realize.store.client.small_files import FIRST_BATCH_BYTES, SLOW_LINK_BATCH_BYTES
from realize.store.client.store import RemoteStore
from realize.store.origin import origin_of
from realize.values import Compress
from realize.wire.commands import Reason
from realize.wire.connection import CLOSE_TIMEOUT_S
from realize.wire.traffic import Traffic

PIN = generate_identity().public_key
OTHER = generate_identity().public_key


class Connection:
    """Stands for a connected protocol."""

    def __init__(self) -> None:
        self.closed: list[tuple[Reason, float]] = []
        self.their_key = PIN
        self.alone: bool | None = None
        self.compress: Compress | None = None
        """How it is to be compressed."""

    def close(self, reason: Reason, within: float, *, alone: bool) -> None:
        """Remember why, how much time there is, and whether nobody waits for the peer."""
        self.closed.append((reason, within))
        self.alone = alone

    def traffic(self) -> Traffic:
        """What compression saved in each direction."""
        return Traffic(saved_sent=3, saved_received=4)

    def when_lost(self) -> Deferred[None]:
        """It is."""
        return succeed(None)


@pytest.fixture
def access(tmp_path: Path) -> Access:
    """A configuration that names ``hostb``, and a key."""
    write_identity(str(tmp_path / "our.key"), generate_identity())
    config = tmp_path / "realize.toml"
    config.write_text(f'key = "our.key"\n[peers.hostb]\naddress = "b.example:1234"\nkey = "{PIN.base64}"\n')
    return Access(config=str(config))


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Peer, Connection]]:
    """What would have been connected to."""
    made: list[tuple[Peer, Connection]] = []

    async def connect(connections: Connections, peer: Peer, _identity: Identity, ahead: Any) -> Any:
        made.append((peer, Connection()))
        made[-1][1].compress = connections._compress
        ahead(made[-1][1])
        return made[-1][1]

    monkeypatch.setattr(Connections, "_connect", connect)
    return made


def result_of(main: Any) -> Any:
    """Run a coroutine that waits for nothing."""
    done: list[Any] = []
    Deferred.fromCoroutine(main).addBoth(done.append)
    return done[0]


def test_a_peer_of_the_configuration_has_its_address_and_pin(access: Access) -> None:
    """The configuration says where a peer is and which key it has."""

    async def main() -> tuple[Any, ...]:
        async with Session(Clock(), credentials_of(access), logger_of) as session:
            return *session.resolve("hostb::in/x", "./y"), session.resolve_peer("hostb")

    expected = (RemoteLocation("hostb", "b.example", 1234, "in", b"x"), LocalLocation("./y"))
    assert (*expected, Peer("b.example", 1234, (PIN,), PIN)) == result_of(main())


def test_a_peer_that_locations_share_is_connected_to_once(
    access: Access, connections: list[tuple[Peer, Connection]]
) -> None:
    """Two directories of one peer share a connection, which is closed in the end."""

    async def main() -> None:
        async with Session(Clock(), credentials_of(access), logger_of) as session:
            for location in session.resolve("hostb::in", "hostb::out", "hostb::in/below"):
                await session.store(location)

    assert None is result_of(main())
    ((peer, connection),) = connections
    assert Peer("b.example", 1234, (PIN,), PIN) == peer
    assert [(Reason.DONE, CLOSE_TIMEOUT_S)] == connection.closed


def test_a_peer_is_asked_ahead_only_by_the_first_connection(
    access: Access, connections: list[tuple[Peer, Connection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an older one refuses us, it says why on the second one, where nothing is behind Hello."""
    asked: list[tuple[int, bytes]] = []
    monkeypatch.setattr(RemoteStore, "open_ahead", lambda _, salt: asked.append((len(connections), salt)))

    async def main() -> None:
        async with Session(Clock(), credentials_of(access), logger_of) as session:
            for salt in (b"first", b"second"):
                await session.store(*session.resolve("hostb::in"), salt=salt)
                await session.disconnect()

    assert None is result_of(main())
    assert (2, [(1, b"first")]) == (len(connections), asked)


def test_what_compression_saved_is_known_behind_the_end_of_a_connection(
    access: Access, connections: list[tuple[Peer, Connection]]
) -> None:
    """A run that comes back on another connection, and one that has ended, tell of all of them."""

    async def main() -> list[int]:
        async with Session(Clock(), credentials_of(access), logger_of) as session:
            saved = [session.compression_saved_bytes]
            for _ in range(2):
                await session.store(*session.resolve("hostb::in"))
                saved.append(session.compression_saved_bytes)
                await session.disconnect()
        return [*saved, session.compression_saved_bytes]

    assert [0, 7, 14, 14] == result_of(main())
    assert 2 == len(connections)


@pytest.mark.parametrize(
    ("line", "asked", "expected"),
    [
        ("", None, Compress.AUTO),
        ('compress = "never"', None, Compress.NEVER),
        ('compress = "never"', Compress.ALWAYS, Compress.ALWAYS),
        ("", Compress.NEVER, Compress.NEVER),
    ],
)
def test_an_option_outranks_what_the_configuration_says_of_compression(
    access: Access,
    connections: list[tuple[Peer, Connection]],
    line: str,
    asked: Compress | None,
    expected: Compress,
) -> None:
    """Without either, it is a matter of the line."""
    config = Path(access.config or "")
    config.write_text(f"{line}\n{config.read_text()}")

    async def main() -> None:
        async with Session(Clock(), credentials_of(access), logger_of, compress=asked) as session:
            await session.store(*session.resolve("hostb::in"))

    assert None is result_of(main())
    assert expected is connections[0][1].compress


def test_a_source_may_learn_what_is_its_own_or_local(access: Access) -> None:
    """Only a daemon that is another one than the destination is kept from finding out what is there."""

    async def main() -> list[bytes | None]:
        async with Session(Clock(), credentials_of(access), logger_of) as session:
            remote, other, local = session.resolve("hostb::out", "hostb::in", "./here")
            return [
                session.origin(source, destination)
                for source, destination in ((remote, local), (remote, other), (local, remote), (local, local))
            ]

    assert [origin_of(PIN.spki), None, None, None] == result_of(main())


def test_a_peer_is_told_of_an_interruption(access: Access, connections: list[tuple[Peer, Connection]]) -> None:
    """The daemon can log why the connection ended."""

    async def main() -> None:
        async with Session(Clock(), credentials_of(access), logger_of) as session:
            await session.store(*session.resolve("hostb::in"))
            raise Interrupted("interrupted")

    assert Interrupted is result_of(main()).type
    assert [(Reason.INTERRUPTED, CLOSE_TIMEOUT_S)] == connections[0][1].closed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hostb", ("hostb", Peer("b.example", 1234, (PIN,), PIN), None)),
        ("hostb:99", ("hostb", Peer("b.example", 99, (PIN,), PIN), None)),
        (
            "hostb::in",
            ("hostb", Peer("b.example", 1234, (PIN,), PIN), RemoteLocation("hostb", "b.example", 1234, "in", b"")),
        ),
        ("[::1]:99", (None, Peer("::1", 99, (OTHER,), OTHER), None)),
    ],
)
def test_a_peer_may_be_named_with_and_without_a_directory(access: Access, text: str, expected: tuple[Any, ...]) -> None:
    """``HOST:PORT`` is a peer, although it is no location."""

    async def main() -> Any:
        ad_hoc = OTHER.base64 if text.startswith("[") else None
        async with Session(Clock(), credentials_of(Access(access.config, peer_key=ad_hoc)), logger_of) as session:
            return session.resolve_remote(text)

    assert expected == result_of(main())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("hostb:in", "write hostb::in for"), ("./in", "'./in' is not a peer"), ("http://hostb/in", "is not a location")],
)
def test_what_is_neither_peer_nor_directory_is_a_usage_error(access: Access, text: str, expected: str) -> None:
    """The error says what to write instead."""

    async def main() -> Any:
        async with Session(Clock(), credentials_of(access), logger_of) as session:
            session.resolve_remote(text)

    failure = result_of(main())
    assert UsageError is failure.type
    assert expected in failure.getErrorMessage()


def test_an_ad_hoc_peer_needs_a_key(access: Access) -> None:
    """Without a pin nothing is connected, and the error says what to do."""

    async def main() -> Any:
        async with Session(Clock(), credentials_of(access), logger_of) as session:
            session.resolve("c.example::in")

    failure = result_of(main())
    assert ConfigError is failure.type
    assert '[peers.c]\naddress = "c.example:9771"' in failure.getErrorMessage()


def test_an_ad_hoc_peer_is_known_by_the_given_key(access: Access) -> None:
    """--peer-key is the pin of the peer that the configuration does not name."""

    async def main() -> Any:
        async with Session(Clock(), credentials_of(Access(access.config, peer_key=OTHER.base64)), logger_of) as session:
            return session.resolve_peer("c.example")

    assert Peer("c.example", 9771, (OTHER,), OTHER) == result_of(main())


def test_a_key_that_nobody_needs_is_a_usage_error(access: Access) -> None:
    """A pin is never ignored silently: the user meant somebody else than the configuration does."""

    async def main() -> Any:
        async with Session(Clock(), credentials_of(Access(access.config, peer_key=OTHER.base64)), logger_of) as session:
            session.resolve("hostb::in")

    assert UsageError is result_of(main()).type


def test_an_error_of_a_peer_names_it_once() -> None:
    """An error without address gets one, an error with it is left alone."""
    peer = Peer("::1", 9771, (PIN,), PIN)

    with pytest.raises(AccessDenied) as bare, naming(peer):
        raise AccessDenied("no")
    with pytest.raises(AccessDenied) as named, naming(peer):
        raise AccessDenied("[::1]:9771 says no")

    assert ("[::1]:9771: no", "[::1]:9771 says no") == (str(bare.value), str(named.value))


async def test_after_a_lost_connection_little_is_under_way_at_a_time(
    access: Access, connections: list[tuple[Peer, Connection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that breaks again and again is to carry something between two breaks."""
    monkeypatch.setattr(Connection, "chunk", lambda _: 1 << 20, raising=False)
    session = Session(Clock(), credentials_of(access), logger_of)
    [location] = session.resolve("hostb::inbox")

    first = (await session.store(location)).takes_at_once()
    monkeypatch.setattr(session, "_stores", [])  # there is nothing to close
    await session.disconnect()
    second = (await session.store(location)).takes_at_once()

    assert (FIRST_BATCH_BYTES, SLOW_LINK_BATCH_BYTES, 2) == (first, second, len(connections))


async def test_peers_that_do_not_answer_any_more_are_waited_for_together(
    access: Access, connections: list[tuple[Peer, Connection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run from ten directories of a daemon that hangs ends as soon as one from a single one."""
    clock = Clock()
    session = Session(clock, credentials_of(access), logger_of)
    for location in session.resolve("hostb::inbox", "hostb::other", "hostb::third"):
        store = await session.store(location)
        monkeypatch.setattr(store, "close", Deferred)

    closing = Deferred.fromCoroutine(session.disconnect())
    clock.advance(STORE_CLOSE_TIMEOUT_S)

    assert closing.called
    [(_, connection)] = connections
    assert [(Reason.DONE, SILENT_CLOSE_TIMEOUT_S)] == connection.closed


async def test_the_end_of_what_is_done_takes_no_round_trip(
    access: Access, connections: list[tuple[Peer, Connection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends before the peer has answered that it closed the directory, and does not wait for the peer."""
    session = Session(Clock(), credentials_of(access), logger_of)
    [location] = session.resolve("hostb::inbox")
    store = await session.store(location)
    closed = Deferred[None]()
    monkeypatch.setattr(store, "close", lambda: closed)

    ending = Deferred.fromCoroutine(session.disconnect(done=True))

    [(_, connection)] = connections
    assert ([(Reason.DONE, CLOSE_TIMEOUT_S)], True) == (connection.closed, connection.alone)
    closed.callback(None)
    assert ending.called


async def test_what_failed_waits_for_its_peers(
    access: Access, connections: list[tuple[Peer, Connection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something may be under way, which they keep before they answer."""
    with pytest.raises(AccessDenied):
        async with Session(Clock(), credentials_of(access), logger_of) as session:
            store = await session.store(*session.resolve("hostb::inbox"))
            monkeypatch.setattr(store, "close", lambda: succeed(None))
            raise AccessDenied("no")

    [(_, connection)] = connections
    assert False is connection.alone


async def test_who_is_cancelled_while_it_closes_waits_for_no_peer(
    access: Access, connections: list[tuple[Peer, Connection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what was asked for, and no fault to be logged."""
    session = Session(Clock(), credentials_of(access), logger_of)
    [location] = session.resolve("hostb::inbox")
    store = await session.store(location)
    monkeypatch.setattr(store, "close", Deferred)

    closing = Deferred.fromCoroutine(session.disconnect())
    closing.cancel()

    assert closing.called
    [(_, connection)] = connections
    assert [(Reason.DONE, SILENT_CLOSE_TIMEOUT_S)] == connection.closed
