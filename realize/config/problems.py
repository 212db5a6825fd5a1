"""What is wrong with a configuration: all problems together, one line for each, with the key they are at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError

from realize.errors import ConfigError, KeyPath, Problem, RealizeError
from realize.units import (
    display_text,
)

IN_TOML: Final = {
    "after_timeout_s": "after_timeout",
    "connection_bps": "connection",
    "destination": "to",
    "directories": "dirs",
    "drain_s": "drain",
    "grace_s": "grace",
    "jitter_s": "jitter",
    "max_duration_s": "max_duration",
    "memory_bytes": "memory",
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


_REQUIRED: Final[Mapping[tuple[str, str], str]] = {
    ("Config", "key"): "the file of our private key",
    ("DirectoryConfig", "path"): "the path of the directory",
    ("MoveConfig", "sources"): "where files come from",
    ("MoveConfig", "destination"): "where files go",
}
"""What the required keys mean, by class and attribute."""


class SeveralProblems(Exception):
    """Several problems inside one value that is not an attrs class."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def problems_in(error: BaseException) -> Iterator[Problem]:
    """The problems in the tree of errors that `cattrs` raises; an error of an unexpected kind is a bug, and raised."""
    if isinstance(error, SeveralProblems):
        yield from error.problems
    elif isinstance(error, ClassValidationError):
        noted, bare = error.group_exceptions()
        for inner, note in noted:
            name = toml_key(note.name)
            if isinstance(inner, KeyError):
                yield (name,), f"is missing; expected {_REQUIRED[error.cl.__name__, note.name]}"
            else:
                yield from problems_below(name, inner)
        for inner in bare:
            yield from problems_in(inner)
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


def problems_below(part: str | int, error: BaseException) -> Iterator[Problem]:
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
