"""The command `status`: what a daemon is doing."""

from __future__ import annotations

import click

from realize.cli.options import Access, LogOptions, access_options, log_options
from realize.levels import Levels


@click.command("status", short_help="Show what a daemon is doing.")
@click.argument("peer")
@access_options
@log_options
@click.option("--json", is_flag=True, help="Write one JSON object.")
def status(
    peer: str,
    config: str | None,
    key: str | None,
    peer_key: str | None,
    *,
    log_level: Levels | None,
    log_format: str | None,
    log_file: str | None,
    json: bool,
) -> int:
    """Show the version, uptime, connections, limits and transfers in progress of the daemon at PEER.

    PEER is a name of the configuration, or an address such as hostb:9771.
    """
    from realize.cli.report import run_status

    return run_status(peer, Access(config, key, peer_key), json=json, log=LogOptions(log_level, log_format, log_file))
