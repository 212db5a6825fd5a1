"""The ``twistd`` plugin: its options, and the service that they describe.

The configuration is read here, so that a bad one ends the program before it listens or daemonizes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NoReturn, TypeVar, cast

from twisted.application.app import ServerOptions
from twisted.application.service import IService
from twisted.python import usage

from realize import __version__
from realize.clocks import use_monotonic_clock
from realize.config import Config, read_config
from realize.config.addresses import metrics_endpoint
from realize.config.control import daemon_control_path
from realize.config.problems import as_lines
from realize.daemon.config_check import ConfigCheck
from realize.daemon.logs import DaemonLogOptions, DaemonLogs, absolute, complain, tell_why
from realize.errors import ConfigError, RealizeError, UsageError
from realize.exit_codes import DaemonExitCode
from realize.fs.own_files import OWN_FILES
from realize.levels import FORMATS, parse_levels
from realize.moves.plan import plans_of
from realize.places import DAEMON_CONFIG
from realize.process import discard_output, hold_standard_streams
from realize.units import display_text, parse_duration, quoted

T = TypeVar("T")


class Options(usage.Options):
    """The command line behind ``twistd realized``."""

    synopsis = (
        "[--check-config] [--config FILE] [--drain DUR] [--metrics-addr ADDR] "
        "[--log-level LEVEL] [--log-format FORMAT] [--log-file FILE]"
    )
    longdesc = (
        "Serve directories to the peers that the configuration names, and run its standing moves. `realize reload` or "
        "SIGHUP makes the daemon reread the configuration. "
        "Example: twistd --nodaemon --pidfile= realized --config /etc/realize/realized.toml"
    )
    optParameters: ClassVar[list[Any]] = [
        ["config", "c", DAEMON_CONFIG, "Read this configuration file (TOML)."],
        ["metrics-addr", None, None, "Serve metrics here, such as 9772 or 0.0.0.0:9772 [default: as configured]."],
        [
            "drain",
            None,
            None,
            "When stopping, let current transfers go on for this long, such as 10s [default: as configured].",
        ],
        [
            "log-level",
            None,
            None,
            "Log this level and above, such as info or info,wire=debug [default: as configured, or info].",
        ],
        ["log-format", None, None, f"Format of the log: {', '.join(FORMATS)} [default: as configured, or auto]."],
        ["log-file", None, None, "Log to this file instead of stderr; SIGUSR1 reopens it [default: as configured]."],
    ]

    optFlags: ClassVar[list[Any]] = [
        ["check-config", None, "Print the problems of the configuration, or what it would do, and start nothing."],
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
        try:
            self["config"] = os.path.abspath(self["config"])
            self["log-file"] = absolute(self["log-file"])
        except OSError as error:
            raise usage.UsageError(f"the working directory: {error.strerror}; change to one that exists") from error
        self.control = daemon_control_path(os.environ)
        self.state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or None
        if self["check-config"]:
            raise SystemExit(self._check_config())
        try:
            OWN_FILES.add(self["config"])
            self.config = read_config(self["config"], for_daemon=True, control=self.control)
            _check_moves(self.config, self["config"])
            self.config.identities()
            self._read_options()
        except RealizeError as error:
            complain(error)
            raise SystemExit(DaemonExitCode.CONFIGURATION) from error

    def opt_version(self) -> NoReturn:
        """Display the version of Realize and exit."""
        raise SystemExit(_print(f"realized {__version__}\n"))

    def opt_help(self) -> NoReturn:
        """Display this help and exit."""
        raise SystemExit(_print(f"{self}\n"))

    def _check_config(self) -> int:
        """Print all that is wrong, or what the daemon would do; returns the exit code."""
        from twisted.internet import reactor

        from realize.wire.every_address import server_endpoint_of

        problems: list[str] = []
        try:
            self._read_options()
        except UsageError as error:
            problems += str(error).splitlines()
        parse_endpoint = partial(server_endpoint_of, reactor)
        try:
            if self.metrics is not None:
                parse_endpoint(self.metrics)
        except (ValueError, TypeError, OSError) as error:
            problems.append(f"--metrics-addr: {display_text(self['metrics-addr'])}: {error}")
        check = ConfigCheck(self["config"], self.logs, parse_endpoint)
        problems += check.problems()
        if problems:
            complain(ConfigError("\n".join(problems)))
            return DaemonExitCode.CONFIGURATION
        return _print("".join(f"{line}\n" for line in check.summary()))

    def _read_options(self) -> None:
        """Parse the values of options; raises `UsageError` with one line for each that is nonsense."""
        problems: list[str] = []

        def parsed(option: str, parse: Callable[[str], T]) -> T | None:
            text = self[option]
            try:
                return None if text is None else parse(text)
            except RealizeError as error:
                problems.append(f"--{option}: {error}")
                return None

        self.metrics = parsed("metrics-addr", metrics_endpoint)
        self.drain = parsed("drain", partial(parse_duration, zero_allowed=True))
        self.logs = DaemonLogOptions(
            parsed("log-level", parse_levels), parsed("log-format", _log_format), self["log-file"]
        )
        if problems:
            raise UsageError("\n".join(problems))


def _print(text: str) -> int:
    """Write that to stdout; returns the exit code, which shows lost output."""
    # A process that was started without stdout has None.
    if sys.stdout is None:
        return 0
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        discard_output(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            complain(RealizeError(f"cannot write output: {error.strerror}"))
            return DaemonExitCode.FAILED
    return 0


def _check_moves(config: Config, path: str) -> None:
    """Raise `ConfigError` for what is wrong with standing moves, in the words of the file at ``path``."""
    try:
        plans_of(config)
    except ConfigError as error:
        raise ConfigError(as_lines(f"{display_text(path)}: ", error.problems)) from error


def _log_format(text: str) -> str:
    if text not in FORMATS:
        raise UsageError(f"{quoted(text)} is not one of {', '.join(FORMATS)}")
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
    if runner:
        sys.excepthook = partial(tell_why, sys.excepthook)
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
