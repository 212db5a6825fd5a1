"""The names of users and groups of this machine, and their numbers; for a thread, since a directory service may answer.

What was found out is believed for a minute, so that a tree of a million files asks a few times, and a peer that names
users that do not exist does not ask for each of them anew.
"""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable
from functools import cache
from typing import Final, Generic, TypeVar

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")

_BELIEVED_S: Final = 60.0
MAX_REMEMBERED_ANSWERS: Final = 1024
"""Answers of each kind that are remembered at most."""

MAX_NAME_BYTES: Final = 255
"""Length of a name at most."""


class _Remembered(Generic[_Question, _Answer]):
    """A function whose answers are remembered for a while; may be called by several threads."""

    def __init__(self, ask: Callable[[_Question], _Answer]) -> None:
        self._ask = ask
        self._answers: dict[_Question, tuple[float, _Answer]] = {}

    def __call__(self, question: _Question) -> _Answer:
        try:
            return self.at_hand(question)
        except KeyError:
            pass
        now, answer = time.monotonic(), self._ask(question)
        if len(self._answers) >= MAX_REMEMBERED_ANSWERS:
            self._answers.clear()
        self._answers[question] = now, answer
        return answer

    def at_hand(self, question: _Question) -> _Answer:
        """Return the answer without asking anybody; raises `KeyError` if it is not believed any more, or not known."""
        since, answer = self._answers[question]
        if time.monotonic() - since >= _BELIEVED_S:
            raise KeyError(question)
        return answer


def _user_name(number: int) -> bytes:
    try:
        return os.fsencode(pwd.getpwuid(number).pw_name)
    except (KeyError, OverflowError):
        return b""


def _group_name(number: int) -> bytes:
    try:
        return os.fsencode(grp.getgrgid(number).gr_name)
    except (KeyError, OverflowError):
        return b""


def _user_number(name: bytes) -> int | None:
    try:
        return pwd.getpwnam(os.fsdecode(name)).pw_uid
    except (KeyError, ValueError):
        return None


def _group_number(name: bytes) -> int | None:
    try:
        return grp.getgrnam(os.fsdecode(name)).gr_gid
    except (KeyError, ValueError):
        return None


user_name: Final = _Remembered(_user_name)
"""The name of the user with that number; empty if nobody has it."""

group_name: Final = _Remembered(_group_name)
"""The name of the group with that number; empty if none has it."""


def known_user(number: int) -> bytes:
    """The same, from memory alone; raises `KeyError` if it is not there."""
    return user_name.at_hand(number)


def known_group(number: int) -> bytes:
    """The same for groups."""
    return group_name.at_hand(number)


user_number: Final = _Remembered(_user_number)
"""The number of the user of that name; None if there is none."""

group_number: Final = _Remembered(_group_number)
"""The number of the group of that name; None if there is none."""


_ALL_NUMBERS: Final = (1 << 32) - 1


def _unmapped(kind: str) -> int | None:
    try:
        with open(f"/proc/self/{kind}_map", encoding="ascii") as numbers:
            mapped = sum(int(line.split()[2]) for line in numbers)
        with open(f"/proc/sys/kernel/overflow{kind}", encoding="ascii") as number:
            return None if mapped >= _ALL_NUMBERS else int(number.read())
    except (OSError, ValueError, IndexError):
        return None


@cache
def unmapped_user() -> int | None:
    """The number that stands for all users who have none in this user namespace (user_namespaces(7)); None if all do.

    In a namespace in which it is also that of a user, the two cannot be told apart.
    """
    return _unmapped("uid")


@cache
def unmapped_group() -> int | None:
    """The same for groups."""
    return _unmapped("gid")


def number_here(
    number: int, name: bytes, number_of: Callable[[bytes], int | None], name_of: Callable[[int], bytes]
) -> int | None:
    """Return which number stands here for somebody who has that number and name elsewhere; None if nobody does.

    Without a name there is just the number, which must not be that of somebody else here.
    """
    if name:
        return number_of(name)
    return None if name_of(number) else number
