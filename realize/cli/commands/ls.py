"""The command `ls`: what is at a location."""

from __future__ import annotations

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.help_sections import CommandWithSections, examples
from realize.cli.options import Access, LogOptions, remote_options


@click.command(
    "ls",
    cls=CommandWithSections,
    short_help=SUMMARIES["ls"],
    epilog=examples(
        "realize ls nas::inbox/images",
    ),
)
@click.argument("location")
@remote_options
@click.option("--json", is_flag=True, help="Print JSON, one object per line.")
def ls(
    location: str,
    *,
    access: Access,
    log: LogOptions,
    json: bool,
) -> int:
    """List the files at LOCATION: size, modification time, state (final or partial) and path.

    LOCATION is a local path, or PEER::DIR/PATH: DIR is a directory that the daemon at PEER serves.

    A partial is a file that has not arrived completely; its size is how much of it is there.
    """
    from realize.cli.commands.ls_run import run_ls

    return run_ls(location, access, json=json, log=log)
