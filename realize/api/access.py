"""Who a program is, and whom it knows: a configuration of its own, or the file that the command uses."""

from __future__ import annotations

import os
from typing import Final, TypeAlias

from twisted.logger import Logger as TwistedLogger

from realize.config import Config
from realize.logger import LoggerOf
from realize.runs.credentials import Credentials, FileCredentials, GivenCredentials
from realize.telemetry.logging.twisted_events import TwistedEvents

ConfigOrFile: TypeAlias = Config | str | os.PathLike[str] | None
"""A configuration, the name of a file that has one, or None for the file that the command reads by default."""

_log: Final = TwistedLogger("realize.api")


def warn(sentence: str) -> None:
    """Log what a user of the command would be warned of."""
    _log.warn("{sentence}", sentence=sentence)


def credentials_of(config: ConfigOrFile) -> Credentials:
    """Our identity and the peers we know; raises `realize.errors.ConfigError` for a file that makes no sense."""
    if isinstance(config, Config):
        return GivenCredentials(config)
    return FileCredentials(None if config is None else os.fspath(config), warn)


def loggers_or_twisted(logger_of: LoggerOf | None) -> LoggerOf:
    """The loggers that a program gave, or those whose records are events of Twisted's log."""
    return TwistedEvents().of if logger_of is None else logger_of


def location_text(location: str | os.PathLike[str]) -> str:
    """A location as on the command line; a path-like object is always a path of this machine."""
    if isinstance(location, str):
        return location
    path = os.fsdecode(os.fspath(location))
    return path if os.path.isabs(path) else os.path.join(os.curdir, path)
