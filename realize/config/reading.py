"""The TOML file: where it is looked for, how it is read, and what must exist.

This module owns the format, which docs/configuration.md describes.
It reads the file, and checks that the key file exists without opening it.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from realize.config.checks import (
    absolute,
    as_accept,
    as_address,
    as_backup_dir,
    as_boolean,
    as_duration,
    as_duration_or_zero,
    as_endpoints,
    as_former_keys,
    as_log_levels,
    as_memory,
    as_metrics,
    as_path,
    as_public_key,
    as_public_keys,
    as_rate_by_time,
    as_reserve,
    as_string,
    choice,
    named,
    unexpected,
    word_of,
)
from realize.config.problems import SeveralProblems, as_lines, problems_in, refuse
from realize.config.tables import table_of
from realize.config.values import (
    Config,
    DirectoryConfig,
    LimitsConfig,
    LogsConfig,
    PeerConfig,
    Right,
    ThrottleConfig,
    absences,
)
from realize.errors import ConfigError, RealizeError, UsageError
from realize.levels import FORMATS
from realize.ownership import changeable_by_others, forbidden
from realize.places import default_config_path, default_key_path, home
from realize.units import (
    display_text,
    quoted,
)
from realize.values import Compress, Links

if TYPE_CHECKING:
    from realize.config.moves import MoveConfig

Warn = Callable[[str], object]
"""Called with one sentence that says what is wrong with a file that is used all the same."""

MAX_FILE_BYTES: Final = 16 << 20
"""More than anybody writes; /dev/zero has no end."""


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
    path: str,
    *,
    for_daemon: bool = False,
    control: str | None = None,
    environ: Mapping[str, str] = os.environ,
    warn: Warn = lambda _: None,
) -> Config:
    """Read and check the configuration in a file.

    ``control`` is where the control socket is if the file does not say.

    The daemon requires a key file that exists, an endpoint to listen on, and directories to serve, which may be absent.
    The command requires none of these; its key is ``REALIZE_KEY``, without former ones, or the one that the file
    names, or `default_key_path`.
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
    if not for_daemon and environ.get("REALIZE_KEY"):
        raw.pop("former_keys", None)
    if not for_daemon and (environ.get("REALIZE_KEY") or "key" not in raw):
        raw["key"] = absolute(default_key_path(environ))
    raw.setdefault("control", False if control is None else control)
    folder = os.path.dirname(absolute(path))
    try:
        config = _structure(raw, lambda path: _resolve(path, folder, environ))
        if for_daemon:
            refuse(*absences(config))
    except (RealizeError, SeveralProblems) as error:
        raise ConfigError(as_lines(f"{file}: ", problems_in(error))) from error
    return config


def _load(path: str, file: str) -> tuple[dict[str, Any], str | None]:
    """The content of the file, and how other users could change it (None if they cannot)."""
    try:
        with open(path, "rb") as stream:
            exposed = changeable_by_others(path, os.fstat(stream.fileno()))
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError(f"{file}: not a configuration: it has more than {MAX_FILE_BYTES >> 20} MiB")
        return tomllib.loads(content.decode()), exposed
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: there is no such configuration file") from error
    except OSError as error:
        advice = forbidden(path) if isinstance(error, PermissionError) else ""
        raise ConfigError(f"{file}: cannot read the configuration file: {error.strerror}{advice}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not a TOML file: {display_text(str(error))}") from error


def _resolve(path: str, folder: str, environ: Mapping[str, str]) -> str:
    if path == "~" or path.startswith("~/"):
        path = home(environ) + path[1:]
    return os.path.join(folder, os.path.expanduser(path))


def _rights(value: object) -> frozenset[Right]:
    expected = f"an array with any of {', '.join(json.dumps(right.value) for right in Right)}"
    if not isinstance(value, list):
        raise unexpected(expected, value)
    rights = set()
    for item in value:
        try:
            rights.add(Right(as_string(item, expected)))
        except ValueError as error:
            raise UsageError(f"{quoted(item)} is not a right; expected {expected}") from error
    return frozenset(rights)


def _structure(raw: Mapping[str, object], resolve: Callable[[str], str]) -> Config:
    """The content of a file as values; ``resolve`` makes its paths absolute."""

    def path(value: object) -> str:
        return resolve(as_path(value))

    def move(value: object) -> MoveConfig:
        # Without a move, nothing of moves is loaded.
        from realize.config.reading_moves import move_of

        return move_of(resolve)(value)

    structure = table_of(
        Config,
        key=path,
        former_keys=partial(as_former_keys, convert=path),
        listen=as_endpoints,
        metrics=as_metrics,
        directories=named(
            "directory",
            table_of(
                DirectoryConfig,
                path=path,
                reserve=as_reserve,
                mount=path,
                backup=as_backup_dir,
                backup_max_age_s=as_duration,
                links=word_of(Links),
                accept=as_accept,
            ),
        ),
        peers=named(
            "peer",
            table_of(
                PeerConfig,
                key=as_public_key,
                keys=as_public_keys,
                origin=as_public_key,
                address=as_address,
                rights=named("directory", _rights),
                admin=as_boolean,
            ),
        ),
        moves=named("move", move),
        throttle=table_of(
            ThrottleConfig,
            service_bps=as_rate_by_time,
            peers_bps=named("peer", as_rate_by_time),
            connection_bps=as_rate_by_time,
        ),
        limits=table_of(LimitsConfig, memory_bytes=as_memory, peer_memory_bytes=as_memory),
        logs=table_of(LogsConfig, level=as_log_levels, format=choice(*FORMATS), file=path),
        partial_max_age_s=as_duration,
        compress=word_of(Compress),
        drain_s=as_duration_or_zero,
        state=path,
        control=lambda value: None if value is False else path(value),
        page_file_names=as_boolean,
    )
    return structure(raw)
