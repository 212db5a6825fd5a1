"""The configuration: values that a program makes, or one TOML format of a file, for the daemon and the command.

This module owns the format (``docs/`` describes it), the checks of its content, and where the file is looked for.
It reads the file, and checks that directories and the key file exist without opening them; it imports no Twisted.

Invariants: a `Config` has only values that were checked, by whomever it was made, and cannot be changed; its paths are
absolute; every peer that `ThrottleConfig` and every directory that `PeerConfig` names exists; no two peers share a key.
All problems of a file are reported together, one line for each: file, key path, what was expected.
"""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import json
import os
import re
import threading
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

import attrs
from attrs import Factory, field, frozen
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from realize.errors import ConfigError, KeyPath, Problem, RealizeError, UsageError
from realize.keys import Identity, PublicKey, load_identity, parse_public_key
from realize.levels import FORMATS, Levels, parse_levels
from realize.ownership import changeable_by_others
from realize.units import (
    NO_RESERVE,
    Reserve,
    display_text,
    parse_duration,
    parse_rate,
    parse_reserve,
    parse_size,
    quoted,
)

T = TypeVar("T")

Warn = Callable[[str], object]
"""Called with one sentence that says what is wrong with a file that is used all the same."""

DISK_ANSWER_S: Final = 5.0
"""How long to wait for the disks of the configured directories to answer."""

DEFAULT_PORT: Final = 9771
"""The TCP port of a daemon unless another one is configured."""

PARTIAL_MAX_AGE_S: Final = 7 * 86_400.0
"""Seconds without progress after which a partial is removed unless another time is configured."""

LISTEN_BACKLOG: Final = 1_024
"""Connections that may wait to be accepted; the kernel caps this at its ``net.core.somaxconn``."""

MIN_MEMORY_BYTES: Final = 16 << 20
"""The smallest memory limit for peers that is accepted; with less, even a single large file would be slow."""

NAME_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What the name of a directory or of a peer must match as a whole."""

# Types of endpoints whose strings look like HOST:PORT if they have one argument.
_ENDPOINTS: Final = frozenset({"haproxy", "ssl", "stdio", "systemd", "tcp", "tcp6", "throttle", "tls", "unix"})
_TCP: Final = re.compile(r"tcp6?:(?:port=)?([^:=]*)(?::.*|$)", re.DOTALL)
_LOOPBACK: Final = {"tcp": "127.0.0.1", "tcp6": r"\:\:1"}
# Matches an argument named interface, or a second positional argument.
_INTERFACE: Final = re.compile(r":(?:interface=|(?:[^:=\\]|\\.)+(?::|$))", re.DOTALL)
_ENDPOINT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]*:(?!:).*", re.DOTALL)
_ADDRESS: Final = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>.*))?", re.DOTALL)
_NOT_IN_HOSTS: Final = frozenset(" /@\\?#=%'\"")
_IN_TOML: Final = {
    "connection_bps": "connection",
    "directories": "dirs",
    "drain_s": "drain",
    "memory_bytes": "memory",
    "partial_max_age_s": "partial_max_age",
    "peer_memory_bytes": "peer_memory",
    "peers_bps": "peers",
    "rights": "dirs",
    "service_bps": "service",
}
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
"""A TOML key that needs no quotes."""


class Right(enum.Enum):
    """What a peer may do in a directory."""

    READ = "read"
    """List and read."""
    CREATE = "create"
    """Put files under new names, and learn about existing files what that requires; existing files are not changed."""
    WRITE = "write"
    """Everything that `CREATE` allows, and replace files."""
    REMOVE = "remove"
    """Remove a file that was read, after a verified move, and directories that this has emptied."""
    PRUNE = "prune"
    """Remove any directory that is empty."""


RIGHTS: Final = ", ".join(right.value for right in Right)
"""All rights, for people."""


def _unchangeable(table: Mapping[str, T]) -> Mapping[str, T]:
    """A copy that nobody can change: what was let in must be what is compared at the next reload."""
    return MappingProxyType(dict(table))


# One converter for each attribute: what checks types would not know of the types behind a TypeVar.
def _kept_directories(directories: Mapping[str, DirectoryConfig]) -> Mapping[str, DirectoryConfig]:
    return _unchangeable(directories)


def _kept_peers(peers: Mapping[str, PeerConfig]) -> Mapping[str, PeerConfig]:
    return _unchangeable(peers)


def _kept_rates(rates: Mapping[str, int | None]) -> Mapping[str, int | None]:
    return _unchangeable(rates)


def _kept_rights(rights: Mapping[str, Collection[Right]]) -> Mapping[str, frozenset[Right]]:
    return MappingProxyType({name: frozenset(each) for name, each in rights.items()})


def _given_path(path: str | os.PathLike[str]) -> str:
    """The absolute path; what is no path stays as it is, and the checks refuse it."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    return _absolute(text) if isinstance(text, str) and text and "\0" not in text else text


