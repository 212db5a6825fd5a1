"""The command `moves`: show or steer the standing moves of a running daemon."""

from __future__ import annotations

from typing import Final

import click

from realize.cli.commands.summaries import SUMMARIES
from realize.cli.options import Access, LogOptions, remote_options
from realize.errors import UsageError

STEERING: Final = ("run", "pause", "resume")
"""What can be done with a move."""

_WAYS_TO_CALL: Final = "realize moves [list] [PEER], or realize moves show|run|pause|resume NAME [PEER]"


_MOVES_HELP: Final = """List the standing moves of a daemon, show all about one, or run, pause or resume one.

PEER is a name of the configuration, or an address such as hostb:9771; this machine must have admin = true there.
Without PEER it is the daemon of this machine, for its own user and for root.
A peer that is called like one of these words is named by `list PEER`.

\b
realize moves                what it moves, what waits, and what went wrong
realize moves show NAME      all about one move
realize moves run NAME       begin a run now, not at its time or at the next attempt
realize moves pause NAME     end its run in order, and begin no other one, also after a restart
realize moves resume NAME    go on as configured
"""


@click.command("moves", help=_MOVES_HELP, short_help=SUMMARIES["moves"])
@click.argument("words", nargs=-1, metavar="[list] [PEER] | show|run|pause|resume NAME [PEER]")
@remote_options
@click.option("--json", is_flag=True, help="Write one JSON object.")
def moves(words: tuple[str, ...], *, access: Access, log: LogOptions, json: bool) -> int:
    """Say what to do, and do it."""
    from realize.cli.commands.moves_run import run_moves

    action, name, peer = parsed(words)
    return run_moves(peer, access, action, name, json=json, log=log)


def parsed(words: tuple[str, ...]) -> tuple[str, str | None, str | None]:
    """What to do, with which move, and of which peer; raises `UsageError`."""
    named = words and words[0] in {"list", "show", *STEERING}
    action, rest = (words[0], words[1:]) if named else ("list", words)
    name = None
    if action != "list":
        if not rest:
            raise UsageError(f"{action}: the name of a move is missing: {_WAYS_TO_CALL}")
        name, rest = rest[0], rest[1:]
    if len(rest) > 1:
        raise UsageError(f"{' '.join(words)}: too many words: {_WAYS_TO_CALL}")
    return action, name, rest[0] if rest else None
