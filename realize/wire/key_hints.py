"""Which of several keys to show in a TLS handshake: hints, which let nobody in; pure but for random numbers.

Whoever changes a key has two for a time, the new one and the former one, and not everybody knows the new one yet.
TLS shows one certificate at each end, so each end has to learn which of its keys the other one accepts, before it shows
one:

* The connecting side says in the server name of its ClientHello which keys it has pinned (`server_name`), and the
  accepting side shows the first of its keys that is among them (`wanted`).
* A connecting side with several keys of its own offers them as application protocols (ALPN, `offers`), and the
  accepting side answers with the first one that it knows (`known_offer`); the answer is encrypted.

A hint names a key by a tag: a hash of the key and of a salt, which is another one in each handshake.  Who does not know
the key cannot tell from it which one is meant, nor that two connections mean the same; and the number of pinned keys
does not show.
A hint proves nothing, and nothing is accepted because of it: whichever key is shown, it is compared with the pinned
ones, and TLS proves that its owner has it.  A wrong hint leads to a handshake that fails.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from typing import Final

from blake3 import blake3

from realize.keys import MAX_KEYS, PublicKey

TAG_BYTES: Final = 6
"""Length of a tag, and of the salt: a label of a server name has room for as many tags as there may be keys."""

_TAG_CONTEXT: Final = "realize hint at a public key 1"
_TAG_CHARS: Final = 2 * TAG_BYTES
_NAME: Final = re.compile(rb"k([0-9a-f]{%d})([0-9a-f]{%d})\.invalid" % (_TAG_CHARS, _TAG_CHARS * MAX_KEYS))
_OFFER: Final = re.compile(rb"k([0-9a-f]{%d})([0-9a-f]{%d})" % (_TAG_CHARS, _TAG_CHARS))


def server_name(pins: Sequence[PublicKey]) -> bytes:
    """The server name that says which keys are accepted; below ``.invalid``, so that it never is anybody's (RFC 6761).

    All have the same length, however many keys there are.
    """
    salt = secrets.token_bytes(TAG_BYTES)
    tags = [_tag(salt, pin) for pin in pins[:MAX_KEYS]]
    tags += [secrets.token_bytes(TAG_BYTES) for _ in range(MAX_KEYS - len(tags))]
    return b"k%b%b.invalid" % (salt.hex().encode(), b"".join(tags).hex().encode())


def wanted(name: bytes | None, own: Sequence[PublicKey]) -> int:
    """The index of the first of our keys that a server name says is accepted; 0 if it says nothing of the kind."""
    found = _NAME.fullmatch(name or b"")
    if found is None:
        return 0
    salt, tags = (bytes.fromhex(part.decode()) for part in found.groups())
    accepted = {tags[start : start + TAG_BYTES] for start in range(0, len(tags), TAG_BYTES)}
    return next((index for index, key in enumerate(own) if _tag(salt, key) in accepted), 0)


def offers(own: Sequence[PublicKey]) -> list[bytes]:
    """An application protocol for each of our keys, in the same order."""
    salt = secrets.token_bytes(TAG_BYTES)
    return [b"k%b%b" % (salt.hex().encode(), _tag(salt, key).hex().encode()) for key in own]


def known_offer(offered: Sequence[bytes], known: Iterable[PublicKey]) -> bytes | None:
    """The first offer that is for a known key; None if there is none.

    At most `MAX_KEYS` offers with one salt are looked at, so that nobody has us hash for long.
    """
    parsed = [(found, each) for each in offered[:MAX_KEYS] if (found := _OFFER.fullmatch(each)) is not None]
    if not parsed:
        return None
    salt = bytes.fromhex(parsed[0][0][1].decode())
    tags = {_tag(salt, key).hex().encode() for key in known}
    return next((each for found, each in parsed if found[1] == parsed[0][0][1] and found[2] in tags), None)


def _tag(salt: bytes, key: PublicKey) -> bytes:
    return blake3(salt + key.spki, derive_key_context=_TAG_CONTEXT).digest(TAG_BYTES)
