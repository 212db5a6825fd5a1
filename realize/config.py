"""The configuration file: one TOML format for the daemon and the command.

This module owns the format (``docs/`` describes it), the checks of its content, and where the file is looked for.
It reads the file, and checks that directories and the key file exist without opening them; it imports no Twisted.

Invariants: a `Config` has only values that were checked; its paths are absolute; every peer that `ThrottleConfig`
and every directory that `PeerConfig` names exists; no two peers share a key.
All problems of a file are reported together, one line for each: file, key path, what was expected.
"""

from __future__ import annotations

import enum
import ipaddress
import json
import os
import re
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import attrs
from attrs import Factory, frozen
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from realize.errors import ConfigError, RealizeError, UsageError
from realize.keys import PublicKey, parse_public_key
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
_IN_TOML: Final = {"directories": "dirs"}
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


@frozen
class DirectoryConfig:
    """A directory that the daemon serves."""

    path: str
    """Absolute."""
    reserve: Reserve = NO_RESERVE
    """The space that peers must leave free on its file system."""


@frozen
class PeerConfig:
    """A peer, identified by its key."""

    key: PublicKey
    address: str | None = None
    """The address of its daemon, for `parse_address`; None if the name of the peer is its host name."""
    dirs: Mapping[str, frozenset[Right]] = Factory(dict)
    """Its rights here, by directory name."""
    admin: bool = False
    """Whether it may change the limits of peers and of the service."""


@frozen
class ThrottleConfig:
    """The initial rate limits, in bytes per second; None is unlimited."""

    service: int | None = None
    peers: Mapping[str, int | None] = Factory(dict)
    connection: int | None = None


@frozen
class LimitsConfig:
    """How much memory the daemon uses for its peers, in bytes."""

    memory: int = 128 << 20
    """For all peers together."""
    peer_memory: int = 64 << 20
    """For each peer."""


@frozen
class LogsConfig:
    """What the daemon logs, in which of `realize.levels.FORMATS`, and to which file (None is stderr)."""

    level: Levels = Factory(Levels)
    format: str = "auto"
    file: str | None = None


@frozen
class Config:
    """The content of a configuration file, checked, with paths made absolute and defaults filled in."""

    key: str
    """The file of our own private key."""
    listen: tuple[str, ...] = (f"tcp:{DEFAULT_PORT}",)
    """Twisted server endpoint strings."""
    metrics: str | None = None
    """Twisted server endpoint string; None if metrics are not served."""
    directories: Mapping[str, DirectoryConfig] = Factory(dict)
    peers: Mapping[str, PeerConfig] = Factory(dict)
    throttle: ThrottleConfig = ThrottleConfig()
    limits: LimitsConfig = LimitsConfig()
    logs: LogsConfig = LogsConfig()
    partial_max_age: float = 7 * 86_400.0
    """Seconds without progress after which the daemon removes a partial."""
    drain: float = 10.0
    """Seconds that a stopping daemon lets running commands continue."""


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
        return Config(_absolute(default_key_path(environ)))
    return read_config(chosen, for_daemon=False, environ=environ, warn=warn)