def _given_file(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else _given_path(path)


def _given_key(key: str | os.PathLike[str] | Identity) -> str | Identity:
    return key if isinstance(key, Identity) else _given_path(key)


def _given_endpoints(listen: Collection[str]) -> tuple[str, ...]:
    """The endpoint strings; what is none stays as it is, and the checks refuse it."""
    try:
        return _endpoints(listen)
    except (RealizeError, _Wrong):
        return cast("tuple[str, ...]", listen)


def _given_metrics(metrics: str | int | None) -> str | None:
    try:
        return None if metrics is None else _metrics(metrics)
    except RealizeError:
        return str(metrics)


@frozen
class DirectoryConfig:
    """A directory that the daemon serves.  Raises `ConfigError` for values that make no sense."""

    path: str = field(converter=_given_path)
    """Absolute; a relative one that is given starts at the working directory."""
    reserve: Reserve = NO_RESERVE
    """The space that peers must leave free on its file system."""

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        _refuse(
            *_problems_of("path", _path, self.path),
            *_problems_of("reserve", _instance_of(Reserve), self.reserve),
        )


@frozen
class PeerConfig:
    """A peer, identified by its key.  Raises `ConfigError` for values that make no sense."""

    key: PublicKey
    address: str | None = None
    """The address of its daemon, for `parse_address`; None if the name of the peer is its host name."""
    rights: Mapping[str, frozenset[Right]] = field(factory=dict, converter=_kept_rights)
    """Its rights here, by directory name."""
    admin: bool = False
    """Whether it may change the limits of peers and of the service."""

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        _refuse(
            *_problems_of("key", _instance_of(PublicKey), self.key),
            *(() if self.address is None else _problems_of("address", _address, self.address)),
            *(
                problem
                for name, rights in self.rights.items()
                for right in rights
                for problem in _problems_of(("dirs", name), _instance_of(Right), right)
            ),
            *_problems_of("admin", _boolean, self.admin),
        )


@frozen(kw_only=True)
class ThrottleConfig:
    """The initial rate limits, in bytes per second; None is unlimited.

    Raises `ConfigError` for values that make no sense.
    """

    service_bps: int | None = None
    peers_bps: Mapping[str, int | None] = field(factory=dict, converter=_kept_rates)
    connection_bps: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        _refuse(
            *_problems_of("service", _checked_rate, self.service_bps),
            *(
                each
                for name, bps in self.peers_bps.items()
                for each in _problems_of(("peers", name), _checked_rate, bps)
            ),
            *_problems_of("connection", _checked_rate, self.connection_bps),
        )


@frozen(kw_only=True)
class LimitsConfig:
    """How much memory the daemon uses for its peers.  Raises `ConfigError` for values that make no sense."""

    memory_bytes: int = 128 << 20
    """For all peers together."""
    peer_memory_bytes: int = 64 << 20
    """For each peer."""

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        _refuse(
            *_problems_of("memory", _checked_memory, self.memory_bytes),
            *_problems_of("peer_memory", _checked_memory, self.peer_memory_bytes),
        )


@frozen
class LogsConfig:
    """What ``twistd realized`` logs, in which of `realize.levels.FORMATS`, and to which file (None is stderr).

    A daemon in another program has none of this: its records go to the log of that program.
    Raises `ConfigError` for values that make no sense.
    """

    level: Levels = Factory(Levels)
    format: str = "auto"
    file: str | None = field(default=None, converter=_given_file)

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        _refuse(
            *_problems_of("level", _checked_levels, self.level),
            *_problems_of("format", _choice(*FORMATS), self.format),
            *(() if self.file is None else _problems_of("file", _path, self.file)),
        )


@frozen(kw_only=True)
class Config:
    """A configuration: all that a daemon, or a program that moves files, has to know.

    `read_config` makes one from a file; a program may as well make it itself.
    Either way all values are checked; raises `ConfigError` with one line for each problem, in the words of the file.
    """

    key: str | Identity = field(converter=_given_key)
    """Our own key pair, or the file of our private key."""
    listen: tuple[str, ...] = field(default=(f"tcp:{DEFAULT_PORT}",), converter=_given_endpoints)
    """Twisted server endpoint strings; ``HOST:PORT`` may be given."""
    metrics: str | None = field(default=None, converter=_given_metrics)
    """Twisted server endpoint string; a port, or ``HOST:PORT``, may be given; None if metrics are not served."""
    directories: Mapping[str, DirectoryConfig] = field(factory=dict, converter=_kept_directories)
    peers: Mapping[str, PeerConfig] = field(factory=dict, converter=_kept_peers)
    throttle: ThrottleConfig = Factory(ThrottleConfig)
    limits: LimitsConfig = Factory(LimitsConfig)
    logs: LogsConfig = Factory(LogsConfig)
    partial_max_age_s: float = PARTIAL_MAX_AGE_S
    """Seconds without progress after which a partial is removed."""
    drain_s: float = 10.0
    """Seconds that a stopping daemon lets running commands continue."""

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        _refuse(
            *_problems_of("key", lambda key: key if isinstance(key, Identity) else _path(key), self.key),
            *_problems_of("listen", _endpoints, self.listen),
            *(() if self.metrics is None else _problems_of("metrics", _metrics, self.metrics)),
            *_problems_of("dirs", _named("directory", _instance_of(DirectoryConfig)), self.directories),
            *_problems_of("peers", _named("peer", _instance_of(PeerConfig)), self.peers),
            *_problems_of("throttle", _instance_of(ThrottleConfig), self.throttle),
            *_problems_of("limits", _instance_of(LimitsConfig), self.limits),
            *_problems_of("logs", _instance_of(LogsConfig), self.logs),
            *_problems_of("partial_max_age", _checked_seconds, self.partial_max_age_s),
            *_problems_of("drain", partial(_checked_seconds, zero_allowed=True), self.drain_s),
        )
        _refuse(*_contradictions(self))

    def identity(self) -> Identity:
        """Our own key pair, read from its file if it is in one.  Raises `ConfigError`."""
        return load_identity(self.key) if isinstance(self.key, str) else self.key


def toml_key(attribute: str) -> str:
    """What a file calls an attribute of one of the classes above."""
    return _IN_TOML.get(attribute, attribute)


def default_config_path(environ: Mapping[str, str]) -> str:
    """The configuration file of the command unless an option names one: ``REALIZE_CONFIG``, or below the home."""
    return environ.get("REALIZE_CONFIG") or os.path.join(_home(environ), ".config", "realize", "realize.toml")


def default_key_path(environ: Mapping[str, str]) -> str:
    """The key file of the command unless an option or the configuration names one; also the default of ``keygen``."""
    return environ.get("REALIZE_KEY") or os.path.join(_home(environ), ".config", "realize", "realize.key")


def load_command_config(path: str | None, environ: Mapping[str, str], warn: Warn) -> Config:
    """The configuration of the command: from ``path`` if given, else from `default_config_path`.

    Only a default path that was not chosen by the user may be missing; then there are no peers, and the key is
    `default_key_path`.
    ``REALIZE_KEY`` overrides the key that the file names.
    Raises `ConfigError`.
    """
    chosen = path or default_config_path(environ)
    if not path and not environ.get("REALIZE_CONFIG") and not os.path.lexists(chosen):
        return Config(key=default_key_path(environ))
    return read_config(chosen, for_daemon=False, environ=environ, warn=warn)


def read_config(
    path: str, *, for_daemon: bool = False, environ: Mapping[str, str] = os.environ, warn: Warn = lambda _: None
) -> Config:
    """Read and check the configuration in a file.

    The daemon requires a key file that exists, an endpoint to listen on, and directories that exist.
    The command requires none of these; its key is ``REALIZE_KEY``, or the one that the file names, or
    `default_key_path`.
    Whoever can change the file can let in anybody: if users other than ourselves and root can, the daemon refuses it,
    and for the command ``warn`` is called.
    Relative paths start at the directory of the file, and ``~`` is the home directory.
    Raises `ConfigError` with one line for each problem.
    """
    file = display_text(path)
    raw, exposed = _load(path, file)
    if exposed is not None and for_daemon:
        raise ConfigError(f"{file}: {exposed}")
    if exposed is not None:
        warn(f"{file}: {exposed}")
    if not for_daemon and (environ.get("REALIZE_KEY") or "key" not in raw):
        raw["key"] = _absolute(default_key_path(environ))
    folder = os.path.dirname(_absolute(path))
    try:
        config = _structure(raw, lambda path: _resolve(path, folder, environ))
        if for_daemon:
            _refuse(*_absences(config), *_missing_directories(config))
    except Exception as error:
        raise ConfigError(_lines(f"{file}: ", [*_problems(error)])) from error
    return config


def check_daemon_needs(config: Config) -> None:
    """Raise `ConfigError` if a daemon lacks something: an endpoint, directories, the key file.

    Whether the directories are there is not looked at, since a disk may hang.
    """
    _refuse(*_absences(config))


def config_error(*problems: Problem) -> ConfigError:
    """The error for these problems, one line for each."""
    return ConfigError(_lines("", problems), problems)


def server_endpoint(text: str) -> str:
    """The Twisted server endpoint string for ``HOST:PORT`` or ``[IPV6]:PORT``; an endpoint string stays as it is.

    Port 0 stands for any free port.
    Whether a plugin supports the endpoint string is not checked here; listening fails if none does.
    Raises `UsageError`.
    """
    word, colon, rest = text.partition(":")
    if text.startswith("[") or (colon and word not in _ENDPOINTS and _is_host(word) and rest.isdecimal()):
        host, port = parse_address(text, None, zero_allowed=True)
        escaped = re.sub(r"([\\:=])", r"\\\1", host)
        return f"tcp:{port}:interface={escaped}"
    tcp = _TCP.fullmatch(text)
    if (
        not _ENDPOINT.fullmatch(text)
        or (tcp and _port(tcp[1], zero_allowed=True) is None)
        or re.search(r"(?<!\\)(?:\\\\)*\\$", text)
    ):
        raise UsageError(
            f"{quoted(text)} is not something to listen on: write HOST:PORT, [IPV6]:PORT or a Twisted server endpoint "
            f"string such as tcp:{DEFAULT_PORT}"
        )
    return text


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
    so, such as ``0.0.0.0:PORT`` or ``[::]:PORT``.
    Raises `UsageError`.
    """
    bare = text.removeprefix(":")
    if bare.isdecimal():
        return server_endpoint(f"127.0.0.1:{bare}")
    endpoint = server_endpoint(text)
    word, _, rest = endpoint.partition(":")
    if word in _LOOPBACK and not _INTERFACE.search(rest):
        return f"{endpoint}:interface={_LOOPBACK[word]}"
    return endpoint


def parse_address(text: str, default_port: int | None = DEFAULT_PORT, *, zero_allowed: bool = False) -> tuple[str, int]:
    """Host and port of ``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``; the host is returned without brackets.

    If ``default_port`` is None, the port is required.
    Raises `UsageError`.
    """
    match = _ADDRESS.fullmatch(text)
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


# The meaning of the one required key in a table of each class.
_REQUIRED: Final[Mapping[type, str]] = {
    Config: "the file of our private key",
    DirectoryConfig: "the path of the directory",
    PeerConfig: "the public key of the peer",
}


class _Wrong(Exception):
    """Several problems inside one value that is not an attrs class."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def _load(path: str, file: str) -> tuple[dict[str, Any], str | None]:
    """The content of the file, and how other users could change it (None if they cannot)."""
    try:
        with open(path, "rb") as stream:
            exposed = changeable_by_others(path, os.fstat(stream.fileno()))
            return tomllib.load(stream), exposed
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: there is no such configuration file") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the configuration file: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not a TOML file: {display_text(str(error))}") from error


