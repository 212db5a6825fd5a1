"""The rooms of docs/design.md, and what may import what."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "realize"
PLAIN = {
    "errors",
    "units",
    "values",
    "keys",
    "levels",
    "tracing",
    "clocks",
    "config",
    "leaving",
    "locations",
    "pasting",
}
ALLOWED = {
    "errors": set(),
    "values": set(),
    "units": {"errors"},
    "keys": {"errors", "units"},
    "levels": {"errors", "units"},
    "tracing": set(),
    "clocks": set(),
    "ownership": {"units"},
    "config": {"errors", "units", "keys", "levels", "ownership"},
    "leaving": set(),
    "pasting": {"keys", "config"},
    "locations": {"errors", "units", "keys", "config"},
    "throttle": {"throttle", "errors", "units"},
    "wire": {"wire", "throttle", "concurrency"} | PLAIN,
    "fs": {"fs"} | PLAIN,
    "concurrency": {"concurrency", "fs", "errors"},
    "store": {"store", "wire", "fs", "concurrency"} | PLAIN,
    "mover": {"mover", "store.interfaces"} | PLAIN,
    "telemetry": {"telemetry"} | PLAIN,
    "daemon": {"daemon", "fs", "concurrency", "store", "wire", "telemetry", "throttle", "version"} | PLAIN,
    "cli": {"cli", "mover", "fs", "concurrency", "store", "wire", "telemetry", "throttle", "version"} | PLAIN,
    "testing": {"store", "wire", "fs", "concurrency"} | PLAIN,
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path):
    """Dotted names below ``realize`` that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("realize"):
            yield node.module.removeprefix("realize").removeprefix(".") or "version"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("realize."):
                    yield alias.name.removeprefix("realize.")


def room(path):
    """The room a module is in: its package, or itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    """A module imports only what the table of docs/design.md allows its room."""
    allowed = ALLOWED[room(path)]

    forbidden = {name for name in imports(path) if not {name, name.split(".")[0]} & allowed}

    assert set() == forbidden


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_installs_the_reactor(path):
    """The reactor is imported inside functions of the outermost rooms, never when a module is imported."""
    top_level = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]

    names = {alias.name for node in top_level for alias in node.names}
    modules = {getattr(node, "module", None) for node in top_level}

    assert "reactor" not in names
    assert "twisted.internet.reactor" not in names | modules
