"""The rules of docs/design.md beside its table of rooms: each thing is done in one place."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from realize.wire.commands import every_command
from tests.pages import ROOT, page

TREES = {
    str(path.relative_to(ROOT / "realize")): ast.parse(path.read_text())
    for path in sorted((ROOT / "realize").rglob("*.py"))
}
WIRE = {name for command in every_command() for name, _ in [*command.arguments, *command.response]} | {
    command.commandName for command in every_command()
}
FOR_WRITING = {"O_WRONLY", "O_RDWR", "O_CREAT"}


def found(what: Callable[[ast.AST], object]) -> dict[str, set[str]]:
    """What of interest each module has, written as Python would; modules without any are left out."""
    all_of_it = {name: {shown(node) for node in ast.walk(tree) if what(node)} for name, tree in TREES.items()}
    return {name: nodes for name, nodes in all_of_it.items() if nodes}


def shown(node: ast.AST) -> str:
    """Source for a node; the name alone for an attribute of a module."""
    return node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)


def is_slash(node: ast.AST) -> bool:
    """What joins and parts the components of a name."""
    return isinstance(node, ast.Constant) and node.value == b"/"


def called(node: ast.AST) -> str:
    """The last word of what is called; empty if nothing is."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def joins_names(node: ast.AST) -> bool:
    """``b"/".join(...)``, ``a + b"/" + b`` and ``os.path.join`` of bytes."""
    if isinstance(node, ast.BinOp) and isinstance(node.left, ast.BinOp):
        return is_slash(node.left.right)
    return called(node) == "join" and is_slash(node.func.value)


def parts_names(node: ast.AST) -> bool:
    """``path.split(b"/")``, and a look whether a component leads upwards."""
    if called(node) == "split":
        return any(is_slash(each) for each in node.args)
    return isinstance(node, ast.Compare) and any(
        isinstance(each, ast.Constant) and each.value == b".." for each in ast.walk(node)
    )


def opens_for_writing(node: ast.AST) -> bool:
    """A flag of open(2) that says so, a mode of Python's ``open`` that does, or a temporary file."""
    if isinstance(node, ast.Attribute):
        return node.attr in FOR_WRITING
    if called(node) == "open" and isinstance(node.func, ast.Name):
        return any(
            isinstance(each, ast.Constant) and re.fullmatch(r"[wax]b?|r?b?\+b?", str(each.value))
            for each in node.args[1:]
        )
    return called(node) in {"mkstemp", "NamedTemporaryFile", "mkdtemp"}


