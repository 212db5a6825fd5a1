"""Which files of the source are meant: gitignore patterns and a minimum age; pure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen

from realize.errors import UsageError

if TYPE_CHECKING:
    from pathspec import PathSpec
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern


@frozen
class Selection:
    """Patterns in the order in which they were given; the last one that matches a path decides."""

    lines: tuple[str, ...] = ()
    min_age_ns: int = 0
    only: bool = False
    """Leave out the files that no pattern names."""
    _spec: PathSpec[GitIgnoreSpecPattern] | None = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Compile the patterns once."""
        object.__setattr__(self, "_spec", _compile(self.lines) if self.lines else None)

    def accepts_path(self, path: bytes) -> bool:
        """Whether the patterns leave this file in."""
        if self._spec is None:
            return True
        left_out = self._spec.check_file(os.fsdecode(path)).include
        return not (self.only if left_out is None else left_out)

    def accepts_directory(self, path: bytes) -> bool:
        """Whether no pattern that leaves something out names this directory, or one that it is in."""
        return self._spec is None or not self._spec.match_file(os.fsdecode(path) + "/")

    def accepts_age(self, mtime_ns: int, now_ns: int) -> bool:
        """Whether the file was last modified long enough ago."""
        return now_ns - mtime_ns >= self.min_age_ns if self.min_age_ns else True


def selection(rules: Sequence[tuple[str, str]], min_age: float = 0.0) -> Selection:
    """A selection from the ``("include" | "exclude", pattern)`` rules of a command line, and an age in seconds.

    Without an exclude before it, the first include leaves out everything that no include names.
    """
    lines: list[str] = []
    for verb, pattern in rules:
        if verb == "include":
            lines.append(pattern[1:] if pattern.startswith("!") else "!" + pattern)
        else:
            lines.append(pattern)
    return Selection(tuple(lines), int(min_age * 1e9), only=bool(rules) and rules[0][0] == "include")


def _compile(lines: Sequence[str]) -> PathSpec[GitIgnoreSpecPattern]:
    # Most runs have no pattern, and loading this takes long enough to be felt.
    from pathspec import PathSpec
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    compiled = []
    for line in lines:
        try:
            compiled.append(GitIgnoreSpecPattern(line))
        except ValueError as error:
            raise UsageError(f"pattern {line!r}: not a gitignore pattern: {error}") from error
    return PathSpec(compiled)
