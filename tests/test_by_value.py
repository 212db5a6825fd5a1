"""`realize.by_value`: how values show and compare themselves, without functions compiled for each class."""

import ast
from pathlib import Path

import pytest
from attrs import field, frozen

from realize.by_value import ByValue

PACKAGE = Path(__file__).parent.parent / "realize"
MODULES = sorted(PACKAGE.rglob("*.py"))
KEPT = {"when": ["Calendar"], "timetable": ["RateTimetable"]}
"""Classes whose comparison attrs compiles: one has a field with a key, the other keeps its hash."""


@frozen(eq=False, repr=False)
class _Value(ByValue):
    name: str
    secret: str = field(repr=False)
    late: int = field(init=False)


@frozen(eq=False, repr=False)
class _Compared(ByValue):
    name: str
    other: object = field(default=None, eq=False)


@frozen(eq=False, repr=False)
class _Below(_Compared):
    more: int = 0


@frozen(eq=False, repr=False)
class _Empty(ByValue):
    pass


@frozen
class _ByAttrs:
    name: str
    secret: str = field(repr=False)
    late: int = field(init=False)


def test_a_value_shows_what_attrs_would_show():
    """The name of the class and its fields, but for those that are secret; also where one is not set yet."""
    expected = repr(_ByAttrs("x\n", "hidden")).replace("_ByAttrs", "_Value")

    assert expected == repr(_Value("x\n", "hidden"))
    assert "hidden" not in expected


def test_values_are_equal_as_with_attrs():
    """If they are of one class, and all fields are equal that count; then so are their hashes."""
    assert _Compared("x", 1) == _Compared("x", 2)
    assert hash(_Compared("x", 1)) == hash(_Compared("x", 2))
    assert _Compared("x") != _Compared("y")
    assert _Compared("x") != _Below("x")
    assert _Below("x", more=1) != _Below("x")
    assert _Below("x", more=1) == _Below("x", more=1)
    assert _Compared("x") != "x"
    assert (_Empty(), hash(_Empty())) == (_Empty(), hash(_Empty()))
    assert {_Below("x"): 1} == {_Below("x", 1): 1}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_class_has_attrs_compile_more_than_it_must(path):
    """Each such function would make every start longer: `repr=False`; `eq=False` and `ByValue` for what is compared.

    What cannot be changed and has `ByValue` as a base is compared as that does, unless a field is compared by a key.
    """
    classes = [each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.ClassDef)]
    made = [(each, ast.unparse(decorator)) for each in classes for decorator in each.decorator_list]
    bases = {each.name: {ast.unparse(base) for base in each.bases} for each in classes}

    shown = [each.name for each, how in made if how.startswith(("frozen", "define")) and "repr=False" not in how]
    compared = [
        each.name
        for each, how in made
        if how.startswith("frozen") and "ByValue" in bases[each.name] and "eq=False" not in how
    ]

    assert ([], KEPT.get(path.stem, [])) == (shown, compared)
