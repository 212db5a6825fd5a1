"""The command `ls`: what is at a location."""

from __future__ import annotations

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.options import Access, LogOptions, remote_options


@click.command("ls", short_help=SUMMARIES["ls"])
@click.argument("location")
@remote_options
@click.option("--json", is_flag=True, help="Write one JSON object a line.")
def ls(
    location: str,
    *,
    access: Access,
    log: LogOptions,
    json: bool,
) -> int:
    """List the files at LOCATION: size, modification time, state (final or partial), path.

    The size of a partial is how much of the file is there.
    """
    from realize.cli.commands.ls_run import run_ls

    return run_ls(location, access, json=json, log=log)
