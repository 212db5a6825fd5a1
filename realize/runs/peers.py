"""Whom a command talks to, and how errors name them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from attrs import frozen

from realize.by_value import ByValue
from realize.errors import RealizeError
from realize.keys import PublicKey
from realize.pasting import daemon_lines, if_there, name_for
from realize.runs.credentials import Credentials
from realize.units import display_text, format_address


@frozen(eq=False, repr=False)
class Peer(ByValue):
    """Whom to connect to: an address, and the only keys that are accepted there."""

    host: str
    port: int
    pins: tuple[PublicKey, ...]
    """The newest last."""
    origin: PublicKey
    """The key that stands for the peer where it is kept what came from it."""

    @property
    def address(self) -> str:
        """Host and port for people."""
        return format_address(self.host, self.port)


@frozen(eq=False, repr=False)
class ThisMachine(ByValue):
    """The daemon of this machine, at its control socket."""

    paths: tuple[str, ...]
    """Where that may be, in the order in which they are tried."""
    config_name: str
    """Where it could be said that it is elsewhere, for people."""

    @property
    def nobody(self) -> str:
        """What to say if nobody listens there."""
        where = " or ".join(map(display_text, self.paths))
        return (
            f"no daemon answers on this machine: nobody listens at {where}; name a PEER, or start the daemon "
            f"(if its socket is elsewhere, `control` in {display_text(self.config_name)} says where)"
        )


def naming(peer: Peer) -> contextlib.AbstractContextManager[None]:
    """Make errors raised in this block name the peer, unless they already do."""
    return naming_address(peer.address)


@contextlib.contextmanager
def naming_address(address: str) -> Iterator[None]:
    """The same with what stands for the other end in messages."""
    try:
        yield
    except RealizeError as error:
        if address in str(error):
            raise
        raise type(error)(f"{address}: {error}") from error


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
