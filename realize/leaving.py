"""Which directories of a listing are not to be entered: a few rules that cost little to try, whoever made them; pure.

A rule is ``-`` (leave out) or ``+`` (enter all the same), and a path: with ``/`` before it one from the top of the
listing, else a name at any depth.
``*`` and ``?`` are wild within a component, and everything else stands for itself.
A directory is left out if a rule says so of it, or of one above it, and no later rule to enter can concern what is in
it.
Patterns for files say more than that; see `realize.mover.filters`.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from attrs import define, frozen

MAX_RULES: Final = 256
"""Rules of one listing."""

MAX_RULES_BYTES: Final = 8 << 10
"""Bytes that they have together, so that it costs little to prepare them."""

MAX_WILDCARDS: Final = 256
"""Wild characters that they have together, each of which takes some time to prepare."""

_COMPONENT: Final = 512
_BYTE: Final = 32
_WILD: Final = 256
LEAVE: Final = b"-"
ENTER: Final = b"+"


def rule(verb: bytes, components: Sequence[str], *, anchored: bool) -> bytes:
    """How a rule is written."""
    return verb + os.fsencode("/" * anchored + "/".join(components))


def rules_fit(rules: Sequence[bytes]) -> bool:
    """Whether one listing may have these."""
    wild = sum(map(_wild, rules))
    return len(rules) <= MAX_RULES and sum(map(len, rules)) <= MAX_RULES_BYTES and wild <= MAX_WILDCARDS


def _wild(rule: bytes) -> int:
    return rule.count(b"*") + rule.count(b"?")


@frozen
class _Rule:
    enters: bool
    anchored: bool
    components: tuple[re.Pattern[str], ...]

    def concerns(self, path: Sequence[str]) -> bool:
        """Whether it is about this path, or one above it; for one that enters, also about one below it."""
        if not self.anchored:
            return self.enters or any(self.components[-1].match(name) for name in path)
        if len(self.components) > len(path) and not self.enters:
            return False
        return all(wild.match(name) for wild, name in zip(self.components, path, strict=False))


def _read(text: bytes) -> _Rule:
    path = os.fsdecode(text[1:])
    wild = path.strip("/").replace("[", "[[]").split("/")
    # Of the form that `fnmatch` makes, each star takes the least that will do, and is not tried again.
    components = tuple(re.compile(fnmatch.translate(each)) for each in wild)
    return _Rule(text[:1] == ENTER, path.startswith("/"), components)


@define(eq=False, slots=False)
class Leaving:
    """Judges the directories of one listing; prepares its rules when the first is judged."""

    rules: Sequence[bytes] = ()

    @cached_property
    def _rules(self) -> list[_Rule]:
        return [_read(each) for each in self.rules]

    @property
    def held(self) -> int:
        """About how many bytes of memory the rules take when they are prepared."""
        return sum(_COMPONENT * (each.count(b"/") + 1) + _BYTE * len(each) + _WILD * _wild(each) for each in self.rules)

    def __call__(self, path: bytes) -> bool:
        """Whether this directory is not to be entered."""
        if not self.rules:
            return False
        components, left_out = os.fsdecode(path).split("/"), False
        for each in self._rules:
            if left_out == each.enters and each.concerns(components):
                left_out = not each.enters
        return left_out
