"""The command `throttle`: show or change the limits of a running daemon."""

from __future__ import annotations

from typing import Final

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.options import Access, LogOptions, rate, remote_options, time_limit
from realize.errors import UsageError

SCOPES: Final = ("service", "peer:NAME", "connection:ID")


def _scope(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, str]:
    """What a limit is for: the word and, behind a colon, whose."""
    word, _, name = value.partition(":")
    if (word == "service" and not name) or (word in {"peer", "connection"} and name):
        return word, name
    raise click.BadParameter(f"{value!r} is none of {', '.join(SCOPES)}", ctx, param)


def _peer_and_rate(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[str | None, int | str | None]:
    """The peer, if one is named, and the rate, if one is given; one word that is a rate is no peer."""
    if len(value) > 2:
        raise click.BadParameter(f"{' '.join(value)!r} is more than a peer and a rate", ctx, param)
    if len(value) == 2:
        return value[0], rate(ctx, param, value[1])
    if not value:
        return None, None
    try:
        return None, rate(ctx, param, value[0])
    except click.BadParameter:
        return value[0], None


@click.command("throttle", short_help=SUMMARIES["throttle"])
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
    help="What the daemon sends, or what the peer sends to it.",
)
@click.option("--for", "time", metavar="DUR", callback=time_limit, help="Then the former limit is back.")
@remote_options
@click.option("--json", is_flag=True, help="Write the limits as one JSON list.")
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
    """Show the limits and present rates of the daemon at PEER, or set one limit to RATE while it runs.

    Without PEER it is the daemon of this machine, for its own user and for root.
    RATE is 512k, 1.5MiB/s, 20MB or unlimited; a peer that is called like that is written with its port.
    Limits of peers and of the service need admin = true in the daemon's configuration; those of connections are also
    for the key that made them. With --scope connection:ID --direction both, a command that runs is limited anew.
    """
    from realize.cli.commands.throttle_run import run_throttle
    from realize.runs.asking import Change

    peer, limit = words
    if limit is None:
        if time is not None:
            raise UsageError("--for is for a limit that is set, and no RATE is given")
        return run_throttle(peer, access, None, json=json, log=log)
    change = Change(*scope, direction, limit if isinstance(limit, int) else None, time)
    return run_throttle(peer, access, change, json=json, log=log)
