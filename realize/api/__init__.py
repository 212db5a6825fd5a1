"""Move files from Python, as the command does: ``await move(reactor, ["/data/out"], "nas::inbox")``.

What is listed here, in `realize.api.events` and in `realize.errors` is public and stays; docs/api.md shows it at work.
Every function returns a Deferred; `in_asyncio` and `blocking` are for programs that know none.
"""

from realize.api.bridges import asyncio_reactor, blocking, in_asyncio
from realize.api.moves import Place, copy, move
from realize.api.questions import (
    PeerLimit,
    check,
    limits,
    list_files,
    set_limit,
    standing_moves,
    status,
    steer_move,
)
from realize.config import Config, DirectoryConfig, PeerConfig, Right, read_config
from realize.errors import ConfigError, ConnectionFailed, RealizeError, UsageError
from realize.exit_codes import ExitCode
from realize.keys import Identity, PublicKey, generate_identity, load_identity, parse_public_key
from realize.runs.check_findings import Finding, Result
from realize.runs.move_options import MoveOptions
from realize.runs.options import MetricsTargets
from realize.runs.summary import Summary
from realize.throttle.tree import Scope
from realize.values import Compress, Entry, Kind, Links, OnConflict, Order, Preserve
from realize.wire.commands import Direction, Steering

__all__ = [
    "Compress",
    "Config",
    "ConfigError",
    "ConnectionFailed",
    "Direction",
    "DirectoryConfig",
    "Entry",
    "ExitCode",
    "Finding",
    "Identity",
    "Kind",
    "Links",
    "MetricsTargets",
    "MoveOptions",
    "OnConflict",
    "Order",
    "PeerConfig",
    "PeerLimit",
    "Place",
    "Preserve",
    "PublicKey",
    "RealizeError",
    "Result",
    "Right",
    "Scope",
    "Steering",
    "Summary",
    "UsageError",
    "asyncio_reactor",
    "blocking",
    "check",
    "copy",
    "generate_identity",
    "in_asyncio",
    "limits",
    "list_files",
    "load_identity",
    "move",
    "parse_public_key",
    "read_config",
    "set_limit",
    "standing_moves",
    "status",
    "steer_move",
]
