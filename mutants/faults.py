"""The small faults that can be put into a module: pure, and the same each time.

A fault changes one place in a function: a comparison, a condition, a number, a statement that is left out.
What changes no behaviour that anybody could see is left alone: docstrings, annotations, messages and logs.
So is what stands outside functions: numbers there are a matter of measurement, and a wrong table is not a small fault.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Final

from attrs import frozen

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}

_ASSERTING: Final = frozenset({None, "strict"})
"""Arguments that change nothing as long as all is well; ``None`` is that of ``**``."""

_Change = tuple[str, Callable[[], None], Callable[[], None]]
"""What it does in words, the change, and how it is undone."""


@frozen
class Fault:
    """``source`` is the module with the fault in it; ``change`` says what it is.

    ``where`` is the function or class, ``was`` the statement as it was, so both still name a fault when lines move.
    """

    line: int
    where: str
    was: str
    change: str
    source: str

    @property
    def name(self) -> str:
        """What tells it from the others of its module."""
        return f"{self.where}: {self.was}: {self.change}"


def faults(source: str) -> Iterator[Fault]:
    """All of them, from the beginning of the module to its end."""
    tree = ast.parse(source)
    seen: dict[str, int] = {}
    for statement, where in _statements(tree, ()):
        was = _first_line(statement)
        for change, do, undo in _changes(statement):
            do()
            mutated = ast.unparse(tree)
            undo()
            fault = Fault(_line(statement), ".".join(where), was, change, mutated)
            seen[fault.name] = count = seen.get(fault.name, 0) + 1
            if count > 1:
                fault = Fault(fault.line, fault.where, was, f"{change} ({count})", mutated)
            yield fault


def _line(statement: ast.stmt) -> int:
    """The first line that counts as executed: that of ``if (`` is not, where the condition begins below it."""
    return statement.test.lineno if isinstance(statement, ast.If | ast.While) else statement.lineno


def _first_line(statement: ast.stmt) -> str:
    return ast.unparse(statement).split("\n", 1)[0]


def _statements(
    body: ast.AST, where: tuple[str, ...], *, in_function: bool = False
) -> Iterator[tuple[ast.stmt, tuple[str, ...]]]:
    """All in functions that do something, with what they are in."""
    for child in ast.iter_child_nodes(body):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _statements(child, (*where, child.name), in_function=True)
        elif isinstance(child, ast.ClassDef):
            yield from _statements(child, (*where, child.name))
        elif not isinstance(child, ast.expr):
            if in_function and isinstance(child, ast.stmt) and not _says_nothing(child):
                yield child, where
            yield from _statements(child, where, in_function=in_function)


def _says_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Global() | ast.Nonlocal() | ast.Assert():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=function)):
            return _is_log(function)
    return False


def _is_log(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and ast.unparse(function.value).endswith("_log")


def _changes(statement: ast.stmt) -> Iterator[_Change]:
    """What can be wrong with a statement itself, not with those inside it."""
    yield from _left_out(statement)
    for field, value in ast.iter_fields(statement):
        if field in {"annotation", "type_comment", "decorator_list"}:
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.expr | ast.withitem) and not isinstance(statement, ast.Raise):
                yield from _in_expression(part)
    if isinstance(statement, ast.If | ast.While) and _is_plain(statement.test):
        yield _swap(statement, "test", ast.UnaryOp(ast.Not(), statement.test), "condition the other way round")
    if isinstance(statement, ast.With):
        for number, item in enumerate(statement.items):
            if item.optional_vars is None:
                rest = statement.items[:number] + statement.items[number + 1 :]
                if rest:
                    yield _swap(statement, "items", rest, f"without {ast.unparse(item)}")
                else:
                    nothing = ast.withitem(ast.parse("__import__('contextlib').nullcontext()", mode="eval").body)
                    yield _swap(statement, "items", [nothing], f"without {ast.unparse(item)}")
    if isinstance(statement, ast.Try):
        for handler in statement.handlers:
            if not isinstance(handler.body[0], ast.Raise):
                kind = ast.unparse(handler.type) if handler.type else "anything"
                yield _swap(handler, "body", [ast.Raise()], f"{kind} is raised again")


def _left_out(statement: ast.stmt) -> Iterator[_Change]:
    """The statement does nothing."""
    instead: ast.stmt
    match statement:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Raise() | ast.Delete():
            instead, change = ast.Pass(), "left out"
        case ast.Return(value=ast.Constant(value=None | False)):
            return
        case ast.Return(value=ast.expr()):
            instead, change = ast.Return(ast.Constant(None)), "returns None"
        case ast.Break():
            instead, change = ast.Continue(), "continue"
        case ast.Continue():
            instead, change = ast.Break(), "break"
        case _:
            return
    # In place of another node: the lists that hold it need not be known.
    before = (type(statement), dict(vars(statement)))

    def do() -> None:
        _become(statement, type(instead), vars(instead))

    def undo() -> None:
        _become(statement, *before)

    yield change, do, undo


def _become(node: ast.AST, kind: type[ast.AST], fields: dict[str, object]) -> None:
    vars(node).clear()
    node.__class__ = kind
    vars(node).update(fields)
    vars(node).setdefault("lineno", 1)
    vars(node).setdefault("col_offset", 0)


def _in_expression(root: ast.AST) -> Iterator[_Change]:
    for node in _expressions(root):
        match node:
            case ast.Compare(ops=ops):
                for number, operator in enumerate(ops):
                    other = _COMPARISONS[type(operator)]()
                    changed = [*ops[:number], other, *ops[number + 1 :]]
                    yield _swap(node, "ops", changed, f"{_name(operator)} is {_name(other)} in {ast.unparse(node)}")
            case ast.BoolOp(op=operator):
                turned = ast.Or() if isinstance(operator, ast.And) else ast.And()
                yield _swap(node, "op", turned, f"{_name(operator)} is {_name(turned)} in {ast.unparse(node)}")
            case ast.BinOp(op=operator) if type(operator) in _OPERATORS and not _is_text(node):
                another = _OPERATORS[type(operator)]()
                yield _swap(node, "op", another, f"{_name(operator)} is {_name(another)} in {ast.unparse(node)}")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                doubled = ast.UnaryOp(ast.Not(), operand)
                yield _swap(node, "operand", doubled, f"without not in {ast.unparse(node)}")
            case ast.IfExp(test=test) if _is_plain(test):
                yield _swap(node, "test", ast.UnaryOp(ast.Not(), test), f"turned round: {ast.unparse(node)}")
            case ast.Constant(value=bool() as value):
                yield _swap(node, "value", not value, f"{value} is {not value}")
            case ast.Constant(value=int() as value):
                yield _swap(node, "value", value + 1, f"{value} is {value + 1}")
            case ast.Call(keywords=keywords) if not _is_log(node.func):
                for number, keyword in enumerate(keywords):
                    if keyword.arg not in _ASSERTING:
                        rest = keywords[:number] + keywords[number + 1 :]
                        yield _swap(node, "keywords", rest, f"without {keyword.arg}= in {ast.unparse(node.func)}")


def _expressions(root: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it that are no text and no annotation."""
    if isinstance(root, ast.JoinedStr) or (isinstance(root, ast.keyword) and root.arg in _ASSERTING):
        return
    yield root
    for child in ast.iter_child_nodes(root):
        yield from _expressions(child)


def _is_plain(test: ast.expr) -> bool:
    """Whether no other fault turns the condition round."""
    turned = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    return not turned and not isinstance(test, ast.Compare | ast.Constant)


def _is_text(node: ast.BinOp) -> bool:
    """Whether it is most likely about text."""
    text = ast.JoinedStr | ast.Constant
    return any(
        isinstance(side, text) and not isinstance(getattr(side, "value", None), int) for side in (node.left, node.right)
    )


def _name(operator: ast.AST) -> str:
    return type(operator).__name__


def _swap(node: ast.AST, field: str, value: object, change: str) -> _Change:
    before = getattr(node, field)
    return change, lambda: setattr(node, field, value), lambda: setattr(node, field, before)
