"""Lines to paste into a configuration file, and the sentences that go with them.

Every message with such lines takes them from here; they are TOML as `realize.config` reads it.
"""

from __future__ import annotations

import json
import re
import socket

from realize.config.problems import BARE_KEY
from realize.config.values import RIGHTS
from realize.keys import PublicKey


def table(peer: str) -> str:
    """The header of the table of a peer."""
    return f"[peers.{_key(peer)}]"


def name_for(host: str, otherwise: str) -> str:
    """A name for the peer on a host: the host name without its domain, or ``otherwise`` if ``host`` is an address."""
    first = host.partition(".")[0]
    return first if re.fullmatch("[A-Za-z][A-Za-z0-9-]*", first) else otherwise


def own_name() -> str:
    """A name for this machine in the configuration of others."""
    return re.sub("[^A-Za-z0-9-]+", "-", socket.gethostname().partition(".")[0]).strip("-") or "peer"


def daemon_lines(peer: str, address: str, key: str) -> list[str]:
    """Lines for the configuration of a command, to reach the daemon at ``address``."""
    return [table(peer), f"address = {json.dumps(address)}", f'key = "{key}"']


def client_lines(peer: str, key: PublicKey) -> list[str]:
    """Lines for the configuration of a daemon, to serve the holder of ``key``."""
    return [table(peer), f'key = "{key.base64}"', _dirs("inbox")]


def keys_line(*keys: PublicKey) -> str:
    """The line for a peer with these keys, the newest last; it takes the place of ``key = ...``."""
    return f"keys = {json.dumps([key.base64 for key in keys])}"


def if_there(peer: str) -> str:
    """What to do if there is such a table already, since TOML does not allow a second one of the same name."""
    return f"if {table(peer)} is there already: change its lines if it is the same machine, else take another name"


def client_notes(peer: str) -> list[str]:
    """The explanation that precedes `client_lines`."""
    return [f"(inbox is one of its directories; rights: {RIGHTS};", f"{if_there(peer)}):"]


def admission(own: PublicKey) -> list[str]:
    """What to add to the configuration of a daemon, so that it accepts our key."""
    peer = own_name()
    opening = "add these lines to the configuration of the daemon there, and run realize reload there"
    return [opening, *client_notes(peer), *client_lines(peer, own)]


def right(peer: str, directory: str) -> list[str]:
    """What to add to the configuration of a daemon that knows us as ``peer``, for a right in a directory."""
    return [
        "in the configuration of the daemon there, add the directory to [dirs], if it is missing, and to the table of",
        f"this machine a right for it, beside those in dirs (rights: {RIGHTS}); then run realize reload there:",
        table(peer),
        _dirs(directory),
    ]


def _dirs(directory: str) -> str:
    return f'dirs = {{ {_key(directory)} = ["write"] }}'


def _key(text: str) -> str:
    return text if BARE_KEY.fullmatch(text) else json.dumps(text)
