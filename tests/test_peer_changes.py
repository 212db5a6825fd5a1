"""Which peer a key belongs to, and who lost something by a reload."""

from __future__ import annotations

from attrs import evolve

from realize.config import PeerConfig, Right
from realize.daemon.peer_changes import by_key, by_origin, with_other_origin, withdrawn
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


def test_each_key_of_a_peer_is_its_own():
    """While it changes its key, it may come with either."""
    assert {KEYS[0]: "camera", KEYS[2]: "camera"} == by_key({"camera": PeerConfig(keys=[KEYS[0], KEYS[2]])})


def test_another_key_takes_nothing_from_the_peer():
    """The connections that were made with a key end with it, and the others of that peer stay."""
    assert set() == withdrawn(PEERS, {**PEERS, "camera": evolve(CAMERA, key=KEYS[2])})


def test_whose_origin_changes_is_known():
    """Neither who has one more key, nor who keeps its first one as the origin, nor who is new."""
    before = {"camera": CAMERA}
    rights = CAMERA.rights
    both = PeerConfig(keys=[KEYS[0], KEYS[2]], rights=rights)
    turned = PeerConfig(keys=[KEYS[2], KEYS[0]], rights=rights)
    kept = PeerConfig(KEYS[2], origin=KEYS[0], rights=rights)
    lost = PeerConfig(KEYS[2], rights=rights)

    found = [with_other_origin(before, {"camera": each, "admin": ADMIN}) for each in (both, kept, turned, lost)]
    assert [[], [], ["camera"], ["camera"]] == found
    assert [] == with_other_origin({"camera": both}, {"camera": kept})
    assert [] == with_other_origin(before, {})


def test_an_origin_belongs_to_its_peer():
    """It is the first key, unless there is another one."""
    both = PeerConfig(keys=[KEYS[0], KEYS[1]])

    assert {KEYS[0]: "camera"} == by_origin({"camera": both})
    assert {KEYS[2]: "camera"} == by_origin({"camera": evolve(both, origin=KEYS[2])})


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
