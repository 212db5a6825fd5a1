"""`realize.shown`: how values show themselves, without a function compiled for each class."""

import ast
from pathlib import Path

import pytest
from attrs import field, frozen

from realize.shown import Shown

PACKAGE = Path(__file__).parent.parent / "realize"
MODULES = sorted(PACKAGE.rglob("*.py"))


@frozen(repr=False)
class _Value(Shown):
    name: str
    secret: str = field(repr=False)
    late: int = field(init=False)


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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_class_has_attrs_compile_a_repr(path):
    """Each would make every start longer: `repr=False`, and `Shown` as a base of what is compared by value."""
    classes = [each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.ClassDef)]
    decorators = {(each.name, ast.unparse(made)) for each in classes for made in each.decorator_list}

    compiled = [name for name, made in decorators if made.startswith(("frozen", "define")) and "repr=False" not in made]

    assert [] == compiled
