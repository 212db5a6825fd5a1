"""Rules that say which directories a listing leaves out; cheap to evaluate, even if a hostile peer made them; pure.

A rule is ``-`` (leave out) or ``+`` (enter all the same), and a path: with a leading ``/`` a path from the top of the
listing, else a name at any depth.
``*`` and ``?`` are wildcards within a component; every other character stands for itself.
A directory is left out if a rule leaves out it, or a directory above it, and no later rule to enter can match anything
in it.
Patterns for files are more expressive; see `realize.mover.filters`.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from attrs import frozen

from realize.by_value import ByValue

MAX_RULES: Final = 256
"""Rules of one listing at most."""

MAX_RULES_BYTES: Final = 8 << 10
"""Their total length at most, so that they are cheap to compile."""

MAX_WILDCARDS: Final = 256
"""Wildcards in all of them at most, each of which takes some time to compile."""

# Estimated memory of a compiled rule: for each component, for each byte of its text, for each wildcard.
_COMPONENT_BYTES: Final = 512
_CHARACTER_BYTES: Final = 32
_WILDCARD_BYTES: Final = 256
LEAVE: Final = b"-"
ENTER: Final = b"+"


def rule(verb: bytes, components: Sequence[str], *, anchored: bool) -> bytes:
    """The text of a rule; ``verb`` is `LEAVE` or `ENTER`."""
    return verb + os.fsencode("/" * anchored + "/".join(components))


def rules_fit(rules: Sequence[bytes]) -> bool:
    """Whether these rules are within the limits of one listing."""
    wild = sum(map(_wild, rules))
    return len(rules) <= MAX_RULES and sum(map(len, rules)) <= MAX_RULES_BYTES and wild <= MAX_WILDCARDS


def _wild(rule: bytes) -> int:
    return rule.count(b"*") + rule.count(b"?")


@frozen(eq=False, repr=False)
class _Rule(ByValue):
    enters: bool
    anchored: bool
    components: tuple[re.Pattern[str], ...]

    def concerns(self, path: Sequence[str]) -> bool:
        """Whether it matches this path, or one above it; for a rule to enter, also whether it may match one below."""
        if not self.anchored:
            return self.enters or any(self.components[-1].match(name) for name in path)
        if len(self.components) > len(path) and not self.enters:
            return False
        return all(wild.match(name) for wild, name in zip(self.components, path, strict=False))


def _read(text: bytes) -> _Rule:
    path = os.fsdecode(text[1:])
    wild = path.strip("/").replace("[", "[[]").split("/")
    # In the expressions of `fnmatch`, each star matches as little as possible and never backtracks, so no rule can make
    # matching slow.
    components = tuple(re.compile(fnmatch.translate(each)) for each in wild)
    return _Rule(text[:1] == ENTER, path.startswith("/"), components)


class Leaving:
    """Applies rules to the directories of one listing; compiles the rules at the first one."""

    def __init__(self, rules: Sequence[bytes] = ()) -> None:
        self.rules = rules

    @cached_property
    def _rules(self) -> list[_Rule]:
        return [_read(each) for each in self.rules]

    @property
    def held(self) -> int:
        """About how many bytes of memory the compiled rules take."""
        return sum(
            _COMPONENT_BYTES * (each.count(b"/") + 1) + _CHARACTER_BYTES * len(each) + _WILDCARD_BYTES * _wild(each)
            for each in self.rules
        )

    def __call__(self, path: bytes) -> bool:
        """Whether to leave out this directory."""
        if not self.rules:
            return False
        components, left_out = os.fsdecode(path).split("/"), False
        for each in self._rules:
            if left_out == each.enters and each.concerns(components):
                left_out = not each.enters
        return left_out
