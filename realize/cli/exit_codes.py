"""Which `ExitCode` the command ends with."""

from __future__ import annotations

import click

from realize.exit_codes import ExitCode
from realize.runs.exit_code import exit_code_of


def command_exit_code(error: BaseException) -> ExitCode:
    """Choose the exit code of a command that ``error`` ended; click's own errors are those of the command line."""
    match error:
        case click.Abort():
            return ExitCode.INTERRUPTED
        case click.ClickException():
            return ExitCode.USAGE
        case _:
            return exit_code_of(error)
