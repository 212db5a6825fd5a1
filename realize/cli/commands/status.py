"""The command `status`: what a daemon is doing."""

from __future__ import annotations

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.help_sections import CommandWithSections, examples
from realize.cli.options import Access, LogOptions, remote_options


@click.command(
    "status",
    cls=CommandWithSections,
    short_help=SUMMARIES["status"],
    epilog=examples(
        "realize status                 the daemon on this machine",
        "realize status nas",
    ),
)
@click.argument("peer", required=False)
@remote_options
@click.option("--json", is_flag=True, help="Print one JSON object.")
def status(
    peer: str | None,
    *,
    access: Access,
    log: LogOptions,
    json: bool,
) -> int:
    """Show the version, uptime, connections, limits, current transfers and standing moves of the daemon at PEER.

    PEER is a name from the configuration, or HOST or HOST:PORT. Without PEER, ask the daemon on this machine; only root
    and the user of the daemon may do that.
    """
    from realize.cli.commands.status_run import run_status

    return run_status(peer, access, json=json, log=log)
