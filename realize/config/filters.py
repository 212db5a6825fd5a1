"""Filters in the order in which they count: of a command line, or ``filters`` of a standing move.

A rule is ``("include" | "exclude", pattern)``; whether the pattern is one is found out by `realize.mover.filters`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from realize.config.checks import as_path, as_string, as_table, unexpected
from realize.config.problems import SeveralProblems, problems_below
from realize.errors import Problem, RealizeError, UsageError
from realize.ownership import changeable_by_others
from realize.units import display_text

FilterRule = tuple[str, str]

MAX_FILTERS_BYTES: Final = 1 << 20
"""More patterns than anybody writes; /dev/zero has no end."""

_FILTER_KEYS: Final = ("exclude", "include", "filter_from")
_ONE_FILTER: Final = 'expected one of { exclude = "PATTERN" }, { include = "PATTERN" } and { filter_from = "FILE" }'


def rules_in(file_name: str, *, for_daemon: bool = False) -> list[FilterRule]:
    """The rules of a gitignore file, whose lines leave files out; raises `UsageError` if it cannot be read.

    That of a daemon is a part of its configuration, so other users must not be able to change it.
    And it must be a regular file: at a pipe, a daemon would wait for somebody who writes, and not end.
    """
    try:
        opener = _open_regular if for_daemon else None
        with open(file_name, encoding="utf-8", errors="surrogateescape", opener=opener) as file:
            exposed = changeable_by_others(file_name, os.fstat(file.fileno()), "the file") if for_daemon else None
            text = file.read(MAX_FILTERS_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{display_text(file_name)}: {error.strerror}") from error
    if exposed is not None:
        raise UsageError(f"{display_text(file_name)}: {exposed}")
    if len(text) > MAX_FILTERS_BYTES:
        raise UsageError(f"{display_text(file_name)}: is longer than {MAX_FILTERS_BYTES >> 20} MiB")
    return [("exclude", line) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def as_filters(value: object, resolve: Callable[[str], str]) -> tuple[FilterRule, ...]:
    """Rules from an array of tables with one key each; ``resolve`` makes paths of files of patterns absolute."""
    if not isinstance(value, list):
        raise unexpected("an array of tables", value)
    rules: list[FilterRule] = []
    problems: list[Problem] = []
    for index, item in enumerate(value):
        try:
            rules += _rules_of(item, resolve)
        except RealizeError as error:
            problems.extend(problems_below(index, error))
    if problems:
        raise SeveralProblems(problems)
    return tuple(rules)


def _rules_of(item: object, resolve: Callable[[str], str]) -> list[FilterRule]:
    table = as_table(item)
    if len(table) != 1 or not table.keys() <= set(_FILTER_KEYS):
        raise UsageError(_ONE_FILTER)
    [(kind, given)] = table.items()
    if kind == "filter_from":
        return rules_in(resolve(as_path(given)), for_daemon=True)
    return [(kind, as_string(given, "a pattern"))]


def _open_regular(path: str, flags: int) -> int:
    fd = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a regular file", path)
