"""Whom a command talks to, and how errors name them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from attrs import frozen

from realize.errors import RealizeError
from realize.keys import PublicKey
from realize.pasting import daemon_lines, if_there, name_for
from realize.runs.credentials import Credentials
from realize.units import display_text, format_address


@frozen
class Peer:
    """Whom to connect to: an address, and the only key that is accepted there."""

    host: str
    port: int
    pin: PublicKey

    @property
    def address(self) -> str:
        """Host and port for people."""
        return format_address(self.host, self.port)


@contextlib.contextmanager
def naming(peer: Peer) -> Iterator[None]:
    """Make errors raised in this block name the peer, unless they already do."""
    try:
        yield
    except RealizeError as error:
        if peer.address in str(error):
            raise
        raise type(error)(f"{peer.address}: {error}") from error


def no_pin(host: str, port: int, credentials: Credentials) -> str:
    """Lines to paste that tell this machine the key of a peer."""
    address = format_address(host, port)
    name = name_for(host, "NAME")
    return "\n".join(
        (
            f"{address}: the key of this peer is not known, so it cannot be told from an impostor.",
            "Give the public key that `realize keygen` printed there:"
            + (f" either with {credentials.peer_key_name} KEY," if credentials.peer_key_name else ""),
            f"{'or ' if credentials.peer_key_name else ''}by these lines in {display_text(credentials.config_name)}",
            f"({if_there(name)}):",
            *daemon_lines(name, address, "MCowBQYDK2VwAyEA..."),
        )
    )
