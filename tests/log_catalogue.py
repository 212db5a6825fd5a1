"""The catalogue of ``docs/logging.md``, and what the code logs, both as ``{event: (level, components, fields)}``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parent.parent
METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
ANYWHERE = {"ts", "level", "event", "component"}
"""Fields that every record has."""


@frozen
class Logged:
    """How an event is logged: at which level, with which fields of its own."""

    level: str
    fields: frozenset[str]


def documented() -> dict[str, Logged]:
    """What the catalogue says."""
    found: dict[str, Logged] = {}
    level = ""
    for line in (ROOT / "docs" / "logging.md").read_text().splitlines():
        if heading := re.fullmatch(r"### (error|warning|info|debug)\b.*", line):
            level = heading[1]
        elif line.startswith("#"):
            level = ""
        elif level and (row := re.match(r"\| `(\w+)` \|[^|]*\|([^|]*)\|", line)):
            assert row[1] not in found, f"{row[1]} is there twice"
            found[row[1]] = Logged(level, frozenset(re.findall(r"`(\w+)`", row[2])))
    return found


def components() -> dict[str, set[str]]:
    """Which component the catalogue says each event comes from."""
    catalogue = (ROOT / "docs" / "logging.md").read_text().partition("## The catalogue")[2]
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", catalogue, re.MULTILINE)
    return {event: set(re.findall(r"\w+", where)) for event, where in rows}


def logged() -> dict[str, Logged]:
    """What the code logs: every call of a logger's method, wherever it is."""
    found: dict[str, Logged] = {}
    for path in sorted((ROOT / "realize").rglob("*.py")):
        for node, bound in _with_bound(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
                continue
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            if not _is_logger(node.func.value):
                continue
            event, *others = node.args
            if others or not isinstance(event, ast.Constant) or not isinstance(event.value, str):
                raise AssertionError(f"{where}: an event needs a constant name, and its fields need names")
            if "{" in event.value:
                continue  # Twisted's own logger, which takes formats
            assert all(keyword.arg for keyword in node.keywords), f"{where}: fields behind ** cannot be looked up"
            fields = frozenset(str(keyword.arg) for keyword in node.keywords) | _bound(node.func.value, bound)
            former = found.get(event.value)
            assert former is None or former.level == node.func.attr, f"{where}: another level than elsewhere"
            found[event.value] = Logged(node.func.attr, fields if former is None else former.fields | fields)
    return found


def _is_logger(node: ast.expr) -> bool:
    """``log``, ``self._log``, ``connection.log``, ``log.bind(...)``, and the like."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "bind":
        return True
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.strip("_") in {"log", "files", "twisted", "python", "logger"}


def _with_bound(tree: ast.Module) -> Iterator[tuple[ast.AST, dict[str, frozenset[str]]]]:
    """All nodes, each with the fields that the function it is in has bound to loggers in variables of its own."""
    waiting: list[tuple[ast.AST, dict[str, frozenset[str]]]] = [(tree, {})]
    while waiting:
        node, bound = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            bound = {
                target.id: _bound(each.value, {})
                for each in ast.walk(node)
                if isinstance(each, ast.Assign)
                for target in each.targets
                if isinstance(target, ast.Name) and isinstance(each.value, ast.Call) and _is_logger(each.value)
            }
        yield node, bound
        waiting += [(child, bound) for child in ast.iter_child_nodes(node)]


def _bound(node: ast.expr, variables: dict[str, frozenset[str]]) -> frozenset[str]:
    if isinstance(node, ast.Name):
        return variables.get(node.id, frozenset())
    if not isinstance(node, ast.Call):
        return frozenset()
    assert all(each.arg for each in node.keywords), f"line {node.lineno}: fields behind ** cannot be looked up"
    return frozenset(str(each.arg) for each in node.keywords)
