"""Addresses of peers, and endpoint strings, as the configuration and the command take them; pure."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from realize.errors import UsageError
from realize.units import (
    quoted,
)

DEFAULT_PORT: Final = 9771
"""The TCP port of a daemon unless another one is configured."""

LISTEN_BACKLOG: Final = 1_024
"""Connections that may wait to be accepted; the kernel caps this at its ``net.core.somaxconn``."""

# Types of endpoints whose strings look like HOST:PORT if they have one argument.
_ENDPOINTS: Final = frozenset({"haproxy", "ssl", "stdio", "systemd", "tcp", "tcp6", "throttle", "tls", "unix"})

# Patterns are compiled when they are used; a short run needs the last one.
_TCP: Final = r"(?s)tcp6?:(?:port=)?([^:=]*)(?::.*|$)"

_LOOPBACK: Final = {"tcp": "127.0.0.1", "tcp6": r"\:\:1"}

# Matches an argument named interface, or a second positional argument.
_INTERFACE: Final = r"(?s):(?:interface=|(?:[^:=\\]|\\.)+(?::|$))"

_ENDPOINT: Final = r"(?s)[A-Za-z][A-Za-z0-9_.+-]*:(?!:).*"

_ADDRESS: Final = r"(?s)(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>.*))?"

_NOT_IN_HOSTS: Final = frozenset(" /@\\?#=%'\"")


def server_endpoint(text: str) -> str:
    """The Twisted server endpoint string for ``HOST:PORT`` or ``[IPV6]:PORT``; an endpoint string stays as it is.

    So does ``*:PORT``, all addresses of IPv4 and IPv6, which no string of Twisted means (`port_of_every_address`).
    Port 0 stands for any free port.
    Whether a plugin supports the endpoint string is not checked here; listening fails if none does.
    Raises `UsageError`.
    """
    word, colon, rest = text.partition(":")
    if port_of_every_address(text) is not None:
        return text
    if text.startswith("[") or (colon and word not in _ENDPOINTS and _is_host(word) and rest.isdecimal()):
        host, port = parse_address(text, None, zero_allowed=True)
        escaped = re.sub(r"([\\:=])", r"\\\1", host)
        return f"tcp:{port}:interface={escaped}"
    tcp = re.fullmatch(_TCP, text)
    if (
        not re.fullmatch(_ENDPOINT, text)
        or (tcp and _port(tcp[1], zero_allowed=True) is None)
        or re.search(r"(?<!\\)(?:\\\\)*\\$", text)
    ):
        raise UsageError(
            f"{quoted(text)} is not something to listen on: write *:PORT, HOST:PORT, [IPV6]:PORT or a Twisted server "
            f"endpoint string such as tcp:{DEFAULT_PORT}"
        )
    return text


def port_of_every_address(text: str) -> int | None:
    """The port of ``*:PORT``, which is to listen at all addresses; None for anything else."""
    host, _, port = text.partition(":")
    return _port(port, zero_allowed=True) if host == "*" else None


def with_backlog(endpoint: str) -> str:
    """The server endpoint string, with a backlog of `LISTEN_BACKLOG` added if it is for TCP and has none."""
    kind, _, rest = endpoint.partition(":")
    arguments = re.split(r"(?<!\\):", rest)
    positional = [each for each in arguments if not re.match(r"[a-z]+=", each)]
    if kind not in _LOOPBACK or len(positional) > 2 or any(each.startswith("backlog=") for each in arguments):
        return endpoint
    return f"{endpoint}:backlog={LISTEN_BACKLOG}"


def metrics_endpoint(text: str) -> str:
    """The Twisted server endpoint string for metrics: like `server_endpoint`, but on loopback by default.

    ``PORT``, ``:PORT`` and ``tcp:PORT`` can be reached from this machine only; for other machines, the address must say
    so, such as ``192.0.2.1:PORT``, or ``*:PORT`` for all of this machine.
    Raises `UsageError`.
    """
    bare = text.removeprefix(":")
    if bare.isdecimal():
        return server_endpoint(f"127.0.0.1:{bare}")
    endpoint = server_endpoint(text)
    word, _, rest = endpoint.partition(":")
    if word in _LOOPBACK and not re.search(_INTERFACE, rest):
        return f"{endpoint}:interface={_LOOPBACK[word]}"
    return endpoint


def parse_address(text: str, default_port: int | None = DEFAULT_PORT, *, zero_allowed: bool = False) -> tuple[str, int]:
    """Host and port of ``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``; the host is returned without brackets.

    If ``default_port`` is None, the port is required.
    Raises `UsageError`.
    """
    match = re.fullmatch(_ADDRESS, text)
    host = (match["ipv6"] if match["host"] is None else match["host"]) if match else ""
    valid = match is not None and (_is_ipv6(host) if match["host"] is None else _is_host(host))
    if match is None or not valid:
        raise UsageError(
            f"{quoted(text)} is not an address: write HOST, HOST:PORT, [IPV6] or [IPV6]:PORT (an IPv6 address needs "
            "its brackets)"
        )
    if match["port"] is None and default_port is not None:
        return host, default_port
    port = _port(match["port"] or "", zero_allowed=zero_allowed)
    if port is None:
        raise UsageError(f"{quoted(text)} has no valid port: after the colon comes a number from 1 to 65535")
    return host, port


def _port(text: str, *, zero_allowed: bool) -> int | None:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        return None
    port = int(text)
    return port if (0 if zero_allowed else 1) <= port <= 65_535 else None


def _is_host(text: str) -> bool:
    return 0 < len(text) < 254 and text.isprintable() and _NOT_IN_HOSTS.isdisjoint(text) and text[0] not in {"-", "."}


def _is_ipv6(text: str) -> bool:
    address, percent, zone = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or bool(re.fullmatch(r"[A-Za-z0-9._-]+", zone))