def _problems(error: BaseException) -> Iterator[Problem]:
    """The problems in the tree of errors that `cattrs` raises; an error of an unexpected kind is a bug, and raised."""
    if isinstance(error, _Wrong):
        yield from error.problems
    elif isinstance(error, ClassValidationError):
        noted, bare = error.group_exceptions()
        for inner, note in noted:
            name = toml_key(note.name)
            if isinstance(inner, KeyError):
                yield (name,), f"is missing; expected {_REQUIRED[error.cl]}"
            else:
                yield from _below(name, inner)
        for inner in bare:
            yield from _problems(inner)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = ", ".join(sorted(toml_key(attribute.name) for attribute in attrs.fields(error.cl)))
        for name in sorted(error.extra_fields):
            yield (name,), f"unknown key; expected one of {known}"
    elif isinstance(error, ConfigError) and error.problems:
        yield from error.problems
    elif isinstance(error, RealizeError):
        yield (), str(error)
    else:
        raise error


def _below(part: str | int, error: BaseException) -> Iterator[Problem]:
    return (((part, *path), sentence) for path, sentence in _problems(error))


def _refuse(*problems: Problem) -> None:
    if problems:
        raise config_error(*problems)


def _problems_of(key: str | tuple[str, ...], check: Callable[[Any], object], value: object) -> Iterator[Problem]:
    """What is wrong with a value, according to what reads, or checks, one like it."""
    try:
        check(value)
    except (RealizeError, _Wrong) as error:
        path = (key,) if isinstance(key, str) else key
        yield from (((*path, *inner), sentence) for inner, sentence in _problems(error))


