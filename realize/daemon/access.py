"""Which peer a key belongs to, and what a reload takes away; pure."""

from __future__ import annotations

from collections.abc import Mapping

from realize.config import PeerConfig, Right
from realize.keys import PublicKey


def by_key(peers: Mapping[str, PeerConfig]) -> dict[PublicKey, str]:
    """The name of the peer that each key belongs to."""
    return {peer.key: name for name, peer in peers.items()}


def withdrawn(before: Mapping[str, PeerConfig], after: Mapping[str, PeerConfig]) -> set[str]:
    """Names of the peers that lost something: the key they came with, a right, or being an admin."""
    return {name for name, peer in before.items() if name not in after or _lost(peer, after[name])}


def _lost(before: PeerConfig, after: PeerConfig) -> bool:
    if before.key != after.key or (before.admin and not after.admin):
        return True
    return any(rights - _all_of(after.dirs.get(name, frozenset())) for name, rights in before.dirs.items())


def _all_of(rights: frozenset[Right]) -> frozenset[Right]:
    """With those that are part of others."""
    return rights | {Right.CREATE} if Right.WRITE in rights else rights
