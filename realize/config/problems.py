"""What is wrong with a configuration: all problems together, one line for each, with the key they are at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from realize.errors import ConfigError, KeyPath, Problem, RealizeError
from realize.units import (
    display_text,
)

IN_TOML: Final = {
    "after_timeout_s": "after_timeout",
    "backup_max_age_s": "backup_max_age",
    "connection_bps": "connection",
    "destination": "to",
    "directories": "dirs",
    "drain_s": "drain",
    "grace_s": "grace",
    "jitter_s": "jitter",
    "max_duration_s": "max_duration",
    "max_size_bytes": "max_size",
    "max_transfer_bytes": "max_transfer",
    "memory_bytes": "memory",
    "min_size_bytes": "min_size",
    "partial_max_age_s": "partial_max_age",
    "peer_memory_bytes": "peer_memory",
    "peers_bps": "peers",
    "prune_age_s": "prune_dirs",
    "rights": "dirs",
    "service_bps": "service",
    "settle_s": "settle",
    "sources": "from",
}
"""What a file calls attributes that have another name, by attribute."""

BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
"""A TOML key that needs no quotes."""


def toml_key(attribute: str) -> str:
    """What a file calls an attribute of a class of the configuration."""
    return IN_TOML.get(attribute, attribute)


def config_error(*problems: Problem) -> ConfigError:
    """The error for these problems, one line for each."""
    return ConfigError(as_lines("", problems), problems)


class SeveralProblems(Exception):
    """Several problems inside one value that is not made yet."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def problems_in(error: RealizeError | SeveralProblems) -> Iterator[Problem]:
    """The problems that an error tells of."""
    told = error.problems if isinstance(error, SeveralProblems | ConfigError) else ()
    yield from told or [((), str(error))]


def problems_below(part: str | int, error: RealizeError | SeveralProblems) -> Iterator[Problem]:
    """The problems in an error, with one more part before their keys."""
    return (((part, *path), sentence) for path, sentence in problems_in(error))


def refuse(*problems: Problem) -> None:
    """Raise `ConfigError` if there are problems."""
    if problems:
        raise config_error(*problems)


def problems_of(key: str | tuple[str, ...], check: Callable[[Any], object], value: object) -> Iterator[Problem]:
    """What is wrong with a value, according to what reads, or checks, one like it."""
    try:
        check(value)
    except (RealizeError, SeveralProblems) as error:
        path = (key,) if isinstance(key, str) else key
        yield from (((*path, *inner), sentence) for inner, sentence in problems_in(error))


def as_lines(start: str, problems: Iterable[Problem]) -> str:
    """One line for each problem, with ``start`` before each."""

    def key(path: KeyPath) -> str:
        text = ""
        for part in path:
            if isinstance(part, int):
                text += f"[{part}]"
            else:
                text += f".{part}" if BARE_KEY.fullmatch(part) else f'."{display_text(part)}"'
        return text.removeprefix(".")

    return "\n".join(f"{start}{key(path)}: {sentence}" for path, sentence in problems)


def problems_if_given(key: str, check: Callable[[Any], object], value: object) -> Iterator[Problem]:
    """The same for a value that may be None, which stands for none."""
    return iter(()) if value is None else problems_of(key, check, value)