def _lines(start: str, problems: Iterable[Problem]) -> str:
    def key(path: KeyPath) -> str:
        text = ""
        for part in path:
            if isinstance(part, int):
                text += f"[{part}]"
            else:
                text += f".{part}" if BARE_KEY.fullmatch(part) else f'."{display_text(part)}"'
        return text.removeprefix(".")

    return "\n".join(f"{start}{key(path)}: {sentence}" for path, sentence in problems)


def _contradictions(config: Config) -> Iterator[Problem]:
    """Problems between values that are valid by themselves."""
    owners: dict[PublicKey, str] = {}
    for name, peer in config.peers.items():
        other = owners.setdefault(peer.key, name)
        if other != name:
            yield ("peers", name, "key"), f"the same key as that of peers.{other}; expected another key for every peer"
        for directory in peer.rights:
            if directory not in config.directories:
                yield (
                    ("peers", name, "dirs", directory),
                    f"no such directory; expected one of {_names(config.directories)}",
                )
    for name in config.throttle.peers_bps:
        if name not in config.peers:
            yield ("throttle", "peers", name), f"no such peer; expected one of {_names(config.peers)}"


def _absences(config: Config) -> Iterator[Problem]:
    """Things that a daemon requires and that are missing."""
    if isinstance(config.key, str) and not os.path.isfile(config.key):
        yield (
            ("key",),
            f"there is no file {display_text(config.key)}; expected a private key, as `realize keygen` makes it",
        )
    if not config.listen:
        yield ("listen",), "expected at least one endpoint to listen on"
    if not config.directories:
        yield ("dirs",), "expected at least one directory to serve, such as a table dirs.inbox with a path"


