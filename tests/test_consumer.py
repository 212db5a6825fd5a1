"""A program of somebody else, in ``tests/consumer``, has its types checked against what Realize makes public."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from realize import api
from realize.api import events
from realize.config import Config, DirectoryConfig
from tests.pages import ROOT, page, quoted, rows, section

PROJECT = ROOT / "tests" / "consumer"
PROGRAMS = sorted(PROJECT.glob("*.py"))


@pytest.fixture
def check(tmp_path):
    """Check a program as its author does: strictly, elsewhere, with Realize as an installed package."""

    def check(*programs: Path) -> str:
        for each in (*programs, PROJECT / "mypy.ini"):
            shutil.copy(each, tmp_path)
        names = [each.name for each in programs]
        # A cache that stays, as that of whoever works on the program: the first time takes much longer.
        cache = ROOT / ".mypy_cache" / "consumer"
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", str(cache), *names],
            cwd=tmp_path,
            env={**os.environ, "MYPYPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    return check


def test_programs_that_use_realize_type_check(check):
    """With ``strict``, and the plugin that Twisted's interfaces need."""
    assert "Success: no issues found" in check(*PROGRAMS)


def test_what_will_stay_is_used():
    """Each name that a page promises is in a program here, so that a change is noticed."""
    used = {name for program in PROGRAMS for name in imported(program.read_text())}

    assert len(promised()) > 80
    assert set() == promised() - used


def test_the_pages_and_their_examples_use_what_will_stay():
    """Whoever follows a page imports nothing that the next release may take away."""
    shown = [example.read_text() for example in (ROOT / "docs" / "examples").glob("*.*")]
    for each in ("api.md", "embedding.md", "endpoints.md", "howto/python.md"):
        shown += re.findall(r"^ *(from realize.+ import \w+)$", page(each), re.MULTILINE)
    names = {name for text in shown for name in imported(text) if name[0].startswith("realize.")}
    modules = {module for module, _ in promised()}

    assert len(names) > 10
    assert set() == {(module, name) for module, name in names if f"{module}.{name}" not in modules} - promised()


def promised():
    """Module and name of all that the pages say will stay."""
    rows_of_modules = [
        row
        for name in ("embedding.md", "api.md", "endpoints.md")
        for row in re.findall(
            r"^\* `(realize[.\w]+)`: (.*(?:\n  .*)*)", section(page(name), "What will stay"), re.MULTILINE
        )
    ]
    return {(module, name) for module, names in rows_of_modules for name in quoted(names)}


def imported(text):
    """Module and name of all that a program imports by name."""
    return {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_what_is_exported_is_what_will_stay():
    """Neither more nor less."""
    listed = section(page("api.md"), "What will stay")

    assert set(api.__all__) | set(events.__all__) == set(quoted(listed)) - {
        "realize",
        "realize.api",
        "realize.api.events",
        "match",
    }


def test_the_page_has_every_field_of_a_configuration():
    """And of a directory in it, in their order."""
    fields = rows(section(page("embedding.md"), "The configuration"))
    [directory] = [what for named, _, what in fields if named == "`directories`"]

    assert {each.name for each in attrs.fields(Config)} == {name for row in fields for name in quoted(row[0])}
    assert f"DirectoryConfig({', '.join(each.name for each in attrs.fields(DirectoryConfig))})" in quoted(directory)


def test_types_are_looked_at(check, tmp_path):
    """A public name is no Any: what is wrong with a use of it is found."""
    wrong = tmp_path / "elsewhere" / "wrong.py"
    wrong.parent.mkdir()
    wrong.write_text(
        "from realize.config import Config, DirectoryConfig, PeerConfig\n"
        'Config(key=1, directories={"a": "b"})\n'
        'PeerConfig("key")\n'
        "DirectoryConfig(1)\n"
    )

    said = check(wrong)

    assert [2, 2, 3, 4] == [int(line.split(":")[1]) for line in said.splitlines() if ": error: " in line]
