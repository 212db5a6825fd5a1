"""Which peer a key belongs to, and which peers lose rights by a reload; pure."""

from __future__ import annotations

from collections.abc import Mapping

from realize.config import PeerConfig, Right
from realize.keys import PublicKey


def by_key(peers: Mapping[str, PeerConfig]) -> dict[PublicKey, str]:
    """The name of the peer for each key."""
    return {peer.key: name for name, peer in peers.items()}


def withdrawn(before: Mapping[str, PeerConfig], after: Mapping[str, PeerConfig]) -> set[str]:
    """The names of peers that lost something: their entry, their key, a right in a directory, or being an admin."""
    return {name for name, peer in before.items() if name not in after or _lost(peer, after[name])}


def _lost(before: PeerConfig, after: PeerConfig) -> bool:
    if before.key != after.key or (before.admin and not after.admin):
        return True
    return any(given - _all_of(after.rights.get(name, frozenset())) for name, given in before.rights.items())


def _all_of(rights: frozenset[Right]) -> frozenset[Right]:
    """The rights, with those that they imply."""
    return rights | {Right.CREATE} if Right.WRITE in rights else rights
