"""Lines to paste into a configuration, and the sentences that go with them.

Every message that has such lines takes them from here. They are TOML as `realize.config` reads it.
"""

from __future__ import annotations

import json
import re
import socket

from realize.config import BARE_KEY, RIGHTS
from realize.keys import PublicKey


def table(peer: str) -> str:
    """The header of the table of a peer."""
    return f"[peers.{_key(peer)}]"


def name_for(host: str, otherwise: str) -> str:
    """A name for the peer on a host: its own, without its domain; ``otherwise`` if that has none, as an address."""
    first = host.partition(".")[0]
    return first if re.fullmatch("[A-Za-z][A-Za-z0-9-]*", first) else otherwise


def own_name() -> str:
    """What others may call this machine."""
    return re.sub("[^A-Za-z0-9-]+", "-", socket.gethostname().partition(".")[0]).strip("-") or "peer"


def daemon_lines(peer: str, address: str, key: str) -> list[str]:
    """For a command that shall reach the daemon at ``address``."""
    return [table(peer), f"address = {json.dumps(address)}", f'key = "{key}"']


def client_lines(peer: str, key: PublicKey) -> list[str]:
    """For a daemon that shall serve the holder of ``key``."""
    return [table(peer), f'key = "{key.base64}"', _dirs("inbox")]


def if_there(peer: str) -> str:
    """What to do where there is such a table: another one of that name would make the file no TOML."""
    return f"if {table(peer)} is there already: change its lines if it is the same machine, else take another name"


def client_notes(peer: str) -> list[str]:
    """What to know about `client_lines`, which follow."""
    return [f"(inbox is one of its directories; rights: {RIGHTS};", f"{if_there(peer)}):"]


def admission(own: PublicKey) -> list[str]:
    """What a daemon needs to know us."""
    peer = own_name()
    opening = "the daemon there needs these lines in its configuration, and then SIGHUP"
    return [opening, *client_notes(peer), *client_lines(peer, own)]


def right(peer: str, directory: str) -> list[str]:
    """What a daemon needs that knows us as ``peer``, to let us into a directory."""
    return [
        "the daemon there needs the directory in [dirs], and in the table that it has for this machine a right for it,",
        f"beside what dirs has already (rights: {RIGHTS}), and then SIGHUP:",
        table(peer),
        _dirs(directory),
    ]


def _dirs(directory: str) -> str:
    return f'dirs = {{ {_key(directory)} = ["write"] }}'


def _key(text: str) -> str:
    return text if BARE_KEY.fullmatch(text) else json.dumps(text)
