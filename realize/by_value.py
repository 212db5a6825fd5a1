"""How values show themselves to programmers, in a debugger or a failed test, and when two are equal.

attrs can write ``__repr__``, ``__eq__`` and ``__hash__`` for each class, and compiles them when the class is made: with
over 200 classes that was a seventh of the start of the command.
Values inherit these instead, which look at the fields, and their classes are made with ``eq=False, repr=False``.
What is not compared by value is made the same way, and inherits nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any

from attrs import NOTHING, fields


class ByValue:
    """A class of attrs whose ``repr``, equality and hash are those of attrs.

    Fields with ``repr=False`` are not shown, and those with ``eq=False`` not compared.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        cls: Any = type(self)
        shown = (f"{each.name}={getattr(self, each.name, NOTHING)!r}" for each in fields(cls) if each.repr)
        return f"{cls.__qualname__.rpartition('>.')[2]}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        cls: Any = type(self)
        compared = _compared(cls)
        return bool(compared(self) == compared(other))

    def __hash__(self) -> int:
        cls: Any = type(self)
        return hash(_compared(cls)(self))


@cache
def _compared(cls: Any) -> Callable[[object], object]:
    """What of a value of that class is compared."""
    names = [each.name for each in fields(cls) if each.eq]
    return attrgetter(*names) if names else type
