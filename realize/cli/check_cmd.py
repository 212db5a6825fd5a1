"""The command `check`: whether a peer can be moved to and from, and what to mend if not."""

from __future__ import annotations

import click

from realize.cli.options import Access, LogOptions, access_options, log_options
from realize.levels import Levels


@click.command("check", short_help="Try the way to a peer, step by step.")
@click.argument("target", metavar="PEER[::DIR]")
@access_options
@log_options
@click.option("--json", is_flag=True, help="Write one JSON object a line.")
def check(
    target: str,
    config: str | None,
    key: str | None,
    peer_key: str | None,
    *,
    log_level: Levels | None,
    log_format: str | None,
    log_file: str | None,
    json: bool,
) -> int:
    """Try everything that a move to or from PEER needs, a line for each step, and say what to mend.

    With DIR also the rights there, the clock, the space, and whether a file can be made durable; it is removed again.
    Each step takes at most 10 seconds, nothing is tried twice, and nothing is left behind on the other side.
    The exit code is 0, or 3 if a step failed.
    """
    from realize.cli.checking import run_check

    log = LogOptions(log_level, log_format, log_file)
    return run_check(target, Access(config, key, peer_key), json=json, log=log)
