"""The command `check`: whether a peer can be moved to and from, and what to mend if not."""

from __future__ import annotations

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.options import Access, LogOptions, remote_options


@click.command("check", short_help=SUMMARIES["check"])
@click.argument("target", metavar="PEER[::DIR]")
@remote_options
@click.option("--json", is_flag=True, help="Write one JSON object a line.")
def check(
    target: str,
    *,
    access: Access,
    log: LogOptions,
    json: bool,
) -> int:
    """Try everything that a move to or from PEER needs, a line for each step, and say what to mend.

    With DIR also the rights there, the clock, the space, and whether a file can be made durable; it is removed again.
    Each step takes at most 10 seconds, nothing is tried twice, and nothing is left behind on the other side.
    The exit code is 0, or 3 if a step failed.
    """
    from realize.cli.commands.check_run import run_check

    return run_check(target, access, json=json, log=log)