def _missing_directories(config: Config) -> Iterator[Problem]:
    for name, directory in config.directories.items():
        if _is_missing(directory.path):
            yield (
                ("dirs", name, "path"),
                f"there is no directory {display_text(directory.path)}; expected one that exists",
            )


def _is_missing(path: str) -> bool:
    """Whether the directory is certainly missing; one on a dead disk or mount, which may come back, is not."""
    answers: list[bool] = []
    looking = threading.Thread(target=lambda: answers.append(os.path.isdir(path)), daemon=True, name="look")
    looking.start()
    looking.join(DISK_ANSWER_S)
    return answers == [False]


def _names(table: Mapping[str, object]) -> str:
    return ", ".join(table) or "those that are configured, and none is"


def _home(environ: Mapping[str, str]) -> str:
    return environ.get("HOME") or os.path.expanduser("~")


def _resolve(path: str, folder: str, environ: Mapping[str, str]) -> str:
    if path == "~" or path.startswith("~/"):
        path = _home(environ) + path[1:]
    return os.path.join(folder, os.path.expanduser(path))


def _absolute(path: str) -> str:
    # Not os.path.abspath, which removes LINK/.. and so changes the path if LINK is a symlink.
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


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


def _expected(what: str, value: object) -> UsageError:
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "an array", dict: "a table"}
    other = "a date or time" if isinstance(value, dt.date | dt.time) else f"of type {type(value).__name__}"
    return UsageError(f"expected {what}, not {names.get(type(value), other)}")


