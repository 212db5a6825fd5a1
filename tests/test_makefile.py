"""What `make` sets up for whom, and with which Python; nothing is installed here, only what it would do is read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT

SYSTEM_PYTHON = "/usr/bin/python3"


def commands(target: str, *variables: str) -> str:
    """What `make` would run for a target where nothing is set up yet."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHON", "VENV", "MAKEFLAGS"}}
    done = subprocess.run(
        ["make", "--dry-run", target, "VENV=nothing/is/here", *variables],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_who_only_looks_gets_no_linters():
    """`make demo` installs Realize and what it needs to run."""
    planned = commands("demo")

    assert "-e .\n" in planned
    assert "[dev]" not in planned


@pytest.mark.parametrize(
    "target",
    ["venv", "lint", "typecheck", "format", "suite", "soak", "campaigns", "mutants", "man", "reference", "diagrams"],
)
def test_who_develops_gets_all(target):
    """Everything else installs the linters and test tools, too."""
    assert "-e '.[dev]'" in commands(target)


def test_the_site_needs_no_linters():
    """`make docs` installs Realize, whose docstrings it shows, and Sphinx."""
    planned = commands("docs")

    assert "-e '.[docs]'" in planned
    assert "[dev]" not in planned


def test_the_python_of_the_system_comes_first():
    """It is taken where it is new enough, whatever PATH has; so says `--version` of it, or it is not taken."""
    new_enough = ["-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    there = Path(SYSTEM_PYTHON).exists() and subprocess.run([SYSTEM_PYTHON, *new_enough], check=False).returncode == 0

    assert f"{SYSTEM_PYTHON if there else 'python3'} -m venv" in commands("demo")


def test_python_may_keep_what_it_compiles(monkeypatch):
    """Also where the environment says otherwise, as in many containers: a start would cost four times as much."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    told = ["make", "--silent", "--eval=told: ; @echo told: $$PYTHONDONTWRITEBYTECODE", "told"]

    assert "told:\n" == subprocess.run(told, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_another_python_can_be_named():
    """`make PYTHON=...` outranks that."""
    assert f"{sys.executable} -m venv" in commands("demo", f"PYTHON={sys.executable}")
