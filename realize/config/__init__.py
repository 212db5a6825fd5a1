"""The configuration: values that a program makes, or one TOML format of a file, for the daemon and the command.

The format is described in docs/configuration.md.
Nothing here imports Twisted.
"""

from realize.config.moves import MoveConfig
from realize.config.reading import read_config
from realize.config.values import Config, DirectoryConfig, LimitsConfig, LogsConfig, PeerConfig, Right, ThrottleConfig

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
