"""Select the files of the source to move: gitignore patterns, a minimum age, and sizes; pure."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from realize.by_value import ByValue
from realize.errors import UsageError
from realize.leaving import ENTER, LEAVE, rule, rules_fit
from realize.units import display_text, quoted

if TYPE_CHECKING:
    from pathspec import PathSpec
    from pathspec.pattern import RegexPattern

MAX_CLOCK_LAG_NS: Final = 5_000_000_000
"""How far the clock of a machine may lag behind that of its file server."""

_ANY_NAME: Final = "\0"
_NEVER: Final = frozenset({"", ".", ".."})


@frozen(eq=False, repr=False)
class Selection(ByValue):
    """Patterns in the order in which they were given; the last one that matches a path decides."""

    lines: tuple[str, ...] = ()
    min_age_ns: int = 0
    only: bool = False
    """Whether to leave out the files that no pattern matches."""
    min_size: int = 0
    max_size: int | None = None
    """The largest size in bytes; None for any."""
    _spec: PathSpec[RegexPattern] | None = field(init=False, eq=False, repr=False)

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
        """Whether no pattern excludes this directory, or one that it is in."""
        return self._spec is None or not self._spec.match_file(os.fsdecode(path) + "/")

    def accepts_unreadable(self, path: bytes) -> bool:
        """Whether an entry that could not be read may be selected, or, if it is a directory, anything in it."""
        if self._spec is None:
            return True
        inside = os.fsdecode(path) + "/" + _ANY_NAME
        return self.accepts_directory(path) and not self._spec.check_file(inside).include

    def leaving(self) -> tuple[bytes, ...]:
        """Listing rules that say which directories need not be entered, since nothing in them can be selected.

        Patterns that such rules cannot express only leave out files one by one.
        """
        rules = [rule(LEAVE, ["*"], anchored=False)] if self.only else []
        for line in self.lines:
            enters = line.startswith("!")
            said = _entering(line[1:]) if enters else _leaving(line)
            if said is not None:
                rules.append(said)
            elif enters:
                rules.clear()  # it may match anywhere
        return tuple(rules) if rules_fit(rules) else ()

    def accepts_age(self, mtime_ns: int, now_ns: int) -> bool:
        """Whether the file was last modified at least the minimum age ago; both times are nanoseconds since 1970."""
        return now_ns - mtime_ns >= self.min_age_ns if self.min_age_ns else True

    def accepts_size(self, size: int) -> bool:
        """Whether a file of that size in bytes is neither too small nor too large."""
        return size >= self.min_size and (self.max_size is None or size <= self.max_size)

    def accepts_file(self, path: bytes, size: int) -> bool:
        """Whether its path and its size leave this file in; its age may not yet."""
        return self.accepts_path(path) and self.accepts_size(size)

    def holds_back(self, mtime_ns: int, now_ns: int) -> bool:
        """Whether the minimum age excludes the file because its time lies in the future by more than clocks differ."""
        return bool(self.min_age_ns) and mtime_ns - now_ns > MAX_CLOCK_LAG_NS


def selection(
    rules: Sequence[tuple[str, str]], min_age: float = 0.0, *, min_size: int = 0, max_size: int | None = None
) -> Selection:
    """The selection for the rules of a command line, a minimum age in seconds, and sizes in bytes.

    A rule is ``("include" | "exclude", pattern)``.

    If the first one is an include, everything that no include matches is left out.
    Raises `realize.errors.UsageError` for a pattern that is invalid or can match nothing.
    """
    lines: list[str] = []
    for verb, pattern in rules:
        if verb == "include":
            lines.append(pattern[1:] if pattern.startswith("!") else "!" + pattern)
        else:
            lines.append(pattern)
    only = bool(rules) and rules[0][0] == "include"
    return Selection(tuple(lines), int(min_age * 1e9), only=only, min_size=min_size, max_size=max_size)


def _components(pattern: str) -> tuple[bool, list[str]] | None:
    """Whether a pattern is anchored at the top of the source, and its components; None if it is more complex."""
    if any(sign in pattern for sign in "[\\") or pattern != pattern.strip() or pattern.endswith("//"):
        return None
    anchored, components = "/" in pattern.rstrip("/"), pattern.strip("/").split("/")
    if components[0] == "**":
        below = components[1:] or ["*"]
        return (False, below) if len(below) == 1 else None
    return anchored, components


def _leaving(pattern: str) -> bytes | None:
    """The rule not to enter directories in which a pattern excludes everything; None if there are none."""
    anchored, components = _components(pattern) or (False, ["**"])
    if len(components) > 1 and components[-1] == "**" and not pattern.endswith("/"):
        components = components[:-1]
    return None if "**" in components else rule(LEAVE, components, anchored=anchored)


def _entering(pattern: str) -> bytes | None:
    """The rule to enter directories that may contain a match of an including pattern; None if any directory may."""
    anchored, components = _components(pattern) or (False, [])
    components = list(takewhile("**".__ne__, components))
    return rule(ENTER, components, anchored=True) if anchored and components else None


def _compile(lines: Sequence[str]) -> PathSpec[RegexPattern]:
    # Imported here since most runs have no pattern, and the import takes noticeably long.
    from pathspec import PathSpec
    from pathspec.pattern import RegexPattern
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    compiled = []
    for line in lines:
        _refuse_odd_components(line)
        try:
            pattern = GitIgnoreSpecPattern(line)
        except ValueError as error:
            raise UsageError(f"pattern {quoted(line)}: not a gitignore pattern: {error}") from error
        if pattern.regex is None:
            raise UsageError(f"pattern {quoted(line)} matches nothing; {_advice(line)}")
        compiled.append(RegexPattern(_of_any_names(pattern.regex), pattern.include))
    # Other backends would compile the expressions again, without their flags.
    return PathSpec(compiled, backend="simple")


def _of_any_names(expression: re.Pattern[str]) -> re.Pattern[str]:
    """The regular expression of a pattern, made safe for names with line breaks in them or at their end."""
    text, end = expression.pattern, "|$)"
    return re.compile(text.removesuffix(end) + r"|\Z)" if text.endswith(end) else text, re.DOTALL)


def _refuse_odd_components(line: str) -> None:
    """Raise `UsageError` if a pattern has components that no name can have, such as ``..``; the user means another."""
    given = line.removeprefix("!")
    if not given.strip(" /"):
        raise UsageError(f"pattern {quoted(given)} matches nothing; for all files, write '*'")
    components = given.removeprefix("/").removesuffix("/").split("/")
    if _NEVER.isdisjoint(components):
        return
    kept = "/".join(each for each in components if each not in _NEVER)
    # A path relative to here was meant, so anchor the suggestion at the top of the source.
    right = f"/{kept}{'/' * given.endswith('/')}" if kept else "*"
    raise UsageError(
        f"pattern {quoted(given)} matches nothing; names are those below the source, as in {quoted(right)}"
    )


def _advice(line: str) -> str:
    if line.startswith("#"):
        return f"it is a comment: for a name that begins so, write '\\{display_text(line)}'"
    return "a bracket stands for itself as in '\\['"
