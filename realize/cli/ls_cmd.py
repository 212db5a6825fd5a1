"""The command `ls`: what is at a location."""

from __future__ import annotations

import click

from realize.cli.options import Access, LogOptions, access_options, log_options
from realize.levels import Levels


@click.command("ls", short_help="List what is at a location.")
@click.argument("location")
@access_options
@log_options
@click.option("--json", is_flag=True, help="Write one JSON object a line.")
def ls(
    location: str,
    config: str | None,
    key: str | None,
    peer_key: str | None,
    *,
    log_level: Levels | None,
    log_format: str | None,
    log_file: str | None,
    json: bool,
) -> int:
    """List the files at LOCATION: size, modification time, state (final or partial), path.

    The size of a partial is how much of the file is there.
    """
    from realize.cli.listing import run_ls

    return run_ls(location, Access(config, key, peer_key), json=json, log=LogOptions(log_level, log_format, log_file))
