"""The command `throttle`: show or change the limits of a running daemon."""

from __future__ import annotations

from typing import Final

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.help_sections import CommandWithSections, examples
from realize.cli.options import Access, LogOptions, rate, remote_options, time_limit
from realize.errors import UsageError

SCOPES: Final = ("service", "peer:NAME", "connection:ID")


def _scope(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, str]:
    """What a limit is for: the word and, behind a colon, whose."""
    word, _, name = value.partition(":")
    if (word == "service" and not name) or (word in {"peer", "connection"} and name):
        return word, name
    raise click.BadParameter(f"{value!r} is not one of {', '.join(SCOPES)}", ctx, param)


def _peer_and_rate(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[str | None, int | str | None]:
    """The peer, if one is named, and the rate, if one is given; one word that is a rate is no peer."""
    if len(value) > 2:
        raise click.BadParameter(f"{' '.join(value)!r} has too many words: expected a peer and a rate", ctx, param)
    if len(value) == 2:
        return value[0], rate(ctx, param, value[1])
    if not value:
        return None, None
    try:
        return None, rate(ctx, param, value[0])
    except click.BadParameter:
        return value[0], None


@click.command(
    "throttle",
    cls=CommandWithSections,
    short_help=SUMMARIES["throttle"],
    epilog=examples(
        "realize throttle nas                                   show the limits",
        "realize throttle nas 4M                                send at most 4 MiB/s in all",
        "realize throttle nas 1M --scope peer:camera --for 2h   slow one peer down for 2 hours",
        "realize throttle nas 1M --scope connection:7 --direction both",
        "                                                       slow a running command down",
    ),
)
@click.argument("words", nargs=-1, metavar="[PEER] [RATE]", callback=_peer_and_rate)
@click.option(
    "--scope",
    metavar="|".join(SCOPES),
    default="service",
    show_default=True,
    callback=_scope,
    help="What to limit: the whole daemon, one of its peers, or one connection (`realize status` has the ids).",
)
@click.option(
    "--direction",
    type=click.Choice(["send", "receive", "both"]),
    default="send",
    show_default=True,
    help="Limit what the daemon sends, what it receives, or both.",
)
@click.option(
    "--for", "time", metavar="DUR", callback=time_limit, help="Restore the former limit after this time, such as 2h."
)
@remote_options
@click.option("--json", is_flag=True, help="Print the limits as one JSON list.")
def throttle(
    words: tuple[str | None, int | str | None],
    scope: tuple[str, str],
    direction: str,
    time: float | None,
    *,
    access: Access,
    log: LogOptions,
    json: bool,
) -> int:
    """Show the limits and current rates of the daemon at PEER, or set one limit to RATE while it runs.

    PEER is a name from the configuration, or HOST or HOST:PORT. Without PEER, ask the daemon on this machine; only root
    and the user of the daemon may do that. RATE is in bytes per second: 512k, 1.5MiB/s, 20MB or unlimited. If a peer
    has such a name, write it with its port.

    To change the limits of the service or of peers you need admin = true in the configuration of the daemon. Every peer
    may change the limits of its own connections.
    """
    from realize.cli.commands.throttle_run import run_throttle
    from realize.runs.asking import Change

    peer, limit = words
    if limit is None:
        if time is not None:
            raise UsageError("--for needs a RATE: it says how long that rate holds")
        return run_throttle(peer, access, None, json=json, log=log)
    change = Change(*scope, direction, limit if isinstance(limit, int) else None, time)
    return run_throttle(peer, access, change, json=json, log=log)
