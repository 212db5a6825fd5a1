"""The configuration as values, checked when they are made.

Invariants: a `Config` has only values that were checked, by whomever it was made, and cannot be changed; its paths are
absolute; every peer that `ThrottleConfig` and every directory that `PeerConfig` names exists; no two peers share a key,
nor an origin.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar, cast

from attrs import Factory, field, frozen

from realize.by_value import ByValue
from realize.config.addresses import DEFAULT_PORT
from realize.config.checks import (
    as_address,
    as_backup_dir,
    as_boolean,
    as_endpoints,
    as_former_keys,
    as_metrics,
    as_path,
    check_accept,
    check_keys,
    check_levels,
    check_memory_value,
    check_rate_value,
    check_seconds,
    choice,
    given_file,
    given_path,
    instance_of,
    named,
)
from realize.config.problems import SeveralProblems, config_error, problems_if_given, problems_of, refuse
from realize.errors import ConfigError, Problem, RealizeError
from realize.keys import Identity, PublicKey, load_identity
from realize.levels import FORMATS, Levels
from realize.schedule.timetable import RateByTime
from realize.units import (
    NO_RESERVE,
    Reserve,
    display_text,
)
from realize.values import Compress, Links, Preserve

if TYPE_CHECKING:
    from realize.config.moves import MoveConfig

T = TypeVar("T")

PARTIAL_MAX_AGE_S: Final = 7 * 86_400.0
"""Seconds without progress after which a partial is removed unless another time is configured."""


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
    """A copy that nobody can change: what was let in must be what is compared at the next reload.

    What is no table stays as it is, and the checks refuse it.
    """
    return MappingProxyType(dict(table)) if isinstance(table, Mapping) else table


# One converter for each attribute: what checks types would not know of the types behind a TypeVar.
def _kept_directories(directories: Mapping[str, DirectoryConfig]) -> Mapping[str, DirectoryConfig]:
    return _unchangeable(directories)


def _kept_peers(peers: Mapping[str, PeerConfig]) -> Mapping[str, PeerConfig]:
    return _unchangeable(peers)


def _kept_moves(moves: Mapping[str, MoveConfig]) -> Mapping[str, MoveConfig]:
    return _unchangeable(moves)


def _kept_rates(rates: Mapping[str, RateByTime]) -> Mapping[str, RateByTime]:
    return _unchangeable(rates)


def _kept_rights(rights: Mapping[str, Collection[Right]]) -> Mapping[str, frozenset[Right]]:
    return MappingProxyType({name: frozenset(each) for name, each in rights.items()})


def _check_move(move: object) -> object:
    # Without a move, nothing of moves is loaded.
    from realize.config.moves import MoveConfig

    return instance_of(MoveConfig)(move)


def _given_key(key: str | os.PathLike[str] | Identity) -> str | Identity:
    return key if isinstance(key, Identity) else given_path(key)


def _given_keys(keys: Collection[str | os.PathLike[str] | Identity]) -> tuple[str | Identity, ...]:
    """The key pairs, or their files; what is no list of such stays as it is, and the checks refuse it."""
    if not isinstance(keys, list | tuple):
        return cast("tuple[str | Identity, ...]", keys)
    return tuple(_given_key(key) for key in keys)


def _given_pins(keys: Collection[PublicKey]) -> tuple[PublicKey, ...]:
    """The keys; what is no list stays as it is, and the checks refuse it."""
    return tuple(keys) if isinstance(keys, list | tuple) else cast("tuple[PublicKey, ...]", keys)


def _check_own_key(key: object) -> None:
    if not isinstance(key, Identity):
        as_path(key)


def _given_endpoints(listen: Collection[str]) -> tuple[str, ...]:
    """The endpoint strings; what is none stays as it is, and the checks refuse it."""
    try:
        return as_endpoints(listen)
    except (RealizeError, SeveralProblems):
        return cast("tuple[str, ...]", listen)


def _given_metrics(metrics: str | int | None) -> str | None:
    try:
        return None if metrics is None else as_metrics(metrics)
    except RealizeError:
        return str(metrics)


def _given_accept(accept: Collection[Preserve]) -> Collection[Preserve]:
    """What is accepted; what is no list of such stays as it is, and the checks refuse it."""
    return frozenset(accept) if isinstance(accept, set | frozenset | list | tuple) else accept


@frozen(eq=False, repr=False)
class DirectoryConfig(ByValue):
    """A directory that the daemon serves.  Raises `ConfigError` for values that make no sense."""

    path: str = field(converter=given_path)
    """Absolute; a relative one that is given starts at the working directory."""
    reserve: Reserve = NO_RESERVE
    """The space that peers must leave free on its file system."""
    mount: str | None = field(default=None, converter=given_file)
    """Where its file system is mounted; None if that does not matter.  While nothing is, the directory is not there."""
    backup: str | None = None
    """The directory inside it, relative to it, where all goes that peers replace; None: that is not kept."""
    backup_max_age_s: float | None = None
    """Seconds after which a backup is removed; None: never."""
    links: Links = Links.INSIDE
    """Which symlinks peers may bring and take away, if they ask for symlinks at all."""
    accept: Collection[Preserve] = field(default=(), converter=_given_accept)
    """What peers may set beside permission bits and times: some of `realize.values.EXTRAS`."""

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        refuse(
            *problems_of("path", as_path, self.path),
            *problems_of("reserve", instance_of(Reserve), self.reserve),
            *problems_if_given("mount", as_path, self.mount),
            *problems_if_given("backup", as_backup_dir, self.backup),
            *problems_if_given("backup_max_age", check_seconds, self.backup_max_age_s),
            *problems_of("links", instance_of(Links), self.links),
            *problems_of("accept", check_accept, self.accept),
        )
        if self.backup_max_age_s is not None and self.backup is None:
            refuse((("backup_max_age",), "is for backups, and backup does not say where they are"))


@frozen(eq=False, repr=False)
class PeerConfig(ByValue):
    """A peer, identified by its key, or by any of several.  Raises `ConfigError` for values that make no sense."""

    key: PublicKey | None = None
    """Its only key; None if there are several."""
    address: str | None = None
    """The address of its daemon, for `parse_address`; None if the name of the peer is its host name."""
    rights: Mapping[str, frozenset[Right]] = field(factory=dict, converter=_kept_rights)
    """Its rights here, by directory name."""
    admin: bool = False
    """Whether it may change the limits of peers and of the service."""
    keys: tuple[PublicKey, ...] = field(default=(), converter=_given_pins)
    """Its keys, the newest last, while it changes them; at most `realize.keys.MAX_KEYS`."""
    origin: PublicKey | None = None
    """A former key, which lets nobody in: what came from its holder came from this peer.  None for the first key."""

    @property
    def pins(self) -> tuple[PublicKey, ...]:
        """The keys with which it is let in, the newest last."""
        return self.keys if self.key is None else (self.key,)

    @property
    def origin_key(self) -> PublicKey:
        """The key that stands for the peer where it is kept what came from it, whichever key it came with."""
        return self.pins[0] if self.origin is None else self.origin

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        refuse(
            *self._problems_of_keys(),
            *problems_if_given("origin", instance_of(PublicKey), self.origin),
            *problems_if_given("address", as_address, self.address),
            *(
                problem
                for name, rights in self.rights.items()
                for right in rights
                for problem in problems_of(("dirs", name), instance_of(Right), right)
            ),
            *problems_of("admin", as_boolean, self.admin),
        )

    def _problems_of_keys(self) -> Iterator[Problem]:
        if self.key is not None:
            yield from problems_of("key", instance_of(PublicKey), self.key)
            if self.keys != ():
                yield ("keys",), "is there beside key; expected one of the two: keys for several"
        elif self.keys == ():
            yield ("key",), "is missing; expected the public key of the peer, or keys with several"
        else:
            yield from problems_of("keys", check_keys, self.keys)


@frozen(kw_only=True, eq=False, repr=False)
class ThrottleConfig(ByValue):
    """The initial rate limits, in bytes per second or as timetables of such; None is unlimited.

    Raises `ConfigError` for values that make no sense.
    """

    service_bps: RateByTime = None
    peers_bps: Mapping[str, RateByTime] = field(factory=dict, converter=_kept_rates)
    connection_bps: RateByTime = None

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        refuse(
            *problems_of("service", check_rate_value, self.service_bps),
            *problems_of("peers", named("peer", check_rate_value), self.peers_bps),
            *problems_of("connection", check_rate_value, self.connection_bps),
        )


@frozen(kw_only=True, eq=False, repr=False)
class LimitsConfig(ByValue):
    """How much memory the daemon uses for its peers.  Raises `ConfigError` for values that make no sense."""

    memory_bytes: int = 128 << 20
    """For all peers together."""
    peer_memory_bytes: int = 64 << 20
    """For each peer."""

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        refuse(
            *problems_of("memory", check_memory_value, self.memory_bytes),
            *problems_of("peer_memory", check_memory_value, self.peer_memory_bytes),
        )


@frozen(eq=False, repr=False)
class LogsConfig(ByValue):
    """What ``twistd realized`` logs, in which of `realize.levels.FORMATS`, and to which file (None is stderr).

    A daemon in another program has none of this: its records go to the log of that program.
    Raises `ConfigError` for values that make no sense.
    """

    level: Levels = Factory(Levels)
    format: str = "auto"
    file: str | None = field(default=None, converter=given_file)

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        refuse(
            *problems_of("level", check_levels, self.level),
            *problems_of("format", choice(*FORMATS), self.format),
            *problems_if_given("file", as_path, self.file),
        )


@frozen(kw_only=True, eq=False, repr=False)
class Config(ByValue):
    """A configuration: all that a daemon, or a program that moves files, has to know.

    `read_config` makes one from a file; a program may as well make it itself.
    Either way all values are checked; raises `ConfigError` with one line for each problem, in the words of the file.
    """

    key: str | Identity = field(converter=_given_key)
    """Our own key pair, or the file of our private key."""
    former_keys: tuple[str | Identity, ...] = field(default=(), converter=_given_keys)
    """Our former key pairs, or their files: for those who do not know the new one yet."""
    listen: tuple[str, ...] = field(default=(f"*:{DEFAULT_PORT}",), converter=_given_endpoints)
    """Twisted server endpoint strings, or ``*:PORT`` for all addresses; ``HOST:PORT`` may be given."""
    metrics: str | None = field(default=None, converter=_given_metrics)
    """Twisted server endpoint string; a port, or ``HOST:PORT``, may be given; None if metrics are not served."""
    directories: Mapping[str, DirectoryConfig] = field(factory=dict, converter=_kept_directories)
    peers: Mapping[str, PeerConfig] = field(factory=dict, converter=_kept_peers)
    moves: Mapping[str, MoveConfig] = field(factory=dict, converter=_kept_moves)
    """What the daemon moves by itself."""
    throttle: ThrottleConfig = Factory(ThrottleConfig)
    limits: LimitsConfig = Factory(LimitsConfig)
    logs: LogsConfig = Factory(LogsConfig)
    partial_max_age_s: float = PARTIAL_MAX_AGE_S
    """Seconds without progress after which a partial is removed."""
    compress: Compress = Compress.AUTO
    """Whether content is compressed on its way to and from peers."""
    drain_s: float = 10.0
    """Seconds that a stopping daemon lets running commands and moves continue."""
    state: str | None = field(default=None, converter=given_file)
    """The directory where the daemon remembers how its moves fared; None: nowhere."""
    control: str | None = field(default=None, converter=given_file)
    """The Unix socket at which the daemon takes commands of this machine; None: none."""
    page_file_names: bool = False
    """Whether the page beside the metrics shows names of files."""

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        refuse(
            *problems_of("key", _check_own_key, self.key),
            *problems_of("former_keys", partial(as_former_keys, convert=_check_own_key), self.former_keys),
            *problems_of("listen", as_endpoints, self.listen),
            *problems_if_given("metrics", as_metrics, self.metrics),
            *problems_of("dirs", named("directory", instance_of(DirectoryConfig)), self.directories),
            *problems_of("peers", named("peer", instance_of(PeerConfig)), self.peers),
            *problems_of("moves", named("move", _check_move), self.moves),
            *problems_of("throttle", instance_of(ThrottleConfig), self.throttle),
            *problems_of("limits", instance_of(LimitsConfig), self.limits),
            *problems_of("logs", instance_of(LogsConfig), self.logs),
            *problems_of("partial_max_age", check_seconds, self.partial_max_age_s),
            *problems_of("compress", instance_of(Compress), self.compress),
            *problems_of("drain", partial(check_seconds, zero_allowed=True), self.drain_s),
            *problems_if_given("state", as_path, self.state),
            *problems_if_given("control", as_path, self.control),
            *problems_of("page_file_names", as_boolean, self.page_file_names),
        )
        refuse(*_contradictions(self))

    def identity(self) -> Identity:
        """Our own key pair, read from its file if it is in one.  Raises `ConfigError`."""
        return _loaded(self.key)

    def identities(self) -> tuple[Identity, ...]:
        """Our key pair and the former ones, newest first.  Raises `ConfigError`."""
        identities = [self.identity()]
        for index, key in enumerate(self.former_keys):
            try:
                identity = _loaded(key)
            except ConfigError as error:
                raise config_error((("former_keys", index), str(error))) from error
            if identity in identities:
                raise config_error((("former_keys", index), "the same key as another one; expected each key once"))
            identities.append(identity)
        return tuple(identities)


def _loaded(key: str | Identity) -> Identity:
    return load_identity(key) if isinstance(key, str) else key


def check_daemon_needs(config: Config) -> None:
    """Raise `ConfigError` if a daemon lacks something: an endpoint, directories, the key file.

    Whether the directories are there is not looked at, since a disk may hang.
    """
    refuse(*absences(config))


def _contradictions(config: Config) -> Iterator[Problem]:
    """Problems between values that are valid by themselves."""
    owners: dict[PublicKey, str] = {}
    for name, peer in config.peers.items():
        for key, where in _places_of_keys(peer):
            other = owners.setdefault(key, name)
            if other != name:
                text = f"the same key as that of peers.{other}; expected another key for every peer"
                yield ("peers", name, *where), text
        for directory in peer.rights:
            if directory not in config.directories:
                yield (
                    ("peers", name, "dirs", directory),
                    f"no such directory; expected one of {_names(config.directories)}",
                )
    for name in config.throttle.peers_bps:
        if name not in config.peers:
            yield ("throttle", "peers", name), f"no such peer; expected one of {_names(config.peers)}"


def _places_of_keys(peer: PeerConfig) -> Iterator[tuple[PublicKey, tuple[str | int, ...]]]:
    """The keys of a peer, each with where it is in its table."""
    for index, key in enumerate(peer.pins):
        yield key, ("keys", index) if peer.key is None else ("key",)
    if peer.origin is not None:
        yield peer.origin, ("origin",)


def absences(config: Config) -> Iterator[Problem]:
    """Things that a daemon requires and that are missing."""
    former = ((("former_keys", index), key) for index, key in enumerate(config.former_keys))
    for where, key in ((("key",), config.key), *former):
        if isinstance(key, str) and not os.path.isfile(key):
            expected = "expected a private key, as `realize keygen` makes it"
            yield where, f"there is no file {display_text(key)}; {expected}"
    if not config.listen and not config.moves:
        yield ("listen",), "expected at least one endpoint to listen on, or a move"
    if not config.directories and not config.moves:
        yield ("dirs",), "expected at least one directory to serve, such as a table dirs.inbox with a path, or a move"


def _names(table: Mapping[str, object]) -> str:
    return ", ".join(table) or "those that are configured, and none is"
