"""Which peer a key belongs to, and which peers and keys are disconnected by a reload; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from realize.config import Config, PeerConfig, Right
from realize.keys import PublicKey


def by_key(peers: Mapping[str, PeerConfig]) -> dict[PublicKey, str]:
    """The name of the peer for each key."""
    return {key: name for name, peer in peers.items() for key in peer.pins}


def by_origin(peers: Mapping[str, PeerConfig]) -> dict[PublicKey, str]:
    """The name of the peer for each key by which it is known what came from a peer."""
    return {peer.origin_key: name for name, peer in peers.items()}


def with_other_origin(before: Mapping[str, PeerConfig], after: Mapping[str, PeerConfig]) -> list[str]:
    """The names of peers of which it will not be known any more what came from them before."""
    return sorted(name for name, peer in after.items() if name in before and before[name].origin_key != peer.origin_key)


def to_disconnect(before: Config, after: Config, moved: Collection[str]) -> set[str]:
    """The names of the peers to disconnect: those that lost something, or have rights in a directory that has moved."""
    of_moved = {name for name, peer in before.peers.items() if not peer.rights.keys().isdisjoint(moved)}
    return withdrawn(before.peers, after.peers) | of_moved


def withdrawn(before: Mapping[str, PeerConfig], after: Mapping[str, PeerConfig]) -> set[str]:
    """The names of peers that lost something: their entry, a right in a directory, or being an admin.

    A key that was withdrawn ends the connections that were made with it, and no others: see `by_key`.
    """
    return {name for name, peer in before.items() if name not in after or _lost(peer, after[name])}


def _lost(before: PeerConfig, after: PeerConfig) -> bool:
    if before.admin and not after.admin:
        return True
    return any(given - _all_of(after.rights.get(name, frozenset())) for name, given in before.rights.items())


def _all_of(rights: frozenset[Right]) -> frozenset[Right]:
    """The rights, with those that they imply."""
    return rights | {Right.CREATE} if Right.WRITE in rights else rights
