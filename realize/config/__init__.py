"""The configuration: values that a program makes, or one TOML format of a file, for the daemon and the command.

The format is described in docs/configuration.md.
Nothing here imports Twisted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from realize.config.reading import read_config
from realize.config.values import Config, DirectoryConfig, LimitsConfig, LogsConfig, PeerConfig, Right, ThrottleConfig

if TYPE_CHECKING:
    from realize.config.moves import MoveConfig

__all__ = [
    "Config",
    "DirectoryConfig",
    "LimitsConfig",
    "LogsConfig",
    "MoveConfig",
    "PeerConfig",
    "Right",
    "ThrottleConfig",
    "read_config",
]


def __getattr__(name: str) -> Any:
    """`MoveConfig`, which is loaded when somebody asks for it: commands have no moves of their own."""
    if name != "MoveConfig":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from realize.config.moves import MoveConfig

    return MoveConfig
