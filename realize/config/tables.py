"""Tables of TOML whose keys are known, as classes: each key has a converter, and all that is wrong is told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from attrs import NOTHING, AttrsInstance, fields

from realize.config.checks import as_table
from realize.config.problems import SeveralProblems, problems_below, problems_in, toml_key
from realize.errors import Problem, RealizeError

T = TypeVar("T", bound=AttrsInstance)

_REQUIRED: Final[Mapping[tuple[str, str], str]] = {
    ("Config", "key"): "the file of our private key",
    ("DirectoryConfig", "path"): "the path of the directory",
    ("MoveConfig", "sources"): "where files come from",
    ("MoveConfig", "destination"): "where files go",
}
"""What the required keys mean, by class and attribute."""


def table_of(cls: type[T], **converters: Callable[[object], object]) -> Callable[[object], T]:
    """The converter of a table whose keys are the attributes of a class; each attribute has a converter.

    What it makes raises `SeveralProblems`, and `realize.errors.RealizeError` for what is no table.
    """
    attributes = [(toml_key(each.name), each, converters[each.name]) for each in fields(cls)]
    known = {key for key, _, _ in attributes}

    def convert_table(value: object) -> T:
        table = as_table(value)
        given: dict[str, Any] = {}
        problems: list[Problem] = []
        for key, attribute, convert in attributes:
            if key in table:
                try:
                    given[attribute.name] = convert(table[key])
                except (RealizeError, SeveralProblems) as error:
                    problems.extend(problems_below(key, error))
            elif attribute.default is NOTHING:
                problems.append(((key,), f"is missing; expected {_REQUIRED[cls.__name__, attribute.name]}"))
        unknown = f"unknown key; expected one of {', '.join(sorted(known))}"
        problems.extend(((key,), unknown) for key in sorted(table.keys() - known))
        if problems:
            raise SeveralProblems(problems)
        try:
            return cls(**given)
        except RealizeError as error:
            raise SeveralProblems([*problems_in(error)]) from error

    return convert_table
