"""How values show themselves to programmers, in a debugger or a failed test.

attrs can write a ``__repr__`` for each class, and compiles it when the class is made: with over 200 classes that was a
tenth of the start of the command.
Values inherit this one instead, which looks at the fields when it is called, and their classes are made with
``repr=False``.
What is not compared by value (``eq=False``) needs none.
"""

from __future__ import annotations

from typing import Any

from attrs import NOTHING, fields


class Shown:
    """A class of attrs whose ``repr`` is that of attrs; fields with ``repr=False`` are left out."""

    __slots__ = ()

    def __repr__(self) -> str:
        cls: Any = type(self)
        shown = (f"{each.name}={getattr(self, each.name, NOTHING)!r}" for each in fields(cls) if each.repr)
        return f"{cls.__qualname__.rpartition('>.')[2]}({', '.join(shown)})"