def read_config(
    path: str, *, for_daemon: bool, environ: Mapping[str, str] = os.environ, warn: Warn = lambda _: None
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
    try:
        config: Config = _structure_config(raw)
    except Exception as error:
        raise ConfigError(_lines(file, _problems(error))) from error
    folder = os.path.dirname(_absolute(path))
    config = attrs.evolve(
        config,
        key=_resolve(config.key, folder, environ),
        directories={
            name: attrs.evolve(directory, path=_resolve(directory.path, folder, environ))
            for name, directory in config.directories.items()
        },
        logs=attrs.evolve(
            config.logs, file=None if config.logs.file is None else _resolve(config.logs.file, folder, environ)
        ),
    )
    problems = [*_contradictions(config), *(_absences(config) if for_daemon else ())]
    if problems:
        raise ConfigError(_lines(file, problems))
    return config


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

# A problem, and where it is: names of tables and keys, indices of list elements.
_Path = tuple[str | int, ...]
_Problem = tuple[_Path, str]


class _Wrong(Exception):
    """Several problems inside one value that is not an attrs class."""

    def __init__(self, problems: list[_Problem]) -> None:
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


def _problems(error: BaseException) -> Iterator[_Problem]:
    """The problems in the tree of errors that `cattrs` raises; an error of an unexpected kind is a bug, and raised."""
    if isinstance(error, _Wrong):
        yield from error.problems
    elif isinstance(error, ClassValidationError):
        noted, bare = error.group_exceptions()
        for inner, note in noted:
            name = _IN_TOML.get(note.name, note.name)
            if isinstance(inner, KeyError):
                yield (name,), f"is missing; expected {_REQUIRED[error.cl]}"
            else:
                yield from _below(name, inner)
        for inner in bare:
            yield from _problems(inner)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = ", ".join(sorted(_IN_TOML.get(field.name, field.name) for field in attrs.fields(error.cl)))
        for name in sorted(error.extra_fields):
            yield (name,), f"unknown key; expected one of {known}"
    elif isinstance(error, RealizeError):
        yield (), str(error)
    else:
        raise error


def _below(part: str | int, error: BaseException) -> Iterator[_Problem]:
    return (((part, *path), sentence) for path, sentence in _problems(error))


def _lines(file: str, problems: Iterator[_Problem] | list[_Problem]) -> str:
    def key(path: _Path) -> str:
        text = ""
        for part in path:
            if isinstance(part, int):
                text += f"[{part}]"
            else:
                text += f".{part}" if BARE_KEY.fullmatch(part) else f'."{display_text(part)}"'
        return text.removeprefix(".")

    return "\n".join(f"{file}: {key(path)}: {sentence}" for path, sentence in problems)


def _contradictions(config: Config) -> Iterator[_Problem]:
    """Problems between values that are valid by themselves."""
    owners: dict[PublicKey, str] = {}
    for name, peer in config.peers.items():
        other = owners.setdefault(peer.key, name)
        if other != name:
            yield ("peers", name, "key"), f"the same key as that of peers.{other}; expected another key for every peer"
        for directory in peer.dirs:
            if directory not in config.directories:
                yield (
                    ("peers", name, "dirs", directory),
                    f"no such directory; expected one of {_names(config.directories)}",
                )
    for name in config.throttle.peers:
        if name not in config.peers:
            yield ("throttle", "peers", name), f"no such peer; expected one of {_names(config.peers)}"


def _absences(config: Config) -> Iterator[_Problem]:
    """Things that a daemon requires and that are missing."""
    if not os.path.isfile(config.key):
        yield (
            ("key",),
            f"there is no file {display_text(config.key)}; expected a private key, as `realize keygen` makes it",
        )
    if not config.listen:
        yield ("listen",), "expected at least one endpoint to listen on"
    if not config.directories:
        yield ("dirs",), "expected at least one directory to serve, such as a table dirs.inbox with a path"
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
    return UsageError(f"expected {what}, not {names.get(type(value), 'a date or time')}")


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
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
    if not isinstance(value, list):
        raise _expected(f'an array of strings such as ["tcp:{DEFAULT_PORT}"]', value)
    endpoints: list[str] = []
    problems: list[_Problem] = []
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
        problems: list[_Problem] = []
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
_structure_config: Final = _class(
    Config,
    key=_path,
    listen=_endpoints,
    metrics=_metrics,
    directories=_named("directory", _class(DirectoryConfig, path=_path, reserve=_reserve)),
    peers=_named(
        "peer",
        _class(PeerConfig, key=_key, address=_address, dirs=_named("directory", _rights), admin=_boolean),
    ),
    throttle=_class(ThrottleConfig, service=_rate, peers=_named("peer", _rate), connection=_rate),
    limits=_class(LimitsConfig, memory=_memory, peer_memory=_memory),
    logs=_class(LogsConfig, level=_log_levels, format=_choice(*FORMATS), file=_path),
    partial_max_age=_age,
    drain=_grace,
)
