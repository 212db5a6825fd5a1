"""The command `status`: what a daemon is doing."""

from __future__ import annotations

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.options import Access, LogOptions, remote_options


@click.command("status", short_help=SUMMARIES["status"])
@click.argument("peer", required=False)
@remote_options
@click.option("--json", is_flag=True, help="Write one JSON object.")
def status(
    peer: str | None,
    *,
    access: Access,
    log: LogOptions,
    json: bool,
) -> int:
    """Show the version, uptime, connections, limits and transfers in progress of the daemon at PEER, and its moves.

    PEER is a name of the configuration, or an address such as hostb:9771. Without it, it is the daemon of this machine,
    for its own user and for root.
    """
    from realize.cli.commands.status_run import run_status

    return run_status(peer, access, json=json, log=log)
