"""Which peer a key belongs to, and who lost something by a reload."""

from __future__ import annotations

from attrs import evolve

from realize.config import PeerConfig, Right
from realize.daemon.peer_changes import by_key, withdrawn
from realize.keys import generate_identity

KEYS = [generate_identity().public_key for _ in range(3)]
BOTH = frozenset({Right.READ, Right.WRITE})
CAMERA = PeerConfig(key=KEYS[0], rights={"inbox": BOTH, "outbox": frozenset({Right.READ})})
ADMIN = PeerConfig(key=KEYS[1], admin=True)
PEERS = {"camera": CAMERA, "admin": ADMIN}


def test_a_key_belongs_to_its_peer():
    """Nobody else's key is known."""
    assert {KEYS[0]: "camera", KEYS[1]: "admin"} == by_key(PEERS)
    assert KEYS[2] not in by_key(PEERS)


def test_nothing_is_withdrawn_if_nothing_changes():
    """Equal configurations need not be the same object."""
    assert set() == withdrawn(PEERS, {name: evolve(peer) for name, peer in PEERS.items()})
    assert set() == withdrawn({}, PEERS)


def test_a_peer_that_is_gone_has_lost_all():
    """The others have lost nothing."""
    assert {"camera"} == withdrawn(PEERS, {"admin": ADMIN})
    assert {"camera", "admin"} == withdrawn(PEERS, {})


def test_a_key_that_is_another_one_is_withdrawn():
    """Whoever came with the old one may be anybody."""
    assert {"camera"} == withdrawn(PEERS, {**PEERS, "camera": evolve(CAMERA, key=KEYS[2])})


def test_an_admin_who_is_none_any_more():
    """Becoming one takes nothing away."""
    assert {"admin"} == withdrawn(PEERS, {**PEERS, "admin": evolve(ADMIN, admin=False)})
    assert set() == withdrawn(PEERS, {**PEERS, "camera": evolve(CAMERA, admin=True)})


def test_a_right_less_in_one_directory():
    """However many others are left, and whatever came in return."""
    outbox = CAMERA.rights["outbox"]
    for dirs in (
        {"inbox": frozenset({Right.READ}), "outbox": outbox},
        {"inbox": BOTH},
        {"inbox": BOTH, "outbox": frozenset({Right.WRITE, Right.REMOVE})},
        {},
    ):
        assert {"camera"} == withdrawn(PEERS, {**PEERS, "camera": evolve(CAMERA, rights=dirs, admin=True)})


def test_a_right_more_takes_nothing_away():
    """Whoever has a connection may keep it."""
    dirs = {"inbox": BOTH | {Right.REMOVE}, "outbox": BOTH, "new": BOTH}
    assert set() == withdrawn(PEERS, {**PEERS, "camera": evolve(CAMERA, rights=dirs)})
