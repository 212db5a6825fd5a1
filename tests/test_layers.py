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
    "extras",
    "json_fields",
    "leaving",
    "locations",
    "logger",
    "numbered",
    "pasting",
    "places",
    "preserving",
    "schedule",
    "by_value",
}
BETWEEN_STORES = {"store.interfaces", "store.deltas", "store.hooks", "store.origin", "store.transfer_state"}
"""What a store of this machine, one at a peer, and the half that answers peers have in common."""

LOWER = {"store", "wire", "telemetry", "throttle", "concurrency", "fs"}
ALLOWED = {
    "exit_codes": set(),
    "errors": {"exit_codes"},
    "by_value": set(),
    "values": {"by_value", "extras"},
    "units": {"errors", "by_value"},
    "schedule": {"schedule", "errors", "units", "by_value"},
    "keys": {"errors", "units", "fs", "ownership", "by_value"},
    "levels": {"errors", "units", "by_value"},
    "tracing": set(),
    "clocks": set(),
    "places": set(),
    "process": set(),
    "ownership": {"units"},
    "config": {
        "config",
        "errors",
        "units",
        "values",
        "keys",
        "levels",
        "ownership",
        "places",
        "preserving",
        "schedule",
        "by_value",
    },
    "json_fields": {"errors"},
    "leaving": {"by_value"},
    "numbered": {"values"},
    "logger": set(),
    "extras": {"values", "by_value"},
    "preserving": {"errors", "units", "values"},
    "pasting": {"keys", "config"},
    "locations": {"errors", "units", "keys", "config", "by_value"},
    "fs": {"fs", "errors", "units", "values", "by_value"},
    "concurrency": {"concurrency", "fs.descriptors", "errors"},
    "throttle": {"throttle", "schedule", "errors", "units", "values", "by_value"},
    "wire": {"wire", "throttle", "concurrency"} | PLAIN,
    "store": {"store.interfaces"} | PLAIN,
    "store.local": {"store.local", *BETWEEN_STORES, "fs", "concurrency"} | PLAIN,
    "store.client": {"store.client", *BETWEEN_STORES, "wire", "concurrency"} | PLAIN,
    "store.server": {"store.server", *BETWEEN_STORES, "wire", "concurrency"} | PLAIN,
    "mover": {"mover", "store.interfaces"} | PLAIN,
    "telemetry": PLAIN,
    "telemetry.logging": {"telemetry.logging"} | PLAIN,
    "telemetry.metrics": {"telemetry.metrics"} | PLAIN,
    "daemon": {"daemon", "moves", "schedule", "runs", "exit_codes", "process", "version", "mover", *LOWER} | PLAIN,
    "moves": {"moves", "runs", "watch", "schedule", "exit_codes", "version", "mover", *LOWER} | PLAIN,
    "watch": {"watch", "store.local", "concurrency", "fs"} | PLAIN,
    "runs": {"runs", "exit_codes", "version", "mover", *LOWER} | PLAIN,
    "api": {"api", "runs", "exit_codes", "version", "mover", *LOWER} | PLAIN,
    "cli": {"cli", "runs", "exit_codes", "process", "version", "mover", *LOWER} | PLAIN,
    "cli.display": {"cli.display", "runs.reports", "runs.board", "runs.tally", "mover.events", "mover.plan"} | PLAIN,
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


def name_of(path):
    """The dotted name of a module below ``realize``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def above(name):
    """A dotted name, and those of the packages it is in, the innermost first."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def room(path):
    """The innermost package of the table that a module is in, or the module itself."""
    return next(name for name in above(name_of(path)) if name in ALLOWED)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    """A module imports only what the table of docs/design.md allows its room."""
    allowed = ALLOWED[room(path)]

    forbidden = {name for name in imports(path) if not allowed.intersection(above(name))}

    assert set() == forbidden


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_installs_the_reactor(path):
    """The reactor is imported inside functions of the outermost rooms, never when a module is imported."""
    top_level = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]

    names = {alias.name for node in top_level for alias in node.names}
    modules = {getattr(node, "module", None) for node in top_level}

    assert "reactor" not in names
    assert "twisted.internet.reactor" not in names | modules
