"""Spread what many machines do at the same time by the clock.

The same machine gets the same delay each time for the same thing, so that what it does stays regular.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

_DRAWN_BYTES: Final = 8


def jitter(name: str, seed: bytes, spread_s: float) -> float:
    """A delay in seconds, from 0 to below ``spread_s``, that depends on the name of a move and a seed of the machine.

    The seed is of any length, the same each time, and another one on each machine.
    """
    keyed = blake2b(seed, digest_size=blake2b.MAX_KEY_SIZE).digest()
    drawn = blake2b(name.encode("utf-8", "surrogateescape"), key=keyed, digest_size=_DRAWN_BYTES).digest()
    return spread_s * (int.from_bytes(drawn, "big") >> 11) / (1 << 53)
