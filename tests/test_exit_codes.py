"""The exit codes of the command, and which one it ends with."""

from __future__ import annotations

import json

import click
import pytest

from realize.cli.exit_codes import command_exit_code
from realize.errors import Busy, ConfigError, DeadlineReached, Interrupted, StorageError, UsageError
from realize.exit_codes import ExitCode
from realize.runs.exit_code import exit_code_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError("no"), 1),
        (Busy("later"), 1),
        (BrokenPipeError(), 1),
        (MemoryError(), 1),
        (ValueError("a fault of ours"), 1),
        (ConfigError("no key"), 2),
        (UsageError("no such thing"), 2),
        (click.UsageError("no such option"), 2),
        (click.ClickException("whose own code is another one"), 2),
        (DeadlineReached("too late"), 11),
        (Interrupted("interrupted"), 20),
        (KeyboardInterrupt(), 20),
        (click.Abort(), 20),
    ],
)
def test_every_end_has_its_code(error: BaseException, code: int) -> None:
    """Errors of ours say it themselves; of the others, those of the command line and interrupts have their own."""
    assert code == command_exit_code(error)


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, 1), (DeadlineReached("too late"), 1), (Interrupted("interrupted"), 20), (ConfigError("no key"), 2)],
)
def test_a_failure_outranks_only_a_time_limit(error: BaseException | None, code: int) -> None:
    """Whatever else ended the command is the worse news."""
    assert code == exit_code_of(error, failed=True)


def test_a_run_that_nothing_ended_is_done() -> None:
    """And nothing failed on its way."""
    assert ExitCode.DONE == exit_code_of(None)


def test_a_code_is_a_number_wherever_it_is_shown() -> None:
    """As text, in JSON, and for the system."""
    code = ExitCode.NOT_REPORTED

    assert ("12", "12", 12) == (str(code), json.dumps(code), int(code))
