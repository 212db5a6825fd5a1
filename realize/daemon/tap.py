"""The ``twistd`` plugin: its options, and the service that they describe.

The configuration is read here, so that a bad one ends the program before it listens or daemonizes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, TypeVar, cast

from twisted.application.app import ServerOptions
from twisted.application.service import IService
from twisted.python import usage

from realize.clocks import use_monotonic_clock
from realize.config import Config, read_config
from realize.config.addresses import metrics_endpoint
from realize.config.control import daemon_control_path
from realize.config.problems import as_lines
from realize.daemon.logs import DaemonLogOptions, DaemonLogs, absolute, complain
from realize.errors import ConfigError, RealizeError, UsageError
from realize.exit_codes import DaemonExitCode
from realize.levels import FORMATS, parse_levels
from realize.moves.plan import plans_of
from realize.process import hold_standard_streams
from realize.units import display_text, parse_duration, quoted

T = TypeVar("T")

DEFAULT_CONFIG = "/etc/realize/realized.toml"


class Options(usage.Options):
    """The command line behind ``twistd realized``."""

    synopsis = (
        "[--config FILE] [--drain DUR] [--metrics-addr ADDR] "
        "[--log-level LEVEL] [--log-format FORMAT] [--log-file FILE]"
    )
    longdesc = "Serves directories to the peers that the configuration names. SIGHUP reads the configuration again."
    optParameters: ClassVar[list[Any]] = [
        ["config", "c", DEFAULT_CONFIG, "The configuration file (TOML)."],
        ["metrics-addr", None, None, "Where to serve metrics, such as 9772 or 0.0.0.0:9772 [default: the file's]."],
        ["drain", None, None, "How long a stopping daemon lets what runs finish, such as 10s [default: the file's]."],
        ["log-level", None, None, "What is logged, such as info or info,wire=debug [default: the file's, or info]."],
        ["log-format", None, None, f"How: {', '.join(FORMATS)} [default: the file's, or auto]."],
        ["log-file", None, None, "Where, instead of stderr; SIGUSR1 opens it anew [default: the file's]."],
    ]

    config: Config
    control: str | None = None
    """Where the control socket is unless the configuration says."""
    state: str | None = None
    """The state directory unless the configuration says: the one that systemd has made for the unit."""
    drain: float | None = None
    """Drain time in seconds; None for the configured one."""
    metrics: str | None = None
    """Twisted server endpoint string; None for the configured one."""
    logs: DaemonLogOptions = DaemonLogOptions()

    def parseOptions(self, options: Any = None) -> None:
        """Parse the words behind ``realized``; nonsense ends the program like a wrong configuration does."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            complain(UsageError(str(error)))
            raise SystemExit(DaemonExitCode.CONFIGURATION) from error

    def parseArgs(self, *words: str) -> None:
        """There are options only."""
        if words:
            raise usage.UsageError(f"{display_text(words[0])}: the daemon takes options only")

    def postOptions(self) -> None:
        """Read the configuration and the key; an error ends the program, without printing twistd's usage first."""
        self["config"] = os.path.abspath(self["config"])
        try:
            self.control = daemon_control_path(os.environ)
            self.state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or None
            self.config = read_config(self["config"], for_daemon=True, control=self.control)
            _check_moves(self.config, self["config"])
            self.config.identity()
            self.metrics = self._parsed("metrics-addr", metrics_endpoint)
            self.drain = self._parsed("drain", partial(parse_duration, zero_allowed=True))
            self.logs = DaemonLogOptions(
                self._parsed("log-level", parse_levels),
                self._parsed("log-format", _log_format),
                absolute(self["log-file"]),
            )
        except RealizeError as error:
            complain(error)
            raise SystemExit(DaemonExitCode.CONFIGURATION) from error

    def _parsed(self, option: str, parse: Callable[[str], T]) -> T | None:
        """The value of an option, or None if it was not given; raises `UsageError` that names the option."""
        value = self[option]
        try:
            return None if value is None else parse(value)
        except RealizeError as error:
            raise UsageError(f"--{option}: {error}") from error


def _check_moves(config: Config, path: str) -> None:
    """Raise `ConfigError` for what is wrong with standing moves, in the words of the file at ``path``."""
    try:
        plans_of(config)
    except ConfigError as error:
        raise ConfigError(as_lines(f"{display_text(path)}: ", error.problems)) from error


def _log_format(text: str) -> str:
    if text not in FORMATS:
        raise UsageError(f"{quoted(text)} is none of {', '.join(FORMATS)}")
    return text


def makeService(options: Options) -> IService:
    """The daemon as a Twisted service; it opens nothing before it is started."""
    from twisted.internet import reactor

    from realize.concurrency.reactor import IReactor
    from realize.daemon.service_manager import ServiceManager
    from realize.daemon.twistd_service import Overrides, TwistdService

    hold_standard_streams()
    use_monotonic_clock(reactor)
    runner = options.parent if isinstance(options.parent, ServerOptions) else {}
    logs = DaemonLogs(options.config.logs, options.logs, runner)
    return TwistdService(
        options["config"],
        options.config,
        cast("IReactor", reactor),
        logs=logs,
        overrides=Overrides(options.drain, options.metrics),
        manager=ServiceManager.of_environment(os.environ),
        in_background=bool(runner) and not runner.get("nodaemon"),
        control=options.control,
        state=options.state,
    )
