"""The command `check`: whether a peer can be moved to and from, and what to fix if not."""

from __future__ import annotations

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.help_sections import CommandWithSections, examples
from realize.cli.options import Access, LogOptions, remote_options


@click.command(
    "check",
    cls=CommandWithSections,
    short_help=SUMMARIES["check"],
    epilog=examples(
        "realize check nas::inbox",
    ),
)
@click.argument("target", metavar="PEER[::DIR]")
@remote_options
@click.option("--json", is_flag=True, help="Print JSON, one object per line.")
def check(
    target: str,
    *,
    access: Access,
    log: LogOptions,
    json: bool,
) -> int:
    """Test everything that a move to or from PEER needs. Print a line for each step, and say what to fix.

    PEER is a name from the configuration, or HOST or HOST:PORT. DIR is a directory that the daemon there serves; with
    it, `check` also tests the rights, the clock, the free space, and whether a trial file can be written durably.

    Each step takes at most 10 seconds. Nothing is left behind on the other side: the trial file is removed again.
    The exit code is 0, or 3 if a step failed.
    """
    from realize.cli.commands.check_run import run_check

    return run_check(target, access, json=json, log=log)
