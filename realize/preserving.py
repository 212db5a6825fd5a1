"""What is carried over besides the content of files, as people write it: ``mode,times,owner``; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from realize.errors import UsageError
from realize.units import quoted
from realize.values import Preserve, preserving

NAMES: Final = tuple(each.value for each in Preserve)
"""The names of a list."""

ALL: Final = "all"
NONE: Final = "none"


def preserved(names: Iterable[str]) -> frozenset[Preserve]:
    """Return what these names stand for, `ALL` and `NONE` too; raises `UsageError` for any other one.

    An access control list is one with the permission bits, so it brings them.
    """
    chosen: set[Preserve] = set()
    listed = [name.strip() for name in names]
    for name in listed:
        if name == ALL:
            chosen |= set(Preserve)
        elif name in NAMES:
            chosen.add(Preserve(name))
        elif name != NONE or len(listed) > 1:
            raise UsageError(f"{quoted(name)}: expected {ALL}, {NONE}, or some of {', '.join(NAMES)}")
    if not listed:
        raise UsageError(f"expected {ALL}, {NONE}, or some of {', '.join(NAMES)}")
    return preserving(chosen)


def preserved_in(text: str) -> frozenset[Preserve]:
    """The same for a list with commas."""
    return preserved(text.split(","))
