"""Options of a command as the fields of a class: an option's name, type and help are said once, at the field it sets.

`option`, `argument` and `group` make the fields of an attrs class; `collects` gives a command all that they declare.
A field ``min_age`` is set by ``--min-age``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import wraps
from typing import Any, Final, TypeVar, cast

import click
from attrs import NOTHING, Attribute, AttrsInstance, field, fields, frozen

from realize.by_value import ByValue

Command = TypeVar("Command", bound=Callable[..., Any])
_Decorator = Callable[[Command], Command]

_DECLARED: Final = "realize.declared"
"""The key of a field's metadata under which it says what sets it."""


@frozen(eq=False, repr=False)
class _Parameter(ByValue):
    """One option or argument, for click."""

    make: Callable[..., _Decorator[Any]]
    names: tuple[str, ...]
    settings: Mapping[str, Any]


@frozen(eq=False, repr=False)
class _Group(ByValue):
    """Options that set the fields of a class of their own."""

    cls: type[AttrsInstance]
    prefix: str


def option(*names: str, otherwise: Any = NOTHING, **settings: Any) -> Any:
    """A field that an option sets, called after the field unless it has ``names``.

    ``otherwise`` is the field's value where no command line sets it; ``settings``, a default too, are click's.
    """
    return field(default=otherwise, metadata={_DECLARED: _Parameter(click.option, names, settings)})


def argument(**settings: Any) -> Any:
    """A field that the arguments set; ``settings`` are click's."""
    return field(metadata={_DECLARED: _Parameter(click.argument, (), settings)})


def group(cls: type[AttrsInstance], prefix: str = "") -> Any:
    """A field whose value is a ``cls``, made of the options that it declares; their names begin with ``prefix``."""
    return field(metadata={_DECLARED: _Group(cls, prefix)})


def collects(
    cls: type[AttrsInstance], name: str, *, prefix: str = "", without: Collection[str] = ()
) -> Callable[[Command], Command]:
    """A decorator that gives a command the options of ``cls``, and their values as one ``cls``, its argument ``name``.

    The help shows them in the order of the fields, and does not know the fields ``without``.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def collecting(*args: Any, **values: Any) -> Any:
            collected = _collected(cls, prefix, without, values)
            return command(*args, **{name: collected}, **values)

        decorated: Callable[..., Any] = collecting
        for parameter in reversed([*_parameters(cls, prefix, without)]):
            decorated = parameter(decorated)
        return cast("Command", decorated)

    return decorate


def _declared(cls: type[AttrsInstance], without: Collection[str]) -> Iterator[tuple[Attribute[Any], Any]]:
    return ((each, each.metadata[_DECLARED]) for each in fields(cls) if each.name not in without)


def _parameters(cls: type[AttrsInstance], prefix: str, without: Collection[str] = ()) -> Iterator[_Decorator[Any]]:
    """What adds each option to a command."""
    for each, declared in _declared(cls, without):
        if isinstance(declared, _Group):
            yield from _parameters(declared.cls, declared.prefix)
            continue
        name = prefix + each.name
        names = declared.names if declared.make is click.argument else declared.names or (_spelled(name),)
        yield declared.make(*names, name, **declared.settings)


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _collected(cls: type[AttrsInstance], prefix: str, without: Collection[str], values: dict[str, Any]) -> Any:
    """A ``cls`` of its part of the values, which are taken out."""
    return cls(
        **{
            each.name: _collected(declared.cls, declared.prefix, (), values)
            if isinstance(declared, _Group)
            else values.pop(prefix + each.name)
            for each, declared in _declared(cls, without)
        }
    )