def _instance_of(cls: type[T]) -> Callable[[object], T]:
    """The check that a value, which no file has, is of a class."""

    def check(value: object) -> T:
        if not isinstance(value, cls):
            raise _expected(f"of type {cls.__name__}", value)
        return value

    return check


def _table(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise _expected("a table", value)
    return value


def _string(value: object, what: str = "a string") -> str:
    if not isinstance(value, str):
        raise _expected(what, value)
    return value


def _path(value: object) -> str:
    path = _string(value, "a path")
    if not path or "\0" in path:
        raise UsageError("expected a path")
    return path


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _expected("true or false", value)
    return value


def _number_or_string(value: object, what: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _string(value, what)


def _rate(value: object) -> int | None:
    return parse_rate(_number_or_string(value, 'a rate such as "20M" or "unlimited"'))


def _reserve(value: object) -> Reserve:
    return parse_reserve(_number_or_string(value, 'a size or a percentage such as "10G" or "5%"'))


def _memory(value: object) -> int:
    expected = f"a size of at least {MIN_MEMORY_BYTES >> 20}M"
    size = parse_size(_number_or_string(value, f'{expected}, such as "128M"'))
    if size < MIN_MEMORY_BYTES:
        raise UsageError(f"expected {expected}")
    return size


def _age(value: object) -> float:
    return parse_duration(_number_or_string(value, 'a duration such as "7d"'))


def _grace(value: object) -> float:
    return parse_duration(_number_or_string(value, 'a duration such as "10s"'), zero_allowed=True)


def _checked_rate(value: object) -> None:
    """Refuse what is no rate in bytes per second, or None."""
    if value is not None and type(value) is not int:
        raise _expected("bytes per second, or None", value)
    if value is not None:
        _rate(value)


def _checked_memory(value: object) -> None:
    if type(value) is not int:
        raise _expected("a number of bytes", value)
    _memory(value)


def _checked_seconds(value: object, *, zero_allowed: bool = False) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _expected("a number of seconds", value)
    parse_duration(f"{value:.9f}", zero_allowed=zero_allowed)


def _checked_levels(value: object) -> None:
    levels = _instance_of(Levels)(value)
    parse_levels(",".join([levels.default, *(f"{name}={level}" for name, level in levels.components.items())]))


def _log_levels(value: object) -> Levels:
    return parse_levels(_string(value, 'a level such as "info" or "info,wire=debug"'))


def _key(value: object) -> PublicKey:
    return parse_public_key(_string(value, "a public key"))


def _address(value: object) -> str:
    address = _string(value, "an address such as host:9771")
    parse_address(address)
    return address


def _endpoint(value: object) -> str:
    return server_endpoint(_string(value, "HOST:PORT or a Twisted server endpoint string"))


def _metrics(value: object) -> str:
    return metrics_endpoint(_number_or_string(value, "HOST:PORT, PORT or a Twisted server endpoint string"))


def _endpoints(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise _expected(f'an array of strings such as ["tcp:{DEFAULT_PORT}"]', value)
    endpoints: list[str] = []
    problems: list[Problem] = []
    for index, item in enumerate(value):
        try:
            endpoints.append(_endpoint(item))
        except RealizeError as error:
            problems.extend(_below(index, error))
    if problems:
        raise _Wrong(problems)
    return tuple(endpoints)


def _rights(value: object) -> frozenset[Right]:
    expected = f"an array with any of {', '.join(json.dumps(right.value) for right in Right)}"
    if not isinstance(value, list):
        raise _expected(expected, value)
    rights = set()
    for item in value:
        try:
            rights.add(Right(_string(item, expected)))
        except ValueError as error:
            raise UsageError(f"{quoted(item)} is not a right; expected {expected}") from error
    return frozenset(rights)


def _choice(*choices: str) -> Callable[[object], str]:
    def convert(value: object) -> str:
        expected = f"one of {', '.join(choices)}"
        text = _string(value, expected)
        if text not in choices:
            raise UsageError(f"{quoted(text)} is not known; expected {expected}")
        return text

    return convert


def _named(what: str, convert: Callable[[object], T]) -> Callable[[object], dict[str, T]]:
    """The converter of a table whose keys are names chosen by the administrator."""

    def convert_table(value: object) -> dict[str, T]:
        converted: dict[str, T] = {}
        problems: list[Problem] = []
        for name, item in _table(value).items():
            if not NAME_FORM.fullmatch(name):
                problems.append(
                    (
                        (name,),
                        f"not a name for a {what}; expected letters, digits, '.', '_' and '-', a letter or digit first",
                    )
                )
            try:
                converted[name] = convert(item)
            except (RealizeError, ClassValidationError, _Wrong) as error:
                problems.extend(_below(name, error))
        if problems:
            raise _Wrong(problems)
        return converted

    return convert_table


def _class(cls: type[T], **converters: Callable[[object], object]) -> Callable[[object], T]:
    """The converter of a table whose keys are the attributes of a class; each attribute has a converter."""

    def hook(convert: Callable[[object], object]) -> Callable[[object, object], object]:
        return lambda value, _type: convert(value)

    options: dict[str, Any] = {
        name: override(struct_hook=hook(convert), rename=_IN_TOML.get(name)) for name, convert in converters.items()
    }
    structure = make_dict_structure_fn(
        cls, _CONVERTER, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, **options
    )
    return lambda value: structure(_table(value), cls)


_CONVERTER: Final = Converter()


def _structure(raw: Mapping[str, object], resolve: Callable[[str], str]) -> Config:
    """The content of a file as values; ``resolve`` makes its paths absolute."""

    def path(value: object) -> str:
        return resolve(_path(value))

    structure = _class(
        Config,
        key=path,
        listen=_endpoints,
        metrics=_metrics,
        directories=_named("directory", _class(DirectoryConfig, path=path, reserve=_reserve)),
        peers=_named(
            "peer",
            _class(PeerConfig, key=_key, address=_address, rights=_named("directory", _rights), admin=_boolean),
        ),
        throttle=_class(ThrottleConfig, service_bps=_rate, peers_bps=_named("peer", _rate), connection_bps=_rate),
        limits=_class(LimitsConfig, memory_bytes=_memory, peer_memory_bytes=_memory),
        logs=_class(LogsConfig, level=_log_levels, format=_choice(*FORMATS), file=path),
        partial_max_age_s=_age,
        drain_s=_grace,
    )
    return structure(raw)
