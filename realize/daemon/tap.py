"""The door for ``twistd``: options, and the service they describe.

The configuration is read here, so that a bad one ends the program before it listens or becomes a daemon.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.python import usage

from realize.config import Config, metrics_endpoint, read_config
from realize.errors import RealizeError
from realize.keys import Identity, load_identity
from realize.units import parse_duration

DEFAULT_CONFIG = "/etc/realize/realized.toml"


class Options(usage.Options):
    """The command line behind ``twistd realized``."""

    synopsis = "[--config FILE] [--drain DUR] [--metrics-addr ADDR]"
    longdesc = "Serves directories to the peers that the configuration names. SIGHUP reads the configuration again."
    optParameters: ClassVar[list[Any]] = [
        ["config", "c", DEFAULT_CONFIG, "The configuration file (TOML)."],
        ["metrics-addr", None, None, "Where to serve metrics, such as 9772 or 0.0.0.0:9772 [default: the file's]."],
        ["drain", None, None, "How long a stopping daemon lets what runs finish, such as 10s [default: the file's]."],
    ]

    config: Config
    identity: Identity
    drain: float | None = None
    """Seconds; None for what the configuration says."""
    metrics: str | None = None
    """Twisted server endpoint string; None for what the configuration says."""

    def postOptions(self) -> None:
        """Read what the file names; all that is wrong is a usage error."""
        self["config"] = os.path.abspath(self["config"])
        try:
            self.config = read_config(self["config"], for_daemon=True)
            self.identity = load_identity(self.config.key)
            if self["metrics-addr"] is not None:
                self.metrics = metrics_endpoint(self["metrics-addr"])
            if self["drain"] is not None:
                self.drain = parse_duration(self["drain"], zero_allowed=True)
        except RealizeError as error:
            raise usage.UsageError(str(error)) from error


def makeService(options: Options) -> IService:
    """The daemon as a service; nothing is opened before it starts."""
    from twisted.internet import reactor

    from realize.daemon.service import Realized
    from realize.telemetry.logs import configure

    configure(options.config.logs.level, options.config.logs.format)
    return Realized(
        options["config"], options.config, options.identity, reactor, drain=options.drain, metrics=options.metrics
    )