def imported(tree: ast.AST) -> Iterator[str]:
    """What a module imports, wherever in it, with the module that it comes from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_page_has_these_rules():
    """A rule that comes to the page needs a test here; so many have one."""
    rules = page("design.md").partition("Six rules more")[2].partition("\n\n## ")[0]

    assert 6 == len(re.findall(r"^\* ", rules, flags=re.MULTILINE))


def test_only_the_commands_name_wire_strings():
    """Everything else goes by the classes of `realize.wire.commands`; the short cuts of content are the exception."""
    named = found(lambda node: isinstance(node, ast.Constant) and isinstance(node.value, bytes) and node.value in WIRE)

    del named["wire/commands.py"]
    assert {
        "wire/boxes.py": {
            *("b'Data'", "b'Zeros'", "b'Compressed'", "b'Credit'"),  # read without the commands
            *("b'amount'", "b'content'", "b'length'", "b'stream'"),
        },
        "wire/connection.py": {"b'Ping'"},  # what counts as life
    } == named


def test_only_one_module_joins_names():
    """What leads to a file is made of components in one place."""
    joined = found(joins_names)

    assert {
        "fs/names.py",
        "locations.py",  # what people write, before it is a name
        "mover/ancestors.py",  # for the order of entries, and for no file
        "store/server/audit.py",  # for people, and for no file
    } == set(joined)


def test_only_one_module_judges_names():
    """What a name may be made of is decided in one place."""
    parted = found(parts_names)

    assert {
        "fs/names.py",
        "locations.py",  # what people write, before it is a name
        "mover/ancestors.py",  # for the order of entries, and for no file
    } == set(parted)


def test_only_the_local_store_opens_files_of_a_directory_for_writing():
    """Whoever else writes to files writes to those of the program, which no peer names."""
    writing = {name for name in found(opens_for_writing) if not name.startswith("store/local/")}

    assert {
        "moves/state_directory.py",  # what standing moves remember
        "runs/manifest.py",  # the manifest
        "process.py",  # /dev/null
        "keys.py",  # a private key
        "telemetry/logging/writing.py",  # a log
        "telemetry/metrics/textfile.py",  # metrics for node_exporter
    } == writing


def test_only_the_local_store_makes_files_below_a_root():
    """`Tree.create_file` has no caller elsewhere."""
    callers = set(found(lambda node: called(node) == "create_file"))

    assert callers
    assert all(name.startswith("store/local/") for name in callers)


def test_only_the_entry_points_take_the_reactor():
    """It is imported in a function of theirs, and a parameter everywhere else."""
    importing = {name for name, tree in TREES.items() if "twisted.internet.reactor" in set(imported(tree))}

    assert {"api/bridges.py", "cli/runner.py", "daemon/tap.py"} == importing


def touches_the_process(node: ast.AST) -> bool:
    """A handler of a signal, a hook of the interpreter, a limit, an end of the process, or what does one of these."""
    if isinstance(node, ast.Attribute):
        return node.attr in {"_exit", "excepthook", "unraisablehook", "mallopt"}
    calls = {
        "setrlimit",
        "allow_many_files",
        "hold_standard_streams",
        "bound_heaps",
        "keep_freed_memory",
        "show_threads_when_aborted",
        "carry_python",
        "SystemExit",
        "exit",
    }
    if called(node) == "signal":
        return isinstance(node.func, ast.Attribute) and shown(node.func.value) == "signal"
    return called(node) in calls


def test_only_what_twistd_runs_touches_the_process():
    """The daemon itself may be in the process of somebody else, and so may all that is below it."""
    touching = {name for name in found(touches_the_process) if not name.startswith("cli/")}

    assert {
        "daemon/logs.py",
        "daemon/tap.py",
        "daemon/twistd_service.py",
        "process.py",  # by functions that these call
        "telemetry/logging/bridging.py",  # by functions that these call
    } == touching


def test_the_daemon_knows_nothing_of_what_twistd_runs():
    """Whoever imports it gets none of that."""
    process = {
        "twistd_service",
        "signal_handlers",
        "logs",
        "tap",
        "heap",
        "config_check",
        "readiness",
        "service_manager",
    }
    modules = {name: set(imported(tree)) for name, tree in TREES.items() if name.startswith("daemon/")}
    below = {name for name in modules if name.partition("/")[2].removesuffix(".py") not in process}

    assert set() == {
        (name, each)
        for name in below
        for each in modules[name]
        if each.removeprefix("realize.daemon.").partition(".")[0] in process and each.startswith("realize.daemon.")
    }


def test_only_one_module_says_which_clock_timers_run_on():
    """No other one gives a reactor or a delayed call a clock, and both entry points take the one that it gives."""
    choosing = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "seconds" and isinstance(node.ctx, ast.Store)
    }
    using = {name for name, tree in TREES.items() if "realize.clocks.use_monotonic_clock" in set(imported(tree))}

    assert {"clocks.py"} == choosing
    assert {"api/bridges.py", "cli/runner.py", "daemon/tap.py"} == using


def test_the_checks_see_what_they_are_for():
    """Each pattern that is looked for is found in a line that has it, and not in one that is like it."""
    for check, yes, no in (
        (joins_names, 'b"/".join(x)', '", ".join(x)'),
        (joins_names, 'a + b"/" + b', 'a + b"/"'),
        (parts_names, 'path.split(b"/")', 'path.split(b" ")'),
        (parts_names, 'x in {b".", b".."}', 'x in {b"."}'),
        (opens_for_writing, 'open(x, "wb")', 'open(x, "rb")'),
        (opens_for_writing, "os.open(x, os.O_RDWR)", "os.open(x, os.O_RDONLY)"),
        (opens_for_writing, "tempfile.mkstemp()", "store.open(x)"),
    ):
        assert any(check(node) for node in ast.walk(ast.parse(yes))), yes
        assert not any(check(node) for node in ast.walk(ast.parse(no))), no
