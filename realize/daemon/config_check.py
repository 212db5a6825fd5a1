"""What ``twistd realized --check-config`` looks at: all that a start needs, as far as that shows without starting.

Nothing is opened for writing, no port is opened, and nothing is changed, also while a daemon with that configuration
runs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from realize.config import Config, DirectoryConfig, LogsConfig, Right, read_config
from realize.config.problems import as_lines
from realize.daemon.logs import DaemonLogOptions
from realize.daemon.looks import DISK_ANSWER_S, UNMOUNTED, answers_in_time, look
from realize.errors import ConfigError, KeyPath, Problem
from realize.fs.own_directories import put_by_others
from realize.fs.socket_files import MAX_SOCKET_PATH_BYTES
from realize.locations import LocalLocation
from realize.moves.plan import Plan, plans_of
from realize.units import display_text

_Check = Callable[[], Iterator[str]]
"""Yields what is wrong, in sentences; may take as long as a disk takes."""

_ACTIVATED: Final = "systemd:"
"""How endpoint strings begin whose sockets systemd opens: only for the daemon, so there is nothing to look at here."""


class ConfigCheck:
    """Looks at the configuration in the file at ``path``, over which the ``logs`` of the command line have precedence.

    ``parse_endpoint`` parses a server endpoint string of Twisted without listening.
    """

    def __init__(self, path: str, logs: DaemonLogOptions, parse_endpoint: Callable[[str], object]) -> None:
        self._path = path
        self._logs = logs
        self._parse_endpoint = parse_endpoint
        self._config: Config | None = None

    def problems(self) -> list[str]:
        """All that would keep a daemon from its work, a line each."""
        read: list[str] = []
        try:
            self._config = config = read_config(self._path, for_daemon=True)
        except ConfigError as error:
            read = str(error).splitlines()
            try:
                # There may be more that is wrong than what is missing.
                config = read_config(self._path, for_daemon=False, environ={})
            except ConfigError:
                return read
        lines = list(read)
        start = f"{display_text(self._path)}: "
        for key, sentence in self._found(config):
            place = as_lines(start, [(key, "")])
            if not any(line.startswith(place) for line in read):
                lines.append(f"{place}{sentence}")
        return lines

    def summary(self) -> Iterator[str]:
        """What the daemon would do, if there are no problems."""
        config = self._config
        if config is None:
            return
        yield f"{display_text(self._path)}: the configuration is good"
        newest, *former = (identity.public_key.fingerprint for identity in config.identities())
        yield f"key: {newest}"
        for fingerprint in former:
            yield f"former key: {fingerprint}"
        for endpoint in config.listen:
            yield f"listen: {display_text(endpoint)}"
        for name, directory in config.directories.items():
            rights = {peer: each.rights.get(name, frozenset()) for peer, each in config.peers.items()}
            who = [
                f"{peer} ({', '.join(sorted(each.value for each in given))})" for peer, given in rights.items() if given
            ]
            yield f"dirs.{name}: {display_text(directory.path)}, for {', '.join(who) or 'nobody'}"
        for name, move in config.moves.items():
            sources = ", ".join(map(display_text, move.sources))
            yield f"moves.{name}: {sources} to {display_text(move.destination)}, {display_text(move.when)}"
        if config.metrics is not None:
            yield f"metrics: {display_text(config.metrics)}"
        file = self._logs.over(config.logs).file
        yield f"logs: {'stderr' if file is None else display_text(file)}"

    def _found(self, config: Config) -> Iterator[Problem]:
        plans: dict[str, Plan] = {}
        try:
            plans = plans_of(config)
        except ConfigError as error:
            yield from error.problems
        try:
            config.identities()
        except ConfigError as error:
            yield from error.problems or [(("key",), str(error))]
        endpoints: list[tuple[KeyPath, str]] = [(("listen", number), each) for number, each in enumerate(config.listen)]
        if config.metrics is not None:
            endpoints.append((("metrics",), config.metrics))
        for key, description in endpoints:
            if not description.startswith(_ACTIVATED):
                try:
                    self._parse_endpoint(description)
                except (ValueError, TypeError, OSError) as error:
                    yield key, f"{display_text(description)}: {error}"
        logs = self._logs.over(config.logs)
        yield from _disk_problems([*_checks(config, logs), *_checks_of_moves(plans)])


def _disk_problems(checks: list[tuple[KeyPath, str, _Check]]) -> Iterator[Problem]:
    """What the checks of paths find."""
    found = answers_in_time([partial(_sentences, path, check) for _, path, check in checks], DISK_ANSWER_S)
    for (key, path, _), sentences in zip(checks, found, strict=True):
        hangs = f"{display_text(path)}: its disk has not answered for {DISK_ANSWER_S:g} s"
        for sentence in [hangs] if sentences is None else sentences:
            yield key, sentence


def _sentences(path: str, check: _Check) -> list[str]:
    try:
        return list(check())
    except OSError as error:
        return [f"{display_text(path)}: {error.strerror}"]


def _checks(config: Config, logs: LogsConfig) -> Iterator[tuple[KeyPath, str, _Check]]:
    for name, directory in config.directories.items():
        rights = set[Right]().union(*(peer.rights.get(name, frozenset()) for peer in config.peers.values()))
        key: KeyPath = ("dirs", name, "path")
        yield (
            key,
            directory.path,
            partial(_directory, directory.path, reads=Right.READ in rights, writes=bool(rights - {Right.READ})),
        )
        if directory.mount is not None:
            yield ("dirs", name, "mount"), directory.path, partial(_mount, directory, directory.mount)
    if logs.file is not None:
        yield ("logs", "file"), logs.file, partial(_log_file, logs.file)
    if config.state is not None:
        yield ("state",), config.state, partial(_own_directory, config.state)
    if config.control is not None:
        yield ("control",), config.control, partial(_socket, config.control)


def _checks_of_moves(plans: dict[str, Plan]) -> Iterator[tuple[KeyPath, str, _Check]]:
    for name, plan in plans.items():
        key: KeyPath = ("moves", name, "from")
        for number, source in enumerate(plan.locations[:-1]):
            if isinstance(source, LocalLocation):
                path = source.path
                yield (*key, number), path, partial(_directory, path, reads=True, writes=True)
        if plan.config.after:
            program = plan.config.after[0]
            yield ("moves", name, "after"), program, partial(_program, program)


def _directory(path: str, *, reads: bool, writes: bool) -> Iterator[str]:
    """One that is served, or from which files are moved: it is there, and allows what is to be done with it."""
    shown = display_text(path)
    if not _is_directory(path):
        yield f"there is no directory {shown}; expected one that exists"
        return
    for is_needed, permission, deed in ((reads, os.R_OK, "read"), (writes, os.W_OK, "write to")):
        if is_needed and not os.access(path, permission | os.X_OK, effective_ids=True):
            yield f"this runs as user {os.geteuid()}, who may not {deed} the directory {shown}"


def _mount(directory: DirectoryConfig, mount: str) -> Iterator[str]:
    """Where the file system of a directory is to be mounted; whether that is there at all is another question."""
    if look(directory) == UNMOUNTED:
        yield f"nothing is mounted at {display_text(mount)}, so the directory counts as absent"


def _own_directory(path: str) -> Iterator[str]:
    """One that is ours alone, and is made if only that is missing."""
    if not _is_directory(path):
        yield from _directory(os.path.dirname(path), reads=False, writes=True)
        return
    others = put_by_others(os.stat(path), path)
    if others is not None:
        yield others
    yield from _directory(path, reads=True, writes=True)


def _log_file(path: str) -> Iterator[str]:
    shown = display_text(path)
    if not os.path.lexists(path):
        yield from _directory(os.path.dirname(path), reads=False, writes=True)
    elif stat.S_ISDIR(os.stat(path).st_mode):
        yield f"{shown} is a directory; expected a file"
    elif not os.access(path, os.W_OK, effective_ids=True):
        yield f"this runs as user {os.geteuid()}, who may not write to {shown}"


def _socket(path: str) -> Iterator[str]:
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        yield f"{display_text(path)} is too long: expected at most {MAX_SOCKET_PATH_BYTES} bytes"
        return
    yield from _own_directory(os.path.dirname(path))
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        yield f"{display_text(path)} exists and is not a socket; expected a name that is free"


def _program(path: str) -> Iterator[str]:
    if not os.path.isfile(path) or not os.access(path, os.X_OK, effective_ids=True):
        yield f"{display_text(path)} is not a program that user {os.geteuid()}, who runs this, may execute"


def _is_directory(path: str) -> bool:
    """Whether there is a directory; raises `OSError` if that cannot be told."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
